"""`transduce predict`: source lines in, one target line (or JSON line) out for each, in their order.

Predictions go to standard output or a file, everything else to standard error. The decision to question: lines are read
and answered in chunks, so that sentences of like length share a batch; at a terminal every line is answered at once.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path
from typing import TextIO

from transduce.commands.ask import Running, load_predictor, refuse, search_settings, tell_engine, tell_left, writes_numbers
from transduce.commands.language import beginnings
from transduce.commands.tracks import predict_tracks
from transduce.data.lines import read_lines
from transduce.data.sources import read_sources
from transduce.data.values import Value
from transduce.decode.options import SearchConfig
from transduce.errors import ConfigError, DataError, StorageError
from transduce.forecast import Forecaster
from transduce.predict import Prediction, Predictor
from transduce.tree import listed, nearest

CHUNK_LINES = 1024
STYLES = ("text", "jsonl")
SECONDS_BETWEEN_NEWS = 10.0
TOLD_PROBLEMS = 5
"""Sources that cannot be read of which standard error says why; all are counted, and in JSON lines each says it."""


@dataclass(frozen=True)
class PredictOptions:
    """How predictions are asked for and written. `style` is text or jsonl. `media` is where the recordings or pictures are."""

    style: str = "text"
    prefix: str | None = None
    prefix_file: Path | None = None
    chunk_lines: int | None = None
    beam: int | None = None
    num_best: int | None = None
    media: Path | None = None
    precision: str = "auto"
    language_model: Path | None = None
    engine: str = "auto"


@dataclass
class _Tally:
    """What is told on standard error at the end."""

    lines: int = 0
    flags: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def predict_lines(
    models: Sequence[Path], source: str, *, output: Path | None, options: PredictOptions, words: Sequence[str], threads: int | None
) -> None:
    """Answer every line of `source` (a file or "-"). Raises DataError with the line that cannot be read."""
    if options.style not in STYLES:
        raise ConfigError(f"--format {options.style} is not allowed: {listed(STYLES)}{nearest(options.style, STYLES)}")
    if options.prefix is not None and options.prefix_file is not None:
        raise ConfigError("--prefix and --prefix-file are both given; choose one")
    if writes_numbers(models[0]):
        _refuse_text_options(models, options, words)
        predict_tracks(Forecaster.load(models[0], threads=threads), source, output=output)
        return
    running = Running(options.precision, options.engine, probabilities=options.style == "jsonl")
    predictor = load_predictor(models, options.language_model, words=words, threads=threads, running=running)
    search = search_settings(predictor.search, words, beam=options.beam, num_best=options.num_best)
    begun = options.prefix is not None or options.prefix_file is not None
    if not tell_engine(predictor, search, prefixes=begun) and options.precision == "auto" and not predictor.precision.startswith("fp32"):
        print(f"precision: {predictor.precision}; --precision fp32 does not round", file=sys.stderr)
    size = options.chunk_lines or (1 if source == "-" and sys.stdin.isatty() else CHUNK_LINES)
    path = None if source == "-" else Path(source)
    predictions = _answers(predictor, path, options=options, search=search, size=size)
    with _opened(output) as stream:
        tally = _write(stream, predictions, options=options, search=search, size=size)
    for problem in tally.problems:
        print(f"warning: source {problem}", file=sys.stderr)
    for flag, count in sorted(tally.flags.items()):
        print(f"warning: {count} of {tally.lines} predictions: {flag}", file=sys.stderr)
    tell_left(predictor, tally.lines)


def _answers(predictor: Predictor, path: Path | None, *, options: PredictOptions, search: SearchConfig, size: int) -> Iterator[Prediction]:
    """The predictions for the lines of a file (None = standard input), `size` of them at a time."""
    begun = options.prefix is not None or options.prefix_file is not None
    if predictor.source_codec.kind == "none":
        if begun:
            raise ConfigError("--prefix, --prefix-file: the lines that a language model reads are beginnings already")
        return _begun(predictor, beginnings(path), search=search, size=size)
    lines = read_lines(path) if predictor.data is None else read_sources(path, predictor.data, options.media)
    if begun:
        return _begun(predictor, _with_prefixes(lines, options), search=search, size=size)
    return predictor.predict_stream(lines, search=search, chunk_lines=size)


def _write(stream: TextIO, predictions: Iterator[Prediction], *, options: PredictOptions, search: SearchConfig, size: int) -> _Tally:
    """Write predictions as they come, `size` of them at a time, with news on standard error when it takes long."""
    tally, told = _Tally(), time.monotonic()
    for number, prediction in enumerate(predictions):
        stream.write(_written(number, prediction, style=options.style, many=search.num_best > 1))
        tally.lines += 1
        tally.flags.update([*prediction.flags, *(["truncated"] if prediction.truncated else [])])
        if prediction.problem and len(tally.problems) < TOLD_PROBLEMS:
            tally.problems.append(f"{tally.lines}: {prediction.problem}")
        if tally.lines % size:
            continue
        stream.flush()
        if time.monotonic() - told > SECONDS_BETWEEN_NEWS:
            told = time.monotonic()
            print(f"{tally.lines} lines", file=sys.stderr)
    stream.flush()
    return tally


def _refuse_text_options(models: Sequence[Path], options: PredictOptions, words: Sequence[str]) -> None:
    """Raises ConfigError for what only text has: beams, beginnings, ensembles."""
    asked = {
        "--ensemble": len(models) > 1,
        "--prefix": options.prefix is not None or options.prefix_file is not None,
        "--beam": options.beam is not None,
        "--num-best": options.num_best is not None,
        "--language-model": options.language_model is not None,
        "--engine": options.engine not in ("auto", "torch"),
        "search.KEY=VALUE": bool(words),
    }
    refuse(asked, "the target of this model is numbers, which are rolled out, not searched")


class _opened:  # noqa: N801 - a context manager reads as a verb
    """The stream to write to: standard output, or a file that is closed at the end."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.stream: TextIO | None = None

    def __enter__(self) -> TextIO:
        if self.path is None:
            return sys.stdout
        try:
            self.stream = self.path.open("w", encoding="utf-8", newline="\n")
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be written: {error.strerror}") from error
        return self.stream

    def __exit__(self, *problem: object) -> None:
        if self.stream is not None:
            self.stream.close()


def _begun(predictor: Predictor, pairs: Iterator[tuple[Value, str]], *, search: SearchConfig, size: int) -> Iterator[Prediction]:
    """Predictions with the given beginnings, `size` lines at a time."""
    first_line = 1
    while both := list(islice(pairs, size)):
        sources, prefixes = [line for line, _ in both], [prefix for _, prefix in both]
        yield from predictor.predict(sources, search=search, prefixes=prefixes, first_line=first_line)
        first_line += len(both)


def _with_prefixes(lines: Iterator[Value], options: PredictOptions) -> Iterator[tuple[Value, str]]:
    """Each line and its beginning. Raises DataError where a file of beginnings has another number of lines."""
    if options.prefix_file is None:
        yield from ((line, options.prefix or "") for line in lines)
        return
    for number, (line, prefix) in enumerate(zip_longest(lines, read_lines(options.prefix_file)), start=1):
        if line is None or prefix is None:
            raise DataError("one prefix per source line is needed, and the numbers of lines differ", options.prefix_file, number)
        yield line, prefix


def _written(number: int, prediction: Prediction, *, style: str, many: bool) -> str:
    """The line or lines of one prediction. A line break inside a predicted text becomes a space: one line in, one out."""
    if style == "jsonl":
        return json.dumps(_plain(prediction), ensure_ascii=False) + "\n"
    if not many:
        return _one_line(prediction.text) + "\n"
    entries = prediction.alternatives or (prediction,)
    return "".join(f"{number}\t{entry.score:.4f}\t{_one_line(entry.text)}\n" for entry in entries)


def _one_line(text: str) -> str:
    return text.replace("\r", " ").replace("\n", " ")


def _plain(prediction: Prediction) -> dict[str, object]:
    """What is known of a prediction as JSON values."""
    return {
        "text": prediction.text,
        "score": prediction.score,
        "truncated": prediction.truncated,
        "flags": list(prediction.flags),
        "problem": prediction.problem,
        "tokens": list(prediction.tokens),
        "token_probabilities": [float(probability) for probability in prediction.token_probabilities],
        "alternatives": [{"text": entry.text, "score": entry.score} for entry in prediction.alternatives],
    }
