"""What one end of a pair is before a codec reads it: a text, a reference to a media file, or a track of numbers.

In: nothing. Out: the three kinds of `Value`, the `Row` that a codec stores for one, and what is raised for one that
cannot be read. The decision a reader would question: a picture or a recording is a reference, never its content, so
that a corpus of a million files is a list of names until a batch needs them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Media:
    """A file, a member of a .tar archive, or a stretch of one."""

    path: Path
    """The file itself or the archive."""
    member: str | None = None
    """Name inside the archive."""
    start: float | None = None
    """Seconds; None = from the beginning."""
    end: float | None = None
    """Seconds; None = to the end."""

    def place(self) -> str:
        """For messages: `train.tar:train/x.flac`, `talk.wav [1.5 s to 9 s]`."""
        name = str(self.path) if self.member is None else f"{self.path}:{self.member}"
        if self.start is None and self.end is None:
            return name
        return f"{name} [{self.start or 0:g} s to {'the end' if self.end is None else f'{self.end:g} s'}]"


@dataclass(frozen=True, eq=False)
class Track:
    """Numbers at equal time steps. values: (T, C) float32 in the user's units.

    anchor: the last observed step or steps of the source that this target continues, (C,) or (2, C), the latest last; None = none.
    """

    values: NDArray[np.float32]
    anchor: NDArray[np.float32] | None = None


Value = str | Media | Track
NOTHING = ""
"""The source of a language model, which has none."""


def shown(value: Value) -> str:
    """A value in a line of text: a text itself, the place of a media file, how many steps of what a track has."""
    match value:
        case str():
            return value
        case Media():
            return value.place()
        case Track():
            return f"{value.values.shape[0]} steps of {value.values.shape[1]} numbers"


class BadValueError(Exception):
    """A value that cannot be read. `reason` is counted (tolerant) or raised with its place (strict), `detail` is shown."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Row:
    """What a codec makes of one value: 1-D `data` that is stored, or what it decoded. width: positions that lengths and budgets count.
    problem: why there is none."""

    data: NDArray[Any]
    width: int
    problem: BadValueError | None = None


def attempt(make_row: Callable[[Any], Row], values: Sequence[Value]) -> Iterator[Row]:
    """A row for each value, made when it is asked for; one that cannot be read gets an empty row with its problem."""
    for value in values:
        try:
            row = make_row(value)
        except BadValueError as error:
            row = Row(np.zeros(0, dtype=np.uint8), 0, error)
        yield row
