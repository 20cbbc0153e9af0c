"""The Transformer (Vaswani 2017) with the options that came after it.

In: embedded tokens (B, S, E) and lengths, or (B, T, E) and `Memory`. Out: `Memory`, or hidden states (B, T, D).

The decision to question: a decoder whose keys and values live in one tensor for all layers, so that search reorders its
hypotheses by one copy, and written in place, so that a step copies nothing (see `KeyValueCache` for why that is safe).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from transduce.model.attention import KeyValueCache, SelfAttention, bias_dtype, causal_bias, padding_bias
from transduce.model.interface import Decoder, Encoder, Memory, memory_with_mean, real_positions
from transduce.model.layers import make_norm
from transduce.model.positions import (
    LearnedPositions,
    PositionKind,
    RelativePositions,
    RotaryPositions,
    Rotation,
    SinusoidalPositions,
)
from transduce.model.products import compute_dtype
from transduce.model.stack import DecoderStack, EncoderLayer, StackConfig, head_layout, lift, skipped


class TransformerConfig(StackConfig):
    """A stack of Transformer layers, of an encoder or of a decoder."""

    kind: Literal["transformer"] = "transformer"
    """Which architecture this is."""
    positions: PositionKind = "sinusoidal"
    """sinusoidal (Vaswani 2017), learned (see `max_positions`), rope (Su 2021), relative (a bias per head and distance, Raffel 2020),
    none (where the front-end has placed its vectors already, as those of pictures do)."""
    max_positions: int = Field(default=1024, ge=1)
    """Longest sequence in tokens for learned positions; the other kinds have no limit."""
    relative_buckets: int = Field(default=32, ge=4, multiple_of=4)
    """Distances that relative positions tell apart, half of them in each direction for an encoder."""
    relative_max_distance: int = Field(default=128, ge=2)
    """Distance in tokens beyond which relative positions make no difference; more than half of `relative_buckets`."""

    @model_validator(mode="after")
    def _positions_fit(self) -> Self:
        check_positions(self)
        return self


TransformerEncoderConfig = TransformerConfig
TransformerDecoderConfig = TransformerConfig


class PositionShape(Protocol):
    """What positions read of a configuration, whatever architecture it belongs to."""

    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def positions(self) -> PositionKind: ...
    @property
    def max_positions(self) -> int: ...
    @property
    def relative_buckets(self) -> int: ...
    @property
    def relative_max_distance(self) -> int: ...


def check_positions(config: PositionShape) -> None:
    """Raises ValueError where the kind of positions does not fit the heads, or the buckets the distance."""
    if config.positions == "rope" and config.width // config.heads % 2:
        width, heads = config.width, config.heads
        raise ValueError(f"positions rope needs an even head width, but {width} / {heads} heads = {width // heads}")
    if config.relative_max_distance <= config.relative_buckets // 2:
        raise ValueError(
            f"relative_max_distance {config.relative_max_distance} must exceed half of relative_buckets, {config.relative_buckets // 2}"
        )


class Positions(nn.Module):
    """The chosen kind of positions behind one face: each of the three methods does something for its kinds only."""

    def __init__(self, config: PositionShape, *, both_ways: bool) -> None:
        super().__init__()
        kind = config.positions
        self.added: nn.Module | None = None
        if kind == "sinusoidal":
            self.added = SinusoidalPositions(config.width)
        elif kind == "learned":
            self.added = LearnedPositions(config.width, config.max_positions)
        self.rotary = RotaryPositions(config.width // config.heads) if kind == "rope" else None
        self.relative: RelativePositions | None = None
        if kind == "relative":
            buckets, distance = config.relative_buckets, config.relative_max_distance
            self.relative = RelativePositions(config.heads, buckets=buckets, max_distance=distance, both_ways=both_ways)

    def add(self, inputs: Tensor, start: int = 0) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return inputs if self.added is None else self.added(inputs, start)

    def rotation(self, inputs: Tensor, start: int = 0) -> Rotation | None:
        """Angles for self-attention over inputs (B, T, D)."""
        return None if self.rotary is None else self.rotary(inputs, start)

    def bias(self, inputs: Tensor, start: int = 0) -> Tensor | None:
        """(1, H, T, start + T) for the self-attention scores of inputs (B, T, D)."""
        return None if self.relative is None else self.relative(start, inputs.shape[1]).to(bias_dtype(inputs))


class TransformerEncoder(Encoder):
    """Transformer encoder."""

    def __init__(self, config: TransformerConfig, input_size: int) -> None:
        super().__init__()
        self.output_size = self.summary_size = config.width
        self.layer_drop = config.layer_drop
        self.layout = head_layout(config)
        self.lift = lift(input_size, config.width)
        self.positions = Positions(config, both_ways=True)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.norm = make_norm(config.norm, config.width) if config.norm_place == "pre" else nn.Identity()

    def forward(self, inputs: Tensor, lengths: Tensor) -> Memory:
        """(B, S, E), (B,) -> Memory with states (B, S, D) and summary (B, D)."""
        mask = real_positions(lengths, inputs.shape[1])
        states = self.positions.add(self.lift(inputs))
        bias = padding_bias(mask, states)
        relative = self.positions.bias(states)
        bias = bias if relative is None else bias + relative  # (B, H or 1, S or 1, S)
        rotation = self.positions.rotation(states)
        for layer in self.layers:
            if not skipped(self, self.layer_drop):
                states = layer(states, bias=bias, rotation=rotation)
        return memory_with_mean(self.norm(states), mask)


@dataclass(frozen=True)
class TransformerState:
    """Keys and values of the positions so far, and how many there are."""

    cache: KeyValueCache
    position: int

    def select(self, rows: Tensor) -> "TransformerState":
        """The hypotheses named by `rows`."""
        return TransformerState(self.cache.select(rows), self.position)


class TransformerDecoder(Decoder[TransformerState]):
    """Transformer decoder with a preallocated key/value cache for search."""

    def __init__(self, config: TransformerConfig, input_size: int, *, encoder: Encoder) -> None:
        super().__init__()
        self.output_size = config.width
        self.layer_drop = config.layer_drop
        self.layout = head_layout(config)
        self.positions = Positions(config, both_ways=False)
        pasts = nn.ModuleList(SelfAttention(self.layout, dropout=config.attention_dropout) for _ in range(config.layers))
        self.pasts: Sequence[SelfAttention] = pasts  # type: ignore[assignment]
        self.stack = DecoderStack(config, input_size, memory_size=encoder.output_size)

    def project(self, memory: Memory) -> Memory:
        """Memory with the keys and values of all layers."""
        return self.stack.project(memory)

    def start(self, memory: Memory) -> TransformerState:
        """No positions yet, one row per sentence."""
        cache = KeyValueCache.empty(memory.mask.shape[0], self.layout, layers=len(self.pasts), like=memory.states)
        return TransformerState(cache, 0)

    def step(self, inputs: Tensor, state: TransformerState, memory: Memory) -> tuple[Tensor, TransformerState]:
        """(N, E) -> (N, D) and the next state."""
        position, num_sentences = state.position, memory.mask.shape[0]
        hidden = self.positions.add(self.stack.lift(inputs[:, None, :]), position)  # (N, 1, D)
        cache = state.cache.opened(position, compute_dtype(hidden))
        bias, rotation = self.positions.bias(hidden, position), self.positions.rotation(hidden, position)
        hidden = hidden.view(num_sentences, -1, self.output_size)  # (B, W, D)
        mixes = [partial(_step_past, past, cache=cache, layer=layer, bias=bias, rotation=rotation) for layer, past in enumerate(self.pasts)]
        hidden, _ = self.stack(hidden, mixes, memory=memory)
        return hidden.view(-1, self.output_size), TransformerState(cache, position + 1)

    def forward(self, inputs: Tensor, memory: Memory, *, with_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """(B, T, E) -> (B, T, D), and the mean of the last layer's weights (B, T, S) if asked for."""
        hidden = self.positions.add(self.stack.lift(inputs))
        bias = causal_bias(inputs.shape[1], hidden)
        relative = self.positions.bias(hidden)
        bias = bias if relative is None else bias + relative  # (1, H or 1, T, T)
        rotation = self.positions.rotation(hidden)
        mixes = [
            None if not with_attention and skipped(self, self.layer_drop) else partial(past, bias=bias, rotation=rotation)
            for past in self.pasts
        ]
        return self.stack(hidden, mixes, memory=memory, with_attention=with_attention)  # type: ignore[no-any-return]


def _step_past(
    attention: SelfAttention, inputs: Tensor, *, cache: KeyValueCache, layer: int, bias: Tensor | None, rotation: Rotation | None
) -> Tensor:
    """Self-attention of the newest position, hypotheses regrouped: (B, W, D) -> (B, W, D)."""
    rows = inputs.reshape(-1, 1, inputs.shape[2])  # (N, 1, D)
    return attention.step(rows, cache=cache, layer=layer, bias=bias, rotation=rotation).view(inputs.shape)
