"""`transduce distill`: a model's answers to its own training sources, or to other lines, as a file to train a smaller model on.

Counts and what to do next go to standard error, the name of the file to standard output. The decision to question: what another engine
searches exactly it searches here too, since an answer is an answer.
"""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from transduce import __version__
from transduce.commands.ask import Running, load_predictor, reads_nothing, search_settings, tell_engine, tell_left, writes_numbers
from transduce.data.examples import Record, read_pairs
from transduce.data.lines import read_lines
from transduce.data.report import DataReport
from transduce.distill import Distilled, distill
from transduce.errors import ConfigError
from transduce.predict import Predictor
from transduce.train.checkpoint import resolve_model
from transduce.train.storage import MANIFEST


@dataclass(frozen=True)
class DistillOptions:
    """What is asked for. sources: files of lines; none = the model's own training data. closest: to the reference, of an n-best list."""

    output: Path
    sources: Sequence[Path] = ()
    closest: bool = False
    beam: int | None = None
    precision: str = "auto"
    engine: str = "auto"


def distill_files(models: Sequence[Path], options: DistillOptions, *, words: Sequence[str], threads: int | None) -> None:
    """Write the pairs. Raises ConfigError, DataError, StorageError."""
    _refuse(models, options)
    running = Running(options.precision, options.engine, probabilities=False)
    predictor = load_predictor(models, None, words=words, threads=threads, running=running)
    predictor.search = search_settings(predictor.search, words, beam=options.beam)
    if options.closest:
        predictor.search = search_settings(predictor.search, (), beam=None, num_best=predictor.search.beam_size)
    tell_engine(predictor, predictor.search)
    data = DataReport()
    made_with = {
        "transduce": __version__,
        "models": [hashlib.sha256((resolve_model(model) / MANIFEST).read_bytes()).hexdigest() for model in models],
        "precision": options.precision,
        "closest": options.closest,
        "search": predictor.search.model_dump(mode="json"),
    }
    records = _records(predictor, options.sources, data)
    done = distill(predictor, records, options.output, closest=options.closest, made_with=made_with, report=_tell)
    if done.pairs == done.found:
        _tell(done)
    for line in data.lines():
        print(line, file=sys.stderr)
    for what, count in sorted(done.counts.items()):
        print(f"warning: {count} {what}", file=sys.stderr)
    tell_left(predictor, done.pairs - done.found)
    print(options.output)


def _refuse(models: Sequence[Path], options: DistillOptions) -> None:
    """Raises ConfigError for what cannot be answered in text, or cannot be written so."""
    if writes_numbers(models[0]):
        raise ConfigError(f"{models[0]} writes numbers: only models whose source and target are text can be distilled so far")
    if reads_nothing(models[0]):
        raise ConfigError(f"{models[0]} is a language model: it has no sources to answer")
    if options.closest and options.sources:
        raise ConfigError("--closest compares answers with references, which the lines of --source do not have")
    if options.output.suffix == ".gz":
        raise ConfigError(f"--output {options.output}: the file is added to line by line and cannot be compressed; end its name in .jsonl")


def _records(predictor: Predictor, sources: Sequence[Path], report: DataReport) -> Iterator[Record]:
    """The examples to answer. What is wrong with training data is counted in `report`, or refused, as in training."""
    data = predictor.data
    if data is None or data.reading.source != "text":
        kind = predictor.source_codec.kind
        raise ConfigError(f"the source of this model is {kind}: only models whose source and target are text can be distilled so far")
    for path in sources:
        yield from (Record(line, (), f"{path}:{number}") for number, line in enumerate(read_lines(path), 1))
    for corpus in data.train if not sources else ():
        yield from read_pairs(corpus, errors=data.errors, report=report, reading=data.reading)


def _tell(done: Distilled) -> None:
    there = f", {done.found} of them from an earlier run" if done.found else ""
    print(f"{done.pairs} pairs{there}", file=sys.stderr)
