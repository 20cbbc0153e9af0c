"""How a recurrent decoder looks at the memory: additive (Bahdanau 2015), dot and general (Luong 2015), several heads.

In: queries (B, W, D), W hypotheses or target positions of each sentence, and the memory. Out: contexts (B, W, context_size)
and weights (B, W, S). `project` is called once per sentence; `reader` once per loop or step, and gives the function that
the steps call, so that products with the memory share one gradient (`shared_products`). `ContextGate` may stand behind any of them;
location-aware attention has its own file.

The decision to question: the energies v . tanh(q + k) are computed as -2 v . 1 / (1 + exp(2 q) exp(2 k)), which is the same
up to a constant that the softmax removes, and needs no exponential per pair (measured: 10 times faster on a CPU). For that
each of q and k is limited to 20 in size, where tanh has long been flat.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from transduce.model.attention import CrossAttention, HeadLayout, MemoryProjection, row_softmax
from transduce.model.interface import Memory
from transduce.model.layers import Dropout
from transduce.model.products import Linear, compute_dtype
from transduce.model.shared_products import GradientTape, Shared

Reader = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]
"""Queries (B, W, D) and the weights of the step before (B, W, S), which only an attention that `follows` reads -> contexts, weights."""
HIDDEN = torch.finfo(torch.float32).min / 4
"""The score of padding: its softmax is exactly zero, and sums with other scores stay finite."""
LIMIT = 20.0
"""The largest size of queries and keys in additive attention."""
CHUNK = 1 << 20
"""Pairs of (target, source) positions times A that the additive energies hold at once."""


class RecurrentAttention(nn.Module, ABC):
    """Attention over the memory of a sentence. `context_size` is the width of what it returns; an attention that `follows` wants the
    weights of the step before."""

    context_size: int
    follows: bool = False

    @abstractmethod
    def project(self, memory: Memory) -> tuple[Tensor, ...]:
        """What is computed once per sentence, each tensor with B rows."""

    @abstractmethod
    def reader(self, keys: tuple[Tensor, ...], *, with_weights: bool) -> Reader:
        """keys as `project` made them -> a function from queries (B, W, D) and the weights of the step before (B, W, S; None where there
        is none) to contexts (B, W, context_size) and weights (B, W, S).

        Where weights are not asked for they may be None.
        """


class AdditiveAttention(RecurrentAttention):
    """Score v . tanh(W q + U k + b) (Bahdanau 2015, appendix A.1.2); the context is the weighted mean of the states."""

    def __init__(self, query_size: int, memory_size: int, *, size: int, dropout: float) -> None:
        super().__init__()
        self.context_size = memory_size
        self.query = nn.Linear(query_size, size, bias=False)
        self.key = Linear(memory_size, size)
        self.energy = nn.Parameter(torch.empty(size).uniform_(-(size**-0.5), size**-0.5))
        self.dropout = Dropout(dropout)
        nn.init.xavier_uniform_(self.query.weight)
        nn.init.xavier_uniform_(self.key.weight)
        nn.init.zeros_(self.key.bias)

    def project(self, memory: Memory) -> tuple[Tensor, ...]:
        """-> padding bias (B, 1, S), exp(2 keys) (B, S, A) in float32, values (B, S, D)."""
        keys: Tensor = _DoubledExponential.apply(self.key(memory.states))  # type: ignore[no-untyped-call]
        return padding_scores(memory.mask), keys, for_rows(memory.states)

    def reader(self, keys: tuple[Tensor, ...], *, with_weights: bool) -> Reader:  # noqa: ARG002
        """See `RecurrentAttention.reader`."""
        bias, exponentials, states = keys
        query, grown, values = Shared(self.query.weight.t()), _SharedKeys(exponentials), Shared(states)

        def read(queries: Tensor, previous: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG001
            asked = query.product(queries.reshape(-1, queries.shape[-1])).view(*queries.shape[:2], -1)  # (B, W, A)
            return mix(grown.scores(asked, self.energy) + bias, values, self.dropout)

        return read


class ProductAttention(RecurrentAttention):
    """Score q . k (Luong 2015: dot) or q . W k (general, `learned`).

    Where queries and states differ in width, dot first maps the states to the width of the queries, for keys and values.
    """

    def __init__(self, query_size: int, memory_size: int, *, learned: bool, dropout: float) -> None:
        super().__init__()
        self.learned = learned
        self.key = Linear(memory_size, query_size, bias=False) if learned or memory_size != query_size else None
        self.context_size = memory_size if learned else query_size
        self.dropout = Dropout(dropout)
        if self.key is not None:
            nn.init.xavier_uniform_(self.key.weight)

    def project(self, memory: Memory) -> tuple[Tensor, ...]:
        """-> padding bias (B, 1, S), keys (B, S, D), values (B, S, context_size)."""
        states = for_rows(memory.states)
        keys = states if self.key is None else for_rows(self.key(memory.states))
        return padding_scores(memory.mask), keys, states if self.learned else keys

    def reader(self, keys: tuple[Tensor, ...], *, with_weights: bool) -> Reader:  # noqa: ARG002
        """See `RecurrentAttention.reader`."""
        bias, states = keys[0], keys[2]
        turned, values = Shared(keys[1].transpose(1, 2)), Shared(states)

        def read(queries: Tensor, previous: Tensor | None = None) -> tuple[Tensor, Tensor]:  # noqa: ARG001
            return mix(turned.product(queries).float() + bias, values, self.dropout)

        return read


class MultiHeadAttention(RecurrentAttention):
    """Scaled dot-product attention with several heads (Vaswani 2017) and a recurrent query."""

    def __init__(self, query_size: int, memory_size: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        layout = HeadLayout(query_size, heads, heads)
        self.context_size = query_size
        self.memory = MemoryProjection(memory_size, layout, layers=1)
        self.cross = CrossAttention(query_size, layout, dropout=dropout)

    def project(self, memory: Memory) -> tuple[Tensor, ...]:
        """-> padding bias, keys and values as `MemoryProjection` lays them out."""
        return self.memory(memory.states, memory.mask)  # type: ignore[no-any-return]

    def reader(self, keys: tuple[Tensor, ...], *, with_weights: bool) -> Reader:
        """See `RecurrentAttention.reader`."""

        def read(queries: Tensor, previous: Tensor | None = None) -> tuple[Tensor, Tensor | None]:  # noqa: ARG001
            return self.cross(queries, keys, with_weights=with_weights)  # type: ignore[no-any-return]

        return read


class ContextGate(nn.Module):
    """How much of a context a state wants: beta = sigmoid(w . q + b), times the context (Xu 2015, 4.2.1). The weights stay as they are, so
    that they still say where the model would look."""

    def __init__(self, query_size: int) -> None:
        super().__init__()
        self.wanted = nn.Linear(query_size, 1)
        nn.init.xavier_uniform_(self.wanted.weight)
        nn.init.zeros_(self.wanted.bias)

    def reader(self, read: Reader) -> Reader:
        """The same reader, each of its contexts (B, W, context_size) multiplied by the number that its query asks for."""
        wanted = Shared(self.wanted.weight.t())

        def read_gated(queries: Tensor, previous: Tensor | None) -> tuple[Tensor, Tensor | None]:
            context, weights = read(queries, previous)
            energies = wanted.product(queries.reshape(-1, queries.shape[-1])).float() + self.wanted.bias
            return context * torch.sigmoid(energies).view(*queries.shape[:2], 1).to(context.dtype), weights

        return read_gated


def padding_scores(mask: Tensor) -> Tensor:
    """(B, S) True = real -> (B, 1, S) float32, 0 where real, hugely negative where padding."""
    return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, HIDDEN)[:, None]


def mix(scores: Tensor, values: Shared, dropout: Dropout) -> tuple[Tensor, Tensor]:
    """Scores (B, W, S) in float32, values (B, S, D) -> contexts (B, W, D), weights (B, W, S)."""
    weights = row_softmax(scores)
    return values.product(dropout(weights)), weights


def for_rows(states: Tensor) -> Tensor:
    """(B, S, D) in the number format that products of single rows with it are fastest in: float32 on a CPU."""
    return states.float() if states.device.type == "cpu" else states.to(compute_dtype(states))


class _DoubledExponential(torch.autograd.Function):
    """keys -> exp(2 keys), limited. Its consumers give the gradient of the keys, not of the exponential, so it passes through."""

    @staticmethod
    def forward(ctx: Any, keys: Tensor) -> Tensor:
        ctx.dtype = keys.dtype
        return _grow(keys)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.to(ctx.dtype)


class _SharedKeys:
    """exp(2 keys) (B, S, A) for many queries, their gradient summed in one buffer; always float32, also under autocast."""

    def __init__(self, exponentials: Tensor) -> None:
        self.shared = Shared(exponentials)

    def scores(self, queries: Tensor, energy: Tensor) -> Tensor:
        """queries (B, W, A), energy (A,) -> (B, W, S) float32."""
        with torch.autocast(queries.device.type, enabled=False):
            return _AdditiveScores.apply(queries, self.shared.matrix, energy, self.shared.tape)  # type: ignore[no-any-return, no-untyped-call]


def _grow(inputs: Tensor) -> Tensor:
    """exp(2 x) in float32 with x limited to +-20: the product of two such numbers is finite."""
    return inputs.float().clamp(-LIMIT, LIMIT).mul_(2).exp_()


def _chunks(queries: Tensor, keys: Tensor) -> range:
    """First query positions of pieces so small that the pairs of a piece stay in the cache."""
    return range(0, queries.shape[1], max(1, CHUNK // max(1, keys.numel())))


def _falling(queries: Tensor, keys: Tensor) -> Tensor:
    """1 / (1 + exp(2 q) exp(2 k)) for all pairs: (B, W, A), (B, S, A) -> (B, W, S, A)."""
    return torch.addcmul(keys.new_ones(()), keys[:, None], queries[:, :, None]).reciprocal_()


class _AdditiveScores(torch.autograd.Function):
    """v . tanh(q + k) - sum(v) for all pairs; the pairs are computed again in the backward pass instead of being kept."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, energy: Tensor, tape: GradientTape) -> Tensor:
        grown = _grow(queries)  # (B, W, A)
        scores = keys.new_empty(*queries.shape[:2], keys.shape[1])  # (B, W, S)
        pieces = _chunks(queries, keys)
        for start in pieces:
            piece = slice(start, start + pieces.step)
            scores[:, piece] = _falling(grown[:, piece], keys) @ energy
        ctx.save_for_backward(grown, keys, energy)
        ctx.tape, ctx.dtype = tape, queries.dtype
        return scores.mul_(-2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, None]:
        grown, keys, energy = ctx.saved_tensors
        d_queries, d_energy = torch.empty_like(grown), torch.zeros_like(energy)
        pieces = _chunks(grown, keys)
        for start in pieces:
            piece = slice(start, start + pieces.step)
            d_scores = gradient[:, piece].contiguous()  # (B, W, S)
            falling = _falling(grown[:, piece], keys)  # (B, W, S, A)
            d_energy.addmv_(falling.view(-1, energy.shape[0]).t(), d_scores.view(-1), alpha=-2)
            pairs = torch.addcmul(falling, falling, falling, value=-1).mul_(d_scores[..., None]).mul_(4 * energy)
            torch.sum(pairs, dim=2, out=d_queries[:, piece])
            if ctx.needs_input_grad[1]:
                ctx.tape.add(pairs.sum(dim=1) if pairs.shape[1] > 1 else pairs[:, 0])
        return d_queries.to(ctx.dtype), None, d_energy, None
