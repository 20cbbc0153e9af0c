"""What the demos share: the order of things, their options and their exit codes, with commands and data replaced by stand-ins."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from transduce.config import load_config

ROOT = Path(__file__).resolve().parent.parent
DEMOS = ("captions", "dates", "morse", "tracks")


@pytest.fixture
def frame(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """examples/demonstrate.py, used in an empty folder."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.chdir(tmp_path)
    import demonstrate

    yield demonstrate
    del sys.modules["demonstrate"]


def test_a_demo_generates_trains_shows_and_judges(
    frame: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[object] = []

    def generate(folder: Path, *, seed: int, sizes: dict[str, int]) -> dict[str, Path]:
        done.append((str(folder), seed, sizes))
        return {"test": folder / "test.tsv"}

    def show(test: Path, picture: Path) -> float:
        done.append((str(test), str(picture)))
        return 7.0

    monkeypatch.setattr(frame, "transduce", lambda *words: done.append(words))
    demo = frame.Demo(
        "toys",
        "A toy.",
        generate,
        examples="toys",
        sizes={"train": 9, "valid": 2, "test": 3},
        intro="{count} toys",
        show=show,
        outcome="{value:g} of {need:g}",
        need=7.0,
        next=("transduce info runs/toys",),
    )
    (Path("runs") / "toys").mkdir(parents=True)
    monkeypatch.setattr("sys.argv", ["demo.py", "a.b=1", "--toys", "1000"])
    frame.demonstrate(demo)
    assert done == [
        ("work/toys", 1, {"train": 1000, "valid": 2, "test": 3}),
        ("train", "examples/toys/config.yaml", "a.b=1"),
        ("work/toys/test.tsv", "runs/toys/picture.png"),
    ]
    said = capsys.readouterr().out
    assert "1,000 toys" in said and "7 of 7, training: 0.0 min" in said and said.endswith("Try next:\n  transduce info runs/toys\n")
    assert not Path("runs/toys").exists(), "what an earlier demo left is removed"

    frame.demonstrate(replace(demo, at_most=True))
    for words, at_most in ((["--need", "7.5"], False), (["--need", "6.5"], True)):
        monkeypatch.setattr("sys.argv", ["demo.py", *words])
        with pytest.raises(SystemExit) as stopped:
            frame.demonstrate(replace(demo, at_most=at_most))
        assert stopped.value.code == 1


def test_a_command_that_fails_ends_the_demo_with_its_code(frame: ModuleType) -> None:
    with pytest.raises(SystemExit) as stopped:
        frame.transduce("train", "nowhere.yaml")
    assert stopped.value.code == 74


@pytest.mark.parametrize("name", DEMOS)
def test_each_demo_starts_and_has_its_configuration(name: str) -> None:
    shown = subprocess.run(
        [sys.executable, f"examples/{name}/demo.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    config = f"examples/{name}/config.yaml"
    assert config in shown and "--need" in shown
    assert str(load_config(ROOT / config).run_dir) == f"runs/{name}"
