"""Location-aware attention (Chorowski 2015, 2.2): where to look next also depends on where the last look went.

In: queries (B, W, D), the memory, and the weights of the step before (B, W, S). Out: contexts and weights, as of every attention of
`recurrent_attention`. The score is v . tanh(W q + V h + U f), f being a convolution of the last weights over the positions; before the
first step there was no look, so they are zero.

The decision to question: f differs for each pair of hypothesis and position, so the shortcut of additive attention (one exponential per
query and key) saves nothing here: the tanh of all pairs is computed, and again in the backward pass instead of being kept for each step.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from transduce.model.interface import Memory
from transduce.model.layers import Dropout
from transduce.model.products import Linear
from transduce.model.recurrent_attention import Reader, RecurrentAttention, for_rows, mix, padding_scores
from transduce.model.shared_products import Shared


class LocationAttention(RecurrentAttention):
    """Additive attention that also sees `filters` convolutions, `kernel` positions wide, of the last weights."""

    follows = True

    def __init__(self, query_size: int, memory_size: int, *, size: int, filters: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.context_size = memory_size
        self.query = nn.Linear(query_size, size, bias=False)
        self.key = Linear(memory_size, size)
        self.filters = nn.Parameter(torch.empty(filters, 1, kernel).uniform_(-(kernel**-0.5), kernel**-0.5))
        self.place = nn.Parameter(torch.empty(filters, size))
        self.energy = nn.Parameter(torch.empty(size).uniform_(-(size**-0.5), size**-0.5))
        self.dropout = Dropout(dropout)
        for weight in (self.query.weight, self.key.weight, self.place):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.key.bias)

    def project(self, memory: Memory) -> tuple[Tensor, ...]:
        """-> padding scores (B, 1, S), keys (B, S, A) in float32, values (B, S, D)."""
        return padding_scores(memory.mask), self.key(memory.states).float(), for_rows(memory.states)

    def reader(self, keys: tuple[Tensor, ...], *, with_weights: bool) -> Reader:  # noqa: ARG002
        """See `RecurrentAttention.reader`."""
        bias, own, states = keys
        query, values = Shared(self.query.weight.t()), Shared(states)

        def read(queries: Tensor, previous: Tensor | None = None) -> tuple[Tensor, Tensor]:
            asked = query.product(queries.reshape(-1, queries.shape[-1])).view(*queries.shape[:2], -1)  # (B, W, A)
            with torch.autocast(queries.device.type, enabled=False):
                last = own.new_zeros(*queries.shape[:2], own.shape[1]) if previous is None else previous.float()
                scores = _LocationScores.apply(asked.float(), own, self.looked(last), self.place, self.energy)  # type: ignore[no-untyped-call]
            return mix(scores + bias, values, self.dropout)

        return read

    def looked(self, previous: Tensor) -> Tensor:
        """Weights (B, W, S) -> their convolutions (B, W, S, filters)."""
        num_rows, width, length = previous.shape
        room, rest = divmod(self.filters.shape[2] - 1, 2)
        padded = functional.pad(previous.reshape(-1, 1, length), (room, room + rest))
        return functional.conv1d(padded, self.filters).transpose(1, 2).reshape(num_rows, width, length, -1)


def _pairs(queries: Tensor, keys: Tensor, *, looked: Tensor, place: Tensor) -> Tensor:
    """tanh(q + k + f U): (B, W, A), (B, S, A), (B, W, S, F), (F, A) -> (B, W, S, A)."""
    return torch.matmul(looked, place).add_(keys[:, None]).add_(queries[:, :, None]).tanh_()


class _LocationScores(torch.autograd.Function):
    """v . tanh(q + k + f U) for all pairs -> (B, W, S); the pairs are computed again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, looked: Tensor, place: Tensor, energy: Tensor) -> Tensor:
        ctx.save_for_backward(queries, keys, looked, place, energy)
        return _pairs(queries, keys, looked=looked, place=place) @ energy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        queries, keys, looked, place, energy = ctx.saved_tensors
        pairs = _pairs(queries, keys, looked=looked, place=place)  # (B, W, S, A)
        size, filters = pairs.shape[-1], looked.shape[-1]
        d_energy = pairs.view(-1, size).t() @ gradient.reshape(-1)
        back = torch.addcmul(pairs.new_ones(()), pairs, pairs, value=-1).mul_(gradient[..., None]).mul_(energy)
        d_place = looked.reshape(-1, filters).t() @ back.view(-1, size)
        return back.sum(2), back.sum(1), back @ place.t(), d_place, d_energy
