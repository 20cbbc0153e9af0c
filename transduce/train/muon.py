"""The optimiser Muon: each matrix of a layer moves by the nearest orthogonal matrix of its averaged gradient (Jordan 2024);
all else as AdamW.

In: groups of parameters, those with `orthogonal` of matrices only. Out: a torch optimiser. An orthogonal step changes what a matrix does
in every direction alike, where Adam's is ruled by the few directions that gradients share: fewer updates to the same loss. The decision to
question: steps are scaled to the size that Adam's usually have (Liu 2025, 2.2), so that one learning rate serves both.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from transduce.train.precision import choose_precision

MOMENTUM = 0.95
"""Decay of the averaged gradient (Jordan 2024)."""
ADAM_SIZE = 0.2
"""Root mean square of an entry of Adam's steps over the learning rate (Liu 2025)."""
ITERATIONS = 4
"""Singular values from a hundredth of the matrix's norm come near one; a fifth would serve smaller ones, for a quarter more time."""
FACTORS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial that carries singular values towards one, steepest at zero (Jordan 2024)."""


class Muon(torch.optim.AdamW):
    """AdamW whose groups with `orthogonal` step as Muon does."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update. The gradients of matrices are used up."""
        for group in self.param_groups:
            if group["orthogonal"]:
                for matrix in group["params"]:
                    self._turn(matrix, group["lr"], group["weight_decay"])
        return super().step(closure)

    def _turn(self, matrix: Tensor, learning_rate: float, decay: float) -> None:
        gradient = matrix.grad
        if gradient is None:
            return
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        mean = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
        towards = orthogonal(gradient.lerp_(mean, MOMENTUM))
        matrix.mul_(1 - learning_rate * decay).add_(towards, alpha=-learning_rate * ADAM_SIZE * max(matrix.shape) ** 0.5)
        matrix.grad = None  # AdamW passes it over


def orthogonal(matrix: Tensor) -> Tensor:
    """(M, N) -> about the U V^T of its singular value decomposition, by iterations of Newton and Schulz; singular values end between 0.7
    and 1.2, which serves as well as 1."""
    wide = matrix.shape[0] <= matrix.shape[1]
    current: Tensor = (matrix if wide else matrix.t()).to(_number_format(matrix.device))
    current = current / (current.norm() + 1e-7)
    one, three, five = FACTORS
    for _ in range(ITERATIONS):
        squares = current @ current.t()
        factor = squares @ _plus(three, five * squares)  # products that add nothing are a quarter faster than those that do
        current = _plus(one, factor) @ current
    return (current if wide else current.t()).to(matrix.dtype)


@cache
def _number_format(device: torch.device) -> torch.dtype:
    """bfloat16, which is exact enough (Jordan 2024), where there are instructions for it."""
    return choose_precision("auto", device).dtype or torch.float32


def _plus(number: float, matrix: Tensor) -> Tensor:
    """number I + matrix, in place."""
    matrix.diagonal().add_(number)
    return matrix
