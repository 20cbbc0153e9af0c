"""The codec of a source that is not there: language models learn targets alone.

In: the empty text, which stands for nothing. Out: rows of one position that hold nothing. The decision a reader would question:
a text where nothing is expected is a bad value, so that nobody believes that a language model has read it.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from transduce.data.batch import Padded
from transduce.data.report import Lossless
from transduce.data.symbols import digest_of, write_codec
from transduce.data.values import NOTHING, BadValueError, Row, Value, attempt, shown
from transduce.model.frontends import NoSource
from transduce.settings import Settings


class NoSourceConfig(Settings):
    """No source: the model is a language model of the targets."""

    kind: Literal["none"] = "none"


class NoSourceCodec:
    """Nothing in, nothing out. See `Codec` for what the members mean."""

    kind = "none"
    digest = digest_of({"kind": "none"})
    shape = NoSource()
    row_type = np.dtype(np.uint8)

    def rows(self, values: Sequence[Value], *, thorough: bool = False) -> list[Row]:  # noqa: ARG002
        """One position each; a value that says something has a problem."""
        return list(attempt(_row, values))

    def contents(self, values: Sequence[Value]) -> Iterator[Row]:
        """The same rows."""
        return attempt(_row, values)

    def collate(self, rows: Sequence[NDArray[Any]], keys: NDArray[np.uint64] | None) -> Padded:  # noqa: ARG002
        """(B, 1) zeros, each one position."""
        return Padded(torch.zeros(len(rows), 1, dtype=torch.int64), torch.ones(len(rows), dtype=torch.int64))

    def flags(self, value: Value, row: NDArray[Any]) -> tuple[str, ...]:  # noqa: ARG002
        """Nothing is to be said of nothing."""
        return ()

    def num_unknown(self, row: NDArray[Any]) -> int:  # noqa: ARG002
        """None."""
        return 0

    def labels(self, row: NDArray[Any]) -> list[str]:  # noqa: ARG002
        """None."""
        return []

    def check(self, values: Iterable[Value]) -> Lossless | None:  # noqa: ARG002
        """There is nothing to lose."""
        return None

    def describe(self) -> str:
        """For people."""
        return "none (a language model)"

    def save(self, directory: Path) -> None:
        """Writes codec.json."""
        write_codec(directory, {"kind": self.kind})


def _row(value: Value) -> Row:
    if value != NOTHING:
        raise BadValueError("unexpected source", f"a language model reads no source, this one is {shown(value)[:60]!r}")
    return Row(np.zeros(0, dtype=np.uint8), 1)
