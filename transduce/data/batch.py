"""What the model is fed: rows of unequal length, padded to one rectangle, with their lengths.

In: encoded examples (integer arrays without end-of-sequence). Out: `Padded` tensors whose rows end in
end-of-sequence. The begin-of-sequence symbol is not stored: the model shifts the target itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Padded:
    """Rows of unequal length in one tensor.

    data: (B, S) token ids, (B, N) samples of sound, (B, S, C) frames or (B, C, H, W) pixels. lengths: (B,) int64, how much of each
    row is real. keys: (B,) int64, what the random choices about each row depend on (seed, epoch, example); None = nothing is random.
    """

    data: Tensor
    lengths: Tensor
    keys: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        """(B, S), True = real."""
        positions = torch.arange(self.data.shape[1], device=self.data.device)
        return positions[None, :] < self.lengths[:, None]

    def select(self, rows: Tensor) -> "Padded":
        """The rows of these numbers, padded as they were."""
        return Padded(self.data[rows], self.lengths[rows], None if self.keys is None else self.keys[rows])

    def to(self, device: torch.device) -> "Padded":
        """The same rows on another device."""
        return Padded(self.data.to(device), self.lengths.to(device), None if self.keys is None else self.keys.to(device))


@dataclass(frozen=True)
class Batch:
    """Pairs that are trained together, B sources and N targets.

    ids: (B,) int64, the example's number in its store. owners: (N,) int64, the source that each target belongs to (five captions of
    one picture, say); None = one target per source.
    """

    ids: Tensor
    source: Padded
    target: Padded
    owners: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same pairs on another device."""
        owners = None if self.owners is None else self.owners.to(device)
        return Batch(self.ids.to(device), self.source.to(device), self.target.to(device), owners)

    def share(self, number: int, shares: int) -> "Batch":
        """Every `shares`-th source from `number` on, with its targets: shares are alike in size, and together they are the batch."""
        rows = torch.arange(number, len(self.ids), shares)
        if self.owners is None:
            return Batch(self.ids[rows], self.source.select(rows), self.target.select(rows))
        targets = (self.owners % shares == number).nonzero().squeeze(1)
        return Batch(self.ids[rows], self.source.select(rows), self.target.select(targets), self.owners[targets] // shares)


def pad_tokens(rows: Sequence[np.ndarray], *, eos_id: int | None, pad_id: int) -> Padded:
    """Put integer rows into one (B, S) tensor, each closed by `eos_id` (None closes nothing), padded with `pad_id`."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    closed = lengths + (eos_id is not None)
    data = np.full((len(rows), int(closed.max(initial=1))), pad_id, dtype=np.int64)
    if len(rows):
        data[real_places(lengths, data.shape[1])] = np.concatenate(rows)
    if eos_id is not None:
        data[np.arange(len(rows)), lengths] = eos_id
    return Padded(torch.from_numpy(data), torch.from_numpy(closed))


def real_places(lengths: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """(B,) -> (B, width), True where a row of that length has something: what `concatenate` fills in order."""
    return np.asarray(np.arange(width) < lengths[:, None])
