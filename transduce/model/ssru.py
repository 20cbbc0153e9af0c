"""A fast decoder: the Transformer's with its self-attention replaced by a simple recurrence (SSRU, Kim 2019).

In: embedded targets (B, T, E) and `Memory`. Out: hidden states (B, T, D). "From Research to Production and Back:
Ludicrously Fast Neural Machine Translation", section 2: f_t = sigmoid(W_f x_t + b_f), c_t = f_t c_{t-1} + (1 - f_t) W x_t,
and relu(c_t) goes out. A step costs the same at every position, and the state is one vector per layer.

The decision to question: the recurrence runs in float32, with a backward pass of its own. A cell is a sum over all past
positions, and a loop of T elementwise operations would otherwise leave T small nodes in the graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from transduce.model.attention import initialise_blocks
from transduce.model.interface import Decoder, Encoder, Memory
from transduce.model.products import Linear
from transduce.model.stack import DecoderStack, StackConfig, skipped


class SSRUDecoderConfig(StackConfig):
    """A decoder of simple recurrent units with cross-attention (Kim 2019)."""

    kind: Literal["ssru"] = "ssru"
    """Which architecture this is."""
    layers: int = Field(default=2, ge=1)
    """Number of layers."""


class _Scan(torch.autograd.Function):
    """c_t = f_t c_{t-1} + (1 - f_t) x_t from c_{-1} = 0, over the first axis of forget gates and candidates (T, B, D)."""

    @staticmethod
    def forward(ctx, forget: Tensor, candidates: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        cells = torch.empty_like(candidates)
        previous = torch.zeros_like(candidates[0])
        for now in range(candidates.shape[0]):
            torch.lerp(candidates[now], previous, forget[now], out=cells[now])
            previous = cells[now]
        ctx.save_for_backward(forget, candidates, cells)
        return cells

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[no-untyped-def]
        forget, candidates, cells = ctx.saved_tensors
        total = gradient.clone()  # what reaches each cell, from its output and from the next cell
        for now in range(total.shape[0] - 2, -1, -1):
            total[now].addcmul_(total[now + 1], forget[now + 1])
        before = torch.cat([torch.zeros_like(cells[:1]), cells[:-1]])
        return total * (before - candidates), total - total * forget


class SimpleRecurrence(nn.Module):
    """The SSRU itself: one product for gates and candidates of all positions, then the elementwise recurrence."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.packed = Linear(width, 2 * width)
        initialise_blocks(self.packed, (width, width))

    def split(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """(..., D) -> forget gates and candidates, (..., D) each, float32 or wider."""
        gates, candidates = self.packed(inputs).chunk(2, dim=-1)
        wide = torch.promote_types(inputs.dtype, torch.float32)
        return torch.sigmoid(gates.to(wide)), candidates.to(wide)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        forget, candidates = self.split(inputs.transpose(0, 1))  # (T, B, D)
        cells = _Scan.apply(forget, candidates)  # type: ignore[no-untyped-call]
        return torch.relu(cells).transpose(0, 1)

    def step(self, inputs: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """(..., D) and the cell before it -> what goes out and the cell after it."""
        forget, candidates = self.split(inputs)
        cell = torch.lerp(candidates, cell, forget)
        return torch.relu(cell), cell


@dataclass(frozen=True)
class SSRUState:
    """The cells of all layers, (L, N, D) float32."""

    cells: Tensor

    def select(self, rows: Tensor) -> "SSRUState":
        """The hypotheses named by `rows`."""
        return SSRUState(self.cells.index_select(1, rows))


class SSRUDecoder(Decoder[SSRUState]):
    """Decoder of simple recurrent units with cross-attention. It needs no positions: the recurrence knows the order."""

    def __init__(self, config: SSRUDecoderConfig, input_size: int, *, encoder: Encoder) -> None:
        super().__init__()
        self.output_size = config.width
        self.layer_drop = config.layer_drop
        pasts = nn.ModuleList(SimpleRecurrence(config.width) for _ in range(config.layers))
        self.pasts: Sequence[SimpleRecurrence] = pasts  # type: ignore[assignment]
        self.stack = DecoderStack(config, input_size, memory_size=encoder.output_size)

    def project(self, memory: Memory) -> Memory:
        """Memory with the keys and values of all layers."""
        return self.stack.project(memory)

    def start(self, memory: Memory) -> SSRUState:
        """Empty cells, one row per sentence."""
        wide = torch.promote_types(memory.states.dtype, torch.float32)
        return SSRUState(memory.states.new_zeros(len(self.pasts), memory.mask.shape[0], self.output_size, dtype=wide))

    def step(self, inputs: Tensor, state: SSRUState, memory: Memory) -> tuple[Tensor, SSRUState]:
        """(N, E) -> (N, D) and the next state."""
        hidden = self.stack.lift(inputs).view(memory.mask.shape[0], -1, self.output_size)  # (B, W, D)
        cells = list(state.cells.view(len(self.pasts), *hidden.shape).unbind(0))
        mixes = [partial(_step_past, past, cells=cells, layer=layer) for layer, past in enumerate(self.pasts)]
        hidden, _ = self.stack(hidden, mixes, memory=memory)
        return hidden.view(-1, self.output_size), SSRUState(torch.stack(cells).flatten(1, 2))

    def forward(self, inputs: Tensor, memory: Memory, *, with_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """(B, T, E) -> (B, T, D), and the mean of the last layer's weights (B, T, S) if asked for."""
        mixes = [None if not with_attention and skipped(self, self.layer_drop) else past for past in self.pasts]
        return self.stack(self.stack.lift(inputs), mixes, memory=memory, with_attention=with_attention)  # type: ignore[no-any-return]


def _step_past(recurrence: SimpleRecurrence, inputs: Tensor, *, cells: list[Tensor], layer: int) -> Tensor:
    """One step of a layer's recurrence, (B, W, D) -> (B, W, D); its new cell replaces the old one in `cells`."""
    outputs, cells[layer] = recurrence.step(inputs, cells[layer])
    return outputs
