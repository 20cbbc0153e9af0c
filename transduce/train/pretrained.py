"""Weights that a front-end starts from: a file of somebody else's network, read once, before the first step of a run.

In: a front-end and its settings. Out: the same front-end with the file's weights. The decision to question: only training reads such
a file; a model directory holds all weights itself, so that it works where the file is not.
"""

from transduce.model.frontends import Frontend
from transduce.model.images import CnnConfig, ImageFrontend, PatchesConfig
from transduce.model.seq2seq import FrontendConfig
from transduce.train.storage import read_tensors


def start_frontend(frontend: Frontend, config: FrontendConfig) -> None:
    """Load the `weights` that `config` names, if it does. Raises CheckpointError where the file is missing, damaged or does not fit."""
    weights = None
    match config:
        case CnnConfig() | PatchesConfig():
            weights = config.weights
    match frontend:
        case ImageFrontend() if weights is not None:
            frontend.start_from(read_tensors(weights), weights)
