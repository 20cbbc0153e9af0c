"""Pictures to vectors: a network over the pixels, a projection to the width of the embeddings, and where each cell stands.

In: `Padded` pixels (B, 3, H, W) uint8, all of one size. Out: vectors (B, S, E), cells row by row. The decision to question: the front-end
gives each cell a learned position of its own, whatever the encoder does, because "left of" cannot be said without it; with the encoder
kind `none` its vectors are the memory as they are.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from transduce.data.batch import Padded
from transduce.errors import CheckpointError, ConfigError
from transduce.model.cnn import FIRST_STRIDE, GROUPS, CnnKind, ResNet, SmallCnn
from transduce.model.frontends import Pixels
from transduce.model.layers import Dropout
from transduce.model.products import Linear
from transduce.model.stack import check_heads
from transduce.model.transformer import TransformerConfig
from transduce.model.vit import PatchNetwork
from transduce.settings import Settings


class CnnConfig(Settings):
    """A convolutional network over the pixels; one vector for each cell of its last grid."""

    kind: Literal["cnn"] = "cnn"
    network: CnnKind = "small"
    """small: group norms, for training from scratch. resnet18, resnet34, resnet50 (He 2016): with `weights`, batch norms
    as stored there."""
    widths: tuple[int, ...] = Field(default=(48, 96, 192), min_length=1)
    """Channels of each stage of the small network, multiples of 8; the first stage strides by 4, each other one by 2."""
    weights: Path | None = None
    """A safetensors file with the names of torchvision's ResNets, to start from. The classifier in it is left out."""
    frozen: bool = False
    """The network keeps its weights; only the projection after it learns."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.network == "small" and self.weights is not None:
            raise ValueError("weights are for a resnet; the small network is trained from scratch")
        if self.network != "small" and self.weights is None:
            raise ValueError(f"network {self.network} needs weights: its batch norms keep the statistics of a weights file")
        if any(width % GROUPS for width in self.widths):
            raise ValueError(f"widths must be multiples of {GROUPS}")
        return self

    def patch_problem(self, patch: int) -> str | None:
        """Why the network cannot see cells of `patch` pixels."""
        if self.network != "small":
            return None if patch in (4, 8, 16, 32) else "a resnet sees cells of 4, 8, 16 or 32 pixels"
        own = FIRST_STRIDE << (len(self.widths) - 1)
        return None if own == patch else f"{len(self.widths)} widths see cells of {own} pixels (each width more doubles them)"


class PatchesConfig(Settings):
    """Patches of pixels, projected (Dosovitskiy 2021), and on request Transformer layers over them: a ViT."""

    kind: Literal["patches"] = "patches"
    width: int = Field(default=192, ge=1)
    """Numbers per patch (D), a multiple of `heads`."""
    layers: int = Field(default=0, ge=0)
    """Transformer layers of the front-end; 0 = the projection alone, for an encoder that looks further."""
    heads: int = Field(default=3, ge=1)
    """Attention heads of the layers."""
    feed_forward: int = Field(default=768, ge=1)
    """Inner width of the layers' feed-forward blocks."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of each sublayer's output that is zeroed in training."""
    class_token: bool = False
    """A vector before the patches that belongs to none of them, as in published ViT weights."""
    weights: Path | None = None
    """A safetensors file with the names of Hugging Face's ViT, to start from; positions are resized to this grid."""
    frozen: bool = False
    """The patches and layers keep their weights; only the projection after them learns."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_heads(self.width, self.heads, None)
        return self

    def patch_problem(self, patch: int) -> str | None:  # noqa: ARG002
        """Nothing: a patch may have any size."""
        return None


ImageFrontendConfig = CnnConfig | PatchesConfig


class ImageFrontend(nn.Module):
    """Pixels to vectors: `network` sees, `project` gives its cells the width of the embeddings, `positions` tells where they stand."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ImageFrontendConfig, pixels: Pixels, *, output_size: int, dropout: float) -> None:
        super().__init__()
        problem = config.patch_problem(pixels.patch)
        if problem is not None:
            raise ConfigError(f"data.source_codec.patch = {pixels.patch} does not fit model.frontend: {problem}")
        self.output_size = output_size
        self.frozen = config.frozen
        self.network = _network(config, pixels)
        self.num_extra = int(config.kind == "patches" and config.class_token)
        self.norm = nn.LayerNorm(self.network.output_size)
        self.project = Linear(self.network.output_size, output_size)
        self.positions = nn.Parameter(torch.randn(1, pixels.grid**2 + self.num_extra, output_size) * 0.02)
        self.dropout = Dropout(dropout)
        self.register_buffer("mean", torch.tensor(pixels.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(pixels.std).view(3, 1, 1), persistent=False)
        self.network.requires_grad_(not config.frozen)

    def train(self, mode: bool = True) -> Self:
        """Training mode; a frozen network stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self

    def forward(self, source: Padded) -> tuple[Tensor, Tensor]:
        """Padded (B, 3, H, W) uint8 -> (B, S, E), (B,)."""
        pixels = (source.data.float() / 255 - self.mean) / self.std
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            cells = self.network(pixels)  # (B, S, C)
        vectors = self.dropout(self.project(self.norm(cells)) + self.positions)
        return vectors, source.lengths + self.num_extra

    def as_written(self, weights: Tensor, lengths: Tensor) -> Tensor:  # noqa: ARG002
        """(B, T, S): over the cells, row by row; what a class token got is left out."""
        return weights[:, :, self.num_extra :]

    def start_from(self, stored: Mapping[str, Tensor], path: Path) -> None:
        """Take the network's weights out of a file's tensors. Raises CheckpointError where names or shapes do not fit."""
        wanted, found = dict(self.network.state_dict()), self._named(dict(stored))
        unlike = [name for name in wanted if name not in found or found[name].shape != wanted[name].shape]
        unlike += [name for name in found if name not in wanted]
        if unlike:
            names = ", ".join(f"{name} {tuple(found[name].shape) if name in found else '(missing)'}" for name in unlike[:4])
            raise CheckpointError(f"{path} does not fit model.frontend: {names}{', ...' if len(unlike) > 4 else ''}")
        self.network.load_state_dict(found)

    def _named(self, stored: dict[str, Tensor]) -> dict[str, Tensor]:
        match self.network:
            case ResNet() | PatchNetwork() as network:
                return network.named_weights(stored)
        raise ConfigError("model.frontend.weights: this network has no published weights to start from")


def _network(config: ImageFrontendConfig, pixels: Pixels) -> SmallCnn | ResNet | PatchNetwork:
    """The network that a configuration names."""
    match config:
        case PatchesConfig():
            shape = {"width": config.width, "heads": config.heads, "feed_forward": config.feed_forward, "dropout": config.dropout}
            layer = TransformerConfig.model_validate({**shape, "activation": "gelu", "norm_place": "pre"})
            size = {"patch": pixels.patch, "grid": pixels.grid}
            return PatchNetwork(layer, num_layers=config.layers, class_token=config.class_token, **size)
        case CnnConfig(network="small"):
            return SmallCnn(config.widths)
        case CnnConfig(network="resnet18" | "resnet34" | "resnet50" as kind):
            return ResNet(kind, pixels.patch)
    raise ConfigError(f"model.frontend.kind = {config.kind} is not known")
