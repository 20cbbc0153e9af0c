"""Linear layers with few sizes: the same outputs and gradients as torch's own in bfloat16, and rows that nobody sees."""

import pytest
import torch
from torch import nn

from transduce.model import products
from transduce.model.padded import SMALL_STEP, STEP
from transduce.model.products import FEWEST_ROWS, Linear


def outcome(layer: nn.Linear, inputs: torch.Tensor, weights: torch.Tensor) -> list[torch.Tensor]:
    """Outputs, and the gradients of their weighted sum."""
    layer.zero_grad()
    inputs = inputs.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
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


def test_outside_autocast_it_is_torchs_own() -> None:
    layer, inputs = Linear(8, 4), torch.randn(3, 8)
    assert torch.equal(layer(inputs), nn.functional.linear(inputs, layer.weight, layer.bias))
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        assert layer(inputs).dtype == torch.float32


def test_many_float32_rows_in_training_go_to_onednn_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same outputs and gradients as torch's own layer."""
    if not products.has_onednn():
        pytest.skip("oneDNN multiplies no bfloat16 numbers here")
    seen = []
    real = products.product
    monkeypatch.setattr(products, "product", lambda rows, *rest, **how: seen.append(len(rows)) or real(rows, *rest, **how))
    monkeypatch.setattr(products, "cpu_vendor", lambda: "AuthenticAMD")
    layer, inputs = Linear(24, 40), torch.randn(FEWEST_ROWS + 3, 24, requires_grad=True)
    found, wanted = layer(inputs), nn.functional.linear(inputs, layer.weight, layer.bias)
    torch.testing.assert_close(found, wanted)
    both = [torch.autograd.grad(one.square().sum(), [inputs, *layer.parameters()]) for one in (found, wanted)]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    assert seen == 2 * [FEWEST_ROWS + STEP]  # forward, and back to the inputs
    layer(inputs[:-4])
    with torch.no_grad():
        layer(inputs)
    monkeypatch.setattr(products, "cpu_vendor", lambda: "GenuineIntel")
    monkeypatch.setattr(products, "has_blocks", lambda: False)
    layer(inputs)
    assert len(seen) == 2


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


@pytest.mark.parametrize(("vendor", "wanted"), [("AuthenticAMD", True), ("GenuineIntel", False), ("", False)])
def test_who_multiplies_float32_numbers_follows_from_the_processor(vendor: str, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "cpu_vendor", lambda: vendor)
    monkeypatch.setattr(products, "has_onednn", lambda: True)
    assert products.prefers_onednn(torch.randn(2, 3)) is wanted
    assert products.prefers_onednn(torch.randn(2, 3).bfloat16()) and not products.prefers_onednn(torch.randn(2, 3).double())
    monkeypatch.setattr(products, "has_onednn", lambda: False)
    assert not products.prefers_onednn(torch.randn(2, 3).bfloat16())


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_both_ways_of_a_product_are_the_same(kind: torch.dtype) -> None:
    if not products.has_onednn():
        pytest.skip("oneDNN multiplies no bfloat16 numbers here")
    rows, matrix, bias, outer = (torch.randn(*size).to(kind) for size in ((64, 24), (40, 24), (40,), (64, 40)))
    tolerance = {"rtol": 0.02, "atol": 0.1} if kind == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    one, other = (products.product(rows, matrix, bias, by_onednn=way) for way in (True, False))
    torch.testing.assert_close(one, other, **tolerance)
    one, other = (products.back_product(outer, matrix, by_onednn=way) for way in (True, False))
    torch.testing.assert_close(one, other, **tolerance)
