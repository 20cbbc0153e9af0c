"""Each compiled loop answers and differentiates as torch does; what dropout keeps follows from torch's generator."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from transduce.model import fused, products
from transduce.model.attention import hidden_score
from transduce.model.layers import Dropout, FeedForward, LayerNorm
from transduce.model.products import WEIGHT_ROWS, summed_product
from transduce.train.loss import token_loss

KINDS = (torch.float32, torch.bfloat16)
THRESHOLD = 77  # of 256: 30 %


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As without numba."""
    monkeypatch.setattr(fused, "kernels", lambda: None)
    return monkeypatch


def numbers(*shape: int, kind: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Normal numbers that are remembered with their gradient."""
    found = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return found.to(kind).requires_grad_()


def gradients(outputs: Tensor, *inputs: Tensor) -> list[Tensor]:
    """Of a sum in which every output has its own weight."""
    weights = torch.linspace(-1, 1, outputs.numel()).view(outputs.shape)
    return list(torch.autograd.grad((outputs.float() * weights).sum(), inputs))


def close(found: Tensor, wanted: Tensor) -> None:
    """Up to the rounding of the number format."""
    tolerance = 1e-5 if found.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found.float(), wanted.float(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("width", [5, 7, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_norms_are_those_of_torch(kind: torch.dtype, width: int) -> None:
    inputs, weight, bias = numbers(5, 3, width), numbers(width, seed=1), numbers(width, seed=2)
    found = fused.layer_norm(inputs, weight, bias, epsilon=1e-5, kind=kind)
    wanted = functional.layer_norm(inputs, (width,), weight, bias, 1e-5)
    assert found.dtype == kind
    close(found, wanted)
    for ours, torchs in zip(gradients(found, inputs, weight, bias), gradients(wanted, inputs, weight, bias), strict=True):
        close(ours.to(kind), torchs.to(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_sums_without_dropout_are_sums(kind: torch.dtype) -> None:
    inputs, added = numbers(4, 3, 10), numbers(4, 3, 10, kind=kind, seed=1)
    found = fused.add_dropped(inputs, added, 0)
    assert found.dtype == torch.float32 and torch.equal(found, inputs + added.float())
    ours, torchs = gradients(found, inputs, added), gradients(inputs + added, inputs, added)
    assert all(map(torch.equal, ours, torchs)) and ours[1].dtype == kind


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_dropped_has_no_gradient(kind: torch.dtype) -> None:
    inputs = torch.ones(300, 20, dtype=kind, requires_grad=True)
    outputs = fused.dropped(inputs, THRESHOLD)
    kept = outputs != 0
    assert abs(kept.float().mean() - (1 - THRESHOLD / 256)) < 0.02
    assert torch.equal(outputs[kept].unique(), torch.tensor([256 / (256 - THRESHOLD)], dtype=kind))
    (gradient,) = torch.autograd.grad(outputs.sum(), inputs)
    assert torch.equal(gradient, outputs)
    total = fused.add_dropped(torch.zeros(300, 20), inputs, THRESHOLD)
    (gradient,) = torch.autograd.grad(total.sum(), inputs)
    assert torch.equal(gradient, total.to(kind)) and not torch.equal(total != 0, kept)


def test_masks_follow_from_torchs_generator() -> None:
    inputs = torch.ones(8, 16, requires_grad=True)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append([fused.dropped(inputs, THRESHOLD).detach() for _ in range(2)])
    assert torch.equal(runs[0][0], runs[1][0]) and torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][0], runs[0][1]) and not torch.equal(runs[0][0], runs[2][0])


@pytest.mark.parametrize("shape", [(3, 1, 1, 5), (1, 2, 4, 5), (3, 1, 4, 5), (1, 1, 1, 1), None])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_attention_are_those_of_torch(kind: torch.dtype, shape: tuple[int, ...] | None) -> None:
    scores = numbers(3, 2, 4, 5, kind=kind)
    bias = None if shape is None else torch.randn(shape, generator=torch.Generator().manual_seed(3))
    if bias is not None and bias.shape[3] > 1:
        bias[..., 0] = hidden_score(scores)  # the first key is hidden
    found = fused.attention_weights(scores, bias, scale=0.5, threshold=0)
    wanted = torch.softmax(scores.float() * 0.5 + (0 if bias is None else bias), -1)
    assert found.dtype == kind and (bias is None or bias.shape[3] == 1 or not found[..., 0].any())
    close(found, wanted)
    close(gradients(found, scores)[0], gradients(wanted, scores)[0])


def test_dropped_weights_of_attention_have_no_gradient() -> None:
    scores = numbers(6, 2, 9, 11)
    torch.manual_seed(1)
    weights = fused.attention_weights(scores, None, scale=1.0, threshold=THRESHOLD)
    kept, softmax = weights != 0, torch.softmax(scores, -1)
    close(weights[kept], softmax[kept] * 256 / (256 - THRESHOLD))
    wanted = torch.where(kept, softmax * 256 / (256 - THRESHOLD), 0.0)
    close(gradients(weights, scores)[0], gradients(wanted, scores)[0])


def test_extreme_scores() -> None:
    scores = torch.tensor([3e38, -3e38, 0.0, 1e30, hidden_score(torch.zeros(1)), 88.0, -104.0]).view(1, 1, 1, 7).requires_grad_()
    close(fused.attention_weights(scores, None, scale=1.0, threshold=0), torch.softmax(scores, -1))
    hidden = torch.full((1, 1, 1, 3), hidden_score(scores)).requires_grad_()
    close(fused.attention_weights(hidden, None, scale=1.0, threshold=0), torch.full((1, 1, 1, 3), 1 / 3))
    broken = torch.tensor([1.0, math.nan, 2.0]).view(1, 1, 1, 3).requires_grad_()
    assert fused.attention_weights(broken, None, scale=1.0, threshold=0).isnan().all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_rectified_gradients(kind: torch.dtype, dropout: float) -> None:
    block = FeedForward(16, 32, activation="relu", dropout=dropout)
    inputs = numbers(5, 3, 16)
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
        inner = functional.relu(functional.linear(inputs, block.inner.weight, block.inner.bias))
        wanted = functional.linear(inner, block.outer.weight, block.outer.bias)
        found = block.eval()(inputs) if dropout else block(inputs)
    close(found.to(kind), wanted.to(kind))
    close(gradients(found, inputs)[0].to(kind), gradients(wanted, inputs)[0].to(kind))


def test_a_block_is_the_same_without_numba(plain: pytest.MonkeyPatch) -> None:
    """One run with loops, one without: nothing of what a layer computes depends on them."""
    norm, block, drop = LayerNorm(16), FeedForward(16, 32, activation="relu", dropout=0.0), Dropout(0.0)
    inputs = numbers(5, 3, 16)

    def run() -> list[Tensor]:
        outputs = drop.add(inputs, block(norm.before_product(inputs)))
        return [outputs, *gradients(outputs, inputs, *norm.parameters(), *block.parameters())]

    without = run()
    plain.undo()
    assert fused.fuses(inputs)
    for ours, torchs in zip(run(), without, strict=True):
        close(ours, torchs)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_same_without_numba(kind: torch.dtype, smoothing: float, plain: pytest.MonkeyPatch) -> None:
    from transduce.data.batch import Padded
    from transduce.model.heads import TokenHead

    head = TokenHead(12, 33, tied=None)
    hidden, labels = numbers(4, 6, 12), torch.randint(33, (4, 6), generator=torch.Generator().manual_seed(1))
    target = Padded(labels, torch.tensor([6, 3, 1, 5]))

    def run() -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
            sums = token_loss(head, hidden, target, label_smoothing=smoothing)
        found = torch.autograd.grad(sums.loss, (hidden, *head.parameters()))
        return [sums.loss, sums.nll, sums.correct, *found]

    without = run()
    plain.undo()
    for ours, torchs in zip(run(), without, strict=True):
        torch.testing.assert_close(
            ours, torchs, rtol=2e-2 if kind == torch.bfloat16 else 1e-5, atol=2e-2 if kind == torch.bfloat16 else 1e-5
        )


def test_broken_logits_are_seen() -> None:
    logits = torch.tensor([[1.0, math.nan, 2.0], [1.0, 2.0, 3.0]])
    totals, picked, correct = torch.empty(3, 2)
    fused.cross_entropy(logits, torch.tensor([0, 2]), 1.0, filled=(totals, picked, correct), biases=torch.zeros(3))
    assert totals.isnan().tolist() == [True, False] and correct.tolist() == [0, 1] and logits[0].isnan().all()
    close(totals[1:], torch.tensor([1.0, 2.0, 3.0]).logsumexp(0)[None])


@pytest.mark.parametrize("count", [1, WEIGHT_ROWS, WEIGHT_ROWS + 64, 2 * WEIGHT_ROWS + 64])
@pytest.mark.parametrize("tiles", [True, False])
def test_gradients_of_weights_are_sums_of_pieces(count: int, tiles: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "cpu_flags", lambda: frozenset({products.TILES} if tiles else ()))
    outer, rows = numbers(count, 3).detach().bfloat16(), numbers(count, 5, seed=1).detach().bfloat16()
    torch.testing.assert_close(summed_product(outer, rows), outer.float().t() @ rows.float(), rtol=1e-2, atol=0.5)
    close(fused.column_sums(outer), outer.float().sum(0))


def test_loops_are_for_training_in_one_thread() -> None:
    inputs = torch.ones(2, 3)
    assert fused.fuses(inputs) and not fused.fuses(inputs.double()) and not fused.fuses(inputs[:0])
    with torch.no_grad():
        assert not fused.fuses(inputs) and fused.computes(inputs)
    torch.set_num_threads(2)
    try:
        assert not fused.fuses(inputs) and not fused.computes(inputs)
    finally:
        torch.set_num_threads(1)
