"""LSTM and GRU decoders with no attention (Sutskever 2014, Cho 2014), Bahdanau's (2015) or Luong's (2015).

In: embedded previous tokens and `Memory`. Out: hidden states for the head. Three ways to run, chosen once by the
configuration: `_run_free` (no attention, or attention that the cell never sees), `_run_before` (Bahdanau: the context of the
previous state enters the cell) and `_run_feeding` (Luong's input feeding: the attentional vector enters the next step).

The decision to question: each way is written for (T, N, E) with a state going in and out; teacher forcing is T steps of one
hypothesis per sentence, a step of a search is T = 1 of W hypotheses per sentence. What no recurrence needs (gate inputs of
all embeddings, upper layers of Bahdanau's decoder, the readout) is one product over all T.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from transduce.errors import ConfigError
from transduce.model.interface import Decoder, Encoder, Memory
from transduce.model.layers import Dropout
from transduce.model.location_attention import LocationAttention
from transduce.model.products import Linear
from transduce.model.recurrent_attention import (
    AdditiveAttention,
    ContextGate,
    MultiHeadAttention,
    ProductAttention,
    Reader,
    RecurrentAttention,
)
from transduce.model.recurrent_cells import CELLS, Cell, CellState, drop, initialise_gates, recurrent_mask, sweep
from transduce.model.shared_products import Shared
from transduce.settings import Settings


class RecurrentDecoderConfig(Settings):
    """A stack of LSTM or GRU layers that writes the target, with or without attention."""

    kind: Literal["lstm", "gru"] = "lstm"
    """The cell: lstm or gru."""
    layers: int = Field(default=1, ge=1)
    """Layers, each over the outputs of the one below."""
    width: int = Field(default=256, ge=1)
    """Hidden units."""
    attention: Literal["none", "additive", "location", "dot", "general", "multihead"] = "additive"
    """How the decoder looks at the source; location = additive that also sees where it looked last (Chorowski 2015, for speech); none =
    only the fixed context vector (Sutskever 2014)."""
    attend: Literal["before", "after"] | None = None
    """Attention before the cell, asked by the previous state (Bahdanau 2015), or after it (Luong 2015). Unset: before if additive
    or location."""
    input_feeding: bool = True
    """With attention after the cell: feed the attentional vector to the next step (Luong 2015, 3.3). Without it training is faster."""
    attention_size: int = Field(default=256, ge=1)
    """Width of the hidden layer of additive and location attention."""
    location_filters: int = Field(default=10, ge=1)
    """Of location attention: convolutions of the last weights (Chorowski 2015 used 10)."""
    location_kernel: int = Field(default=31, ge=1)
    """Of location attention: positions that such a convolution sees (Chorowski 2015 used 201 over positions of 10 ms)."""
    heads: int = Field(default=4, ge=1)
    """Heads of multihead attention; must divide `width`."""
    gate: bool = False
    """Multiply each context by a number between 0 and 1 that the asking state decides (Xu 2015, 4.2.1), so that a word may look away."""
    deep_output: Literal["tanh", "maxout"] = "tanh"
    """The layer over state, context and embedding when attention comes before the cell (Bahdanau 2015 used maxout)."""
    bridge: Literal["dense", "copy", "zero"] = "dense"
    """First state from the encoder's summary: a learned layer, the encoder's final state itself (sizes must agree), or zeros."""
    feed_summary: bool = False
    """Feed the summary of the source at every step too (Cho 2014)."""
    residual: bool = False
    """Add the input of every layer but the first to its output."""
    layer_norm: bool = False
    """Normalise the outputs of every layer (Ba 2016)."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of the outputs of every layer, and of the decoder's output, zeroed in training."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the attention weights zeroed in training."""
    variational: bool = False
    """One dropout mask over all positions of a row, also on the fed-back h (Gal & Ghahramani 2016)."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.attention == "multihead" and self.width % self.heads:
            raise ValueError(f"heads {self.heads} must divide width {self.width}")
        if self.attention == "location" and self.attend == "after" and not self.input_feeding:
            raise ValueError("attention location follows its own steps: use attend before, or input_feeding true")
        if self.gate and self.attention == "none":
            raise ValueError("gate true needs attention: there is no context to multiply; allowed with attention none: gate false")
        return self

    def place(self) -> Literal["none", "before", "after"]:
        """Where attention stands, with the default worked out."""
        if self.attention == "none":
            return "none"
        return self.attend or ("before" if self.attention in ("additive", "location") else "after")


@dataclass(frozen=True)
class RecurrentState:
    """What N hypotheses remember. layers: per layer (h, c) or (h,), each (N, D). feed: (N, D) the last attentional vector, or None.
    looked: (N, S) the last attention weights where the attention follows them, or None."""

    layers: tuple[CellState, ...]
    feed: Tensor | None
    looked: Tensor | None = None

    def select(self, rows: Tensor) -> "RecurrentState":
        """The hypotheses named by `rows`."""
        layers = tuple(tuple(part.index_select(0, rows) for part in layer) for layer in self.layers)
        feed, looked = (None if part is None else part.index_select(0, rows) for part in (self.feed, self.looked))
        return RecurrentState(layers, feed, looked)


Run = tuple[Tensor, Tensor | None, RecurrentState]
"""Outputs (T, N, D), attention weights (B, T * W, S) or None, and the state after the last step."""


class RecurrentDecoder(Decoder[RecurrentState]):
    """Embedded previous tokens (B, T, E) and `Memory` of any encoder to hidden states (B, T, width)."""

    def __init__(self, config: RecurrentDecoderConfig, input_size: int, *, encoder: Encoder) -> None:
        super().__init__()
        self.config = config
        self.output_size = width = config.width
        self.place = config.place()
        make = CELLS[config.kind]
        self.num_states = make.num_states
        self.attention = _attention(config, encoder)
        self.gate = ContextGate(width) if config.gate else None
        context_size = 0 if self.attention is None else self.attention.context_size
        beside = context_size if self.place == "before" else 0
        cells = (make(input_size if layer == 0 else width + beside, width) for layer in range(config.layers))
        self.cells = cast(Sequence[Cell], nn.ModuleList(cells))
        norms = (nn.LayerNorm(width) if config.layer_norm else nn.Identity() for _ in range(config.layers))
        self.norms = cast(Sequence[nn.Module], nn.ModuleList(norms))
        self.dropout = Dropout(config.dropout, over_time=config.variational)
        self.feeding = self.place == "after" and config.input_feeding
        back_size = width if self.feeding else beside
        self.back = _gate_weight(back_size, make.num_gates, width)
        self.summary_input = Linear(encoder.summary_size, make.num_gates * width, bias=False) if config.feed_summary else None
        self.bridge = _bridge(config, encoder.summary_size, self.num_states)
        self.readout = _readout(config, context_size, input_size)
        if self.summary_input is not None:
            initialise_gates(self.summary_input.weight, make.num_gates)

    def project(self, memory: Memory) -> Memory:
        """Fill `keys`: those of the attention, then, if the summary is fed, its gate inputs (B, num_gates * D)."""
        keys = () if self.attention is None else self.attention.project(memory)
        return replace(memory, keys=keys if self.summary_input is None else (*keys, self.summary_input(memory.summary)))

    def start(self, memory: Memory) -> RecurrentState:
        """The first state from the summary, one row per sentence."""
        num_rows, num_layers, width = len(memory.summary), len(self.cells), self.config.width
        match self.config.bridge:
            case "zero":
                parts = memory.summary.new_zeros(num_rows, self.num_states, num_layers, width, dtype=torch.float32)
            case "copy":
                parts = memory.summary.float().view(num_rows, self.num_states, num_layers, width)
            case "dense":
                parts = self.bridge(memory.summary).float().view(num_rows, self.num_states, num_layers, width)
                parts = torch.cat([torch.tanh(parts[:, :1]), parts[:, 1:]], dim=1)  # h is bounded, c is not
        layers = tuple(tuple(parts[:, kind, layer] for kind in range(self.num_states)) for layer in range(num_layers))
        follows = self.attention is not None and self.attention.follows
        looked = parts.new_zeros(memory.mask.shape) if follows else None
        return RecurrentState(layers, parts.new_zeros(num_rows, width) if self.feeding else None, looked)

    def step(self, inputs: Tensor, state: RecurrentState, memory: Memory) -> tuple[Tensor, RecurrentState]:
        """inputs: (N, E) -> hidden (N, D) and the next state."""
        outputs, _, state = self._run(inputs[None], state, memory, with_weights=False)
        return outputs[0], state

    def forward(self, inputs: Tensor, memory: Memory, *, with_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """inputs: (B, T, E) -> hidden (B, T, D) and, on request, weights (B, T, S); None without attention."""
        outputs, weights, _ = self._run(inputs.transpose(0, 1).contiguous(), self.start(memory), memory, with_weights=with_attention)
        return outputs.transpose(0, 1), weights if with_attention else None

    def _run(self, inputs: Tensor, state: RecurrentState, memory: Memory, *, with_weights: bool) -> Run:
        """inputs: (T, N, E), N = B * W hypotheses grouped by sentence."""
        gates = self.cells[0].inputs(inputs)  # (T, N, num_gates * D)
        if self.summary_input is not None:
            by_sentence = gates.view(len(gates), len(memory.summary), -1, gates.shape[2])  # (T, B, W, num_gates * D)
            gates = (by_sentence + memory.keys[-1][:, None]).view_as(gates)
        if self.feeding:
            return self._run_feeding(gates, state, memory=memory, with_weights=with_weights)
        if self.place == "before":
            return self._run_before(inputs, gates, state=state, memory=memory, with_weights=with_weights)
        return self._run_free(gates, state, memory=memory, with_weights=with_weights)

    def _run_free(self, gates: Tensor, state: RecurrentState, *, memory: Memory, with_weights: bool) -> Run:
        """All layers over all T at once, then attention (if any) for all positions in one product."""
        keep = recurrent_mask(self.dropout, state.layers[0])
        outputs, first = sweep(self.cells[0], gates, state.layers[0], keep=keep)
        outputs, state = self._climb(outputs, (first, *state.layers[1:]), context=None)
        weights = None
        if self.attention is not None and self.readout is not None:
            num_steps, num_hypotheses, width = outputs.shape
            num_rows = len(memory.mask)
            queries = outputs.view(num_steps, num_rows, -1, width).transpose(0, 1).reshape(num_rows, -1, width)  # (B, T * W, D)
            context, weights = self._reader(memory, with_weights)(queries, None)
            context = context.view(num_rows, num_steps, -1, context.shape[2]).transpose(0, 1).reshape(num_steps, num_hypotheses, -1)
            outputs = torch.tanh(self.readout(torch.cat([outputs, context], dim=2)))  # (T, N, D)
        return drop(self.dropout, outputs), weights, state

    def _run_before(self, inputs: Tensor, gates: Tensor, *, state: RecurrentState, memory: Memory, with_weights: bool) -> Run:
        """Bahdanau: the first layer's previous state asks, and the context enters all layers (as in Wu 2016)."""
        assert self.back is not None and self.readout is not None  # made where attention comes before the cell
        cell, first = self.cells[0], state.layers[0]
        read, back, recurrent = self._reader(memory, with_weights), Shared(self.back.t()), cell.share()
        keep = recurrent_mask(self.dropout, first)
        num_rows, num_hypotheses = len(memory.mask), gates.shape[1]
        looked = _grouped(state.looked, num_rows)
        outputs, contexts, weights = [], [], []
        for step_gates in gates.unbind(0):
            context, weight = read(first[0].view(num_rows, -1, self.config.width), looked)  # (B, W, D), (B, W, S)
            looked = None if looked is None else weight
            context = context.reshape(num_hypotheses, -1)
            first = cell.advance(back.product(context, added=step_gates), first, recurrent, keep)
            outputs.append(first[0])
            contexts.append(context)
            weights.append(weight)
        context = torch.stack(contexts)  # (T, N, context_size)
        top, state = self._climb(torch.stack(outputs), (first, *state.layers[1:]), context=context)
        deep = self.readout(torch.cat([top, context, inputs.to(context.dtype)], dim=2))
        outputs_all = torch.tanh(deep) if self.config.deep_output == "tanh" else deep.unflatten(2, (-1, 2)).amax(dim=3)
        return drop(self.dropout, outputs_all), _join(weights, with_weights), replace(state, looked=_flat(looked))

    def _run_feeding(self, gates: Tensor, state: RecurrentState, *, memory: Memory, with_weights: bool) -> Run:
        """Luong: attention after the top layer; the attentional vector enters the first layer of the next step."""
        assert self.back is not None and self.readout is not None  # made where the attentional vector is fed
        num_rows, num_hypotheses, width = len(memory.mask), gates.shape[1], self.config.width
        read, back, readout = self._reader(memory, with_weights), Shared(self.back.t()), Shared(self.readout.weight.t())
        advance = self._step_of_all_layers(state, num_steps=len(gates))
        layers, feed, looked = state.layers, state.feed, _grouped(state.looked, num_rows)
        outputs, weights = [], []
        for index, step_gates in enumerate(gates.unbind(0)):
            assert feed is not None  # `start` makes it wherever it is fed
            top, layers = advance(back.product(feed, added=step_gates), layers, index)
            context, weight = read(top.view(num_rows, -1, width), looked)  # (B, W, context_size), (B, W, S)
            looked = None if looked is None else weight
            feed = torch.tanh(readout.product(torch.cat([top, context.reshape(num_hypotheses, -1).to(top.dtype)], dim=1)))  # (N, D)
            outputs.append(feed)
            weights.append(weight)
        return drop(self.dropout, torch.stack(outputs)), _join(weights, with_weights), RecurrentState(layers, feed, _flat(looked))

    def _step_of_all_layers(
        self, state: RecurrentState, *, num_steps: int
    ) -> Callable[[Tensor, tuple[CellState, ...], int], tuple[Tensor, tuple[CellState, ...]]]:
        """-> a function (gate inputs of layer 0, states, number of the step) -> (output of the top layer, next states)."""
        recurrents = [cell.share() for cell in self.cells]
        inputs = [Shared(cell.inputs.weight.t()) for cell in self.cells]
        keeps = [recurrent_mask(self.dropout, layer) for layer in state.layers]
        masks = [self._step_masks(state, num_steps) for _ in range(len(self.cells) - 1)]

        def advance(gates: Tensor, layers: tuple[CellState, ...], index: int) -> tuple[Tensor, tuple[CellState, ...]]:
            following, outputs = [], gates
            for layer, cell in enumerate(self.cells):
                if layer:
                    gates = inputs[layer].product(outputs, added=cell.inputs.bias.expand(len(outputs), -1))
                following.append(cell.advance(gates, layers[layer], recurrents[layer], keeps[layer]))
                below, outputs = outputs, following[-1][0]
                outputs = self.norms[layer](below + outputs if layer and self.config.residual else outputs)
                mask = masks[layer] if layer < len(masks) else None
                outputs = outputs if mask is None else outputs * mask[index]
            return outputs, tuple(following)

        return advance

    def _step_masks(self, state: RecurrentState, num_steps: int) -> Tensor | None:
        """(T, N, D): dropout of all steps drawn at once, None where nothing is dropped."""
        if not (self.dropout.training and self.dropout.threshold):
            return None
        hidden = state.layers[0][0]
        return drop(self.dropout, torch.ones_like(hidden.detach()).expand(num_steps, -1, -1))

    def _climb(self, outputs: Tensor, layers: tuple[CellState, ...], *, context: Tensor | None) -> tuple[Tensor, RecurrentState]:
        """Finish layer 0 and run the upper layers over (T, N, D), each also seeing `context` (T, N, C) if given."""
        outputs = self.norms[0](outputs)
        following = [layers[0]]
        for cell, norm, state in zip(self.cells[1:], self.norms[1:], layers[1:], strict=True):
            below = drop(self.dropout, outputs)
            seen = below if context is None else torch.cat([below, context.to(below.dtype)], dim=2)
            outputs, state = sweep(cell, cell.inputs(seen), state, keep=recurrent_mask(self.dropout, state))
            outputs = norm(below + outputs if self.config.residual else outputs)
            following.append(state)
        return outputs, RecurrentState(tuple(following), None)

    def _reader(self, memory: Memory, with_weights: bool) -> Reader:
        """The attention over this memory, its contexts gated where that is wanted."""
        assert self.attention is not None  # asked only where there is one
        keys = memory.keys if self.summary_input is None else memory.keys[:-1]
        read = self.attention.reader(keys, with_weights=with_weights)
        return read if self.gate is None else self.gate.reader(read)


def _attention(config: RecurrentDecoderConfig, encoder: Encoder) -> RecurrentAttention | None:
    """The attention part that the configuration names."""
    query_size, memory_size, dropout = config.width, encoder.output_size, config.attention_dropout
    match config.attention:
        case "none":
            return None
        case "additive":
            return AdditiveAttention(query_size, memory_size, size=config.attention_size, dropout=dropout)
        case "location":
            filters, kernel = config.location_filters, config.location_kernel
            return LocationAttention(query_size, memory_size, size=config.attention_size, filters=filters, kernel=kernel, dropout=dropout)
        case "dot" | "general":
            return ProductAttention(query_size, memory_size, learned=config.attention == "general", dropout=dropout)
        case "multihead":
            return MultiHeadAttention(query_size, memory_size, heads=config.heads, dropout=dropout)


def _gate_weight(input_size: int, num_gates: int, width: int) -> nn.Parameter | None:
    """(num_gates * D, input_size): the weight of what comes back into layer 0, None for nothing."""
    if not input_size:
        return None
    weight = nn.Parameter(torch.empty(num_gates * width, input_size))
    initialise_gates(weight, num_gates)
    return weight


def _bridge(config: RecurrentDecoderConfig, summary_size: int, num_states: int) -> nn.Module:
    """The learned layer from the summary to the first state; the identity where none is wanted."""
    wanted = num_states * config.layers * config.width
    if config.bridge == "copy" and summary_size != wanted:
        raise ConfigError(
            f"model.decoder.bridge: copy needs a summary of the source with {wanted} numbers (cell, layers and width as in the encoder), "
            f"this encoder gives {summary_size}; allowed here: dense, zero"
        )
    if config.bridge != "dense":
        return nn.Identity()
    bridge = Linear(summary_size, wanted)
    nn.init.xavier_uniform_(bridge.weight)
    nn.init.zeros_(bridge.bias)
    return bridge


def _readout(config: RecurrentDecoderConfig, context_size: int, input_size: int) -> nn.Linear | None:
    """The layer between the top cell and the head: Bahdanau's deep output, Luong's attentional vector, or none."""
    place = config.place()
    if place == "none":
        return None
    if place == "after":
        readout = Linear(config.width + context_size, config.width, bias=False)
    else:
        pieces = 2 if config.deep_output == "maxout" else 1
        readout = Linear(config.width + context_size + input_size, pieces * config.width)
        nn.init.zeros_(readout.bias)
    nn.init.xavier_uniform_(readout.weight)
    return readout


def _grouped(rows: Tensor | None, num_rows: int) -> Tensor | None:
    """(N, S) -> (B, W, S)."""
    return None if rows is None else rows.view(num_rows, -1, rows.shape[1])


def _flat(rows: Tensor | None) -> Tensor | None:
    """(B, W, S) -> (N, S)."""
    return None if rows is None else rows.flatten(0, 1)


def _join(weights: list[Tensor | None], wanted: bool) -> Tensor | None:
    """Weights of T steps (B, W, S) each -> (B, T * W, S), None if not wanted."""
    given = [weight for weight in weights if weight is not None]
    return torch.cat(given, dim=1) if wanted and given else None
