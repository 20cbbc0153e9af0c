"""Matrices of whole numbers, of 8 or 16 bits, as our own loops multiply them and rank by them.

In: weights. Out: products with rows of float32 numbers, each rounded with a step of its own, and the best tokens of a head. Whole numbers
are derived from the weights and never stored.

The decision to question: 16 bits are there where rounding matters most, and where there is no AVX512 VNNI. Whole sums of them are as exact
as float32's nearly, in half the time; of 8 bits, in a quarter of it. AVX2 adds up 16 bits in two thirds of float32's time, and 8 bits only
in pairs that may not fit.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from transduce.model.fused import array, searches
from transduce.model.heads import Asked, Best
from transduce.model.products import FUSED

FEWEST_ROUNDED = 2048
"""Tokens of a shortlist; of fewer, products in float32 cost less than rounding and packing them for each batch."""
LEAST, ZERO = np.float32(-np.inf), np.float32(0)


class WholeMatrix:
    """A matrix (N, K) whose outputs are filled up to N', whole tiles. parts: what the loops, of int8 or int16
    products, know of it before the bias."""

    def __init__(self, parts: tuple[Tensor, ...], size: int, *, loops: ModuleType, rank: Callable[..., None]) -> None:
        self._parts, self._size, self._loops, self._rank = tuple(map(array, parts)), size, loops, rank
        self._width = parts[0].shape[0] * parts[0].shape[2]

    def multiply(self, rows: Tensor, bias: Tensor | None, *, rectified: bool = False) -> Tensor:
        """(M, K) -> (M, N)."""
        outputs = torch.empty(len(rows) + self._loops.ROWS, self._width)
        added = torch.zeros(self._size) if bias is None else bias
        self._loops.multiply(array(rows), self._with_bias(added, 0.0), (array(outputs), ZERO if rectified else LEAST))
        return outputs[: len(rows)] if self._size == self._width else outputs[: len(rows), : self._size].contiguous()

    def best(self, rows: Tensor, exact: tuple[Tensor, Tensor], asked: Asked) -> Best | None:
        """What is asked of rows (M, K) and a head of this matrix, whose exact weights (N, K) and bias (N,) are given; in a process of one
        thread."""
        if not searches(rows):
            return None
        (weight, bias), found = exact, Best.empty(len(rows), asked.count)
        written = array(found.values), array(found.tokens), array(found.ends)
        head = self._with_bias(bias, -torch.inf), array(weight)
        self._rank(array(rows.contiguous()), head, (array(asked.excluded), asked.end, *written))
        return found

    def _with_bias(self, bias: Tensor, behind: float) -> tuple[Any, ...]:
        more = self._width - self._size
        return *self._parts, array(functional.pad(bias.detach().float(), (0, more), value=behind) if more else bias)


def int8_matrix(rounded: Tensor, scales: Tensor) -> WholeMatrix:
    """Rounded weights (N, K) int8 and the scales (N,) of its outputs."""
    from transduce.model import int8_kernels as loops  # where there is numba
    from transduce.model import ranking_kernels

    size = len(rounded)
    more = -size % loops.COLUMNS
    whole = functional.pad(rounded, (0, -rounded.shape[1] % 4, 0, more))
    words = whole.view(torch.int32)  # (N', P)
    tiles = words.view(-1, loops.COLUMNS, words.shape[1]).transpose(1, 2).contiguous()
    parts = tiles, whole.sum(1).float(), functional.pad(scales, (0, more))
    return WholeMatrix(parts, size, loops=loops, rank=ranking_kernels.best_of_fours)


def int16_matrix(weight: Tensor) -> WholeMatrix:
    """Weights (N, K), rounded to 16 bits or less, so that no sum overflows."""
    from transduce.model import int16_kernels as loops  # where there is numba
    from transduce.model import ranking_kernels

    (size, width), exact = weight.shape, weight.detach().float()
    more = -size % loops.COLUMNS
    norms = torch.stack([part.norm(dim=1) for part in torch.split(exact, 2 * loops.WORDS, dim=1)]).amax(0)
    steps = torch.maximum(norms / float(loops.NORM), exact.abs().amax(1) / float(loops.LARGEST))
    steps = steps.clamp_min(torch.finfo(torch.float32).tiny)
    rounded = functional.pad((exact / steps[:, None]).round().to(torch.int16), (0, width % 2, 0, more))
    tiles = rounded.view(-1, loops.COLUMNS, rounded.shape[1] // 2, 2).transpose(1, 2).contiguous()
    parts = tiles, functional.pad(steps, (0, more))
    return WholeMatrix(parts, size, loops=loops, rank=ranking_kernels.best_of_pairs)


class Int16Linear(nn.Module):
    """A linear layer of 16-bit products in processes of one thread, of float32 ones elsewhere."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias
        self._matrix = int16_matrix(weight)

    def forward(self, inputs: Tensor, *, then: str = "none") -> Tensor:
        """(..., K) -> (..., N), then one of the non-linearities `FUSED`."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        if not searches(rows):
            return FUSED[then](functional.linear(inputs, self.weight, self.bias))
        outputs = self._matrix.multiply(rows.contiguous(), self.bias, rectified=then == "relu").view(*inputs.shape[:-1], -1)
        return outputs if then == "relu" else FUSED[then](outputs)
