"""Product loops of our own: of float32 and bfloat16 matrices, on AMD's processors with AVX512 or AVX2, in processes of one thread.

In: rows and a matrix whose widths are multiples of 64. Out: their product. The decision to question: for the shapes of training, with
operands that no cache holds, these loops are 5 % faster than oneDNN's and 10 to 20 % faster than MKL's (measured on Zen 4,
docs/performance.md), and they need no code for each size, so that no row is padded.
"""

from functools import cache
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional

from transduce.model.fused import array, compiles, computes
from transduce.model.padded import with_room
from transduce.processor import cpu_vendor

KNOWN = ("none", "relu")
"""Non-linearities that these loops apply to their own sums."""
WIDTH = 64
"""What widths are multiples of."""
MOST_SUMS = 1 << 20
"""Of `summed`: more leave the cache before the next rows come, and MKL, which takes more rows at once, is the faster one."""


@cache
def product_loops() -> ModuleType:
    """The compiled loops, where `multiplies` has found them."""
    from transduce.model import product_kernels

    return product_kernels


@cache
def half_loops() -> ModuleType:
    """Those of bfloat16 matrices."""
    from transduce.model import half_kernels

    return half_kernels


@cache
def has_blocks(kind: torch.dtype = torch.float32) -> bool:
    """Whether there are loops for numbers of this kind, and this is a processor on which they were measured to be the fastest."""
    wide = {torch.float32: "avx512f", torch.bfloat16: "avx512bf16", torch.int16: "avx512vnni", torch.int8: "avx512vnni"}
    known = wide if has_wide_vectors() else {torch.float32: "fma", torch.int16: "avx2"}
    return kind in known and compiles(known[kind]) and cpu_vendor() == "AuthenticAMD"


def has_wide_vectors() -> bool:
    """Whether the loops are those for AVX512. Those for AVX2 make gradients of weights no faster than MKL does (measured)."""
    return compiles("avx512f")


def has_ranking() -> bool:
    """Whether loops find the best tokens of a head by 16-bit products."""
    return compiles("avx512vnni") or has_blocks(torch.int16)


def multiplies(rows: Tensor, matrix: Tensor) -> bool:
    """Whether the products of rows (M, K) and a matrix (N, K), and of rows (M, N) with it, are these."""
    return rows.dtype == matrix.dtype and has_blocks(rows.dtype) and computes(rows) and fits(*matrix.shape)


def sums(outer: Tensor, rows: Tensor) -> bool:
    """Whether `summed` makes the product of outer (M, N) and rows (M, K)."""
    known = outer.dtype == rows.dtype == torch.float32 and has_blocks() and has_wide_vectors() and computes(outer)
    return known and outer.shape[1] * rows.shape[1] <= MOST_SUMS and fits(outer.shape[1], rows.shape[1])


def fits(*widths: int) -> bool:
    """Whether matrices of these widths are multiplied in whole tiles."""
    return not any(width % WIDTH for width in widths)


def multiplier(matrix: Tensor, bias: Tensor | None = None) -> "Multiplier":
    """Multiplies rows by the transpose of a matrix (N, K), as it is now."""
    words = matrix.contiguous().view(torch.float32)  # (N, K) or (N, K / 2)
    tiles = words.new_empty(len(words) // product_loops().COLUMNS, words.shape[1], product_loops().COLUMNS)
    product_loops().pack_turned(array(words), array(tiles))
    return Multiplier(tiles, bias, matrix.dtype)


def back_multiplier(matrix: Tensor) -> "Multiplier":
    """Multiplies rows (M, N) by a matrix (N, K), as it is now."""
    shape = matrix.shape[1] // product_loops().COLUMNS, len(matrix) * matrix.itemsize // 4, product_loops().COLUMNS
    tiles = matrix.new_empty(shape, dtype=torch.float32)
    if matrix.dtype == torch.float32:
        product_loops().pack(array(matrix.contiguous()), array(tiles))
    else:
        half_loops().pack(array(matrix.contiguous()), array(tiles.view(torch.uint32)))
    return Multiplier(tiles, None, matrix.dtype)


class Multiplier:
    """A matrix in tiles (T, words, COLUMNS) of numbers of a kind, and a bias (T COLUMNS,)."""

    def __init__(self, tiles: Tensor, bias: Tensor | None, kind: torch.dtype) -> None:
        self._width, self._loops = tiles.shape[0] * tiles.shape[2], product_loops() if kind == torch.float32 else half_loops()
        self._tiles, self._bias = array(tiles), array(tiles.new_zeros(self._width) if bias is None else bias.float())

    def __call__(self, rows: Tensor, *, then: str = "none") -> Tensor:
        """Rows (M, K) -> f(rows matrix + bias) (M, N), f one of those `KNOWN`."""
        few = max(0, self._loops.ROWS - len(rows))
        outputs = with_room(rows, (len(rows) + few, self._width))
        given = functional.pad(rows, (0, 0, 0, few)) if few else rows.contiguous()
        self._loops.multiply(array(given), (self._tiles, self._bias, then == "relu"), array(outputs))
        return outputs[: len(rows)] if few else outputs


def summed(outer: Tensor, rows: Tensor, *, total: Tensor | None = None) -> Tensor:
    """outer (M, N), rows (M, K) -> outer^T rows (N, K), added to `total` where there is one."""
    written = rows.new_empty(outer.shape[1], rows.shape[1]) if total is None else total
    product_loops().multiply_summed(array(outer.contiguous()), array(rows.contiguous()), (array(written), total is not None))
    return written
