"""What one end of a pair is before a codec reads it: a text, or a track of numbers.

In: nothing. Out: the two kinds of `Value`, the `Row` that a codec stores for one, and what is raised for one that cannot be read.
The decision a reader would question: a value that cannot be read becomes a row with its problem, so that whoever asked for many
gets as many answers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Track:
    """Numbers at equal time steps. values: (T, C) float32 in the user's units.

    anchor: the last observed step or steps of the source that this target continues, (C,) or (2, C), the latest last; None = none.
    """

    values: NDArray[np.float32]
    anchor: NDArray[np.float32] | None = None


Value = str | Track


def shown(value: Value) -> str:
    """A value in a line of text: a text itself, how many steps of what a track has."""
    match value:
        case str():
            return value
        case Track():
            return f"{value.values.shape[0]} steps of {value.values.shape[1]} numbers"


class BadValueError(Exception):
    """A value that cannot be read. `reason` is counted (tolerant) or raised with its place (strict), `detail` is shown."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Row:
    """What a codec stores of one value. data: 1-D. width: positions that lengths and budgets count. problem: why there is none."""

    data: NDArray[Any]
    width: int
    problem: BadValueError | None = None


def attempt(make_row: Callable[[Any], Row], values: Sequence[Value]) -> list[Row]:
    """A row for each value; one that cannot be read gets an empty row with its problem."""
    rows = []
    for value in values:
        try:
            rows.append(make_row(value))
        except BadValueError as error:
            rows.append(Row(np.zeros(0, dtype=np.uint8), 0, error))
    return rows
