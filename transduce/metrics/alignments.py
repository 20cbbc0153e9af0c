"""Which word of a reference became which word of a prediction: the alignment behind an error rate.

In: predictions, references, and the name of an error rate. Out: an `EditAlignment` each. The decision a reader would question: every
rate is aligned by what counts it (jiwer for wer and cer, `edits.edit_path` for per), not by one aligner for all, because shortest
alignments are not unique and the kinds of edits that are shown must be those that were counted.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Literal, NamedTuple

from transduce.metrics.edits import EDIT_KINDS, EditCounts, EditKind, JiwerRate, edit_path, jiwer_process, jiwer_units
from transduce.metrics.score import check_texts

Unit = Literal["word", "character", "symbol"]
JIWER_KINDS: dict[str, EditKind] = {"equal": "hit", "substitute": "substitution", "insert": "insertion", "delete": "deletion"}


class Edit(NamedTuple):
    """One place of an alignment. reference, prediction: the word, character or symbol on each side; "" where there is none."""

    kind: EditKind
    reference: str
    prediction: str


@dataclass(frozen=True)
class EditAlignment:
    """A prediction beside the closest of its references. reference_number: which one, from 0."""

    unit: Unit
    edits: tuple[Edit, ...]
    reference_number: int = 0

    @property
    def counts(self) -> EditCounts:
        """How many edits of each kind."""
        found = Counter(edit.kind for edit in self.edits)
        return EditCounts(*(found[kind] for kind in EDIT_KINDS))

    def to_dict(self) -> dict[str, object]:
        """For JSON: unit, counts, `reference` (from 1), and `alignment`, a list of [kind, reference, prediction]."""
        counts: dict[str, object] = dict(self.counts._asdict())
        return {"unit": self.unit, **counts, "reference": self.reference_number + 1, "alignment": [list(edit) for edit in self.edits]}


def align_texts(metric: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[EditAlignment]:
    """Alignments of all sentences; their counts add up to those of the metric's `Score`.

    metric: a key of `ALIGNERS`. Raises ConfigError for a missing extra, DataError for empty or unequal inputs.
    """
    check_texts(predictions, references)
    unit, align = ALIGNERS[metric]
    return [_closest(unit, [align(prediction, text) for text in texts]) for prediction, texts in zip(predictions, references, strict=True)]


def frequent_errors(alignments: Sequence[EditAlignment], most: int) -> list[tuple[Edit, int]]:
    """What goes wrong most often, with how often; of equals in the order of the alphabet."""
    found = Counter(edit for alignment in alignments for edit in alignment.edits if edit.kind != "hit")
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))[:most]


def _closest(unit: Unit, candidates: Sequence[tuple[Edit, ...]]) -> EditAlignment:
    """The one that `edits.closest` counts."""
    found = [EditAlignment(unit, edits, number) for number, edits in enumerate(candidates)]
    return min(found, key=lambda alignment: (alignment.counts.errors, -alignment.counts.hits))


def _by_jiwer(rate: JiwerRate, prediction: str, reference: str) -> tuple[Edit, ...]:
    """jiwer's alignment of one sentence is a list of stretches of one kind each."""
    if not reference.strip():
        return tuple(Edit("insertion", "", unit) for unit in jiwer_units(rate, prediction))
    found = jiwer_process(rate)(reference, prediction)
    before, after = found.references[0], found.hypotheses[0]
    edits: list[Edit] = []
    for chunk in found.alignments[0]:
        sides = before[chunk.ref_start_idx : chunk.ref_end_idx], after[chunk.hyp_start_idx : chunk.hyp_end_idx]
        edits += [Edit(JIWER_KINDS[chunk.type], ours, theirs) for ours, theirs in zip_longest(*sides, fillvalue="")]
    return tuple(edits)


def _symbols(prediction: str, reference: str) -> tuple[Edit, ...]:
    before, after = iter(reference.split()), iter(prediction.split())
    return tuple(
        Edit(kind, "" if kind == "insertion" else next(before), "" if kind == "deletion" else next(after))
        for kind in edit_path(prediction.split(), reference.split())
    )


ALIGNERS: dict[str, tuple[Unit, Callable[[str, str], tuple[Edit, ...]]]] = {
    "wer": ("word", partial(_by_jiwer, "wer")),
    "cer": ("character", partial(_by_jiwer, "cer")),
    "per": ("symbol", _symbols),
}
"""Error rates, what they count, and how one prediction is aligned with one reference."""
