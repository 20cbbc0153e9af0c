"""A metric by source length: where does a model break down as sentences grow?

In: sources, predictions, references. Out: a score with its interval for each group of lengths. Lengths are in words;
where most sources are one or two words (dates, spelling, scripts without spaces) they are in characters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from transduce.metrics import find_metric
from transduce.metrics.score import Score, check_texts

NUM_RESAMPLES = 300


@dataclass(frozen=True)
class LengthScore:
    """The sources of `low` to `high` units (both included) and their score."""

    low: int
    high: int
    count: int
    unit: Literal["words", "characters"]
    score: Score

    @property
    def label(self) -> str:
        """`8-12`."""
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"


def source_lengths(sources: Sequence[str]) -> tuple[list[int], Literal["words", "characters"]]:
    """The length of each source and its unit."""
    words = [len(source.split()) for source in sources]
    if np.median(words) > 2:
        return words, "words"
    return [len(source.strip()) for source in sources], "characters"


def score_by_length(
    metric: str, sources: Sequence[str], *, predictions: Sequence[str], references: Sequence[Sequence[str]], num_groups: int = 6
) -> list[LengthScore]:
    """Scores of up to `num_groups` groups of about equal size, shortest first.

    The groups depend on the sources only, so several models on the same sources can share one plot.
    """
    check_texts(predictions, references)
    lengths, unit = source_lengths(sources)
    found = find_metric(metric)
    groups = []
    for low, high in _ranges(lengths, num_groups):
        chosen = [index for index, length in enumerate(lengths) if low <= length <= high]
        score = found([predictions[index] for index in chosen], [references[index] for index in chosen], resamples=NUM_RESAMPLES)
        groups.append(LengthScore(low, high, len(chosen), unit, score))
    return groups


def _ranges(lengths: Sequence[int], num_groups: int) -> list[tuple[int, int]]:
    """Disjoint ranges that cover all lengths, each with about the same number of sentences."""
    ordered = np.sort(np.asarray(lengths))
    last = np.arange(1, num_groups + 1) * len(ordered) // num_groups - 1
    ends = np.unique(ordered[np.maximum(last, 0)])  # the longest length of each group
    starts = np.concatenate([ordered[:1], ordered[np.searchsorted(ordered, ends[:-1], side="right")]])
    return [(int(low), int(high)) for low, high in zip(starts, ends, strict=True)]
