"""Random numbers that are a function of a key and a purpose, and of nothing else: what augmentation draws from.

In: keys, one for each example (made of seed, epoch and example). Out: uniform numbers. The decision a reader would question: no
generator with a state is used, so the same example is changed alike in any batch, on any device, and after a resume.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def uniform(keys: Tensor, stream: int) -> Tensor:
    """(B,) int64 -> (B,) float64 in [0, 1), one stream of draws for each purpose (splitmix64, Steele 2014)."""
    return uniforms(keys, (stream,))[0]


def uniforms(keys: Tensor, streams: Sequence[int]) -> Tensor:
    """(B,) int64 -> (n, B), what `uniform` draws for each of n streams, in as many operations as for one."""
    starts = torch.tensor([_signed(0x9E3779B97F4A7C15 * (stream + 1)) for stream in streams], device=keys.device)
    mixed = keys + starts[:, None]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ _shifted(mixed, shift)) * _signed(factor)
    return _shifted(mixed ^ _shifted(mixed, 31), 11).double() / float(1 << 53)


def _shifted(words: Tensor, places: int) -> Tensor:
    """To the right, zeros from the left: torch's own shift repeats the sign."""
    return (words >> places) & ((1 << (64 - places)) - 1)


def _signed(word: int) -> int:
    """The 64 bits of a number as torch's int64 reads them."""
    word %= 1 << 64
    return word - (1 << 64) if word >= 1 << 63 else word
