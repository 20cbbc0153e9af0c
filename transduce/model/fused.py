"""What stands between the products of a layer, in one pass over memory each: dropout and sums, norms, the weights of attention, the loss.

In and out: tensors, most with gradients. The loops are those of kernels.py. The decision to question: they run in training only, on a CPU,
in a process of one thread, and where numba is installed; `fuses` says whether. Elsewhere the callers use torch's operations, several
passes each: the same up to rounding, but with other random numbers.
"""

from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from transduce.model.padded import with_room

Array = np.ndarray[Any, Any]


@cache
def kernels() -> ModuleType | None:
    """The compiled loops; None without numba, or where it finds no folder to keep what it compiles."""
    try:
        from transduce.model import kernels as found
    except (ImportError, RuntimeError):
        return None
    return found


@cache
def compiles(instructions: str) -> bool:
    """Whether loops can be compiled with these instructions, as LLVM names them."""
    found = kernels()
    return found is not None and instructions in found.INSTRUCTIONS


def loops_used(device: torch.device, threads: int) -> str:
    """Whose loops a process of so many threads trains with, in words."""
    if device.type != "cpu" or threads > 1:
        return "torch"
    found = kernels()
    return 'torch (with pip install "transduce[fast]" training is faster)' if found is None else f"numba {found.VERSION}"


def fuses(inputs: Tensor) -> bool:
    """Whether an operation that may have to be differentiated is one of these."""
    return torch.is_grad_enabled() and computes(inputs)


def searches(inputs: Tensor) -> bool:
    """Whether the loops of search can compute with these numbers, which nobody will differentiate."""
    return not torch.is_grad_enabled() and inputs.dtype == torch.float32 and computes(inputs)


def computes(inputs: Tensor) -> bool:
    """Whether the loops can compute with these numbers."""
    if inputs.device.type != "cpu" or inputs.dtype not in (torch.float32, torch.bfloat16) or not inputs.numel():
        return False
    return torch.get_num_threads() == 1 and kernels() is not None


def array(tensor: Tensor) -> Array:
    """The memory of a tensor; numbers in bfloat16 as their bits."""
    tensor = tensor.detach() if tensor.requires_grad else tensor
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def rows(tensor: Tensor) -> Array:
    """(..., D) in one piece -> its memory as (M, D)."""
    return array(tensor).reshape(-1, tensor.shape[-1])


def loops() -> ModuleType:
    """The compiled loops, where `fuses` has found them."""
    found = kernels()
    assert found is not None
    return found


@cache
def search_loops() -> ModuleType:
    """The compiled loops of a step of search, where there are `kernels`."""
    from transduce.model import search_kernels

    return search_kernels


class Mask:
    """Which numbers dropout keeps: those whose random byte is at least `threshold`, times 256 / (256 - threshold). The bytes follow from a
    seed that torch's generator draws."""

    def __init__(self, threshold: int) -> None:
        seed = int(torch.empty((), dtype=torch.int64).random_()) if threshold else 0
        self.words = np.uint64(seed), np.uint8(threshold), np.float32(256 / (256 - threshold))

    def apply(self, inputs: Tensor, kind: torch.dtype, *, base: Tensor | None = None) -> Tensor:
        """What is left of inputs (..., D), plus the base (..., D), in the number format `kind`."""
        outputs = with_room(inputs, inputs.shape, kind=kind)
        loops().drop((rows(inputs.contiguous()), self.words), None if base is None else rows(base.contiguous()), rows(outputs))
        return outputs


def dropped(inputs: Tensor, threshold: int) -> Tensor:
    """Inputs (..., D) where a random byte is at least the threshold, scaled, else 0."""
    return _Drop.apply(inputs, threshold)  # type: ignore[no-any-return, no-untyped-call]


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs: Tensor, threshold: int) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.mask = Mask(threshold)
        return ctx.mask.apply(inputs, inputs.dtype)  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        return ctx.mask.apply(gradient, gradient.dtype), None


def add_dropped(inputs: Tensor, added: Tensor, threshold: int) -> Tensor:
    """inputs + dropped(added), (..., D) each, in the number format of the inputs."""
    return _AddDropped.apply(inputs, added, threshold)  # type: ignore[no-any-return, no-untyped-call]


class _AddDropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs: Tensor, added: Tensor, threshold: int) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.mask, ctx.kind = Mask(threshold), added.dtype
        return ctx.mask.apply(added, inputs.dtype, base=inputs)  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[no-untyped-def]
        return gradient, ctx.mask.apply(gradient, ctx.kind), None


def layer_norm(inputs: Tensor, weight: Tensor, bias: Tensor, *, epsilon: float, kind: torch.dtype) -> Tensor:
    """Layer norm (Ba 2016) of inputs (..., D) with weight and bias (D,), in the number format `kind`."""
    return _LayerNorm.apply(inputs, weight, bias, epsilon, kind)  # type: ignore[no-any-return, no-untyped-call]


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs: Tensor, weight: Tensor, bias: Tensor, epsilon: float, kind: torch.dtype) -> Tensor:  # type: ignore[no-untyped-def]
        inputs, outputs = inputs.contiguous(), with_room(inputs, inputs.shape, kind=kind)
        means, scales = torch.empty(2, inputs.shape[:-1].numel())
        affine = array(weight), array(bias), np.float32(epsilon)
        loops().layer_norm(rows(inputs), affine, (rows(outputs), array(means), array(scales)))
        ctx.save_for_backward(inputs, weight, means, scales)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:  # type: ignore[no-untyped-def]
        inputs, *known = ctx.saved_tensors
        back, weights, biases = torch.empty_like(inputs), torch.zeros_like(known[0]), torch.zeros_like(known[0])
        written = rows(back), array(weights), array(biases)
        loops().layer_norm_gradient(rows(gradient.contiguous()), (rows(inputs), *map(array, known)), written)
        return back, weights, biases, None, None


def attention_weights(scores: Tensor, bias: Tensor | None, *, scale: float, threshold: int) -> Tensor:
    """softmax(scores * scale + bias) after dropout: (B, H, T, S). The bias broadcasts and has no gradient."""
    bias = torch.zeros(1, 1, 1, scores.shape[3]) if bias is None else bias.expand(-1, -1, -1, scores.shape[3])
    return _AttentionWeights.apply(scores, bias, scale, threshold)  # type: ignore[no-any-return, no-untyped-call]


class _AttentionWeights(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores: Tensor, bias: Tensor, scale: float, threshold: int) -> Tensor:  # type: ignore[no-untyped-def]
        scores, bias = scores.contiguous(), bias.float().contiguous()
        softmax, weights = torch.empty_like(scores), torch.empty_like(scores)
        ctx.scale, ctx.mask = np.float32(scale), Mask(threshold)
        strides = tuple(step if size > 1 else 0 for size, step in zip(bias.shape[:3], bias.stride()[:3], strict=True))
        read = array(scores), ctx.scale, array(bias).reshape(-1), strides
        loops().attention_weights(read, ctx.mask.words, (array(softmax), array(weights)))
        ctx.save_for_backward(softmax)
        return weights

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[no-untyped-def]
        (softmax,) = ctx.saved_tensors
        back = torch.empty_like(softmax)
        read = array(gradient.contiguous().flatten(0, 1)), array(softmax.flatten(0, 1)), ctx.scale
        loops().attention_gradient(read, ctx.mask.words, array(back.flatten(0, 1)))
        return back, None, None, None


def rectified_gradient(gradient: Tensor, outputs: Tensor, scale: float) -> Tensor:
    """The gradient (..., D) of what became `outputs` when it was rectified, dropped and scaled, in place."""
    gradient = gradient.contiguous()
    loops().rectified_gradient(rows(outputs), np.float32(scale), rows(gradient))
    return gradient


def column_sums(inputs: Tensor) -> Tensor:
    """(M, D) -> (D,) in float32."""
    if not computes(inputs):
        return inputs.sum(0, dtype=torch.float32)
    sums = torch.zeros(inputs.shape[1])
    loops().column_sums(array(inputs), array(sums))
    return sums


def cross_entropy(logits: Tensor, labels: Tensor, amount: float, *, filled: Sequence[Tensor], biases: Tensor | None) -> None:
    """Fills log sum exp of the logits (R, V), the label's logit and whether it is the largest, (R,) each. With biases (V,) the logits
    become their gradient, softmax minus `amount` at the label, and its sum over rows is added to the biases."""
    read = array(logits), array(labels), np.float32(amount)
    loops().cross_entropy(read, None if biases is None else array(biases), tuple(map(array, filled)))
