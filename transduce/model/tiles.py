"""Tiles of sums: the innermost loop of a product, whose sums stay in the registers of a processor with AVX512 or AVX2 while they grow.

In: addresses of rows, columns and sums. Out: operations for the loops of other modules. The decision to question: they are written in the
compiler's own terms, because numba has no word for a vector. Libraries have such loops too, but do not know what is in which cache, nor
what becomes of the sums (measured, docs/performance.md).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llvmlite import ir
from numba.core.types import void
from numba.extending import intrinsic

from transduce.model import vectors
from transduce.model.vectors import (
    LANES,
    LONG,
    NOTHING,
    VECTOR_BYTES,
    WORD,
    add_products,
    call,
    lines,
    load,
    parts,
    prefetch,
    repeat,
    repeated,
    shuffled,
    store,
)


class _Half(ir.Type):  # type: ignore[misc]
    """LLVM's name of bfloat16."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return type(other) is _Half

    def __hash__(self) -> int:
        return hash(_Half)


@dataclass(frozen=True)
class Tile:
    """Sums of so many rows and vectors of columns; with a row of vectors and one more these fill the registers.

    kind: of the sums; those of whole numbers are added to floats at the end alone. add: (builder, sums, two times words) -> sums to which
    the products of the words, or of the numbers in these, are added. rectified: whether sums below zero are written as zero. halved:
    whether sums are written as bfloat16.
    """

    rows: int
    vectors: int
    kind: ir.VectorType
    add: Callable[[Any, Any, tuple[Any, Any]], Any]
    rectified: bool = False
    halved: bool = False

    @property
    def columns(self) -> int:
        """Those of a tile."""
        return LANES * self.vectors

    def operation(self) -> Any:
        """grow(places, count), for compiled loops: writes sums (rows, columns), which begin with other ones, and to which `count` times
        the product of a word of each row and one of each column is added.

        places: of the rows the address, the bytes from one to the next and from one word to the next; of the columns the address and the
        bytes to the words after; of the sums to begin with the address and the bytes from row to row (0: all have the same); of the sums
        that are written the same."""

        @intrinsic
        def grow(_context: Any, places: Any, count: Any) -> Any:
            return void(places, count), self._write

        return grow

    def _write(self, context: Any, builder: Any, *given: Any) -> Any:
        """The operation, in LLVM's terms."""
        places, count = given[-1]
        left, right, start, sums = (parts(builder, one) for one in parts(builder, places))
        size = 2 if self.halved else 4
        for place in self._places(builder, sums, size):
            prefetch(builder, place, written=True)
        before = [self._before(builder, place) for place in self._places(builder, start)]
        rows = list(lines(builder, left[:2], self.rows))

        def add(step: Any, word: Any, vector: Any, *totals: Any) -> Sequence[Any]:
            columns = [load(builder, builder.add(vector, LONG(VECTOR_BYTES * place)), vectors.WORDS) for place in range(self.vectors)]
            grown = []
            for number, row in enumerate(rows):
                factor, old = repeated(builder, load(builder, builder.add(row, word), WORD)), totals[number * self.vectors :]
                grown += [self.add(builder, total, (factor, column)) for total, column in zip(old, columns, strict=False)]
            return builder.add(step, LONG(1)), builder.add(word, left[2]), builder.add(vector, right[1]), *grown

        first = LONG(0), LONG(0), right[0], *before
        _, _, _, *grown = repeat(builder, first, going=lambda step, *_: builder.icmp_signed("<", step, count), body=add)
        for place, begin, total in zip(self._places(builder, sums, size), self._places(builder, start), grown, strict=True):
            store(builder, self._after(builder, begin, total), place)
        return context.get_dummy_value()

    def _before(self, builder: Any, place: Any) -> Any:
        """What a vector of sums begins with."""
        return ir.Constant(self.kind, None) if self.kind is vectors.WORDS else load(builder, place, vectors.FLOATS)

    def _after(self, builder: Any, place: Any, total: Any) -> Any:
        """What of a vector of sums is written."""
        if self.kind is vectors.WORDS:
            return builder.fadd(load(builder, place, vectors.FLOATS), builder.sitofp(total, vectors.FLOATS))
        kept = builder.select(builder.fcmp_ordered("<", total, NOTHING), NOTHING, total) if self.rectified else total  # NaN stays
        return builder.bitcast(builder.fptrunc(kept, ir.VectorType(_Half(), LANES)), vectors.HALVES) if self.halved else kept

    def _places(self, builder: Any, sums: Any, number: int = 4) -> Iterator[Any]:
        """The addresses of the vectors of sums, numbers of so many bytes."""
        for row in lines(builder, sums, self.rows):
            yield from (builder.add(row, row.type(number * LANES * vector)) for vector in range(self.vectors))


def floats(builder: Any, total: Any, words: tuple[Any, Any]) -> Any:
    """Words that are float32 numbers."""
    left, right = (builder.bitcast(factor, vectors.FLOATS) for factor in words)
    return add_products(builder, total, (left, right))


def halves(builder: Any, total: Any, words: tuple[Any, Any]) -> Any:
    """Words of two bfloat16 numbers (AVX512 BF16)."""
    return call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", (total, *words), result=total.type)


def pairs(builder: Any, total: Any, words: tuple[Any, Any]) -> Any:
    """Words of two 16-bit whole numbers (AVX512 VNNI, or AVX2 in two instructions)."""
    if LANES == AVX512:
        return call(builder, "llvm.x86.avx512.vpdpwssd.512", (total, *words), result=total.type)
    numbers = tuple(builder.bitcast(word, ir.VectorType(ir.IntType(16), 2 * LANES)) for word in words)
    return builder.add(total, call(builder, "llvm.x86.avx2.pmadd.wd", numbers, result=total.type))


def fours(builder: Any, total: Any, words: tuple[Any, Any]) -> Any:
    """Words of four 8-bit whole numbers, those of rows without a sign (AVX512 VNNI)."""
    return call(builder, "llvm.x86.avx512.vpdpbusd.512", (total, *words), result=total.type)


AVX512 = 16
"""Lanes."""
VECTORS = LANES // 4
"""Of columns: with six rows 29 of 32 registers, or 15 of 16."""
FLOATS = Tile(6, VECTORS, vectors.FLOATS, floats)
"""Of float32 products with many columns."""
SUMMED = Tile(4, VECTORS, vectors.FLOATS, floats)
"""Of those whose rows are columns of a matrix, as in the gradient of a weight: a vector's worth of neighbours is used at once."""
PAIRS, FOURS = Tile(6, VECTORS, vectors.WORDS, pairs), Tile(6, VECTORS, vectors.WORDS, fours)

grow_floats, grow_rectified = FLOATS.operation(), replace(FLOATS, rectified=True).operation()
grow_summed, grow_pairs, grow_fours = (tile.operation() for tile in (SUMMED, PAIRS, FOURS))

HALVES = Tile(6, VECTORS, vectors.FLOATS, halves)
grow_halves = HALVES.operation()
grow_halved, grow_halved_rectified = (replace(HALVES, halved=True, rectified=each).operation() for each in (False, True))


SPARSE_WORDS, SPARSE_TILES = 64, 32 // LANES
"""Words of a row, a bit each, and tiles of columns that `grow_sparse` looks at: what both need of a matrix fits the first cache."""


def _grow_sparse(_context: Any, places: Any) -> Any:
    """grow_sparse(places): writes sums of one row and SPARSE_TILES tiles of columns, which begin with other ones, and to which the products
    of SPARSE_WORDS float32 numbers of the row are added, of those that are not zero.

    places: the address of the numbers, that of the columns and the bytes from one tile of these to the next, the address of the sums to
    begin with, and that of those that are written."""

    def write(context: Any, builder: Any, *given: Any) -> Any:
        row, columns, apart, start, sums = parts(builder, given[-1][0])
        width, wide = FLOATS.vectors * VECTOR_BYTES, range(0, FLOATS.vectors * VECTOR_BYTES, VECTOR_BYTES)
        left = LONG(0)
        for place in range(0, SPARSE_WORDS, LANES):
            numbers = load(builder, builder.add(row, LONG(4 * place)), vectors.FLOATS)
            bits = builder.bitcast(builder.fcmp_unordered("!=", numbers, NOTHING), ir.IntType(LANES))
            left = builder.or_(left, builder.shl(builder.zext(bits, LONG), LONG(place)))

        def vectors_of(first: Any, apart: Any) -> list[Any]:
            """The addresses of a row's worth of vectors of all tiles."""
            return [builder.add(line, LONG(at)) for line in lines(builder, (first, apart), SPARSE_TILES) for at in wide]

        def add(left: Any, *totals: Any) -> Sequence[Any]:
            place = builder.cttz(left, ir.IntType(1)(1))
            factor = repeated(builder, load(builder, builder.add(row, builder.shl(place, LONG(2))), ir.FloatType()))
            words = vectors_of(builder.add(columns, builder.mul(place, LONG(width))), apart)
            pairs = [(factor, load(builder, word, vectors.FLOATS)) for word in words]
            grown = [add_products(builder, total, pair) for total, pair in zip(totals, pairs, strict=True)]
            return builder.and_(left, builder.sub(left, LONG(1))), *grown

        before = [load(builder, place, vectors.FLOATS) for place in vectors_of(start, LONG(width))]
        _, *grown = repeat(builder, (left, *before), going=lambda left, *_: builder.icmp_unsigned("!=", left, LONG(0)), body=add)
        for place, total in zip(vectors_of(sums, LONG(width)), grown, strict=True):
            store(builder, total, place)
        return context.get_dummy_value()

    return void(places), write


def _turn(_context: Any, read: Any, written: Any) -> Any:
    """Writes LANES rows of as many words as columns. Both: the address, and the bytes from row to row."""

    def write(context: Any, builder: Any, *given: Any) -> Any:
        (source, target) = (parts(builder, one) for one in given[-1])
        rows = [load(builder, place, vectors.WORDS) for place in lines(builder, source, LANES)]
        for apart in (1 << power for power in range(LANES.bit_length() - 1)):  # blocks of so many words change places across the diagonal
            for row in (row for row in range(LANES) if not row & apart):
                pair = rows[row], rows[row + apart]
                first = [column if not column & apart else LANES + column - apart for column in range(LANES)]
                rows[row] = shuffled(builder, pair, first)
                rows[row + apart] = shuffled(builder, pair, [column + apart for column in first])
        for place, row in zip(lines(builder, target, LANES), rows, strict=True):
            store(builder, row, place)
        return context.get_dummy_value()

    return void(read, written), write


def _fetch_line(_context: Any, address: Any) -> Any:
    """Ask for the cache line at an address, to be read."""

    def write(context: Any, builder: Any, *given: Any) -> Any:
        prefetch(builder, given[-1][0], written=False)
        return context.get_dummy_value()

    return void(address), write


grow_sparse: Any = intrinsic(_grow_sparse)
turn: Any = intrinsic(_turn)
fetch: Any = intrinsic(_fetch_line)
