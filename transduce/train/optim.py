"""The optimiser: which parameters decay, and its state as named tensors.

In: a model and settings. Out: a torch optimiser whose state is saved under the parameters' names, so that a checkpoint
needs no pickle and survives a changed order of parameters.
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from transduce.errors import CheckpointError
from transduce.settings import Settings
from transduce.train.muon import Muon


class OptimizerConfig(Settings):
    """How a gradient becomes a step."""

    kind: Literal["adam", "adamw", "adafactor", "muon"] = "adamw"
    """Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019), Adafactor (Shazeer & Stern 2018), Muon for the matrices of linear layers
    and AdamW for all else (Jordan 2024)."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate (noam: the factor in front of the formula, about 1)."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay of the first and second moment (Adam, AdamW, and what Muon leaves to AdamW)."""
    eps: float = Field(default=1e-9, gt=0)
    """Added to the root of the second moment (Adam, AdamW)."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decay of matrices; never of biases and norms. AdamW, Adafactor and Muon decouple it, Adam adds it to the gradient."""
    frontend_learning_rate_scale: float = Field(default=1.0, gt=0)
    """Learning rate of the front-end's parameters relative to all others: 0.1 or so where it starts from stored weights."""
    fused: bool = True
    """One kernel for the whole update (Adam, AdamW); false = torch's own choice."""


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """An optimiser over the trainable parameters in groups: matrices and vectors, those of the front-end apart where they learn slower."""
    groups = parameter_groups(config, model)
    fused = True if config.fused else None
    match config.kind:
        case "adam":
            return torch.optim.Adam(groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=fused)
        case "adamw":
            return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=fused)
        case "muon":
            return Muon(groups, lr=config.learning_rate, betas=config.betas, eps=config.eps, fused=fused)
        case "adafactor":
            return torch.optim.Adafactor(groups, lr=config.learning_rate)


def parameter_groups(config: OptimizerConfig, model: nn.Module) -> list[dict[str, Any]]:
    """Trainable parameters by weight decay and learning rate; `scale` is what a group's learning rate is multiplied by."""
    slower, matrices = config.frontend_learning_rate_scale, _matrices_of_layers(model) if config.kind == "muon" else set()
    found: dict[tuple[float, float, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = slower if name.startswith("frontend.") else 1.0
            found.setdefault((scale, config.weight_decay if parameter.ndim > 1 else 0.0, parameter in matrices), []).append(parameter)
    names = ("scale", "weight_decay", "orthogonal")
    return [{"params": tensors, **dict(zip(names, values, strict=True))} for values, tensors in found.items()]


def _matrices_of_layers(model: nn.Module) -> set[Tensor]:
    """Weights of linear layers that lie between vectors: those of heads, and embeddings, turn ids into vectors or back."""
    layers = [(name, layer) for name, layer in model.named_modules() if not name.startswith("head")]
    embeddings = {layer.weight for _, layer in layers if isinstance(layer, nn.Embedding)}
    return {layer.weight for _, layer in layers if isinstance(layer, nn.Linear)} - embeddings


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """The learning rate of every group, each at its scale."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["scale"]


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's memory as {"slot/parameter name": tensor}, e.g. "exp_avg/head.bias"."""
    named = {}
    for name, parameter in model.named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            named[f"{slot}/{name}"] = value.detach()
    return named


def restore_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put `optimizer_tensors` back. Raises CheckpointError when a name is of no parameter of this model."""
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        slot, _, name = key.partition("/")
        if name not in parameters:
            raise CheckpointError(f"the optimiser state is of another model: it holds {key!r}, and the model has no parameter {name!r}")
        optimizer.state[parameters[name]][slot] = value.to(parameters[name].device)
