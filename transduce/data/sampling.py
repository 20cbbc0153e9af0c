"""An even sample of a stream whose length nobody knows yet.

In: items, once. Out: up to `limit` of them in their order, the same ones for the same seed.
The decision a reader would question: of a long stream between half of `limit` and `limit` items remain, which is the
price for one pass and no counting.
"""

import random
from collections.abc import Iterable
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


class EvenSample(Generic[ItemT]):
    """Each item draws a number; whenever too many are kept, the threshold is halved and those above it go."""

    def __init__(self, limit: int, seed: int) -> None:
        self.limit = limit
        self._draw = random.Random(seed).random
        self._threshold = 1.0
        self._kept: list[tuple[float, ItemT]] = []

    def add(self, items: Iterable[ItemT]) -> None:
        """More of the stream."""
        for item in items:
            number = self._draw()
            if number < self._threshold:
                self._kept.append((number, item))
                self._shrink()

    def _shrink(self) -> None:
        while len(self._kept) > self.limit:
            self._threshold /= 2
            self._kept = [entry for entry in self._kept if entry[0] < self._threshold]

    def items(self) -> list[ItemT]:
        """What was kept, in the order of the stream."""
        return [item for _, item in self._kept]


def evenly_sampled(items: Iterable[ItemT], limit: int, seed: int) -> list[ItemT]:
    """Up to `limit` of `items`: all of them if they are few enough."""
    sample: EvenSample[ItemT] = EvenSample(limit, seed)
    sample.add(items)
    return sample.items()
