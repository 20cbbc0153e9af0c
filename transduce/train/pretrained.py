"""Weights that a training starts from: of a model of this toolkit, or for a front-end a file of somebody else's network.

In: a model, or a front-end and its settings. Out: the same with those weights. They are read once, before the first step of a run. The
decision to question: only training reads them; a model directory holds all weights itself, so that it works where they are not.
"""

from pathlib import Path

import torch

from transduce.data.codec import VALUE_KINDS, Codec
from transduce.data.loader import DataConfig
from transduce.errors import ConfigError
from transduce.model.frontends import Frontend
from transduce.model.images import CnnConfig, ImageFrontend, PatchesConfig
from transduce.model.seq2seq import FrontendConfig, Seq2Seq
from transduce.train.averaging import own_tensors
from transduce.train.checkpoint import MODEL, resolve_model, verified_codecs
from transduce.train.storage import read_tensors

NAMED = 4
"""Tensors named in a message; of more only the number is told."""


def start_frontend(frontend: Frontend, config: FrontendConfig) -> None:
    """Load the `weights` that `config` names, if it does. Raises CheckpointError where the file is missing, damaged or does not fit."""
    weights = None
    match config:
        case CnnConfig() | PatchesConfig():
            weights = config.weights
    match frontend:
        case ImageFrontend() if weights is not None:
            frontend.start_from(read_tensors(weights), weights)


def start_codecs(path: Path, config: DataConfig) -> tuple[Codec, Codec]:
    """Those of the model that a run starts from: what its weights know is bound to its vocabularies.

    Raises CheckpointError where there is no whole model, ConfigError where its ends are others than those of `config`.
    """
    codecs = verified_codecs(resolve_model(path))
    for end, codec, settings in zip(("source", "target"), codecs, (config.source_codec, config.target_codec), strict=True):
        texts = VALUE_KINDS[codec.kind] == VALUE_KINDS[settings.kind] == "text"
        if not texts and codec.kind != settings.kind:
            message = f"its {end} is {codec.kind}, and data.{end}_codec.kind is {settings.kind}"
            raise ConfigError(f"train.start_from = {path} does not fit: {message}")
    if config.joint_vocabulary and codecs[0].digest != codecs[1].digest:
        raise ConfigError(f"train.start_from = {path} has a vocabulary for each end: set data.joint_vocabulary to false")
    return codecs


def take_weights(model: Seq2Seq, path: Path) -> str:
    """Copy into `model` what a model of this toolkit has under the same name in the same shape. -> what became of it, for people.

    Raises CheckpointError where there is no model, ConfigError where no matrix fits.
    """
    stored, own = read_tensors(resolve_model(path) / MODEL), own_tensors(model)
    fitting = [name for name, tensor in own.items() if name in stored and stored[name].shape == tensor.shape]
    if not any(own[name].ndim > 1 for name in fitting):  # biases of the output alone are no start
        raise ConfigError(f"train.start_from = {path}: no matrix of it has the name and shape of one of this model")
    with torch.no_grad():
        for name in fitting:
            own[name].copy_(stored[name])
    new, left = [name for name in own if name not in fitting], [name for name in stored if name not in fitting]
    parts = (f"{len(fitting)} of {len(own)} tensors from {path}", _told("new", new), _told("not taken", left))
    return f"started with {'; '.join(part for part in parts if part)}"


def _told(what: str, names: list[str]) -> str:
    if not names:
        return ""
    return f"{what}: {len(names)} ({', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''})"
