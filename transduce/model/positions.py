"""Where a token stands: four ways to tell a Transformer, which by itself sees a set.

In: the number of the first position and how many there are (search asks for one position at a time, training for all).
Out: vectors added to the inputs (sinusoidal, learned), angles that turn queries and keys (RoPE), or a bias on the
attention scores (relative). All of them are the same function in a step and in a whole pass.

The decision to question: RoPE pairs feature i with i + K / 2 instead of neighbours, so that turning is two contiguous
halves; the two layouts differ by a fixed permutation of features, which training cannot see.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from transduce.errors import ConfigError

PositionKind = Literal["sinusoidal", "learned", "rope", "relative", "none"]
Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, (T, 1, K / 2) each."""
TABLE_LENGTH = 1024
"""Positions whose sines are kept; later ones are computed when they are asked for."""


def sinusoid(start: int, length: int, *, width: int, device: torch.device) -> Tensor:
    """(T, D): sin(t / 10000^(2i / D)) at 2i and cos of the same at 2i + 1 (Vaswani 2017, 3.5)."""
    angles = angle_table(start, length, pairs=(width + 1) // 2, width=width, device=device)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width].float()  # (T, D)


def angle_table(start: int, length: int, *, pairs: int, width: int, device: torch.device) -> Tensor:
    """(T, pairs) float64: t / 10000^(2i / width)."""
    rates = torch.exp(torch.arange(pairs, dtype=torch.float64, device=device) * (-2 * math.log(10000.0) / width))
    return torch.arange(start, start + length, dtype=torch.float64, device=device)[:, None] * rates


class SinusoidalPositions(nn.Module):
    """Fixed vectors added to the inputs (Vaswani 2017, 3.5). No parameters, any length."""

    table: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("table", sinusoid(0, TABLE_LENGTH, width=width, device=torch.device("cpu")), persistent=False)

    def forward(self, inputs: Tensor, start: int) -> Tensor:
        """(B, T, D) -> (B, T, D); the first of the T positions is number `start`."""
        length = inputs.shape[1]
        if start + length <= TABLE_LENGTH:
            return inputs + self.table[start : start + length]
        return inputs + sinusoid(start, length, width=self.width, device=inputs.device)


class LearnedPositions(nn.Module):
    """Learned vectors added to the inputs (Gehring 2017), for at most `max_positions`."""

    def __init__(self, width: int, max_positions: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(max_positions, width) * 0.02)

    def forward(self, inputs: Tensor, start: int) -> Tensor:
        """(B, T, D) -> (B, T, D). Raises ConfigError beyond `max_positions`."""
        end, limit = start + inputs.shape[1], self.weight.shape[0]
        if end > limit:
            raise ConfigError(f"a sequence of {end} tokens meets learned positions for {limit}; raise max_positions or shorten the input")
        return inputs + self.weight[start:end]


class RotaryPositions(nn.Module):
    """Angles by which queries and keys are turned, so that their product knows the distance only (RoPE, Su 2021)."""

    table: Tensor

    def __init__(self, head_width: int) -> None:
        super().__init__()
        self.head_width = head_width
        self.register_buffer("table", self.angles(0, TABLE_LENGTH, torch.device("cpu")), persistent=False)

    def angles(self, start: int, length: int, device: torch.device) -> Tensor:
        """(2, T, 1, K / 2): cosines, sines."""
        angles = angle_table(start, length, pairs=self.head_width // 2, width=self.head_width, device=device)
        return torch.stack([angles.cos(), angles.sin()])[:, :, None].float()

    def forward(self, inputs: Tensor, start: int) -> Rotation:
        """The rotation of the T positions of inputs (B, T, D), the first of them number `start`."""
        length = inputs.shape[1]
        short = start + length <= TABLE_LENGTH
        cosines, sines = self.table[:, start : start + length] if short else self.angles(start, length, inputs.device)
        return cosines, sines


def rotate(vectors: Tensor, rotation: Rotation) -> Tensor:
    """(B, T, heads, K) turned by the angles of its positions, in float32 whatever comes in; the same type goes out."""
    cosines, sines = rotation
    left, right = vectors.chunk(2, dim=-1)  # (B, T, heads, K / 2)
    return torch.cat([left * cosines - right * sines, right * cosines + left * sines], dim=-1).type_as(vectors)


class RelativePositions(nn.Module):
    """A learned bias per head and clipped distance, shared by all layers (Raffel 2020, 2.1).

    Half of the buckets hold one distance each; the others grow logarithmically up to `max_distance`, and the last one
    takes everything beyond. With `both_ways` one half of all buckets is for keys after the query.
    """

    def __init__(self, heads: int, *, buckets: int, max_distance: int, both_ways: bool) -> None:
        super().__init__()
        self.buckets = buckets
        self.max_distance = max_distance
        self.both_ways = both_ways
        self.weight = nn.Parameter(torch.zeros(buckets, heads))

    def forward(self, start: int, length: int) -> Tensor:
        """(1, H, T, start + T): for queries at start .. start + T - 1 and all keys from 0 on."""
        device = self.weight.device
        queries = torch.arange(start, start + length, device=device)
        keys = torch.arange(start + length, device=device)
        return self.weight[self.bucket(queries[:, None] - keys)].permute(2, 0, 1)[None]  # (1, H, T, S)

    def bucket(self, distance: Tensor) -> Tensor:
        """Distance query - key (any shape, int64) -> bucket number of the same shape."""
        num_buckets = self.buckets // 2 if self.both_ways else self.buckets
        offset = (distance < 0) * num_buckets if self.both_ways else 0
        distance = distance.abs() if self.both_ways else distance.clamp(min=0)
        exact = num_buckets // 2
        share = (distance.clamp(min=1).double() / exact).log() / math.log(self.max_distance / exact)
        far = (exact + (share * (num_buckets - exact)).long()).clamp(max=num_buckets - 1)
        return torch.where(distance < exact, distance, far) + offset
