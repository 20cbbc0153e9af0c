"""Linear layers with few sizes: the same outputs and gradients as torch's own in bfloat16, and rows that nobody sees."""

import pytest
import torch
from torch import nn

from transduce.model import products
from transduce.model.products import FLOAT_ROWS, SMALL_STEP, STEP, Linear, padded_count, padded_rows


def outcome(
    layer: nn.Linear, inputs: torch.Tensor, weights: torch.Tensor, *, kind: torch.dtype | None = torch.bfloat16
) -> list[torch.Tensor]:
    """Outputs, and the gradients of their weighted sum, with autocast to `kind`."""
    layer.zero_grad()
    inputs = inputs.clone().requires_grad_()
    with torch.autocast("cpu", kind, enabled=kind is not None):
        outputs = layer(inputs)
    (outputs.float() * weights).sum().backward()
    return [outputs.detach(), *(tensor.grad for tensor in (inputs, *layer.parameters()) if tensor.grad is not None)]


@pytest.mark.parametrize("shape", [(3, 5), (STEP // 2, 3), (2, STEP), (1, 1)])
@pytest.mark.parametrize("bias", [True, False])
def test_same_as_torch_under_autocast(shape: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    own, plain = Linear(24, 40, bias=bias), nn.Linear(24, 40, bias=bias)
    plain.load_state_dict(own.state_dict())
    inputs, weights = torch.randn(*shape, 24), torch.randn(*shape, 40)
    found, wanted = outcome(own, inputs, weights), outcome(plain, inputs, weights)
    assert len(found) == len(wanted) == 3 + bias
    assert found[0].dtype == torch.bfloat16 and found[1].dtype == torch.float32
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("bias", [True, False])
def test_many_float32_rows_by_onednn_are_the_same(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training only: a search keeps the products that it had."""
    monkeypatch.setattr(products, "float_by_onednn", products.has_onednn)
    calls = []
    real = products.product
    monkeypatch.setattr(products, "product", lambda rows, *rest, **more: calls.append(len(rows)) or real(rows, *rest, **more))
    torch.manual_seed(0)
    own, plain = Linear(24, 40, bias=bias), nn.Linear(24, 40, bias=bias)
    plain.load_state_dict(own.state_dict())
    inputs, weights = torch.randn(1, FLOAT_ROWS + 1, 24), torch.randn(1, FLOAT_ROWS + 1, 40)
    found, wanted = outcome(own, inputs, weights, kind=None), outcome(plain, inputs, weights, kind=None)
    assert calls == ([padded_count(FLOAT_ROWS + 1)] * 2 if products.has_onednn() else [])
    assert len(found) == len(wanted) == 3 + bias and found[0].dtype == torch.float32
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    calls.clear()
    with torch.no_grad():
        assert torch.equal(own(inputs), plain(inputs))
    own(inputs[:, 2:])
    assert calls == []


@pytest.mark.parametrize(("vendor", "wanted"), [("AuthenticAMD", True), ("GenuineIntel", False), ("", False)])
def test_who_multiplies_float32_numbers_follows_from_the_processor(vendor: str, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "cpu_vendor", lambda: vendor)
    monkeypatch.setattr(products, "has_onednn", lambda: True)
    products.float_by_onednn.cache_clear()
    assert products.prefers_onednn(torch.randn(2, 3)) is wanted
    assert products.prefers_onednn(torch.randn(2, 3).bfloat16())
    products.float_by_onednn.cache_clear()


def test_outside_autocast_it_is_torchs_own() -> None:
    layer, inputs = Linear(8, 4), torch.randn(3, 8)
    assert torch.equal(layer(inputs), nn.functional.linear(inputs, layer.weight, layer.bias))
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        assert layer(inputs).dtype == torch.float32


def test_products_have_few_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the batch, the number of rows that are multiplied is a multiple."""
    seen = set()
    real = products.product
    monkeypatch.setattr(products, "product", lambda rows, *rest, then: seen.add(len(rows)) or real(rows, *rest, then=then))
    layer = Linear(8, 4)
    with torch.autocast("cpu", torch.bfloat16):
        for count in (1, 15, 17, 60, 65, 100, 127, 129):
            assert layer(torch.randn(count, 8)).shape == (count, 4)
    assert seen == {SMALL_STEP, 2 * SMALL_STEP, 64, 128, 192}


def test_a_result_may_be_changed_in_place() -> None:
    """What a feed-forward block does with its inner activations."""
    layer = Linear(8, 4)
    inputs = torch.randn(5, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        layer(inputs).relu_().sum().backward()
    assert inputs.grad is not None and torch.isfinite(inputs.grad).all()


def test_padding_is_zero_and_whole_rows_are_not_copied() -> None:
    rows = torch.randn(STEP, 3)
    assert padded_rows(rows, torch.float32) is rows
    padded = padded_rows(torch.ones(STEP + 1, 3), torch.bfloat16)
    assert padded.shape == (padded_count(STEP + 1), 3) == (2 * STEP, 3)
    assert float(padded.sum()) == 3 * (STEP + 1)
