"""Small parts that every network here is made of: dropout, norms, feed-forward blocks.

The one decision to question: dropout masks come from random bytes, eight from one 64-bit draw, so the rate is rounded
to a multiple of 1/256 (torch draws one Bernoulli number at a time on one thread, which costs more than the matrix
product that it follows). The scale uses the rounded rate, so the expectation is exact. Where loops are compiled (fused.py), they do
all this in one pass; in torch's, comparisons write 0 and 1 in the inputs' own number format, because products of unlike formats are
several times slower.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from transduce.model.fused import add_dropped, computes, dropped, fuses, layer_norm, rectified_gradient
from transduce.model.products import Linear, compiles_sizes, compute_dtype

NormKind = Literal["layer_norm", "rms_norm"]
Activation = Literal["relu", "gelu", "swish", "swiglu"]


class Dropout(nn.Module):
    """Zeroes each element with probability `rate` in training, scaled so that the mean stays (Srivastava 2014).

    With `over_time` one mask serves all positions of a row (variational dropout, Gal & Ghahramani 2016): inputs are
    then (B, T, D).
    """

    def __init__(self, rate: float, over_time: bool = False) -> None:
        super().__init__()
        self.threshold = round(rate * 256)
        self.over_time = over_time

    def forward(self, inputs: Tensor) -> Tensor:
        """Any shape in, the same shape out."""
        if not self.training or self.threshold == 0:
            return inputs
        if inputs.device.type != "cpu" and not self.over_time:  # fused there
            return functional.dropout(inputs, self.threshold / 256)
        if fuses(inputs) and not self.over_time:
            return dropped(inputs, self.threshold)
        shape = (inputs.shape[0], 1, *inputs.shape[2:]) if self.over_time else inputs.shape
        return _Drop.apply(inputs, random_bytes(shape, inputs.device), self.threshold)  # type: ignore[no-any-return, no-untyped-call]

    def add(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """inputs + dropout(outputs)."""
        if fuses(inputs) and not self.over_time:
            return add_dropped(inputs, outputs, self.threshold if self.training else 0)
        return inputs + self(outputs)  # type: ignore[no-any-return]


class _Drop(torch.autograd.Function):
    """Zeroes the elements whose byte is below the threshold and scales the others, remembering one byte per element."""

    @staticmethod
    def forward(ctx, inputs: Tensor, draws: Tensor, threshold: int) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(draws)
        ctx.threshold = threshold
        return drop(inputs, draws, threshold)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        (draws,) = ctx.saved_tensors
        return drop(gradient, draws, ctx.threshold), None, None


def drop(inputs: Tensor, draws: Tensor, threshold: int) -> Tensor:
    """inputs * (draws >= threshold) * 256 / (256 - threshold); draws are bytes of a shape that broadcasts."""
    keep = torch.ge(draws, threshold, out=torch.empty(draws.shape, dtype=inputs.dtype, device=draws.device))
    scale = 256 / (256 - threshold)
    return torch.mul(inputs, keep.mul_(scale)) if draws.numel() < inputs.numel() else torch.mul(inputs, keep, out=keep).mul_(scale)


def random_bytes(shape: tuple[int, ...] | torch.Size, device: torch.device) -> Tensor:
    """Uniform uint8 numbers of `shape`, from torch's generator of the device."""
    count = torch.Size(shape).numel()
    words = torch.empty((count + 7) // 8, dtype=torch.int64, device=device).random_(-(2**63), None)
    return words.view(torch.uint8)[:count].view(shape)


class LayerNorm(nn.LayerNorm):
    """Layer norm over the last axis (Ba 2016). (..., D) -> (..., D)."""

    def forward(self, inputs: Tensor) -> Tensor:
        """In the number format of the inputs."""
        return self._normalise(inputs, inputs.dtype)

    def before_product(self, inputs: Tensor) -> Tensor:
        """In the number format of the product that follows, where that saves a pass."""
        return self._normalise(inputs, compute_dtype(inputs))

    def _normalise(self, inputs: Tensor, kind: torch.dtype) -> Tensor:
        if not fuses(inputs):
            return super().forward(inputs)
        return layer_norm(inputs, self.weight, self.bias, epsilon=self.eps, kind=kind)


class RMSNorm(nn.RMSNorm):
    """RMS norm over the last axis (Zhang & Sennrich 2019). (..., D) -> (..., D)."""

    def before_product(self, inputs: Tensor) -> Tensor:
        """As everywhere."""
        return self(inputs)  # type: ignore[no-any-return]


def make_norm(kind: NormKind, size: int) -> LayerNorm | RMSNorm:
    """The norm of that name."""
    return LayerNorm(size) if kind == "layer_norm" else RMSNorm(size, eps=1e-6)


class FeedForward(nn.Module):
    """Position-wise feed-forward block (Vaswani 2017, 3.3); `swiglu` gates it (Shazeer 2020). (..., D) -> (..., D)."""

    def __init__(self, size: int, inner_size: int, *, activation: Activation, dropout: float) -> None:
        super().__init__()
        self.activation = activation
        self.inner = Linear(size, inner_size * (2 if activation == "swiglu" else 1))
        self.outer = Linear(inner_size, size)
        self.dropout = Dropout(dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        if self.activation == "relu" and self.training and inputs.device.type == "cpu":
            inner, rectified = self.inner(inputs, then="relu"), compiles_sizes(inputs)  # (..., F)
            return self.outer(_ReluDrop.apply(inner, self.dropout.threshold, rectified))  # type: ignore[no-any-return, no-untyped-call]
        inner = self.inner(inputs)  # (..., F)
        match self.activation:
            case "relu":
                inner = functional.relu(inner)
            case "gelu":
                inner = functional.gelu(inner)
            case "swish":
                inner = functional.silu(inner)
            case "swiglu":
                gate, value = inner.chunk(2, dim=-1)  # (..., F) each
                inner = functional.silu(gate) * value
        return self.outer(self.dropout(inner))  # type: ignore[no-any-return]


class _ReluDrop(torch.autograd.Function):
    """ReLU and dropout in place, remembering nothing but the result: it is zero exactly where the gradient is.

    In place also backwards. That is safe because a `FeedForward` puts this between two linear layers of its own: the first
    does not need its output, and the gradient that comes back from the second belongs to nobody else.
    """

    @staticmethod
    def forward(ctx, inner: Tensor, threshold: int, rectified: bool) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.mark_dirty(inner)
        if not rectified:
            inner.relu_()
        ctx.scale = 256 / (256 - threshold)
        if threshold:
            keep = torch.ge(random_bytes(inner.shape, inner.device), threshold, out=torch.empty_like(inner))
            inner.mul_(keep).mul_(ctx.scale)
        ctx.save_for_backward(inner)
        return inner

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        (inner,) = ctx.saved_tensors
        if computes(inner):
            return rectified_gradient(gradient, inner, ctx.scale), None, None
        gradient = torch.ops.aten.threshold_backward.grad_input(gradient, inner, 0, grad_input=gradient)
        return gradient.mul_(ctx.scale) if ctx.scale != 1 else gradient, None, None
