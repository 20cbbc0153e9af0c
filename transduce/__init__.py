"""Sequence-to-sequence models on the user's own pairs: train, score, predict.

`import transduce` brings in nothing heavy: each public name is imported when it is first asked for. The one decision to
question: the verbs are called `train_model` and `evaluate_model` here, because `transduce.train` and
`transduce.evaluate` are the places where they live and a name cannot be both.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transduce.config import RunConfig, load_config
    from transduce.decode.search import SearchConfig
    from transduce.evaluate import Evaluation
    from transduce.evaluate import evaluate as evaluate_model
    from transduce.export.write import export_model
    from transduce.predict import Prediction, Predictor
    from transduce.train.loop import resume as resume_training
    from transduce.train.loop import train as train_model

__version__ = "0.1.0"

__all__ = [
    "Evaluation",
    "Prediction",
    "Predictor",
    "RunConfig",
    "SearchConfig",
    "evaluate_model",
    "export_model",
    "load_config",
    "resume_training",
    "train_model",
]

_HOMES = {
    "Evaluation": ("transduce.evaluate", "Evaluation"),
    "Prediction": ("transduce.predict", "Prediction"),
    "Predictor": ("transduce.predict", "Predictor"),
    "RunConfig": ("transduce.config", "RunConfig"),
    "SearchConfig": ("transduce.decode.search", "SearchConfig"),
    "evaluate_model": ("transduce.evaluate", "evaluate"),
    "export_model": ("transduce.export.write", "export_model"),
    "load_config": ("transduce.config", "load_config"),
    "resume_training": ("transduce.train.loop", "resume"),
    "train_model": ("transduce.train.loop", "train"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'transduce' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return vars(importlib.import_module(module))[attribute]
