"""Ranking by whole numbers: the best tokens from their products, compiled by numba, for processors with AVX512 VNNI or AVX2.

In and out: as in kernels.py. The decision to question: such a processor adds up products of 16-bit numbers twice as fast as those of
float32 numbers, of 8-bit numbers four times as fast, and without rounding. Logits are those of whole numbers; the largest ones, and those
of the best tokens, are computed once more in float32. The others enter the sum of the softmax alone, where what they are off by nearly
cancels.
"""

from typing import Any

import numpy as np

from transduce.model import int8_kernels, int16_kernels
from transduce.model.kernels import Array, exponential, kernel, largest, part
from transduce.model.search_kernels import insert_better
from transduce.model.tiles import FOURS

_f32 = np.float32
COLUMNS = FOURS.columns
BLOCK = 2 * FOURS.rows
"""Rows that meet a tile of weights one after the other; their logits stay in the second cache."""
NEAR = np.float32(5)
"""Logits less than this below the largest are computed in float32: all that have more than 1 / 150 of its probability."""
SPARE = 3
"""Tokens beyond those asked for that are compared in float32, in case that rounding has put one behind another."""


@kernel
def best_of_pairs(hidden: Array, head: Any, asked: Any) -> None:
    """What `best_of_rows` tells, of the logits of hidden (N, K). head: a matrix as int16_kernels.py has it, whose bias is -infinity behind
    the last token, and the weights (V, K). asked: tokens that are left out, the end, and what is written: values (N, k), tokens (N, k),
    ends (N,)."""
    matrix, weights = head
    rounded, room = int16_kernels.rooms_for(matrix, BLOCK), room_for(len(matrix[0]), asked)
    for first in range(0, len(hidden), BLOCK):
        rows = min(BLOCK, len(hidden) - first)
        int16_kernels.multiply_block((hidden, matrix, rounded), (first, rows, 0), (room[0], _f32(-np.inf)))
        rank_block(((hidden, weights, matrix[2]), asked), (first, rows), room)


@kernel
def best_of_fours(hidden: Array, head: Any, asked: Any) -> None:
    """As `best_of_pairs`, with a matrix as int8_kernels.py has it."""
    matrix, weights = head
    rounded, room = int8_kernels.rooms_for(matrix, BLOCK), room_for(len(matrix[0]), asked)
    for first in range(0, len(hidden), BLOCK):
        rows = min(BLOCK, len(hidden) - first)
        int8_kernels.multiply_block((hidden, matrix, rounded), (first, rows, 0), (room[0], _f32(-np.inf)))
        rank_block(((hidden, weights, matrix[3]), asked), (first, rows), room)


@part
def room_for(tiles: Any, asked: Any) -> Any:
    """Room for logits (BLOCK, V), the largest of each tile (BLOCK, T), columns (V + 1,), and the likely ones of a row, with their columns:
    two of (1, k)."""
    spare, width = asked[2].shape[1] + SPARE, tiles * COLUMNS
    likely = np.empty((1, spare), _f32), np.empty((1, spare), np.int64)
    return np.empty((BLOCK, width), _f32), np.empty((BLOCK, tiles), _f32), np.empty(width + 1, np.int64), likely


@part
def rank_block(read: Any, place: Any, room: Any) -> None:
    """What is asked of some rows. read: hidden, weights and bias, and what is asked. place: the first of these rows, and how many."""
    (exact, (excluded, end, values, tokens, ends)), (first, rows), (logits, bounds, near, likely) = read, place, room
    for row in range(rows):
        place = first + row
        for tile in range(bounds.shape[1]):
            bounds[row, tile] = largest(logits[row, tile * COLUMNS : (tile + 1) * COLUMNS])
        improve(exact, (place, row, end), (logits, bounds, near))
        norm = log_sum(logits, row, largest(bounds[row]))
        ends[place] = logits[row, end] - norm
        for token in excluded:
            logits[row, token] = -np.inf
        find_likely((logits, bounds), row, likely)
        rank_likely((exact, likely, norm), (place, row), (logits, values, tokens))


@part
def improve(exact: Any, place: Any, written: Any) -> None:
    """The largest logits of a row (BLOCK, V), and that of the end, in float32. exact: hidden (N, K), weights (V, K), bias. place: which row
    of hidden becomes which, and the end. written: logits, bounds, and room for columns (V + 1,)."""
    (read, row, end), (logits, bounds, near) = place, written
    bar, count = largest(bounds[row]) - NEAR, 1
    near[0] = end
    for tile in range(bounds.shape[1]):
        if bounds[row, tile] > bar:
            for column in range(tile * COLUMNS, (tile + 1) * COLUMNS):
                near[count] = column  # no branch: which ones there are cannot be foreseen
                count += logits[row, column] > bar
    for place in range(count):
        logit, column = exact_logit(exact, read, near[place]), near[place]
        logits[row, column] = logit
        bounds[row, column // COLUMNS] = max(bounds[row, column // COLUMNS], logit)


@part
def find_likely(read: Any, row: Any, likely: Any) -> None:
    """The largest logits of a row and their columns, (1, k). read: logits (BLOCK, V), and what those of a tile are at most."""
    (logits, bounds), (found, names) = read, likely
    found[:], names[:] = -np.inf, 0
    for tile in range(bounds.shape[1]):
        if bounds[row, tile] > found[0, found.shape[1] - 1]:
            insert_better(logits, (row, tile * COLUMNS, (tile + 1) * COLUMNS, 1), (found, names, 0))


@part
def rank_likely(read: Any, place: Any, written: Any) -> None:
    """The best of the likely tokens (1, k or more) of a row, by logits in float32. read: hidden, weights and bias, these tokens, and the
    logarithm of the sum. place: which row of hidden becomes which. written: logits, the best (N, k) and their tokens (N, k)."""
    (exact, (found, names), norm), (read_row, row), (logits, values, tokens) = read, place, written
    values[read_row], tokens[read_row] = -np.inf, 0
    for rank in range(found.shape[1]):
        if found[0, rank] > -np.inf:
            column = names[0, rank]
            logits[row, column] = exact_logit(exact, read_row, column)
            insert_better(logits, (row, column, column + 1, 1), (values, tokens, read_row))
    for rank in range(values.shape[1]):
        values[read_row, rank] -= norm


@part
def exact_logit(read: Any, row: Any, column: Any) -> Any:
    """A logit in float32. read: hidden (N, K), weights (V, K), bias (V or more,)."""
    hidden, weights, bias = read
    total = _f32(0)
    for k in range(hidden.shape[1]):
        total += hidden[row, k] * weights[column, k]
    return total + bias[column]


@part
def log_sum(logits: Any, row: Any, top: Any) -> Any:
    """The logarithm of the sum of exponentials of a row whose largest number is `top`."""
    total = _f32(0)
    for column in range(logits.shape[1]):
        total += exponential(logits[row, column] - top)
    return top + np.log(total)
