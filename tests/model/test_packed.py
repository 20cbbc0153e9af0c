"""Packed float32 products: those of the exact layer, whatever the number of rows."""

import pytest
import torch
from torch import nn

from tests.model.test_int8 import DECODERS, model_with
from transduce.model import packed
from transduce.model.heads import token_head
from transduce.model.packed import FEWEST_ROWS, PackedLinear, PackedProduct, PackedTokenHead, packed_model
from transduce.model.products import FUSED, Linear, has_onednn

pytestmark = pytest.mark.skipif(not (has_onednn() or packed.has_blocks()), reason="oneDNN's packed products are not used on this processor")


@pytest.mark.parametrize("shape", [(1, 64), (FEWEST_ROWS - 1, 64), (FEWEST_ROWS, 64), (7, 3, 64), (130, 64)], ids=str)
@pytest.mark.parametrize("then", FUSED)
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_is_that_of_the_layer(shape: tuple[int, ...], then: str, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "SMALL", 0)
    inputs, linear = torch.randn(*shape), nn.Linear(64, 96, bias=bias)
    with torch.inference_mode():
        found, exact = PackedProduct(linear.weight, linear.bias)(inputs, then=then), FUSED[then](linear(inputs))
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: str(decoder["kind"]))
def test_a_packed_model_is_the_exact_one(decoder: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "FEWEST_WEIGHTS", 64 * 64)
    model = model_with(decoder)
    own = packed_model(model)
    assert any(type(module) is PackedLinear for module in own.modules()) and type(own.head) is PackedTokenHead
    assert not any(type(module) is PackedLinear for module in model.modules())
    assert own.embedding.weight is model.embedding.weight and token_head(own.head).weight is token_head(model.head).weight
    hidden = torch.randn(40, token_head(model.head).weight.shape[1])
    with torch.inference_mode():
        torch.testing.assert_close(own.head(hidden), model.head(hidden), rtol=1e-4, atol=1e-4)


def test_small_layers_stay() -> None:
    assert packed.packed_layer("a", Linear(256, 128)) is None and packed.packed_layer("b", nn.ReLU()) is None
    assert type(packed.packed_layer("c", Linear(256, 768))) is PackedLinear


@pytest.mark.parametrize(
    ("vendor", "onednn", "blocks", "wanted"),
    [
        ("AuthenticAMD", True, False, True),
        ("AuthenticAMD", False, False, False),
        ("GenuineIntel", True, False, False),
        ("", False, True, True),
    ],
)
def test_who_packs_follows_from_the_processor(
    vendor: str, onednn: bool, blocks: bool, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "cpu_vendor", lambda: vendor)
    monkeypatch.setattr(packed, "has_blocks", lambda: blocks)
    monkeypatch.setattr(packed, "has_onednn", lambda: onednn)
    assert packed.packs() is wanted
