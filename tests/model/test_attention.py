"""Multi-head attention: equal to the formula written out, for grouped heads, masks, dropout and the cache."""

import math

import pytest
import torch
from torch import Tensor

from transduce.model.attention import (
    Attend,
    CrossAttention,
    HeadLayout,
    KeyValueCache,
    MemoryProjection,
    SelfAttention,
    causal_bias,
    padding_bias,
)

B, T, S, H, K = 2, 3, 5, 4, 6


def by_hand(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The formula, one head after another; each query head reads the key head of its group."""
    repeats = queries.shape[1] // keys.shape[1]
    outputs, weights = [], []
    for head in range(queries.shape[1]):
        scores = queries[:, head] @ keys[:, head // repeats].transpose(1, 2) / math.sqrt(queries.shape[3])
        shown = torch.softmax(scores + bias[:, min(head, bias.shape[1] - 1)], dim=-1)
        weights.append(shown)
        outputs.append(shown @ values[:, head // repeats])
    return torch.stack(outputs, dim=2).flatten(2), torch.stack(weights).mean(dim=0)


@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("shape", [(B, 1, 1, S), (1, 1, T, S), (1, H, T, S), (B, H, T, S)])
@pytest.mark.parametrize("grad", [False, True])
def test_equals_the_formula(groups: int, shape: tuple[int, ...], grad: bool) -> None:
    torch.manual_seed(1)
    queries = torch.randn(B, H, T, K, requires_grad=grad)
    keys, values = torch.randn(2, B, groups, S, K, requires_grad=grad).unbind(0)
    bias = torch.randn(shape, requires_grad=grad)
    expected, expected_weights = by_hand(queries, keys, values, bias)
    mixed, weights = Attend(0.0)(queries, keys, values, bias=bias)
    shown_mixed, shown = Attend(0.0)(queries, keys, values, bias=bias, with_weights=True)
    assert weights is None
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(shown_mixed, expected)
    torch.testing.assert_close(shown, expected_weights)


@pytest.mark.parametrize("groups", [4, 2])
def test_gradients_equal_the_formula(groups: int) -> None:
    torch.manual_seed(2)
    inputs = [torch.randn(B, heads, length, K, dtype=torch.float64) for heads, length in ((H, T), (groups, S), (groups, S))]
    bias = padding_bias(torch.tensor([[True] * 5, [True] * 3 + [False] * 2]), inputs[0])
    weight = torch.randn(B, T, H * K, dtype=torch.float64)

    def gradients(dropout: float, written_out: bool) -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        attend = Attend(dropout).train()
        output = by_hand(*leaves, bias)[0] if written_out else attend(*leaves, bias=bias)[0]
        return list(torch.autograd.grad((output * weight).sum(), leaves))

    for ours, theirs in zip(gradients(0.0, False), gradients(0.0, True), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_dropout_of_weights_keeps_the_mean_and_only_acts_in_training() -> None:
    torch.manual_seed(3)
    queries, keys = torch.zeros(1, 1, 2000, 8), torch.randn(1, 1, 16, 8)
    values = torch.ones(1, 1, 16, 8)
    attend = Attend(0.25)
    dropped, _ = attend(queries, keys, values, bias=None)
    assert dropped.std() > 0.05
    assert dropped.mean() == pytest.approx(1.0, abs=0.02)
    torch.testing.assert_close(attend.eval()(queries, keys, values, bias=None)[0], torch.ones(1, 2000, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_hidden_keys_get_exactly_nothing_and_nothing_overflows(dtype: torch.dtype) -> None:
    mask = torch.tensor([[True, True, False]])
    like = torch.zeros(1, dtype=dtype)
    bias = padding_bias(mask, like) + padding_bias(mask, like) + causal_bias(3, like)
    assert bias.to(dtype).isfinite().all()
    weights = torch.softmax(bias, dim=-1)
    assert (weights[..., 2] == 0).all()
    assert weights[0, 0, 0].tolist() == [1, 0, 0]
    assert weights[0, 0, 1].tolist() == [0.5, 0.5, 0]


@pytest.mark.parametrize("groups", [4, 2])
def test_one_product_for_all_layers_equals_separate_ones(groups: int) -> None:
    layout = HeadLayout(16, 4, groups)
    projection = MemoryProjection(10, layout, layers=3)
    states, mask = torch.randn(B, S, 10), torch.ones(B, S, dtype=torch.bool)
    bias, *keys = projection(states, mask)
    assert bias.shape == (B, 1, 1, S)
    assert len(keys) == 6
    size = layout.key_size
    for part, key in enumerate(keys):
        assert key.shape == (B, groups, S, 4)
        alone = states @ projection.linear.weight[part * size : (part + 1) * size].T
        torch.testing.assert_close(key.transpose(1, 2).flatten(2), alone)


def test_cross_attention_of_another_input_width() -> None:
    layout = HeadLayout(16, 4, 4)
    keys = MemoryProjection(10, layout, layers=2)(torch.randn(B, S, 10), torch.tensor([[True] * 5, [True] * 2 + [False] * 3]))
    output, weights = CrossAttention(7, layout, dropout=0.0)(torch.randn(B, T, 7), keys, layer=1, with_weights=True)
    assert output.shape == (B, T, 16)
    assert weights is not None
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, T))
    assert (weights[1, :, 2:] == 0).all()


def test_cache_grows_and_keeps_what_was_written() -> None:
    layout = HeadLayout(8, 2, 1)
    attention = SelfAttention(layout, dropout=0.0)
    inputs = torch.randn(3, 40, 8)
    whole = attention(inputs, bias=causal_bias(40, inputs))
    cache = KeyValueCache.empty(3, layout, layers=1, like=inputs)
    with torch.inference_mode():
        for position in range(40):
            cache = cache.opened(position, torch.float32)
            output = attention.step(inputs[:, position : position + 1], cache=cache, layer=0, bias=None)
            torch.testing.assert_close(output[:, 0], whole[:, position])


def test_a_cache_position_that_is_written_twice_is_copied() -> None:
    layout = HeadLayout(8, 2, 2)
    start = KeyValueCache.empty(2, layout, layers=1, like=torch.zeros(1)).opened(0, torch.float32)
    start.write(0, torch.zeros(2, 4, 4))
    with torch.inference_mode():
        first, second = start.opened(1, torch.float32), start.opened(1, torch.float32)
        first.write(0, torch.ones(2, 4, 4))
        second.write(0, torch.full((2, 4, 4), 2.0))
    assert first.buffer[0, 0, 0, 0, :2, 0].tolist() == [0, 1]
    assert second.buffer[0, 0, 0, 0, :2, 0].tolist() == [0, 2]
