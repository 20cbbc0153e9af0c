"""Loops of a step of search, compiled by numba: a decoder's work between two products, each in one pass over memory.

In and out: as in kernels.py. Products have M' rows, of which the first N are hypotheses or positions; the rest is never read. The decision
to question: keys and values stay in the number format in which their product gave them, while scores and sums are float32.
"""

from typing import Any

import numpy as np

from transduce.model import attention_tiles
from transduce.model.attention_tiles import SIZE
from transduce.model.kernels import Array, exponential, kernel, largest, load, lower, ordered, part, rounded
from transduce.model.vectors import address

_i32, _f32 = np.int32, np.float32
GROUPS = 128
"""Of columns, whose largest numbers are known while a row is ranked."""
STEPS, SMALLEST = np.float32(255), np.finfo(np.float32).tiny
"""Of a row that is rounded to eight bits, and the smallest one."""


@kernel
def add_norm(outputs: Any, affine: Any, written: Any) -> None:
    """written: hidden (N, D), to which the outputs (M', D) are added unless they are None, and its layer norm (M', D). affine: weight, bias
    (D,), and what is added to each variance."""
    (weight, bias, epsilon), (hidden, normal) = affine, written
    count, width = hidden.shape
    for row in range(count):
        total = _f32(0)
        for place in range(width):
            number = hidden[row, place]
            if outputs is not None:
                number += load(outputs[row, place])
            hidden[row, place] = number
            total += number
        mean, total = total / _f32(width), _f32(0)
        for place in range(width):
            off = hidden[row, place] - mean
            total += off * off
        scale = _f32(1) / np.sqrt(total / _f32(width) + epsilon)
        for place in range(width):
            normal[row, place] = rounded((hidden[row, place] - mean) * scale * weight[place] + bias[place], normal)


@part
def attend(read: Any, rows: Any, written: Any) -> None:
    """mixed[q] = softmax(query keys^T / sqrt(K) + bias) values for one query of S keys. read: queries, keys, values (rows, K), bias (rows,
    S), and rows of keys and values (choices, S). rows: of the query, what to add to those of keys and of values, that of the bias, which
    choice, and q. written: room for float32 numbers (K,), (S or more,), (K,), and mixed.

    Rows are named by their numbers, because numba counts who uses an array that is cut out of another. Four keys at a time: the query
    and the sums are read a quarter as often."""
    (queries, keys, values, bias, known), (query, key, value, hidden, choice, place) = read, rows
    (exact, weights, sums), mixed = written
    size, length = len(exact), known.shape[1]
    factor = _f32(1) / np.sqrt(_f32(size))
    for k in range(size):
        exact[k] = load(queries[query, k]) * factor
    score(exact, (keys, known, choice, key), weights)
    for s in range(length):
        weights[s] += bias[hidden, s]
    for s in range(length, len(weights)):
        weights[s] = _f32(-3e38)
    lower(weights)
    total = _f32(0)
    for s in range(len(weights)):
        weights[s] = exponential(weights[s])
        total += weights[s]
    add_weighted(weights, (values, known, choice, value), sums)
    total = _f32(1) / total
    for k in range(size):
        mixed[place, k] = rounded(sums[k] * total, mixed)


@part
def score(exact: Any, memory: Any, weights: Any) -> None:
    """weights (S,) = the products of a query (K,) with S keys. memory: keys (rows, K), rows (choices, S), which choice, what to add."""
    keys, known, choice, more = memory
    if len(exact) == SIZE:
        places = address(exact), row_of(known, choice), address(keys), more, address(weights), known.shape[1]
        attention_tiles.score(places, keys[0, 0])
    else:
        score_any(exact, memory, weights)


@part
def row_of(known: Any, choice: Any) -> Any:
    """The address of a row of int64 numbers."""
    return address(known) + 8 * known.shape[1] * choice


@part
def score_any(exact: Any, memory: Any, weights: Any) -> None:
    """`score` with a query of any width."""
    keys, known, choice, more = memory
    size, length = len(exact), known.shape[1]
    fours = length // 4 * 4
    for s in range(0, fours, 4):
        one, two = known[choice, s] + more, known[choice, s + 1] + more
        three, four = known[choice, s + 2] + more, known[choice, s + 3] + more
        first, second, third, fourth = _f32(0), _f32(0), _f32(0), _f32(0)
        for k in range(size):
            first += exact[k] * load(keys[one, k])
            second += exact[k] * load(keys[two, k])
            third += exact[k] * load(keys[three, k])
            fourth += exact[k] * load(keys[four, k])
        weights[s], weights[s + 1], weights[s + 2], weights[s + 3] = first, second, third, fourth
    for s in range(fours, length):
        first = _f32(0)
        for k in range(size):
            first += exact[k] * load(keys[known[choice, s] + more, k])
        weights[s] = first


@part
def add_weighted(weights: Any, memory: Any, sums: Any) -> None:
    """sums (K,) = the values times their weights (S,). memory: values (rows, K), rows (choices, S), which choice, what to add."""
    values, known, choice, more = memory
    if len(sums) == SIZE:
        places = address(weights), row_of(known, choice), address(values), more, address(sums), known.shape[1]
        attention_tiles.mix(places, values[0, 0])
    else:
        add_weighted_any(weights, memory, sums)


@part
def add_weighted_any(weights: Any, memory: Any, sums: Any) -> None:
    """`add_weighted` with values of any width."""
    values, known, choice, more = memory
    size, length = len(sums), known.shape[1]
    fours = length // 4 * 4
    for k in range(size):
        sums[k] = _f32(0)
    for s in range(0, fours, 4):
        one, two = known[choice, s] + more, known[choice, s + 1] + more
        three, four = known[choice, s + 2] + more, known[choice, s + 3] + more
        first, second, third, fourth = weights[s], weights[s + 1], weights[s + 2], weights[s + 3]
        for k in range(size):
            half = first * load(values[one, k]) + second * load(values[two, k])
            sums[k] += half + third * load(values[three, k]) + fourth * load(values[four, k])
    for s in range(fours, length):
        first = weights[s]
        for k in range(size):
            sums[k] += first * load(values[known[choice, s] + more, k])


@part
def rooms_for(length: Any, size: Any) -> Any:
    """What `attend` computes in; scores have whole vectors."""
    return np.empty(size, _f32), np.empty((length + 7) // 8 * 8, _f32), np.empty(size, _f32)


@kernel
def attend_past(packed: Array, cache: Any, mixed: Array) -> None:
    """Keys and values of packed (M', (H + 2 G) K) join the cache, then its queries attend: mixed (M', H K). cache: pages (L, B, 2 G, P, W,
    K), layer, and of each hypothesis its sentence (N,) and the places of its positions (N, t), the new one included.

    The hypotheses of a sentence take turns with each head, while its keys and values are in a core's cache."""
    pages, layer, (sentences, places) = cache
    _, batch, pairs, most, width, size = pages.shape
    count, used = places.shape
    parts, groups = packed.shape[1] // size, pairs // 2
    heads, past, known, apart = parts - pairs, pages.reshape(-1, size), np.empty((count, used), np.int64), most * width
    read, outputs = (packed.reshape(-1, size), past, past, np.zeros((1, used), _f32), known), mixed.reshape(-1, size)
    for row in range(count):
        first = (layer * batch + sentences[row]) * pairs * apart
        for position in range(used):
            known[row, position] = first + position * width + places[row, position]
        for pair in range(pairs):
            copy_row(read[0], row * parts + heads + pair, (past, known[row, used - 1] + pair * apart))
    rooms, start = rooms_for(used, size), 0
    while start < count:
        end = same_until(sentences, start)
        for head in range(heads):
            key, value = head * groups // heads * apart, (groups + head * groups // heads) * apart
            for row in range(start, end):
                attend(read, (row * parts + head, key, value, 0, row, row * heads + head), (rooms, outputs))
        start = end


@kernel
def copy_pages(pages: Array, kept: Any, grown: Array) -> None:
    """The first positions of some sentences in pages of their own. pages: (L, B, 2 G, P, W, K). kept: the sentences (B',) and how many
    positions. grown: (L, B', 2 G, P', W', K)."""
    (sentences, count), (layers, _, pairs, _, width, _) = kept, pages.shape
    for layer, row, pair in np.ndindex(layers, len(sentences), pairs):
        read, written = pages[layer, sentences[row], pair], grown[layer, row, pair]
        for position in range(count):
            written[position, :width] = read[position]


@part
def same_until(numbers: Any, start: Any) -> Any:
    """The place of the first number after `start` that is another one, or how many there are."""
    end = start + 1
    while end < len(numbers) and numbers[end] == numbers[start]:
        end += 1
    return end


@part
def copy_row(rows: Any, row: Any, written: Any) -> None:
    """A row (K,) of rows becomes one of others. written: those, and which."""
    others, place = written
    for k in range(others.shape[1]):
        others[place, k] = rows[row, k]


@kernel
def attend_memory(queries: Array, memory: Any, mixed: Array) -> None:
    """The hypotheses of queries (M', H K) attend to the memory of their sentence: mixed (M', H K). memory: keys, values (B, G, S, K), bias
    (B, S), and the sentence of each hypothesis (N,). They take turns as in `attend_past`."""
    keys, values, bias, sentences = memory
    _, groups, length, size = keys.shape
    heads, rooms, start = queries.shape[1] // size, rooms_for(length, size), 0
    read = queries.reshape(-1, size), keys.reshape(-1, size), values.reshape(-1, size), bias, np.arange(length).reshape(1, -1)
    outputs = mixed.reshape(-1, size)
    while start < len(sentences):
        end, sentence = same_until(sentences, start), sentences[start]
        for head in range(heads):
            known = (sentence * groups + head * groups // heads) * length
            for row in range(start, end):
                attend(read, (row * heads + head, known, known, sentence, 0, row * heads + head), (rooms, outputs))
        start = end


@part
def copy_rows(rows: Any, places: Any, copies: Any) -> None:
    """copies (S or more, K) float32 of S of the rows (N, K). places: the first row, from one to the next, S."""
    first, step, length = places
    for s in range(length):
        for k in range(rows.shape[1]):
            copies[s, k] = load(rows[first + s * step, k])


@kernel
def attend_within(packed: Array, memory: Any, mixed: Array) -> None:
    """Sequences attend to themselves: packed (M', (H + 2 G) K), mixed (M', H K). memory: where in the rows each of them begins and the last
    ends (B + 1,), H, G."""
    starts, heads, groups = memory
    longest, size, parts = np.max(starts[1:] - starts[:-1]), mixed.shape[1] // heads, heads + 2 * groups
    keys, values = np.empty((longest, size), _f32), np.empty((longest, size), _f32)
    rows, bias, outputs = packed.reshape(-1, size), np.zeros((1, longest), _f32), mixed.reshape(-1, size)
    for sentence in range(len(starts) - 1):
        first, length = starts[sentence], starts[sentence + 1] - starts[sentence]
        rooms, read = rooms_for(length, size), (rows, keys, values, bias, np.arange(length).reshape(1, -1))
        for group in range(groups):
            copy_rows(rows, (first * parts + heads + group, parts, length), keys)
            copy_rows(rows, (first * parts + heads + groups + group, parts, length), values)
            for place in range(length * heads // groups):
                row, head = first + place % length, group * heads // groups + place // length
                attend(read, (row * parts + head, 0, 0, 0, 0, row * heads + head), (rooms, outputs))


@part
def round_row(inputs: Any, place: Any, whole: Any) -> Any:
    """How many steps each number of a row is above the least one, or above 0 if that is less, to the nearest whole number, 0 to 255, ties
    to even (K or more,). The step, which of a row with NaN is NaN, and what a 0 stands for. place: which row, and how much is taken from
    these whole numbers."""
    (row, less), width = place, inputs.shape[1]
    bits, low, high = inputs[row].view(_i32), _i32(0), _i32(0)
    for k in range(width):
        low, high = min(low, ordered(bits[k])), max(high, ordered(bits[k]))
    least, most = ordered(low).view(_f32), ordered(high).view(_f32)
    step = (most - least) / STEPS
    step = SMALLEST if step < SMALLEST else step
    for k in range(width):
        whole[k] = _i32(np.rint((inputs[row, k] - least) / step)) - less
    return step, least + _f32(less) * step


@kernel
def round_rows(inputs: Array, written: Any) -> None:
    """written: inputs (M, K) as `round_row` rounds them, less 128, (M', K) int8; their steps and what 0 stands for, (M,) each."""
    whole, steps, lows = written
    for row in range(len(inputs)):
        steps[row], lows[row] = round_row(inputs, (row, _i32(128)), whole[row])


@kernel
def scale_rows(scales: Any, bias: Any, rows: Any) -> None:
    """outputs (M, N) = products (M or more, N) * scales (N,) of columns, unless None, * steps (M,) of rows + lows (M,) * sums (N,) + bias
    (N,), unless None; at least some number. rows: products, sums; steps, lows; outputs, the number."""
    (products, sums), (steps, lows), (outputs, least) = rows
    width = outputs.shape[1]
    for row in range(len(steps)):
        step, low = steps[row], lows[row]
        for place in range(width):
            total = _f32(products[row, place])
            if scales is not None:
                total *= scales[place]
            total = total * step + low * sums[place]
            if bias is not None:
                total += bias[place]
            outputs[row, place] = least if total < least else total


@kernel
def best_of_rows(logits: Array, special: Any, written: Any) -> None:
    """written: the largest log-probabilities (N, k) of each row, best first, their tokens (N, k), and the log-probability of the end (N,).
    logits: (N, V), overwritten. special: tokens that are left out, and the end. A row with NaN has NaN alone.

    Groups of columns of which none is larger than the k-th best so far are not looked at."""
    (excluded, end), (values, tokens, ends) = special, written
    (count, size), most, bounds = logits.shape, values.shape[1], np.empty(GROUPS, _f32)
    for row in range(count):
        bound_groups(logits.view(_i32), row, bounds)
        top, total = largest(bounds), _f32(0)
        for place in range(size):
            total += exponential(logits[row, place] - top)
        norm = top + np.log(total)
        ends[row] = logits[row, end] - norm
        for token in excluded:
            logits[row, token] = -np.inf
        for rank in range(most):
            values[row, rank], tokens[row, rank] = -np.inf, 0
        for group in range(GROUPS):
            if bounds[group] > values[row, most - 1]:
                insert_better(logits, (row, group, size, GROUPS), (values, tokens, row))
        for rank in range(most):
            values[row, rank] -= norm


@part
def bound_groups(codes: Any, row: Any, bounds: Any) -> None:
    """The largest number of a row in each group of columns, as `largest` finds it. codes: (N, V), the bits of the numbers. Group g has
    the columns g, g + GROUPS, ..., so that vector instructions compare neighbours."""
    found, whole = bounds.view(_i32), codes.shape[1] // GROUPS * GROUPS
    found[:] = _i32(-(2**31))
    for first in range(0, whole, GROUPS):
        for group in range(GROUPS):
            found[group] = max(found[group], ordered(codes[row, first + group]))
    for place in range(whole, codes.shape[1]):
        found[place - whole] = max(found[place - whole], ordered(codes[row, place]))
    for group in range(GROUPS):
        found[group] = ordered(found[group])


@part
def insert_better(logits: Any, group: Any, written: Any) -> None:
    """Put those of a group (row, first column, behind the last one, from one to the next) that are larger than the last of the best among
    these, in order. written: the best of each row (N, k), their columns (N, k), and in which row of these."""
    (row, first, end, apart), (values, tokens, best) = group, written
    most = values.shape[1]
    for place in range(first, end, apart):
        rank, value = most, logits[row, place]
        while rank > 0 and value > values[best, rank - 1]:
            if rank < most:
                values[best, rank], tokens[best, rank] = values[best, rank - 1], tokens[best, rank - 1]
            rank -= 1
        if rank < most:
            values[best, rank], tokens[best, rank] = value, place
