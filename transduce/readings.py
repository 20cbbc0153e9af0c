"""How models read sources: members of an ensemble, what is wrong with a source, and batches of what can be used.

In: models with their codecs, and values. Out: `Readings`, in the order given. Predictions of text and of tracks both start here.
The decision a reader would question: a source that cannot be read or is too long is flagged, not left out, so that every
source has its answer at its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from transduce.data.batch import Padded
from transduce.data.codec import Codec
from transduce.data.tokens import EMPTY
from transduce.data.values import Value
from transduce.errors import DataError
from transduce.model.seq2seq import Seq2Seq

TOO_LONG, UNREADABLE = "source_too_long", "unreadable_source"


@dataclass(frozen=True)
class LengthCeilings:
    """Longest source and target in tokens, end included, that the models were built for."""

    source: int = 1024
    target: int = 1024


@dataclass(frozen=True)
class Member:
    """One model of an ensemble and how it reads the source."""

    model: Seq2Seq
    source_codec: Codec


@dataclass(frozen=True)
class Readings:
    """Encoded sources. rows: per member, per source. lengths: in positions, the longest of the members' readings."""

    members: tuple[Member, ...]
    values: list[Value]
    rows: list[list[np.ndarray]]
    lengths: list[int]
    flags: list[tuple[str, ...]]

    def padded(self, batch: Sequence[int], device: torch.device) -> list[Padded]:
        """The sources numbered `batch` as each member reads them."""
        return [
            member.source_codec.collate([rows[number] for number in batch], None).to(device)
            for member, rows in zip(self.members, self.rows, strict=True)
        ]

    def searchable(self) -> list[int]:
        """Numbers of the sources that can be searched."""
        return [number for number, flags in enumerate(self.flags) if not {EMPTY, TOO_LONG, UNREADABLE} & set(flags)]


def read_values(members: Sequence[Member], values: Sequence[Value], *, longest: int, refuse: bool, first_line: int) -> Readings:
    """The sources as each member reads them. With `refuse`, one longer than `longest` positions raises DataError with its line."""
    readings = [member.source_codec.rows(values, thorough=True) for member in members]
    lengths = [max(row.width for row in rows) for rows in zip(*readings, strict=True)]
    flags: list[tuple[str, ...]] = []
    codec = members[0].source_codec
    for line, (value, row, length) in enumerate(zip(values, readings[0], lengths, strict=True), start=first_line):
        if row.problem is not None:
            flags.append((UNREADABLE,))
            continue
        if length > longest and refuse:
            raise DataError(f"the source has {length} tokens with its end; the model takes {longest}", "input", line)
        flags.append((*codec.flags(value, row.data), *([TOO_LONG] if length > longest else [])))
    return Readings(tuple(members), list(values), [[row.data for row in rows] for rows in readings], lengths, flags)


class evaluation:  # noqa: N801 - a context manager reads as a verb
    """Models in evaluation mode inside, as they were afterwards (validation runs between training steps)."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.models = [member.model for member in members]

    def __enter__(self) -> None:
        self.before = [(module, module.training) for model in self.models for module in model.modules()]
        for model in self.models:
            model.eval()

    def __exit__(self, *problem: object) -> None:
        for module, training in self.before:
            module.training = training
