"""Which sentences are searched together: sorted by length, under a token budget.

In: a length per sentence. Out: lists of sentence numbers, longest first, so that the largest batch comes first and a lack of memory
shows at once.
"""

from collections.abc import Sequence


def plan_batches(lengths: Sequence[int], *, budget: int, rows_each: int = 1) -> list[list[int]]:
    """Sentence numbers in batches. The longest length of a batch times its sentences times `rows_each` stays within `budget`;
    one sentence always fits."""
    batches: list[list[int]] = []
    room = 0
    for number in longest_first(lengths):
        if room == 0:
            batches.append([])
            room = max(1, budget // (max(lengths[number], 1) * rows_each))
        batches[-1].append(number)
        room -= 1
    return batches


def plan_shares(lengths: Sequence[int], *, budget: int, rows_each: int = 1, workers: int) -> list[list[list[int]]]:
    """The batches of each worker: sentences are dealt out longest first, so that all have as much to do. Nobody has nothing."""
    order = longest_first(lengths)
    dealt = [order[worker::workers] for worker in range(min(workers, len(order)))]
    plans = [plan_batches([lengths[number] for number in numbers], budget=budget, rows_each=rows_each) for numbers in dealt]
    return [[[numbers[place] for place in places] for places in plan] for numbers, plan in zip(dealt, plans, strict=True)]


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Sentence numbers by falling length."""
    return sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
