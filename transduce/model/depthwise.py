"""Depthwise convolution: over time, each feature with a kernel of its own, fast on a processor.

In: vectors (B, S, D) and kernels (D, K), K odd. Out: (B, S, D), the ends seen as if zeros stood beyond them.

The decision to question: on a CPU this is not conv1d. Vectors that lie feature by feature beside one another are "channels last" of a
picture one row high, for which torch has a quick forward pass; its backward pass, the gradient of the kernels above all, is slow.
So the gradient of the inputs is the same forward pass with mirrored kernels, and that of the kernels is one product and sum for each
of the K places. Measured at (16, 150, 144..256), K 15..31, forward and backward: 6 to 8 times faster than conv1d in float32.
All of it is float32, whatever the products around it are: with torch 2.13 (oneDNN 3.12) the same convolution of bfloat16 never ends for
many shapes, (5, 38, 144) with K 15 on two threads for one, because oneDNN goes on writing its kernel for ever.
float32 is as fast forward, 5 to 12 % slower with the backward pass.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from transduce.model.products import compute_dtype


class DepthwiseConvolution(nn.Module):
    """(B, S, D) -> (B, S, D). Padding must be zero in the inputs, for its neighbours see it."""

    def __init__(self, size: int, kernel_size: int) -> None:
        super().__init__()
        bound = kernel_size**-0.5
        self.weight = nn.Parameter(torch.empty(size, kernel_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(size))

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, D) in the number format of the products around it."""
        dtype = compute_dtype(inputs)
        with torch.autocast(inputs.device.type, enabled=False):
            if inputs.device.type != "cpu":
                return _convolve(inputs.to(dtype), self.weight.to(dtype)) + self.bias.to(dtype)
            mixed: Tensor = _Convolve.apply(inputs.float(), self.weight)  # type: ignore[no-untyped-call]
            return (mixed + self.bias).to(dtype)


def _convolve(inputs: Tensor, weight: Tensor) -> Tensor:
    """(B, S, D), (D, K) -> (B, S, D), the picture being one row high."""
    size, kernel_size = weight.shape
    picture = inputs.transpose(1, 2).unsqueeze(2)  # (B, D, 1, S)
    mixed = functional.conv2d(picture, weight[:, None, None], padding=(0, kernel_size // 2), groups=size)
    return mixed.squeeze(2).transpose(1, 2)  # (B, S, D)


class _Convolve(torch.autograd.Function):
    """`_convolve` with the backward pass of the top of this file."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return _convolve(inputs, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        inputs, weight = ctx.saved_tensors
        (size, kernel_size), length = weight.shape, inputs.shape[1]
        gradient, room = gradient.contiguous(), kernel_size // 2
        padded = functional.pad(inputs, (0, 0, room, room))  # (B, S + K - 1, D)
        product, d_weight = torch.empty_like(gradient), gradient.new_empty(kernel_size, size)
        for place in range(kernel_size):
            torch.mul(padded[:, place : place + length], gradient, out=product)
            torch.sum(product.view(-1, size), 0, out=d_weight[place])
        return _convolve(gradient, weight.flip(1)), d_weight.t()
