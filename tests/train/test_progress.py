"""What a run shows and records: the live line, plain lines, the log, the table, pictures and samples."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from transduce.errors import StorageError
from transduce.metrics.by_length import score_by_length
from transduce.pictures import attention_png, length_png
from transduce.train.events import ProgressSink, StepReport
from transduce.train.journal import read_curves, read_log, read_results
from transduce.train.progress import Pace, Progress, describe

REPORT = StepReport(
    step=100,
    epoch=1,
    loss=3.25,
    tokens_per_second=5210.0,
    padding_share=0.031,
    learning_rate=0.001,
    gradient_norm=0.7,
    memory_mib=1536.0,
    eta_seconds=754.0,
    data_wait_share=0.0,
)
PNG = b"\x89PNG\r\n\x1a\n"


class Clock:
    """Seconds that pass when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def run(folder: Path, stream: io.StringIO, steps: range, clock: Clock | None = None) -> None:
    clock = clock or Clock()
    progress: ProgressSink = Progress(folder, stream=stream, clock=clock)
    progress.start({"precision": "fp32", "threads": 2})
    for step in steps:
        clock.now += 6.0
        progress.step(replace(REPORT, step=step, loss=5 - step / 100))
        if step % 20 == 0:
            progress.validation(step, {"loss": 4 - step / 100, "bleu": step / 10, "seconds": 2.5})
            progress.sample(step, [("ein Hund", "a dog", f"a cat {step}"), ("zwei", "two", "two")])
    progress.finish({"reason": "max_steps"})


def test_a_run_leaves_every_file(tmp_path: Path) -> None:
    run(tmp_path, io.StringIO(), range(10, 50, 10))
    kinds = [record["kind"] for record in read_log(tmp_path)]
    assert kinds == ["start", "step", "step", "validation", "sample", "step", "step", "validation", "sample", "finish"]
    rows = read_results(tmp_path)
    assert [row["step"] for row in rows] == [20, 40] and [row["bleu"] for row in rows] == [2, 4]
    assert rows[1]["train_loss"] == pytest.approx(4.6) and rows[1]["seconds"] == 24 and rows[1]["validation_seconds"] == 2.5
    header = (tmp_path / "results.csv").read_text().splitlines()[0]
    assert header == "step,epoch,seconds,train_loss,learning_rate,tokens_per_second,validation_seconds,loss,bleu"
    assert (tmp_path / "results.png").read_bytes().startswith(PNG)
    assert list((tmp_path / "tensorboard").iterdir())
    assert "output:    a cat 40" in (tmp_path / "samples" / "step-00000040.txt").read_text()
    assert not list(tmp_path.rglob(".tmp-*"))


def test_a_resumed_run_appends_and_the_last_record_of_a_step_counts(tmp_path: Path) -> None:
    run(tmp_path, io.StringIO(), range(10, 50, 10))
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"kind": "step", "step": 50, "lo')  # killed while it wrote
    progress = Progress(tmp_path, stream=io.StringIO(), clock=Clock())
    progress.start({})
    progress.step(replace(REPORT, step=40, loss=1.5))
    progress.validation(40, {"loss": 1.0, "bleu": 9.0, "chrf": 30.0})
    progress.finish({})
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert len(lines) == 15 and json.loads(lines[11])["kind"] == "resume"
    curves = read_curves(tmp_path)
    assert list(curves.training) == [(10, 4.9), (20, 4.8), (30, 4.7), (40, 1.5)]
    assert curves.series("bleu") == [(20, 2), (40, 9)] and curves.series("chrf") == [(40, 30)]
    assert [row["seconds"] for row in curves.validations] == [12, 24]  # the clock goes on where the run was left


def test_plain_lines_are_rate_limited_and_say_everything(tmp_path: Path) -> None:
    stream, clock = io.StringIO(), Clock()
    run(tmp_path, stream, range(1, 11), clock)
    lines = stream.getvalue().splitlines()
    steps = [line for line in lines if line.startswith("step ") and "validation" not in line]
    assert len(steps) == 5  # ten reports, six seconds apart, at most one line in ten seconds
    assert "\x1b" not in stream.getvalue() and "precision: fp32" in lines and "reason: max_steps" in lines
    line = describe(REPORT, {"loss": 2.5, "perplexity": 12.2, "bleu": 31.25})
    for part in ("step 100", "loss 3.2500", "bleu 31.25", "5.2k tokens/s", "padding 3.1%", "1.50 GiB", "waits for data 0%", "12:34 left"):
        assert part in line
    assert "waits for data 40%" in describe(replace(REPORT, data_wait_share=0.4), {})
    assert "left" not in describe(replace(REPORT, eta_seconds=None), {})
    assert "3 pairs too short for CTC" in describe(replace(REPORT, unaligned_pairs=3), {}) and "CTC" not in line


def test_a_terminal_gets_a_live_line_and_its_cursor_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    progress = Progress(tmp_path, stream=stream, clock=Clock())
    progress.start({})
    progress.step(REPORT)
    progress.step(replace(REPORT, step=200))
    progress.message("kept [bold]as it is[/bold]")
    shown = stream.getvalue()
    assert "step 200" in shown and "\x1b[2K" in shown and "kept [bold]as it is[/bold]" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    progress.finish({})
    progress.close()


@pytest.mark.parametrize(("module", "line"), [("matplotlib", "transduce[plot]"), ("tensorboardX", "transduce[track]")])
def test_a_missing_extra_is_said_once_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, line: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    stream = io.StringIO()
    run(tmp_path, stream, range(20, 80, 20))
    assert stream.getvalue().count(line) == 1
    assert (tmp_path / "results.png").exists() == (module != "matplotlib")
    assert (tmp_path / "tensorboard").exists() == (module != "tensorboardX")
    assert len(read_results(tmp_path)) == 3


def test_numbers_that_are_not_finite_stay_readable(tmp_path: Path) -> None:
    progress = Progress(tmp_path, stream=io.StringIO(), pace=Pace(picture_seconds=0), clock=Clock())
    progress.start({})
    progress.step(replace(REPORT, loss=float("nan")))
    progress.validation(100, {"loss": float("inf"), "bleu": 1.0})
    progress.finish({})
    text = (tmp_path / "log.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text and not read_curves(tmp_path).training


@pytest.mark.parametrize("event", ["log", "table", "samples"])
def test_a_full_disk_is_a_storage_error(tmp_path: Path, event: str) -> None:
    progress = Progress(tmp_path, stream=io.StringIO(), clock=Clock())
    if event == "log":
        (tmp_path / "log.jsonl").symlink_to("/dev/full")
        with pytest.raises(StorageError, match=r"log\.jsonl: cannot write: No space left"):
            progress.start({"a": 1})
        return
    progress.start({})
    (tmp_path / ".tmp-results.csv").symlink_to("/dev/full")
    (tmp_path / "samples").write_text("a file where a folder is wanted")
    with pytest.raises(StorageError, match="cannot write"):
        progress.validation(1, {"loss": 1.0}) if event == "table" else progress.sample(1, [])
    progress.close()


def test_a_reader_that_leaves_does_not_stop_the_run(tmp_path: Path) -> None:
    class Closed(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    run(tmp_path, Closed(), range(10, 30, 10))
    texts = [record["text"] for record in read_log(tmp_path) if record["kind"] == "message"]
    assert texts == ["nobody reads the output any more; the run goes on"]


def test_attention_and_length_pictures_are_drawn_in_any_script(tmp_path: Path) -> None:
    import numpy as np

    weights = np.full((3, 4), 0.25)
    attention_png(tmp_path / "a.png", weights, source=["2021", "年", "$x$", "\U0010ffff"], target=["▁a", "é", "</s>"], title="日付")
    groups = score_by_length("exact_match", ["a b c", "a b c d"], predictions=["x", "y"], references=[["x"], ["z"]])
    length_png(tmp_path / "b.png", {"one": groups, "two": groups})
    assert (tmp_path / "a.png").read_bytes().startswith(PNG) and (tmp_path / "b.png").read_bytes().startswith(PNG)
