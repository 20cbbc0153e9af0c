"""Pictures as PNG files: attention, learning curves, scores by source length, fans of tracks, sound. Drawn with matplotlib (extra `plot`).

In: arrays and recorded figures. Out: a file, written beside its place and renamed. The decision to question: matplotlib's
object interface is used, never pyplot, so that no global figure list and no display is involved.
"""

import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transduce.errors import ConfigError
from transduce.metrics.by_length import LengthScore
from transduce.train.journal import Curves, writing

# Families that hold scripts which matplotlib's own DejaVu Sans lacks; those that are installed are tried in this order.
FALLBACK_FONTS = ("Noto Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "IPAGothic", "Arial Unicode MS")
COLORS = ("#2563eb", "#c2410c", "#047857", "#7c3aed", "#b45309", "#0e7490")


def attention_png(path: Path, weights: NDArray[np.floating[Any]], *, source: Sequence[str], target: Sequence[str], title: str = "") -> None:
    """Attention as a grey-blue map: one row for each target piece, one column for each source piece.

    weights: (T, S), rows sum to 1. The labels are as many as rows and columns. Raises ConfigError without matplotlib, StorageError.
    """
    height, width = weights.shape
    with _canvas(path, min(2 + 0.32 * width, 24), min(1.6 + 0.32 * height, 24)) as figure:
        known = _known_marks()
        axes = figure.add_subplot()
        axes.imshow(np.asarray(weights, dtype=np.float64), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(width), [_drawable(piece, known) for piece in source], rotation=90)
        axes.set_yticks(range(height), [_drawable(piece, known) for piece in target])
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        if title:
            axes.set_xlabel(_drawable(title, known))


def learning_curves_png(path: Path, curves: Curves) -> None:
    """The loss (training and validation) and each metric over steps, one panel each; perplexity is left to the table."""
    metrics = [name for name in curves.metrics if name not in ("loss", "perplexity")]
    with _canvas(path, 4.2 * (1 + len(metrics)), 3.2) as figure:
        panels = figure.subplots(1, 1 + len(metrics), squeeze=False)[0]
        losses: dict[str, Sequence[tuple[float, float]]] = {"training": curves.training, "validation": curves.series("loss")}
        _plot_lines(panels[0], "loss per token", losses)
        for panel, name in zip(panels[1:], metrics, strict=True):
            _plot_lines(panel, name, {name: curves.series(name)})


def length_png(path: Path, systems: Mapping[str, Sequence[LengthScore]]) -> None:
    """A metric by source length, one line for each system, with 95 % intervals. All were scored on the same sources."""
    with _canvas(path, 6.4, 4) as figure:
        known = _known_marks()
        axes = figure.add_subplot()
        for index, (name, groups) in enumerate(systems.items()):
            values = np.array([group.score.value for group in groups])
            bounds = np.array([group.score.interval or (group.score.value,) * 2 for group in groups])
            spread = np.abs(bounds.T - values)  # (2, groups)
            style = {"color": COLORS[index % len(COLORS)], "marker": "o", "capsize": 3, "linewidth": 1.6}
            axes.errorbar(range(len(groups)), values, yerr=spread, label=_drawable(name, known), **style)
        groups = next(iter(systems.values()))
        axes.set_xticks(range(len(groups)), [f"{group.label}\nn={group.count}" for group in groups])
        axes.set_xlabel(f"source length in {groups[0].unit}")
        axes.set_ylabel(groups[0].score.name)
        _tidy(axes)
        figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)


@dataclass(frozen=True)
class Fan:
    """One track: observed (S, C), what came (T, C), what was expected (T, C), and random guesses (T, C) each; x and y come first."""

    past: NDArray[np.float32]
    truth: NDArray[np.float32]
    expected: NDArray[np.float32]
    guesses: Sequence[NDArray[np.float32]] = ()


def fan_png(path: Path, fans: Sequence[Fan]) -> None:
    """Tracks from above, one panel each: the past, what came, what was expected, and the fan of guesses."""
    columns = min(len(fans), 3)
    rows = -(-len(fans) // columns)
    with _canvas(path, 3.6 * columns, 3.4 * rows + 0.4) as figure:
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, fan in zip(panels, fans, strict=False):
            last = fan.past[-1:]
            for guess in fan.guesses:
                panel.plot(*np.concatenate([last, guess])[:, :2].T, color=COLORS[1], alpha=0.25, linewidth=1)
            for values, color, label in ((fan.expected, COLORS[1], "expected"), (fan.truth, COLORS[2], "what came")):
                panel.plot(*np.concatenate([last, values])[:, :2].T, color=color, linewidth=2, label=label)
            panel.plot(*fan.past[:, :2].T, color=COLORS[0], linewidth=2, label="past")
            panel.plot(*last[:, :2].T, marker="o", color=COLORS[0])
            panel.set_aspect("equal", adjustable="datalim")
            _tidy(panel)
        for panel in panels[len(fans) :]:
            panel.set_visible(False)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)


@dataclass(frozen=True)
class Heard:
    """One recording: samples (N,), features (F, C), and where each target piece lies (T, S), by CTC or attention. seconds: its length."""

    samples: NDArray[np.float32]
    features: NDArray[np.float32]
    alignment: NDArray[np.floating[Any]]
    target: Sequence[str]
    seconds: float


def sound_png(path: Path, heard: Heard, *, title: str = "") -> None:
    """Waveform, features and alignment one above the other, over the same time."""
    extent = (0.0, heard.seconds)
    with _canvas(path, min(4 + 1.6 * heard.seconds, 24), 5.2) as figure:
        known = _known_marks()
        wave, features, pieces = figure.subplots(3, 1, sharex=True, height_ratios=(1, 1.3, 1.6))
        wave.plot(np.linspace(*extent, len(heard.samples)), heard.samples, color=COLORS[0], linewidth=0.5)
        wave.set_ylabel("samples")
        features.imshow(heard.features.T, origin="lower", aspect="auto", extent=(*extent, 0, heard.features.shape[1]), cmap="magma")
        features.set_ylabel("features")
        weights = np.asarray(heard.alignment, dtype=np.float64)
        rows = len(weights)
        pieces.imshow(weights, cmap="Blues", vmin=0, aspect="auto", extent=(*extent, rows - 0.5, -0.5), interpolation="nearest")
        pieces.set_yticks(range(rows), [_drawable(piece, known) for piece in heard.target])
        pieces.set_ylabel("alignment")
        pieces.set_xlabel("seconds")
        for axes in (wave, features, pieces):
            axes.spines[["top", "right"]].set_visible(False)
        if title:
            wave.set_title(_drawable(title, known), fontsize=10, loc="left")


@dataclass(frozen=True)
class Look:
    """A picture (H, W, 3) uint8, the words written about it, and where each was looked at: (words, cells of the square grid)."""

    pixels: NDArray[np.uint8]
    words: Sequence[str]
    weights: NDArray[np.floating[Any]]
    title: str = ""


def looks_png(path: Path, looks: Sequence[Look]) -> None:
    """A row for each picture: the picture itself, then under each word the picture, lit where the model looked (Xu 2015, figure 5)."""
    columns = 1 + max(len(look.words) for look in looks)
    with _canvas(path, 1.25 * columns, 1.5 * len(looks)) as figure:
        known = _known_marks()
        panels = figure.subplots(len(looks), columns, squeeze=False)
        for row, look in zip(panels, looks, strict=True):
            grid = round(look.weights.shape[1] ** 0.5)
            edge = (-0.5, look.pixels.shape[1] - 0.5, look.pixels.shape[0] - 0.5, -0.5)
            for panel, word, weights in zip(row[1:], look.words, look.weights, strict=False):
                panel.imshow(look.pixels.mean(2), cmap="gray", vmin=-120, vmax=400)
                light = weights.reshape(grid, grid) / max(float(weights.max()), 1e-9)
                panel.imshow(light, cmap="inferno", alpha=0.55, vmin=0, vmax=1, extent=edge, interpolation="bilinear")
                panel.set_title(_drawable(word, known), fontsize=9)
            row[0].imshow(look.pixels)
            row[0].set_title(_drawable(look.title, known), fontsize=9)
            for panel in row:
                panel.set_axis_off()


def _plot_lines(axes: Any, title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    for color, (name, points) in zip(COLORS, series.items(), strict=False):
        if points:
            marker = "o" if len(points) < 40 else None
            axes.plot([step for step, _ in points], [value for _, value in points], label=name, color=color, marker=marker, markersize=3)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("step")
    _tidy(axes)
    if sum(bool(points) for points in series.values()) > 1:
        axes.legend(frameon=False, fontsize=8)


def _tidy(axes: Any) -> None:
    axes.grid(axis="y", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


@contextmanager
def _canvas(path: Path, width: float, height: float) -> Iterator[Any]:
    """A figure of that many inches, saved to `path` at the end."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError('pictures need matplotlib, which is not installed: pip install "transduce[plot]"') from error
    with matplotlib.rc_context({"font.family": _families()}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a layout too small for its labels is drawn all the same
        figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
        yield figure
        beside = path.with_name(f".tmp-{path.name}")
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(beside, format="png")
            beside.replace(path)


def _families() -> list[str]:
    """The fonts that labels are drawn with, the first that has a character draws it."""
    from matplotlib import font_manager

    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]


def _known_marks() -> set[int]:
    """The code points that those fonts can draw (reading them takes a moment, so only pictures of user texts ask)."""
    from matplotlib import font_manager

    known: set[int] = set()
    for family in _families():
        known.update(font_manager.get_font(font_manager.findfont(family)).get_charmap())
    return known


def _drawable(text: str, known: set[int]) -> str:
    """The text with each character that no font has as its code point (U+5E74), and no mathematics in dollar signs."""
    drawn = "".join(mark if ord(mark) in known or mark.isspace() or unicodedata.combining(mark) else f"U+{ord(mark):04X}" for mark in text)
    return drawn.replace("$", r"\$")
