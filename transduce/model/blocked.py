"""Products of float32 matrices by loops of our own: on AMD's processors with AVX512, in processes of one thread.

In: rows and a matrix whose widths are multiples of 64. Out: their product. The decision to question: for the shapes of training, with
operands that no cache holds, these loops are 5 % faster than oneDNN's and 10 to 20 % faster than MKL's (measured on Zen 4,
docs/performance.md), and they need no code for each size, so that no row is padded.
"""

from functools import cache
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional

from transduce.model.fused import array, computes, kernels
from transduce.processor import cpu_flags, cpu_vendor

KNOWN = ("none", "relu")
"""Non-linearities that these loops apply to their own sums."""
MOST_SUMS = 1 << 20
"""Of `summed`: more leave the cache before the next rows come, and MKL, which takes more rows at once, is the faster one."""


@cache
def product_loops() -> ModuleType:
    """The compiled loops, where `multiplies` has found them."""
    from transduce.model import product_kernels

    return product_kernels


@cache
def has_blocks() -> bool:
    """Whether there are loops, and this is a processor on which they were measured to be the fastest."""
    return kernels() is not None and "avx512f" in cpu_flags() and cpu_vendor() == "AuthenticAMD"


def multiplies(rows: Tensor, matrix: Tensor) -> bool:
    """Whether the products of rows (M, K) and a matrix (N, K), and of rows (M, N) with it, are these."""
    return _fits(rows, matrix.shape[0], matrix.shape[1]) and matrix.dtype == torch.float32


def sums(outer: Tensor, rows: Tensor) -> bool:
    """Whether `summed` makes the product of outer (M, N) and rows (M, K)."""
    few = outer.shape[1] * rows.shape[1] <= MOST_SUMS
    return few and _fits(outer, outer.shape[1], rows.shape[1]) and rows.dtype == torch.float32


def _fits(rows: Tensor, *widths: int) -> bool:
    return rows.dtype == torch.float32 and has_blocks() and computes(rows) and fits(*widths)


def fits(*widths: int) -> bool:
    """Whether matrices of these widths are multiplied in whole tiles."""
    return not any(width % product_loops().COLUMNS for width in widths)


def multiplier(matrix: Tensor, bias: Tensor | None = None) -> "Multiplier":
    """Multiplies rows by the transpose of a matrix (N, K), as it is now."""
    tiles = matrix.new_empty(matrix.shape[0] // product_loops().COLUMNS, matrix.shape[1], product_loops().COLUMNS)
    product_loops().pack_turned(array(matrix.contiguous()), array(tiles))
    return Multiplier(tiles, bias)


def back_multiplier(matrix: Tensor) -> "Multiplier":
    """Multiplies rows (M, N) by a matrix (N, K), as it is now."""
    tiles = matrix.new_empty(matrix.shape[1] // product_loops().COLUMNS, matrix.shape[0], product_loops().COLUMNS)
    product_loops().pack(array(matrix.contiguous()), array(tiles))
    return Multiplier(tiles, None)


class Multiplier:
    """A matrix in tiles (T, K, COLUMNS), and a bias (T COLUMNS,)."""

    def __init__(self, tiles: Tensor, bias: Tensor | None) -> None:
        self._width = tiles.shape[0] * tiles.shape[2]
        self._tiles, self._bias = array(tiles), array(tiles.new_zeros(self._width) if bias is None else bias)

    def __call__(self, rows: Tensor, *, then: str = "none") -> Tensor:
        """Rows (M, K) -> f(rows matrix + bias) (M, N), f one of those `KNOWN`."""
        few = max(0, product_loops().ROWS - len(rows))
        outputs = rows.new_empty(len(rows) + few, self._width)
        given = functional.pad(rows, (0, 0, 0, few)) if few else rows.contiguous()
        product_loops().multiply(array(given), (self._tiles, self._bias, then == "relu"), array(outputs))
        return outputs[: len(rows)] if few else outputs


def summed(outer: Tensor, rows: Tensor, *, total: Tensor | None = None) -> Tensor:
    """outer (M, N), rows (M, K) -> outer^T rows (N, K), added to `total` where there is one."""
    written = rows.new_empty(outer.shape[1], rows.shape[1]) if total is None else total
    product_loops().multiply_summed(array(outer.contiguous()), array(rows.contiguous()), (array(written), total is not None))
    return written
