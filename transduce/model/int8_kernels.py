"""int8 products: rows are rounded, multiplied and scaled while they are in a core's cache, compiled by numba, for AVX512 VNNI.

In and out: as in kernels.py. The decision to question: the instruction wants one factor without a sign, and has it, since what is rounded
is how far an input is above the least one of its row (`round_row`); what that one adds to each sum, times its weights, comes afterwards.
"""

from typing import Any

import numpy as np

from transduce.model.kernels import Array, kernel, part
from transduce.model.search_kernels import round_row
from transduce.model.tiles import FOURS, grow_fours
from transduce.model.vectors import address

_u8, _f32 = np.uint8, np.float32
ROWS, COLUMNS = FOURS.rows, FOURS.columns
BLOCK = 96
"""Rows that meet a tile's columns one after the other; all are in the second cache."""


@kernel
def multiply(inputs: Array, matrix: Any, written: Any) -> None:
    """written: outputs (M + ROWS, N) = inputs (M, K) matrix + bias, at least some number, and that; what the last rows become is of no
    use. matrix: tiles (T, P, COLUMNS) of four int8 numbers, the sums of their columns (N,), scales of these, the bias (N,)."""
    rooms = rooms_for(matrix, BLOCK)
    for first in range(0, len(inputs), BLOCK):
        multiply_block((inputs, matrix, rooms), (first, min(BLOCK, len(inputs) - first), first), written)


@part
def rooms_for(matrix: Any, count: Any) -> Any:
    """Room for so many rounded rows, their steps and their least numbers."""
    return np.zeros((count, 4 * matrix[0].shape[1]), _u8), np.empty(count, _f32), np.empty(count, _f32)


@part
def multiply_block(read: Any, place: Any, written: Any) -> None:
    """Some rows of `multiply`. read: inputs, matrix, rooms. place: the first row, how many, and which row of outputs it becomes."""
    (inputs, (tiles, sums, scales, bias), (whole, steps, lows)), (first, rows, begin), (outputs, least) = read, place, written
    for row in range(rows):
        steps[row], lows[row] = round_row(inputs, (first + row, 0), whole[row])
    add_products((whole, tiles), (begin, rows), outputs)
    for row in range(rows):
        step, low = steps[row], lows[row]
        for column in range(outputs.shape[1]):
            total = (outputs[begin + row, column] * step + low * sums[column]) * scales[column] + bias[column]
            outputs[begin + row, column] = least if total < least else total


@part
def add_products(read: Any, place: Any, sums: Any) -> None:
    """The sums (M + ROWS, N) of a block of rows. read: whole numbers, tiles. place: the first row of sums, how many."""
    (whole, tiles), (first, rows), none = read, place, np.zeros(COLUMNS, _f32)
    words, width = tiles.shape[1], sums.shape[1]
    for tile in range(len(tiles)):
        right = address(tiles) + 4 * tile * words * COLUMNS, 4 * COLUMNS
        for row in range(0, rows, ROWS):
            left, grown = (address(whole) + 4 * words * row, 4 * words, 4), address(sums) + 4 * (width * (first + row) + tile * COLUMNS)
            grow_fours((left, right, (address(none), 0), (grown, 4 * width)), words)
