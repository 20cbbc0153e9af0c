"""Exhibits as HTML: a picture with where each word was looked at, a recording with when each token was said.

In: `Sight` and `Hearing`. Out: HTML with pictures inside it. The decision to question: a picture stands in the page once, and each word
darkens it with a mask of one number per cell, so that a caption costs a few kilobytes instead of a drawing of a megabyte.
"""

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from transduce.report.charts import nice_ticks, short_number
from transduce.report.exhibits import Exhibit, Hearing, Sight
from transduce.report.pixels import jpeg_uri, png_uri, ramp

LARGEST = 192  # pixels of a side, as stored in the page
LOOK = 104  # and as shown
DARKEST = 205  # opacity where nothing was looked at, of 255
HEAT = ramp(((8, 6, 30), (86, 20, 110), (187, 55, 84), (249, 142, 9), (252, 255, 190)), 24)
# Heights of the parts of a recording, from top to bottom, and the room between two of them.
WAVE, FEATURES, LANE, ATTENTION_ROW, ATTENTION, GAP, AXIS = 52, 84, 22, 9, 150, 6, 20
NARROWEST, WIDEST, TOKEN_WIDTH = 880, 2400, 15


def draw(exhibit: Exhibit, name: str) -> str:
    """HTML of one exhibit. name: unique in the page."""
    match exhibit:
        case Sight():
            return _draw_sight(exhibit, name)
        case Hearing():
            return _draw_hearing(exhibit)


def exhibit_note(exhibits: Sequence[Exhibit | None]) -> str:
    """What is seen in drawings of this kind, for people."""
    for exhibit in exhibits:
        match exhibit:
            case Sight(looks=None):
                return "The picture is shown as the model sees it; this model has no attention to draw."
            case Sight():
                return "The picture is shown as the model sees it, then lit where the model looked for each word."
            case Hearing(spans=spans, attention=attention):
                parts = ["waveform", "features", *(["when each token was said"] if spans else [])]
                parts += [] if attention is None else ["attention (a row for each token, bright where it looked)"]
                return f"Over the time of the recording: {', '.join(parts)}."
    return ""


def _draw_sight(sight: Sight, name: str) -> str:
    picture = f'<image id="{name}" href="{jpeg_uri(sight.pixels, largest=LARGEST)}" width="{LOOK}" height="{LOOK}"/>'
    looks = [_look(picture, "the picture", strong=True)]
    if sight.looks is not None:
        for word, weights in zip(sight.words, sight.looks, strict=True):
            mask = f'<image href="{_mask(weights)}" width="{LOOK}" height="{LOOK}" preserveAspectRatio="none"/>'
            looks.append(_look(f'<use href="#{name}"/>{mask}', word))
    return f'<div class="looks">{"".join(looks)}</div>'


def _look(content: str, label: str, *, strong: bool = False) -> str:
    svg = f'<svg role="img" aria-label="{escape(label)}" width="{LOOK}" height="{LOOK}" viewBox="0 0 {LOOK} {LOOK}">{content}</svg>'
    return f'<div class="look">{svg}<span{" class=quiet" if strong else ""}>{escape(label)}</span></div>'


def _mask(weights: NDArray[np.float32]) -> str:
    """(grid, grid) -> black, the more opaque the less was looked there, relative to where the word was looked at most."""
    light = weights / max(float(weights.max()), 1e-9)
    opacity = (DARKEST * (1 - light)).round().astype(np.uint8)
    return png_uri(np.stack([np.zeros_like(opacity), opacity], axis=2))


def _draw_hearing(hearing: Hearing) -> str:
    """Waveform, features, tokens and attention one above the other, over the same time."""
    width = min(max(NARROWEST, TOKEN_WIDTH * len(hearing.tokens)), WIDEST)
    parts = [_wave(hearing, width), _picture(_heat(hearing.features.T[::-1]), top=WAVE + GAP, size=(width, FEATURES))]
    top = WAVE + GAP + FEATURES + GAP
    if hearing.spans:
        parts.append(_lane(hearing, width, top))
        top += LANE + GAP
    if hearing.attention is not None:
        height = min(ATTENTION_ROW * len(hearing.attention), ATTENTION)
        parts.append(_picture(_heat(hearing.attention), top=top, size=(width, height)))
        top += height + GAP
    parts.append(_seconds(hearing.seconds, width, top))
    size = f'width="{width}" height="{top + AXIS}" viewBox="0 0 {width} {top + AXIS}"'
    label = f"waveform and features of {hearing.seconds:.2f} seconds"
    return f'<div class="scroll"><svg class="sound" role="img" aria-label="{label}" {size}>{"".join(parts)}</svg></div>'


def _wave(hearing: Hearing, width: int) -> str:
    """The band between the lowest and the highest sample of each column, the loudest sample at the edge."""
    middle, loudest = WAVE / 2, max(float(np.abs(hearing.wave).max()), 1e-6)
    xs = np.linspace(0, width, len(hearing.wave))
    ys = middle - hearing.wave / loudest * (middle - 1)  # (N, 2)
    there = [f"{x:.0f},{y:.1f}" for x, y in zip(xs, ys[:, 1], strict=True)]
    back = [f"{x:.0f},{y:.1f}" for x, y in zip(xs[::-1], ys[::-1, 0], strict=True)]
    return f'<polygon class="wave" points="{" ".join([*there, *back])}"/>'


def _heat(rows: NDArray[np.float32]) -> str:
    """(H, W) -> its smallest number dark, its largest bright."""
    low, high = float(rows.min()), float(rows.max())
    levels = ((rows - low) / max(high - low, 1e-9) * (len(HEAT) - 1)).round().astype(np.uint8)
    return png_uri(levels[:, :, None], palette=HEAT)


def _picture(uri: str, *, top: int, size: tuple[int, int]) -> str:
    return f'<image href="{uri}" x="0" y="{top}" width="{size[0]}" height="{size[1]}" preserveAspectRatio="none"/>'


def _lane(hearing: Hearing, width: int, top: int) -> str:
    """A box for each token from its first moment to its last, with its text in the middle."""
    scale, parts = width / hearing.seconds, []
    for token, (start, end) in zip(hearing.tokens, hearing.spans, strict=True):
        left, size = start * scale, max((end - start) * scale, 2.0)
        title = f"<title>{escape(token)}: {start:.2f} to {end:.2f} s</title>"
        parts.append(f'<rect class="span" x="{left:.1f}" y="{top}" width="{size:.1f}" height="{LANE}" rx="2">{title}</rect>')
        place = f'x="{left + size / 2:.1f}" y="{top + LANE / 2 + 4:.1f}" text-anchor="middle"'
        parts.append(f'<text class="piece" {place}>{escape(token)}</text>')
    return "".join(parts)


def _seconds(seconds: float, width: int, top: int) -> str:
    ticks = [tick for tick in nice_ticks(0, seconds, 10) if tick <= seconds]
    texts = []
    for tick in ticks:
        anchor = "start" if tick == 0 else "end" if tick > 0.97 * seconds else "middle"
        unit = " s" if tick == ticks[-1] else ""
        text = f"{short_number(tick)}{unit}"
        texts.append(f'<text class="tick" x="{tick / seconds * width:.1f}" y="{top + 12}" text-anchor="{anchor}">{text}</text>')
    return "".join(texts)
