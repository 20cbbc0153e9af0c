"""Attention of one query, for the loops of search: heads of 64 numbers, which stay in registers.

In: addresses of a query, of keys and of values, and which rows of these there are. Out: operations for the loops of search_kernels.py. The
decision to question: one width alone, that of all presets but the smallest; for others there are loops that do not know theirs.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from llvmlite import ir
from numba.core.types import float32, uint16, void
from numba.extending import intrinsic

from transduce.model.vectors import (
    FLOATS,
    HALVES,
    LANES,
    LONG,
    NOTHING,
    VECTOR_BYTES,
    WORDS,
    add_products,
    load,
    parts,
    repeat,
    repeated,
    shuffled,
    store,
)

SIZE = 64
"""Numbers of a head."""
_AT_ONCE = 4
"""Keys whose products are added up together."""


def _score(_context: Any, places: Any, number: Any) -> Any:
    """score(places, number): the products of a query and keys, in fours; those beyond the last are this one's.

    places: the address of the query (float32), of the rows of the keys (int64), of all keys, what is to be added to a row, the address of
    what is written, and how many keys. number: one such as keys have, float32 or the bits of bfloat16."""

    def write(context: Any, builder: Any, *given: Any) -> Any:
        query, *keys, written, count = parts(builder, given[-1][0])
        factors = list(_vectors(builder, query, float32))

        def add(step: Any) -> Sequence[Any]:
            totals = []
            for place in range(_AT_ONCE):
                row = _row(builder, keys, _least(builder, builder.add(step, LONG(place)), count), number=number)
                total = NOTHING
                for pair in zip(factors, _vectors(builder, row, number), strict=True):
                    total = add_products(builder, total, pair)
                totals.append(total)
            store(builder, _sums(builder, totals), builder.add(written, builder.shl(step, LONG(2))))
            return [builder.add(step, LONG(_AT_ONCE))]

        repeat(builder, [LONG(0)], going=lambda step: builder.icmp_signed("<", step, count), body=add)
        return context.get_dummy_value()

    return void(places, number), write


def _mix(_context: Any, places: Any, number: Any) -> Any:
    """mix(places, number): the sum of values, each times its weight.

    places: the address of the weights (float32), of the rows of the values (int64), of all values, what is to be added to a row, the
    address of what is written, and how many values. number: as in `score`."""

    def write(context: Any, builder: Any, *given: Any) -> Any:
        weights, *values, written, count = parts(builder, given[-1][0])

        def add(step: Any, *totals: Any) -> Sequence[Any]:
            weight = repeated(builder, load(builder, builder.add(weights, builder.shl(step, LONG(2))), ir.FloatType()))
            value = _vectors(builder, _row(builder, values, step, number=number), number)
            grown = [add_products(builder, total, (weight, part)) for total, part in zip(totals, value, strict=True)]
            return builder.add(step, LONG(1)), *grown

        first = LONG(0), *[NOTHING] * (SIZE // LANES)
        _, *sums = repeat(builder, first, going=lambda step, *_: builder.icmp_signed("<", step, count), body=add)
        for place, total in enumerate(sums):
            store(builder, total, builder.add(written, LONG(VECTOR_BYTES * place)))
        return context.get_dummy_value()

    return void(places, number), write


def _least(builder: Any, place: Any, count: Any) -> Any:
    """The place, or the last one."""
    return builder.select(builder.icmp_signed("<", place, count), place, builder.sub(count, LONG(1)))


def _row(builder: Any, memory: Sequence[Any], place: Any, *, number: Any) -> Any:
    """The address of a row of numbers. memory: the address of the rows that there are, of numbers, and what is to be added to a row."""
    known, numbers, more = memory
    row = builder.add(load(builder, builder.add(known, builder.shl(place, LONG(3))), LONG), more)
    return builder.add(numbers, builder.mul(row, LONG(SIZE * (2 if number is uint16 else 4))))


def _vectors(builder: Any, row: Any, number: Any) -> Iterator[Any]:
    """A row of such numbers, in float32."""
    for place in range(SIZE // LANES):
        if number is uint16:
            bits = builder.zext(load(builder, builder.add(row, LONG(2 * LANES * place)), HALVES), WORDS)
            yield builder.bitcast(builder.shl(bits, ir.Constant(WORDS, [16] * LANES)), FLOATS)
        else:
            yield load(builder, builder.add(row, LONG(VECTOR_BYTES * place)), FLOATS)


def _sums(builder: Any, totals: Sequence[Any]) -> Any:
    """The sums of the lanes of four vectors, as one of four lanes."""
    one, two, three, four = totals
    first, second = (_in_turns(builder, pair) for pair in ((one, two), (three, four)))
    pieces = range(0, LANES, 4)
    low, high = [[place + at for place in pieces for at in (half, half + 1, LANES + half, LANES + half + 1)] for half in (0, 2)]
    total = builder.fadd(shuffled(builder, (first, second), low), shuffled(builder, (first, second), high))
    while (lanes := total.type.count // 2) >= 4:
        halves = (shuffled(builder, (total, total), range(begin, begin + lanes)) for begin in (0, lanes))
        total = builder.fadd(*halves)
    return total


def _in_turns(builder: Any, pair: tuple[Any, Any]) -> Any:
    """Sums of pairs of lanes of two vectors, one of the first, then one of the second."""
    pieces = range(0, LANES, 4)
    lanes = [[place + at for place in pieces for at in (half, LANES + half, half + 1, LANES + half + 1)] for half in (0, 2)]
    return builder.fadd(*(shuffled(builder, pair, some) for some in lanes))


score: Any = intrinsic(_score)
mix: Any = intrinsic(_mix)
