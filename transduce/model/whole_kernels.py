"""The best tokens from products of whole numbers, compiled by numba: for processors with AVX512 VNNI.

In and out: as in kernels.py. The decision to question: such a processor adds up products of 16-bit numbers twice as fast as those of
float32 numbers, and without rounding.
"""

from typing import Any

import numpy as np

from transduce.model.kernels import Array, exponential, kernel, largest, ordered, part
from transduce.model.search_kernels import insert_better
from transduce.model.tiles import PAIRS, address, grow_pairs

_i16, _i32, _f32 = np.int16, np.int32, np.float32
ROWS, COLUMNS = PAIRS.rows, PAIRS.columns
WORDS = 64
"""Pairs of numbers whose products are added up without rounding; these sums are added as float32 numbers."""
NORM, LARGEST = np.float32(46000), np.float32(32767)
"""Most of so many pairs, as a vector, and of each number: a sum of products is at most the product of norms (Cauchy, Schwarz), 31 bits."""
NEAR = np.float32(6)
"""Logits less than this below the largest are computed in float32: all that have more than 1 / 400 of its probability."""
SPARE = 3
"""Tokens beyond those asked for that are compared in float32, in case that rounding has put one behind another."""
UNSURE = np.float32(0.01)
"""More than whole numbers are off (0.001, measured)."""

SMALLEST = np.finfo(np.float32).tiny


@kernel
def best_of_products(hidden: Array, head: Any, asked: Any) -> None:
    """What `best_of_rows` tells, of the logits of hidden (N, K). head: tiles (T, P, COLUMNS, 2) int16, the steps (T COLUMNS,) of their
    columns, the bias, -infinity behind the last, and the weights (V, K). asked: tokens that are left out, the end, and what is written:
    values (N, k), tokens (N, k), ends (N,).

    Logits are those of whole numbers; the largest ones, and those of the best tokens, are computed once more in float32. The others enter
    the sum of the softmax alone, where what they are off by nearly cancels."""
    (tiles, steps, bias, weights), (excluded, end, values, tokens, ends) = head, asked
    count, spare = len(values), values.shape[1] + SPARE
    logits, bounds = np.empty((ROWS, len(steps)), _f32), np.empty((ROWS, len(tiles)), _f32)
    whole, own = np.zeros((ROWS, 2 * tiles.shape[1]), _i16), np.zeros(ROWS, _f32)
    likely = np.empty((1, spare), _f32), np.empty((1, spare), np.int64)
    for first in range(0, count, ROWS):
        rows = min(ROWS, count - first)
        for row in range(rows):
            own[row] = round_row(hidden, (first + row, row), whole)
        multiply(whole, (tiles, steps, bias), (own[:rows], logits, bounds))
        for row in range(rows):
            place, exact = first + row, (hidden, weights, bias)
            improve(exact, (place, row, end), (logits, bounds))
            norm = log_sum(logits, row, largest(bounds[row]))
            ends[place] = logits[row, end] - norm
            for token in excluded:
                logits[row, token] = -np.inf
            find_likely((logits, bounds), row, likely)
            rank_likely((exact, likely, norm), (place, row), (logits, values, tokens))


@part
def improve(exact: Any, place: Any, written: Any) -> None:
    """The largest logits of a row (ROWS, V), and that of the end, in float32. exact: hidden (N, K), weights (V, K), bias. place: which row
    of hidden becomes which, and the end. written: logits, and the largest of each tile."""
    (read, row, end), (logits, bounds) = place, written
    bar = largest(bounds[row]) - NEAR
    logits[row, end] = exact_logit(exact, read, end)
    for tile in range(bounds.shape[1]):
        if bounds[row, tile] > bar:
            for column in range(tile * COLUMNS, (tile + 1) * COLUMNS):
                logits[row, column] = exact_logit(exact, read, column) if logits[row, column] > bar else logits[row, column]


@part
def find_likely(read: Any, row: Any, likely: Any) -> None:
    """The largest logits of a row and their columns, (1, k). read: logits (ROWS, V), and about the largest of each tile."""
    (logits, bounds), (found, names) = read, likely
    found[:], names[:] = -np.inf, 0
    for tile in range(bounds.shape[1]):
        if bounds[row, tile] + UNSURE > found[0, found.shape[1] - 1]:
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
    """A row of inputs (N, K) over a step, to the nearest whole numbers (ROWS, K or more); the step. places: which row becomes which."""
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
def multiply(whole: Any, matrix: Any, written: Any) -> None:
    """The logits of rows of whole numbers, and the largest of each tile. matrix: tiles, steps, bias. written: the steps of the rows (R,),
    logits (ROWS, T COLUMNS), bounds (ROWS, T)."""
    (tiles, steps, bias), (own, logits, bounds) = matrix, written
    sums, totals, none = np.empty((ROWS, COLUMNS), _i32), np.empty((ROWS, COLUMNS), _f32), np.zeros(COLUMNS, _i32)
    words = tiles.shape[1]
    for tile in range(len(tiles)):
        totals[:] = _f32(0)
        for first in range(0, words, WORDS):
            left = address(whole) + 4 * first, 4 * words, 4
            right = address(tiles) + 4 * (tile * words + first) * COLUMNS, 4 * COLUMNS
            grow_pairs((left, right, (address(none), 0), (address(sums), 4 * COLUMNS)), min(WORDS, words - first))
            totals += sums
        for row in range(len(own)):
            bounds[row, tile] = scale((totals, own, (steps, bias)), (row, tile * COLUMNS), logits)


@part
def scale(read: Any, place: Any, logits: Any) -> Any:
    """The logits of a row of a tile; the largest. read: sums (ROWS, COLUMNS), the steps of the rows, those of the columns, and the bias.
    place: the row, the first column."""
    (totals, own, (steps, bias)), (row, first), most = read, place, _i32(-(2**31))
    for place in range(COLUMNS):
        logit = totals[row, place] * own[row] * steps[first + place] + bias[first + place]
        logits[row, first + place] = logit
        most = max(most, ordered(_f32(logit).view(_i32)))
    return ordered(most).view(_f32)


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
