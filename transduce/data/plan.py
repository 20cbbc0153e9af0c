"""Which pairs are fed when: mixing of corpora, order of an epoch, batches of similar length under a token budget.

In: sizes, lengths, a seed and an epoch number. Out: a `BatchPlan`, a pure function of them: nothing is carried from
one epoch or batch to the next, so training resumes at any batch without looking at those before.
The decision a reader would question: pairs are sorted by length only within large shuffled blocks. A global sort would
put the same pairs into the same batch in every epoch; a block of 256 batches pads hardly more. A batch that would
still pad a lot (the rare long pairs) is closed before its budget is used up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK_BATCHES = 256
WORTH_PADDING = 0.06  # a batch that pads more is closed early
LENGTH_BITS = 21

Rows = NDArray[np.signedinteger[Any]]  # 32 bits while they are enough: 10 million pairs are planned in 40 MB
Widths = NDArray[np.int32]


@dataclass(frozen=True)
class BatchPlan:
    """The batches of one epoch.

    rows: (N,) numbers of pairs, batch after batch. bounds: (M + 1,) where each batch begins in `rows`.
    order: (M,) the batch that is fed at each step. cells, pads: of all source and target rectangles together.
    """

    rows: Rows
    bounds: NDArray[np.int64]
    order: NDArray[np.int64]
    cells: int
    pads: int

    def __len__(self) -> int:
        return len(self.order)

    def batch(self, index: int) -> Rows:
        """(B,) the pairs of step `index`."""
        number = self.order[index]
        return self.rows[self.bounds[number] : self.bounds[number + 1]]

    @property
    def padding_share(self) -> float:
        """Padding over all cells, 0 to 1."""
        return self.pads / max(self.cells, 1)


def generator(seed: int, *words: int) -> np.random.Generator:
    """Random numbers that depend on `seed` and `words` alone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed % (1 << 64), *words])))


def example_keys(rows: Rows, *, seed: int, epoch: int) -> NDArray[np.uint64]:
    """(B,) one random number per example, a function of seed, epoch and the example's number (splitmix64, Steele 2014)."""
    start = generator(seed, 4, epoch).integers(1 << 63, dtype=np.uint64)
    mixed = (rows.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + start
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def corpus_counts(sizes: Sequence[int], *, weights: Sequence[float] | None, temperature: float) -> list[int]:
    """How many pairs an epoch takes from each corpus; together as many as there are.

    Shares are proportional to `weights`, or without them to size ** (1 / temperature) (Arivazhagan 2019): 1 mixes as
    the data is, higher values favour small corpora. Fractions go to the largest remainders.
    """
    total = sum(sizes)
    raw = np.array(weights if weights is not None else [size ** (1 / temperature) for size in sizes], dtype=np.float64)
    raw[np.array(sizes) == 0] = 0
    exact = total * raw / max(raw.sum(), 1e-300)
    counts = np.floor(exact).astype(np.int64)
    missing = total - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return [int(count) for count in counts]


def stream(size: int, start: int, stop: int, *, seed: int, corpus: int) -> Rows:
    """Numbers `start` to `stop` of the endless stream permutation 0, permutation 1, ... of `size` pairs.

    An epoch continues where the one before stopped, so no pair comes up twice more often than another.
    """
    parts: list[Rows] = []
    for number in range(start // size, -(-stop // size)):
        order = generator(seed, 1, corpus, number).permutation(numbers(size))
        parts.append(order[max(start - number * size, 0) : stop - number * size])
    return np.concatenate(parts)


def numbers(size: int) -> Rows:
    """0 to `size` - 1 in as few bits as will do."""
    return np.arange(size, dtype=np.int32) if size < 1 << 31 else np.arange(size, dtype=np.int64)


def epoch_rows(sizes: Sequence[int], counts: Sequence[int], *, seed: int, epoch: int) -> Rows:
    """(N,) pairs of an epoch in random order, numbered over all corpora in a row."""
    dtype, firsts = numbers(sum(sizes)).dtype, np.cumsum([0, *sizes]).tolist()
    parts = [
        stream(size, epoch * count, (epoch + 1) * count, seed=seed, corpus=corpus).astype(dtype, copy=False) + firsts[corpus]
        for corpus, (size, count) in enumerate(zip(sizes, counts, strict=True))
        if count
    ]
    rows: Rows = np.concatenate(parts) if parts else numbers(0)
    if len(parts) > 1:
        generator(seed, 2, epoch).shuffle(rows)
    return rows


def plan_batches(rows: Rows, source: Widths, target: Widths, *, budget: int, shuffle: np.random.Generator | None) -> BatchPlan:
    """Put `rows` into batches. source, target: widths of all pairs, end of sequence included.

    Blocks worth about 256 batches are sorted by length and cut so that max(source width, target width) * rows is at
    most `budget`; then the batches are shuffled. Without `shuffle`, one block and no shuffling: always the same order.
    """
    num_batches = int(np.maximum(source[rows], target[rows]).sum(dtype=np.int64)) / budget
    num_blocks = 1 if shuffle is None else max(1, round(num_batches / BLOCK_BATCHES))
    edges = np.linspace(0, len(rows), num_blocks + 1).astype(np.int64)
    rows = rows.copy()
    bounds = [np.zeros(1, dtype=np.int64)]
    for start, stop in pairwise(edges):
        block = rows[start:stop]
        block = block[np.argsort(_length_keys(source[block], target[block]), kind="stable")]
        rows[start:stop] = block
        bounds.append(start + _cut(source[block], target[block], budget))
    edges = np.concatenate(bounds)
    order = np.arange(len(edges) - 1)
    if shuffle is not None:
        shuffle.shuffle(order)
    cells, pads = _count_cells(source[rows], target[rows], edges)
    return BatchPlan(rows, edges, order, cells, pads)


def _length_keys(source: Widths, target: Widths) -> NDArray[np.int64]:
    """Sort keys: by the longer end, then by the difference of the ends.

    The difference rises and falls in turn, so that neighbours stay alike where the longer end grows by one.
    """
    longer = np.maximum(source, target).astype(np.int64)
    difference = source.astype(np.int64) - target
    return (longer << LENGTH_BITS) + np.where(longer % 2 == 0, difference, -difference)


def _cut(source: Widths, target: Widths, budget: int) -> NDArray[np.int64]:
    """Ends of batches over sorted widths: as many rows as `budget` allows, fewer (not under half) where they would pad much."""
    ends = [0]
    while ends[-1] < len(source):
        start = ends[-1]
        stop = start + max(budget // int(max(source[start], target[start])), 1)
        ends.append(start + _num_rows(source[start:stop], target[start:stop], budget))
    return np.array(ends[1:], dtype=np.int64)


def _num_rows(source: Widths, target: Widths, budget: int) -> int:
    """How many of these rows, from the first on, make one batch."""
    counts = np.arange(1, len(source) + 1)
    source_width, target_width = np.maximum.accumulate(source), np.maximum.accumulate(target)
    fitting = max(int(np.count_nonzero(np.maximum(source_width, target_width) * counts <= budget)), 1)
    cells = ((source_width + target_width) * counts)[:fitting]
    shares = 1 - np.cumsum(source + target, dtype=np.int64)[:fitting] / cells
    chosen = fitting
    if shares[-1] > WORTH_PADDING:
        half = (fitting + 1) // 2
        low = np.flatnonzero(shares[half - 1 :] <= WORTH_PADDING)
        chosen = half + int(low[-1] if len(low) else np.argmin(shares[half - 1 :]))
    return chosen


def _count_cells(source: Widths, target: Widths, bounds: NDArray[np.int64]) -> tuple[int, int]:
    if len(bounds) == 1:
        return 0, 0
    rows = np.diff(bounds)
    widest = np.maximum.reduceat(source, bounds[:-1]).astype(np.int64) + np.maximum.reduceat(target, bounds[:-1])
    cells = int((rows * widest).sum())
    return cells, cells - int(source.sum(dtype=np.int64)) - int(target.sum(dtype=np.int64))
