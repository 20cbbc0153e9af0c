"""The results script of tracks: folds that leave their scene out, commands, records and the page; the training is a stand-in."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from transduce.config import load_config
from transduce.tree import parse_words

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """scripts/results_tracks.py with its outputs in a folder of the test."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import results_tracks

    monkeypatch.setattr(results_tracks, "ROOT", tmp_path)
    monkeypatch.setattr(results_tracks, "RECORDS", tmp_path / "docs" / "results")
    yield results_tracks
    for name in ("results_tracks", "results_tracks_page", "results_text", "results_data", "results_page"):
        sys.modules.pop(name, None)


@pytest.fixture
def data(script: ModuleType, tmp_path: Path) -> Path:
    """Two lines of each scene, and of each part of KITTI."""
    folder = tmp_path / "data"
    (folder / "eth_ucy").mkdir(parents=True)
    (folder / "kitti_tracking").mkdir()
    for scene in script.SCENES:
        for number, part in enumerate(("train", "val")):
            (folder / "eth_ucy" / f"{scene}_{part}.tsv").write_text(f"{number * 10}.0\t7\t1.5\t2.5\n")
    for part in ("train", "val", "test"):
        (folder / "kitti_tracking" / f"{part}.csv").write_text(f"seq,frame\n{part},0\n")
    return folder


def scenes(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return [row["scene"] for row in csv.DictReader(file)]


def test_a_fold_sees_nothing_of_its_scene(script: ModuleType, data: Path, tmp_path: Path) -> None:
    for fold, left_out in script.FOLDS.items():
        experiment = script.Experiment(f"tracks-{fold}", fold)
        script.prepare(experiment, data)
        tables = {split: scenes(tmp_path / experiment.work / f"{split}.csv") for split in ("train", "valid", "test")}
        assert sorted(tables["test"]) == sorted([*left_out] * 2)
        assert sorted(tables["train"]) == sorted(tables["valid"]) == sorted(set(script.SCENES) - set(left_out))


def test_the_commands_are_configurations(script: ModuleType) -> None:
    for experiment in script.EXPERIMENTS:
        path, *words = experiment.words
        config = load_config(ROOT / path, words)
        assert config.preset == experiment.preset and parse_words(words)
        assert str(config.data.train[0].path) == f"{experiment.work}/train.csv"
        assert [corpus.noise > 0 for corpus in config.data.train] == ([False] if experiment.fold is None else [False, True])


def test_records_become_the_page(script: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, ...]] = []

    def stand_in(*words: str) -> None:
        said.append(words)
        if words[0] == "train":
            place = Path(next(word for word in words if word.startswith("run_dir=")).partition("=")[2])
            place.mkdir(parents=True)
            (place / "log.jsonl").write_text('{"kind": "finish", "minutes": 1.5}\n')
        if words[0] == "evaluate":
            names = ("ade", "fde", "min_ade", "min_fde", "iou", "final_iou")
            systems = {"model": dict.fromkeys(names, 0.25), "constant velocity": dict.fromkeys(names, 0.5)}
            Path(words[words.index("--json") + 1]).write_text(json.dumps({"systems": systems, "count": 3}))

    monkeypatch.setattr(script, "transduce", stand_in)
    for name in (*script.FOLDS, "kitti"):
        fold = None if name == "kitti" else name
        script.run(script.Experiment(f"tracks-{name}", fold), data=data, out=tmp_path / "runs")
    assert [words[0] for words in said] == ["train", "evaluate", "evaluate"] * 6
    page = script.write_page(script.RECORDS, tmp_path / "page.md").read_text()
    assert "| constant velocity | 0.50/0.50 | 0.50/0.50 | 0.50/0.50 | 0.50/0.50 | 0.50/0.50 | 0.500/0.500 |" in page
    assert "**tracks-lstm, best of 20**" in page and "not measured yet" in page, "the Transformer was not run"
    assert "seed" in page and "| 1.5 |" in page
