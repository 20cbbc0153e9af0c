"""int8 products: rows are rounded, multiplied and scaled while they are in a core's cache, compiled by numba, for AVX512 VNNI.

In and out: as in kernels.py. The decision to question: the instruction wants one factor without a sign, so 128 is added to the rounded
inputs, and 128 times the sum of its weights is where a column's sum begins, below zero.
"""

from typing import Any

import numpy as np

from transduce.model.kernels import Array, kernel, part
from transduce.model.tiles import FOURS, grow_fours
from transduce.model.vectors import address

_i32, _u8, _f32 = np.int32, np.uint8, np.float32
ROWS, COLUMNS = FOURS.rows, FOURS.columns
BLOCK = 96
"""Rows that meet a tile's columns one after the other; all are in the second cache."""
LARGEST, SMALLEST = np.float32(127), np.finfo(np.float32).tiny


@kernel
def multiply(inputs: Array, matrix: Any, outputs: Array) -> None:
    """outputs (M + ROWS, N) = inputs (M, K) matrix + bias, at least some number; what the last rows become is of no use. matrix: its tiles
    (T, P, COLUMNS) of four int8 numbers, what sums begin with (N,), the scales of its columns (N,), the bias (N,), and the number."""
    tiles, begin, scales, bias, least = matrix
    count, width = len(inputs), outputs.shape[1]
    whole, steps = np.zeros((BLOCK, 4 * tiles.shape[1]), _u8), np.empty(BLOCK, _f32)
    for first in range(0, count, BLOCK):
        rows = min(BLOCK, count - first)
        for row in range(rows):
            steps[row] = round_row(inputs, first + row, whole[row])
        add_products((whole, tiles, begin), (first, rows), outputs)
        for row in range(rows):
            step = steps[row]
            for column in range(width):
                total = outputs[first + row, column] * step * scales[column] + bias[column]
                outputs[first + row, column] = least if total < least else total


@part
def round_row(inputs: Any, row: Any, whole: Any) -> Any:
    """A row over its step, to the nearest whole numbers, ties to even, plus 128 (K or more,). The step: the largest number over 127. Of a
    row with NaN it is NaN."""
    bits, most, width = inputs[row].view(_i32), _i32(0), inputs.shape[1]
    for k in range(width):
        most = max(most, _i32(bits[k] & _i32(0x7FFFFFFF)))  # numbers without signs order as their bits do
    step = _i32(most).view(_f32) / LARGEST
    step = SMALLEST if step < SMALLEST else step
    for k in range(width):
        whole[k] = _u8(_i32(np.rint(inputs[row, k] / step)) + _i32(128))
    return step


@part
def add_products(read: Any, place: Any, sums: Any) -> None:
    """The sums (M + ROWS, N) of a block of rows. read: whole numbers, tiles, what sums begin with. place: the first row, how many."""
    (whole, tiles, begin), (first, rows) = read, place
    words, width = tiles.shape[1], sums.shape[1]
    for tile in range(len(tiles)):
        right = address(tiles) + 4 * tile * words * COLUMNS, 4 * COLUMNS
        for row in range(0, rows, ROWS):
            left, start = (address(whole) + 4 * words * row, 4 * words, 4), (address(begin) + 4 * tile * COLUMNS, 0)
            grow_fours((left, right, start, (address(sums) + 4 * (width * (first + row) + tile * COLUMNS), 4 * width)), words)
