"""What stands in a report, gathered from an evaluation, the model and its run folder.

In: an `Evaluation`, a `Predictor`, paths. Out: `Report`, plain values that the page can show without asking anybody.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transduce.evaluate import Evaluation
from transduce.metrics.alignments import Edit, EditAlignment, frequent_errors
from transduce.metrics.by_length import LengthScore, score_by_length
from transduce.predict import Predictor
from transduce.report.charts import HeatMap
from transduce.report.exhibits import Exhibit, are_files, gather
from transduce.train.journal import LOG_NAME, RESULTS_NAME, Curves, read_curves

NUM_EXAMPLES = 12
NUM_EXHIBITS = 6  # examples with a picture or a sound, of which each takes some tens of kilobytes of the page
NUM_ERRORS = 12
NUM_MAPS = 4
MAX_MAP_TOKENS = 32
NO_ATTENTION = "This model has no attention to draw: its decoder reads the source through one fixed context vector."
TOO_WIDE = "The sources are too long for their attention to be drawn."
MAX_MAP_COLUMNS = 200  # steps of a track, which have no labels
END_MARK = "</s>"


@dataclass(frozen=True)
class Example:
    """One sentence. number: its line, from 1. score: percent, higher is better. marks: truncated and flags, for people.

    alignment: with the closest reference, where an error rate was asked for. exhibit: of a source that is a file.
    """

    number: int
    source: str
    references: tuple[str, ...]
    prediction: str
    score: float
    marks: tuple[str, ...]
    alignment: EditAlignment | None = None
    exhibit: Exhibit | None = None


@dataclass(frozen=True)
class Report:
    """Everything on the page. by_length: one list for the model and one for a baseline, by name; empty for sources that are files.

    errors: the most frequent ones of the first error rate. maps: attention over texts, with line numbers; else the reason.
    """

    evaluation: Evaluation
    ranked_by: str
    worst: Sequence[Example]
    best: Sequence[Example]
    errors: Sequence[tuple[Edit, int]]
    by_length: dict[str, list[LengthScore]]
    maps: Sequence[tuple[int, HeatMap]]
    maps_missing: str
    curves: Curves
    settings: str


def build_report(evaluation: Evaluation, predictor: Predictor, *, paths: Sequence[Path]) -> Report:
    """Gathers the report; predicts a few sentences again for their attention."""
    ranked_by, values = evaluation.sentence_scores()
    files = are_files(evaluation.sources)
    lengths = [len(texts[0]) for texts in evaluation.references] if files else [len(text) for text in evaluation.source_texts]
    order = sorted(range(len(values)), key=lambda index: (values[index], lengths[index]))  # of equals the longest is best
    count = min(NUM_EXHIBITS if files else NUM_EXAMPLES, max(len(order) // 2, 1))
    worst, best = order[:count], order[: len(order) - count - 1 : -1] if len(order) > 1 else []
    exhibits = gather(predictor, [evaluation.sources[index] for index in (*worst, *best)], evaluation.search)
    alignments = evaluation.alignments()
    shown = dict(zip((*worst, *best), exhibits, strict=True))
    examples = {
        index: _example(evaluation, index, values[index], alignment=alignments[index] if alignments else None, exhibit=exhibit)
        for index, exhibit in shown.items()
    }
    maps, missing = ([], "") if files else _attention(evaluation, predictor)
    return Report(
        evaluation=evaluation,
        ranked_by=ranked_by,
        worst=[examples[index] for index in worst],
        best=[examples[index] for index in best],
        errors=frequent_errors(alignments, NUM_ERRORS),
        by_length=_by_length(evaluation),
        maps=maps,
        maps_missing=missing,
        curves=curves_of(paths),
        settings=settings_of(paths),
    )


def find_run_folder(path: Path) -> Path | None:
    """The run folder that a model lies in (run/model, run/checkpoints/step-...), or the path itself if it is one."""
    for folder in [path, *path.resolve().parents[:2]]:
        if (folder / LOG_NAME).is_file() or (folder / RESULTS_NAME).is_file():
            return folder
    return None


def _example(evaluation: Evaluation, index: int, score: float, *, alignment: EditAlignment | None, exhibit: Exhibit | None) -> Example:
    prediction = evaluation.predictions[index]
    marks = (*(("truncated",) if prediction.truncated else ()), *prediction.flags)
    source, references = evaluation.source_texts[index], evaluation.references[index]
    return Example(index + 1, source, references, prediction.text, score, marks, alignment, exhibit)


def _by_length(evaluation: Evaluation) -> dict[str, list[LengthScore]]:
    if not all(isinstance(source, str) for source in evaluation.sources):
        return {}  # the length of a file's name says nothing
    metric = next(iter(evaluation.scores))
    systems: dict[str, Sequence[str]] = {"this model": evaluation.texts}
    if evaluation.baseline is not None:
        systems["baseline"] = evaluation.baseline.texts
    return {
        name: score_by_length(metric, evaluation.source_texts, predictions=texts, references=evaluation.references)
        for name, texts in systems.items()
    }


def _attention(evaluation: Evaluation, predictor: Predictor) -> tuple[list[tuple[int, HeatMap]], str]:
    """Attention of sentences from short to long, with their line numbers; or none and the reason."""
    fitting = [
        index
        for index, prediction in enumerate(evaluation.predictions)
        if 0 < len(prediction.tokens) < MAX_MAP_TOKENS and len(prediction.source_tokens) < MAX_MAP_TOKENS
    ]
    if not fitting:
        return [], f"No sentence is short enough to draw (fewer than {MAX_MAP_TOKENS} tokens on both sides)."
    fitting.sort(key=lambda index: (len(evaluation.predictions[index].source_tokens), index))
    places = np.unique(np.linspace(0, len(fitting) - 1, NUM_MAPS + 1).round().astype(int)[1:])
    chosen = [fitting[place] for place in places]
    found = predictor.predict([evaluation.sources[index] for index in chosen], search=evaluation.search, with_attention=True)
    maps = []
    for index, prediction in zip(chosen, found, strict=True):
        if prediction.attention is not None and prediction.attention.size > 0 and prediction.attention.shape[1] <= MAX_MAP_COLUMNS:
            height, width = prediction.attention.shape
            rows, columns = _labels(prediction.tokens, height), _labels(prediction.source_tokens or [""] * width, width)
            maps.append((index + 1, HeatMap(prediction.attention.tolist(), rows, columns)))
    missing = NO_ATTENTION if all(prediction.attention is None for prediction in found) else TOO_WIDE
    return maps, "" if maps else missing


def _labels(pieces: Sequence[str], count: int) -> list[str]:
    """As many labels as rows; the end of the sequence has no piece of its own."""
    return [*pieces, *[END_MARK] * (count - len(pieces))][:count]


def curves_of(paths: Sequence[Path]) -> Curves:
    """What was recorded of the run that a model lies in; nothing of several models."""
    run = find_run_folder(paths[0]) if len(paths) == 1 else None
    return Curves([], []) if run is None else read_curves(run)


def settings_of(paths: Sequence[Path]) -> str:
    """The configuration files of the models, as they are stored."""
    from transduce.train.checkpoint import resolve_model

    files = [resolve_model(path) / "config.yaml" for path in paths]
    return "\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
