"""What the command line asks of a model: its search settings, its usual metrics, what it reads and whether it writes text or numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from transduce.config import change_search, load_config
from transduce.data.codec import load_codec
from transduce.decode.search import SearchConfig
from transduce.errors import ConfigError
from transduce.predict import Predictor
from transduce.train.checkpoint import CONFIG, resolve_model
from transduce.train.precision import ProductKind
from transduce.tree import listed, nearest


def writes_numbers(model: Path) -> bool:
    """Whether the target of a model is tracks. Raises CheckpointError."""
    return load_codec(resolve_model(model) / "target").kind == "frames"


def reads_nothing(model: Path) -> bool:
    """Whether a model is a language model. Raises CheckpointError."""
    return load_codec(resolve_model(model) / "source").kind == "none"


def load_predictor(
    models: Sequence[Path], language_model: Path | None, *, words: Sequence[str], threads: int | None, precision: str = "fp32"
) -> Predictor:
    """The model or ensemble, with the language model that it searches with. precision: as `--precision` names it.

    Raises ConfigError for a weight of none and for an unknown precision.
    """
    weighs = next((word for word in words if word.startswith("search.language_weight")), None)
    if weighs is not None and language_model is None:
        raise ConfigError(f"{weighs}: there is no language model to weigh, name one with --language-model MODEL")
    return Predictor.load(list(models), language_model=language_model, threads=threads, precision=product_kind(precision))


def usual_metrics(model: Path) -> list[str]:
    """What a model was judged by while it was trained, and BLEU and chrF where that was the loss alone. Raises CheckpointError."""
    return list(load_config(resolve_model(model) / CONFIG).train.validation.metrics) or ["bleu", "chrf"]


def search_settings(own: SearchConfig, words: Sequence[str], *, beam: int | None, num_best: int | None = None) -> SearchConfig:
    """The model's own search settings, then `search.KEY=VALUE` words, then short options. Raises ConfigError."""
    asked = list(words)
    if num_best is not None:
        asked.append(f"search.num_best={num_best}")
    if beam is not None:
        asked.append(f"search.beam_size={beam}")
    elif num_best is not None and num_best > own.beam_size:
        asked.append(f"search.beam_size={num_best}")
    return change_search(own, asked)


def refuse(asked: Mapping[str, object], reason: str) -> None:
    """Raises ConfigError that names what was asked for (by option, anything true), and why it cannot be had."""
    named = [name for name, given in asked.items() if given]
    if named:
        raise ConfigError(f"{', '.join(named)}: {reason}")


def product_kind(name: str) -> ProductKind:
    """The number format of products that `--precision` names. Raises ConfigError."""
    kinds: tuple[ProductKind, ...] = get_args(ProductKind)
    found = next((kind for kind in kinds if kind == name), None)
    if found is None:
        raise ConfigError(f"--precision {name} is not allowed: {listed(kinds)}{nearest(name, kinds)}")
    return found
