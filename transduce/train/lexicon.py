"""A dictionary: which target tokens a source token becomes, by IBM Model 1 (Brown 1993, section 4.1), from the encoded training pairs.

In: stores of pairs. Out: a `Shortlist`. The decision to question: a bounded sample of the pairs is enough, for the lists hold the likely
translations of each token and not exact probabilities; so this takes seconds for a corpus of any size.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from transduce.data.store import PairStore
from transduce.decode.shortlist import Shortlist
from transduce.model.frontends import Vocabulary

MOST_CELLS = 12_000_000  # source tokens times target tokens of the sampled pairs: about 1 GiB of memory and ten seconds
CANDIDATES = 50  # target tokens kept for each source token
ROUNDS = 5  # of expectation and maximisation


def learn_shortlist(stores: Sequence[PairStore], source: Vocabulary, target: Vocabulary, *, shared: bool) -> Shortlist:
    """shared: both ends have one vocabulary, so every source token may also be copied."""
    sources, targets, frequencies = sampled_pairs(stores, target.size)
    candidates = best_translations(sources, targets, sizes=(source.size, target.size))
    if shared:
        candidates = np.concatenate([candidates, np.arange(source.size, dtype=np.int32)[:, None]], 1)
    frequencies[[target.pad_id, target.bos_id, target.eos_id, target.unk_id]] = np.iinfo(np.int64).max
    return Shortlist(candidates, np.argsort(-frequencies, kind="stable").astype(np.int32))


def sampled_pairs(
    stores: Sequence[PairStore], target_size: int
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]], NDArray[np.int64]]:
    """Source rows, target rows, one for one, of pairs that are spread evenly over the stores, and how often (V,) each token is among the
    targets."""
    whole = sum(float(len(store.source.data)) * len(store.target.data) / max(len(store.target), 1) for store in stores)
    stride = max(1, round(whole / MOST_CELLS))
    sources, targets = [], []
    for store in stores:
        for row, written in store.examples(np.arange(0, len(store), stride)):
            sources += [row.astype(np.int64)] * len(written)
            targets += [one.astype(np.int64) for one in written]
    return sources, targets, np.bincount(np.concatenate([*targets, np.zeros(0, dtype=np.int64)]), minlength=target_size)


def best_translations(
    sources: Sequence[NDArray[np.int64]], targets: Sequence[NDArray[np.int64]], *, sizes: tuple[int, int]
) -> NDArray[np.int32]:
    """(S, CANDIDATES) target tokens of each source token, most likely first; -1 where there are fewer."""
    best = np.full((sizes[0], CANDIDATES), -1, dtype=np.int32)
    widths = np.repeat([len(row) for row in sources], [len(target) for target in targets])  # (tokens of all targets,)
    if not widths.any():
        return best
    places = np.repeat(np.arange(len(widths)), widths)  # of each cell: which target token of all it may explain
    cells = np.concatenate([np.tile(row, len(target)) for row, target in zip(sources, targets, strict=True)]) * sizes[1]
    cells += np.repeat(np.concatenate(list(targets)), widths)
    pairs, cells = np.unique(cells, return_inverse=True)  # cells: which pair of tokens each one is
    tokens = pairs // sizes[1]
    probabilities = np.ones(len(pairs))
    for _ in range(ROUNDS):
        weights = probabilities[cells]
        weights /= np.bincount(places, weights)[places]
        expected = np.bincount(cells, weights)
        probabilities = expected / np.bincount(tokens, expected)[tokens]
    order = np.lexsort((-probabilities, tokens))
    tokens, written = tokens[order], (pairs % sizes[1])[order]
    ranks = np.arange(len(order)) - np.searchsorted(tokens, tokens)
    kept = ranks < CANDIDATES
    best[tokens[kept], ranks[kept]] = written[kept]
    return best
