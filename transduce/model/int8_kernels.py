"""int8 products: rows are rounded, multiplied and scaled while they are in a core's cache, compiled by numba, for AVX512 VNNI.

In and out: as in kernels.py. The decision to question: the instruction wants one factor without a sign, so 128 is added to the rounded
inputs, and 128 times the sum of its weights is taken from a column's sum. Rows that have no sign anyway, as behind a ReLU, are rounded to
twice as many numbers instead.
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
SIGNED, UNSIGNED, SMALLEST = np.float32(127), np.float32(255), np.finfo(np.float32).tiny
"""The largest number of a rounded row that has signs, and of one that has none; and the smallest step from one to the next."""


@kernel
def multiply(inputs: Array, matrix: Any, written: Any) -> None:
    """written: outputs (M + ROWS, N) = inputs (M, K) matrix + bias, at least some number, and that; what the last rows become is of no
    use. matrix: tiles (T, P, COLUMNS) of four int8 numbers, -128 times the sums of their columns (N,), scales of these, the bias (N,)."""
    rooms = rooms_for(matrix, BLOCK)
    for first in range(0, len(inputs), BLOCK):
        multiply_block((inputs, matrix, rooms), (first, min(BLOCK, len(inputs) - first), first), written)


@part
def rooms_for(matrix: Any, count: Any) -> Any:
    """Room for so many rounded rows, their steps and their signs."""
    return np.zeros((count, 4 * matrix[0].shape[1]), _u8), np.empty(count, _f32), np.empty(count, _f32)


@part
def multiply_block(read: Any, place: Any, written: Any) -> None:
    """Some rows of `multiply`. read: inputs, matrix, rooms. place: the first row, how many, and which row of outputs it becomes."""
    (inputs, (tiles, offsets, scales, bias), (whole, steps, signs)), (first, rows, begin), (outputs, least) = read, place, written
    for row in range(rows):
        steps[row], signs[row] = round_row(inputs, first + row, whole[row])
    add_products((whole, tiles), (begin, rows), outputs)
    for row in range(rows):
        step, sign = steps[row], signs[row]
        for column in range(outputs.shape[1]):
            total = (outputs[begin + row, column] + sign * offsets[column]) * step * scales[column] + bias[column]
            outputs[begin + row, column] = least if total < least else total


@part
def round_row(inputs: Any, row: Any, whole: Any) -> Any:
    """A row over its step, to the nearest whole numbers, ties to even, plus 128 if any has a sign (K or more,). The step, which of a row
    with NaN is NaN, and the sign: 1 if 128 was added, else 0."""
    bits, most, signs, width = inputs[row].view(_i32), _i32(0), _i32(0), inputs.shape[1]
    for k in range(width):
        most = max(most, _i32(bits[k] & _i32(0x7FFFFFFF)))  # numbers without signs order as their bits do
        signs |= bits[k]
    signed = signs < 0
    step, more = _i32(most).view(_f32) / (SIGNED if signed else UNSIGNED), _i32(128 if signed else 0)
    step = SMALLEST if step < SMALLEST else step
    for k in range(width):
        whole[k] = _u8(_i32(np.rint(inputs[row, k] / step)) + more)
    return step, _f32(1 if signed else 0)


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
