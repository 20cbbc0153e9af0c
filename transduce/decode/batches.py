"""Which sentences are searched together: sorted by length, under a token budget.

In: a length per sentence. Out: lists of sentence numbers, longest first, so that the largest batch comes first and a lack of memory
shows at once.
"""

from collections.abc import Sequence


def plan_batches(lengths: Sequence[int], *, budget: int, rows_each: int = 1) -> list[list[int]]:
    """Sentence numbers in batches. The longest length of a batch times its sentences times `rows_each` stays within `budget`;
    one sentence always fits."""
    order = sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
    batches: list[list[int]] = []
    room = 0
    for number in order:
        if room == 0:
            batches.append([])
            room = max(1, budget // (max(lengths[number], 1) * rows_each))
        batches[-1].append(number)
        room -= 1
    return batches
