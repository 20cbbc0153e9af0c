"""The narrow waist: what an encoder gives, what a decoder takes, and what a decoder remembers.

Any encoder meets any decoder here. `Memory` has one row per sentence and is never copied per hypothesis;
`State` has one row per hypothesis and is a plain value: `step` takes one and returns the next.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Memory:
    """What the encoder knows of B sentences.

    states: (B, S, D). mask: (B, S) True = real. summary: (B, C), the context vector.
    keys: what the decoder projected from the states once per sentence (each tensor has B rows); set by `Decoder.project`.
    """

    states: Tensor
    mask: Tensor
    summary: Tensor
    keys: tuple[Tensor, ...] = ()

    def select(self, rows: Tensor) -> "Memory":
        """The sentences named by `rows` (any order, repeats allowed)."""
        parts = (part.index_select(0, rows) for part in (self.states, self.mask, self.summary, *self.keys))
        return Memory(next(parts), next(parts), next(parts), tuple(parts))


def real_positions(lengths: Tensor, length: int) -> Tensor:
    """(B,) -> (B, length) True = real."""
    return torch.arange(length, device=lengths.device)[None, :] < lengths[:, None]


def memory_with_mean(states: Tensor, mask: Tensor) -> Memory:
    """Memory of states (B, S, D), mask (B, S) True = real. The summary is the mean of the real ones, for decoders that want one vector."""
    shares = mask.to(states.dtype) / mask.sum(1, keepdim=True).clamp(min=1).to(states.dtype)  # (B, S)
    return Memory(states, mask, torch.einsum("bs,bsd->bd", shares, states))


class State(Protocol):
    """What a decoder remembers of N hypotheses between steps."""

    def select(self, rows: Tensor) -> Self:
        """The hypotheses named by `rows` (any order, repeats allowed)."""
        ...


class Encoder(nn.Module, ABC):
    """Vectors in, `Memory` out. `output_size` is D of the states, `summary_size` is C of the summary."""

    output_size: int
    summary_size: int

    @abstractmethod
    def forward(self, inputs: Tensor, lengths: Tensor) -> Memory:
        """inputs: (B, S, E), lengths: (B,) -> Memory. Padding never changes a real state."""


StateT = TypeVar("StateT", bound=State)


class Decoder(nn.Module, ABC, Generic[StateT]):
    """Embedded previous tokens and `Memory` in, hidden states out. `output_size` is D of the hidden states.

    Hypotheses are grouped by sentence: row n of N = B * W belongs to sentence n // W, so a decoder finds W = N // B
    and lets the W hypotheses of a sentence look at its memory as if they were W positions.
    """

    output_size: int

    def project(self, memory: Memory) -> Memory:
        """Memory with `keys` filled: everything the decoder computes once per sentence."""
        return memory

    @abstractmethod
    def start(self, memory: Memory) -> StateT:
        """The state before the first token, one row per sentence (B); search widens it with `select`."""

    @abstractmethod
    def step(self, inputs: Tensor, state: StateT, memory: Memory) -> tuple[Tensor, StateT]:
        """inputs: (N, E) embedded previous tokens -> hidden (N, D) and the next state."""

    def joins(self, _memory: Memory) -> bool:
        """Whether `step_together` is faster than single steps for such memories."""
        return False

    def step_together(self, inputs: Sequence[Tensor], states: Sequence[StateT], memories: Sequence[Memory]) -> tuple[Tensor, list[StateT]]:
        """Several searches' `step` at once: inputs (N1, E), (N2, E), ... -> hidden (N1 + N2 + ..., D) and the next states."""
        steps = [self.step(*each) for each in zip(inputs, states, memories, strict=True)]
        return torch.cat([hidden for hidden, _ in steps]), [state for _, state in steps]

    @abstractmethod
    def forward(self, inputs: Tensor, memory: Memory, *, with_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """inputs: (B, T, E), teacher forcing -> hidden (B, T, D), equal to T calls of `step`.

        With `with_attention` also the weights (B, T, S) (mean over heads, last layer), or None for a decoder that
        sees the summary only.
        """
