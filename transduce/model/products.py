"""Linear layers: their products have few sizes, whatever the sizes of batches.

In: vectors (..., K). Out: vectors (..., N). This is torch's own layer but for bfloat16 autocast on a CPU, and training in float32 on AMD's,
where products by loops of our own (blocked.py) are the fastest.

The decision to question: rows are padded (padded.py). oneDNN, which multiplies bfloat16 numbers, compiles code for every new size of a
product, and batches under a token budget nearly all differ: on a processor with AMX that was measured at a quarter of a training step. A
zero row adds nothing to any gradient, and its output is never seen.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from transduce.model.blocked import KNOWN, back_multiplier, has_blocks, multiplier, multiplies, summed, sums
from transduce.model.fused import column_sums
from transduce.model.padded import padded_rows
from transduce.processor import cpu_flags, cpu_vendor

FEWEST_ROWS = 512
"""Rows of a float32 product in training for which oneDNN is worth its code; fewer are torch's."""
TYPICAL_ROWS = 256
"""Rows of a product for which the order of packed weights is chosen."""
TILES = "amx_bf16"
WEIGHT_ROWS = 1024
"""Most rows of one product of tiles that makes the gradient of a weight: 2,048 at once take a quarter longer than twice 1,024 (measured);
without tiles, on Zen 4, a twentieth less."""

FUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda sums: sums,
    "relu": functional.relu,
    "gelu": functional.gelu,
    "swish": functional.silu,
}
"""Non-linearities that a bfloat16 product applies to its own sums: what oneDNN calls them, and how torch computes them."""


class Linear(nn.Linear):
    """y = x W^T + b; parameters and initial values as those of nn.Linear."""

    def forward(self, inputs: Tensor, *, then: str = "none") -> Tensor:
        """(..., K) -> (..., N), bfloat16 under its autocast. then: "relu" where the caller rectifies the outputs and their gradient; where
        this `compiles_sizes` they are rectified already."""
        if not compiles_sizes(inputs):
            return functional.linear(inputs, self.weight, self.bias)
        return _Product.apply(inputs, self.weight, self.bias, then)  # type: ignore[no-any-return, no-untyped-call]


def compute_dtype(inputs: Tensor) -> torch.dtype:
    """The number format that products of `inputs` will have: autocast's where it is on."""
    kind = inputs.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else inputs.dtype


def compiles_sizes(inputs: Tensor) -> bool:
    """Whether a layer multiplies these inputs (..., K) by `_Product`: by loops of our own or by oneDNN, which compiles code for each number
    of rows."""
    if inputs.device.type != "cpu":
        return False
    if torch.is_autocast_enabled("cpu"):
        return compute_dtype(inputs) == torch.bfloat16
    trains = torch.is_grad_enabled() and inputs.dtype == torch.float32
    return trains and inputs.shape[:-1].numel() >= FEWEST_ROWS and (has_blocks() or prefers_onednn(inputs))


def prefers_onednn(rows: Tensor) -> bool:
    """Whether oneDNN's own call is the fastest product of these rows (M, K), as they are, and a matrix. Of float32 numbers it is on Zen 4
    (107 billion operations a second, MKL's 95)."""
    if rows.device.type != "cpu" or not has_onednn():
        return False
    return rows.dtype == torch.bfloat16 or (rows.dtype == torch.float32 and cpu_vendor() == "AuthenticAMD")


class _Product(torch.autograd.Function):
    """inputs (..., K), weight (N, K), bias (N,) or None -> (..., N)."""

    @staticmethod
    def forward(ctx, inputs: Tensor, weight: Tensor, bias: Tensor | None, then: str) -> Tensor:  # type: ignore[no-untyped-def]
        shape, kind = inputs.shape[:-1], compute_dtype(inputs)
        with torch.autocast("cpu", enabled=False):
            matrix = weight.to(kind)
            rows = ready_rows(inputs, matrix)
            outputs = product(rows, matrix, None if bias is None else bias.to(kind), then=then)
        ctx.save_for_backward(rows, matrix)
        ctx.kinds = weight.dtype, None if bias is None else bias.dtype
        return outputs.resize_(*shape, len(weight))  # not a view, so that a ReLU may work in place

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:  # type: ignore[no-untyped-def]
        rows, matrix = ctx.saved_tensors
        shape, (kind, bias_kind) = gradient.shape[:-1], ctx.kinds
        with torch.autocast("cpu", enabled=False):
            outer = ready_rows(gradient, matrix)
            back = back_product(outer, matrix).resize_(*shape, matrix.shape[1]) if ctx.needs_input_grad[0] else None
            weight = summed_product(outer, rows).to(kind) if ctx.needs_input_grad[1] else None
            bias = None if bias_kind is None else column_sums(outer).to(bias_kind)
        return back, weight, bias, None


def ready_rows(inputs: Tensor, matrix: Tensor) -> Tensor:
    """(..., K) -> (M, K) in the matrix's number format, padded unless all products are those of `blocked`."""
    rows = inputs.reshape(-1, inputs.shape[-1])
    own = matrix.dtype == torch.float32 and multiplies(rows, matrix)
    return rows.contiguous() if own else padded_rows(rows, matrix.dtype)


def product(rows: Tensor, matrix: Tensor, bias: Tensor | None, *, then: str = "none", by_onednn: bool | None = None) -> Tensor:
    """f(rows matrix^T + bias) in one number format: (M, K), (N, K), (N,) -> (M, N), f one of `FUSED`. oneDNN's own call where it
    is the fastest (None): of bfloat16 torch's first fills the outputs with the bias (a third of the time, measured). It takes matrices that
    oneDNN has packed too."""
    if by_onednn is None and then in KNOWN and multiplies(rows, matrix):
        return multiplier(matrix, bias)(rows, then=then)
    if prefers_onednn(rows) if by_onednn is None else by_onednn:
        algorithm = "none" if then == "gelu" else ""
        return torch.ops.mkldnn._linear_pointwise.default(rows, matrix, bias, then, [], algorithm)  # type: ignore[no-any-return]
    return FUSED[then](functional.linear(rows, matrix, bias))


def back_product(outer: Tensor, matrix: Tensor, *, by_onednn: bool | None = None) -> Tensor:
    """outer (M, N), matrix (N, K) -> outer matrix (M, K), as `product`. torch's product of bfloat16 is oneDNN's in any case."""
    if by_onednn is None and multiplies(outer, matrix):
        return back_multiplier(matrix)(outer)
    own = outer.dtype == torch.float32 and (prefers_onednn(outer) if by_onednn is None else by_onednn)
    return product(outer, matrix.t(), None, by_onednn=True) if own else torch.mm(outer, matrix)


def multipliers(rows: Tensor, matrix: Tensor, bias: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """`product` and `back_product` with one matrix for many rows, of which these are some."""
    if multiplies(rows, matrix):
        return multiplier(matrix, bias), back_multiplier(matrix)
    return (lambda rows: product(rows, matrix, bias)), (lambda outer: back_product(outer, matrix))


def packed_weight(matrix: Tensor) -> Tensor:
    """A matrix (N, K) in the order in which oneDNN multiplies it, for `product`."""
    return torch.ops.mkldnn._reorder_linear_weight(matrix, TYPICAL_ROWS)  # type: ignore[no-any-return]


def has_onednn() -> bool:
    """Whether oneDNN multiplies bfloat16 numbers here (on x86 from AVX512 on)."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def summed_product(outer: Tensor, rows: Tensor) -> Tensor:
    """outer (M, N), rows (M, K) -> outer^T rows (N, K) in float32; tiles of `WEIGHT_ROWS` rows at a time."""
    if sums(outer, rows):
        return summed(outer, rows)
    pieces = max(1, -(-len(rows) // WEIGHT_ROWS)) if TILES in cpu_flags() else 1
    total, *others = (torch.mm(left.t(), right) for left, right in zip(outer.chunk(pieces), rows.chunk(pieces), strict=True))
    total = total.float()
    for other in others:
        total.add_(other)
    return total
