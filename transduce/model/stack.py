"""The layers that every attending encoder and decoder is made of, and the stack of a decoder.

In: vectors (B, T, D), biases, and the memory's keys. Out: vectors (B, T, D) and, on request, the last layer's weights.

The decision to question: a decoder layer takes the sublayer that looks at the target's past as a function (`mix`). One
layer class then serves the whole pass and the single step of search, and the Transformer as well as the SSRU: in a step
the W hypotheses of a sentence stand where the positions stand in training.
"""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from transduce.model.attention import CrossAttention, HeadLayout, MemoryProjection, SelfAttention, initialise_blocks
from transduce.model.interface import Memory
from transduce.model.layers import Activation, Dropout, FeedForward, NormKind, make_norm
from transduce.model.positions import Rotation


class StackShape(Protocol):
    """What a stack of layers reads of a configuration, whatever architecture it belongs to."""

    @property
    def layers(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def key_value_heads(self) -> int | None: ...
    @property
    def feed_forward(self) -> int: ...
    @property
    def activation(self) -> Activation: ...
    @property
    def norm(self) -> NormKind: ...
    @property
    def norm_place(self) -> Literal["pre", "post"]: ...
    @property
    def dropout(self) -> float: ...
    @property
    def attention_dropout(self) -> float: ...
    @property
    def activation_dropout(self) -> float: ...
    @property
    def layer_drop(self) -> float: ...


def check_heads(width: int, heads: int, key_value_heads: int | None) -> None:
    """Raises ValueError where heads do not divide the width, or key/value heads the heads."""
    if width % heads:
        raise ValueError(f"heads {heads} must divide width {width}")
    if key_value_heads is not None and heads % key_value_heads:
        raise ValueError(f"key_value_heads {key_value_heads} must divide heads {heads}")


def head_layout(config: StackShape) -> HeadLayout:
    """How a configuration splits its width."""
    return HeadLayout(config.width, config.heads, config.key_value_heads or config.heads)


class Residual(nn.Module):
    """Norm, dropout and sum around a sublayer, before or after it."""

    def __init__(self, config: StackShape) -> None:
        super().__init__()
        self.pre = config.norm_place == "pre"
        self.norm = make_norm(config.norm, config.width)
        self.dropout = Dropout(config.dropout)

    def before(self, inputs: Tensor) -> Tensor:
        """What the sublayer reads."""
        return self.norm(inputs) if self.pre else inputs

    def after(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """The sum of what came in and what the sublayer made of it."""
        total = inputs + self.dropout(outputs)
        return total if self.pre else self.norm(total)  # type: ignore[no-any-return]


def feed_forward(config: StackShape) -> FeedForward:
    """The feed-forward block of a configuration, Xavier-initialised (a gated one as two matrices)."""
    inner = config.feed_forward
    block = FeedForward(config.width, inner, activation=config.activation, dropout=config.activation_dropout)
    initialise_blocks(block.inner, (inner,) * (block.inner.out_features // inner))
    initialise_blocks(block.outer, (config.width,))
    return block


def lift(input_size: int, width: int) -> nn.Module:
    """A linear layer where the embedding is not as wide as the stack."""
    if input_size == width:
        return nn.Identity()
    linear = nn.Linear(input_size, width)
    initialise_blocks(linear, (width,))
    return linear


def skipped(module: nn.Module, rate: float) -> bool:
    """LayerDrop (Fan 2020): whether to leave this layer out now; the CPU generator decides, so no device has to be waited for."""
    return module.training and rate > 0 and float(torch.rand(())) < rate


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each in its residual."""

    def __init__(self, config: StackShape) -> None:
        super().__init__()
        self.attention = SelfAttention(head_layout(config), dropout=config.attention_dropout)
        self.attention_residual = Residual(config)
        self.feed_forward = feed_forward(config)
        self.feed_forward_residual = Residual(config)

    def forward(self, inputs: Tensor, *, bias: Tensor | None, rotation: Rotation | None) -> Tensor:
        """(B, S, D) -> (B, S, D)."""
        attended = self.attention(self.attention_residual.before(inputs), bias=bias, rotation=rotation)
        hidden = self.attention_residual.after(inputs, attended)
        return self.feed_forward_residual.after(hidden, self.feed_forward(self.feed_forward_residual.before(hidden)))


Mix = Callable[[Tensor], Tensor]
"""The sublayer that sees the target's past, bound to what it needs: (B, T, D) -> (B, T, D)."""


class DecoderLayer(nn.Module):
    """A view of the past (given as a function), cross-attention and feed-forward, each in its residual."""

    def __init__(self, config: StackShape) -> None:
        super().__init__()
        self.past_residual = Residual(config)
        self.cross = CrossAttention(config.width, head_layout(config), dropout=config.attention_dropout)
        self.cross_residual = Residual(config)
        self.feed_forward = feed_forward(config)
        self.feed_forward_residual = Residual(config)

    def forward(
        self, inputs: Tensor, mix: Mix, *, keys: tuple[Tensor, ...], layer: int, with_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """(B, T, D) -> (B, T, D) and the weights over the source (B, T, S) if asked for."""
        hidden = self.past_residual.after(inputs, mix(self.past_residual.before(inputs)))
        attended, weights = self.cross(self.cross_residual.before(hidden), keys, layer=layer, with_weights=with_weights)
        hidden = self.cross_residual.after(hidden, attended)
        return self.feed_forward_residual.after(hidden, self.feed_forward(self.feed_forward_residual.before(hidden))), weights


class DecoderStack(nn.Module):
    """All layers of a decoder with cross-attention, without the modules that see the target's past: the decoder owns those."""

    def __init__(self, config: StackShape, input_size: int, *, memory_size: int) -> None:
        super().__init__()
        self.lift = lift(input_size, config.width)
        self.memory = MemoryProjection(memory_size, head_layout(config), layers=config.layers)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.norm = make_norm(config.norm, config.width) if config.norm_place == "pre" else nn.Identity()

    def project(self, memory: Memory) -> Memory:
        """Memory with the keys and values of all layers."""
        return Memory(memory.states, memory.mask, memory.summary, self.memory(memory.states, memory.mask))

    def forward(
        self, hidden: Tensor, mixes: Sequence[Mix | None], *, memory: Memory, with_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """(B, T, D) through all layers (None leaves one out) -> (B, T, D) and the last layer's weights (B, T, S) if asked for."""
        weights: Tensor | None = None
        last = len(self.layers) - 1
        for number, (layer, mix) in enumerate(zip(self.layers, mixes, strict=True)):
            if mix is not None:
                hidden, weights = layer(hidden, mix, keys=memory.keys, layer=number, with_weights=with_attention and number == last)
        return self.norm(hidden), weights
