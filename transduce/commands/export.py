"""`transduce export`: a model directory in, the same model for another engine out, with what the comparison of both found."""

from dataclasses import dataclass
from pathlib import Path

from transduce.data.lines import read_lines
from transduce.errors import ConfigError, DataError
from transduce.export.record import Agreement
from transduce.export.write import Exported, export_model
from transduce.tree import listed, nearest

FORMATS = ("ctranslate2",)
MEBIBYTE = 2**20


@dataclass(frozen=True)
class ExportOptions:
    """What is asked for. source, target: files of lines to compare the engines on."""

    export_format: str = "ctranslate2"
    output: Path | None = None
    source: Path | None = None
    target: Path | None = None
    threads: int | None = None


def export_files(model: Path, options: ExportOptions) -> None:
    """Export a model and print how it compares. Raises ConfigError, DataError, ExportError."""
    if options.export_format not in FORMATS:
        wanted = options.export_format
        raise ConfigError(f"--format {wanted} is not allowed: {listed(FORMATS)}{nearest(wanted, FORMATS)}")
    if options.target is not None and options.source is None:
        raise ConfigError("--target names references of the sources in --source, which is not given")
    sources = None if options.source is None else list(read_lines(options.source))
    references = None if options.target is None else [[line] for line in read_lines(options.target)]
    if sources is not None and references is not None and len(sources) != len(references):
        raise DataError(f"has {len(references)} lines, but {options.source} has {len(sources)}", options.target)
    exported = export_model(model, output=options.output, sources=sources, references=references, threads=options.threads)
    for line in export_lines(exported, inside=options.output is None):
        print(line)


def export_lines(exported: Exported, *, inside: bool) -> list[str]:
    """What came out, for people. inside: whether `predict` will find it."""
    record = exported.record
    size = sum(file.stat().st_size for file in exported.folder.rglob("*") if file.is_file())
    lines = [f"{exported.folder}: {record.format} {record.engine_version}, {size / MEBIBYTE:.1f} MiB; compared on {record.sources}"]
    lines += [agreement_line(one) for one in record.agreements]
    passed = sorted({one.kind for one in record.agreements if one.passed})
    if not passed:
        return [*lines, "warning: nothing passed; `transduce predict` goes on using torch"]
    if not inside:
        return [*lines, "`transduce predict` looks for exports inside the model directory only: leave out --output to have it used"]
    return [*lines, f"`transduce predict` uses it from now on for {' and '.join(passed)} search; --engine torch leaves it out"]


def agreement_line(one: Agreement) -> str:
    """`greedy int8            passed  93.5 % the same, chrF 98.2 to torch, 61.0 to references (torch 61.1), 3 of 200 left to torch`."""
    references = "" if one.metric is None else f", {one.metric:.2f} to references (torch {one.metric_torch:.2f})"
    figures = f"{100 * one.same:.1f} % the same, scores within {one.score_error:.1g}, chrF {one.likeness:.2f} to torch{references}"
    if not one.sentences:
        return f"  {one.kind:6} {one.compute_type:14} FAILED  nothing to compare: all of {one.left_to_torch} sources were left to torch"
    left = f"{one.left_to_torch} of {one.sentences + one.left_to_torch} left to torch"
    return f"  {one.kind:6} {one.compute_type:14} {'passed' if one.passed else 'FAILED'}  {figures}, {left}"
