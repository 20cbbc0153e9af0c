"""A step of Muon, compiled by numba: all that becomes of one matrix, while it is in a core's cache.

In and out: as in kernels.py; sides are multiples of a tile's columns. The decision to question: the iterations run on the Gram matrix of
the gradient alone, which is small, and what they multiply with comes to the gradient once, at the end (they are polynomials of it, so
this is the same). All of that is symmetric: upper halves are copies of the lower ones.
"""

from typing import Any

import numpy as np

from transduce.model.half_kernels import multiply, pack
from transduce.model.kernels import kernel, load, part, rounded
from transduce.model.product_kernels import COLUMNS, ROWS, pack_turned
from transduce.model.tiles import grow_halved
from transduce.model.vectors import LANES, address

_f32, _u16, _u32 = np.float32, np.uint16, np.uint32


@kernel
def move(matrices: Any, figures: Any, factors: Any) -> None:
    """matrices (M, N): a weight, its gradient, of which nothing is left, and the mean of its gradients. figures: the share of the old mean,
    what the weight is multiplied by, and the size of the step. factors: (iterations, 3), as in muon.py."""
    (weight, gradient, mean), (momentum, kept, size) = matrices, figures
    high, wide = min(weight.shape), max(weight.shape)
    rows, tiles = np.empty((high, wide), _u16), np.empty((wide // COLUMNS, high // 2, COLUMNS), _u32)
    lay(gradient, _f32(1) / (np.sqrt(look_ahead(gradient, mean, momentum)) + _f32(1e-7)), rows)
    turning = turned_by(rows, factors)
    pack(rows, tiles)
    multiply(turning, (tiles, np.zeros(wide, _f32), False), rows)
    step(weight, (kept, size), rows)


@part
def look_ahead(gradient: Any, mean: Any, momentum: Any) -> Any:
    """The mean moves towards the gradient, and the gradient becomes where it will be (Nesterov); the sum of its squares."""
    total, rest = _f32(0), _f32(1) - momentum
    for row in range(gradient.shape[0]):
        for column in range(gradient.shape[1]):
            moved = mean[row, column] + rest * (gradient[row, column] - mean[row, column])
            ahead = gradient[row, column] + momentum * (moved - gradient[row, column])
            mean[row, column], gradient[row, column] = moved, ahead
            total += ahead * ahead
    return total


@part
def lay(matrix: Any, scale: Any, rows: Any) -> None:
    """rows (m, n) = scale times a matrix, on its side where it is higher than wide: few columns at a time, whose cache lines stay."""
    if matrix.shape[0] > matrix.shape[1]:
        for first in range(0, rows.shape[1], LANES):
            lay_columns(matrix, (scale, first), rows)
    else:
        for row in range(rows.shape[0]):
            for column in range(rows.shape[1]):
                rows[row, column] = rounded(matrix[row, column] * scale, rows)


@part
def lay_columns(matrix: Any, figures: Any, rows: Any) -> None:
    """LANES columns of rows, from a matrix that stands. figures: the scale, the first of them."""
    scale, first = figures
    for row in range(rows.shape[0]):
        for column in range(first, first + LANES):
            rows[row, column] = rounded(matrix[column, row] * scale, rows)


@part
def step(weight: Any, sizes: Any, rows: Any) -> None:
    """weight = kept * weight - size * rows (m, n), these on their side where it is higher than wide."""
    kept, size = sizes
    if weight.shape[0] > weight.shape[1]:
        for first in range(0, rows.shape[0], LANES):
            step_columns(weight, (kept, size, first), rows)
    else:
        for row in range(rows.shape[0]):
            for column in range(rows.shape[1]):
                weight[row, column] = kept * weight[row, column] - size * load(rows[row, column])


@part
def step_columns(weight: Any, figures: Any, rows: Any) -> None:
    """LANES columns of a weight that stands. figures: as `sizes`, and the first of them."""
    kept, size, first = figures
    for row in range(rows.shape[1]):
        for column in range(first, first + LANES):
            weight[row, column] = kept * weight[row, column] - size * load(rows[column, row])


@kernel
def turned_by(rows: Any, factors: Any) -> Any:
    """What rows X (m, n) are multiplied by (m, m): the product of F = a I + b G + c G G, G = X X^T, one for each of the factors; with each
    X becomes F X, and G becomes F G F."""
    square = len(rows), len(rows)
    gram, other, factor, turning = np.empty(square, _u16), np.empty(square, _u16), np.empty(square, _u16), np.empty(square, _u16)
    multiply_symmetric(rows, rows, gram)
    for iteration in range(len(factors)):
        multiply_symmetric(gram, gram, factor)
        combine(factors[iteration], gram, factor)
        if iteration:
            multiply_symmetric(factor, turning, other)
            turning, other = other, turning
        else:
            turning[:] = factor
        if iteration + 1 < len(factors):
            multiply_symmetric(gram, factor, other)
            multiply_symmetric(factor, other, gram)
    return turning


@kernel
def multiply_symmetric(left: Any, right: Any, outputs: Any) -> None:
    """outputs (M, M) = left (M, K) right^T, right (M, K), where that is known to be symmetric."""
    count, depth = len(left), left.shape[1] // 2
    tiles, none = np.empty((count // COLUMNS, depth, COLUMNS), _f32), np.zeros(COLUMNS, _f32)
    pack_turned(right.view(_f32), tiles)
    for column in range(0, count, COLUMNS):
        words = address(tiles) + 4 * depth * column, 4 * COLUMNS
        for row in range(column, count, ROWS):
            first = min(row, count - ROWS)
            sums = address(outputs) + 2 * (count * first + column), 2 * count
            grow_halved(((address(left) + 4 * depth * first, 4 * depth, 4), words, (address(none), 0), sums), depth)
    mirror(outputs)


@part
def combine(factors: Any, gram: Any, squares: Any) -> None:
    """squares (m, m) = a I + b gram + c squares."""
    one, three, five = factors
    for row in range(len(gram)):
        for column in range(len(gram)):
            squares[row, column] = rounded(three * load(gram[row, column]) + five * load(squares[row, column]), squares)
        squares[row, row] = rounded(one + load(squares[row, row]), squares)


@part
def mirror(matrix: Any) -> None:
    """The upper half of a matrix (m, m) becomes what the lower one is."""
    for first in range(0, len(matrix), LANES):
        for row in range(first, len(matrix)):
            for column in range(first, min(row, first + LANES)):
                matrix[column, row] = matrix[row, column]
