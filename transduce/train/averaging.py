"""Means of weights: over time while training (EMA), and over the best checkpoints at the end.

In: models or tensors of equal names. Out: the same names with averaged values. The moving average is a second module, not
values that are swapped in and out, so that validation cannot leave the wrong weights behind when it is interrupted.
"""

import copy
from collections.abc import Iterable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class MovingAverage(Generic[ModuleT]):
    """Exponential moving average of the weights (Polyak & Juditsky 1992), with the warm-up min(decay, (1 + n) / (10 + n))."""

    def __init__(self, model: ModuleT, decay: float) -> None:
        self.decay = decay
        self.model: ModuleT = copy.deepcopy(model)
        self.model.requires_grad_(False)
        self._pairs = list(zip(self.model.parameters(), model.parameters(), strict=True))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_([mean for mean, _ in self._pairs], [weight.detach() for _, weight in self._pairs], 1 - decay)


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and stored buffers by name; one that has several names (tied weights) comes once, under the first."""
    seen: set[int] = set()
    unique = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            unique[name] = tensor.detach()
    return unique


def mean_of_tensors(sets: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each name, summed in fp64 so that the order does not matter; whole numbers are taken from the first."""
    count = 0
    totals: dict[str, Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    for tensors in sets:
        count += 1
        for name, tensor in tensors.items():
            kinds.setdefault(name, tensor.dtype)
            exact = tensor.double() if tensor.is_floating_point() else tensor
            totals[name] = exact if name not in totals else totals[name] + exact if tensor.is_floating_point() else totals[name]
    return {name: (total / count if total.is_floating_point() else total).to(kinds[name]) for name, total in totals.items()}
