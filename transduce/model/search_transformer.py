"""A Transformer in search: between its products stand the loops of search_kernels.py.

In: a trained model, its products exact or rounded. Out: a copy that answers the same up to rounding. Of a step of search with hundreds of
rows, torch's operations between bfloat16 products took three quarters of the time: each is a pass over memory, and a call.

The decision to question: all is written in the number format that products give. So bfloat16 keys and values are half the memory to copy
where hypotheses move, and nothing is lost. What the loops do not know (RoPE, relative positions, norms after layers, gates, no numba,
several threads, a GPU) goes the general way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from transduce.model.attention import CrossAttention, HeadLayout, SelfAttention
from transduce.model.bfloat16 import BFloat16FeedForward, BFloat16Linear, BFloat16Product, bfloat16_model
from transduce.model.blocked import has_blocks
from transduce.model.fused import array, kernels, search_loops, searches
from transduce.model.int8 import Int8Linear, int8_model
from transduce.model.interface import Decoder, Encoder, Memory, memory_with_mean, real_positions
from transduce.model.layers import FeedForward, LayerNorm
from transduce.model.packed import PackedLinear, packed_model, packs
from transduce.model.padded import padded_count
from transduce.model.products import FUSED, Linear
from transduce.model.ranking import ranking_model
from transduce.model.search_cache import SharedCache
from transduce.model.seq2seq import Seq2Seq
from transduce.model.stack import DecoderStack, Residual
from transduce.model.transformer import Positions, TransformerDecoder, TransformerEncoder, TransformerState
from transduce.model.whole import Int16Linear
from transduce.processor import int8_instructions

LONGEST = 64
"""Positions of a sequence up to which a loop attends; batched products are faster beyond."""


def model_with_products(model: Seq2Seq, kind: Literal["fp32", "int8", "bf16"]) -> Seq2Seq:
    """The model that answers a search whose products have that precision; exact ones differ by the order of their sums."""
    match kind:
        case "fp32":
            return ranking_model(with_loops(packed_model(model) if packs() else model))
        case "int8":
            return with_loops(int8_model(model))
        case "bf16":
            return with_loops(bfloat16_model(model))


def quick_beam(models: Sequence[Seq2Seq], kind: Literal["fp32", "int8", "bf16"]) -> int | None:
    """The beam from which such a model, searched in several processes, was measured to be faster than CTranslate2 with the same kind of
    numbers (docs/performance.md); None = it was not."""
    if len(models) > 1 or type(models[0].decoder) is not LoopedDecoder:
        return None
    if kind == "fp32":
        return 1 if has_blocks() else (2 if packs() else None)
    return 2 if int8_instructions() is not None else None


def with_loops(model: Seq2Seq) -> Seq2Seq:
    """A model of the same parts, with loops between the products of encoder and decoder where they know its kind."""
    encoder, decoder = encoder_with_loops(model.encoder), decoder_with_loops(model.decoder)
    return Seq2Seq(model.frontend, encoder, embedding=model.embedding, decoder=decoder, head=model.head, ctc=model.ctc).eval()


def encoder_with_loops(encoder: Encoder) -> Encoder:
    """The encoder with loops between its products, where they know its kind."""
    match encoder:
        case TransformerEncoder(norm=LayerNorm() as norm, positions=Positions(rotary=None, relative=None, added=nn.Module())):
            layers: list[Any] = [
                ((layer.attention_residual, layer.attention), (layer.feed_forward_residual, layer.feed_forward)) for layer in encoder.layers
            ]
            known = known_layers(layers)
            if known is not None:
                return LoopedEncoder(encoder, known, norm)
    return encoder


def decoder_with_loops(decoder: Decoder[Any]) -> Decoder[Any]:
    """The decoder with loops between its products, where they know its kind."""
    match decoder:
        case TransformerDecoder(
            stack=DecoderStack(norm=LayerNorm() as norm), positions=Positions(rotary=None, relative=None, added=nn.Module())
        ):
            layers: list[Any] = [
                ((layer.past_residual, past), (layer.cross_residual, layer.cross), (layer.feed_forward_residual, layer.feed_forward))
                for past, layer in zip(decoder.pasts, decoder.stack.layers, strict=True)
            ]
            known = known_layers(layers)
            if known is not None:
                return LoopedDecoder(decoder, known, norm)
    return decoder


class Norm:
    """Weight and bias (D,) of a layer norm, and what is added to each variance, as the loops take them."""

    def __init__(self, norm: LayerNorm) -> None:
        self.affine = array(norm.weight), array(norm.bias), np.float32(norm.eps)


@dataclass(frozen=True)
class Product:
    """Rows (M', K) -> (M', N). kind: number format of both. count: M' for the number of rows that matter."""

    multiply: Callable[[Tensor], Tensor]
    kind: torch.dtype
    count: Callable[[int], int]


@dataclass(frozen=True)
class Sublayer:
    """What is added to the hidden numbers: second(something of first(norm(hidden)))."""

    norm: Norm
    first: Product
    second: Product


Layers = list[list[Sublayer]]


def known_layers(layers: Sequence[Sequence[tuple[nn.Module, nn.Module]]]) -> Layers | None:
    """The sublayers of each layer, from what stands around and in each; None where the loops do not know one, or there are no loops."""
    if kernels() is None:
        return None
    found = [[sublayer for sublayer in (_sublayer(*part) for part in layer) if sublayer is not None] for layer in layers]
    kinds = {product.kind for layer in found for sublayer in layer for product in (sublayer.first, sublayer.second)}
    return found if len(kinds) == 1 and all(len(known) == len(layer) for known, layer in zip(found, layers, strict=True)) else None


def _sublayer(residual: nn.Module, part: nn.Module) -> Sublayer | None:
    first: Product | None
    match part:
        case SelfAttention(packed=before, output=after) | CrossAttention(queries=before, output=after):
            first, second = _product(before), _product(after)
        case FeedForward(inner=before, outer=after, activation=activation) if activation in FUSED:
            first, second = _product(before, then=activation), _product(after)
        case BFloat16FeedForward(inner=before, outer=after):
            first, second = _product(before), _product(after)
        case _:
            return None
    match residual:
        case Residual(pre=True, norm=LayerNorm() as norm) if first is not None and second is not None:
            return Sublayer(Norm(norm), first, second)
    return None


def _product(layer: nn.Module, then: str = "none") -> Product | None:
    """The product of a layer and the non-linearity after it."""
    match layer:
        case BFloat16Linear(product=product):
            return Product(product, torch.bfloat16, padded_count)
        case BFloat16Product():
            return Product(layer, torch.bfloat16, padded_count)
        case PackedLinear(product=product):
            return Product(partial(layer, then=then), torch.float32, product.count)
        case Int8Linear() | Int16Linear():
            return Product(partial(layer, then=then), torch.float32, int)
        case Linear():
            return Product(layer if then == "none" else lambda rows: FUSED[then](layer(rows)), torch.float32, int)
    return None


class _Rows:
    """hidden (N, D) float32, to which sublayers add, and rows (M', D), which the next product reads."""

    def __init__(self, hidden: Tensor, first: Product) -> None:
        self.rows = torch.empty(first.count(len(hidden)), hidden.shape[1], dtype=first.kind)
        self.rows[len(hidden) :] = 0
        self._hidden, self._rows = array(hidden), array(self.rows)
        self._added: Tensor | None = None

    def add(self, sublayer: Sublayer, mix: Callable[[Tensor], Tensor] | None = None) -> None:
        """hidden += second(mix(first(norm(hidden)))); the sum itself is left to the loop of the next norm."""
        self._norm(sublayer.norm, self._rows)
        inner = sublayer.first.multiply(self.rows)
        self._added = sublayer.second.multiply(inner if mix is None else mix(inner))

    def last(self, norm: Norm) -> Tensor:
        """The norm of what is hidden at the end, (N, D) float32."""
        states = torch.empty(self._hidden.shape)
        self._norm(norm, array(states))
        return states

    def _norm(self, norm: Norm, written: Any) -> None:
        added = None if self._added is None else array(self._added)
        search_loops().add_norm(added, norm.affine, (self._hidden, written))


class _SequenceRows(_Rows):
    """Those of sequences that attend to themselves, one behind the other without padding: N is the sum of their lengths (B,)."""

    def __init__(self, hidden: Tensor, first: Product, *, lengths: Tensor, layout: HeadLayout) -> None:
        super().__init__(hidden, first)
        starts = torch.zeros(len(lengths) + 1, dtype=torch.int64)
        torch.cumsum(lengths, 0, out=starts[1:])
        self._memory = array(starts), layout.heads, layout.key_value_heads

    def attend_within(self, packed: Tensor) -> Tensor:
        """packed (M', (H + 2 G) K) -> rows (M', H K)."""
        search_loops().attend_within(array(packed), self._memory, self._rows)
        return self.rows


class LoopedEncoder(Encoder):
    """A Transformer encoder that runs by loops in processes of one thread."""

    def __init__(self, encoder: TransformerEncoder, layers: Layers, norm: LayerNorm) -> None:
        super().__init__()
        self.encoder, self.output_size, self.summary_size = encoder, encoder.output_size, encoder.summary_size
        self._layers, self._norm, self._first = layers, Norm(norm), layers[0][0].first

    def forward(self, inputs: Tensor, lengths: Tensor) -> Memory:
        """See `TransformerEncoder`."""
        if not searches(inputs) or inputs.shape[1] > LONGEST:
            return self.encoder(inputs, lengths)  # type: ignore[no-any-return]
        mask = real_positions(lengths, inputs.shape[1])
        states = self.encoder.positions.add(self.encoder.lift(inputs))
        rows = _SequenceRows(states[mask], self._first, lengths=lengths, layout=self.encoder.layout)
        for attention, block in self._layers:
            rows.add(attention, rows.attend_within)
            rows.add(block)
        states = torch.zeros(states.shape)
        states[mask] = rows.last(self._norm)
        return memory_with_mean(states, mask)


@dataclass(frozen=True)
class LoopedState:
    """What N hypotheses have looked at so far, and the memory of all sentences that the search began with, which stays where it is.

    bias: (B, S). keys: of each layer keys and values (B, G, S, K), in the number format of the products. sentences: (N,) int64.
    """

    cache: SharedCache
    bias: Tensor
    keys: tuple[Tensor, ...]
    sentences: Tensor

    def select(self, rows: Tensor) -> "LoopedState":
        """The hypotheses named by `rows`."""
        return LoopedState(self.cache.select(rows), self.bias, self.keys, self.sentences[rows])


class LoopedDecoder(Decoder[TransformerState | LoopedState]):
    """A Transformer decoder whose steps run by loops in processes of one thread; all else is the decoder's own."""

    def __init__(self, decoder: TransformerDecoder, layers: Layers, norm: LayerNorm) -> None:
        super().__init__()
        self.decoder, self.output_size = decoder, decoder.output_size
        self._layers, self._norm, self._first = layers, Norm(norm), layers[0][0].first

    def project(self, memory: Memory) -> Memory:
        """Memory with the keys and values of all layers, or as it is for the loops, which keep these in their state."""
        return memory if searches(memory.states) else self.decoder.project(memory)

    def start(self, memory: Memory) -> TransformerState | LoopedState:
        """No positions yet, one row per sentence."""
        if not searches(memory.states):
            return self.decoder.start(memory)
        bias, *keys = self._whole(memory).keys
        cache = SharedCache.empty(len(bias), self.decoder.layout, layers=len(self._layers), kind=self._first.kind)
        return LoopedState(cache, bias.reshape(len(bias), -1), tuple(key.to(self._first.kind) for key in keys), torch.arange(len(bias)))

    def forward(self, inputs: Tensor, memory: Memory, *, with_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """See `TransformerDecoder`."""
        return self.decoder(inputs, self._whole(memory), with_attention=with_attention)  # type: ignore[no-any-return]

    def step(self, inputs: Tensor, state: TransformerState | LoopedState, memory: Memory) -> tuple[Tensor, TransformerState | LoopedState]:
        """(N, E) -> (N, D) and the next state."""
        match state:
            case TransformerState():
                return self.decoder.step(inputs, state, self._whole(memory))
            case LoopedState():
                hidden, (state,) = self._step([inputs], [state], [memory])
                return hidden, state

    def joins(self, _memory: Memory) -> bool:
        """Where it runs by loops."""
        return searches(_memory.states)

    def step_together(
        self, inputs: Sequence[Tensor], states: Sequence[TransformerState | LoopedState], memories: Sequence[Memory]
    ) -> tuple[Tensor, list[TransformerState | LoopedState]]:
        """See `Decoder`."""
        looped = [state for state in states if type(state) is LoopedState]
        if len(looped) < len(states):
            return super().step_together(inputs, states, memories)
        hidden, following = self._step(inputs, looped, memories)
        return hidden, [*following]

    def _whole(self, memory: Memory) -> Memory:
        return memory if memory.keys else self.decoder.project(memory)

    def _step(
        self, inputs: Sequence[Tensor], states: Sequence[LoopedState], memories: Sequence[Memory]
    ) -> tuple[Tensor, list[LoopedState]]:
        parts = zip(inputs, states, strict=True)
        hidden = [self._lifted(part, state.cache.places.shape[1]) for part, state in parts]
        widths = [len(part) // len(memory.mask) for part, memory in zip(inputs, memories, strict=True)]
        following = [replace(state, cache=state.cache.opened(width)) for state, width in zip(states, widths, strict=True)]
        rows = _StepRows(torch.cat(hidden), self._first, states=following)
        for number, (past, cross, block) in enumerate(self._layers):
            rows.add(past, partial(rows.attend_past, layer=number))
            rows.add(cross, partial(rows.attend_memory, layer=number))
            rows.add(block)
        return rows.last(self._norm), following

    def _lifted(self, inputs: Tensor, position: int) -> Tensor:
        """(N, E) -> (N, D), as the first layer takes them at this position."""
        return self.decoder.positions.add(self.decoder.stack.lift(inputs[:, None, :]), position)[:, 0]


class _StepRows(_Rows):
    """Those of a step of one or several searches, one behind the other, with what each looks at."""

    def __init__(self, hidden: Tensor, first: Product, *, states: Sequence[LoopedState]) -> None:
        super().__init__(hidden, first)
        counts = [len(state.sentences) for state in states]
        ends = list(accumulate(counts))
        self._parts = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
        self._past = [state.cache.arrays() for state in states]
        self._memory = [(state.keys, array(state.bias), array(state.sentences)) for state in states]

    def attend_past(self, packed: Tensor, layer: int) -> Tensor:
        """packed (M', (H + 2 G) K) joins the cache -> rows (M', H K)."""
        read = array(packed)
        for part, (pages, *past) in zip(self._parts, self._past, strict=True):
            search_loops().attend_past(read[part], (pages, layer, tuple(past)), self._rows[part])
        return self.rows

    def attend_memory(self, queries: Tensor, layer: int) -> Tensor:
        """queries (M', H K) -> rows (M', H K)."""
        read = array(queries)
        for part, (keys, *known) in zip(self._parts, self._memory, strict=True):
            search_loops().attend_memory(read[part], (array(keys[2 * layer]), array(keys[2 * layer + 1]), *known), self._rows[part])
        return self.rows
