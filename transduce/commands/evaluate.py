"""`transduce evaluate`: source and reference files in, a table of scores out, on request as JSON and as a report."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transduce.commands.ask import search_settings
from transduce.data.examples import read_lines
from transduce.errors import DataError, StorageError
from transduce.evaluate import Evaluation, compare, evaluate, write_report
from transduce.predict import Predictor

DEFAULT_METRICS = "bleu,chrf"


@dataclass(frozen=True)
class EvaluateOptions:
    """What is computed and where it is written. `metrics` are names separated by commas."""

    metrics: str | None = None
    json_output: Path | None = None
    report: Path | None = None
    baseline: Path | None = None
    beam: int | None = None


def evaluate_files(
    models: Sequence[Path],
    source: Path,
    *,
    targets: Sequence[Path],
    options: EvaluateOptions,
    words: Sequence[str],
    threads: int | None,
) -> None:
    """Predict `source` and score it against one or more reference files of as many lines. Raises DataError."""
    sources = list(read_lines(source))
    references = [list(read_lines(path)) for path in targets]
    for path, lines in zip(targets, references, strict=True):
        if len(lines) != len(sources):
            raise DataError(f"has {len(lines)} lines, but {source} has {len(sources)}", path)
    if not sources:
        raise DataError("is empty: there is nothing to evaluate", source)
    predictor = Predictor.load(list(models), threads=threads)
    search = search_settings(predictor.search, words, beam=options.beam)
    names = [name.strip() for name in (options.metrics or DEFAULT_METRICS).split(",") if name.strip()]
    per_source = [list(lines) for lines in zip(*references, strict=True)]
    evaluation = replace(evaluate(predictor, sources, per_source, metrics=names, search=search), model=", ".join(map(str, models)))
    if options.baseline is not None:
        evaluation = compare(evaluation, options.baseline, search=search if words or options.beam else None)
    _show(evaluation)
    if options.report is not None:
        print(f"report: {write_report(evaluation, predictor, report_dir=options.report, paths=models)}")
    if options.json_output is not None:
        _write_json(options.json_output, evaluation)


def _show(evaluation: Evaluation) -> None:
    for name, score in evaluation.scores.items():
        interval = "" if score.interval is None else f"[{score.interval[0]:.2f}, {score.interval[1]:.2f}]"
        print(f"{name:12} {score.value:8.2f}  {interval:16} {score.signature}")
    if evaluation.baseline is not None:
        for test in evaluation.baseline.comparisons:
            print(f"{test.metric:12} {test.value - test.baseline:+8.2f}  against {evaluation.baseline.name}, p = {test.p_value:.3f}")
    print(f"{len(evaluation.sources)} sentences, {evaluation.sentences_per_second:.1f} per second")
    for flag, count in {**evaluation.flags, "truncated": evaluation.truncated}.items():
        if count:
            print(f"warning: {count} of {len(evaluation.sources)} predictions: {flag}", file=sys.stderr)


def _write_json(path: Path, evaluation: Evaluation) -> None:
    text = json.dumps(evaluation.to_dict(), ensure_ascii=False, indent=2) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from error
