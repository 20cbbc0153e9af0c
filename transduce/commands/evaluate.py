"""`transduce evaluate`: source and reference files in, a table of scores out, on request as JSON and as a report."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transduce.commands.ask import (
    Running,
    load_predictor,
    reads_nothing,
    refuse,
    search_settings,
    tell_engine,
    tell_left,
    usual_metrics,
    writes_numbers,
)
from transduce.commands.language import fit_texts, show_fit
from transduce.commands.tracks import score_tracks, show_scores
from transduce.data.lines import read_lines
from transduce.data.sources import read_examples, read_sources
from transduce.data.values import Value, shown
from transduce.errors import ConfigError, DataError, StorageError
from transduce.evaluate import Baseline, Evaluation, compare, evaluate, write_report
from transduce.evaluate_tracks import write_track_report
from transduce.forecast import Forecaster
from transduce.metrics import Score
from transduce.metrics.alignments import ALIGNERS
from transduce.predict import Predictor

RATES_HINT = f"add one with --metrics ({', '.join(ALIGNERS)})"


@dataclass(frozen=True)
class EvaluateOptions:
    """What is computed and where it is written. `metrics` are names separated by commas. alignments: a file of JSON lines."""

    metrics: str | None = None
    json_output: Path | None = None
    report: Path | None = None
    baseline: Path | None = None
    beam: int | None = None
    precision: str = "fp32"
    alignments: Path | None = None
    language_model: Path | None = None
    engine: str = "auto"


@dataclass(frozen=True)
class Examples:
    """What is evaluated on: a file of sources and files of references, or one file `data` of examples like the training data.

    media: folder or .tar archive of the recordings or pictures that `data` names.
    """

    source: Path | None = None
    targets: Sequence[Path] = ()
    data: Path | None = None
    media: Path | None = None

    def check(self) -> None:
        """Raises ConfigError unless it is one of the two."""
        aligned = self.source is not None and bool(self.targets)
        if aligned == (self.data is not None) or (self.data is not None and (self.source is not None or self.targets)):
            raise ConfigError("name what to evaluate on: either --source FILE and --target FILE, or --data FILE")


def evaluate_files(
    models: Sequence[Path],
    examples: Examples,
    *,
    options: EvaluateOptions,
    words: Sequence[str],
    threads: int | None,
) -> None:
    """Predict the sources of the examples and score them against one or more references each; of a language model, score the texts.

    Raises DataError, ConfigError.
    """
    if reads_nothing(models[0]):
        _evaluate_language(models, examples, options=options, words=words, threads=threads)
        return
    examples.check()
    if writes_numbers(models[0]):
        _evaluate_tracks(models, examples, options=options, words=words, threads=threads)
        return
    names = usual_metrics(models[0]) if options.metrics is None else [name.strip() for name in options.metrics.split(",") if name.strip()]
    if options.alignments is not None and not set(ALIGNERS) & set(names):
        raise ConfigError(f"--alignments shows what an error rate counts, and there is none among {', '.join(names)}: {RATES_HINT}")
    running = Running(options.precision, options.engine, probabilities=False)
    predictor = load_predictor(models, options.language_model, words=words, threads=threads, running=running)
    sources, references = _pairs_of_data(examples, predictor) if examples.data is not None else _pairs_of_files(examples, predictor)
    search = search_settings(predictor.search, words, beam=options.beam)
    tell_engine(predictor, search)
    evaluation = replace(evaluate(predictor, sources, references, metrics=names, search=search), model=_called(models, options))
    tell_left(predictor, len(sources))
    if options.baseline is not None:
        evaluation = compare(evaluation, options.baseline, search=search if words or options.beam else None)
    _show(evaluation)
    if options.report is not None:
        print(f"report: {write_report(evaluation, predictor, report_dir=options.report, paths=models)}")
    if options.json_output is not None:
        _write_json(options.json_output, evaluation.to_dict())
    if options.alignments is not None:
        _write(options.alignments, "".join(f"{line}\n" for line in alignment_lines(evaluation)))


def _called(models: Sequence[Path], options: EvaluateOptions) -> str:
    """What was evaluated: the models, and the language model that they searched with."""
    together = ", ".join(map(str, models))
    return together if options.language_model is None else f"{together} with {options.language_model}"


def alignment_lines(evaluation: Evaluation) -> Iterator[str]:
    """A JSON object for each sentence: its line (from 1), its source, and `EditAlignment.to_dict`."""
    for number, (source, alignment) in enumerate(zip(evaluation.source_texts, evaluation.alignments(), strict=True), start=1):
        yield json.dumps({"line": number, "source": source, **alignment.to_dict()}, ensure_ascii=False)


def _pairs_of_files(examples: Examples, predictor: Predictor) -> tuple[list[Value], list[list[str]]]:
    """Sources and their references from aligned files of lines."""
    source = examples.source or Path()
    sources: list[Value] = list(read_lines(source) if predictor.data is None else read_sources(source, predictor.data, examples.media))
    references = [list(read_lines(path)) for path in examples.targets]
    for path, lines in zip(examples.targets, references, strict=True):
        if len(lines) != len(sources):
            raise DataError(f"has {len(lines)} lines, but {source} has {len(sources)}", path)
    if not sources:
        raise DataError("is empty: there is nothing to evaluate", source)
    return sources, [list(lines) for lines in zip(*references, strict=True)]


def _pairs_of_data(examples: Examples, predictor: Predictor) -> tuple[list[Value], list[list[str]]]:
    """Sources and their references from one file of examples, read as the training data was."""
    if examples.data is None or predictor.data is None:
        raise ConfigError("this model does not tell how its data was read: use --source and --target")
    records = read_examples(examples.data, predictor.data, examples.media)
    return [record.source for record in records], [[shown(target) for target in record.targets] for record in records]


def _evaluate_tracks(
    models: Sequence[Path], examples: Examples, *, options: EvaluateOptions, words: Sequence[str], threads: int | None
) -> None:
    asked = {
        "--ensemble": len(models) > 1,
        "--baseline": options.baseline,
        "--beam": options.beam,
        "--alignments": options.alignments,
        "--language-model": options.language_model,
        "search.KEY=VALUE": words,
        "--engine": options.engine not in ("auto", "torch"),
    }
    refuse(asked, "not for a model whose target is numbers")
    if examples.data is None:
        raise ConfigError("the target of this model is numbers: name the file of examples with --data")
    forecaster = Forecaster.load(models[0], threads=threads)
    scores = score_tracks(forecaster, examples.data, metrics=options.metrics, name=str(models[0]))
    show_scores(scores)
    if options.report is not None:
        print(f"report: {write_track_report(scores, report_dir=options.report, paths=models)}")
    if options.json_output is not None:
        _write_json(options.json_output, scores.to_dict())


def _evaluate_language(
    models: Sequence[Path], examples: Examples, *, options: EvaluateOptions, words: Sequence[str], threads: int | None
) -> None:
    asked = {
        "--source": examples.source,
        "--media": examples.media,
        "--metrics": options.metrics,
        "--report": options.report,
        "--baseline": options.baseline,
        "--beam": options.beam,
        "--alignments": options.alignments,
        "--language-model": options.language_model,
        "--engine": options.engine not in ("auto", "torch"),
        "search.KEY=VALUE": words,
    }
    refuse(asked, "not for a language model, which reads no source and is scored by its perplexity")
    predictor = load_predictor(models, None, words=words, threads=threads, running=Running(options.precision))
    fit = fit_texts(predictor, examples.targets, examples.data, name=", ".join(map(str, models)))
    show_fit(fit)
    if options.json_output is not None:
        _write_json(options.json_output, fit.to_dict())


def _show(evaluation: Evaluation) -> None:
    for name, score in evaluation.scores.items():
        interval = "" if score.interval is None else f"[{score.interval[0]:.2f}, {score.interval[1]:.2f}]"
        print(f"{name:12} {score.value:8.2f}  {interval:16} {score.signature}{_edits(score)}")
    for line in (*_against(evaluation.baseline), *_against(evaluation.control), *evaluation.originality_lines):
        print(line)
    if evaluation.control_verdict is not None:
        print(f"{'warning: ' if evaluation.blind else ''}{evaluation.control_verdict}")
    print(f"{len(evaluation.sources)} sentences, {evaluation.sentences_per_second:.1f} per second{_real_time(evaluation)}")
    for flag, count in {**evaluation.flags, "truncated": evaluation.truncated}.items():
        if count:
            print(f"warning: {count} of {len(evaluation.sources)} predictions: {flag}", file=sys.stderr)


def _edits(score: Score) -> str:
    """What an error rate counted: `, 3 substitutions, 1 insertions, 2 deletions of 600`."""
    counts = score.details
    if "substitutions" not in counts:
        return ""
    kinds = ", ".join(f"{counts[name]:.0f} {name}" for name in ("substitutions", "insertions", "deletions"))
    total = sum(float(str(counts[name])) for name in ("hits", "substitutions", "deletions"))
    return f"  {kinds} of {total:.0f}"


def _real_time(evaluation: Evaluation) -> str:
    if not evaluation.sound_seconds:
        return ""
    return f", {evaluation.sound_seconds:.1f} s of sound, real-time factor {evaluation.seconds / evaluation.sound_seconds:.3f}"


def _against(other: Baseline | None) -> list[str]:
    """How an evaluation compares with other outputs, a line for each metric."""
    if other is None:
        return []
    return [
        f"{test.metric:12} {test.difference:+8.2f}  against {test.baseline:.2f} of {other.name}, p = {test.p_value:.3f}"
        for test in other.comparisons
    ]


def _write_json(path: Path, tree: dict[str, object]) -> None:
    _write(path, json.dumps(tree, ensure_ascii=False, indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from error
