"""Resume continues bit for bit, whatever ended the run; a run has one process at a time."""

import json
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from tiny_runs import final_bytes, finish, start, tiny_config, tiny_tree, wait_for

from transduce.errors import CheckpointError, ConfigError
from transduce.train.events import SilentProgress, StepReport
from transduce.train.loop import resume, train


class Listener(SilentProgress):
    """Keeps what it is told; calls `on_step` after each report."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.steps: list[int] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def step(self, report: StepReport) -> None:
        self.steps.append(report.step)


def test_ten_steps_and_ten_more_equal_twenty(pairs: Path, uninterrupted: dict[str, bytes]) -> None:
    train(tiny_config(pairs, "halves", max_steps=10), SilentProgress())
    shutil.rmtree(pairs / "cache")  # what it held is made again
    resume(pairs / "halves", ["train.max_steps=20"], SilentProgress())
    assert final_bytes(pairs / "halves") == uninterrupted


def test_another_folder_and_directory(pairs: Path, uninterrupted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths in the file are relative to where the run was started; a moved run folder resumes from anywhere."""
    tree = tiny_tree(pairs, "moving", max_steps=5)
    tree["data"]["train"] = {"source": "train.src", "target": "train.tgt"}  # type: ignore[index]
    monkeypatch.chdir(pairs)
    train(tiny_config(pairs, "moving", max_steps=5), SilentProgress())
    (pairs / "moving").rename(pairs / "moved")
    monkeypatch.chdir("/")
    resume(pairs / "moved", ["train.max_steps=20"], SilentProgress())
    assert final_bytes(pairs / "moved") == uninterrupted


def test_ten_random_kills(pairs: Path, uninterrupted: dict[str, bytes]) -> None:
    draw = random.Random(5)
    tree = tiny_tree(pairs, "killed")
    for number in range(10):
        child = start(tree, again=(pairs / "killed" / "config.yaml").exists())
        time.sleep(draw.uniform(0.1, 0.9))
        child.kill()
        assert finish(child) in (-signal.SIGKILL, 0), number
    assert finish(start(tree, again=True)) == 0
    assert final_bytes(pairs / "killed") == uninterrupted
    assert not list((pairs / "killed").rglob(".tmp-*"))


def test_kill_inside_a_save(pairs: Path, uninterrupted: dict[str, bytes]) -> None:
    tree = tiny_tree(pairs, "torn")
    child = start(tree)
    waiting = time.monotonic() + 30
    while not list((pairs / "torn" / "checkpoints").glob(".tmp-step-*")) and time.monotonic() < waiting and child.is_alive():
        time.sleep(0.0002)
    child.kill()
    assert finish(child) == -signal.SIGKILL
    assert finish(start(tree, again=True)) == 0
    assert final_bytes(pairs / "torn") == uninterrupted


def test_damaged_checkpoint_is_skipped_and_named(pairs: Path, uninterrupted: dict[str, bytes]) -> None:
    train(tiny_config(pairs, "damaged", max_steps=15, keep_last=3), SilentProgress())
    newest = pairs / "damaged" / "checkpoints" / "step-00000015"
    content = bytearray((newest / "optimizer.safetensors").read_bytes())
    content[-1] ^= 1
    (newest / "optimizer.safetensors").write_bytes(content)
    (pairs / "damaged" / "checkpoints" / ".tmp-step-00000016").mkdir()
    listener = Listener()
    resume(pairs / "damaged", ["train.max_steps=20"], listener)
    assert any("skipped checkpoint step-00000015" in text and "optimizer.safetensors" in text for text in listener.messages)
    assert any("resumed from step-00000010" in text for text in listener.messages)
    assert listener.steps == [15, 20]
    assert not list((pairs / "damaged").rglob(".tmp-*"))
    tensors = final_bytes(pairs / "damaged")
    assert {name: tensors[name] for name in uninterrupted} == uninterrupted


def test_a_second_process_is_refused_with_the_pid(pairs: Path) -> None:
    tree = tiny_tree(pairs, "shared", max_steps=100_000)
    child = start(tree)
    wait_for(pairs / "shared" / "lock")
    try:
        with pytest.raises(CheckpointError, match=f"in use by process {child.pid}"):
            resume_or_train(pairs)
    finally:
        child.kill()
        finish(child)


def resume_or_train(pairs: Path) -> None:
    train(tiny_config(pairs, "shared"), SilentProgress())


def test_a_finished_run_is_not_overwritten(pairs: Path, uninterrupted: dict[str, bytes]) -> None:
    with pytest.raises(CheckpointError, match="already holds a run"):
        train(tiny_config(pairs, "uninterrupted"), SilentProgress())
    assert resume(pairs / "uninterrupted", output=SilentProgress()) == pairs / "uninterrupted" / "model"
    assert final_bytes(pairs / "uninterrupted") == uninterrupted


def test_no_run_and_no_limit_are_named(pairs: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no run"):
        resume(pairs / "nothing", output=SilentProgress())
    with pytest.raises(ConfigError, match=r"train\.max_minutes"):
        train(tiny_config(pairs, "endless", max_steps=None), SilentProgress())


def test_minutes_are_counted_over_resumes(pairs: Path) -> None:
    train(tiny_config(pairs, "timed", max_steps=5), SilentProgress())
    state = pairs / "timed" / "checkpoints" / "step-00000005" / "state.json"
    spent = json.loads(state.read_text(encoding="utf-8"))["minutes"]
    assert spent > 0
    resume(pairs / "timed", ["train.max_steps=10"], SilentProgress())
    later = json.loads((pairs / "timed" / "checkpoints" / "step-00000010" / "state.json").read_text(encoding="utf-8"))
    assert later["minutes"] > spent
    listener = Listener()
    resume(pairs / "timed", ["train.max_steps=1000", f"train.max_minutes={spent / 2}"], listener)
    assert listener.steps == []  # the limit was used up before
