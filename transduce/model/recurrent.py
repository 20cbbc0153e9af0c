"""LSTM and GRU encoders: one or both directions, several layers.

In: vectors (B, S, E) and lengths. Out: `Memory` whose summary holds the last h (and c) of every layer and direction, all of
which Sutskever 2014 hands to the decoder.

The decision to question: rows are neither packed nor sorted. The gate inputs of padding are set so that a cell keeps its
memory there: running forwards c (or h) simply stays what it was at the end of the row, running backwards the padding comes
first and leaves the zero start untouched. Nothing is gathered but the last h of an LSTM.
"""

from collections.abc import Sequence
from typing import Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from transduce.model.interface import Encoder, Memory, real_positions
from transduce.model.layers import Dropout
from transduce.model.recurrent_cells import CELLS, Cell, drop, recurrent_mask, sweep
from transduce.settings import Settings


class RecurrentEncoderConfig(Settings):
    """A stack of LSTM or GRU layers over the source."""

    kind: Literal["lstm", "gru"] = "lstm"
    """The cell: lstm or gru."""
    layers: int = Field(default=1, ge=1)
    """Layers, each over the outputs of the one below."""
    width: int = Field(default=256, ge=1)
    """Hidden units per direction."""
    bidirectional: bool = True
    """Also run from the end to the start; the states are then twice `width` wide."""
    pyramid: int = Field(default=0, ge=0)
    """Layers above the first that join each two neighbouring outputs of the one below, so that each halves the length (Listen, Attend
    and Spell, Chan 2016, 3.1). Below `layers`; 3 makes eight positions one."""
    residual: bool = False
    """Add the input of every layer but the first to its output, where the two are equally wide."""
    layer_norm: bool = False
    """Normalise the outputs of every layer (Ba 2016)."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of the outputs of every layer zeroed in training."""
    variational: bool = False
    """One dropout mask over all positions of a row, also on the fed-back h (Gal & Ghahramani 2016)."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.pyramid >= self.layers:
            raise ValueError(f"pyramid {self.pyramid} needs at least {self.pyramid + 1} layers, the first of which joins nothing")
        return self


class RecurrentEncoder(Encoder):
    """Vectors (B, S, E) to `Memory`.

    >>> encoder = RecurrentEncoder(RecurrentEncoderConfig(kind="lstm", width=20, bidirectional=False), 10)
    >>> memory = encoder(torch.randn(3, 5, 10), torch.tensor([5, 5, 5]))
    >>> tuple(memory.states.shape)
    (3, 5, 20)
    >>> hidden, cell = encoder.final_state(memory)
    >>> tuple(hidden.shape), tuple(cell.shape)
    ((1, 3, 20), (1, 3, 20))
    """

    def __init__(self, config: RecurrentEncoderConfig, input_size: int) -> None:
        super().__init__()
        self.config = config
        num_directions = 2 if config.bidirectional else 1
        self.output_size = num_directions * config.width
        joined = [2 * self.output_size] * config.pyramid
        sizes = [input_size, *joined, *[self.output_size] * (config.layers - 1 - config.pyramid)]
        make = CELLS[config.kind]
        self.layers = nn.ModuleList(RecurrentLayer([make(size, config.width) for _ in range(num_directions)], config) for size in sizes)
        self.summary_size = config.layers * self.output_size * make.num_states

    def forward(self, inputs: Tensor, lengths: Tensor) -> Memory:
        """inputs: (B, S, E), lengths: (B,) -> states (B, S, D), zero at padding; summary (B, C) as `final_state` reads it.

        Each layer of the pyramid halves S and the lengths, rounded up.
        """
        outputs = inputs.transpose(0, 1).contiguous()  # (S, B, E)
        mask, padding = _padding(lengths, len(outputs))
        finals = []
        for number, layer in enumerate(self.layers):
            if 0 < number <= self.config.pyramid:
                outputs, lengths = join_neighbours(outputs, padding), (lengths + 1) // 2  # (S / 2, B, 2 D)
                mask, padding = _padding(lengths, len(outputs))
            outputs, final = layer(outputs, lengths, padding)
            finals.append(final)  # (B, num_states, directions * width)
        states = outputs.transpose(0, 1)  # (B, S, D)
        if padding is not None:
            states = states * mask[:, :, None]
        return Memory(states, mask, torch.stack(finals, dim=2).flatten(1))

    def final_state(self, memory: Memory) -> tuple[Tensor, ...]:
        """The last h, and c for an LSTM, as textbooks and nn.LSTM show them: each (layers * directions, B, width)."""
        num_states = CELLS[self.config.kind].num_states
        parts = memory.summary.view(memory.summary.shape[0], num_states, -1, self.config.width)  # (B, states, L * directions, D)
        return tuple(part.transpose(0, 1) for part in parts.unbind(1))


def _padding(lengths: Tensor, width: int) -> tuple[Tensor, Tensor | None]:
    """-> mask (B, S), True = real, and its opposite (S, B, 1), time first; None where nothing is padded."""
    mask = real_positions(lengths, width)
    return mask, None if bool(mask.all()) else ~mask.t()[:, :, None]


def join_neighbours(outputs: Tensor, padding: Tensor | None) -> Tensor:
    """(S, B, D) -> (S / 2, B, 2 D), each two neighbours behind one another; an odd last one is followed by zeros, as it is in a batch."""
    if padding is not None:
        outputs = outputs.masked_fill(padding, 0)
    length, num_rows, _ = outputs.shape
    even = functional.pad(outputs, (0, 0, 0, 0, 0, length % 2))
    return even.view(-1, 2, num_rows, outputs.shape[2]).transpose(1, 2).flatten(2)


class RecurrentLayer(nn.Module):
    """One layer: a cell per direction, then residual sum, norm and dropout as configured."""

    def __init__(self, cells: list[Cell], config: RecurrentEncoderConfig) -> None:
        super().__init__()
        self.cells = cast(Sequence[Cell], nn.ModuleList(cells))
        size = config.width * len(cells)
        self.residual = config.residual and cells[0].inputs.in_features == size
        self.norm: nn.Module = nn.LayerNorm(size) if config.layer_norm else nn.Identity()
        self.dropout = Dropout(config.dropout, over_time=config.variational)

    def forward(self, inputs: Tensor, lengths: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor]:
        """inputs: (S, B, E) -> outputs (S, B, D), final states (B, num_states, D)."""
        outputs, finals = [], []
        for direction, cell in enumerate(self.cells):
            output, final = self._run(cell, inputs, lengths=lengths, padding=padding, backwards=direction == 1)
            outputs.append(output)
            finals.append(final)
        joined = torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]  # (S, B, D)
        joined = self.norm(inputs + joined if self.residual else joined)
        return drop(self.dropout, joined), torch.cat(finals, dim=2)

    def _run(self, cell: Cell, inputs: Tensor, *, lengths: Tensor, padding: Tensor | None, backwards: bool) -> tuple[Tensor, Tensor]:
        """One direction -> h (S, B, width), final (B, num_states, width) in float32."""
        gates = cell.inputs(inputs)  # (S, B, num_gates * width)
        if padding is not None:
            gates = cell.hold(gates, padding)
        start = cell.zeros(gates[0])
        outputs, state = sweep(cell, gates, start, keep=recurrent_mask(self.dropout, start), backwards=backwards)
        last = state[0]
        if padding is not None and not backwards:
            last = outputs[(lengths - 1).clamp(min=0), torch.arange(len(lengths), device=lengths.device)]  # (B, width)
        return outputs, torch.stack([last.float(), *state[1:]], dim=1)
