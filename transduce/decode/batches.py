"""Which sentences are searched together: sorted by length, under a token budget.

In: a length per sentence. Out: lists of sentence numbers, longest first, so that the largest batch comes first and a lack of memory
shows at once.
"""

from collections.abc import Sequence

SMALLEST_SHARE = 48
"""Sentences of a batch below which it is not made smaller for the sake of others, unless these would have nothing."""


def plan_batches(lengths: Sequence[int], *, budget: int, rows_each: int = 1, workers: int = 1) -> list[list[int]]:
    """Sentence numbers in batches. The longest length of a batch times its sentences times `rows_each` stays within `budget`;
    one sentence always fits.

    workers: processes that take one batch after the other. Where there are several a batch has at most half of each one's share of what
    is left (guided self-scheduling: Polychronopoulos and Kuck 1987), so that they are done at about the same time.
    """
    batches: list[list[int]] = []
    room, left = 0, len(lengths)
    smallest = min(SMALLEST_SHARE, -(-left // workers))
    for number in longest_first(lengths):
        if room == 0:
            batches.append([])
            room = max(1, budget // (max(lengths[number], 1) * rows_each))
            if workers > 1:
                room = min(room, max(smallest, -(-left // (2 * workers))))
        batches[-1].append(number)
        room, left = room - 1, left - 1
    return batches


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Sentence numbers by falling length."""
    return sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
