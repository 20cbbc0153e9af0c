"""A recurrence's matrix: it is multiplied at every step, with its gradient computed once.

In: a weight (K, M), or one matrix per sentence (B, K, M). Out: products, one per step.

The decision to question: autograd would add one gradient of the size of the matrix at each of T steps. Here a step's
backward only keeps its two factors, and one product over all steps follows at the end: the same sum in another order,
with a fraction of the memory traffic. A matrix that needs no gradient is multiplied in the ordinary way.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from transduce.model.products import compute_dtype


class Shared:
    """One matrix for many products. `matrix` is what it became: a weight takes autocast's number format where autocast is on.

    A matrix per sentence keeps its own: its products are single rows, which bfloat16 makes slower on a CPU (measured: 2 times).
    """

    def __init__(self, matrix: Tensor) -> None:
        dtype = compute_dtype(matrix) if matrix.dim() == 2 else matrix.dtype
        self._deferred = torch.is_grad_enabled() and matrix.requires_grad
        self.tape = GradientTape()
        self.matrix: Tensor = _Collect.apply(matrix, self.tape, dtype) if self._deferred else matrix.to(dtype)  # type: ignore[no-untyped-call]

    def product(self, inputs: Tensor, added: Tensor | None = None) -> Tensor:
        """inputs (N, K) or (B, W, K), times the matrix, plus `added` (same shape as the result) -> (N, M) or (B, W, M)."""
        inputs = inputs.to(self.matrix.dtype)
        with torch.autocast(inputs.device.type, enabled=False):
            if self._deferred:
                return _Product.apply(inputs, self.matrix, added, self.tape)  # type: ignore[no-any-return, no-untyped-call]
            return _multiply(inputs, self.matrix, added)


class GradientTape:
    """What the steps of a backward pass leave for the end: pairs of factors, and a running sum."""

    def __init__(self) -> None:
        self.factors: list[tuple[Tensor, Tensor]] = []
        self.total: Tensor | None = None

    def add(self, gradient: Tensor) -> None:
        """Put a step's gradient to the sum. The tape owns `gradient` from now on."""
        self.total = gradient if self.total is None else self.total.add_(gradient)

    def collect(self) -> Tensor | None:
        """The whole gradient of the matrix; the tape is empty afterwards."""
        gradient, self.total = self.total, None
        if self.factors:
            inputs = torch.cat([pair[0] for pair in self.factors], dim=-2)  # (T * N, K) or (B, T * W, K)
            outputs = torch.cat([pair[1] for pair in self.factors], dim=-2)
            self.factors = []
            product = torch.matmul(outputs.transpose(-1, -2), inputs).transpose(-1, -2)
            gradient = product if gradient is None else gradient + product
        return gradient


def _multiply(inputs: Tensor, matrix: Tensor, added: Tensor | None) -> Tensor:
    """inputs @ matrix + added in one call."""
    if added is None:
        return torch.matmul(inputs, matrix)
    added = added.to(matrix.dtype)
    return torch.addmm(added, inputs, matrix) if matrix.dim() == 2 else torch.baddbmm(added, inputs, matrix)


class _Collect(torch.autograd.Function):
    """The matrix itself; its backward runs after those of all products and adds up what they left on the tape."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, tape: GradientTape, dtype: torch.dtype) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.tape, ctx.dtype = tape, matrix.dtype
        return matrix.to(dtype) if matrix.dtype != dtype else matrix.view_as(matrix)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, None, None]:
        total = ctx.tape.collect()
        if total is None:
            total = gradient
        elif gradient is not None:
            total = total + gradient
        return (None if total is None else total.to(ctx.dtype)), None, None


class _Product(torch.autograd.Function):
    """inputs @ matrix + added, whose backward leaves the matrix's share on the tape."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, matrix: Tensor, added: Tensor | None, tape: GradientTape) -> Tensor:
        ctx.save_for_backward(inputs, matrix)
        ctx.tape, ctx.added = tape, None if added is None else added.dtype
        return _multiply(inputs, matrix, added)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor | None, None]:
        inputs, matrix = ctx.saved_tensors
        ctx.tape.factors.append((inputs, gradient))
        back = torch.matmul(gradient, matrix.transpose(-1, -2)) if ctx.needs_input_grad[0] else None
        return back, None, (None if ctx.added is None else gradient.to(ctx.added)), None
