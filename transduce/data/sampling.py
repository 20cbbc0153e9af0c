"""An even sample of a stream whose length nobody knows yet.

In: items, once. Out: up to `limit` of them in their order, the same ones for the same seed.
The decision a reader would question: of a long stream between half of `limit` and `limit` items remain, which is the
price for one pass and no counting.
"""

import random
from collections.abc import Iterable


class EvenSample:
    """Each item draws a number; whenever too many are kept, the threshold is halved and those above it go."""

    def __init__(self, limit: int, seed: int) -> None:
        self.limit = limit
        self._draw = random.Random(seed).random
        self._threshold = 1.0
        self._kept: list[tuple[float, str]] = []

    def add(self, texts: Iterable[str]) -> None:
        """More of the stream."""
        for text in texts:
            number = self._draw()
            if number < self._threshold:
                self._kept.append((number, text))
                self._shrink()

    def _shrink(self) -> None:
        while len(self._kept) > self.limit:
            self._threshold /= 2
            self._kept = [entry for entry in self._kept if entry[0] < self._threshold]

    def texts(self) -> list[str]:
        """What was kept, in the order of the stream."""
        return [text for _, text in self._kept]


def evenly_sampled(texts: Iterable[str], limit: int, seed: int) -> list[str]:
    """Up to `limit` of `texts`: all of them if they are few enough."""
    sample = EvenSample(limit, seed)
    sample.add(texts)
    return sample.texts()
