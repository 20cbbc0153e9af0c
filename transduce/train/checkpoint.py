"""Model directories and checkpoints: what they hold, how they are written, found and read.

In: a model, its configuration, codecs and metrics; for a checkpoint also the optimiser and the run's state. Out: folders
that are complete or not there (see storage.py). A checkpoint is a model directory plus what resuming needs. The decision
to question: with a moving average, `model.safetensors` holds the averaged weights, because these were validated; the
weights that training goes on from are in `training.safetensors`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transduce.config import RunConfig, load_config
from transduce.data.codec import Codec, load_codec
from transduce.decode.shortlist import Shortlist
from transduce.errors import CheckpointError
from transduce.model.seq2seq import Seq2Seq, build_model
from transduce.train.averaging import mean_of_tensors, own_tensors
from transduce.train.card import model_card
from transduce.train.state import RunState
from transduce.train.storage import read_tensors, remove_temporary, verify_folder, write_folder, write_json, write_line, write_tensors

MODEL, OPTIMIZER, TRAINING = "model.safetensors", "optimizer.safetensors", "training.safetensors"
SHORTLIST = "shortlist.safetensors"
CONFIG, METRICS, STATE = "config.yaml", "metrics.json", "state.json"


@dataclass(frozen=True)
class LoadedModel:
    """A model directory in memory; the model is in evaluation mode, on the CPU."""

    model: Seq2Seq
    config: RunConfig
    source_codec: Codec
    target_codec: Codec
    metrics: dict[str, Any]
    shortlist: Shortlist | None = None


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds besides codecs and configuration."""

    model: Seq2Seq  # what predicts
    training: Seq2Seq | None  # what training goes on from, when that is another one
    optimizer: Mapping[str, Tensor]
    state: RunState
    metrics: Mapping[str, float]


def save_model(
    directory: Path,
    *,
    model: Seq2Seq,
    config: RunConfig,
    codecs: tuple[Codec, Codec],
    metrics: Mapping[str, object],
    shortlist: Shortlist | None = None,
) -> None:
    """Write a model directory; one that is there is replaced. Raises StorageError."""

    def fill(folder: Path) -> None:
        _fill_model(folder, model, config=config, codecs=codecs, metrics=metrics)
        if shortlist is not None:
            tables = {"candidates": torch.from_numpy(shortlist.candidates), "ranking": torch.from_numpy(shortlist.ranking)}
            write_tensors(folder / SHORTLIST, tables)

    write_folder(directory, fill)


def load_model(directory: Path) -> LoadedModel:
    """Verify the manifest and rebuild the model. Raises CheckpointError."""
    directory = Path(directory)
    source, target = verified_codecs(directory)
    config = load_config(directory / CONFIG)
    model = build_model(config.model, source.shape, target.shape)
    put_tensors(model, read_tensors(directory / MODEL), place=directory / MODEL)
    metrics = json.loads((directory / METRICS).read_text(encoding="utf-8"))
    return LoadedModel(model.eval(), config, source, target, metrics, load_shortlist(directory))


def verified_codecs(directory: Path) -> tuple[Codec, Codec]:
    """Those of a model directory whose manifest holds. Raises CheckpointError."""
    verify_folder(directory, leave_out=frozenset({OPTIMIZER, TRAINING}))
    return load_codec(directory / "source"), load_codec(directory / "target")


def load_shortlist(directory: Path) -> Shortlist | None:
    """That of a model directory; None where it has none. Raises CheckpointError."""
    if not (directory / SHORTLIST).exists():
        return None
    tables = read_tensors(directory / SHORTLIST)
    return Shortlist(tables["candidates"].numpy(), tables["ranking"].numpy())


def resolve_model(path: Path) -> Path:
    """The model directory that a run folder or model directory stands for: run/model, else the best, else the last checkpoint."""
    path = Path(path)
    if (path / MODEL).is_file():
        return path
    candidates = [path / "model", *(RunFolder(path).pointer(name) for name in ("best", "last"))]
    for candidate in candidates:
        if candidate is not None and (candidate / MODEL).is_file():
            return candidate
    what = "is not there" if not path.exists() else "is neither a model directory nor a run folder with a model"
    raise CheckpointError(f"{path} {what}: looked for {path / MODEL}, {path / 'model'}, {path / 'best'} and {path / 'last'}")


def put_tensors(model: torch.nn.Module, tensors: Mapping[str, Tensor], *, place: Path) -> None:
    """Copy stored weights into `model`. Raises CheckpointError when names or shapes do not fit."""
    own = own_tensors(model)
    unlike = sorted(set(own) ^ set(tensors)) or [name for name in own if own[name].shape != tensors[name].shape]
    if unlike:
        shown = ", ".join(unlike[:5]) + (", ..." if len(unlike) > 5 else "")
        raise CheckpointError(f"{place} does not fit the model of its {CONFIG}: {shown}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


def average_models(directories: list[Path], output: Path, *, metrics: Mapping[str, object]) -> LoadedModel:
    """Write a model directory whose weights are the mean of others of the same shape; configuration and codecs of the first.

    Raises CheckpointError when there is none, or when vocabularies or shapes differ.
    """
    if not directories:
        raise CheckpointError("nothing to average: give at least one model directory")
    first = load_model(directories[0])
    for directory in directories:
        codecs = verified_codecs(directory)
        if (codecs[0].digest, codecs[1].digest) != (first.source_codec.digest, first.target_codec.digest):
            raise CheckpointError(f"{directory} has other codecs than {directories[0]}: their weights cannot be averaged")
    own = own_tensors(first.model)
    sets = (read_tensors(directory / MODEL) for directory in directories)
    put_tensors(first.model, mean_of_tensors(_same_names(sets, set(own))), place=directories[0] / MODEL)
    codecs = first.source_codec, first.target_codec
    save_model(output, model=first.model, config=first.config, codecs=codecs, metrics=metrics, shortlist=first.shortlist)
    return first


def _same_names(sets: Iterator[dict[str, Tensor]], names: set[str]) -> Iterator[dict[str, Tensor]]:
    for tensors in sets:
        if set(tensors) != names:
            raise CheckpointError(f"models of different shapes cannot be averaged: {', '.join(sorted(set(tensors) ^ names)[:5])}")
        yield tensors


class RunFolder:
    """The folder of one run: config.yaml, checkpoints/, `last`, `best`, model/, logs."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"

    @property
    def started(self) -> bool:
        """Whether there is anything that a new run would overwrite."""
        return self.model.exists() or bool(self.steps())

    def steps(self) -> list[int]:
        """Steps of the checkpoint folders, oldest first, verified or not."""
        names = (path.name for path in self.checkpoints.glob("step-*"))
        return sorted(int(name[5:]) for name in names if name[5:].isdigit())

    def folder(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.checkpoints / f"step-{step:08d}"

    def pointer(self, name: str) -> Path | None:
        """The folder that `last` or `best` names."""
        try:
            return self.path / (self.path / name).read_text(encoding="utf-8").strip()
        except OSError:
            return None

    def clean(self) -> list[str]:
        """Remove what interrupted saves left; the names."""
        return remove_temporary(self.path) + remove_temporary(self.checkpoints)

    def newest(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint that verifies, and why newer ones were skipped."""
        skipped: list[str] = []
        for step in reversed(self.steps()):
            try:
                verify_folder(self.folder(step))
                return self.folder(step), skipped
            except CheckpointError as error:
                skipped.append(f"skipped checkpoint step-{step:08d}: {error}")
        return None, skipped

    def save(self, snapshot: Snapshot, *, config: RunConfig, codecs: tuple[Codec, Codec], keep_last: int) -> Path:
        """Write a checkpoint, point `last` and `best` at it, delete those that are neither. Raises StorageError."""
        state = snapshot.state
        target = self.folder(state.step)

        def fill(folder: Path) -> None:
            _fill_model(folder, snapshot.model, config=config, codecs=codecs, metrics=snapshot.metrics)
            write_tensors(folder / OPTIMIZER, dict(snapshot.optimizer))
            if snapshot.training is not None:
                write_tensors(folder / TRAINING, own_tensors(snapshot.training))
            write_json(folder / STATE, state.to_tree())

        write_folder(target, fill)
        write_line(self.path / "last", f"checkpoints/{target.name}")
        if state.best:
            write_line(self.path / "best", f"checkpoints/{self.folder(state.best[0][0]).name}")
        self._prune({step for step, _ in state.best} | set(self.steps()[-keep_last:]) | {state.step})
        return target

    def _prune(self, keep: set[int]) -> None:
        for step in self.steps():
            if step not in keep:
                aside = self.checkpoints / f".tmp-drop-{step}"
                self.folder(step).rename(aside)  # so that a half-deleted folder is never taken for a damaged checkpoint
        remove_temporary(self.checkpoints)


@dataclass(frozen=True)
class Restored:
    """A checkpoint in memory, for resuming."""

    weights: dict[str, Tensor]
    average: dict[str, Tensor] | None
    optimizer: dict[str, Tensor]
    state: RunState
    metrics: dict[str, float]


def load_checkpoint(folder: Path) -> Restored:
    """The contents of a verified checkpoint. Raises CheckpointError."""
    try:
        state = RunState.from_tree(json.loads((folder / STATE).read_text(encoding="utf-8")))
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} cannot be resumed from: {error}") from error
    predicting = read_tensors(folder / MODEL)
    averaged = (folder / TRAINING).is_file()
    weights = read_tensors(folder / TRAINING) if averaged else predicting
    return Restored(weights, predicting if averaged else None, read_tensors(folder / OPTIMIZER), state, metrics)


def _fill_model(folder: Path, model: Seq2Seq, *, config: RunConfig, codecs: tuple[Codec, Codec], metrics: Mapping[str, object]) -> None:
    (folder / CONFIG).write_text(config.to_yaml(), encoding="utf-8")
    write_tensors(folder / MODEL, own_tensors(model))
    for name, codec in zip(("source", "target"), codecs, strict=True):
        (folder / name).mkdir()
        codec.save(folder / name)
    write_json(folder / METRICS, dict(metrics))
    (folder / "README.md").write_text(model_card(model, config, metrics), encoding="utf-8")
