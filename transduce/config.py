"""The whole configuration of a run: composed of the settings of each part, read from YAML, checked before anything runs.

In: a file and words such as `train.max_steps=100`. Out: a frozen `RunConfig`. Order of precedence, lowest first:
the defaults of the classes, the preset, the file, the words. Paths are relative to the current directory, as on the
command line, and not to the file: the same words then mean the same thing in both.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any, Self

from pydantic import BaseModel, Field, model_validator

from transduce.contradictions import check_run
from transduce.data.loader import DataConfig
from transduce.decode.rollout import RolloutConfig
from transduce.decode.search import SearchConfig
from transduce.errors import ConfigError
from transduce.explain import validated
from transduce.model.seq2seq import ModelConfig
from transduce.schema import Group, default_tree, field_words, merge
from transduce.settings import Settings
from transduce.train.settings import TrainConfig
from transduce.tree import Tree, listed, nearest, parse_words, read_tree, scalar_text, shown

CODEC_KEYS = ("source_codec", "target_codec")
PRESET_FOLDER = Path(__file__).parent / "presets"


class RunConfig(Settings):
    """Everything that defines a run. Paths are relative to the current directory."""

    preset: str | None = None
    """Name of the tested settings that this file builds on: see the list of presets. Null = the defaults of each key."""
    run_dir: Path
    """Folder of the run: checkpoints, logs and the finished model. Made by training; one run each."""
    seed: int = Field(default=1, ge=0)
    """Number that every random choice of the run starts from. The same seed gives the same run on the same machine."""
    data: DataConfig
    """The pairs and how they become token batches."""
    model: ModelConfig = ModelConfig()
    """The network."""
    train: TrainConfig = TrainConfig()
    """How it learns, for how long, and what is kept."""
    search: SearchConfig = SearchConfig()
    """How texts are found, in validation and afterwards."""
    rollout: RolloutConfig = RolloutConfig()
    """How tracks are predicted, in validation and afterwards."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        check_run(self)
        return self

    def to_yaml(self, documented: bool = False) -> str:
        """The resolved tree as YAML that `load_config` reads back; `documented` puts each field's meaning above it."""
        return "\n".join(_lines(self, indent=0, documented=documented)) + "\n"


def preset_names() -> list[str]:
    """The presets that come with the package, sorted."""
    return sorted(path.stem for path in PRESET_FOLDER.glob("*.yaml"))


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration in a file, changed by words `a.b=c`. Raises ConfigError (what, which key, what is allowed)."""
    tree = read_tree(Path(path))
    words = parse_words(overrides)
    try:
        return parse_config(tree, words)
    except ConfigError as error:
        raise ConfigError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from error


def parse_config(tree: Tree, words: Tree | None = None) -> RunConfig:
    """The configuration in plain values, `words` on top of it. Raises ConfigError."""
    words = words or {}
    preset = words.get("preset", tree.get("preset"))
    layers = [tree, words] if preset is None else [_read_preset(preset), tree, words]
    merged = _stacked(layers)
    if isinstance(merged["data"], dict) and merged["data"].get("joint_vocabulary") is True:
        merged = _stacked([_with_both_codecs(layer) for layer in layers])
    return validated(merged, RunConfig)


def _stacked(layers: Sequence[Tree]) -> Tree:
    merged = default_tree(RunConfig)
    for layer in layers:
        merged = merge(merged, layer, RunConfig)
    return merged


def _with_both_codecs(layer: Tree) -> Tree:
    """A layer that describes one codec of a joint vocabulary describes both."""
    data = layer.get("data")
    named = [data[key] for key in CODEC_KEYS if key in data] if isinstance(data, dict) else []
    return {**layer, "data": {**layer["data"], **dict.fromkeys(CODEC_KEYS, named[0])}} if len(named) == 1 else layer


def change_search(config: SearchConfig, words: Sequence[str]) -> SearchConfig:
    """Search settings changed by words `search.beam_size=8` (nothing but `search` may be named). Raises ConfigError."""
    tree = parse_words(words)
    if set(tree) - {"search"}:
        raise ConfigError(f"{sorted(set(tree) - {'search'})[0]}: only search.KEY=VALUE can be changed for a finished model")
    return change_settings(config, tree.get("search", {}))


def change_settings(config: SearchConfig, tree: Tree) -> SearchConfig:
    """Search settings with the given keys replaced. Raises ConfigError."""
    if not isinstance(tree, dict):
        raise ConfigError(f"search = {shown(tree)} is not allowed: write search.KEY=VALUE")
    merged = {"search": merge(config.model_dump(mode="json"), tree, SearchConfig)}
    return validated(merged, _SearchOnly).search


class _SearchOnly(Settings):
    search: SearchConfig


def _read_preset(name: Any) -> Tree:
    known = preset_names()
    if name not in known:
        raise ConfigError(f"preset = {shown(name)} is not allowed: {listed(known)}{nearest(str(name), known)}")
    return read_tree(PRESET_FOLDER / f"{name}.yaml")


def _lines(group: BaseModel, *, indent: int, documented: bool) -> Iterator[str]:
    """The YAML lines of one group; blank lines part the outermost groups."""
    schema: Group = type(group)
    for name, value in group:
        if documented:
            field = schema.model_fields[name]
            yield from [""] if indent == 0 else []
            allowed = "" if isinstance(value, BaseModel) else f" [{field_words(field)}]"
            yield from _comment(f"{field.description or ''}{allowed}", indent)
        yield from _entry(name, value, indent=indent, documented=documented)


def _entry(name: str, value: Any, *, indent: int, documented: bool) -> Iterator[str]:
    start = " " * indent + f"{name}:"
    if isinstance(value, BaseModel):
        yield start
        yield from _lines(value, indent=indent + 2, documented=documented)
    elif isinstance(value, list | tuple) and value and all(isinstance(item, BaseModel) for item in value):
        yield start
        for item in value:
            first, *rest = _lines(item, indent=indent + 4, documented=False)
            yield " " * (indent + 2) + "- " + first.lstrip()
            yield from rest
    else:
        yield f"{start} {scalar_text(value)}"


def _comment(text: str, indent: int) -> list[str]:
    start = " " * indent + "# "
    return wrap(" ".join(text.split()), width=110, initial_indent=start, subsequent_indent=start)
