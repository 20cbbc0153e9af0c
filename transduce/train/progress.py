"""Everything a training run shows and records: terminal, log.jsonl, results.csv, results.png, TensorBoard, samples.

In: the events of train/events.py. Out: text on a stream (a live line on a terminal, plain lines elsewhere) and files
in the run folder. The decision to question: nothing here runs in a thread of its own; the live line moves when the
loop reports, so a stuck run looks stuck. A file that cannot be written is a StorageError.
"""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from transduce.errors import ConfigError, StorageError
from transduce.train.events import StepReport
from transduce.train.journal import Curves, Journal, ResultsTable, read_curves, replace_text
from transduce.train.tensorboard import Board, open_board

# Figures of a validation that its own line has and the line of a step can do without.
QUIET = frozenset({"perplexity", "accuracy", "source_gain", "seconds", "ctc_unaligned"})


@dataclass(frozen=True)
class Pace:
    """How often things are shown, in seconds. Files are written at every event regardless."""

    plain_seconds: float = 10.0
    """Shortest time between two step lines where the stream is not a terminal."""
    picture_seconds: float = 20.0
    """Shortest time between two drawings of results.png (the last one is always drawn)."""


class Progress:
    """The `ProgressSink` of a run folder. `stream` is standard error unless given; `clock` counts seconds."""

    def __init__(
        self, run_dir: Path, *, stream: TextIO | None = None, pace: Pace | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.run_dir = Path(run_dir)
        self.pace = pace or Pace()
        self.console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True)
        self._clock = clock
        self._live: Live | None = None
        self._journal: Journal | None = None
        self._results: ResultsTable | None = None
        self._board: Board | None = None
        self._report: StepReport | None = None
        self._metrics: Mapping[str, float] = {}
        self._begin = clock()
        self._line_due = self._picture_due = self._begin
        self._pictures = True
        self._reader_left = False
        self._losses: dict[int, float] = {}

    def start(self, info: Mapping[str, object]) -> None:
        """Opens the files and says what was chosen. A log that is already there is continued."""
        journal = self._open_journal()
        journal.write("resume" if journal.continues else "start", info)
        self._results = ResultsTable(self.run_dir)
        self._losses = dict(read_curves(self.run_dir).training)
        self._begin = self._clock() - max((row.get("seconds") or 0.0 for row in self._results.rows.values()), default=0.0)
        for name, value in info.items():
            self._print(f"{name}: {value}")
        self._board, missing = open_board(self.run_dir)
        if missing:
            self.message(missing)
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False)
            self._live.start()
            self.console.show_cursor(True)  # a killed process must not leave the terminal without one

    def step(self, report: StepReport) -> None:
        """Shows and records the state of the run."""
        self._report = report
        self._losses[report.step] = report.loss
        self._open_journal().write("step", asdict(report))
        if self._board:
            shown = {name: value for name, value in asdict(report).items() if name not in ("step", "eta_seconds")}
            self._board.add(report.step, {f"train/{name}": value for name, value in shown.items()})
        if self._live:
            self._live.update(self._live_line(report), refresh=True)
        elif self._clock() >= self._line_due:
            self._line_due = self._clock() + self.pace.plain_seconds
            self._print(describe(report, self._metrics))

    def validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows and records a validation: log.jsonl, a row of results.csv, results.png."""
        self._metrics = dict(metrics)
        self._open_journal().write("validation", {"step": step, **metrics})
        told = " · ".join(f"{name.replace('_', ' ')} {_figure(value)}" for name, value in metrics.items())
        self._print(f"step {step:,} validation: {told}")
        if self._board:
            self._board.add(step, {f"validation/{name}": value for name, value in metrics.items()})
        self._results = self._results or ResultsTable(self.run_dir)
        figures = {"validation_seconds" if name == "seconds" else name: value for name, value in metrics.items()}
        self._results.add(step, {**self._training_columns(), **figures})
        if self._clock() >= self._picture_due:
            self._draw()

    def message(self, text: str) -> None:
        """One line for people, also kept in the log."""
        self._open_journal().write("message", {"text": text})
        self._print(text)

    def sample(self, step: int, texts: Sequence[tuple[str, str, str]]) -> None:
        """Writes samples/step-XXXXXXXX.txt: source, reference and output of fixed sentences."""
        blocks = [f"source:    {source}\nreference: {reference}\noutput:    {output}\n" for source, reference, output in texts]
        replace_text(self.run_dir / "samples" / f"step-{step:08d}.txt", "\n".join(blocks))
        triples = [{"source": source, "reference": reference, "output": output} for source, reference, output in texts]
        self._open_journal().write("sample", {"step": step, "texts": triples})

    def finish(self, summary: Mapping[str, object]) -> None:
        """Ends the live line, draws the last picture, closes TensorBoard's."""
        self.close()
        self._open_journal().write("finish", summary)
        for name, value in summary.items():
            self._print(f"{name}: {_figure(value) if isinstance(value, float) else value}")
        if self._results and self._results.rows:
            self._draw()

    def close(self) -> None:
        """Gives the terminal back and closes TensorBoard's file; may be called at any time, also after an error."""
        if self._live:
            self._live.stop()
            self._live = None
        if self._board:
            self._board.close()
            self._board = None

    def _open_journal(self) -> Journal:
        if self._journal is None:
            self._journal = Journal(self.run_dir)
        return self._journal

    def _print(self, line: str) -> None:
        """Plain text: square brackets in a message are no markup. A live line stays below it."""
        if self._live:
            self.console.print(Text(line))
            return
        if self._reader_left:
            return
        try:
            print(line, file=self.console.file, flush=True)
        except BrokenPipeError:  # who read the lines is gone; the run and its files go on
            self._reader_left = True
            self._open_journal().write("message", {"text": "nobody reads the output any more; the run goes on"})
        except OSError as error:
            raise StorageError(f"the output of the run cannot be written: {error.strerror or error}") from error

    def _training_columns(self) -> dict[str, float | None]:
        report, seconds = self._report, round(self._clock() - self._begin, 1)
        if report is None:
            return {"seconds": seconds}
        pace = round(report.tokens_per_second, 1)
        return {
            "epoch": report.epoch,
            "seconds": seconds,
            "train_loss": report.loss,
            "learning_rate": report.learning_rate,
            "tokens_per_second": pace,
        }

    def _draw(self) -> None:
        if not self._pictures or self._results is None:
            return
        from transduce.pictures import learning_curves_png

        rows = [row for _, row in sorted(self._results.rows.items())]
        curves = Curves([pair for pair in sorted(self._losses.items()) if math.isfinite(pair[1])], rows)
        try:
            learning_curves_png(self.run_dir / "results.png", curves)
        except ConfigError as error:
            self._pictures = False
            self.message(f"results.png is not drawn: {error}")
        self._picture_due = self._clock() + self.pace.picture_seconds

    def _live_line(self, report: StepReport) -> Table:
        elapsed = self._clock() - self._begin
        line = Table.grid(padding=(0, 1))
        text = Text(describe(report, self._metrics))
        if report.eta_seconds is None:
            line.add_row(text)
        else:
            line.add_row(ProgressBar(total=max(elapsed + report.eta_seconds, 1e-9), completed=elapsed, width=16), text)
        return line


def describe(report: StepReport, metrics: Mapping[str, float]) -> str:
    """One line: where the run is, how well it does, how fast, how wasteful, how large, how long still."""
    parts = [f"step {report.step:,}", f"epoch {report.epoch}", f"loss {_figure(report.loss)}"]
    parts += [f"valid {name} {_figure(value)}" for name, value in metrics.items() if name not in QUIET]
    parts += [f"{_thousands(report.tokens_per_second)} tokens/s", f"padding {report.padding_share:.1%}", _memory(report.memory_mib)]
    parts.append(f"waits for data {report.data_wait_share:.0%}")
    if report.unaligned_pairs:
        parts.append(f"{report.unaligned_pairs:,} pairs too short for CTC")
    if report.eta_seconds is not None:
        parts.append(f"{_duration(report.eta_seconds)} left")
    return " · ".join(parts)


def _figure(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"


def _thousands(value: float) -> str:
    return f"{value / 1000:.1f}k" if value >= 1000 else f"{value:.0f}"


def _memory(mib: float) -> str:
    return f"{mib / 1024:.2f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
