"""From a configuration to everything that a training loop needs, checked before the first step.

In: a configuration and its run folder. Out: `Parts`: data, model at its place in the run, validator, and what was chosen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transduce.allocator import tune_allocator
from transduce.config import RunConfig
from transduce.data.codec import Codec, CodecConfig, load_codec
from transduce.data.examples import CorpusConfig
from transduce.data.loader import Loader, prepare
from transduce.model.fused import loops_used
from transduce.train.checkpoint import RunFolder, load_checkpoint
from transduce.train.parallel import choose_processes
from transduce.train.precision import choose_device, choose_precision, set_threads
from transduce.train.preflight import preflight
from transduce.train.pretrained import start_codecs
from transduce.train.trainer import Trainer
from transduce.train.validation import Validator


@dataclass(frozen=True)
class Parts:
    """A run that is ready for its next step. info: what was chosen, by name, for people and logs."""

    trainer: Trainer
    loader: Loader
    validator: Validator
    codecs: tuple[Codec, Codec]
    info: dict[str, object]


def prepare_run(config: RunConfig, run: RunFolder, *, say: Callable[[str], None]) -> Parts:
    """Clean up, read the data, build the model or take it from the newest whole checkpoint, and run everything once in small.

    Raises whatever the run would raise later: ConfigError, DataError, CheckpointError, StorageError.
    """
    allocator, threads = tune_allocator(), set_threads(config.train.threads)
    precision = choose_precision(config.train.precision, choose_device(config.train.device))
    for name in run.clean():
        say(f"removed {name}, left by an interrupted save")
    folder, skipped = run.newest()
    for line in skipped:
        say(line)
    data = prepare(config.data, config.seed, codecs=_given_codecs(config, folder), say=say)
    codecs = data.source_codec, data.target_codec
    trainer = Trainer(config, codecs, precision, fresh=folder is None)
    if folder is not None:
        _restore(trainer, folder, say)
    if trainer.started:
        say(trainer.started)
    processes, why = choose_processes(config.train.processes, threads=threads, device=precision.device)
    trainer.employ(processes)
    _tell_loops(trainer, loops_used(precision.device, threads // processes), say)
    validator = Validator(config, data, precision)
    memory = preflight(trainer, data.train, validator)
    if memory.warning:
        say(memory.warning)
    info = {
        "run": str(run.path),
        "model": f"{config.model.encoder.kind} encoder, {config.model.decoder.kind} decoder",
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "precision": str(precision),
        "threads": threads,
        "processes": f"{processes} ({why})",
        "loops": trainer.state.loops,
        "allocator": allocator,
        "memory": str(memory),
        "batches in an epoch": data.train.num_batches(trainer.state.epoch),
        "from step": trainer.state.step,
    }
    return Parts(trainer, data.train, validator, codecs, info)


def _given_codecs(config: RunConfig, folder: Path | None) -> tuple[Codec, Codec] | None:
    """Those of the run so far or of the model that it starts from; None = they are learned from the data."""
    if folder is not None:
        return load_codec(folder / "source"), load_codec(folder / "target")
    return None if config.train.start_from is None else start_codecs(config.train.start_from, config.data)


def _restore(trainer: Trainer, folder: Path, say: Callable[[str], None]) -> None:
    trainer.restore(load_checkpoint(folder), folder)
    state, precision = trainer.state, str(trainer.precision)
    say(f"resumed from {folder.name}, after {state.minutes:.1f} minutes")
    if state.precision != precision:
        say(f"this machine computes in {precision}, the run so far in {state.precision}: not bit for bit the same")
        state.precision = precision


def _tell_loops(trainer: Trainer, loops: str, say: Callable[[str], None]) -> None:
    if trainer.state.loops not in ("", loops):
        say(f"this session's loops are those of {loops}, the run's so far of {trainer.state.loops}: not bit for bit the same")
    trainer.state.loops = loops


def absolute_paths(config: RunConfig) -> RunConfig:
    """The same configuration with the data's paths made independent of the current directory, so that `resume` works from anywhere."""
    data = config.data
    changed = {
        "train": [_absolute_corpus(corpus) for corpus in data.train],
        "valid": _absolute_corpus(data.valid),
        "source_codec": _absolute_codec(data.source_codec),
        "target_codec": _absolute_codec(data.target_codec),
        "cache_dir": data.cache_dir and data.cache_dir.absolute(),
    }
    train = config.train.model_copy(update={"start_from": config.train.start_from and config.train.start_from.absolute()})
    return config.model_copy(update={"data": data.model_copy(update=changed), "train": train})


def _absolute_corpus(corpus: CorpusConfig) -> CorpusConfig:
    media = {"media": corpus.media and corpus.media.absolute(), "only": corpus.only and corpus.only.absolute()}
    if corpus.path is not None:
        return corpus.model_copy(update={"path": corpus.path.absolute(), **media})
    ends = {"source": corpus.source, "target": corpus.target}
    return corpus.model_copy(update={end: path and Path(str(path)).absolute() for end, path in ends.items()} | media)


def _absolute_codec(codec: CodecConfig) -> CodecConfig:
    if codec.kind == "stored":
        return codec.model_copy(update={"path": codec.path.absolute()})
    if codec.kind != "sentencepiece" or codec.model_file is None:
        return codec
    return codec.model_copy(update={"model_file": codec.model_file.absolute()})
