import pytest
import torch
from torch import nn

from tests.model.test_int8 import CPU, DECODERS, expect_nearly_the_same, model_with
from transduce.errors import ConfigError
from transduce.model.bfloat16 import BFloat16FeedForward, BFloat16Linear, BFloat16Product, bfloat16_model
from transduce.model.layers import FeedForward
from transduce.model.products import FUSED
from transduce.train.precision import LARGE_MODEL, choose_products


@pytest.mark.parametrize("shape", [(1, 64, 96), (7, 3, 64, 66), (130, 128, 90)], ids=str)
def test_a_product_is_that_of_the_rounded_numbers(shape: tuple[int, ...]) -> None:
    inputs, linear = torch.randn(*shape[:-1]), nn.Linear(shape[-2], shape[-1])
    with torch.inference_mode():
        found = BFloat16Linear(linear)(inputs)
        exact = inputs.bfloat16().float() @ linear.weight.bfloat16().float().t() + linear.bias.bfloat16().float()
    assert found.dtype == torch.float32 and found.shape == exact.shape
    torch.testing.assert_close(found, exact.bfloat16().float(), rtol=2**-7, atol=2**-8)


@pytest.mark.parametrize("then", FUSED)
@pytest.mark.parametrize("bias", [True, False])
def test_packed_and_plain_products_agree(then: str, bias: bool) -> None:
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN has no bfloat16 products on this processor")
    linear, rows = nn.Linear(64, 96, bias=bias), torch.randn(16, 64).bfloat16()
    with torch.inference_mode():
        packed, plain = (BFloat16Product(linear, then=then, packed=kind)(rows) for kind in (True, False))
    torch.testing.assert_close(packed.float(), plain.float(), rtol=2**-6, atol=2**-7)


@pytest.mark.parametrize("activation", ["relu", "gelu", "swish"])
@pytest.mark.parametrize("packed", [None, False])
def test_a_block_is_close_to_the_exact_one(activation: str, packed: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if packed is False:
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    block, inputs = FeedForward(64, 128, activation=activation, dropout=0.0).eval(), torch.randn(3, 5, 64)  # type: ignore[arg-type]
    with torch.inference_mode():
        found, exact = BFloat16FeedForward(block)(inputs), block(inputs)
    assert found.shape == exact.shape and found.dtype == torch.float32
    assert 0 < (found - exact).abs().max() < 0.03 * exact.abs().max()


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: str(decoder["kind"]))
def test_a_bfloat16_model_answers_nearly_as_the_exact_one(decoder: dict[str, object]) -> None:
    model = model_with(decoder)
    rounded = bfloat16_model(model)
    expect_nearly_the_same(model, rounded)
    assert rounded.embedding.weight is model.embedding.weight


def test_blocks_are_replaced_whole_and_gated_ones_layer_by_layer() -> None:
    model = model_with(DECODERS[0])
    kinds = [type(module) for module in bfloat16_model(model).modules()]
    assert kinds.count(BFloat16FeedForward) == 4 and kinds.count(BFloat16Linear) == 2 * 2 + 2 * 4 + 1
    assert not any(isinstance(module, BFloat16Linear | BFloat16FeedForward) for module in model.modules())
    gated = model_with({**DECODERS[0], "activation": "swiglu"})
    kinds = [type(module) for module in bfloat16_model(gated).modules()]
    assert kinds.count(BFloat16FeedForward) == 2 and kinds.count(FeedForward) == 2 and kinds.count(BFloat16Linear) == 13 + 4


def test_auto_takes_bfloat16_where_the_processor_multiplies_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transduce.train.precision.cpu_flags", lambda: frozenset({"amx_bf16", "avx512_bf16"}))
    assert choose_products("auto", device=CPU, num_weights=LARGE_MODEL) == ("bf16", "amx_bf16, avx512_bf16")
    assert choose_products("auto", device=CPU, num_weights=LARGE_MODEL - 1)[0] == "fp32"
    monkeypatch.setattr("transduce.train.precision.cpu_flags", lambda: frozenset({"avx512_bf16"}))
    monkeypatch.setattr("transduce.processor.cpu_flags", lambda: frozenset({"avx512_vnni"}))
    assert choose_products("auto", device=CPU, num_weights=LARGE_MODEL)[0] == "int8"
    monkeypatch.setattr("transduce.train.precision.cpu_flags", lambda: frozenset({"avx2"}))
    kind, reason = choose_products("bf16", device=CPU, num_weights=1)
    assert kind == "bf16" and reason.startswith("asked for, slow")


@pytest.mark.parametrize("kind", ["int8", "bf16"])
def test_rounded_products_on_a_gpu_are_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=f"precision = {kind}: the model is on a GPU"):
        choose_products(kind, device=torch.device("cuda"), num_weights=1)  # type: ignore[arg-type]
