"""Token ids of prepared pairs, and batches of them, for programs that run in the environment of a peer and know nothing of transduce.

In: what benchmarks/pairs.py wrote. Out: rows of ids and rectangles. The decision to question: batches are filled as transduce fills
them, max(source width, target width) * rows within a budget, from pairs sorted by length, in random order.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

PAD, BOS, EOS, UNK = range(4)

Row = list[int]
Pair = tuple[Row, Row]


def read_rows(folder: Path, split: str, language: str) -> list[Row]:
    """The ids of every sentence, each closed by the end of sequence."""
    lines = (folder / f"{split}.ids.{language}").read_text(encoding="ascii").splitlines()
    return [[*map(int, line.split()), EOS] for line in lines]


def read_pairs(folder: Path, split: str) -> list[Pair]:
    """Source and target of every pair."""
    return list(zip(read_rows(folder, split, "en"), read_rows(folder, split, "de"), strict=True))


def padded(rows: Sequence[Row]) -> torch.Tensor:
    """(B, S) int64."""
    width = max(map(len, rows))
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


def epoch(pairs: Sequence[Pair], *, budget: int, draw: random.Random) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """All pairs once, as (source, target) rectangles."""
    order = draw.sample(range(len(pairs)), len(pairs))
    order.sort(key=lambda number: (max(map(len, pairs[number])), len(pairs[number][0])))
    batches: list[list[int]] = [[]]
    for number in order:
        if batches[-1] and max(map(len, pairs[number])) * (len(batches[-1]) + 1) > budget:
            batches.append([])
        batches[-1].append(number)
    draw.shuffle(batches)
    for batch in batches:
        yield padded([pairs[number][0] for number in batch]), padded([pairs[number][1] for number in batch])
