"""How good is a model of tracks on these examples? Forecasts, scores beside simple baselines, losses, on request a report to read.

The counterpart of `evaluate.py` for targets that are numbers. In: a `Forecaster` and examples. Out: `TrackEvaluation`. The decision
to question: constant velocity and a Kalman filter always stand beside the model, because on many tracks they are hard to beat
and a score alone does not tell.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from transduce.baselines import constant_velocity, fit_kalman
from transduce.data.batch import Batch
from transduce.data.codec import Codec
from transduce.data.examples import Record, read_pairs
from transduce.data.loader import DataConfig
from transduce.data.report import DataReport
from transduce.data.values import Track, Value
from transduce.errors import ConfigError, DataError, StorageError
from transduce.forecast import Forecast, Forecaster
from transduce.metrics.tracks import displacements, fitted, track_scores
from transduce.model.steps import steps_head
from transduce.readings import evaluation
from transduce.train.judges import forecast_scores
from transduce.train.objective import evaluation_loss

DEFAULT_METRICS = ("ade", "fde")
SAMPLED_METRICS = ("min_ade", "min_fde")
BOX_METRICS = ("iou", "final_iou")
BASELINE_WINDOWS = 2000  # training windows that the Kalman filter is fitted on
VELOCITY_STEPS = 3
LOSS_ROWS = 256  # examples in a batch of the losses
MODEL = "model"

Frames = NDArray[np.float32]
Guess = Callable[[Frames, int], Frames]


@dataclass(frozen=True)
class TrackEvaluation:
    """What came out. systems: scores by system and metric, the model first. guesses: its and the baselines' tracks, by system.

    losses: with true previous frames, by name: `loss` per frame (as in training), `within_tolerance` (share of frames), and of a
    mixture `nll`, the negative log-likelihood of a frame in nats, the user's units taken into account.
    """

    model: str
    systems: Mapping[str, Mapping[str, float]]
    losses: Mapping[str, float]
    records: tuple[Record, ...]
    forecasts: tuple[Forecast, ...]
    guesses: Mapping[str, Sequence[Frames]]
    seconds: float
    samples: int

    @property
    def count(self) -> int:
        """How many tracks."""
        return len(self.records)

    @property
    def truths(self) -> list[Frames]:
        """What came, (T, C) each."""
        return [_target(record) for record in self.records]

    def errors(self, system: str) -> list[Frames]:
        """Displacement of each track at each step, (T,) each."""
        pairs = zip(self.guesses[system], self.truths, strict=True)
        return [displacements(fitted(guess, len(truth)), truth, boxes=truth.shape[1] == 4) for guess, truth in pairs]

    def to_dict(self) -> dict[str, object]:
        """The figures, for JSON."""
        return {
            "model": self.model,
            "count": self.count,
            "systems": {name: dict(scores) for name, scores in self.systems.items()},
            "losses": dict(self.losses),
            "seconds": round(self.seconds, 3),
            "samples": self.samples,
        }


def evaluate_tracks(
    forecaster: Forecaster, records: Sequence[Record], *, metrics: Sequence[str] = (), name: str = MODEL
) -> TrackEvaluation:
    """Scores of the model, constant velocity and a Kalman filter. metrics: empty = those that fit. Raises DataError, ConfigError."""
    sampled = forecaster.settings.num_samples
    names = list(metrics) or _fitting(records, sampled=sampled > 0)
    begin = time.perf_counter()
    forecasts = forecaster.predict([record.source for record in records])
    seconds = time.perf_counter() - begin
    systems = {MODEL: forecast_scores(names, forecasts, records)}
    guesses: dict[str, list[Frames]] = {MODEL: [forecast.values for forecast in forecasts]}
    data = data_of(forecaster)
    if data.reading.source == "frames":
        pairs = [(cast(Track, record.source).values, _target(record)) for record in records]
        for system, guess in _baselines(data).items():
            guesses[system] = [guess(source, len(target)) for source, target in pairs]
            systems[system] = track_scores(names, guesses[system], [target for _, target in pairs])
    losses = frame_losses(forecaster, records)
    return TrackEvaluation(name, systems, losses, tuple(records), tuple(forecasts), guesses, seconds, sampled)


@torch.no_grad()
def frame_losses(forecaster: Forecaster, records: Sequence[Record]) -> dict[str, float]:
    """What `TrackEvaluation.losses` tells. Raises DataError for a target that the codec cannot read."""
    if forecaster.loss is None:
        return {}
    member, scale = forecaster.member, forecaster.target_codec.scale
    device = next(member.model.parameters()).device
    total = nll = correct = count = 0.0
    with evaluation([member]):
        for start in range(0, len(records), LOSS_ROWS):
            some = records[start : start + LOSS_ROWS]
            sources = _rows(member.source_codec, [record.source for record in some], some)
            targets = _rows(forecaster.target_codec, [record.targets[0] for record in some], some)
            source, target = member.source_codec.collate(sources, None), forecaster.target_codec.collate(targets, None)
            batch = Batch(torch.arange(len(some)), source, target).to(device)
            sums = evaluation_loss(member.model, batch, loss=forecaster.loss)
            total, nll = total + float(sums.loss), nll + float(sums.nll)
            correct, count = correct + float(sums.correct), count + sums.count
    losses = {"loss": total / count, "within_tolerance": correct / count}
    if steps_head(member.model.head).probabilistic:
        losses["nll"] = nll / count + float(np.log(scale).sum())
    return losses


def data_of(forecaster: Forecaster) -> DataConfig:
    """How the model's data was read. Raises ConfigError where it does not tell."""
    if forecaster.data is None:
        raise ConfigError("this model does not tell how its data was read")
    return forecaster.data


def write_track_report(evaluated: TrackEvaluation, *, report_dir: Path, paths: Sequence[Path] = ()) -> Path:
    """report.html and evaluation.json in `report_dir`; gives the path of the page. paths: where the model came from."""
    import json  # here, as in evaluate.py: most evaluations write no report

    from transduce.report.tracks import render_tracks
    from transduce.train.journal import replace_text

    page = report_dir / "report.html"
    replace_text(page, render_tracks(evaluated, paths=paths))
    replace_text(report_dir / "evaluation.json", json.dumps(evaluated.to_dict(), ensure_ascii=False, indent=2) + "\n")
    return page


def _target(record: Record) -> Frames:
    return cast(Track, record.targets[0]).values


def _fitting(records: Sequence[Record], *, sampled: bool) -> list[str]:
    boxes = _target(records[0]).shape[1] == 4
    return [*DEFAULT_METRICS, *(SAMPLED_METRICS if sampled else ()), *(BOX_METRICS if boxes else ())]


def _rows(codec: Codec, values: Sequence[Value], records: Sequence[Record]) -> list[NDArray[np.generic]]:
    rows = codec.rows(values)
    for row, record in zip(rows, records, strict=True):
        if row.problem is not None:
            raise DataError(f"{record.place}: {row.problem}")
    return [row.data for row in rows]


def _baselines(data: DataConfig) -> dict[str, Guess]:
    """What needs no learning, or hardly any; the filter's noise is fitted on training windows, if they can still be read."""
    found: dict[str, Guess] = {
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
    pairs = [(cast(Track, record.source).values, _target(record)) for record in chosen]
    return {**found, "Kalman filter": fit_kalman(*map(list, zip(*pairs, strict=True)))}
