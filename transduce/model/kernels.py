"""Loops over rows, compiled by numba: what torch would make several passes over memory of.

In: arrays in one piece; numbers in bfloat16 are arrays of their bits (uint16), sums are float32. Several that are read stand in one tuple.
Out: the arrays of the last argument, which are written, or added to where that is said.

The decision to question: random numbers are not kept but drawn again, from a seed and the place in the array, by the mixing of
splitmix64 (Steele 2014, figure 16), eight bytes at a time. So dropout costs no memory, and its gradient is the same loop.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import binding
from numba.extending import overload

VERSION: str = numba.__version__
_settings = vars(numba.config)
_native = _settings["CPU_NAME"] is None and _settings["CPU_FEATURES"] is None and bool(_settings["ENABLE_AVX"])
INSTRUCTIONS = frozenset(name for name, has in binding.get_host_cpu_features().items() if has and _native)
"""What numba compiles with here, as LLVM names it, and by which it tells apart what it has kept; nothing where its environment variables
say another processor."""
Array = np.ndarray[Any, Any]
"""Of float32, or of uint16: bits of bfloat16."""

_i32, _u8, _u16, _u32, _u64, _f32 = np.int32, np.uint8, np.uint16, np.uint32, np.uint64, np.float32
_SUMS = {"reassoc", "contract", "nsz", "arcp"}
"""How sums may be rearranged, so that they become vector instructions. Numbers that are not numbers stay what they are."""

kernel = numba.njit(fastmath=_SUMS, cache=True, error_model="numpy", nogil=True)
part = numba.njit(fastmath=_SUMS, inline="always", error_model="numpy")


def load(number: Any) -> Any:
    """A number of an array, as float32."""
    raise NotImplementedError


@overload(load, inline="always", strict=False)
def _load(number: Any) -> Any:
    if number == numba.types.uint16:
        return lambda number: _u32(_u32(number) << _u32(16)).view(_f32)
    return lambda number: number


def rounded(number: Any, array: Any) -> Any:
    """A float32 number, as `array` holds it; bfloat16 is rounded to the nearest, ties to even."""
    raise NotImplementedError


@overload(rounded, inline="always", strict=False)
def _rounded(number: Any, array: Any) -> Any:  # noqa: ARG001 (numba calls it with the types of both)
    if array.dtype == numba.types.uint16:
        return lambda number, array: _bits(number)  # noqa: ARG005
    return lambda number, array: number  # noqa: ARG005


@part
def _bits(number: Any) -> Any:
    bits = _f32(number).view(_u32)
    return _u16(_u32(bits + _u32(0x7FFF) + ((bits >> _u32(16)) & _u32(1))) >> _u32(16))


@part
def draw(words: Any, seed: Any, row: Any) -> None:
    """Fill words (W,) uint64 with the random numbers of a row."""
    for place in range(len(words)):
        word = seed + (_u64(row) * _u64(len(words)) + _u64(place) + _u64(1)) * _u64(0x9E3779B97F4A7C15)
        word = (word ^ (word >> _u64(30))) * _u64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> _u64(27))) * _u64(0x94D049BB133111EB)
        words[place] = word ^ (word >> _u64(31))


@part
def exponential(number: Any) -> Any:
    """exp of a number that is at most 0, to 2 units in the last place: a power of two times the polynomial of the Cephes library. Exactly
    0 below -87, where float32 numbers end to be normal ones: what is hidden from attention has no weight."""
    nothing = number < _f32(-87)
    number = _f32(-87) if nothing else number
    power = np.floor(number * _f32(1.44269504) + _f32(0.5))
    rest = number - power * _f32(0.693359375) + power * _f32(2.12194440e-4)
    total = _f32(1.9875691500e-4)
    for factor in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        total = total * rest + _f32(factor)
    total = total * rest * rest + rest + _f32(1)
    return _f32(0) if nothing else total * _i32(_i32(power + _f32(127)) << _i32(23)).view(_f32)


@part
def ordered(bits: Any) -> Any:
    """The bits of a float32 number as a whole number (int32) that orders as it does, and back: this undoes itself. NaN is largest."""
    return _i32(bits ^ ((bits >> _i32(31)) & _i32(0x7FFFFFFF)))


@part
def largest(numbers: Any) -> Any:
    """Of float32 numbers, as whole numbers: only of such do vector instructions come. NaN is largest."""
    bits, most = numbers.view(_i32), _i32(-(2**31))
    for place in range(len(bits)):
        most = max(most, ordered(bits[place]))
    return ordered(most).view(_f32)


@kernel
def drop(read: Any, base: Any, outputs: Array) -> None:
    """outputs (M, D) = inputs * scale where a random byte is at least the threshold, else 0; plus `base` (M, D), unless it is None.
    read: inputs (M, D), and the mask's seed, threshold, scale."""
    inputs, (seed, threshold, scale) = read
    count, width = inputs.shape
    words = np.empty((width + 7) // 8, _u64)
    draws = words.view(_u8)
    for row in range(count):
        draw(words, seed, row)
        for place in range(width):
            kept = load(inputs[row, place]) * scale if draws[place] >= threshold else _f32(0)
            if base is not None:
                kept += load(base[row, place])
            outputs[row, place] = rounded(kept, outputs)


@kernel
def layer_norm(inputs: Array, affine: Any, written: Any) -> None:
    """outputs (M, D) = (inputs - mean) * scale * weight + bias, scale = 1 / deviation. affine: weight, bias (D,), and what is added to each
    variance. written: outputs, and mean and scale of each row (M,)."""
    (weight, bias, epsilon), (outputs, means, scales) = affine, written
    count, width = inputs.shape
    for row in range(count):
        total = _f32(0)
        for place in range(width):
            total += load(inputs[row, place])
        mean = total / _f32(width)
        total = _f32(0)
        for place in range(width):
            off = load(inputs[row, place]) - mean
            total += off * off
        scale = _f32(1) / np.sqrt(total / _f32(width) + epsilon)
        means[row], scales[row] = mean, scale
        for place in range(width):
            outputs[row, place] = rounded((load(inputs[row, place]) - mean) * scale * weight[place] + bias[place], outputs)


@kernel
def layer_norm_gradient(gradient: Array, read: Any, written: Any) -> None:
    """read: inputs (M, D), weight (D,), mean and scale of each row (M,). written: gradient of the inputs (M, D), and those of weight and
    bias (D,), which are added to."""
    (inputs, weight, means, scales), (back, weights, biases) = read, written
    count, width = inputs.shape
    for row in range(count):
        mean, scale = means[row], scales[row]
        total, product = _f32(0), _f32(0)
        for place in range(width):
            incoming, normal = load(gradient[row, place]), (load(inputs[row, place]) - mean) * scale
            weights[place] += incoming * normal
            biases[place] += incoming
            total += incoming * weight[place]
            product += incoming * weight[place] * normal
        total, product = total / _f32(width), product / _f32(width)
        for place in range(width):
            normal = (load(inputs[row, place]) - mean) * scale
            back[row, place] = rounded(scale * (load(gradient[row, place]) * weight[place] - total - normal * product), back)


@kernel
def rectified_gradient(outputs: Array, scale: Any, gradient: Array) -> None:
    """gradient (M, D) of what was rectified, dropped and scaled: times `scale`, and 0 where the outputs are."""
    count, width = gradient.shape
    for row in range(count):
        for place in range(width):
            incoming = load(gradient[row, place])
            gradient[row, place] = rounded(incoming * scale if load(outputs[row, place]) > _f32(0) else _f32(0), gradient)


@kernel
def column_sums(inputs: Array, sums: Array) -> None:
    """inputs (M, D) are added to sums (D,)."""
    count, width = inputs.shape
    for row in range(count):
        for place in range(width):
            sums[place] += load(inputs[row, place])


@part
def lower(row: Any) -> None:
    """Subtract from the numbers (S,) their maximum. Rows are short: `largest` would cost more."""
    most = _f32(-np.inf)
    for s in range(len(row)):
        most = most if row[s] <= most else row[s]
    for s in range(len(row)):
        row[s] -= most


@part
def normalise(row: Any) -> None:
    """Divide the numbers (S,) by their sum."""
    total = _f32(0)
    for s in range(len(row)):
        total += row[s]
    total = _f32(1) / total
    for s in range(len(row)):
        row[s] *= total


@kernel
def attention_weights(read: Any, mask: Any, written: Any) -> None:
    """read: scores (B, H, T, S), factor, bias (-1,), strides; the bias of b, h, t is at the sum of b, h, t times `strides`.
    written: softmax of scores * factor + bias, and the weights, the same after dropout, (B, H, T, S) both."""
    (scores, factor, bias, strides), (seed, threshold, scale), (softmax, weights) = read, mask, written
    batch, heads, length, size = scores.shape
    count = length * size
    words, exact = np.empty((count + 7) // 8, _u64), np.empty(count, _f32)
    draws = words.view(_u8)
    for block in range(batch * heads):
        b, h = block // heads, block % heads
        for t in range(length):
            first, row = b * strides[0] + h * strides[1] + t * strides[2], exact[t * size : (t + 1) * size]
            for s in range(size):
                row[s] = load(scores[b, h, t, s]) * factor + bias[first + s]
            lower(row)
        for place in range(count):
            exact[place] = exponential(exact[place])
        for t in range(length):
            normalise(exact[t * size : (t + 1) * size])
        draw(words, seed, block)
        whole, kept = softmax[b, h].reshape(-1), weights[b, h].reshape(-1)
        for place in range(count):
            whole[place] = rounded(exact[place], whole)
            kept[place] = rounded(exact[place] * scale if draws[place] >= threshold else _f32(0), kept)


@kernel
def attention_gradient(read: Any, mask: Any, back: Array) -> None:
    """back (B * H, T, S): gradient of the scores. read: gradient of the weights, softmax (B * H, T, S), factor."""
    (gradient, softmax, factor), (seed, threshold, scale) = read, mask
    blocks, length, size = softmax.shape
    words, exact = np.empty((length * size + 7) // 8, _u64), np.empty(size, _f32)
    draws = words.view(_u8)
    for block in range(blocks):
        draw(words, seed, block)
        for t in range(length):
            total, first = _f32(0), t * size
            for s in range(size):
                exact[s] = load(gradient[block, t, s]) * scale if draws[first + s] >= threshold else _f32(0)
                total += exact[s] * load(softmax[block, t, s])
            for s in range(size):
                back[block, t, s] = rounded(load(softmax[block, t, s]) * (exact[s] - total) * factor, back)


@kernel
def cross_entropy(read: Any, biases: Any, written: Any) -> None:
    """read: logits (R, V), labels (R,), amount. written: log sum exp of logits, the label's logit, whether it is the largest, (R,) each.
    biases: None, or (V,); then the logits become their gradient, softmax minus `amount` at the label, and its sum over rows is added."""
    (logits, labels, amount), (log_totals, picked, correct) = read, written
    count, size = logits.shape
    exact = np.empty(size, _f32)
    for row in range(count):
        for place in range(size):
            exact[place] = load(logits[row, place])
        most, label = largest(exact), labels[row]
        picked[row], correct[row] = exact[label], exact[label] >= most
        total = _f32(0)
        for place in range(size):
            exact[place] = exponential(exact[place] - most)
            total += exact[place]
        log_totals[row] = most + np.log(total)
        if biases is not None:
            inverse = _f32(1) / total
            for place in range(size):
                exact[place] *= inverse
            exact[label] -= amount
            for place in range(size):
                biases[place] += exact[place]
                logits[row, place] = rounded(exact[place], logits)
