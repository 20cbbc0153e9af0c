"""The results script of tracks: folds that leave their scene out, commands, records and the page; the training is a stand-in."""

import csv
import json
from pathlib import Path
from types import ModuleType

import pytest

from transduce.config import load_config
from transduce.tree import parse_words

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def script(results_run: ModuleType) -> ModuleType:  # noqa: ARG001 - makes the scripts importable
    """scripts/results_tracks.py."""
    import results_tracks

    return results_tracks


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
        script.pedestrians(fold).prepare(data, tmp_path)
        tables = {split: scenes(tmp_path / f"tracks-{fold}" / f"{split}.csv") for split in ("train", "valid", "test")}
        assert sorted(tables["test"]) == sorted([*left_out] * 2)
        assert sorted(tables["train"]) == sorted(tables["valid"]) == sorted(set(script.SCENES) - set(left_out))


def test_the_commands_are_configurations(script: ModuleType) -> None:
    for experiment in script.EXPERIMENTS:
        path, *words = experiment.train
        config = load_config(ROOT / path, words)
        assert parse_words(words) and ("transformer" in experiment.name) == (config.preset == "tracks-transformer")
        fold = experiment.name.split("-")[1]
        assert str(config.data.train[0].path) == f"work/tracks-{fold}/train.csv"
        assert [corpus.noise > 0 for corpus in config.data.train] == ([False] if fold == "kitti" else [False, True])


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

    results_run = script.results_run
    monkeypatch.setattr(results_run, "transduce", stand_in)
    for experiment in (*map(script.pedestrians, script.FOLDS), script.boxes()):
        results_run.run(experiment, data=data, out=tmp_path / "runs")
    assert [words[0] for words in said] == ["train", "evaluate", "evaluate"] * 6
    (written,) = script.write_pages(results_run.read_records(script.EXPERIMENTS), tmp_path)
    page = written.read_text()
    assert not any("max_minutes" in word for words in said for word in words), "the configurations say how many steps"
    assert "| constant velocity | 0.50/0.50 | 0.50/0.50 | 0.50/0.50 | 0.50/0.50 | 0.50/0.50 | 0.500/0.500 |" in page
    assert "**tracks-lstm, best of 20**" in page and "not measured yet" in page, "the Transformer was not run"
    assert "seed" in page and "| 1.5 |" in page
