"""Tables of tracks, cut into windows: what is observed, and what comes next.

In: CSV, TSV, text, NPY or Parquet files with one row per object and frame. Out: pairs of `Track`s with the place they came from.
The decision a reader would question: rows may stand in any order of tracks, but within a track time must go forward; a row
that repeats a frame or goes back is a bad record, because nobody can know which of the two is right.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from transduce.data.report import CorpusReport
from transduce.data.values import Track
from transduce.errors import ConfigError
from transduce.settings import Settings

Column = int | str
NOISE_SEED = 8128


class WindowsConfig(Settings):
    """How a table of tracks is read and cut."""

    layout: Literal["columns", "mot", "kitti"] = "columns"
    """columns: those named below. mot: MOTChallenge text (frame, id, left, top, width, height, ...). kitti: KITTI tracking labels."""
    frame: Column = 0
    """Column of the frame number: its number (from 0, in a table without a header) or its name in the header line."""
    track: Column = 1
    """Column that tells tracks apart."""
    values: tuple[Column, ...] = (2, 3)
    """Columns of the numbers that are predicted, for example x and y, or x, y, w and h."""
    sequence: Column | None = None
    """Column of the recording, where one file holds several; tracks of different recordings are different."""
    class_column: Column | None = None
    """Column of the kind of object, for `classes`."""
    classes: tuple[str, ...] = ()
    """Kinds of objects to keep; empty = all. Others are counted."""
    frame_step: int = Field(default=1, ge=1)
    """Frames between two steps of a track."""
    observed: int = Field(default=8, ge=1)
    """Steps of the source."""
    predicted: int = Field(default=12, ge=1)
    """Steps of the target."""
    stride: int = Field(default=1, ge=1)
    """Steps from one window of a track to the next."""
    gaps: Literal["cut", "interpolate"] = "cut"
    """Where frames of a track are missing: cut it there, or fill gaps of up to `max_gap` steps in a straight line. Both are counted."""
    max_gap: int = Field(default=2, ge=1)
    """Most missing steps that are filled."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.classes and self.class_column is None and self.layout == "columns":
            raise ConfigError("data.windows.classes needs data.windows.class_column, the column that holds them")
        columns = [self.frame, self.track, *self.values, *(column for column in (self.sequence, self.class_column) if column is not None)]
        if self.layout == "columns" and len({type(column) for column in columns}) > 1:
            raise ConfigError("data.windows: name all columns (the table has a header line) or number all of them (it has none)")
        return self

    @property
    def has_header(self) -> bool:
        """Whether columns are named, so that a text table begins with a header line."""
        return self.layout == "columns" and isinstance(self.frame, str)

    @property
    def length(self) -> int:
        """Steps of a whole window."""
        return self.observed + self.predicted


@dataclass(frozen=True)
class Step:
    """One row of a table. track: recording and name. line: where it stands, from 1."""

    track: tuple[str, str]
    frame: int
    values: tuple[float, ...]
    line: int


@dataclass(frozen=True)
class Window:
    """What is observed and what follows; the target's anchor is the last two observed steps (the only one twice, if there is one)."""

    source: Track
    target: Track
    line: int


def group_tracks(steps: Iterator[Step]) -> dict[tuple[str, str], list[Step]]:
    """The steps of each track, in order."""
    tracks: dict[tuple[str, str], list[Step]] = {}
    for step in steps:
        tracks.setdefault(step.track, []).append(step)
    return tracks


def cut_windows(steps: list[Step], config: WindowsConfig, *, entry: CorpusReport, path: Path) -> Iterator[Window]:
    """All windows of one track. What is too short for one, and every gap, is counted in `entry`."""
    for stretch in _stretches(steps, config, entry=entry, path=path):
        values, line = stretch
        if len(values) < config.length:
            entry.note(f"stretches of a track shorter than a window of {config.length} steps, not used", f"{path}:{line}")
        for start in range(0, len(values) - config.length + 1, config.stride):
            yield _window(values[start : start + config.length], config.observed, line)


def last_observed(steps: list[Step], config: WindowsConfig) -> Track | None:
    """The newest steps without a gap, for prediction; None where there are fewer than `observed`."""
    stretches = list(_stretches(steps, config, entry=CorpusReport(""), path=Path()))
    values = stretches[-1][0]
    return Track(values[-config.observed :]) if len(values) >= config.observed else None


def anchor_of(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T, C) -> the last two steps (2, C); the only one twice."""
    return values[[max(len(values) - 2, 0), len(values) - 1]]


def noisy(window: Window, most: float, number: int) -> Window:
    """A window whose observed steps carry noise of a standard deviation between 0 and `most`, a function of the window's number.

    The target goes on from what was (badly) observed, so that a model learns to put the last step right too.
    """
    draw = np.random.default_rng([NOISE_SEED, number])
    values = window.source.values
    observed = np.asarray(values + draw.uniform(0, most) * draw.standard_normal(values.shape), dtype=np.float32)
    return Window(Track(observed), Track(window.target.values, anchor_of(observed)), window.line)


def _window(values: NDArray[np.float32], observed: int, line: int) -> Window:
    source = values[:observed]
    return Window(Track(source), Track(values[observed:], anchor_of(source)), line)


def _stretches(steps: list[Step], config: WindowsConfig, *, entry: CorpusReport, path: Path) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Values (T, C) at equal steps without gaps, and the line where each begins."""
    rows: list[NDArray[np.float32]] = []
    line = steps[0].line
    for before, step in zip([None, *steps[:-1]], steps, strict=True):
        values = np.asarray(step.values, dtype=np.float32)
        missing = 0 if before is None else (step.frame - before.frame) / config.frame_step - 1
        if missing == 0:
            rows.append(values)
        elif config.gaps == "interpolate" and float(missing).is_integer() and missing <= config.max_gap:
            entry.note("gaps of a track, filled in a straight line", f"{path}:{step.line}")
            shares = np.arange(1, int(missing) + 2, dtype=np.float32) / (missing + 1)
            rows.extend(rows[-1] + share * (values - rows[-1]) for share in shares.tolist())
        else:
            entry.note("gaps of a track, where it is cut", f"{path}:{step.line}")
            yield np.stack(rows), line
            rows, line = [values], step.line
    yield np.stack(rows), line
