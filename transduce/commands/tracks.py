"""`transduce predict` and `evaluate` where the target is numbers: forecasts as JSON lines, scores beside simple baselines.

In: a model directory and files of sources or of examples. Out: one line per source, or a table. The decision to question: there is no
perplexity; of numbers it would be the exponential of a density, which changes with the unit.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from transduce.data.loader import DataConfig
from transduce.data.sources import read_examples, read_sources
from transduce.data.tables import newest_observed
from transduce.data.values import Value
from transduce.errors import StorageError
from transduce.evaluate_tracks import MODEL, TrackEvaluation, data_of, evaluate_tracks
from transduce.forecast import Forecast, Forecaster
from transduce.metrics.tracks import SAMPLED

LOSS_NAMES = {
    "loss": "loss per frame",
    "within_tolerance": "share of frames within tolerance",
    "nll": "negative log-likelihood per frame, nats",
}


def predict_tracks(forecaster: Forecaster, source: str, *, output: Path | None) -> None:
    """One JSON line per source: {"values": [[...]], "samples": ..., "flags": [...]}; numbers in the user's units."""
    data = data_of(forecaster)
    sources = list(_sources(None if source == "-" else Path(source), data))
    forecasts = forecaster.predict(sources)
    with ExitStack() as stack:
        stream = sys.stdout if output is None else stack.enter_context(_opened(output))
        for forecast in forecasts:
            stream.write(json.dumps(_plain(forecast), ensure_ascii=False) + "\n")
    flags = sorted({flag for forecast in forecasts for flag in forecast.flags})
    for flag in flags:
        count = sum(flag in forecast.flags for forecast in forecasts)
        print(f"warning: {count} of {len(forecasts)} predictions: {flag}", file=sys.stderr)


def score_tracks(forecaster: Forecaster, path: Path, *, metrics: str | None, name: str) -> TrackEvaluation:
    """Scores of the model and of baselines on the examples of a file. metrics: names separated by commas. Raises DataError, ConfigError."""
    wanted = [] if metrics is None else [metric.strip() for metric in metrics.split(",") if metric.strip()]
    return evaluate_tracks(forecaster, read_examples(path, data_of(forecaster)), metrics=wanted, name=name)


def show_scores(scores: TrackEvaluation) -> None:
    """A table: one row per system, one column per metric; then the losses."""
    names = list(scores.systems[MODEL])
    print(f"{'':20}" + "".join(f"{name:>11}" for name in names))
    for system, values in scores.systems.items():
        print(f"{system:20}" + "".join(f"{values[name]:11.4g}" for name in names))
    for loss, value in scores.losses.items():
        print(f"{LOSS_NAMES[loss]}: {value:.4g}")
    guesses = f", best of {scores.samples} samples for {', '.join(SAMPLED)}" if scores.samples else ""
    print(f"{scores.count} tracks, {scores.count / max(scores.seconds, 1e-9):.1f} per second{guesses}")


def _sources(path: Path | None, data: DataConfig) -> Iterator[Value]:
    """Sources of a file: lines of JSON, or of a table the newest observed steps of each track."""
    if path is not None and data.windows is not None and data.valid.resolved_format == "tracks":
        yield from newest_observed(path, data.windows)
        return
    yield from read_sources(path, data)


def _plain(forecast: Forecast) -> dict[str, object]:
    tree: dict[str, object] = {
        "values": forecast.values.tolist(),
        "truncated": forecast.truncated,
        "flags": list(forecast.flags),
        "problem": forecast.problem,
    }
    if forecast.samples:
        tree |= {"samples": [sample.tolist() for sample in forecast.samples], "log_probabilities": list(forecast.log_probabilities)}
    return tree


def _opened(path: Path) -> TextIO:
    try:
        return path.open("w", encoding="utf-8", newline="\n")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from error
