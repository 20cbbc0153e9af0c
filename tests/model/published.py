"""Weights as other people publish them, with random numbers: names and shapes of their files, their networks in torch's functions.

Written from torchvision's definition of ResNet (`resnet18`, `resnet34`, `resnet50`) and from Hugging Face's of ViT (whose defaults are
those of `google/vit-base-patch16-224`), not from the networks of the package, so that what both got wrong cannot hide.
"""

import torch
from torch import Tensor
from torch.nn import functional

Shapes = dict[str, tuple[int, ...]]
WIDTHS = (64, 128, 256, 512)
COUNTS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
# Numbers of parameters as published, the classifier of 1,000 classes included.
PARAMETERS = {"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "vit-base-patch16-224": 86_567_656}
VIT_BASE = {"width": 768, "layers": 12, "inner": 3072, "patch": 16, "grid": 14}
CLASSES = 1000


def norm_shapes(name: str, size: int) -> Shapes:
    """A batch norm: scale, shift, statistics, and how many batches they are of."""
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (size,) for part in parts} | {f"{name}.num_batches_tracked": ()}


def convolutions(kind: str, size: int, width: int) -> list[tuple[int, int, int]]:
    """(input, output, kernel) of each convolution of a block."""
    if kind == "resnet50":
        return [(size, width, 1), (width, width, 3), (width, 4 * width, 1)]
    return [(size, width, 3), (width, width, 3)]


def torchvision_shapes(kind: str) -> Shapes:
    """Every tensor of a torchvision ResNet file."""
    shapes: Shapes = {"conv1.weight": (64, 3, 7, 7)} | norm_shapes("bn1", 64)
    size = 64
    for layer, (width, count) in enumerate(zip(WIDTHS, COUNTS[kind], strict=True), start=1):
        for block in range(count):
            place, parts = f"layer{layer}.{block}", convolutions(kind, size, width)
            for number, (inputs, outputs, kernel) in enumerate(parts, start=1):
                shapes[f"{place}.conv{number}.weight"] = (outputs, inputs, kernel, kernel)
                shapes |= norm_shapes(f"{place}.bn{number}", outputs)
            last = parts[-1][1]
            if block == 0 and (layer > 1 or size != last):
                shapes[f"{place}.downsample.0.weight"] = (last, size, 1, 1)
                shapes |= norm_shapes(f"{place}.downsample.1", last)
            size = last
    return shapes | {"fc.weight": (CLASSES, size), "fc.bias": (CLASSES,)}


def torchvision_file(kind: str) -> dict[str, Tensor]:
    """Random weights of an order at which activations neither die nor grow; some variances so small that the norm's epsilon counts."""
    generator = torch.Generator().manual_seed(2)
    stored = {}
    for name, shape in torchvision_shapes(kind).items():
        drawn = torch.randn(shape, generator=generator)
        if len(shape) == 4:
            drawn *= (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        if name.endswith("running_var"):
            drawn = 10 ** (-3 * torch.rand(shape, generator=generator))
        elif name.endswith("num_batches_tracked"):
            drawn = torch.tensor(7)
        elif len(shape) == 1:
            drawn *= 0.1
        stored[name] = drawn
    return stored


def reference_resnet(kind: str, stored: dict[str, Tensor], images: Tensor) -> Tensor:
    """The last grid of a ResNet, before its pooling: convolution, norm, ReLU; the sum before the last ReLU; a 3x3 convolution strides."""

    def normed(inputs: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (stored[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(inputs, mean, variance, weight, bias, training=False, eps=1e-5)

    def convolved(inputs: Tensor, name: str, stride: int) -> Tensor:
        weight = stored[f"{name}.weight"]
        return functional.conv2d(inputs, weight, stride=stride, padding=weight.shape[2] // 2)

    hidden = functional.relu(normed(convolved(images, "conv1", 2), "bn1"))
    hidden = functional.max_pool2d(hidden, 3, stride=2, padding=1)
    for layer, count in enumerate(COUNTS[kind], start=1):
        for block in range(count):
            place, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            strides = (1, stride, 1) if kind == "resnet50" else (stride, 1)
            inner = hidden
            for number, step in enumerate(strides, start=1):
                inner = normed(convolved(inner, f"{place}.conv{number}", step), f"{place}.bn{number}")
                inner = functional.relu(inner) if number < len(strides) else inner
            if f"{place}.downsample.0.weight" in stored:
                hidden = normed(convolved(hidden, f"{place}.downsample.0", stride), f"{place}.downsample.1")
            hidden = functional.relu(inner + hidden)
    return hidden


def vit_shapes(*, width: int, layers: int, inner: int, patch: int, grid: int) -> Shapes:
    """Every tensor of a Hugging Face ViT without its head, as `ViTModel` names them."""
    shapes: Shapes = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.position_embeddings": (1, 1 + grid * grid, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, patch, patch),
        "embeddings.patch_embeddings.projection.bias": (width,),
    }
    for layer in range(layers):
        place = f"encoder.layer.{layer}"
        products = dict.fromkeys([f"attention.attention.{name}" for name in ("query", "key", "value")], (width, width))
        products |= {"attention.output.dense": (width, width), "intermediate.dense": (inner, width), "output.dense": (width, inner)}
        for name, (rows, columns) in products.items():
            shapes |= {f"{place}.{name}.weight": (rows, columns), f"{place}.{name}.bias": (rows,)}
        for name in ("layernorm_before", "layernorm_after"):
            shapes |= {f"{place}.{name}.weight": (width,), f"{place}.{name}.bias": (width,)}
    return shapes | {"layernorm.weight": (width,), "layernorm.bias": (width,)}


def vit_file_shapes(head: str, *, width: int, layers: int, inner: int, patch: int, grid: int) -> Shapes:
    """head: `classifier` = a file of `ViTForImageClassification` (vit-base-patch16-224), `pooler` = one of `ViTModel` (-in21k)."""
    body = vit_shapes(width=width, layers=layers, inner=inner, patch=patch, grid=grid)
    if head == "pooler":
        return body | {"pooler.dense.weight": (width, width), "pooler.dense.bias": (width,)}
    return {f"vit.{name}": shape for name, shape in body.items()} | {"classifier.weight": (CLASSES, width), "classifier.bias": (CLASSES,)}


def vit_file(head: str, *, width: int, layers: int, inner: int, patch: int, grid: int) -> dict[str, Tensor]:
    """Random weights; what enters the first norm is so small that its epsilon counts."""
    generator = torch.Generator().manual_seed(4)
    shapes = vit_file_shapes(head, width=width, layers=layers, inner=inner, patch=patch, grid=grid)
    scales = {name: 1e-3 if "embeddings" in name else 0.3 for name in shapes}
    return {name: torch.randn(shape, generator=generator) * scales[name] for name, shape in shapes.items()}


def reference_vit(stored: dict[str, Tensor], images: Tensor, *, layers: int, heads: int) -> Tensor:
    """The last hidden states of a ViT after its last norm (B, 1 + S, D): norms first, epsilon 1e-12, exact GELU, biases everywhere."""
    names = {name.removeprefix("vit."): tensor for name, tensor in stored.items()}

    def linear(inputs: Tensor, name: str) -> Tensor:
        return functional.linear(inputs, names[f"{name}.weight"], names[f"{name}.bias"])

    def norm(inputs: Tensor, name: str) -> Tensor:
        return functional.layer_norm(inputs, inputs.shape[-1:], names[f"{name}.weight"], names[f"{name}.bias"], 1e-12)

    place = "embeddings.patch_embeddings.projection"
    weight = names[f"{place}.weight"]
    cells = functional.conv2d(images, weight, names[f"{place}.bias"], stride=weight.shape[2]).flatten(2).transpose(1, 2)
    first = names["embeddings.cls_token"].expand(len(images), -1, -1)
    hidden = torch.cat([first, cells], dim=1) + names["embeddings.position_embeddings"]
    for layer in range(layers):
        place = f"encoder.layer.{layer}"
        normed = norm(hidden, f"{place}.layernorm_before")
        parts = (linear(normed, f"{place}.attention.attention.{name}") for name in ("query", "key", "value"))
        query, key, value = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in parts)
        mixed = torch.softmax(query @ key.transpose(2, 3) / query.shape[3] ** 0.5, -1) @ value
        hidden = hidden + linear(mixed.transpose(1, 2).flatten(2), f"{place}.attention.output.dense")
        inner = functional.gelu(linear(norm(hidden, f"{place}.layernorm_after"), f"{place}.intermediate.dense"))
        hidden = hidden + linear(inner, f"{place}.output.dense")
    return norm(hidden, "layernorm")
