"""`transduce evaluate`: source and reference files in, a table of scores out, on request as JSON and as a report."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transduce.commands.ask import search_settings
from transduce.data.examples import read_lines
from transduce.errors import DataError, StorageError
from transduce.evaluate import Evaluation, evaluate
from transduce.predict import Predictor

DEFAULT_METRICS = "bleu,chrf"


@dataclass(frozen=True)
class EvaluateOptions:
    """What is computed and where it is written. `metrics` are names separated by commas."""

    metrics: str | None = None
    json_output: Path | None = None
    report: Path | None = None
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
    evaluation = evaluate(
        predictor, sources, [list(lines) for lines in zip(*references, strict=True)], metrics=names, report_dir=options.report, search=search
    )
    _show(evaluation)
    if options.json_output is not None:
        _write_json(options.json_output, evaluation)


def _show(evaluation: Evaluation) -> None:
    for name, score in evaluation.scores.items():
        print(f"{name:12} {score.value:8.2f}   {score.details.get('signature', '')}".rstrip())


def _write_json(path: Path, evaluation: Evaluation) -> None:
    text = json.dumps(evaluation.to_dict(), ensure_ascii=False, indent=2) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from error
