"""Networks over pictures: stored weights of other people's networks, grids, class tokens, and what is frozen."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from transduce.data.batch import Padded
from transduce.errors import CheckpointError, ConfigError
from transduce.model.cnn import ResNet, SmallCnn
from transduce.model.frontends import Pixels
from transduce.model.images import CnnConfig, ImageFrontend, PatchesConfig
from transduce.train.optim import OptimizerConfig, build_optimizer, set_learning_rate
from transduce.train.pretrained import start_frontend

SQUARE = Pixels(size=32, patch=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
# Published numbers of parameters with the classifier of 1,000 classes.
PARAMETERS = {"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032}
CLASSIFIER = {"resnet18": 513_000, "resnet34": 513_000, "resnet50": 2_049_000}


def pixels(rows: int, size: int = 32) -> Padded:
    data = torch.randint(0, 256, (rows, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return Padded(data, torch.full((rows,), (size // 16) ** 2))


def torchvision_like(network: ResNet) -> dict[str, Tensor]:
    """Random tensors with every name of a torchvision file, counters and classifier too."""
    generator = torch.Generator().manual_seed(2)
    stored = {name: torch.rand(tensor.shape, generator=generator) * 0.05 for name, tensor in network.state_dict().items()}
    counters = {name.replace("running_var", "num_batches_tracked"): torch.tensor(7) for name in stored if name.endswith("running_var")}
    stored.update({name: tensor + 0.5 for name, tensor in stored.items() if name.endswith("running_var")})
    return stored | counters | {"fc.weight": torch.zeros(1000, network.output_size), "fc.bias": torch.zeros(1000)}


@pytest.mark.parametrize("kind", ["resnet18", "resnet34", "resnet50"])
def test_resnets_have_the_published_size_and_names(kind: str) -> None:
    with torch.device("meta"):
        network = ResNet(kind, 32)  # type: ignore[arg-type]
    state = network.state_dict()
    count = sum(tensor.numel() for name, tensor in state.items() if "running" not in name)
    assert count == PARAMETERS[kind] - CLASSIFIER[kind]
    last = "layer4.2.bn3.running_var" if kind == "resnet50" else f"layer4.{1 if kind == 'resnet18' else 2}.bn2.running_var"
    for name in ("conv1.weight", "bn1.running_mean", "layer2.0.downsample.0.weight", "layer2.0.downsample.1.bias", last):
        assert name in state
    assert state["conv1.weight"].shape == (64, 3, 7, 7)
    assert ("layer1.0.downsample.0.weight" in state) == (kind == "resnet50")
    if kind == "resnet50":
        assert state["layer3.0.conv2.weight"].shape == (256, 256, 3, 3) and network.output_size == 2048


def reference_resnet18(stored: dict[str, Tensor], images: Tensor) -> Tensor:
    """The whole ResNet-18 by torch's own functions, from the names of the file."""

    def normed(inputs: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (stored[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(inputs, mean, variance, weight, bias, training=False)

    hidden = functional.relu(normed(functional.conv2d(images, stored["conv1.weight"], stride=2, padding=3), "bn1"))
    hidden = functional.max_pool2d(hidden, 3, stride=2, padding=1)
    for layer in range(1, 5):
        for block in range(2):
            place, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            inner = functional.conv2d(hidden, stored[f"{place}.conv1.weight"], stride=stride, padding=1)
            inner = functional.relu(normed(inner, f"{place}.bn1"))
            inner = normed(functional.conv2d(inner, stored[f"{place}.conv2.weight"], padding=1), f"{place}.bn2")
            if stride == 2:
                hidden = functional.conv2d(hidden, stored[f"{place}.downsample.0.weight"], stride=2)
                hidden = normed(hidden, f"{place}.downsample.1")
            hidden = functional.relu(inner + hidden)
    return hidden


@torch.no_grad()
def test_a_resnet_answers_as_its_file_says(tmp_path: Path) -> None:
    stored = torchvision_like(ResNet("resnet18", 32))
    path = tmp_path / "resnet18.safetensors"
    save_file(stored, path)
    config = CnnConfig(network="resnet18", weights=path)
    frontend = ImageFrontend(config, Pixels(64, 32, SQUARE.mean, SQUARE.std), output_size=5, dropout=0.0)
    start_frontend(frontend, config)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    expected = reference_resnet18(stored, images)
    torch.testing.assert_close(frontend.network(images), expected.flatten(2).transpose(1, 2))
    cut = ResNet("resnet18", 16)
    cut.load_state_dict(cut.named_weights(stored))
    assert cut(images).shape == (2, 16, 256), "cut after the stage whose cells cover 16 pixels"


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    config = CnnConfig(network="resnet34", weights=path)
    frontend = ImageFrontend(config, Pixels(64, 32, SQUARE.mean, SQUARE.std), output_size=5, dropout=0.0)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        start_frontend(frontend, config)
    save_file(torchvision_like(ResNet("resnet18", 32)), path)
    with pytest.raises(CheckpointError, match=r"does not fit model.frontend: layer1.2.conv1.weight \(missing\)"):
        start_frontend(frontend, config)
    for wrong in ({"network": "resnet18"}, {"network": "small", "weights": "x"}, {"widths": (12,)}):
        with pytest.raises(ValueError, match=r"weights|multiples"):
            CnnConfig.model_validate(wrong)
    with pytest.raises(ConfigError, match="3 widths see cells of 16 pixels"):
        ImageFrontend(CnnConfig(), Pixels(32, 8, SQUARE.mean, SQUARE.std), output_size=5, dropout=0.0)


class ReferenceViTLayer(nn.Module):
    """One layer of a ViT as published, written with torch's own modules."""

    def __init__(self, stored: dict[str, Tensor], place: str, heads: int) -> None:
        super().__init__()
        self.stored, self.place, self.heads = stored, place, heads

    def part(self, inputs: Tensor, name: str) -> Tensor:
        return functional.linear(inputs, self.stored[f"{self.place}.{name}.weight"], self.stored[f"{self.place}.{name}.bias"])

    def norm(self, inputs: Tensor, name: str) -> Tensor:
        weight, bias = self.stored[f"{self.place}.{name}.weight"], self.stored[f"{self.place}.{name}.bias"]
        return functional.layer_norm(inputs, weight.shape, weight, bias, 1e-12)

    def forward(self, hidden: Tensor) -> Tensor:
        normed = self.norm(hidden, "layernorm_before")
        heads = [
            self.part(normed, f"attention.attention.{name}").unflatten(2, (self.heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        ]
        mixed = torch.softmax(heads[0] @ heads[1].transpose(2, 3) / heads[0].shape[3] ** 0.5, -1) @ heads[2]
        hidden = hidden + self.part(mixed.transpose(1, 2).flatten(2), "attention.output.dense")
        inner = functional.gelu(self.part(self.norm(hidden, "layernorm_after"), "intermediate.dense"))
        return hidden + self.part(inner, "output.dense")


def vit_like(width: int, *, layers: int, inner: int, patch: int, grid: int) -> dict[str, Tensor]:
    """Random tensors with the names of a Hugging Face ViT for classification."""
    generator = torch.Generator().manual_seed(4)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.position_embeddings": (1, 1 + grid * grid, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, patch, patch),
        "embeddings.patch_embeddings.projection.bias": (width,),
        "layernorm.weight": (width,),
        "layernorm.bias": (width,),
        "pooler.dense.weight": (width, width),
    }
    sizes = {"attention.attention.query": width, "attention.attention.key": width, "attention.attention.value": width}
    for layer in range(layers):
        for name in (*sizes, "attention.output.dense"):
            shapes |= {f"encoder.layer.{layer}.{name}.weight": (width, width), f"encoder.layer.{layer}.{name}.bias": (width,)}
        for name, (rows, columns) in {"intermediate": (inner, width), "output": (width, inner)}.items():
            place = f"encoder.layer.{layer}.{name}.dense"
            shapes |= {f"{place}.weight": (rows, columns), f"{place}.bias": (rows,)}
        for name in ("layernorm_before", "layernorm_after"):
            shapes |= {f"encoder.layer.{layer}.{name}.weight": (width,), f"encoder.layer.{layer}.{name}.bias": (width,)}
    stored = {f"vit.{name}": torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}
    return stored | {"classifier.bias": torch.zeros(3)}


@torch.no_grad()
def test_a_vit_answers_as_its_file_says(tmp_path: Path) -> None:
    stored = vit_like(12, layers=2, inner=20, patch=16, grid=2)
    path = tmp_path / "vit.safetensors"
    save_file(stored, path)
    config = PatchesConfig(width=12, layers=2, heads=3, feed_forward=20, class_token=True, weights=path)
    frontend = ImageFrontend(config, SQUARE, output_size=5, dropout=0.0).eval()
    start_frontend(frontend, config)
    names = {name.removeprefix("vit."): tensor for name, tensor in stored.items()}
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    place = "embeddings.patch_embeddings.projection"
    cells = functional.conv2d(images, names[f"{place}.weight"], names[f"{place}.bias"], stride=16).flatten(2).transpose(1, 2)
    hidden = torch.cat([names["embeddings.cls_token"].expand(2, -1, -1), cells], dim=1) + names["embeddings.position_embeddings"]
    for layer in range(2):
        hidden = ReferenceViTLayer(names, f"encoder.layer.{layer}", 3)(hidden)
    expected = functional.layer_norm(hidden, (12,), names["layernorm.weight"], names["layernorm.bias"], 1e-12)
    torch.testing.assert_close(frontend.network(images), expected, atol=1e-5, rtol=1e-5)
    vectors, lengths = frontend(pixels(2))
    assert vectors.shape == (2, 5, 5) and lengths.tolist() == [5, 5], "the class token is a position of the memory"
    assert frontend.as_written(torch.rand(2, 3, 5), lengths).shape == (2, 3, 4), "but no cell of the picture"


def test_positions_of_a_vit_are_resized_and_files_of_others_refused() -> None:
    config = PatchesConfig(width=12, layers=1, heads=3, feed_forward=20)
    frontend = ImageFrontend(config, Pixels(64, 16, SQUARE.mean, SQUARE.std), output_size=5, dropout=0.0)
    stored = vit_like(12, layers=1, inner=20, patch=16, grid=2)
    frontend.start_from(stored, Path("vit"))
    assert frontend.network.state_dict()["positions"].shape == (1, 16, 12)
    with pytest.raises(CheckpointError, match="must be those of a Hugging Face ViT"):
        frontend.start_from({"conv1.weight": torch.zeros(1)}, Path("vit"))


def test_frozen_networks_learn_nothing_and_slow_ones_less() -> None:
    frontend = ImageFrontend(CnnConfig(widths=(8, 8, 16), frozen=True), SQUARE, output_size=5, dropout=0.0).train()
    vectors, _ = frontend(pixels(2))
    vectors.square().sum().backward()
    assert all(parameter.grad is None for parameter in frontend.network.parameters())
    assert frontend.project.weight.grad is not None and not frontend.network.training
    model = nn.ModuleDict({"frontend": frontend, "head": nn.Linear(2, 2)})
    optimizer = build_optimizer(OptimizerConfig(frontend_learning_rate_scale=0.1, weight_decay=0.5), model)
    set_learning_rate(optimizer, 1.0)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert rates[id(frontend.project.weight)] == pytest.approx(0.1) and rates[id(model["head"].bias)] == 1.0
    assert not {id(parameter) for parameter in frontend.network.parameters()} & set(rates)


@torch.no_grad()
def test_pixels_are_normalised_by_colour_and_batches_do_not_matter() -> None:
    frontend = ImageFrontend(CnnConfig(widths=(8, 16, 16)), SQUARE, output_size=5, dropout=0.0).eval()
    batch = pixels(4)
    together, lengths = frontend(batch)
    alone, _ = frontend(Padded(batch.data[2:3], batch.lengths[2:3]))
    assert together.shape == (4, 4, 5) and lengths.tolist() == [4] * 4
    torch.testing.assert_close(together[2:3], alone)
    mean = torch.tensor(SQUARE.mean).view(3, 1, 1) * 255
    grey = frontend.network((mean.expand(1, 3, 32, 32) / 255 - frontend.mean) / frontend.std)
    torch.testing.assert_close(grey, frontend.network(torch.zeros(1, 3, 32, 32)), atol=1e-5, rtol=0)
    assert SmallCnn((8,))(torch.zeros(1, 3, 8, 8)).shape == (1, 4, 8)
