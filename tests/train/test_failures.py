"""Signals, full disks, places that cannot be written, and a loss that is no number."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import error_file, final_bytes, finish, start, tiny_config, tiny_tree, wait_for

from transduce.errors import DivergedError, Interrupted, StorageError
from transduce.train import trainer as trainer_module
from transduce.train.checkpoint import RunFolder
from transduce.train.events import SilentProgress
from transduce.train.loop import resume, train
from transduce.train.loss import LossSums
from transduce.train.objective import training_loss
from transduce.train.signals import SignalGuard
from transduce.train.storage import write_folder
from transduce.train.validation import Validator


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_signals_save_and_exit_within_seconds(pairs: Path, number: int, code: int) -> None:
    tree = tiny_tree(pairs, f"signal-{code}", save_every_steps=100_000, validate_every_steps=5, max_steps=100_000)
    run = RunFolder(Path(str(tree["run_dir"])))
    child = start(tree)
    wait_for(run.path / "lock")  # from here on signals are handled
    time.sleep(1.0)
    os.kill(child.pid, number)
    begin = time.monotonic()
    assert finish(child) == code
    assert time.monotonic() - begin < 5
    folder, skipped = run.newest()
    assert skipped == []
    assert folder is None or int(folder.name[5:]) > 0


class Stopper(SilentProgress):
    """Sends this process a signal when step `at` is reported."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, report: object) -> None:
        if report.step == self.at:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGTERM)


def test_signal_between_checkpoints_continues_bit_for_bit(pairs: Path, uninterrupted: dict[str, bytes]) -> None:
    with pytest.raises(Interrupted, match="step 7 is saved") as caught:
        train(tiny_config(pairs, "stopped", log_every_steps=1), Stopper(7))
    assert caught.value.exit_code == 75
    resume(pairs / "stopped", output=SilentProgress())
    assert final_bytes(pairs / "stopped") == uninterrupted


def test_signal_inside_validation_continues_bit_for_bit(
    pairs: Path, uninterrupted: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = Validator.measure

    def stop(self: Validator, model: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return measure(self, model)  # type: ignore[arg-type]

    monkeypatch.setattr(Validator, "measure", stop)
    with pytest.raises(Interrupted, match="step 5 is saved") as caught:
        train(tiny_config(pairs, "validating"), SilentProgress())
    assert caught.value.exit_code == 130
    monkeypatch.undo()
    metrics = pairs / "validating" / "checkpoints" / "step-00000005" / "metrics.json"
    assert json.loads(metrics.read_text(encoding="utf-8")) == {}
    resume(pairs / "validating", ["train.keep_best=4"], output=SilentProgress())
    assert "loss" in json.loads(metrics.read_text(encoding="utf-8"))
    tensors = final_bytes(pairs / "validating")
    assert {name: tensors[name] for name in uninterrupted} == uninterrupted


def test_signal_while_data_is_prepared(pairs: Path) -> None:
    class Early(SilentProgress):
        def message(self, text: str) -> None:
            if "pairs read" in text:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="nothing new was trained") as caught:
        train(tiny_config(pairs, "early"), Early())
    assert caught.value.exit_code == 75
    train(tiny_config(pairs, "early", max_steps=1), SilentProgress())  # nothing is in the way


def test_a_second_interrupt_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt), SignalGuard():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_full_disk_leaves_the_checkpoint_before(pairs: Path, uninterrupted: dict[str, bytes]) -> None:
    tree = tiny_tree(pairs, "full", max_steps=10)
    assert finish(start(tree)) == 0
    tree["train"]["max_steps"] = 20  # type: ignore[index]
    smallest = (pairs / "full" / "checkpoints" / "step-00000010" / "optimizer.safetensors").stat().st_size - 1
    config = pairs / "full" / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("max_steps: 10", "max_steps: 20"), encoding="utf-8")
    assert finish(start(tree, again=True, file_bytes=smallest)) == 74
    assert "What was saved before is intact" in error_file(tree).read_text(encoding="utf-8")
    folder, skipped = RunFolder(pairs / "full").newest()
    assert folder is not None and folder.name == "step-00000010" and skipped == []
    assert not list((pairs / "full").rglob(".tmp-*"))
    resume(pairs / "full", output=SilentProgress())
    assert final_bytes(pairs / "full") == uninterrupted


def test_places_that_cannot_be_written(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(StorageError, match="file"):
        train(tiny_config(pairs, "unused").model_copy(update={"run_dir": tmp_path / "file" / "run"}), SilentProgress())

    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    with pytest.raises(StorageError, match="Permission denied"):
        write_folder(tmp_path / "model", refuse)
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_loss_that_is_no_number(pairs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tiny_config(pairs, "diverging", max_steps=5), SilentProgress())
    calls = []

    def break_down(*arguments: object, **named: object) -> LossSums:
        sums = training_loss(*arguments, **named)  # type: ignore[arg-type]
        calls.append(1)
        return replace(sums, loss=sums.loss * float("inf")) if len(calls) > 3 else sums

    monkeypatch.setattr(trainer_module, "training_loss", break_down)
    with pytest.raises(DivergedError, match=r"(?s)step \d+.*learning rate.*train\.clip_norm") as caught:
        resume(pairs / "diverging", ["train.max_steps=50"], SilentProgress())
    assert caught.value.exit_code == 76
    folder, skipped = RunFolder(pairs / "diverging").newest()
    assert folder is not None and folder.name == "step-00000005" and skipped == []
