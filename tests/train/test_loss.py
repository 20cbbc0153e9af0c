"""The fused loss equals torch's cross_entropy over full logits: value, gradients, masks, scales, tied weights, bf16."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from transduce.data.batch import Padded
from transduce.model.heads import TokenHead
from transduce.train import loss as loss_module
from transduce.train.loss import LossSums, token_loss

WIDTH, WORDS = 12, 37


def example() -> tuple[Tensor, Padded]:
    torch.manual_seed(0)
    lengths = torch.tensor([5, 2, 7, 1])
    return torch.randn(4, 7, WIDTH, requires_grad=True), Padded(torch.randint(0, WORDS, (4, 7)), lengths)


def plain(head: TokenHead, hidden: Tensor, target: Padded, smoothing: float) -> Tensor:
    logits = head(hidden)[target.mask]
    return functional.cross_entropy(logits, target.data[target.mask], label_smoothing=smoothing, reduction="sum")


def gradients(loss: Tensor, hidden: Tensor, head: TokenHead) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [hidden, *head.parameters()]))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("tied_size", [None, WIDTH, 8])
@pytest.mark.parametrize("chunk", [1 << 23, 3 * WORDS])
def test_equals_cross_entropy(smoothing: float, tied_size: int | None, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "CHUNK_ELEMENTS", chunk)
    hidden, target = example()
    tied = None if tied_size is None else nn.Parameter(torch.randn(WORDS, tied_size))
    head = TokenHead(WIDTH, WORDS, tied=tied)
    nn.init.normal_(head.bias)
    expected = plain(head, hidden, target, smoothing)
    sums = token_loss(head, hidden, target, label_smoothing=smoothing)
    assert sums.count == 15
    torch.testing.assert_close(sums.loss, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sums.nll, plain(head, hidden, target, 0.0).detach(), rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients(sums.loss / 3, hidden, head), gradients(expected / 3, hidden, head), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_counts_correct_tokens_and_ignores_padding() -> None:
    hidden, target = example()
    head = TokenHead(WIDTH, WORDS, tied=None)
    sums = token_loss(head, hidden, target, label_smoothing=0.1)
    expected = (head(hidden).argmax(-1) == target.data)[target.mask].sum()
    assert int(sums.correct) == int(expected)
    changed = Padded(torch.where(target.mask, target.data, 1), target.lengths)
    assert torch.equal(token_loss(head, hidden, changed, label_smoothing=0.1).loss, sums.loss)


def test_extreme_logits_stay_finite() -> None:
    hidden, target = example()
    head = TokenHead(WIDTH, WORDS, tied=None)
    sums = token_loss(head, hidden * 1e4, target, label_smoothing=0.0)
    expected = plain(head, hidden * 1e4, target, 0.0)
    torch.testing.assert_close(sums.loss, expected)


def test_bf16_is_close_and_weight_gradient_is_fp32() -> None:
    hidden, target = example()
    head = TokenHead(WIDTH, WORDS, tied=None)
    exact = gradients(plain(head, hidden, target, 0.1), hidden, head)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sums: LossSums = token_loss(head, hidden, target, label_smoothing=0.1)
    rounded = gradients(sums.loss, hidden, head)
    assert sums.loss.dtype == torch.float32
    assert all(tensor.dtype == torch.float32 for tensor in rounded)
    for ours, theirs in zip(rounded, exact, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)


def test_without_gradient_nothing_is_kept() -> None:
    hidden, target = example()
    head = TokenHead(WIDTH, WORDS, tied=None)
    with torch.no_grad():
        sums = token_loss(head, hidden, target, label_smoothing=0.1)
    assert not sums.loss.requires_grad
    torch.testing.assert_close(sums.loss, plain(head, hidden, target, 0.1).detach(), rtol=1e-5, atol=1e-5)
