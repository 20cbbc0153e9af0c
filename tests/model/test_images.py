"""Networks over pictures: stored weights of other people's networks, grids, class tokens, and what is frozen."""

import math
from pathlib import Path

import pytest
import torch
from published import (
    PARAMETERS,
    VIT_BASE,
    Shapes,
    reference_resnet,
    reference_vit,
    torchvision_file,
    torchvision_shapes,
    vit_file,
    vit_file_shapes,
)
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from transduce.data.batch import Padded
from transduce.errors import CheckpointError, ConfigError
from transduce.model.cnn import CnnKind, ResNet, SmallCnn
from transduce.model.frontends import Pixels
from transduce.model.images import CnnConfig, ImageFrontend, PatchesConfig
from transduce.model.vit import PatchNetwork
from transduce.train.optim import OptimizerConfig, build_optimizer, set_learning_rate
from transduce.train.pretrained import start_frontend

SQUARE = Pixels(size=32, patch=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
TINY_VIT = {"width": 12, "layers": 2, "inner": 20, "patch": 16}


def pixels(rows: int, size: int = 32) -> Padded:
    data = torch.randint(0, 256, (rows, 3, size, size), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    return Padded(data, torch.full((rows,), (size // 16) ** 2))


def meta(shapes: Shapes) -> dict[str, Tensor]:
    """Tensors of these shapes that hold nothing."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def num_parameters(shapes: Shapes) -> int:
    """Statistics of norms are no parameters."""
    return sum(math.prod(shape) for name, shape in shapes.items() if "running" not in name and "tracked" not in name)


@pytest.mark.parametrize("kind", ["resnet18", "resnet34", "resnet50"])
def test_every_tensor_of_a_torchvision_file_has_its_place(kind: str) -> None:
    """All names and shapes are taken, none is missing; what is left are the classifier and the counters."""
    shapes = torchvision_shapes(kind)
    assert num_parameters(shapes) == PARAMETERS[kind]
    with torch.device("meta"):
        network = ResNet(kind, 32)  # type: ignore[arg-type]
    taken = {name: tuple(tensor.shape) for name, tensor in network.named_weights(meta(shapes)).items()}
    assert taken == {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    left = shapes.keys() - taken.keys()
    assert left == {"fc.weight", "fc.bias"} | {name for name in shapes if name.endswith("num_batches_tracked")}
    assert network.output_size == (2048 if kind == "resnet50" else 512)


@pytest.mark.parametrize(("head", "left"), [("classifier", 768 * 1000 + 1000), ("pooler", 768 * 768 + 768)])
def test_every_tensor_of_a_vit_base_file_has_its_place(head: str, left: int) -> None:
    """The sizes of google/vit-base-patch16-224 (classifier) and of its relative without one; 224 pixels are 14 x 14 patches."""
    shapes = vit_file_shapes(head, **VIT_BASE)
    assert head == "pooler" or num_parameters(shapes) == PARAMETERS["vit-base-patch16-224"]
    config = PatchesConfig(width=768, layers=12, heads=12, feed_forward=3072, class_token=True, weights=Path("x"))
    with torch.device("meta"):
        frontend = ImageFrontend(config, Pixels(224, 16, SQUARE.mean, SQUARE.std), output_size=8, dropout=0.0)
    network = frontend.network
    assert isinstance(network, PatchNetwork)
    taken = {name: tuple(tensor.shape) for name, tensor in network.named_weights(meta(shapes)).items()}
    assert taken == {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert sum(map(math.prod, taken.values())) == num_parameters(shapes) - left, "nothing else is left over"


@pytest.mark.parametrize("kind", ["resnet18", "resnet34", "resnet50"])
@torch.no_grad()
def test_a_resnet_answers_as_its_file_says(kind: CnnKind, tmp_path: Path) -> None:
    stored = torchvision_file(kind)
    path = tmp_path / f"{kind}.safetensors"
    save_file(stored, path)
    config = CnnConfig(network=kind, weights=path)
    frontend = ImageFrontend(config, Pixels(64, 32, SQUARE.mean, SQUARE.std), output_size=5, dropout=0.0)
    start_frontend(frontend, config)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    expected = reference_resnet(kind, stored, images)
    assert 0.05 < (expected == 0).float().mean() < 0.95, "the last ReLU must have something to do"
    difference = frontend.network(images) - expected.flatten(2).transpose(1, 2)
    assert difference.abs().max() < 1e-4 * expected.abs().max()


@torch.no_grad()
def test_a_resnet_may_be_cut_before_its_end() -> None:
    cut = ResNet("resnet18", 16)
    cut.load_state_dict(cut.named_weights(torchvision_file("resnet18")))
    assert cut(torch.rand(2, 3, 64, 64)).shape == (2, 16, 256), "cut after the stage whose cells cover 16 pixels"


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    config = CnnConfig(network="resnet34", weights=path)
    frontend = ImageFrontend(config, Pixels(64, 32, SQUARE.mean, SQUARE.std), output_size=5, dropout=0.0)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        start_frontend(frontend, config)
    save_file(torchvision_file("resnet18"), path)
    with pytest.raises(CheckpointError, match=r"does not fit model.frontend: layer1.2.conv1.weight \(missing\)"):
        start_frontend(frontend, config)
    for wrong in ({"network": "resnet18"}, {"network": "small", "weights": "x"}, {"widths": (12,)}):
        with pytest.raises(ValueError, match=r"weights|multiples"):
            CnnConfig.model_validate(wrong)
    with pytest.raises(ConfigError, match="3 widths see cells of 16 pixels"):
        ImageFrontend(CnnConfig(), Pixels(32, 8, SQUARE.mean, SQUARE.std), output_size=5, dropout=0.0)


@pytest.mark.parametrize("head", ["classifier", "pooler"])
@torch.no_grad()
def test_a_vit_answers_as_its_file_says(head: str, tmp_path: Path) -> None:
    stored = vit_file(head, **TINY_VIT, grid=2)
    path = tmp_path / "vit.safetensors"
    save_file(stored, path)
    config = PatchesConfig(width=12, layers=2, heads=3, feed_forward=20, class_token=True, weights=path)
    frontend = ImageFrontend(config, SQUARE, output_size=5, dropout=0.0).eval()
    start_frontend(frontend, config)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    expected = reference_vit(stored, images, layers=2, heads=3)
    torch.testing.assert_close(frontend.network(images), expected, atol=1e-5, rtol=1e-5)
    vectors, lengths = frontend(pixels(2))
    assert vectors.shape == (2, 5, 5) and lengths.tolist() == [5, 5], "the class token is a position of the memory"
    assert frontend.as_written(torch.rand(2, 3, 5), lengths).shape == (2, 3, 4), "but no cell of the picture"


def test_positions_of_a_vit_are_resized_and_files_of_others_refused() -> None:
    config = PatchesConfig(width=12, layers=2, heads=3, feed_forward=20)
    frontend = ImageFrontend(config, Pixels(64, 16, SQUARE.mean, SQUARE.std), output_size=5, dropout=0.0)
    stored = vit_file("classifier", **TINY_VIT, grid=2)
    frontend.start_from(stored, Path("vit"))
    square = stored["vit.embeddings.position_embeddings"][:, 1:].unflatten(1, (2, 2)).permute(0, 3, 1, 2)
    wanted = functional.interpolate(square, (4, 4), mode="bicubic", align_corners=False).permute(0, 2, 3, 1).flatten(1, 2)
    torch.testing.assert_close(frontend.network.state_dict()["positions"], wanted)
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
