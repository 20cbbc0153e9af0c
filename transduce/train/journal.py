"""The files of a run that record numbers: `log.jsonl` and `results.csv`, written here and read here.

In: events of a run. Out: one JSON object a line with a `kind` (start, resume, step, validation, message, sample,
finish), and one CSV row for each validation. The decision to question: a resumed run appends, so the same step may
stand in the log twice; readers take the last record of a step. The CSV is small and is replaced whole by a rename.
"""

import csv
import io
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from transduce.errors import DataError, StorageError

LOG_NAME = "log.jsonl"
RESULTS_NAME = "results.csv"
# The columns that every run has, in this order; the metrics of its validations follow.
FIXED_COLUMNS = ("step", "epoch", "seconds", "train_loss", "learning_rate", "tokens_per_second", "validation_seconds")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an operating system's refusal to write `path` into a StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: cannot write: {error.strerror or error}. It needs a writable folder with free space") from error


class Journal:
    """Appends to `log.jsonl`; a killed process loses at most the line that it was writing."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / LOG_NAME
        with writing(self.path):
            run_dir.mkdir(parents=True, exist_ok=True)
            self.continues = self.path.exists() and self.path.stat().st_size > 0
            if self.continues and not _ends_with_newline(self.path):  # a line that was being written when the process died
                self._append("\n")

    def write(self, kind: str, fields: Mapping[str, object]) -> None:
        """One event. Numbers that are not finite become null, which every JSON reader takes."""
        record = {"kind": kind, "time": round(time.time(), 3), **{key: _plain(value) for key, value in fields.items()}}
        with writing(self.path):
            self._append(json.dumps(record, ensure_ascii=False, default=str) + "\n")

    def _append(self, text: str) -> None:
        """Opened anew each time (tens of microseconds), so that nothing waits in a buffer when the process is killed."""
        with self.path.open("ab", buffering=0) as file:
            rest = text.encode("utf-8", errors="replace")
            while rest:
                rest = rest[file.write(rest) :]


class ResultsTable:
    """`results.csv`: one row for each validated step, sorted, columns in the order in which they first came."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / RESULTS_NAME
        self.rows = {int(row["step"] or 0): row for row in read_results(run_dir)}

    def add(self, step: int, values: Mapping[str, float | None]) -> None:
        """Adds the row of a step, or replaces it."""
        self.rows[step] = {"step": step, **values}
        steps = sorted(self.rows)
        columns = list(dict.fromkeys([*FIXED_COLUMNS, *(name for each in steps for name in self.rows[each])]))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: "" if value is None else value for name, value in self.rows[each].items()} for each in steps)
        replace_text(self.path, text.getvalue())


@dataclass(frozen=True)
class Curves:
    """What was recorded of a run. training: (step, loss). validations: rows of results.csv."""

    training: Sequence[tuple[int, float]]
    validations: Sequence[Mapping[str, float | None]]

    def series(self, column: str) -> list[tuple[float, float]]:
        """(step, value) of one column of the validations, where it has a value."""
        pairs = [(row["step"], row.get(column)) for row in self.validations]
        return [(step, value) for step, value in pairs if step is not None and value is not None]

    @property
    def metrics(self) -> list[str]:
        """The names of the validation columns."""
        names = dict.fromkeys(name for row in self.validations for name in row)
        return [name for name in names if name not in FIXED_COLUMNS]


def read_curves(run_dir: Path) -> Curves:
    """The learning curves of a run folder; empty where nothing was recorded."""
    steps = {}
    for record in read_log(run_dir):
        if record.get("kind") == "step" and record.get("loss") is not None:
            steps[int(str(record["step"]))] = float(str(record["loss"]))
    return Curves(sorted(steps.items()), read_results(run_dir))


def read_log(run_dir: Path) -> Iterator[dict[str, object]]:
    """The events of `log.jsonl` in order; a line that a killed process left unfinished is passed over."""
    path = run_dir / LOG_NAME
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record


def read_results(run_dir: Path) -> list[dict[str, float | None]]:
    """The rows of `results.csv`; empty cells are None. Raises DataError where a cell is not a number."""
    path = run_dir / RESULTS_NAME
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: _number(cell, path, line) for name, cell in row.items()} for line, row in enumerate(rows, start=2)]


def replace_text(path: Path, text: str) -> None:
    """Writes a file beside its place and renames it, so that readers see the old or the new one, never half."""
    beside = path.with_name(f".tmp-{path.name}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)


def _number(cell: str | None, path: Path, line: int) -> float | None:
    if not cell:
        return None
    try:
        return float(cell)
    except ValueError as error:
        raise DataError(f"expected a number, found {cell!r}", path, line) from error


def _plain(value: object) -> object:
    """A value that JSON can hold: NaN and infinities become null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
