"""`transduce predict` and `evaluate` where the target is numbers: forecasts as JSON lines, scores beside simple baselines.

In: a model directory and files of sources or of examples. Out: one line per source, or a table. The decision to question: an
evaluation always prints constant velocity and a Kalman filter beside the model, because on many tracks they are hard to
beat and a score alone does not tell.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TextIO, cast

import numpy as np

from transduce.baselines import constant_velocity, fit_kalman
from transduce.data.examples import Record, read_pairs
from transduce.data.loader import DataConfig
from transduce.data.report import DataReport
from transduce.data.sources import read_examples, read_sources
from transduce.data.tables import newest_observed
from transduce.data.values import Track, Value
from transduce.errors import ConfigError, DataError, StorageError
from transduce.forecast import Forecast, Forecaster
from transduce.metrics.tracks import SAMPLED, track_scores
from transduce.train.judges import forecast_scores

DEFAULT_METRICS = ("ade", "fde")
SAMPLED_METRICS = ("min_ade", "min_fde")
BOX_METRICS = ("iou", "final_iou")
BASELINE_WINDOWS = 2000  # training windows that the Kalman filter is fitted on
VELOCITY_STEPS = 3


@dataclass(frozen=True)
class TrackScores:
    """Scores of the model and of each baseline by name, and how many tracks they are of."""

    systems: dict[str, dict[str, float]]
    count: int
    seconds: float
    samples: int


def predict_tracks(forecaster: Forecaster, source: str, *, output: Path | None) -> None:
    """One JSON line per source: {"values": [[...]], "samples": ..., "flags": [...]}; numbers in the user's units."""
    data = _data(forecaster)
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


def score_tracks(forecaster: Forecaster, path: Path, *, metrics: str | None) -> TrackScores:
    """Scores of the model, constant velocity and a Kalman filter on the examples of a file. Raises DataError, ConfigError."""
    data = _data(forecaster)
    records = read_examples(path, data)
    names = _names(metrics, records, sampled=forecaster.settings.num_samples > 0)
    begin = time.perf_counter()
    forecasts = forecaster.predict([record.source for record in records])
    seconds = time.perf_counter() - begin
    systems = {"model": forecast_scores(names, forecasts, records)}
    if data.reading.source == "frames":
        systems |= {name: _baseline(guess, records, names) for name, guess in _baselines(data).items()}
    return TrackScores(systems, len(records), seconds, forecaster.settings.num_samples)


def show_scores(scores: TrackScores) -> None:
    """A table: one row per system, one column per metric."""
    names = list(scores.systems["model"])
    print(f"{'':20}" + "".join(f"{name:>11}" for name in names))
    for system, values in scores.systems.items():
        print(f"{system:20}" + "".join(f"{values[name]:11.4g}" for name in names))
    guesses = f", best of {scores.samples} samples for {', '.join(SAMPLED)}" if scores.samples else ""
    print(f"{scores.count} tracks, {scores.count / max(scores.seconds, 1e-9):.1f} per second{guesses}")


def _data(forecaster: Forecaster) -> DataConfig:
    if forecaster.data is None:
        raise ConfigError("this model does not tell how its data was read")
    return forecaster.data


def _sources(path: Path | None, data: DataConfig) -> Iterator[Value]:
    """Sources of a file: lines of JSON, or of a table the newest observed steps of each track."""
    if path is not None and data.windows is not None and data.valid.resolved_format == "tracks":
        yield from newest_observed(path, data.windows)
        return
    yield from read_sources(path, data)


def _names(metrics: str | None, records: Sequence[Record], *, sampled: bool) -> list[str]:
    if metrics is not None:
        return [name.strip() for name in metrics.split(",") if name.strip()]
    boxes = cast(Track, records[0].targets[0]).values.shape[1] == 4
    return [*DEFAULT_METRICS, *(SAMPLED_METRICS if sampled else ()), *(BOX_METRICS if boxes else ())]


def _baselines(data: DataConfig) -> dict[str, Callable[[np.ndarray, int], np.ndarray]]:
    """What needs no learning, or hardly any; the filter's noise is fitted on training windows, if they can still be read."""
    found: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
        "constant velocity": constant_velocity,
        f"velocity of {VELOCITY_STEPS} steps": lambda observed, steps: constant_velocity(observed, steps, over=VELOCITY_STEPS),
    }
    try:
        measured = [corpus for corpus in data.train if not corpus.noise] or data.train
        corpora = [read_pairs(corpus, errors="tolerant", report=DataReport(), reading=data.reading) for corpus in measured]
        records = list(chain.from_iterable(corpora))
    except (DataError, StorageError) as error:
        print(f"note: no Kalman filter, because the training data cannot be read: {error}", file=sys.stderr)
        return found
    chosen = records[:: max(len(records) // BASELINE_WINDOWS, 1)]
    pairs = [(cast(Track, record.source).values, cast(Track, record.targets[0]).values) for record in chosen]
    return {**found, "Kalman filter": fit_kalman(*map(list, zip(*pairs, strict=True)))}


def _baseline(guess: Callable[[np.ndarray, int], np.ndarray], records: Sequence[Record], names: Sequence[str]) -> dict[str, float]:
    pairs = [(cast(Track, record.source).values, cast(Track, record.targets[0]).values) for record in records]
    return track_scores(names, [guess(source, len(target)) for source, target in pairs], [target for _, target in pairs])


def _plain(forecast: Forecast) -> dict[str, object]:
    tree: dict[str, object] = {"values": forecast.values.tolist(), "truncated": forecast.truncated, "flags": list(forecast.flags)}
    if forecast.samples:
        tree |= {"samples": [sample.tolist() for sample in forecast.samples], "log_probabilities": list(forecast.log_probabilities)}
    return tree


def _opened(path: Path) -> TextIO:
    try:
        return path.open("w", encoding="utf-8", newline="\n")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from error
