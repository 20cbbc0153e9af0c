"""What this machine can do at most: `python benchmarks/ceiling.py --json ceiling.json`.

In: the sizes of a model (benchmarks/shape.py). Out: GFLOP/s of matrix products at the shapes that training and search of that model use,
in fp32, bf16 and int8, on one thread and on all, and the bandwidth of memory in GB/s. Every other table here quotes shares of these.

The decision to question: a peak is the fastest timing of the best product of a training step, over the libraries that torch can reach
(fp32: MKL and oneDNN), with outputs written into memory that is there already. Nobody reaches it; so no share flatters. Loops of our own
stand beside them, where they run (one thread, some processors); the share of a process that has them may be counted by theirs. A product
is timed only after its answer was compared with float32: one that computes nothing is very fast.
"""

import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from alternate import Load, Record, options, say_machine, say_table, write_json
from shape import TINY, Shape
from torch import nn

from transduce.model.blocked import has_blocks, multiplier, multiplies
from transduce.model.int8 import Int8Product
from transduce.train.precision import choose_device, choose_precision, choose_products

Call = Callable[[], object]
Typical = Callable[[list[float]], float]
Product = tuple[int, int, int]

CHUNK_ROWS = 1024
"""Rows of logits that a training step holds at once (transduce/train/loss.py)."""
LARGE_BYTES, CACHED_BYTES = 256 * 2**20, 4 * 2**20
SHORTEST_TIMING = 1e-3
FEWEST_TIMINGS = 5
LARGEST_ERROR = 0.05
"""Of a product, relative to float32: bf16 is off by 0.003, eight bits by 0.02."""


def training_shapes(shape: Shape) -> list[Product]:
    """(M, K, N) of the products of a step: forward, gradients of inputs, gradients of weights."""
    rows, d, f, v = shape.batch_tokens, shape.width, shape.feed_forward, shape.vocabulary
    forward = [(rows, d, 3 * d), (rows, d, d), (rows, d, f), (rows, f, d), (CHUNK_ROWS, d, v)]
    return [*forward, (CHUNK_ROWS, v, d), (f, rows, d), (d, rows, d), (v, CHUNK_ROWS, d)]


def search_shapes(shape: Shape) -> list[Product]:
    """(M, K, N) of a step of search: 64 hypotheses, and one."""
    d, f, v = shape.width, shape.feed_forward, shape.vocabulary
    return [(rows, d, columns) for rows in (64, 1) for columns in (f, v)]


@dataclass(frozen=True)
class Candidate:
    """A product to time: the call, what it should give (M, N), and how its answer becomes a plain float32 tensor."""

    call: Callable[[], torch.Tensor]
    expected: torch.Tensor
    dense: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.float


def fp32(m: int, k: int, n: int) -> Candidate:
    """torch's product of float32, which is MKL's where torch was built with it."""
    return plain(m, k, n, kind=torch.float32)


def bf16(m: int, k: int, n: int) -> Candidate:
    """torch's product of bfloat16: oneDNN."""
    return plain(m, k, n, kind=torch.bfloat16)


def plain(m: int, k: int, n: int, *, kind: torch.dtype) -> Candidate:
    """A product into memory that is there already. The right side is stored as the weights of a layer are, (N, K)."""
    left, right, out = torch.randn(m, k).to(kind), torch.randn(n, k).to(kind).t(), torch.empty(m, n, dtype=kind)
    return Candidate(lambda: torch.mm(left, right, out=out), left.float() @ right.float())


def fp32_onednn(m: int, k: int, n: int) -> Candidate:
    """The same through oneDNN with both sides in its own layout."""
    left, right = torch.randn(m, k), torch.randn(n, k)
    packed = left.to_mkldnn(), right.to_mkldnn()
    return Candidate(lambda: torch.ops.aten.mkldnn_linear(*packed, None), left @ right.t(), torch.Tensor.to_dense)


def int8(m: int, k: int, n: int) -> Candidate:
    """Bytes times bytes into 32 bits."""
    left, right = (torch.randint(-127, 127, size, dtype=torch.int8) for size in ((m, k), (k, n)))
    out = torch.empty(m, n, dtype=torch.int32)
    return Candidate(lambda: torch._int_mm(left, right, out=out), left.float() @ right.float())


def int8_dynamic(m: int, k: int, n: int) -> Candidate:
    """float32 in and out, packed int8 weights, inputs quantised on the way. Zero points must be whole numbers: with others torch packs
    the weights all the same, and then computes nothing."""
    weights, inputs = torch.randn(n, k), torch.randn(m, k)
    scales, zeros = (weights.abs().amax(1) / 127).double(), torch.zeros(n, dtype=torch.int64)
    with warnings.catch_warnings():  # torch means to give up tensors of this kind; as long as it has them, they are the fastest
        warnings.simplefilter("ignore")
        rounded = torch.quantize_per_channel(weights, scales, zeros, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(rounded, None)
    return Candidate(lambda: torch.ops.quantized.linear_dynamic(inputs, packed), inputs @ weights.t())


def own(m: int, k: int, n: int, *, kind: torch.dtype) -> Candidate:
    """A product by our loops, with the right side packed before (transduce/model/blocked.py)."""
    left, right = torch.randn(m, k).to(kind), torch.randn(n, k).to(kind)
    if not multiplies(left, right):
        raise NotImplementedError("our loops need widths of 64")
    return Candidate(partial(multiplier(right), left), left.float() @ right.float().t())


def int8_own(m: int, k: int, n: int) -> Candidate:
    """float32 in and out, inputs rounded row by row on the way (transduce/model/int8.py)."""
    left, right = torch.randn(m, k), torch.randn(n, k)
    matrix = Int8Product(right).whole
    assert matrix is not None
    return Candidate(partial(matrix.multiply, left, None), left @ right.t())


Maker = Callable[[int, int, int], Candidate]
KINDS: dict[str, Maker] = {
    "fp32": fp32,
    "fp32 oneDNN": fp32_onednn,
    "bf16": bf16,
    "int8": int8,
    "int8 dynamic": int8_dynamic,
}
OWN: dict[torch.dtype, dict[str, Maker]] = {
    torch.float32: {"fp32 own": partial(own, kind=torch.float32)},
    torch.bfloat16: {"bf16 own": partial(own, kind=torch.bfloat16)},
    torch.int8: {"int8 own": int8_own},
}
PRECISIONS = {"fp32": ("fp32", "fp32 oneDNN"), "bf16": ("bf16",)}
SEARCHED = PRECISIONS | {"int8": ("int8", "int8 dynamic")}


def kinds_of(threads: int) -> dict[str, Maker]:
    """All kinds of products, those of our own loops where these run."""
    found = [kinds for number, kinds in OWN.items() if threads == 1 and has_blocks(number)]
    return KINDS | {name: make for kinds in found for name, make in kinds.items()}


def timings_of(call: Call, seconds: float) -> list[float]:
    """Times of a call, measured for about `seconds`; short calls are timed several at once."""
    call()
    begin = time.perf_counter()
    call()
    repeats = max(1, int(SHORTEST_TIMING / max(time.perf_counter() - begin, 1e-9)))
    timings: list[float] = []
    end = time.perf_counter() + seconds
    while len(timings) < FEWEST_TIMINGS or time.perf_counter() < end:
        begin = time.perf_counter()
        for _ in range(repeats):
            call()
        timings.append((time.perf_counter() - begin) / repeats)
    return timings


def gflops(kind: str, product: Product, *, seconds: float, typical: Typical = statistics.median) -> float | None:
    """2 M K N operations over the typical time of a product; None, and why on stderr, where torch has none here or its answer is wrong."""
    m, k, n = product
    try:
        candidate = kinds_of(torch.get_num_threads())[kind](m, k, n)
        error = relative_error(candidate)
        if not error <= LARGEST_ERROR:
            raise RuntimeError(f"its answer is wrong (relative error {error:.3g}), so its time says nothing")
        return 2 * m * k * n / typical(timings_of(candidate.call, seconds)) / 1e9
    except (RuntimeError, NotImplementedError, AttributeError) as problem:
        print(f"no {kind} product of {m} x {k} x {n} here: {str(problem).splitlines()[0]}", file=sys.stderr)
        return None


def relative_error(candidate: Candidate) -> float:
    """How far the answer is from what it should be; not a number where it is none."""
    answer = candidate.dense(candidate.call())
    return float((answer - candidate.expected).norm() / candidate.expected.norm())


def training_precision() -> str:
    """What ours trains in here unless it is told, and what a peer that knows bf16 is told."""
    return "fp32" if choose_precision("auto", choose_device("cpu")).dtype is None else "bf16"


def search_precision(model: nn.Module) -> str:
    """What `transduce predict` computes in with this model."""
    weights = sum(parameter.numel() for parameter in model.parameters())
    return choose_products("auto", device=torch.device("cpu"), num_weights=weights)[0]


def training_peaks(shape: Shape, *, threads: int, seconds: float, precisions: Mapping[str, Sequence[str]] = PRECISIONS) -> dict[str, float]:
    """GFLOP/s that the best product of a training step reaches at its fastest, by precision. Leaves torch's number of threads changed."""
    torch.set_num_threads(threads)
    peaks = {}
    for precision, kinds in precisions.items():
        rates = [gflops(kind, product, seconds=seconds / 4, typical=min) for kind in kinds for product in training_shapes(shape)]
        peaks[precision] = max(rate for rate in rates if rate is not None)
    return peaks


def bandwidth(seconds: float, *, large: int, cached: int) -> dict[str, float]:
    """GB/s, bytes read and bytes written added up."""
    first, second = torch.rand(large // 4), torch.rand(large // 4)
    small, other = torch.rand(cached // 4), torch.rand(cached // 4)
    calls: dict[str, tuple[Call, int]] = {
        f"read {large >> 20} MiB": (lambda: first.sum(), large),
        f"copy {large >> 20} MiB": (lambda: second.copy_(first), 2 * large),
        f"add {large >> 20} MiB": (lambda: torch.add(first, second, out=second), 3 * large),
        f"copy {cached >> 20} MiB (in cache)": (lambda: other.copy_(small), 2 * cached),
    }
    return {name: moved / statistics.median(timings_of(call, seconds)) / 1e9 for name, (call, moved) in calls.items()}


def measure(shape: Shape, *, threads: int, seconds: float, large: int) -> Record:
    """All products and bandwidths on a number of threads, printed and returned."""
    torch.set_num_threads(threads)
    products, kinds = [*training_shapes(shape), *search_shapes(shape)], kinds_of(threads)
    rates = {f"{m} x {k} x {n}": {kind: gflops(kind, (m, k, n), seconds=seconds) for kind in kinds} for m, k, n in products}
    moved = bandwidth(seconds, large=large, cached=min(large, CACHED_BYTES))
    print(f"\nGFLOP/s, {threads} thread{'s' * (threads > 1)}, M x K x N")
    say_table(["product", *kinds], [[name, *by_kind.values()] for name, by_kind in rates.items()])
    say_table(["memory", "GB/s"], [[name, rate] for name, rate in moved.items()])
    return {"threads": threads, "gflops": rates, "gb_per_second": moved}


def main() -> int:
    """Always 0: there is nothing that must be reached."""
    parser = options(__doc__, rounds=1)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement")
    words = parser.parse_args()
    shape, seconds, large = (TINY, 0.0, 2**20) if words.quick else (Shape(), words.seconds, LARGE_BYTES)
    load, facts = Load(), say_machine(words.threads, torch=torch.__version__, allocator=os.environ.get("MALLOC_MMAP_MAX_", "default"))
    found = [measure(shape, threads=count, seconds=seconds, large=large) for count in sorted({1, words.threads})]
    write_json(words.json, {"machine": facts, "by_threads": found, "disturbance": load.warn()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
