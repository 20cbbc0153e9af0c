"""Ranking by whole numbers: the best tokens from their products, compiled by numba, for processors with AVX512 VNNI.

In and out: as in kernels.py. The decision to question: such a processor adds up products of 16-bit numbers twice as fast as those of
float32 numbers, of 8-bit numbers four times as fast, and without rounding. Logits are those of whole numbers; the largest ones, and those
of the best tokens, are computed once more in float32. The others enter the sum of the softmax alone, where what they are off by nearly
cancels.
"""

from typing import Any

import numpy as np

from transduce.model import int8_kernels
from transduce.model.kernels import Array, exponential, kernel, largest, part
from transduce.model.search_kernels import insert_better
from transduce.model.tiles import PAIRS, grow_pairs
from transduce.model.vectors import address

_u8, _i16, _i32, _f32 = np.uint8, np.int16, np.int32, np.float32
ROWS, COLUMNS = PAIRS.rows, PAIRS.columns
BLOCK = 2 * ROWS
"""Rows that meet a tile of weights one after the other; their logits stay in the second cache."""
WORDS = 64
"""Pairs of numbers whose products are added up without rounding; these sums are added as float32 numbers."""
NORM, LARGEST = np.float32(46000), np.float32(32767)
"""Most of so many pairs, as a vector, and of each number: a sum of products is at most the product of norms (Cauchy, Schwarz), 31 bits."""
NEAR, NEAR_IN_FOURS = np.float32(5), np.float32(4)
"""Logits less than this below the largest are computed in float32: all that have more than 1 / 150 or 1 / 55 of its probability."""
SPARE = 3
"""Tokens beyond those asked for that are compared in float32, in case that rounding has put one behind another."""

SMALLEST = np.finfo(np.float32).tiny


@kernel
def best_of_pairs(hidden: Array, head: Any, asked: Any) -> None:
    """What `best_of_rows` tells, of the logits of hidden (N, K). head: tiles (T, P, COLUMNS, 2) int16, the steps (T COLUMNS,) of their
    columns, the bias, -infinity behind the last, and the weights (V, K). asked: tokens that are left out, the end, and what is written:
    values (N, k), tokens (N, k), ends (N,)."""
    (tiles, steps, bias, weights), count = head, len(hidden)
    logits, bounds = np.empty((BLOCK, len(steps)), _f32), np.empty((BLOCK, len(tiles)), _f32)
    whole, own = np.zeros((BLOCK, 2 * tiles.shape[1]), _i16), np.zeros(BLOCK, _f32)
    likely, near = likely_of(asked), np.empty(len(steps) + 1, np.int64)
    for first in range(0, count, BLOCK):
        rows = min(BLOCK, count - first)
        for row in range(rows):
            own[row] = round_row(hidden, (first + row, row), whole)
        add_products(whole, (tiles, np.zeros(COLUMNS, _f32), rows), logits)
        scale((own, steps, bias), rows, (logits, bounds))
        for row in range(rows):
            rank_row(((hidden, weights, bias), asked, NEAR), (first + row, row), (logits, bounds, near, likely))


@kernel
def best_of_fours(hidden: Array, head: Any, asked: Any) -> None:
    """As `best_of_pairs`. head: tiles (T, P, COLUMNS) of four int8 numbers, what sums begin with (T COLUMNS,), then as there."""
    (tiles, begin, steps, bias, weights), count = head, len(hidden)
    logits, bounds = np.empty((BLOCK, len(steps)), _f32), np.empty((BLOCK, len(tiles)), _f32)
    whole, own = np.zeros((BLOCK, 4 * tiles.shape[1]), _u8), np.zeros(BLOCK, _f32)
    likely, near = likely_of(asked), np.empty(len(steps) + 1, np.int64)
    for first in range(0, count, BLOCK):
        rows = min(BLOCK, count - first)
        for row in range(rows):
            own[row] = int8_kernels.round_row(hidden, first + row, whole[row])
        int8_kernels.add_products((whole, tiles, begin), (0, rows), logits)
        scale((own, steps, bias), rows, (logits, bounds))
        for row in range(rows):
            rank_row(((hidden, weights, bias), asked, NEAR_IN_FOURS), (first + row, row), (logits, bounds, near, likely))


@part
def likely_of(asked: Any) -> Any:
    """Room for the largest logits of a row and their columns."""
    _, _, values, _, _ = asked
    spare = values.shape[1] + SPARE
    return np.empty((1, spare), _f32), np.empty((1, spare), np.int64)


@part
def scale(matrix: Any, rows: Any, written: Any) -> None:
    """Logits, and the largest of each tile, from the sums of some rows. matrix: steps of the rows, of the columns, bias. written: sums,
    which become logits (BLOCK, T COLUMNS), and bounds (BLOCK, T)."""
    (own, steps, bias), (logits, bounds) = matrix, written
    for row in range(rows):
        for column in range(logits.shape[1]):
            logits[row, column] = logits[row, column] * own[row] * steps[column] + bias[column]
        for tile in range(bounds.shape[1]):
            bounds[row, tile] = largest(logits[row, tile * COLUMNS : (tile + 1) * COLUMNS])


@part
def rank_row(read: Any, place: Any, written: Any) -> None:
    """What is asked of a row. read: hidden, weights and bias, what is asked, and which logits are near the largest. place: which row of
    hidden becomes which. written: logits, bounds, and room for columns and for likely tokens."""
    (exact, (excluded, end, values, tokens, ends), far), (place, row), (logits, bounds, near, likely) = read, place, written
    improve(exact, (place, row, end, far), (logits, bounds, near))
    norm = log_sum(logits, row, largest(bounds[row]))
    ends[place] = logits[row, end] - norm
    for token in excluded:
        logits[row, token] = -np.inf
    find_likely((logits, bounds), row, likely)
    rank_likely((exact, likely, norm), (place, row), (logits, values, tokens))


@part
def improve(exact: Any, place: Any, written: Any) -> None:
    """The largest logits of a row (BLOCK, V), and that of the end, in float32. exact: hidden (N, K), weights (V, K), bias. place: which row
    of hidden becomes which, the end, and how far below the largest. written: logits, bounds, and room for columns (V + 1,)."""
    (read, row, end, far), (logits, bounds, near) = place, written
    bar, count = largest(bounds[row]) - far, 1
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
def round_row(inputs: Any, places: Any, whole: Any) -> Any:
    """A row of inputs (N, K) over a step, to the nearest whole numbers (BLOCK, K or more); the step. places: which row becomes which."""
    read, written = places
    step, bits, width = SMALLEST, inputs[read].view(_i32), inputs.shape[1]
    for first in range(0, width, 2 * WORDS):
        total, most = _f32(0), _i32(0)
        for k in range(first, min(first + 2 * WORDS, width)):
            total += inputs[read, k] * inputs[read, k]
            most = max(most, _i32(bits[k] & _i32(0x7FFFFFFF)))  # numbers without signs order as their bits do
        step = max(step, np.sqrt(total) / NORM, _i32(most).view(_f32) / LARGEST)
    for k in range(inputs.shape[1]):
        whole[written, k] = _i16(np.rint(inputs[read, k] / step))
    return step


@part
def add_products(whole: Any, read: Any, sums: Any) -> None:
    """The sums (BLOCK, T COLUMNS) of the products of rows and tiles. read: tiles, zeros, how many rows."""
    tiles, none, rows = read
    words, size = tiles.shape[1], sums.shape[1]
    for tile in range(len(tiles)):
        for row in range(0, rows, ROWS):
            grown = address(sums) + 4 * (row * size + tile * COLUMNS), 4 * size
            for first in range(0, words, WORDS):
                left = address(whole) + 4 * (row * words + first), 4 * words, 4
                right = address(tiles) + 4 * (tile * words + first) * COLUMNS, 4 * COLUMNS
                grow_pairs((left, right, grown if first else (address(none), 0), grown), min(WORDS, words - first))


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
