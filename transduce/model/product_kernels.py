"""float32 products: those of training and search on processors with AVX512 or AVX2, compiled by numba.

In and out: as in kernels.py; widths are multiples of a tile's columns. The decision to question: blocks are chosen for a second cache of a
mebibyte or more, one core a process.
"""

from typing import Any

import numpy as np

from transduce.model.kernels import Array, kernel, part
from transduce.model.tiles import (
    FLOATS,
    SPARSE_TILES,
    SPARSE_WORDS,
    SUMMED,
    fetch,
    grow_floats,
    grow_rectified,
    grow_sparse,
    grow_summed,
    turn,
)
from transduce.model.vectors import LANES, address

_f32 = np.float32
ROWS, COLUMNS = FLOATS.rows, FLOATS.columns
BLOCK = 96
"""Rows that meet a tile's columns one after the other, while both are in the second cache."""
SUMMED_ROWS = SUMMED.rows
DEEPEST = 1024
"""Words of a column that are read one after the other."""
SAMPLED = 8
"""Rows of which one is looked at for zeros."""
FEWEST_ZEROS = 0.5
"""Their share from which on they are passed over: at two thirds that takes half of the time, at none a third more."""
DEEP, WIDE = 176, 256
"""Rows, and their columns, that are in the cache while the gradient of a weight grows."""


@kernel
def pack_turned(matrix: Array, tiles: Array) -> None:
    """tiles (T, K, COLUMNS) = a matrix (T COLUMNS, K), as `multiply` reads it; K a multiple of LANES."""
    count, depth, width = tiles.shape
    for tile in range(count):
        for column in range(0, width, LANES):
            for k in range(0, depth, LANES):
                read = address(matrix) + 4 * ((tile * width + column) * depth + k), 4 * depth
                turn(read, (address(tiles) + 4 * ((tile * depth + k) * width + column), 4 * width))


@kernel
def pack(matrix: Array, tiles: Array) -> None:
    """tiles (T, K, COLUMNS) = a matrix (K, T COLUMNS), as `multiply` reads it."""
    for tile in range(len(tiles)):
        block, first = tiles[tile], tile * COLUMNS
        for k in range(block.shape[0]):
            for place in range(block.shape[1]):
                block[k, place] = matrix[k, first + place]


@kernel
def multiply(rows: Array, matrix: Any, outputs: Array) -> None:
    """outputs (M, N) = rows (M, K) matrix + bias (N,); M >= ROWS. matrix: its tiles (T, K, COLUMNS), bias, whether they are rectified."""
    tiles, bias, rectified = matrix
    count, depth = rows.shape
    if not rectified and len(tiles) % SPARSE_TILES == 0 and share_of_zeros(rows) >= FEWEST_ZEROS:
        multiply_sparse(rows, (tiles, bias), outputs)
        return
    whole = count // ROWS * ROWS
    for first in range(0, whole, BLOCK):
        for begin in range(0, depth, DEEPEST):
            deep = begin, min(DEEPEST, depth - begin)
            multiply_block((rows, tiles, bias), (first, min(first + BLOCK, whole), deep), (outputs, rectified))
    if whole < count:  # the last rows, with some that are computed again
        multiply_block((rows, tiles, bias), (count - ROWS, count, (0, depth)), (outputs, rectified))


@part
def share_of_zeros(rows: Any) -> Any:
    """Of some of the rows (M, K)."""
    zeros, seen = 0, 0
    for row in range(0, rows.shape[0], SAMPLED):
        seen += rows.shape[1]
        for place in range(rows.shape[1]):
            zeros += rows[row, place] == _f32(0)
    return zeros / seen


@part
def multiply_sparse(rows: Any, matrix: Any, outputs: Any) -> None:
    """`multiply` for rows whose zeros are passed over."""
    tiles, bias = matrix
    (count, depth), width = rows.shape, outputs.shape[1]
    for tile in range(0, len(tiles), SPARSE_TILES):
        column = tile * COLUMNS
        for begin in range(0, depth, SPARSE_WORDS):
            columns = address(tiles) + 4 * (depth * column + begin * COLUMNS)
            for row in range(count):
                sums = address(outputs) + 4 * (width * row + column)
                start = sums if begin else address(bias) + 4 * column
                grow_sparse((address(rows) + 4 * (depth * row + begin), columns, 4 * depth * COLUMNS, start, sums))


@part
def multiply_block(read: Any, place: Any, written: Any) -> None:
    """Some rows of outputs grow. read: rows, tiles, bias. place: the first row, the one behind the last; the first word, how many. written:
    outputs, and whether they are rectified."""
    (rows, tiles, bias), (first, end, (begin, deep)), (outputs, rectified) = read, place, written
    depth, width = rows.shape[1], outputs.shape[1]
    for tile in range(len(tiles)):
        column = tile * COLUMNS
        right = address(tiles) + 4 * (depth * column + begin * COLUMNS), 4 * COLUMNS
        for row in range(first, end, ROWS):
            left = address(rows) + 4 * (depth * row + begin), 4 * depth, 4
            sums = address(outputs) + 4 * (width * row + column), 4 * width
            places = left, right, sums if begin else (address(bias) + 4 * column, 0), sums
            if rectified and begin + deep == depth:
                grow_rectified(places, deep)
            else:
                grow_floats(places, deep)


@kernel
def multiply_summed(outer: Array, rows: Array, written: Any) -> None:
    """written: sums (N, K) = outer (M, N)^T rows (M, K), and whether they are added to what is there; N a multiple of LANES, K one of
    COLUMNS."""
    count, (height, width), none = len(outer), written[0].shape, np.zeros(COLUMNS, _f32)
    for first in range(0, count, DEEP):
        for wide in range(0, width, WIDE):
            place = first, min(DEEP, count - first), (wide, min(wide + WIDE, width))
            for high in range(0, height, LANES):
                fetch_block(outer, (first, place[1], high + LANES))
                sum_block((outer, rows, none), (*place, high), written)


@part
def fetch_block(matrix: Any, place: Any) -> None:
    """Ask for the cache lines of some rows at a column, so that they are there when the turn comes to them."""
    first, count, column = place
    for row in range(first, first + count):
        fetch(address(matrix) + 4 * (matrix.shape[1] * row + column))


@part
def sum_block(read: Any, place: Any, written: Any) -> None:
    """LANES rows of sums grow. read: outer, rows, zeros. place: the first of these rows and how many, the first column and the one behind
    the last, and the first row of sums."""
    (outer, rows, none), (first, deep, (wide, end), high), (sums, more) = read, place, written
    height, width = outer.shape[1], rows.shape[1]
    for row in range(high, high + LANES, SUMMED_ROWS):
        left = address(outer) + 4 * (height * first + row), 4, 4 * height
        for column in range(wide, end, COLUMNS):
            right = address(rows) + 4 * (width * first + column), 4 * width
            grown = address(sums) + 4 * (width * row + column), 4 * width
            grow_summed((left, right, grown if first or more else (address(none), 0), grown), deep)
