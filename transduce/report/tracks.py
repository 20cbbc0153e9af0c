"""The report of a model of tracks: scores beside baselines, error by step ahead, the best and worst tracks drawn from above.

In: a `TrackEvaluation`. Out: one HTML text, in the style and with the parts of page.py. The decision to question: the
mean error decides what is best and worst, not its share of constant velocity's, so that a reader sees what costs most.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from transduce.data.examples import Record
from transduce.data.values import Track, Value
from transduce.evaluate_tracks import MODEL, TrackEvaluation
from transduce.metrics.tracks import better_track_metric
from transduce.report.build import curves_of, settings_of
from transduce.report.charts import FanChart, fan_chart, line_chart
from transduce.report.page import LABELS, document, header, learning_curves, legend, section

NUM_FANS = 6
LOSS_LABELS = {
    "loss": "Loss per frame",
    "within_tolerance": "Share of frames within tolerance",
    "nll": "Negative log-likelihood per frame, nats",
}

Frames = NDArray[np.float32]


def render_tracks(evaluated: TrackEvaluation, *, paths: Sequence[Path]) -> str:
    """The whole page. paths: where the model came from, for its learning curves and settings."""
    errors = np.array([error.mean() for error in evaluated.errors(MODEL)])
    order = [int(index) for index in np.argsort(errors, kind="stable")]
    count = min(NUM_FANS, max(len(order) // 2, 1))
    sections = [
        header(evaluated.model, _facts(evaluated)),
        _scores(evaluated),
        _notices(evaluated),
        _by_step(evaluated),
        _fans(evaluated, "worst", order[::-1][:count], errors=errors),
        _fans(evaluated, "best", order[:count], errors=errors),
        learning_curves(curves_of(paths), unit="frame"),
        section("settings", "Settings", f"<details><summary>config.yaml</summary><pre>{escape(settings_of(paths))}</pre></details>"),
    ]
    return document(evaluated.model, sections)


def _facts(evaluated: TrackEvaluation) -> list[str]:
    speed = evaluated.count / max(evaluated.seconds, 1e-9)
    facts = [f"{evaluated.count:,} tracks", f"{speed:,.1f} tracks a second", f"{evaluated.seconds:,.1f} s"]
    return [*facts, f"best of {evaluated.samples}"] if evaluated.samples else facts


def _scores(evaluated: TrackEvaluation) -> str:
    names = list(evaluated.systems[MODEL])
    best = {
        name: (min if better_track_metric(name) == "lower" else max)(scores[name] for scores in evaluated.systems.values())
        for name in names
    }
    head = "".join(f"<th>{escape(LABELS.get(name, name))}</th>" for name in names)
    rows = []
    for system, scores in evaluated.systems.items():
        shown = [f"<b>{scores[name]:.4g}</b>" if scores[name] == best[name] else f"{scores[name]:.4g}" for name in names]
        cells = "".join(f"<td>{cell}</td>" for cell in shown)
        rows.append(f"<tr><th>{escape(system)}</th>{cells}</tr>")
    table = f'<div class="scroll"><table class="numbers"><tr><th></th>{head}</tr>{"".join(rows)}</table></div>'
    losses = "".join(f"<tr><th>{LOSS_LABELS[name]}</th><td>{value:.4g}</td></tr>" for name, value in evaluated.losses.items())
    note = "In the units of the data; the best of each column is bold. A baseline has one guess, so its best of several is this one."
    return section("scores", "Scores beside simple baselines", f"{table}<table>{losses}</table>", note=note)


def _notices(evaluated: TrackEvaluation) -> str:
    """Counts that a reader must not overlook."""
    flags = [flag for forecast in evaluated.forecasts for flag in forecast.flags]
    counts = {f"flagged {flag}": flags.count(flag) for flag in sorted(set(flags))}
    counts["not stopped (truncated)"] = sum(forecast.truncated for forecast in evaluated.forecasts)
    notes = [f"<li>{count:,} of {evaluated.count:,} forecasts {escape(what)}</li>" for what, count in counts.items() if count]
    if not notes:
        return '<p class="quiet">No forecast was truncated or flagged.</p>'
    return f'<section id="notices" class="warning"><h2>Please note</h2><ul>{"".join(notes)}</ul></section>'


def _by_step(evaluated: TrackEvaluation) -> str:
    series = {}
    for system in evaluated.guesses:
        errors = evaluated.errors(system)
        longest = max(map(len, errors))
        means = [np.mean([error[step] for error in errors if len(error) > step]) for step in range(longest)]
        series[system] = [(step + 1.0, float(mean)) for step, mean in enumerate(means)]
    chart = line_chart(series, x_title="steps ahead", description="Mean displacement by steps ahead")
    note = "Mean displacement of the tracks that are that long."
    return section("steps", "Error by step ahead", f"<figure>{chart}{legend(list(series))}</figure>", note=note)


def _fans(evaluated: TrackEvaluation, name: str, indices: Sequence[int], *, errors: Frames) -> str:
    figures = []
    for index in indices:
        record, forecast = evaluated.records[index], evaluated.forecasts[index]
        guesses = [_positions(one) for one in forecast.samples]
        fan = FanChart(_past(record.source), _positions(_target(record)), _positions(forecast.values), guesses)
        title = f"{record.place}: displacement {errors[index]:.4g}"
        figures.append(f"<figure><figcaption>{escape(title)}</figcaption>{fan_chart(fan, description=title)}</figure>")
    names = legend(["past and what came", "expected and guesses"])
    note = "Seen from above, of boxes the centres: what was observed, what came (dotted), what the model expected, and its other guesses."
    return section(name, f"{name.capitalize()} tracks", f'<div class="grid2">{"".join(figures)}</div>{names}', note=note)


def _past(source: Value) -> list[tuple[float, float]]:
    match source:
        case Track():
            return _positions(source.values)
    return []


def _target(record: Record) -> Frames:
    return cast(Track, record.targets[0]).values


def _positions(frames: Frames) -> list[tuple[float, float]]:
    """(T, C) -> the first two numbers of each frame, of a box its centre; a single number stands over its step."""
    size = frames.shape[1]
    if size == 1:
        return [(float(step), float(value)) for step, value in enumerate(frames[:, 0])]
    places = frames[:, :2] + frames[:, 2:4] / 2 if size == 4 else frames[:, :2]
    return [(float(x), float(y)) for x, y in places]
