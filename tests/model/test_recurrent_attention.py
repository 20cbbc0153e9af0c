"""The attentions of recurrent decoders against their formulas, written out with plain autograd."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from transduce.model import recurrent_attention
from transduce.model.interface import Memory
from transduce.model.location_attention import LocationAttention
from transduce.model.recurrent_attention import AdditiveAttention, ContextGate, MultiHeadAttention, ProductAttention, RecurrentAttention
from transduce.model.recurrent_decoder import RecurrentDecoderConfig

MASK = torch.tensor([[True, True, True, True], [True, True, False, False], [True, False, False, False]])


KINDS = ["additive", "dot", "general", "multihead", "location"]


def make(kind: str, dropout: float) -> RecurrentAttention:
    """Queries of 4, states of 6, 2 hidden units or heads."""
    match kind:
        case "additive":
            return AdditiveAttention(4, 6, size=2, dropout=dropout)
        case "multihead":
            return MultiHeadAttention(4, 6, heads=2, dropout=dropout)
        case "location":
            return LocationAttention(4, 6, size=2, filters=3, kernel=3, dropout=dropout)
    return ProductAttention(4, 6, learned=kind == "general", dropout=dropout)


def memory_of(size: int) -> Memory:
    return Memory(torch.randn(3, 4, size, requires_grad=True), MASK, torch.zeros(3, 1))


def read(attention: RecurrentAttention, memory: Memory, queries: Tensor) -> tuple[Tensor, Tensor]:
    context, weights = attention.reader(attention.project(memory), with_weights=True)(queries, None)
    assert weights is not None
    return context, weights


def by_formula(scores: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    weights = scores.masked_fill(~MASK[:, None], float("-inf")).softmax(-1)
    return weights @ values, weights


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_additive_attention_equals_its_formula(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and every gradient of v . tanh(W q + U k + b), whether the pairs are made at once or in pieces."""
    torch.manual_seed(1)
    monkeypatch.setattr(recurrent_attention, "CHUNK", chunk)
    attention = AdditiveAttention(5, 6, size=7, dropout=0.0)
    torch.nn.init.normal_(attention.key.bias)
    memory, queries = memory_of(6), torch.randn(3, 2, 5, requires_grad=True)
    leaves = [memory.states, queries, *attention.parameters()]
    weighting, pattern = torch.randn(3, 2, 6), torch.randn(3, 2, 4)

    context, weights = read(attention, memory, queries)
    ours = torch.autograd.grad((context * weighting).sum() + (weights * pattern).sum(), leaves)
    hidden = torch.tanh(attention.query(queries)[:, :, None] + attention.key(memory.states)[:, None])
    expected, expected_weights = by_formula(hidden @ attention.energy, memory.states)
    theirs = torch.autograd.grad((expected * weighting).sum() + (expected_weights * pattern).sum(), leaves)

    torch.testing.assert_close(context, expected)
    torch.testing.assert_close(weights, expected_weights)
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_additive_attention_sums_the_gradients_of_several_reads(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    monkeypatch.setattr(recurrent_attention, "CHUNK", chunk)
    attention = AdditiveAttention(5, 6, size=7, dropout=0.0)
    memory, queries = memory_of(6), torch.randn(3, 4, 5)
    leaves = [memory.states, *attention.parameters()]
    together = torch.autograd.grad(read(attention, memory, queries)[0].square().sum(), leaves)
    reader = attention.reader(attention.project(memory), with_weights=False)
    apart = torch.autograd.grad(sum(reader(queries[:, step : step + 1])[0].square().sum() for step in range(4)), leaves)
    for left, right in zip(together, apart, strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-4)


def test_additive_attention_is_finite_where_tanh_is_flat() -> None:
    attention = AdditiveAttention(5, 6, size=7, dropout=0.0)
    memory = Memory(1e4 * torch.randn(3, 4, 6, requires_grad=True), MASK, torch.zeros(3, 1))
    context, weights = read(attention, memory, 1e4 * torch.randn(3, 2, 5))
    context.sum().backward()
    assert context.isfinite().all() and weights.isfinite().all()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in attention.parameters())


def test_dot_attention_equals_its_formula() -> None:
    torch.manual_seed(3)
    attention = ProductAttention(6, 6, learned=False, dropout=0.0)
    assert not list(attention.parameters()), "dot has no weights where the widths agree"
    memory, queries = memory_of(6), torch.randn(3, 2, 6, requires_grad=True)
    context, weights = read(attention, memory, queries)
    expected, expected_weights = by_formula(queries @ memory.states.transpose(1, 2), memory.states)
    torch.testing.assert_close(context, expected)
    torch.testing.assert_close(weights, expected_weights)
    leaves = [memory.states, queries]
    for ours, theirs in zip(torch.autograd.grad(context.sum(), leaves), torch.autograd.grad(expected.sum(), leaves), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_general_attention_equals_its_formula() -> None:
    torch.manual_seed(4)
    attention = ProductAttention(5, 6, learned=True, dropout=0.0)
    memory, queries = memory_of(6), torch.randn(3, 2, 5)
    context, weights = read(attention, memory, queries)
    assert attention.key is not None
    expected, expected_weights = by_formula(queries @ attention.key.weight @ memory.states.transpose(1, 2), memory.states)
    torch.testing.assert_close(context, expected)
    torch.testing.assert_close(weights, expected_weights)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_gets_no_weight(kind: str) -> None:
    torch.manual_seed(5)
    attention = make(kind, 0.0)
    memory, queries = memory_of(6), torch.randn(3, 2, 4)
    context, weights = read(attention, memory, queries)
    assert context.shape == (3, 2, attention.context_size) and weights.shape == (3, 2, 4)
    assert not weights[~MASK[:, None].expand_as(weights)].any()
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_attention_dropout_acts_in_training_only(kind: str) -> None:
    torch.manual_seed(6)
    attention = make(kind, 0.5)
    memory, queries = memory_of(6), torch.randn(3, 2, 4)
    assert not torch.equal(read(attention, memory, queries)[0], read(attention, memory, queries)[0])
    attention.eval()
    assert torch.equal(read(attention, memory, queries)[0], read(attention, memory, queries)[0])


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValidationError, match="heads 3 must divide width 8"):
        RecurrentDecoderConfig(attention="multihead", width=8, heads=3)


def test_location_attention_equals_its_formula() -> None:
    """v . tanh(W q + V h + b + U (F * last weights)), values and every gradient (Chorowski 2015, equations 8 and 9)."""
    torch.manual_seed(7)
    attention = LocationAttention(5, 6, size=7, filters=2, kernel=3, dropout=0.0)
    memory, queries = memory_of(6), torch.randn(3, 2, 5, requires_grad=True)
    last = (torch.rand(3, 2, 4) * MASK[:, None]).requires_grad_()
    leaves = [memory.states, queries, last, *attention.parameters()]
    weighting, pattern = torch.randn(3, 2, 6), torch.randn(3, 2, 4)
    context, weights = attention.reader(attention.project(memory), with_weights=True)(queries, last)
    assert weights is not None
    gradients = torch.autograd.grad((context * weighting).sum() + (weights * pattern).sum(), leaves)
    padded = torch.nn.functional.pad(last, (1, 1))
    looked = torch.einsum("bwsk,fk->bwsf", padded.unfold(2, 3, 1), attention.filters[:, 0])
    pairs = attention.query(queries)[:, :, None] + attention.key(memory.states)[:, None] + looked @ attention.place
    expected, expected_weights = by_formula(torch.tanh(pairs) @ attention.energy, memory.states)
    torch.testing.assert_close(context, expected)
    torch.testing.assert_close(weights, expected_weights)
    wanted = torch.autograd.grad((expected * weighting).sum() + (expected_weights * pattern).sum(), leaves)
    for gradient, formula in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, formula, atol=1e-5, rtol=1e-4)


def test_location_needs_steps() -> None:
    with pytest.raises(ValidationError, match="attention location follows its own steps"):
        RecurrentDecoderConfig(attention="location", attend="after", input_feeding=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gate_multiplies_the_context_and_leaves_the_weights(kind: str) -> None:
    """sigmoid(w . q + b) times the context (Xu 2015, 4.2.1), values and every gradient."""
    torch.manual_seed(8)
    attention, gate = make(kind, 0.0), ContextGate(4)
    torch.nn.init.normal_(gate.wanted.bias)
    memory, queries = memory_of(6), torch.randn(3, 2, 4, requires_grad=True)
    plain, weights = read(attention, memory, queries)
    gated, same = gate.reader(attention.reader(attention.project(memory), with_weights=True))(queries, None)
    expected = plain * torch.sigmoid(gate.wanted(queries))
    torch.testing.assert_close(gated, expected)
    torch.testing.assert_close(same, weights)
    leaves = [memory.states, queries, *gate.parameters()]
    ours, theirs = (torch.autograd.grad(value.square().sum(), leaves, retain_graph=True) for value in (gated, expected))
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-4)


def test_a_gate_needs_a_context() -> None:
    with pytest.raises(ValidationError, match="gate true needs attention"):
        RecurrentDecoderConfig(attention="none", gate=True)
