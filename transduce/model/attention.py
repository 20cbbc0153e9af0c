"""Scaled dot-product attention with several heads (Vaswani 2017, 3.2), over the sequence itself and over the memory.

In: vectors (B, T, D) and additive biases that were made once per forward. Out: vectors (B, T, D) and, on request, weights.
Keys and values may have fewer heads than the queries (grouped-query attention, Ainslie 2023): the R = H / G query heads of
a group are laid behind one another as if they were more query positions, so nothing is ever repeated in memory.

The decision to question: on a CPU `Attend` mostly runs two batched products and a softmax instead of torch's fused kernel.
The fused backward is slow there in bfloat16, and dropout of the weights or a learned bias switches the fusion off anyway.
The softmax is done in float32 there, not for precision alone: torch's bfloat16 softmax and its backward take 3 and 10 times
as long. Biases are therefore float32 on a CPU.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from transduce.model.fused import attention_weights, fuses
from transduce.model.layers import Dropout
from transduce.model.padded import with_room
from transduce.model.positions import Rotation, rotate
from transduce.model.products import Linear, compute_dtype

FUSED_FROM_KEYS = 64
"""Keys from which torch's fused kernel is faster on a CPU than separate products, in float32, where there are many queries."""
FEW_QUERIES = 8
"""Queries of a row up to which separate products are faster in a float32 step of search, whatever the number of keys."""
FUSED_FROM_KEYS_BFLOAT16 = 512
"""The same in bfloat16, with or without gradients."""
FEW_SCORES = 256
"""Scores (B * T * S) up to which one call of the fused kernel beats several calls in a step of search."""

VECTOR = 16
"""Length of a row from which torch's softmax uses vector instructions: 1,280 rows of 15 take 12 times as long as rows of 16 (measured)."""
CACHE_CHUNK = 16
"""Positions by which a key/value cache grows."""


@dataclass(frozen=True)
class HeadLayout:
    """How attention splits its width: H query heads and G key/value heads of K = width / H numbers each."""

    width: int
    heads: int
    key_value_heads: int

    @property
    def head_width(self) -> int:
        """K."""
        return self.width // self.heads

    @property
    def query_size(self) -> int:
        """H * K."""
        return self.width

    @property
    def key_size(self) -> int:
        """G * K."""
        return self.key_value_heads * self.head_width


def padding_bias(mask: Tensor, inputs: Tensor) -> Tensor:
    """(B, S) True = real -> (B, 1, 1, S): 0 where real, hugely negative (yet finite, also in float16) where padding."""
    bias = torch.zeros(mask.shape, dtype=bias_dtype(inputs), device=mask.device)
    return bias.masked_fill_(~mask, hidden_score(inputs))[:, None, None, :]


def causal_bias(length: int, inputs: Tensor) -> Tensor:
    """(1, 1, T, T): hugely negative where the key lies after the query."""
    return torch.full((length, length), hidden_score(inputs), dtype=bias_dtype(inputs), device=inputs.device).triu_(1)[None, None]


def hidden_score(inputs: Tensor) -> float:
    """A score whose softmax is exactly zero; a quarter of the range, so that sums with other biases stay finite."""
    return torch.finfo(compute_dtype(inputs)).min / 4


def bias_dtype(inputs: Tensor) -> torch.dtype:
    """The number format of additive biases: the one in which `Attend` computes the softmax (see the top of this file)."""
    return torch.promote_types(inputs.dtype, torch.float32) if inputs.device.type == "cpu" else compute_dtype(inputs)


class Attend(nn.Module):
    """softmax(queries keys^T / sqrt(K) + bias) values, with dropout of the weights in training."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.rate = dropout
        self.dropout = Dropout(dropout)

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor, *, bias: Tensor | None, with_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """queries (B, H, T, K), keys and values (B, G, S, K), bias broadcasting to (B, H, T, S) or None.

        -> (B, T, H * K) and the weights (B, T, S), mean over heads, if asked for.
        """
        num_rows, num_heads, length, head_width = queries.shape
        groups = keys.shape[1]
        folded = queries.reshape(num_rows, groups, -1, head_width)  # (B, G, R * T, K)
        if bias is not None and groups != num_heads:
            bias = _fold_bias(bias, num_heads // groups)
        if not with_weights and self._fused(folded, keys, bias):
            rate = self.rate if self.training else 0.0
            mask = None if bias is None else bias.to(folded.dtype)
            mixed = functional.scaled_dot_product_attention(folded, keys, values, attn_mask=mask, dropout_p=rate)
            return _join(mixed, num_heads, length), None
        scores, scale = torch.matmul(folded, keys.transpose(-1, -2)), 1 / math.sqrt(head_width)  # (B, G, R * T, S)
        if not with_weights and fuses(scores) and (bias is None or not bias.requires_grad):
            weights = attention_weights(scores, bias, scale=scale, threshold=self.dropout.threshold if self.training else 0)
            return _join(torch.matmul(weights, values), num_heads, length), None
        scores = scores * scale if bias is None else torch.add(bias, scores, alpha=scale)
        weights = row_softmax(scores)
        mixed = torch.matmul(self.dropout(weights.to(values.dtype)), values)  # (B, G, R * T, K)
        shown = weights.view(num_rows, num_heads, length, -1).mean(dim=1) if with_weights else None  # (B, T, S)
        return _join(mixed, num_heads, length), shown

    def _fused(self, queries: Tensor, keys: Tensor, bias: Tensor | None) -> bool:
        """Whether torch's fused kernel is the faster one: always on a GPU, on a CPU as measured (Zen 4, H = 4, K = 64)."""
        if queries.device.type != "cpu":
            return True
        if (self.training and self.rate) or (bias is not None and bias.requires_grad):
            return False
        recorded, num_queries, num_keys = torch.is_grad_enabled() and queries.requires_grad, queries.shape[2], keys.shape[2]
        if not recorded and queries.shape[0] * num_queries * num_keys <= FEW_SCORES:
            return True
        if queries.dtype == torch.bfloat16:
            return num_keys >= FUSED_FROM_KEYS_BFLOAT16
        return num_keys >= FUSED_FROM_KEYS and (recorded or num_queries > FEW_QUERIES)


def row_softmax(scores: Tensor) -> Tensor:
    """Softmax over the last axis (..., S). On a CPU short rows are laid side by side first: torch takes them number by number."""
    if scores.shape[-1] >= VECTOR or scores.device.type != "cpu":
        return torch.softmax(scores, dim=-1)
    return torch.softmax(scores.flatten(0, -2).t(), dim=0).t().contiguous().view(scores.shape)


def _fold_bias(bias: Tensor, repeats: int) -> Tensor:
    """Bias (.., H or 1, T or 1, S) -> (.., G or 1, R * T or 1, S), matching queries whose groups are folded into T."""
    rows, heads, length, num_keys = bias.shape
    if heads > 1:
        return bias.reshape(rows, heads // repeats, repeats * length, num_keys)
    return bias if length == 1 else bias.expand(rows, repeats, length, num_keys).reshape(rows, 1, repeats * length, num_keys)


def split_heads(packed: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
    """(B, T, P, K) -> one (B, size, T, K) for each of `sizes`, whose sum is P."""
    if torch.is_grad_enabled() and packed.requires_grad:
        return _SplitHeads.apply(packed, sizes)  # type: ignore[no-any-return, no-untyped-call]
    return tuple(part.transpose(1, 2) for part in torch.split(packed, list(sizes), dim=2))


class _SplitHeads(torch.autograd.Function):
    """Contiguous parts whose gradients are written straight into their places (the backward of a split is a slow `cat`)."""

    @staticmethod
    def forward(ctx, packed: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
        ctx.sizes = sizes
        return tuple(part.transpose(1, 2).contiguous() for part in torch.split(packed, list(sizes), dim=2))

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        num_rows, _, length, head_width = gradients[0].shape
        width = sum(ctx.sizes) * head_width
        packed = with_room(gradients[0], (num_rows, length, width)).view(num_rows, length, -1, head_width)
        for part, gradient in zip(torch.split(packed, list(ctx.sizes), dim=2), gradients, strict=True):
            part.copy_(gradient.transpose(1, 2))
        return packed, None


def _join(mixed: Tensor, num_heads: int, length: int) -> Tensor:
    """(B, G, R * T, K) -> (B, T, H * K)."""
    num_rows, _, _, head_width = mixed.shape
    heads = mixed.reshape(num_rows, num_heads, length, head_width)
    if torch.is_grad_enabled() and mixed.requires_grad and mixed.device.type == "cpu":
        return _JoinHeads.apply(heads)  # type: ignore[no-any-return, no-untyped-call]
    return heads.transpose(1, 2).reshape(num_rows, length, num_heads * head_width)


class _JoinHeads(torch.autograd.Function):
    """(B, H, T, K) -> (B, T, H * K), written where the product that follows can pad it."""

    @staticmethod
    def forward(ctx, heads: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        num_rows, num_heads, length, head_width = ctx.shape = heads.shape
        joined = with_room(heads, (num_rows, length, num_heads * head_width))
        joined.view(num_rows, length, num_heads, head_width).copy_(heads.transpose(1, 2))
        return joined

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        num_rows, num_heads, length, head_width = ctx.shape
        return gradient.reshape(num_rows, length, num_heads, head_width).transpose(1, 2)


class KeyValueCache:
    """Keys and values of N hypotheses in all layers, (2, L, N, G, P, K) with room for P >= t positions.

    A step writes position t in place, unless somebody has written there already (a state that is used twice) or gradients
    are recorded: then `opened` copies first, so that a state stays a value.
    """

    def __init__(self, buffer: Tensor, used: int) -> None:
        self.buffer = buffer
        self.used = used

    @staticmethod
    def empty(num_rows: int, layout: HeadLayout, *, layers: int, like: Tensor) -> "KeyValueCache":
        """A cache without positions on the device of `like`."""
        return KeyValueCache(like.new_empty(2, layers, num_rows, layout.key_value_heads, 0, layout.head_width), 0)

    def opened(self, position: int, dtype: torch.dtype) -> "KeyValueCache":
        """The cache into which `position` may be written."""
        buffer = self.buffer
        if position < buffer.shape[4] and self.used <= position and not torch.is_grad_enabled():
            self.used = position + 1
            return self
        room = (position // CACHE_CHUNK + 1) * CACHE_CHUNK
        grown = buffer.new_empty(*buffer.shape[:4], room, buffer.shape[5], dtype=dtype)
        grown[..., :position, :] = buffer[..., :position, :]
        return KeyValueCache(grown, position + 1)

    def write(self, layer: int, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Put keys and values (N, 2 G, K) at the last used position -> all of the layer so far, (N, G, t + 1, K) each."""
        if torch.is_grad_enabled():  # what earlier layers and steps read must stay as it was for their backward
            self.buffer = self.buffer.clone()
        kept = self.buffer[:, layer]  # (2, N, G, P, K)
        kept[:, :, :, self.used - 1] = pairs.view(len(pairs), 2, -1, pairs.shape[2]).transpose(0, 1)
        keys, values = kept[:, :, :, : self.used].unbind()
        return keys, values

    def select(self, rows: Tensor) -> "KeyValueCache":
        """The hypotheses named by `rows`. Only positions in use are copied, head by head, as rows of one matrix."""
        if not self.used or torch.is_grad_enabled():
            return KeyValueCache(self.buffer.index_select(2, rows), self.used)
        kinds, layers, num_rows, groups, room, width = self.buffer.shape
        blocks = torch.arange(0, kinds * layers * num_rows, num_rows, device=rows.device)[:, None] + rows  # (2 L, N')
        heads = (blocks[:, :, None] * groups + torch.arange(groups, device=rows.device)).view(-1)
        selected = self.buffer.new_empty(kinds, layers, len(rows), groups, room, width)
        old, new = self.buffer.view(-1, room * width), selected.view(-1, room * width)
        torch.index_select(old[:, : self.used * width], 0, heads, out=new[:, : self.used * width])
        return KeyValueCache(selected, self.used)


class SelfAttention(nn.Module):
    """Attention of a sequence over itself, queries, keys and values from one product."""

    def __init__(self, layout: HeadLayout, *, dropout: float) -> None:
        super().__init__()
        self.layout = layout
        self.packed = Linear(layout.width, layout.query_size + 2 * layout.key_size)
        self.output = Linear(layout.query_size, layout.width)
        self.attend = Attend(dropout)
        initialise_blocks(self.packed, (layout.query_size, layout.key_size, layout.key_size))
        initialise_blocks(self.output, (layout.width,))

    def project(self, inputs: Tensor, rotation: Rotation | None) -> Tensor:
        """(B, T, D) -> (B, T, H + 2 G, K): queries, keys, values of every head; positions turn queries and keys (RoPE)."""
        num_rows, length, _ = inputs.shape
        heads, groups = self.layout.heads, self.layout.key_value_heads
        packed: Tensor = self.packed(inputs).view(num_rows, length, heads + 2 * groups, self.layout.head_width)
        if rotation is None:
            return packed
        turned, values = torch.split(packed, [heads + groups, groups], dim=2)
        return torch.cat([rotate(turned, rotation), values], dim=2)

    def forward(self, inputs: Tensor, *, bias: Tensor | None, rotation: Rotation | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D); the bias broadcasts to (B, H, T, T)."""
        groups = self.layout.key_value_heads
        queries, keys, values = split_heads(self.project(inputs, rotation), (self.layout.heads, groups, groups))
        return self.output(self.attend(queries, keys, values, bias=bias)[0])  # type: ignore[no-any-return]

    def step(self, inputs: Tensor, *, cache: KeyValueCache, layer: int, bias: Tensor | None, rotation: Rotation | None = None) -> Tensor:
        """The newest position of N hypotheses, (N, 1, D) -> (N, 1, D); the bias broadcasts to (N, H, 1, t + 1)."""
        packed, heads = self.project(inputs, rotation), self.layout.heads  # (N, 1, H + 2 G, K)
        keys, values = cache.write(layer, packed[:, 0, heads:])
        queries = packed[:, :, :heads].transpose(1, 2)  # (N, H, 1, K)
        return self.output(self.attend(queries, keys, values, bias=bias)[0])  # type: ignore[no-any-return]


class MemoryProjection(nn.Module):
    """Keys and values of all decoder layers from the memory, by one product.

    The result is what `Memory.keys` holds: (padding bias, keys of layer 0, values of layer 0, keys of layer 1, ...);
    the bias is (B, 1, 1, S), the others (B, G, S, K), laid out as the products read them.
    """

    def __init__(self, memory_size: int, layout: HeadLayout, *, layers: int) -> None:
        super().__init__()
        self.layout = layout
        self.linear = Linear(memory_size, layers * 2 * layout.key_size)
        initialise_blocks(self.linear, (layout.key_size,) * (2 * layers))

    def forward(self, states: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """states (B, S, D), mask (B, S) True = real -> 1 + 2 L tensors."""
        num_rows, length, _ = states.shape
        groups, head_width = self.layout.key_value_heads, self.layout.head_width
        packed = self.linear(states).view(num_rows, length, -1, head_width)  # (B, S, 2 L G, K)
        keys = split_heads(packed, (groups,) * (packed.shape[2] // groups))
        return (padding_bias(mask, states), *(key.contiguous() for key in keys))


class CrossAttention(nn.Module):
    """Attention of the decoder over the memory of its sentence. It projects queries only; see `MemoryProjection`."""

    def __init__(self, input_size: int, layout: HeadLayout, *, dropout: float) -> None:
        super().__init__()
        self.layout = layout
        self.queries = Linear(input_size, layout.query_size)
        self.output = Linear(layout.query_size, layout.width)
        self.attend = Attend(dropout)
        initialise_blocks(self.queries, (layout.query_size,))
        initialise_blocks(self.output, (layout.width,))

    def forward(
        self, inputs: Tensor, keys: tuple[Tensor, ...], *, layer: int = 0, with_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """inputs (B, T, input_size), keys as `MemoryProjection` made them -> (B, T, width), weights (B, T, S) or None.

        In a step of a search T is the beam width: the hypotheses of a sentence share its keys as if they were positions.
        """
        num_rows, length, _ = inputs.shape
        queries = self.queries(inputs).view(num_rows, length, self.layout.heads, self.layout.head_width).transpose(1, 2)
        mixed, weights = self.attend(queries, keys[1 + 2 * layer], keys[2 + 2 * layer], bias=keys[0], with_weights=with_weights)
        return self.output(mixed), weights


def initialise_blocks(linear: nn.Linear, sizes: tuple[int, ...]) -> None:
    """Xavier-uniform (Glorot & Bengio 2010) for each block of rows as if it were a layer of its own, zero bias."""
    with torch.no_grad():
        for block in torch.split(linear.weight, list(sizes)):
            nn.init.xavier_uniform_(block)
        linear.bias.zero_()
