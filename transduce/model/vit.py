"""Patches of a picture as a sequence (Dosovitskiy 2021): the projection of each patch, and on request Transformer layers over them.

In: normalised pixels (B, 3, H, W). Out: (B, S, D), with a class token (B, 1 + S, D). The decision to question: a ViT is our own
pre-norm encoder layers inside the front-end, so that stored weights are one network with one `frozen` and one learning rate; without
layers this is the patch projection alone, for an encoder of the run's own.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from transduce.errors import CheckpointError
from transduce.model.cnn import cells
from transduce.model.stack import EncoderLayer
from transduce.model.transformer import TransformerConfig

EPSILON = 1e-12  # of the norms in published ViT weights
# Our name of a layer's part: the stored names that are stacked into it.
LAYER_NAMES = {
    "attention_residual.norm": ("layernorm_before",),
    "attention.packed": ("attention.attention.query", "attention.attention.key", "attention.attention.value"),
    "attention.output": ("attention.output.dense",),
    "feed_forward_residual.norm": ("layernorm_after",),
    "feed_forward.inner": ("intermediate.dense",),
    "feed_forward.outer": ("output.dense",),
}


class PatchNetwork(nn.Module):
    """Patches to vectors. grid: patches along each side. num_layers: 0 = the projection and its positions alone."""

    def __init__(self, layer: TransformerConfig, *, num_layers: int, patch: int, grid: int, class_token: bool) -> None:
        super().__init__()
        self.output_size = layer.width
        self.grid = grid
        self.projection = nn.Conv2d(3, layer.width, patch, stride=patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, layer.width)) if class_token else None
        self.positions = nn.Parameter(torch.randn(1, grid * grid + class_token, layer.width) * 0.02)
        self.layers = nn.ModuleList(EncoderLayer(layer) for _ in range(num_layers))
        self.norm = nn.LayerNorm(layer.width) if num_layers else nn.Identity()
        for module in self.modules():
            match module:
                case nn.LayerNorm():
                    module.eps = EPSILON

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, S, D), the class token first where there is one."""
        states = cells(self.projection(pixels))  # (B, S, D)
        if self.class_token is not None:
            states = torch.cat([self.class_token.expand(len(states), -1, -1).to(states.dtype), states], dim=1)
        states = states + self.positions
        for layer in self.layers:
            states = layer(states, bias=None, rotation=None)
        return self.norm(states)  # type: ignore[no-any-return]

    def named_weights(self, stored: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a Hugging Face ViT file under our names; positions are resized to our grid. Raises CheckpointError.

        The pooler, the classifier and layers beyond ours are left out.
        """
        tensors = {name.removeprefix("vit."): tensor for name, tensor in stored.items()}
        try:
            return dict(self._renamed(tensors))
        except KeyError as error:
            raise CheckpointError(f"there is no tensor {error} among the weights; they must be those of a Hugging Face ViT") from None

    def _renamed(self, stored: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        yield "projection.weight", stored["embeddings.patch_embeddings.projection.weight"]
        yield "projection.bias", stored["embeddings.patch_embeddings.projection.bias"]
        positions = stored["embeddings.position_embeddings"]
        if self.class_token is not None:
            yield "class_token", stored["embeddings.cls_token"]
        yield "positions", _resized(positions, self.grid, class_token=self.class_token is not None)
        for number in range(len(self.layers)):
            for own, parts in LAYER_NAMES.items():
                for kind in ("weight", "bias"):
                    stacked = [stored[f"encoder.layer.{number}.{part}.{kind}"] for part in parts]
                    yield f"layers.{number}.{own}.{kind}", torch.cat(stacked)
        if len(self.layers):
            yield "norm.weight", stored["layernorm.weight"]
            yield "norm.bias", stored["layernorm.bias"]


def _resized(positions: Tensor, grid: int, *, class_token: bool) -> Tensor:
    """(1, 1 + s * s, D) of a square grid -> (1, [1 +] grid * grid, D), bicubic where the grids differ."""
    side = round((positions.shape[1] - 1) ** 0.5)
    first, rest = positions[:, :1], positions[:, 1:]
    if side != grid:
        square = rest.view(1, side, side, -1).permute(0, 3, 1, 2).float()
        rest = cells(functional.interpolate(square, (grid, grid), mode="bicubic", align_corners=False)).to(positions.dtype)
    return torch.cat([first, rest], dim=1) if class_token else rest
