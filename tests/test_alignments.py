"""Alignments of predictions with references: what became what, and that it is what the error rates count."""

import random

import pytest

from transduce.errors import DataError
from transduce.metrics import compute_metrics
from transduce.metrics.alignments import Edit, align_texts, frequent_errors
from transduce.metrics.edits import EDIT_KINDS


def test_words_are_aligned_one_by_one() -> None:
    (found,) = align_texts("wer", ["turn the left now"], [["turn left at now"]])
    assert found.unit == "word" and found.edits == (
        Edit("hit", "turn", "turn"),
        Edit("insertion", "", "the"),
        Edit("hit", "left", "left"),
        Edit("deletion", "at", ""),
        Edit("hit", "now", "now"),
    )
    assert found.counts == (3, 0, 1, 1)
    told = found.to_dict()
    assert told["insertions"] == 1 and told["reference"] == 1 and told["alignment"][1] == ["insertion", "", "the"]  # type: ignore[index]


@pytest.mark.parametrize("metric", ["wer", "cer", "per"])
def test_counts_add_up_to_those_of_the_score(metric: str) -> None:
    """On random texts with several references, empty ones and spaces too many among them."""
    rng = random.Random(1)
    texts = ["  ".join(rng.choices(["a", "b", "cab", "dd"], k=rng.randint(0, 7))) for _ in range(120)]
    predictions, references = texts[:40], [[first, second] for first, second in zip(texts[40:80], texts[80:], strict=True)]
    score = compute_metrics([metric], predictions, references)[metric]
    alignments = align_texts(metric, predictions, references)
    sums = [sum(alignment.counts[place] for alignment in alignments) for place in range(4)]
    assert sums == [score.details[f"{kind}s"] for kind in EDIT_KINDS]
    for alignment, prediction, group in zip(alignments, predictions, references, strict=True):
        reference = group[alignment.reference_number]
        split = list if metric == "cer" else str.split
        expected = [split(" ".join(text.split()) if metric != "cer" else text.strip()) for text in (reference, prediction)]
        sides = [[edit.reference for edit in alignment.edits], [edit.prediction for edit in alignment.edits]]
        assert [[item for item in side if item] for side in sides] == expected, "nothing is lost, nothing changes its place"
        assert all((edit.kind == "hit") == (edit.reference == edit.prediction) for edit in alignment.edits)


def test_the_most_frequent_errors_come_first() -> None:
    alignments = align_texts("per", ["a x c", "a x", "q"], [["a b c"], ["a b"], [""]])
    assert frequent_errors(alignments, 2) == [(Edit("substitution", "b", "x"), 2), (Edit("insertion", "", "q"), 1)]
    assert frequent_errors(alignments, 0) == []


def test_unequal_inputs_are_refused() -> None:
    with pytest.raises(DataError, match="2 predictions but 1"):
        align_texts("wer", ["a", "b"], [["a"]])
