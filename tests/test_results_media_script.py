"""The script behind docs/results-media.md: links, commands, records and the page, with the commands replaced by a stand-in."""

import json
from pathlib import Path
from types import ModuleType

import pytest

from transduce.config import load_config

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def script(results_run: ModuleType) -> ModuleType:  # noqa: ARG001 - makes the scripts importable
    """scripts/results_media.py."""
    import results_media

    return results_media


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
        rate = {"search.ctc_weight=0": 20.0, "search.ctc_weight=1": 15.0}.get(words[-3], 12.5)
        scores = {name: error_rate(rate if name == "wer" else 5.25) for name in names}
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
    results_run = script.results_run
    monkeypatch.setattr(results_run, "transduce", stand_in(calls))
    for experiment in results_run.chosen(script.EXPERIMENTS, ("an4-conformer", "flickr8k-attend")):
        results_run.run(experiment, data=data, out=tmp_path / "out", minutes=60)
    assert (tmp_path / "work" / "an4" / "train.tar").read_bytes() == b"archive"
    assert [words[0] for words in calls] == ["train", *["evaluate"] * 6, "train", *["evaluate"] * 2]
    (page,) = script.write_pages(results_run.read_records(script.EXPERIMENTS), tmp_path)
    text = page.read_text()
    assert "| AN4, Conformer, CTC | 12.5 | 12.5 | 5.2 | 3 / 1 / 2 | 0.050 |" in text
    assert "| AN4, Conformer, CTC | 20.0 | 12.5 | 15.0 | 20.0 | 12.5 | 15.0 |" in text
    assert "| Show, Attend and Tell | 5.2 | 5.2 | 5.2 | 5.2 | 9.5 | 3 | 25 % |" in text
    assert "| Transformer | not measured yet |" in text
    assert "transduce train examples/speech/an4.yaml" in text


def test_every_experiment_has_a_sound_configuration(script: ModuleType) -> None:
    for experiment in script.EXPERIMENTS:
        path, *words = experiment.train
        config = load_config(ROOT / path, words)
        folder, metrics, _ = experiment.score.args
        assert config.train.metric in metrics
        assert str(config.data.train[0].path) == f"work/{folder}/train.jsonl"
