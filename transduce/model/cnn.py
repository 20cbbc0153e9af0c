"""Convolutional networks that see a picture as a grid of vectors: ResNets with stored weights, and a small one to learn from scratch.

In: normalised pixels (B, 3, H, W). Out: (B, S, C), the cells of the last grid row by row. The decision to question: no layer looks at
other pictures of the batch. A ResNet's batch norms keep the statistics of their weights file (frozen, and their scales with them), and
the small network normalises groups of channels (Wu & He 2018), so that an answer does not depend on what else is in the batch, and
accumulated micro-batches equal one large batch. Measured on a CPU with bf16 instructions: plain (B, C, H, W) order under bf16 autocast
takes half the time of fp32, and is no slower than channels-last, which group norms do not like.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

CnnKind = Literal["small", "resnet18", "resnet34", "resnet50"]
BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
WIDTHS = (64, 128, 256, 512)
FIRST_STRIDE = 4  # of the first stage of every network here; each further stage halves the grid
GROUPS = 8


class FrozenBatchNorm(nn.Module):
    """Batch norm (Ioffe & Szegedy 2015) that always uses its stored statistics; nothing in it learns. (B, C, H, W) -> the same."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        for name, start in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((size,), start))

    def forward(self, inputs: Tensor) -> Tensor:
        """One multiplication and one addition per channel."""
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift.to(inputs.dtype)[:, None, None], inputs, scale.to(inputs.dtype)[:, None, None])


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a way around them (He 2016, figure 5, left)."""

    expansion = 1

    def __init__(self, input_size: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(input_size, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = FrozenBatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = FrozenBatchNorm(width)
        self.downsample = _shortcut(input_size, width, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, width, H / stride, W / stride)."""
        hidden = functional.relu(self.bn1(self.conv1(inputs)))
        return functional.relu(self.bn2(self.conv2(hidden)) + self.downsample(inputs))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a way around them (He 2016, figure 5, right); the 3x3 one strides, as in torchvision's weights."""

    expansion = 4

    def __init__(self, input_size: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(input_size, width, 1, bias=False)
        self.bn1 = FrozenBatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = FrozenBatchNorm(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = FrozenBatchNorm(4 * width)
        self.downsample = _shortcut(input_size, 4 * width, stride)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4 * width, H / stride, W / stride)."""
        hidden = functional.relu(self.bn1(self.conv1(inputs)))
        hidden = functional.relu(self.bn2(self.conv2(hidden)))
        return functional.relu(self.bn3(self.conv3(hidden)) + self.downsample(inputs))


class ResNet(nn.Module):
    """ResNet (He 2016) without its classifier, cut where one cell of the grid covers `patch` pixels; names as in torchvision's weights.

    patch: 4, 8, 16 or 32 (the whole network).
    """

    def __init__(self, kind: Literal["resnet18", "resnet34", "resnet50"], patch: int) -> None:
        super().__init__()
        block = Bottleneck if kind == "resnet50" else BasicBlock
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = FrozenBatchNorm(64)
        self.num_stages = num_stages(patch)
        size = 64
        for stage in range(self.num_stages):
            width, blocks = WIDTHS[stage], []
            for number in range(BLOCKS[kind][stage]):
                blocks.append(block(size, width, 2 if stage and not number else 1))
                size = width * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.output_size = size

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, S, C)."""
        grid = functional.relu(self.bn1(self.conv1(pixels)))
        grid = functional.max_pool2d(grid, 3, stride=2, padding=1)
        for stage in range(self.num_stages):
            grid = self.get_submodule(f"layer{stage + 1}")(grid)
        return cells(grid)

    def named_weights(self, stored: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a torchvision file that this network has; the classifier, counters and stages beyond the cut are left out."""
        unused = tuple(f"layer{stage + 1}." for stage in range(self.num_stages, len(WIDTHS)))
        beyond = ("fc.", *unused)
        return {name: tensor for name, tensor in stored.items() if not name.startswith(beyond) and not name.endswith("num_batches_tracked")}


class SmallCnn(nn.Module):
    """For training from scratch on small pictures: a 4x4 stem that strides by 4, then stages that halve the grid.

    Each stage is a strided convolution and a residual 3x3 one, with group norms. widths: channels of each stage, multiples of 8.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        sizes = [3, *widths]
        strides = [FIRST_STRIDE] + [2] * (len(widths) - 1)
        self.stages = nn.Sequential(*(Stage(size, width, stride) for size, width, stride in zip(sizes, widths, strides, strict=False)))
        self.output_size = widths[-1]

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, S, C)."""
        return cells(self.stages(pixels))


class Stage(nn.Module):
    """A strided convolution (its kernel as wide as its stride, at least 3) and a residual one. (B, C, H, W) -> (B, width, H / s, W / s)."""

    def __init__(self, input_size: int, width: int, stride: int) -> None:
        super().__init__()
        kernel = max(stride, 3)
        self.down = nn.Conv2d(input_size, width, kernel, stride=stride, padding=(kernel - stride + 1) // 2, bias=False)
        self.down_norm = nn.GroupNorm(GROUPS, width)
        self.mix = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.mix_norm = nn.GroupNorm(GROUPS, width)
        for convolution in (self.down, self.mix):
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, width, H / stride, W / stride)."""
        hidden = functional.relu(self.down_norm(self.down(inputs)))
        return functional.relu(hidden + self.mix_norm(self.mix(hidden)))


def num_stages(patch: int) -> int:
    """Stages after which one cell of the grid covers `patch` pixels: 4 -> 1, 8 -> 2, 16 -> 3, 32 -> 4."""
    return (patch // FIRST_STRIDE).bit_length()


def cells(grid: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h * w, C), row by row."""
    return grid.flatten(2).transpose(1, 2)


def _shortcut(input_size: int, output_size: int, stride: int) -> nn.Module:
    """The identity, or a 1x1 convolution where the sizes differ."""
    if stride == 1 and input_size == output_size:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(input_size, output_size, 1, stride=stride, bias=False), FrozenBatchNorm(output_size))
