"""bfloat16 products: those of training on processors with AVX512 BF16, compiled by numba.

In and out: as in product_kernels.py, whose blocks these are. A word is two neighbours: of a row in the left matrix, of a column in the
right one. The decision to question: sums are float32 until all of a product is added up.
"""

from typing import Any

import numpy as np

from transduce.model.kernels import Array, kernel, part
from transduce.model.product_kernels import BLOCK, COLUMNS, DEEPEST, ROWS
from transduce.model.tiles import grow_halved, grow_halved_rectified, grow_halves
from transduce.model.vectors import address

_f32, _u32 = np.float32, np.uint32


@kernel
def pack(matrix: Array, tiles: Array) -> None:
    """tiles (T, K / 2, COLUMNS) uint32 = a matrix (K, T COLUMNS), as `multiply` reads it; K even."""
    for tile in range(len(tiles)):
        block, first = tiles[tile], tile * COLUMNS
        for pair in range(block.shape[0]):
            for place in range(block.shape[1]):
                lower = _u32(matrix[2 * pair + 1, first + place]) << _u32(16)
                block[pair, place] = _u32(matrix[2 * pair, first + place]) | lower


@kernel
def multiply(rows: Array, matrix: Any, outputs: Array) -> None:
    """outputs (M, N) = rows (M, K) matrix + bias (N,); M >= ROWS. matrix: its tiles (T, K / 2, COLUMNS), bias in float32, and whether
    outputs are rectified."""
    tiles, bias, rectified = matrix
    count, depth = len(rows), tiles.shape[1]
    whole, partial = count // ROWS * ROWS, np.empty((BLOCK, outputs.shape[1]), _f32)
    for first in range(0, whole, BLOCK):
        end = min(first + BLOCK, whole)
        for begin in range(0, depth, DEEPEST):
            multiply_block((rows, tiles, bias), (first, end, (begin, min(DEEPEST, depth - begin))), (outputs, partial, rectified))
    if whole < count:  # the last rows, with some that are computed again
        multiply_block((rows, tiles, bias), (count - ROWS, count, (0, depth)), (outputs, partial, rectified))


@part
def multiply_block(read: Any, place: Any, written: Any) -> None:
    """Some rows of outputs grow. read: rows, tiles, bias. place: the first row, the one behind the last; the first word, how many. written:
    outputs, their float32 sums until the last words come, and whether they are rectified."""
    (rows, tiles, bias), (first, end, (begin, deep)), (outputs, partial, rectified) = read, place, written
    depth, width = tiles.shape[1], outputs.shape[1]
    for tile in range(len(tiles)):
        column = tile * COLUMNS
        right = address(tiles) + 4 * (depth * column + begin * COLUMNS), 4 * COLUMNS
        for row in range(first, end, ROWS):
            left = address(rows) + 4 * (depth * row + begin), 4 * depth, 4
            sums = address(partial) + 4 * (width * (row - first) + column), 4 * width
            start = sums if begin else (address(bias) + 4 * column, 0)
            grown = address(outputs) + 2 * (width * row + column), 2 * width
            if begin + deep < depth:
                grow_halves((left, right, start, sums), deep)
            elif rectified:
                grow_halved_rectified((left, right, start, grown), deep)
            else:
                grow_halved((left, right, start, grown), deep)
