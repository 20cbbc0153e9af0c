"""int16 products: as int8 ones, with half their speed and a hundredth of their rounding, compiled by numba, for AVX512 VNNI or AVX2.

In and out: as in kernels.py. The decision to question: sums of such products may leave 32 bits. So numbers are rounded to less than 16
bits, as far as their norms demand, and sums of some words become float32 numbers before the next are added.
"""

from typing import Any

import numpy as np

from transduce.model.kernels import Array, kernel, part
from transduce.model.tiles import PAIRS, grow_pairs
from transduce.model.vectors import address

_i16, _i32, _f32 = np.int16, np.int32, np.float32
ROWS, COLUMNS = PAIRS.rows, PAIRS.columns
BLOCK = 96
"""Rows that meet a tile's columns one after the other; all are in the second cache."""
WORDS = 64
"""Pairs of numbers whose products are added up without rounding; these sums are added as float32 numbers."""
NORM, LARGEST = np.float32(46000), np.float32(32767)
"""Most of so many pairs, as a vector, and of each number: a sum of products is at most the product of norms (Cauchy, Schwarz), 31 bits."""
SMALLEST = np.finfo(np.float32).tiny


@kernel
def multiply(inputs: Array, matrix: Any, written: Any) -> None:
    """written: outputs (M + ROWS, N) = inputs (M, K) matrix + bias, at least some number, and that; what the last rows become is of no
    use. matrix: its tiles (T, P, COLUMNS, 2) int16, the steps (N,) of its columns, the bias (N,)."""
    rooms = rooms_for(matrix, BLOCK)
    for first in range(0, len(inputs), BLOCK):
        multiply_block((inputs, matrix, rooms), (first, min(BLOCK, len(inputs) - first), first), written)


@part
def rooms_for(matrix: Any, count: Any) -> Any:
    """Room for so many rounded rows, and their steps."""
    return np.zeros((count, 2 * matrix[0].shape[1]), _i16), np.empty(count, _f32)


@part
def multiply_block(read: Any, place: Any, written: Any) -> None:
    """Some rows of `multiply`. read: inputs, matrix, rooms. place: the first row, how many, and which row of outputs it becomes."""
    (inputs, (tiles, scales, bias), (whole, steps)), (first, rows, begin), (outputs, least) = read, place, written
    for row in range(rows):
        steps[row] = round_row(inputs, first + row, whole[row])
    add_products((whole, tiles), (begin, rows), outputs)
    for row in range(rows):
        step = steps[row]
        for column in range(outputs.shape[1]):
            total = outputs[begin + row, column] * step * scales[column] + bias[column]
            outputs[begin + row, column] = least if total < least else total


@part
def round_row(inputs: Any, row: Any, whole: Any) -> Any:
    """A row over its step, to the nearest whole numbers, ties to even (K or more,); the step, which of a row with NaN is NaN."""
    step, bits, width, none = SMALLEST, inputs[row].view(_i32), inputs.shape[1], _f32(0)
    for first in range(0, width, 2 * WORDS):
        total, most = _f32(0), _i32(0)
        for k in range(first, min(first + 2 * WORDS, width)):
            total += inputs[row, k] * inputs[row, k]
            most = max(most, _i32(bits[k] & _i32(0x7FFFFFFF)))  # numbers without signs order as their bits do
        step = max(step, np.sqrt(total) / NORM, _i32(most).view(_f32) / LARGEST)
        none += total * _f32(0)
    for k in range(width):
        whole[k] = _i16(np.rint(inputs[row, k] / step))
    return step + none


@part
def add_products(read: Any, place: Any, sums: Any) -> None:
    """The sums (M + ROWS, N) of a block of rows. read: whole numbers, tiles. place: the first row of sums, how many."""
    (whole, tiles), (begin, rows), none = read, place, np.zeros(COLUMNS, _f32)
    words, size = tiles.shape[1], sums.shape[1]
    for tile in range(len(tiles)):
        for row in range(0, rows, ROWS):
            grown = address(sums) + 4 * ((begin + row) * size + tile * COLUMNS), 4 * size
            for first in range(0, words, WORDS):
                left = address(whole) + 4 * (row * words + first), 4 * words, 4
                right = address(tiles) + 4 * (tile * words + first) * COLUMNS, 4 * COLUMNS
                grow_pairs((left, right, grown if first else (address(none), 0), grown), min(WORDS, words - first))
