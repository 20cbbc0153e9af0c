"""What the command line asks of a model: its search settings, its usual metrics, what it reads and writes, and what it runs on."""

import gc
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from transduce.config import change_search, load_config
from transduce.data.codec import load_codec
from transduce.decode.search import SearchConfig
from transduce.engines import ENGINES, EngineName
from transduce.errors import ConfigError
from transduce.predict import FEWEST_TO_SHARE, Predictor
from transduce.train.checkpoint import CONFIG, resolve_model
from transduce.train.precision import ProductKind
from transduce.tree import listed, nearest


@dataclass(frozen=True)
class Running:
    """What a model runs on, as `--precision` and `--engine` name it. probabilities: whether the probability of each token is wanted."""

    precision: str = "fp32"
    engine: str = "auto"
    probabilities: bool = True


def writes_numbers(model: Path) -> bool:
    """Whether the target of a model is tracks. Raises CheckpointError."""
    return load_codec(resolve_model(model) / "target").kind == "frames"


def reads_nothing(model: Path) -> bool:
    """Whether a model is a language model. Raises CheckpointError."""
    return load_codec(resolve_model(model) / "source").kind == "none"


def load_predictor(
    models: Sequence[Path],
    language_model: Path | None,
    *,
    words: Sequence[str],
    threads: int | None,
    running: Running | None = None,
) -> Predictor:
    """The model or ensemble, with the language model that it searches with. running: None = its defaults.

    Raises ConfigError for a weight of none, for an unknown precision or engine.
    """
    weighs = next((word for word in words if word.startswith("search.language_weight")), None)
    if weighs is not None and language_model is None:
        raise ConfigError(f"{weighs}: there is no language model to weigh, name one with --language-model MODEL")
    how = running or Running()
    predictor = Predictor.load(
        list(models),
        language_model=language_model,
        threads=threads,
        precision=product_kind(how.precision),
        engine=engine_name(how.engine),
        probabilities=how.probabilities,
    )
    predictor.workers = torch.get_num_threads()
    gc.freeze()  # what was loaded stays: a collection that looked through it would stop a search for a tenth of a second
    return predictor


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


def engine_name(name: str) -> EngineName:
    """The engine that `--engine` names. Raises ConfigError."""
    found = next((engine for engine in ENGINES if engine == name), None)
    if found is None:
        raise ConfigError(f"--engine {name} is not allowed: {listed(ENGINES)}{nearest(name, ENGINES)}")
    return found


def tell_engine(predictor: Predictor, search: SearchConfig, *, prefixes: bool = False) -> bool:
    """Say on standard error what searches and why, where there was a choice. -> whether it is another engine than torch.

    Raises ConfigError where a named engine cannot search so.
    """
    name, why = predictor.choice.describe(search, prefixes=prefixes, language_model=bool(predictor.language_weight(search)))
    many = f"torch for {FEWEST_TO_SHARE * predictor.workers} sources and more at once, else " if predictor.prefers_torch(search) else ""
    if why:
        print(f"engine: {many if name != 'torch' else ''}{name} ({why})", file=sys.stderr)
    return name != "torch"


def tell_left(predictor: Predictor, count: int) -> None:
    """Say on standard error how many of `count` sources another engine had to leave to torch."""
    if predictor.left_to_torch:
        print(f"engine: {predictor.left_to_torch} of {count} sources were left to torch", file=sys.stderr)
