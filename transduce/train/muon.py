"""The optimiser Muon: each matrix of a layer moves by the nearest orthogonal matrix of its averaged gradient (Jordan 2024);
all else as AdamW.

In: groups of parameters, those with `orthogonal` of matrices only. Out: a torch optimiser. An orthogonal step changes what a matrix does
in every direction alike, where Adam's is ruled by the few directions that gradients share: fewer updates to the same loss. The decision to
question: steps are scaled to the size that Adam's usually have (Liu 2025, 2.2), so that one learning rate serves both.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transduce.model.blocked import fits, has_blocks
from transduce.model.fused import array
from transduce.train.precision import choose_precision

MOMENTUM = 0.95
"""Decay of the averaged gradient (Jordan 2024)."""
ADAM_SIZE = 0.2
"""Root mean square of an entry of Adam's steps over the learning rate (Liu 2025)."""
FACTORS = (7.7110, -22.1138, 16.2487), (3.2153, -2.4112, 0.5013), (2.2183, -1.5940, 0.4107)
"""Of polynomials a x + b x^3 + c x^5, one after the other, each the nearest to one over all that the one before can give, where singular
values are between a fiftieth of the matrix's norm and all of it (Amsel 2025, Polar Express, 3). Three do what four alike ones did."""


class Muon(torch.optim.AdamW):
    """AdamW whose groups with `orthogonal` step as Muon does."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update. The gradients of matrices are used up."""
        for group in self.param_groups:
            if group["orthogonal"]:
                moved = [matrix for matrix in group["params"] if matrix.grad is not None]
                looped = [matrix for matrix in moved if knows(matrix)]
                self._move(looped, group["lr"], group["weight_decay"])
                for matrices in of_equal_shape(matrix for matrix in moved if not knows(matrix)):
                    self._turn(matrices, group["lr"], group["weight_decay"])
                for matrix in moved:
                    matrix.grad = None  # AdamW passes it over
        return super().step(closure)

    def _move(self, matrices: Sequence[Tensor], learning_rate: float, decay: float) -> None:
        """By loops, the largest matrices first: one a thread, where each of torch's operations would take all threads."""
        work, factors = [], np.array(FACTORS, np.float32)
        for matrix in sorted(matrices, key=torch.numel, reverse=True):
            assert matrix.grad is not None
            figures = MOMENTUM, 1 - learning_rate * decay, learning_rate * ADAM_SIZE * max(matrix.shape) ** 0.5
            tensors = matrix, matrix.grad.contiguous(), self._mean(matrix)
            work.append(partial(muon_loops().move, tuple(map(array, tensors)), tuple(map(np.float32, figures)), factors))
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            for done in [threads.submit(move) for move in work]:
                done.result()

    def _turn(self, matrices: list[Tensor], learning_rate: float, decay: float) -> None:
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        means = [self._mean(matrix) for matrix in matrices]
        torch._foreach_lerp_(means, gradients, 1 - MOMENTUM)
        torch._foreach_lerp_(gradients, means, MOMENTUM)
        towards = orthogonal(torch.stack(gradients))
        torch._foreach_mul_(matrices, 1 - learning_rate * decay)
        size = ADAM_SIZE * max(towards.shape[1:]) ** 0.5
        torch._foreach_add_(matrices, list(towards), alpha=-learning_rate * size)

    def _mean(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        return state["momentum_buffer"]  # type: ignore[no-any-return]


@cache
def muon_loops() -> ModuleType:
    """The compiled loops, where `knows` has found them."""
    from transduce.train import muon_kernels

    return muon_kernels


def knows(matrix: Tensor) -> bool:
    """Whether there are loops for a step of this matrix, and they are the fastest here."""
    return matrix.device.type == "cpu" and matrix.dtype == torch.float32 and has_blocks(torch.bfloat16) and fits(*matrix.shape)


def of_equal_shape(matrices: Iterable[Tensor]) -> list[list[Tensor]]:
    """By shape: one product of many matrices is twice as fast as many products."""
    found: dict[torch.Size, list[Tensor]] = {}
    for matrix in matrices:
        found.setdefault(matrix.shape, []).append(matrix)
    return list(found.values())


def orthogonal(matrices: Tensor) -> Tensor:
    """(B, M, N) -> about the U V^T of the singular value decomposition of each, by iterations of Newton and Schulz; singular values
    from a fiftieth of the matrix's norm on end between 0.9 and 1.1, those of a hundredth at a half."""
    current: Tensor = matrices.to(_number_format(matrices.device))
    current = current / (torch.linalg.matrix_norm(current, keepdim=True) + 1e-7)
    wide = matrices.shape[1] <= matrices.shape[2]
    for one, three, five in FACTORS:
        turned = current.mT
        squares = current @ turned if wide else turned @ current
        factor = squares @ _plus(three, five * squares)  # products that add nothing are a quarter faster than those that do
        _plus(one, factor)
        current = factor @ current if wide else current @ factor
    return current.to(matrices.dtype)


@cache
def _number_format(device: torch.device) -> torch.dtype:
    """bfloat16, which is exact enough (Jordan 2024), where there are instructions for it."""
    return choose_precision("auto", device).dtype or torch.float32


def _plus(number: float, matrices: Tensor) -> Tensor:
    """number I + each matrix, in place."""
    matrices.diagonal(dim1=1, dim2=2).add_(number)
    return matrices
