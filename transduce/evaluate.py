"""How good is a model on these sentences? Predictions, scores, speed, and on request a report to read.

In: a model, sources, references. Out: `Evaluation`; in `report_dir` also report.html, evaluation.json and
predictions.jsonl. The decision to question: the seconds are those of the whole prediction, text to text, start-up left out.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from transduce.controls import CONTROL, exchanged, originality, originality_lines, sees, training_texts
from transduce.data.audio import AudioCodec
from transduce.data.values import Media, Value, shown
from transduce.decode.search import SearchConfig
from transduce.errors import DataError
from transduce.metrics import NUM_RESAMPLES, Comparison, Score, compute_metrics, paired_bootstrap
from transduce.metrics.alignments import ALIGNERS, EditAlignment, align_texts
from transduce.metrics.captions import CAPTION_METRICS
from transduce.metrics.edits import sentence_similarity
from transduce.metrics.overlap import sentence_chrf
from transduce.predict import Prediction, Predictor
from transduce.train.journal import replace_text

DEFAULT_METRICS = ("bleu", "chrf")
# Metrics of running text: where one of them was asked for, examples are ranked by chrF, else by edit distance.
TEXT_METRICS = frozenset({"bleu", "chrf", "ter", "rouge1", "rouge2", "rougeL", *CAPTION_METRICS})


@dataclass(frozen=True)
class Baseline:
    """Another system's outputs for the same sources, and the paired tests against it, by metric."""

    name: str
    texts: tuple[str, ...]
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class Evaluation:
    """What came out. scores: by metric, with 95 % intervals. seconds: wall time of the prediction.

    control: of a model of pictures, its own outputs for other pictures. originality: how its captions are written. sound_seconds: of a
    model of recordings, how long they are together; the seconds over these are the real-time factor.
    """

    model: str
    scores: Mapping[str, Score]
    sources: tuple[Value, ...]
    references: tuple[tuple[str, ...], ...]
    predictions: tuple[Prediction, ...]
    search: SearchConfig
    seconds: float
    baseline: Baseline | None = None
    control: Baseline | None = None
    originality: Mapping[str, float] = field(default_factory=dict)
    sound_seconds: float | None = None

    @property
    def control_verdict(self) -> str | None:
        """In words: whether the pictures matter to the model. None where that was not tested."""
        if self.control is None:
            return None
        better = [test.metric for test in self.control.comparisons if test.verdict == "better"]
        if better:
            return f"with the right pictures the model is better than with other pictures ({', '.join(better)})"
        return "the model does no better with the right pictures than with other pictures: what it writes does not depend on what it sees"

    @property
    def blind(self) -> bool:
        """Whether the control was made and the model did not beat it."""
        return self.control is not None and all(test.verdict != "better" for test in self.control.comparisons)

    @property
    def originality_lines(self) -> list[str]:
        """How the captions are written, for people."""
        return originality_lines(dict(self.originality), len(self.sources))

    @property
    def source_texts(self) -> list[str]:
        """The sources as lines of text: themselves, or what tracks are."""
        return [shown(source) for source in self.sources]

    @property
    def texts(self) -> list[str]:
        """The predicted texts."""
        return [prediction.text for prediction in self.predictions]

    @property
    def truncated(self) -> int:
        """Predictions that hit the length limit."""
        return sum(prediction.truncated for prediction in self.predictions)

    @property
    def flags(self) -> dict[str, int]:
        """How many predictions carry each flag."""
        return dict(sorted(Counter(flag for prediction in self.predictions for flag in prediction.flags).items()))

    @property
    def sentences_per_second(self) -> float:
        """Speed of the prediction."""
        return len(self.sources) / max(self.seconds, 1e-9)

    def sentence_scores(self) -> tuple[str, list[float]]:
        """What examples are ranked by (for people), and the value of each sentence, percent, higher is better."""
        if TEXT_METRICS & set(self.scores):
            return "sentence chrF", sentence_chrf(self.texts, self.references)
        return "similarity (100 minus edits per symbol)", sentence_similarity(self.texts, self.references)

    def alignments(self) -> list[EditAlignment]:
        """Each prediction beside the closest reference, as the first error rate among the scores counted it; none without one."""
        rate = next((name for name in self.scores if name in ALIGNERS), None)
        return [] if rate is None else align_texts(rate, self.texts, self.references)

    def to_dict(self) -> dict[str, object]:
        """The figures, for JSON; predictions are left to predictions.jsonl."""
        return {
            "model": self.model,
            "sentences": len(self.sources),
            "scores": {name: score.to_dict() for name, score in self.scores.items()},
            "truncated": self.truncated,
            "flags": self.flags,
            "seconds": round(self.seconds, 3),
            "sentences_per_second": round(self.sentences_per_second, 3),
            "sound_seconds": self.sound_seconds,
            "search": self.search.model_dump(mode="json"),
            "baseline": None if self.baseline is None else self.baseline.name,
            "control": None if self.control is None else [test.to_dict() for test in self.control.comparisons],
            "control_verdict": self.control_verdict,
            "originality": dict(self.originality),
            "comparisons": [] if self.baseline is None else [comparison.to_dict() for comparison in self.baseline.comparisons],
        }


def evaluate(
    model: Path | str | Predictor,
    sources: Sequence[Value],
    references: Sequence[Sequence[str]] | Sequence[str],
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    report_dir: Path | None = None,
    search: SearchConfig | None = None,
) -> Evaluation:
    """Predict `sources` and score the outputs against one or more references each.

    model: a run folder, a model directory, or a loaded `Predictor`. search: settings instead of the model's own.
    Raises DataError for empty or unequal inputs, ConfigError for an unknown metric or a missing extra, StorageError.
    """
    texts = reference_lists(sources, references)
    compute_metrics(metrics, [group[0] for group in texts[:1]], texts[:1])  # a missing extra shows before the work, not after it
    paths = [Path(model)] if isinstance(model, Path | str) else []
    predictor = Predictor.load(model) if isinstance(model, Path | str) else model
    begin = time.perf_counter()
    predictions = predictor.predict(sources, search=search)
    seconds = time.perf_counter() - begin
    evaluation = Evaluation(
        model=str(paths[0]) if paths else "model",
        scores=compute_metrics(metrics, [prediction.text for prediction in predictions], texts, resamples=NUM_RESAMPLES),
        sources=tuple(sources),
        references=texts,
        predictions=tuple(predictions),
        search=search or predictor.search,
        seconds=seconds,
        sound_seconds=heard_seconds(predictor, sources, predictions),
    )
    if len(sources) > 1 and sees(predictor, sources):
        evaluation = with_control(evaluation, predictor)
    if report_dir is not None:
        write_report(evaluation, predictor, report_dir=report_dir, paths=paths)
    return evaluation


def heard_seconds(predictor: Predictor, sources: Sequence[Value], predictions: Sequence[Prediction]) -> float | None:
    """Length of all recordings that can be read; None where sources are something else."""
    match sources[0]:
        case Media():
            codec = predictor.source_codec
        case _:
            return None
    match codec:
        case AudioCodec():
            return sum(prediction.source_length for prediction in predictions) * codec.config.features.hop_ms / 1000
    return None


def with_control(evaluation: Evaluation, predictor: Predictor) -> Evaluation:
    """The same evaluation with what the model scores when it is shown other pictures, and how its captions are written."""
    predictions = predictor.predict(exchanged(evaluation.sources), search=evaluation.search)
    texts, references = tuple(prediction.text for prediction in predictions), evaluation.references
    tests = tuple(paired_bootstrap(metric, evaluation.texts, texts, references=references) for metric in evaluation.scores)
    figures = originality(evaluation.texts, references, training_texts(predictor.data))
    return replace(evaluation, control=Baseline(CONTROL, texts, tests), originality=figures)


def compare(
    evaluation: Evaluation, baseline: Path | str | Predictor, *, name: str = "baseline", search: SearchConfig | None = None
) -> Evaluation:
    """The same evaluation with a baseline: another model on the same sources, tested by paired bootstrap for each metric."""
    predictor = Predictor.load(baseline) if isinstance(baseline, Path | str) else baseline
    texts = tuple(prediction.text for prediction in predictor.predict(evaluation.sources, search=search))
    tests = tuple(paired_bootstrap(metric, evaluation.texts, texts, references=evaluation.references) for metric in evaluation.scores)
    named = str(baseline) if isinstance(baseline, Path | str) else name
    return replace(evaluation, baseline=Baseline(named, texts, tests))


def write_report(evaluation: Evaluation, predictor: Predictor, *, report_dir: Path, paths: Sequence[Path] = ()) -> Path:
    """report.html, evaluation.json and predictions.jsonl in `report_dir`; gives the path of the page.

    predictor: for the attention of a few examples. paths: where the model came from, for its learning curves and settings.
    """
    # Here and not above: the report reads `Evaluation`, and most evaluations write none.
    from transduce.report.build import build_report
    from transduce.report.page import render

    report = build_report(evaluation, predictor, paths=paths)
    page = report_dir / "report.html"
    replace_text(page, render(report))
    replace_text(report_dir / "evaluation.json", json.dumps(evaluation.to_dict(), ensure_ascii=False, indent=2) + "\n")
    lines = [
        {
            "source": shown(source),
            "references": texts,
            "prediction": prediction.text,
            "truncated": prediction.truncated,
            "flags": prediction.flags,
        }
        for source, texts, prediction in zip(evaluation.sources, evaluation.references, evaluation.predictions, strict=True)
    ]
    replace_text(report_dir / "predictions.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return page


def reference_lists(sources: Sequence[Value], references: Sequence[Sequence[str]] | Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """One tuple of references for each source; a single text stands for a tuple of one. Raises DataError."""
    if not sources:
        raise DataError("there is nothing to evaluate: no sources were given, at least one is needed")
    if len(sources) != len(references):
        raise DataError(f"{len(sources)} sources but {len(references)} references: the numbers must be equal")
    groups = tuple((texts,) if isinstance(texts, str) else tuple(texts) for texts in references)
    if not all(groups):
        raise DataError(f"source {groups.index(()) + 1} has no reference: each needs one or more")
    return groups
