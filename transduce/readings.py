"""How models read sources: members of an ensemble, what is wrong with a source, and batches of what can be used.

In: models with their codecs, and values. Out: `Readings`, in the order given. Predictions of text and of tracks both start here.
The decision a reader would question: a media file is decoded once and kept until its stretch of sources is answered; a stretch ends
where what is kept would become too much. A source that cannot be read or is too long is flagged, not left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from transduce.data.batch import Padded
from transduce.data.codec import Codec
from transduce.data.tokens import EMPTY
from transduce.data.values import Row, Value
from transduce.errors import DataError
from transduce.model.seq2seq import Seq2Seq

TOO_LONG, UNREADABLE = "source_too_long", "unreadable_source"
HELD_BYTES = 1 << 26  # of decoded sources, and twice that between two stretches: 17 minutes of sound at 16 kHz, 1,300 pictures of 128 x 128


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
    """A stretch of encoded sources. rows: of each, by digest of the codec (members may share it). lengths: in positions, the longest."""

    members: tuple[Member, ...]
    values: Sequence[Value]
    rows: Sequence[dict[str, Row]]
    lengths: Sequence[int]
    flags: Sequence[tuple[str, ...]]

    def first(self, number: int) -> Row:
        """A source as the first member reads it."""
        return self.rows[number][self.members[0].source_codec.digest]

    def problem(self, number: int) -> str:
        """Why a source cannot be read; nothing where it can."""
        return next((str(row.problem) for row in self.rows[number].values() if row.problem is not None), "")

    def padded(self, batch: Sequence[int], device: torch.device) -> list[Padded]:
        """The sources numbered `batch` as each member reads them."""
        return padded_sources(self.members, [self.rows[number] for number in batch], device)

    def select(self, numbers: Sequence[int]) -> "Readings":
        """The sources of these numbers."""
        return Readings(
            self.members,
            [self.values[number] for number in numbers],
            [self.rows[number] for number in numbers],
            [self.lengths[number] for number in numbers],
            [self.flags[number] for number in numbers],
        )

    def searchable(self) -> list[int]:
        """Numbers of the sources that can be searched."""
        return [number for number, flags in enumerate(self.flags) if not {EMPTY, TOO_LONG, UNREADABLE} & set(flags)]


def padded_sources(members: Sequence[Member], rows: Sequence[Mapping[str, Row]], device: torch.device) -> list[Padded]:
    """Sources, each with its row by digest of the codec, as each member reads them."""
    found: dict[str, Padded] = {}
    for codec in (member.source_codec for member in members):
        if codec.digest not in found:
            found[codec.digest] = codec.collate([row[codec.digest].data for row in rows], None).to(device)
    return [found[member.source_codec.digest] for member in members]


def read_values(
    members: Sequence[Member], values: Sequence[Value], *, longest: int, refuse: bool, first_line: int = 1
) -> Iterator[Readings]:
    """The sources as each member reads them, in stretches that hold about `HELD_BYTES` at most (texts are one stretch).

    With `refuse`, a source longer than `longest` positions raises DataError with its line.
    """
    codecs = {member.source_codec.digest: member.source_codec for member in members}
    rows: list[dict[str, Row]] = []
    lengths: list[int] = []
    flags: list[tuple[str, ...]] = []
    start = held = 0
    for end, contents in enumerate(zip(*(codec.contents(values) for codec in codecs.values()), strict=True), start=1):
        rows.append(dict(zip(codecs, contents, strict=True)))
        lengths.append(max(row.width for row in contents))
        flags.append(_flags(members[0].source_codec, values[end - 1], contents, longest=longest))
        if refuse and TOO_LONG in flags[-1]:
            line = first_line + end - 1
            raise DataError(f"the source has {lengths[-1]} tokens with its end; the model takes {longest}", "input", line)
        held += sum(row.data.nbytes for row in contents)
        if end == len(values) or held >= HELD_BYTES:
            yield Readings(tuple(members), values[start:end], rows, lengths, flags)
            start, held, rows, lengths, flags = end, 0, [], [], []


def _flags(codec: Codec, value: Value, contents: Sequence[Row], *, longest: int) -> tuple[str, ...]:
    if any(row.problem is not None for row in contents):
        return (UNREADABLE,)
    too_long = max(row.width for row in contents) > longest
    return (*codec.flags(value, contents[0].data), *([TOO_LONG] if too_long else []))


class evaluation:  # noqa: N801 - a context manager reads as a verb
    """Models in evaluation mode inside, as they were afterwards (validation runs between training steps). A loaded model is in it
    already, and its modules are not looked at one by one."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.models = [member.model for member in members if member.model.training]

    def __enter__(self) -> None:
        self.before = [(module, module.training) for model in self.models for module in model.modules()]
        for model in self.models:
            model.eval()

    def __exit__(self, *problem: object) -> None:
        for module, training in self.before:
            module.training = training
