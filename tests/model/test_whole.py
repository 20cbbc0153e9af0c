"""Products of 16-bit whole numbers are nearly those of float32."""

import pytest
import torch
from torch import nn

from transduce.model.blocked import has_ranking
from transduce.model.whole import Int16Linear

pytestmark = pytest.mark.skipif(not has_ranking(), reason="needs numba and AVX512 VNNI, or one of AMD's processors")


@pytest.mark.parametrize("rows", [1, 6, 97, 130])
@pytest.mark.parametrize(("inner", "outputs"), [(64, 128), (67, 90), (300, 64)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer_is_nearly_as_exact_as_float32(rows: int, inner: int, outputs: int, bias: bool) -> None:
    torch.manual_seed(rows)
    linear, inputs = nn.Linear(inner, outputs, bias=bias), torch.randn(rows, inner)
    layer = Int16Linear(linear.weight, linear.bias)
    exact = inputs.double() @ linear.weight.double().t() + (0 if linear.bias is None else linear.bias.double())
    with torch.inference_mode():
        off = (layer(inputs) - exact).abs().max() / exact.abs().max()
        assert 0 < off < 2e-4
        torch.testing.assert_close(layer(inputs[:, None], then="relu"), layer(inputs)[:, None].relu())
        torch.testing.assert_close(layer(inputs, then="gelu"), nn.functional.gelu(layer(inputs)))
        inputs[0, 5] = float("nan")
        found = layer(inputs, then="relu")
        assert found[0].isnan().all() and found[1:].isfinite().all()
    assert torch.equal(layer(inputs[1:]), linear(inputs[1:]))  # somebody may differentiate this
