"""The script behind docs/results-media.md: links, commands, records and the page, with the commands replaced by a stand-in."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from transduce.config import load_config

ROOT = Path(__file__).resolve().parent.parent
MINE = ("results_media", "results_media_page", "results_text", "results_data", "results_page")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """scripts/results_media.py in an empty root."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import results_media

    monkeypatch.setattr(results_media, "ROOT", tmp_path)
    monkeypatch.setattr(results_media, "RECORDS", tmp_path / "docs" / "results")
    yield results_media
    for name in MINE:
        sys.modules.pop(name, None)


def error_rate(value: float) -> dict[str, float]:
    return {"value": value, "substitutions": 3, "insertions": 1, "deletions": 2}


def stand_in(calls: list[tuple[str, ...]]):
    """Writes what the commands would."""

    def transduce(*words: str) -> None:
        calls.append(words)
        if words[0] == "train":
            run = Path(next(word for word in words if word.startswith("run_dir=")).removeprefix("run_dir="))
            (run / "model").mkdir(parents=True)
            (run / "config.yaml").touch()
            (run / "log.jsonl").write_text(json.dumps({"event": "end", "ended": "max_minutes", "minutes": 59.5}) + "\n")
            return
        names = words[words.index("--metrics") + 1].split(",")
        scores = {name: error_rate(12.5 if name == "wer" else 5.25) for name in names}
        control = [{"metric": "cider", "value": 30.0, "baseline": 9.5}]
        tree = {"sentences": 4, "scores": scores, "seconds": 2.0, "sound_seconds": 40.0, "control": control, "control_verdict": "looks"}
        tree["originality"] = {"distinct_captions": 3.0, "reused_captions": 0.25}
        Path(words[words.index("--json") + 1]).write_text(json.dumps(tree))

    return transduce


def test_runs_become_records_and_a_page(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, calls = tmp_path / "data", []
    for folder in ("an4", "flickr8k"):
        (data / folder).mkdir(parents=True)
        for split in ("train", "val", "test"):
            (data / folder / f"{split}.jsonl").write_text("{}\n")
            (data / folder / f"{split}.tar").write_bytes(b"archive")
    monkeypatch.setattr(script, "transduce", stand_in(calls))
    known = {experiment.name: experiment for experiment in script.EXPERIMENTS}
    for name in ("an4-conformer", "flickr8k-attend"):
        script.run(known[name], data=data, out=tmp_path / "out", minutes=60)
    assert (tmp_path / "work" / "an4" / "train.tar").read_bytes() == b"archive"
    assert [words[0] for words in calls] == ["train", "evaluate", "evaluate"] * 2
    script.run(known["an4-conformer"], data=data, out=tmp_path / "out")
    assert [words[0] for words in calls[6:]] == ["evaluate", "evaluate"], "a finished run is not trained again"
    text = script.write_page(tmp_path / "docs" / "results", tmp_path / "page.md").read_text()
    assert "| AN4, Conformer, CTC | 12.5 | 12.5 | 5.2 | 3 / 1 / 2 | 0.050 |" in text
    assert "| Show, Attend and Tell | 5.2 | 5.2 | 5.2 | 5.2 | 9.5 | 3 | 25 % |" in text
    assert "| Transformer | not measured yet |" in text
    assert "transduce train examples/speech/an4.yaml" in text


def test_every_experiment_has_a_sound_configuration(script: ModuleType) -> None:
    for experiment in script.EXPERIMENTS:
        config = load_config(ROOT / "examples" / experiment.config, experiment.pieces)
        assert config.train.metric in experiment.metrics
        assert str(config.data.train[0].path) == f"work/{experiment.data}/train.jsonl"
