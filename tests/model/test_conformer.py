"""The Conformer: its convolution against torch's, its modules in the paper's order, settings that cannot work."""

import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from transduce.model.conformer import ConformerConfig, ConformerEncoder, ConvolutionModule
from transduce.model.depthwise import DepthwiseConvolution

TINY = {"width": 8, "heads": 2, "feed_forward": 12, "layers": 2, "kernel_size": 5}


@pytest.mark.parametrize("length", [1, 3, 9])
@pytest.mark.parametrize("kernel_size", [1, 5])
def test_convolution_and_its_gradients_are_those_of_conv1d(length: int, kernel_size: int) -> None:
    torch.manual_seed(1)
    layer = DepthwiseConvolution(6, kernel_size)
    nn.init.normal_(layer.bias)
    inputs, weight = torch.randn(2, length, 6, requires_grad=True), layer.weight.detach().clone().requires_grad_()
    same, gradient = inputs.detach().clone().requires_grad_(), torch.randn(2, length, 6)
    outputs = layer(inputs)
    expected = functional.conv1d(same.transpose(1, 2), weight[:, None], layer.bias.detach(), padding=kernel_size // 2, groups=6)
    torch.testing.assert_close(outputs, expected.transpose(1, 2))
    outputs.backward(gradient)
    expected.transpose(1, 2).backward(gradient)
    torch.testing.assert_close(inputs.grad, same.grad)
    torch.testing.assert_close(layer.weight.grad, weight.grad)
    torch.testing.assert_close(layer.bias.grad, gradient.sum((0, 1)))


def test_bfloat16_comes_close() -> None:
    torch.manual_seed(1)
    layer, inputs = DepthwiseConvolution(6, 5), torch.randn(2, 9, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = layer(inputs)
        narrow.float().square().sum().backward()
    assert narrow.dtype == torch.bfloat16
    close, layer.weight.grad = layer.weight.grad, None
    outputs = layer(inputs)
    outputs.square().sum().backward()
    torch.testing.assert_close(narrow.float(), outputs, atol=0.05, rtol=0.05)
    torch.testing.assert_close(close, layer.weight.grad, atol=0.5, rtol=0.05)


def test_a_layer_is_the_papers() -> None:
    """Gulati 2020, 2.4: x + FFN / 2, x + attention, x + convolution, x + FFN / 2, norm."""
    torch.manual_seed(1)
    encoder = ConformerEncoder(ConformerConfig(**TINY, positions="sinusoidal"), 8).eval()
    layer, inputs = encoder.layers[0], torch.randn(2, 7, 8)
    bias = torch.zeros(1, 1, 1, 7)
    hidden = inputs + layer.first(layer.first_residual.norm(inputs)) / 2
    hidden = hidden + layer.attention(layer.attention_residual.norm(hidden), bias=bias)
    normed = layer.convolution_residual.norm(hidden)
    values, gates = layer.convolution.gated(normed).chunk(2, dim=-1)
    mixed = layer.convolution.depthwise(values * gates.sigmoid())
    mixed = layer.convolution.norm(mixed)
    hidden = hidden + layer.convolution.output(mixed * mixed.sigmoid())
    hidden = layer.norm(hidden + layer.second(layer.second_residual.norm(hidden)) / 2)
    torch.testing.assert_close(layer(inputs, bias=bias, rotation=None, padding=None), hidden)
    assert layer.first.activation == "swish"


def test_the_convolution_sees_zeros_at_padding() -> None:
    torch.manual_seed(1)
    module, inputs = ConvolutionModule(ConformerConfig(**TINY)), torch.randn(1, 6, 8)
    padding = torch.tensor([False, False, False, False, True, True])[None, :, None]
    torch.testing.assert_close(module(inputs, padding)[:, :4], module(inputs[:, :4], None))


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ValidationError, match="kernel_size 4 must be odd"):
        ConformerConfig(kernel_size=4)
    with pytest.raises(ValidationError, match="norm_place"):
        ConformerConfig.model_validate({"norm_place": "pre"})
    assert "norm_place" not in ConformerConfig().model_dump() and ConformerConfig().norm_place == "pre"
    with pytest.raises(ValidationError, match="even head width"):
        ConformerConfig(width=12, heads=4)
    with pytest.raises(ValidationError, match="must divide width"):
        ConformerConfig(width=10, heads=4)


def test_a_convolution_in_bfloat16_ends_for_every_shape() -> None:
    """oneDNN writes kernels for ever for some shapes of bfloat16, so the process that tries them is given a minute."""
    shapes = [(5, 38, 144, 15), (1, 150, 144, 15), (3, 40, 16, 15), (3, 36, 80, 15)]
    code = (
        "import torch\n"
        "from transduce.model.depthwise import DepthwiseConvolution\n"
        "torch.set_num_threads(2)\n"
        f"for batch, length, size, kernel_size in {shapes}:\n"
        "    inputs = torch.randn(batch, length, size, requires_grad=True)\n"
        "    with torch.autocast('cpu', torch.bfloat16):\n"
        "        outputs = DepthwiseConvolution(size, kernel_size)(inputs)\n"
        "    outputs.float().sum().backward()\n"
        "    print(tuple(inputs.grad.shape), outputs.dtype)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [f"{shape[:3]} torch.bfloat16" for shape in shapes]
