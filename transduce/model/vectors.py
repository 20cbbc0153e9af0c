"""Loops over vectors, in the words of the compiler, as numba has none for them.

In and out: LLVM's values, and the builder that writes instructions. The decision to question: such a loop does not depend on what the
compiler finds out about arrays, whether they overlap or how long they are; numba's own loops over rows of 64 numbers were twice as slow.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from llvmlite import ir

from transduce.model.kernels import INSTRUCTIONS, part

LANES = 16 if "avx512f" in INSTRUCTIONS else 8
"""32-bit words of a vector, as a register has them: AVX512's, of which there are 32, or AVX2's, of which there are 16."""
VECTOR_BYTES = 4 * LANES
WORD, LONG = ir.IntType(32), ir.IntType(64)
WORDS, FLOATS, HALVES = (ir.VectorType(kind, LANES) for kind in (WORD, ir.FloatType(), ir.IntType(16)))
NOTHING = ir.Constant(FLOATS, None)


def repeat(builder: Any, first: Sequence[Any], *, going: Callable[..., Any], body: Callable[..., Sequence[Any]]) -> list[Any]:
    """While going(*values), the values, which are the `first` ones in the beginning, become body(*values); what they are in the end."""
    ahead, test = builder.block, builder.append_basic_block("test")
    inside, after = builder.append_basic_block("inside"), builder.append_basic_block("after")
    builder.branch(test)
    builder.position_at_end(test)
    values = [builder.phi(value.type) for value in first]
    builder.cbranch(going(*values), inside, after)
    builder.position_at_end(inside)
    later = body(*values)
    builder.branch(test)
    for value, begin, following in zip(values, first, later, strict=True):
        value.add_incoming(begin, ahead)
        value.add_incoming(following, builder.block)
    builder.position_at_end(after)
    return values


def load(builder: Any, address: Any, kind: Any) -> Any:
    """What lies there."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=4)


def store(builder: Any, value: Any, address: Any) -> None:
    """Write a value there."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=2)


def prefetch(builder: Any, address: Any, *, written: bool) -> None:
    """Ask for the cache line there, to be read or written."""
    pointer = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), (pointer, WORD, WORD, WORD))
    builder.call(_function(builder, "llvm.prefetch.p0", kind), (builder.inttoptr(address, pointer), WORD(int(written)), WORD(3), WORD(1)))


def repeated(builder: Any, word: Any) -> Any:
    """A word in all lanes."""
    anything = ir.Constant(ir.VectorType(word.type, LANES), ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(anything, word, WORD(0)), anything, ir.Constant(WORDS, None))


def add_products(builder: Any, total: Any, factors: tuple[Any, Any]) -> Any:
    """total + the product of two vectors, rounded once."""
    return call(builder, f"llvm.fma.v{LANES}f32", (*factors, total), result=total.type)


def call(builder: Any, name: str, operands: tuple[Any, ...], *, result: Any) -> Any:
    """A function of the compiler's, and the kind of its result."""
    kind = ir.FunctionType(result, tuple(operand.type for operand in operands))
    return builder.call(_function(builder, name, kind), operands)


def _function(builder: Any, name: str, kind: Any) -> Any:
    return builder.module.globals.get(name) or ir.Function(builder.module, kind, name)


def shuffled(builder: Any, pair: tuple[Any, Any], lanes: Sequence[int]) -> Any:
    """Those lanes of two vectors, of which the second one's are numbered behind the first one's."""
    return builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(WORD, len(lanes)), list(lanes)))


def parts(builder: Any, values: Any) -> list[Any]:
    """Those of a tuple."""
    return [builder.extract_value(values, place) for place in range(len(values.type))]


def lines(builder: Any, matrix: Sequence[Any], count: int) -> Iterator[Any]:
    """The addresses of rows. matrix: that of the first one, and the bytes to the next."""
    address, apart = matrix
    return (builder.add(address, builder.mul(apart, apart.type(row))) for row in range(count))


@part
def address(array: Any) -> Any:
    """Where an array begins."""
    return np.int64(array.ctypes.data)
