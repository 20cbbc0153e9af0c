"""The figures of docs/results-tracks.md: pedestrians (ETH and UCY, five folds) and boxes (KITTI). Command line: see results_run.py.

In: the data sets and examples/tracks/{eth_ucy,kitti}.yaml. Out: docs/results/NAME.json and docs/results-tracks.md.

Decision to question: a fold's training tables are the `_train` parts of all other scenes and its checkpoint is chosen on their `_val`
parts, so that nothing of the test scene is seen; every setting is the same in all folds.
"""

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import results_run
from results_run import Experiment
from results_tracks_page import write_pages

SCENES = (
    "biwi_eth",
    "biwi_hotel",
    "crowds_zara01",
    "crowds_zara02",
    "crowds_zara03",
    "students001",
    "students003",
    "uni_examples",
)
FOLDS = {
    "eth": ("biwi_eth",),
    "hotel": ("biwi_hotel",),
    "univ": ("students001", "students003"),
    "zara1": ("crowds_zara01",),
    "zara2": ("crowds_zara02",),
}
SHORTER = ("train.max_steps=1200", "train.validate_every_steps=400")  # a step of the Transformer takes about twice as long


def folder_of(fold: str) -> str:
    """Where the tables of a fold (or of kitti) are, below the work folder."""
    return f"tracks-{fold}"


def pedestrians(fold: str, *pieces: str, name: str = "", preset: str = "tracks-lstm") -> Experiment:
    """A fold: everything but its scenes, once as it is and once with noise, to train on."""
    place = f"work/{folder_of(fold)}"
    train = f"data.train=[{{path: {place}/train.csv}}, {{path: {place}/train.csv, noise: 0.1}}]"
    words = ("examples/tracks/eth_ucy.yaml", f"preset={preset}", train, f"data.valid.path={place}/valid.csv", *pieces)
    return Experiment(name or f"tracks-{fold}", words, partial(prepare_fold, fold), partial(score, fold))


def boxes(*pieces: str, name: str = "tracks-kitti", preset: str = "tracks-lstm") -> Experiment:
    """KITTI."""
    return Experiment(name, ("examples/tracks/kitti.yaml", f"preset={preset}", *pieces), prepare_kitti, partial(score, "kitti"))


def prepare_kitti(data: Path, work: Path) -> None:
    """train.csv, valid.csv and test.csv, as they are."""
    folder = work / folder_of("kitti")
    folder.mkdir(parents=True, exist_ok=True)
    for split, name in (("train", "train"), ("valid", "val"), ("test", "test")):
        (folder / f"{split}.csv").write_bytes((data / "kitti_tracking" / f"{name}.csv").read_bytes())


def prepare_fold(fold: str, data: Path, work: Path) -> None:
    """train.csv, valid.csv and test.csv of a fold, with a column that names the scene."""
    left_out = FOLDS[fold]
    others = [scene for scene in SCENES if scene not in left_out]
    parts = {"train": (others, ("train",)), "valid": (others, ("val",)), "test": (left_out, ("train", "val"))}
    folder = work / folder_of(fold)
    folder.mkdir(parents=True, exist_ok=True)
    for split, (scenes, names) in parts.items():
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["scene", "frame", "id", "x", "y"])
            for scene in scenes:
                for name in names:
                    writer.writerows([scene, *row] for row in _rows(data / "eth_ucy" / f"{scene}_{name}.tsv"))


def _rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def score(fold: str, runs: Sequence[Path], split: str) -> dict[str, Any]:
    """What `transduce evaluate` finds on one table: systems with their metrics, and how many tracks."""
    return results_run.evaluated(runs[0], split, "--data", f"work/{folder_of(fold)}/{split}.csv")


EXPERIMENTS = (
    *(pedestrians(fold) for fold in FOLDS),
    boxes(),
    pedestrians("zara1", *SHORTER, name="tracks-zara1-transformer", preset="tracks-transformer"),
    boxes(*SHORTER, name="tracks-kitti-transformer", preset="tracks-transformer"),
)

if __name__ == "__main__":
    results_run.main(EXPERIMENTS, write_pages)
