"""The layers that every attending encoder and decoder is made of, and the stack of a decoder.

In: vectors (B, T, D), biases, and the memory's keys. Out: vectors (B, T, D) and, on request, the last layer's weights.

The decision to question: a decoder layer takes the sublayer that looks at the target's past as a function (`mix`). One
layer class then serves the whole pass and the single step of search, and the Transformer as well as the SSRU: in a step
the W hypotheses of a sentence stand where the positions stand in training.
"""

from collections.abc import Callable, Sequence
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from transduce.model.attention import CrossAttention, HeadLayout, MemoryProjection, SelfAttention, initialise_blocks
from transduce.model.interface import Memory
from transduce.model.layers import Activation, Dropout, FeedForward, NormKind, make_norm
from transduce.model.positions import Rotation
from transduce.model.products import Linear
from transduce.settings import Settings


class StackConfig(Settings):
    """What every stack of layers is set by, whatever its layers are; each architecture adds its own."""

    kind: str
    """Which architecture this is."""
    layers: int = Field(default=3, ge=1)
    """Number of layers."""
    width: int = Field(default=256, ge=1)
    """Numbers per position between layers (D), a multiple of `heads`. Inputs of another width are lifted by a linear layer."""
    heads: int = Field(default=4, ge=1)
    """Attention heads (H)."""
    key_value_heads: int | None = Field(default=None, ge=1)
    """Heads of keys and values (G), a divisor of `heads` (grouped queries, Ainslie 2023; 1 = multi-query). Null = as many as `heads`."""
    feed_forward: int = Field(default=1024, ge=1)
    """Inner width of the feed-forward blocks (F)."""
    activation: Activation = "relu"
    """Non-linearity of the feed-forward blocks: relu, gelu, swish, or swiglu (gated, Shazeer 2020; half as many weights again)."""
    norm: NormKind = "layer_norm"
    """layer_norm (Ba 2016) or rms_norm (Zhang & Sennrich 2019)."""
    norm_place: Literal["pre", "post"] = "pre"
    """pre: normalise what enters a sublayer, and the end of the stack (Xiong 2020). post: the sum after each sublayer (Vaswani 2017)."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of each sublayer's output that is zeroed in training."""
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of attention weights that is zeroed in training."""
    activation_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the feed-forward blocks' inner activations that is zeroed in training."""
    layer_drop: float = Field(default=0.0, ge=0, lt=1)
    """Chance that a whole layer is skipped for a training batch (Fan 2020)."""

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        check_heads(self.width, self.heads, self.key_value_heads)
        return self


def check_heads(width: int, heads: int, key_value_heads: int | None) -> None:
    """Raises ValueError where heads do not divide the width, or key/value heads the heads."""
    if width % heads:
        raise ValueError(f"heads {heads} must divide width {width}")
    if key_value_heads is not None and heads % key_value_heads:
        raise ValueError(f"key_value_heads {key_value_heads} must divide heads {heads}")


def head_layout(config: StackConfig) -> HeadLayout:
    """How a configuration splits its width."""
    return HeadLayout(config.width, config.heads, config.key_value_heads or config.heads)


class Residual(nn.Module):
    """Norm, dropout and sum around a sublayer, before or after it."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.pre = config.norm_place == "pre"
        self.norm = make_norm(config.norm, config.width)
        self.dropout = Dropout(config.dropout)

    def before(self, inputs: Tensor) -> Tensor:
        """What the sublayer reads."""
        return self.norm.before_product(inputs) if self.pre else inputs

    def after(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """The sum of what came in and what the sublayer made of it."""
        total = self.dropout.add(inputs, outputs)
        return total if self.pre else self.norm(total)


def feed_forward(config: StackConfig) -> FeedForward:
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
    linear = Linear(input_size, width)
    initialise_blocks(linear, (width,))
    return linear


def skipped(module: nn.Module, rate: float) -> bool:
    """LayerDrop (Fan 2020): whether to leave this layer out now; the CPU generator decides, so no device has to be waited for."""
    return module.training and rate > 0 and float(torch.rand(())) < rate


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each in its residual."""

    def __init__(self, config: StackConfig) -> None:
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
    """A view of the past (given as a function), cross-attention where there is a source, and feed-forward, each in its residual."""

    def __init__(self, config: StackConfig, *, crosses: bool) -> None:
        super().__init__()
        self.past_residual = Residual(config)
        self.cross = CrossAttention(config.width, head_layout(config), dropout=config.attention_dropout) if crosses else None
        self.cross_residual = Residual(config) if crosses else None
        self.feed_forward = feed_forward(config)
        self.feed_forward_residual = Residual(config)

    def forward(
        self, inputs: Tensor, mix: Mix, *, keys: tuple[Tensor, ...], layer: int, with_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """(B, T, D) -> (B, T, D) and the weights over the source (B, T, S) if asked for."""
        hidden, weights = self.past_residual.after(inputs, mix(self.past_residual.before(inputs))), None
        if self.cross is not None and self.cross_residual is not None:
            attended, weights = self.cross(self.cross_residual.before(hidden), keys, layer=layer, with_weights=with_weights)
            hidden = self.cross_residual.after(hidden, attended)
        return self.feed_forward_residual.after(hidden, self.feed_forward(self.feed_forward_residual.before(hidden))), weights


class DecoderStack(nn.Module):
    """All layers of a decoder, without the modules that see the target's past: the decoder owns those.

    A memory of no numbers (memory_size 0, a language model's) has no cross-attention.
    """

    def __init__(self, config: StackConfig, input_size: int, *, memory_size: int) -> None:
        super().__init__()
        self.lift = lift(input_size, config.width)
        self.memory = MemoryProjection(memory_size, head_layout(config), layers=config.layers) if memory_size else None
        self.layers = nn.ModuleList(DecoderLayer(config, crosses=memory_size > 0) for _ in range(config.layers))
        self.norm = make_norm(config.norm, config.width) if config.norm_place == "pre" else nn.Identity()

    def project(self, memory: Memory) -> Memory:
        """Memory with the keys and values of all layers."""
        if self.memory is None:
            return memory
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
