"""Several whole futures of one track, each with a probability (multiple-trajectory prediction, Cui 2019, section III).

In: raw numbers of a linear layer, one row per frame. Out: the expected frame, the same frame of M futures, and how probable each
future is. The decision to question: which future comes is decided once, by the numbers of the first frame, and holds for the
whole track; a component drawn anew at every step gives a fan of jitter, and its best member is hardly nearer than the mean.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ModesLayout:
    """How the raw numbers of a frame are laid out: the expected frame, the frame of each future, the logits of the futures.

    size: C. modes: M.
    """

    size: int
    modes: int

    @property
    def num_parameters(self) -> int:
        """Raw numbers of a frame."""
        return self.size * (1 + self.modes) + self.modes

    def expected(self, raw: Tensor) -> Tensor:
        """(..., num_parameters) -> (..., C)."""
        return raw[..., : self.size]

    def read(self, raw: Tensor) -> "Modes":
        """raw: (B, T, num_parameters) of whole tracks."""
        tracks = raw[..., self.size : self.size * (1 + self.modes)]
        shape = (*raw.shape[:-1], self.modes, self.size)
        first = raw[:, 0, self.size * (1 + self.modes) : self.num_parameters]
        return Modes(tracks.reshape(shape).transpose(1, 2), first.log_softmax(-1))


@dataclass(frozen=True)
class Modes:
    """tracks: (B, M, T, C). log_weights: (B, M)."""

    tracks: Tensor
    log_weights: Tensor

    def likeliest(self, count: int) -> "Modes":
        """The `count` most probable futures, the first one first."""
        log_weights, places = self.log_weights.topk(count, dim=-1)  # (B, K)
        rows = torch.arange(len(places), device=places.device)[:, None]
        return Modes(self.tracks[rows, places], log_weights)
