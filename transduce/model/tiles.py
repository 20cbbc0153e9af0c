"""Tiles of sums: the innermost loop of a product, whose sums stay in the registers of a processor with AVX512 while they grow.

In: addresses of rows, columns and sums. Out: operations for the loops of other modules. The decision to question: they are written in the
compiler's own terms, because numba has no word for a vector. Libraries have such loops too, but do not know what is in which cache, nor
what becomes of the sums (measured, docs/performance.md).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core.types import void
from numba.extending import intrinsic

from transduce.model.kernels import part

LANES = 16
"""32-bit words of a vector."""
VECTOR_BYTES = 4 * LANES
_WORD = ir.IntType(32)
_WORDS, _FLOATS, _HALVES = (ir.VectorType(kind, LANES) for kind in (_WORD, ir.FloatType(), ir.IntType(16)))


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
    """Sums of so many rows and vectors of columns; with a row of vectors and one more these are at most 32 registers.

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
        left, right, start, sums = (_parts(builder, one) for one in _parts(builder, places))
        size = 2 if self.halved else 4
        for place in self._places(builder, sums, size):
            _fetch(builder, place, written=True)
        before = [self._before(builder, place) for place in self._places(builder, start)]
        rows = list(_lines(builder, left[:2], self.rows))
        ahead, loop, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("after")
        builder.branch(loop)
        builder.position_at_end(loop)
        step, word, vector = (builder.phi(count.type) for _ in range(3))
        totals = [builder.phi(self.kind) for _ in before]
        columns = [_load(builder, builder.add(vector, count.type(VECTOR_BYTES * place)), _WORDS) for place in range(self.vectors)]
        grown = []
        for number, row in enumerate(rows):
            repeated, old = _repeated(builder, builder.add(row, word)), totals[number * self.vectors :]
            grown += [self.add(builder, total, (repeated, column)) for total, column in zip(old, columns, strict=False)]
        moved = builder.add(step, count.type(1)), builder.add(word, left[2]), builder.add(vector, right[1])
        for phi, first, later in zip(
            (step, word, vector, *totals), (count.type(0), count.type(0), right[0], *before), (*moved, *grown), strict=True
        ):
            phi.add_incoming(first, ahead)
            phi.add_incoming(later, loop)
        builder.cbranch(builder.icmp_signed("<", moved[0], count), loop, after)
        builder.position_at_end(after)
        for place, begin, total in zip(self._places(builder, sums, size), self._places(builder, start), grown, strict=True):
            written = self._after(builder, begin, total)
            builder.store(written, builder.inttoptr(place, written.type.as_pointer()), align=size)
        return context.get_dummy_value()

    def _before(self, builder: Any, place: Any) -> Any:
        """What a vector of sums begins with."""
        return ir.Constant(self.kind, None) if self.kind is _WORDS else _load(builder, place, _FLOATS)

    def _after(self, builder: Any, place: Any, total: Any) -> Any:
        """What of a vector of sums is written."""
        if self.kind is _WORDS:
            return builder.fadd(_load(builder, place, _FLOATS), builder.sitofp(total, _FLOATS))
        nothing = ir.Constant(_FLOATS, None)
        kept = builder.select(builder.fcmp_ordered("<", total, nothing), nothing, total) if self.rectified else total  # NaN stays
        return builder.bitcast(builder.fptrunc(kept, ir.VectorType(_Half(), LANES)), _HALVES) if self.halved else kept

    def _places(self, builder: Any, sums: Any, number: int = 4) -> Iterator[Any]:
        """The addresses of the vectors of sums, numbers of so many bytes."""
        for row in _lines(builder, sums, self.rows):
            yield from (builder.add(row, row.type(number * LANES * vector)) for vector in range(self.vectors))


def _load(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=4)


def _fetch(builder: Any, address: Any, *, written: bool) -> None:
    """Ask for the cache line there, to be read or written."""
    word, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), (pointer, word, word, word))
    builder.call(_function(builder, "llvm.prefetch.p0", kind), (builder.inttoptr(address, pointer), word(int(written)), word(3), word(1)))


def _repeated(builder: Any, address: Any) -> Any:
    """The word there, in all lanes."""
    anything = ir.Constant(_WORDS, ir.Undefined)
    alone = builder.insert_element(anything, _load(builder, address, _WORD), _WORD(0))
    return builder.shuffle_vector(alone, anything, ir.Constant(_WORDS, None))


def _called(builder: Any, name: str, operands: tuple[Any, ...]) -> Any:
    kind = ir.FunctionType(operands[0].type, tuple(operand.type for operand in operands))
    return builder.call(_function(builder, name, kind), operands)


def _function(builder: Any, name: str, kind: Any) -> Any:
    return builder.module.globals.get(name) or ir.Function(builder.module, kind, name)


def _parts(builder: Any, values: Any) -> list[Any]:
    """Those of a tuple."""
    return [builder.extract_value(values, place) for place in range(len(values.type))]


def floats(builder: Any, total: Any, words: tuple[Any, Any]) -> Any:
    """Words that are float32 numbers."""
    return _called(builder, "llvm.fma.v16f32", (*(builder.bitcast(factor, _FLOATS) for factor in words), total))


def halves(builder: Any, total: Any, words: tuple[Any, Any]) -> Any:
    """Words of two bfloat16 numbers (AVX512 BF16)."""
    return _called(builder, "llvm.x86.avx512bf16.dpbf16ps.512", (total, *words))


def pairs(builder: Any, total: Any, words: tuple[Any, Any]) -> Any:
    """Words of two 16-bit whole numbers (AVX512 VNNI)."""
    return _called(builder, "llvm.x86.avx512.vpdpwssd.512", (total, *words))


def fours(builder: Any, total: Any, words: tuple[Any, Any]) -> Any:
    """Words of four 8-bit whole numbers, those of rows without a sign (AVX512 VNNI)."""
    return _called(builder, "llvm.x86.avx512.vpdpbusd.512", (total, *words))


FLOATS = Tile(6, 4, _FLOATS, floats)
"""Of float32 products with many columns."""
SUMMED = Tile(4, 4, _FLOATS, floats)
"""Of those whose rows are columns of a matrix, as in the gradient of a weight: a vector's worth of neighbours is used at once."""
PAIRS, FOURS = Tile(6, 4, _WORDS, pairs), Tile(6, 4, _WORDS, fours)

grow_floats, grow_rectified = FLOATS.operation(), replace(FLOATS, rectified=True).operation()
grow_summed, grow_pairs, grow_fours = (tile.operation() for tile in (SUMMED, PAIRS, FOURS))

HALVES = Tile(6, 4, _FLOATS, halves)
grow_halves = HALVES.operation()
grow_halved, grow_halved_rectified = (replace(HALVES, halved=True, rectified=each).operation() for each in (False, True))


def _turn(_context: Any, read: Any, written: Any) -> Any:
    """Writes 16 rows of 16 words as columns. Both: the address, and the bytes from row to row."""

    def write(context: Any, builder: Any, *given: Any) -> Any:
        (source, target) = (_parts(builder, one) for one in given[-1])
        rows = [_load(builder, place, _WORDS) for place in _lines(builder, source, LANES)]
        for apart in (1, 2, 4, 8):  # blocks of so many words change places across the diagonal
            for row in (row for row in range(LANES) if not row & apart):
                pair = rows[row], rows[row + apart]
                first = [column if not column & apart else LANES + column - apart for column in range(LANES)]
                rows[row] = builder.shuffle_vector(*pair, ir.Constant(_WORDS, first))
                rows[row + apart] = builder.shuffle_vector(*pair, ir.Constant(_WORDS, [column + apart for column in first]))
        for place, row in zip(_lines(builder, target, LANES), rows, strict=True):
            builder.store(row, builder.inttoptr(place, _WORDS.as_pointer()), align=4)
        return context.get_dummy_value()

    return void(read, written), write


def _lines(builder: Any, matrix: Any, count: int) -> Iterator[Any]:
    """The addresses of rows."""
    address, apart = matrix
    return (builder.add(address, builder.mul(apart, apart.type(row))) for row in range(count))


def _fetch_line(_context: Any, address: Any) -> Any:
    """Ask for the cache line at an address, to be read."""

    def write(context: Any, builder: Any, *given: Any) -> Any:
        _fetch(builder, given[-1][0], written=False)
        return context.get_dummy_value()

    return void(address), write


turn: Any = intrinsic(_turn)
fetch: Any = intrinsic(_fetch_line)


@part
def address(array: Any) -> Any:
    """Where an array begins."""
    return np.int64(array.ctypes.data)
