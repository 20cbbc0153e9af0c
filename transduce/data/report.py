"""What happened to the user's records: read, left out and why, how long they are, whether they survive the codec.

In: events from the readers and the store. Out: lines for people and a dictionary for JSON.
Every count is exact; only the list of places is cut (the first five of each reason), so a report of ten million
records stays small enough to be kept beside the cached tokens and to be shown again on the second start.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

PLACES_KEPT = 5


@dataclass
class Occurrences:
    """How often something was met, and the first places ("file:line")."""

    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        """One more, at `place`."""
        self.count += 1
        if len(self.places) < PLACES_KEPT:
            self.places.append(place)

    def describe(self, reason: str) -> str:
        """`3 source too long (first: train.en:17)`."""
        return f"{self.count} {reason} (first: {self.places[0]})" if self.places else f"{self.count} {reason}"


@dataclass(frozen=True)
class LengthStatistics:
    """Lengths in positions: tokens with the end of sequence, frames of sound, steps of a track."""

    mean: float
    median: int
    percentile_99: int
    longest: int
    tokens: int

    @classmethod
    def of(cls, widths: NDArray[np.int32]) -> "LengthStatistics | None":
        """From the width of each row; None where there are none."""
        if not len(widths):
            return None
        median, high, longest = (int(value) for value in np.quantile(widths, (0.5, 0.99, 1.0), method="nearest"))
        tokens = int(widths.sum(dtype=np.int64))
        return cls(round(tokens / len(widths), 2), median, high, longest, tokens)


@dataclass(frozen=True)
class Lossless:
    """Whether values come back from a codec as they went in: of `checked` values `lossy` did not."""

    checked: int
    lossy: int
    example: str | None = None
    """The first value that changed."""

    def describe(self, end: str, total: int) -> str:
        """One line for people; `total` is how many values there are, of which `checked` were looked at."""
        sampled = "" if self.checked >= total else f" (a sample spread evenly over {total})"
        line = f"lossless check, {end}: {self.lossy} of {self.checked} values{sampled} change on the way through the codec"
        return line if self.example is None else f"{line}, for example {self.example[:80]!r}"


@dataclass
class CorpusReport:
    """One corpus: records read and left out per reason, things worth knowing, lengths, losslessness."""

    name: str
    read: int = 0
    skipped: dict[str, Occurrences] = field(default_factory=dict)
    noted: dict[str, Occurrences] = field(default_factory=dict)
    source_lengths: LengthStatistics | None = None
    target_lengths: LengthStatistics | None = None
    source_lossless: Lossless | None = None
    target_lossless: Lossless | None = None

    @property
    def kept(self) -> int:
        """Records that were not left out."""
        return self.read - sum(entry.count for entry in self.skipped.values())

    def skip(self, reason: str, place: str) -> None:
        """A record was left out."""
        self.skipped.setdefault(reason, Occurrences()).add(place)

    def note(self, what: str, place: str) -> None:
        """Something worth knowing about a record that was kept."""
        self.noted.setdefault(what, Occurrences()).add(place)

    def lines(self) -> list[str]:
        """For people."""
        left_out = self.read - self.kept
        lines = [f"{self.name}: {self.read} pairs read, {self.kept} kept, {left_out} left out"]
        lines += [f"  left out: {entry.describe(reason)}" for reason, entry in self.skipped.items()]
        lines += [f"  note: {entry.describe(reason)}" for reason, entry in self.noted.items()]
        for end, lengths in (("source", self.source_lengths), ("target", self.target_lengths)):
            if lengths is not None:
                lines.append(
                    f"  {end} tokens: mean {lengths.mean}, median {lengths.median}, 99 % <= {lengths.percentile_99}, "
                    f"longest {lengths.longest}, {lengths.tokens} in all"
                )
        for end, lossless in (("source", self.source_lossless), ("target", self.target_lossless)):
            if lossless is not None:
                lines.append("  " + lossless.describe(end, self.kept))
        return lines

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> "CorpusReport":
        """The inverse of `dataclasses.asdict`."""
        return cls(
            name=tree["name"],
            read=tree["read"],
            skipped={reason: Occurrences(**entry) for reason, entry in tree["skipped"].items()},
            noted={reason: Occurrences(**entry) for reason, entry in tree["noted"].items()},
            source_lengths=None if tree["source_lengths"] is None else LengthStatistics(**tree["source_lengths"]),
            target_lengths=None if tree["target_lengths"] is None else LengthStatistics(**tree["target_lengths"]),
            source_lossless=None if tree["source_lossless"] is None else Lossless(**tree["source_lossless"]),
            target_lossless=None if tree["target_lossless"] is None else Lossless(**tree["target_lossless"]),
        )

    def renamed(self, name: str, paths: Mapping[str, str]) -> "CorpusReport":
        """The same figures for files with the same content at another place: `paths` maps old to new paths."""
        tree = asdict(self) | {"name": name}
        for entry in (*tree["skipped"].values(), *tree["noted"].values()):
            entry["places"] = [_moved(place, paths) for place in entry["places"]]
        return CorpusReport.from_dict(tree)


def _moved(place: str, paths: Mapping[str, str]) -> str:
    path, _, line = place.rpartition(":")
    return f"{paths.get(path, path)}:{line}"


@dataclass
class DataReport:
    """All corpora of a run, in the order in which they were read, and the padding share of the first epoch."""

    corpora: list[CorpusReport] = field(default_factory=list)
    padding_share: float | None = None
    """Padding over all cells of the source and target rectangles of epoch 0."""

    def start(self, name: str) -> CorpusReport:
        """A fresh entry for a corpus that is about to be read."""
        self.corpora.append(CorpusReport(name))
        return self.corpora[-1]

    def lines(self) -> list[str]:
        """For people."""
        lines = [line for corpus in self.corpora for line in corpus.lines()]
        if self.padding_share is not None:
            lines.append(f"padding: {100 * self.padding_share:.1f} % of the tokens in a batch")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        corpora = [asdict(corpus) | {"kept": corpus.kept} for corpus in self.corpora]
        return {"corpora": corpora, "padding_share": self.padding_share}


def merge_lossless(parts: Sequence[Lossless | None]) -> Lossless:
    """One figure for several corpora."""
    known = [part for part in parts if part is not None]
    examples = [part.example for part in known if part.example is not None]
    return Lossless(sum(part.checked for part in known), sum(part.lossy for part in known), examples[0] if examples else None)
