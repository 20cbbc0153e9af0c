"""The figures of docs/results-tracks.md: pedestrians (ETH and UCY, five folds) and boxes (KITTI), through the `transduce` commands.

    python scripts/results_tracks.py list
    python scripts/results_tracks.py run tracks-eth tracks-kitti [--data ../shared/data]
    python scripts/results_tracks.py all
    python scripts/results_tracks.py table

In: the data sets (--data) and examples/tracks/{eth_ucy,kitti}.yaml. Out: runs/results/NAME/ and docs/results/NAME.json; `table` writes
docs/results-tracks.md from those records.

Decision to question: a fold's training tables are the `_train` parts of all other scenes and its checkpoint is chosen on their `_val`
parts, so that nothing of the test scene is seen; every setting is the same in all folds.
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from results_text import Machine, transduce
from results_text import shown as shown_command
from results_tracks_page import write_page

from transduce.train.journal import read_log

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "docs" / "results"
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


@dataclass(frozen=True)
class Experiment:
    """One training and its scores. fold: the scene left out, None = KITTI. preset: what it builds on. pieces: further words."""

    name: str
    fold: str | None
    preset: str = "tracks-lstm"
    pieces: tuple[str, ...] = ()

    @property
    def work(self) -> str:
        """Folder of the tables, below the repository root."""
        return f"work/tracks-{self.fold or 'kitti'}"

    @property
    def words(self) -> tuple[str, ...]:
        """What `transduce train` is told."""
        if self.fold is None:
            return "examples/tracks/kitti.yaml", f"preset={self.preset}", *self.pieces
        table = f"{self.work}/train.csv"
        train = f"data.train=[{{path: {table}}}, {{path: {table}, noise: 0.1}}]"
        return "examples/tracks/eth_ucy.yaml", f"preset={self.preset}", train, f"data.valid.path={self.work}/valid.csv", *self.pieces


EXPERIMENTS = (
    *(Experiment(f"tracks-{fold}", fold) for fold in FOLDS),
    Experiment("tracks-kitti", None),
    Experiment("tracks-zara1-transformer", "zara1", "tracks-transformer", SHORTER),
    Experiment("tracks-kitti-transformer", None, "tracks-transformer", SHORTER),
)


def prepare(experiment: Experiment, data: Path) -> None:
    """The tables of an experiment: train.csv, valid.csv, test.csv."""
    folder = ROOT / experiment.work
    folder.mkdir(parents=True, exist_ok=True)
    if experiment.fold is None:
        for split, name in (("train", "train"), ("valid", "val"), ("test", "test")):
            (folder / f"{split}.csv").write_bytes((data / "kitti_tracking" / f"{name}.csv").read_bytes())
        return
    left_out = FOLDS[experiment.fold]
    others = [scene for scene in SCENES if scene not in left_out]
    parts = {"train": (others, ("train",)), "valid": (others, ("val",)), "test": (left_out, ("train", "val"))}
    for split, (scenes, names) in parts.items():
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["scene", "frame", "id", "x", "y"])
            for scene in scenes:
                for name in names:
                    writer.writerows([scene, *row] for row in _rows(data / "eth_ucy" / f"{scene}_{name}.tsv"))


def _rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def run(experiment: Experiment, *, data: Path, out: Path, seed: int = 1, extra: Sequence[str] = ()) -> Path:
    """Prepare, train, score validation and test, and write docs/results/NAME.json. Commands run in the repository root."""
    prepare(experiment, data)
    folder = out / experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "run"
    command = ("train", *experiment.words, f"run_dir={place}", f"seed={seed}", *extra)
    if not (place / "config.yaml").exists():
        transduce(*command)
    elif not (place / "model").exists():
        transduce("resume", str(place))
    machine = Machine.here()
    minutes = [record["minutes"] for record in read_log(place) if "minutes" in record]
    record: dict[str, Any] = {
        "name": experiment.name,
        "command": shown_command(command),
        "seed": seed,
        "preset": experiment.preset,
        "train_minutes": round(float(str(minutes[-1])), 2),
        "processor": machine.processor,
        "bf16": machine.bf16,
        "threads": machine.threads,
        "valid": score(experiment, place, "valid"),
        "test": score(experiment, place, "test"),
    }
    target = RECORDS / f"{experiment.name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return target


def score(experiment: Experiment, place: Path, split: str) -> dict[str, Any]:
    """What `transduce evaluate` finds on one table: systems with their metrics, and how many tracks."""
    found = place.parent / f"{split}.json"
    transduce("evaluate", str(place), "--data", str(ROOT / experiment.work / f"{split}.csv"), "--json", str(found))
    tree: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    return tree


def arguments() -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description="Reproduce docs/results-tracks.md.")
    parser.add_argument("action", choices=("list", "run", "all", "table"), nargs="?", default="all")
    parser.add_argument("names", nargs="*", help="experiments, for `run`")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with the data sets")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "results", help="where run folders and outputs go")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="a further setting (may be repeated)")
    return parser.parse_args()


def main() -> None:
    """Run the action named on the command line."""
    words = arguments()
    known = {experiment.name: experiment for experiment in EXPERIMENTS}
    names = words.names if words.action == "run" else list(known)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        sys.exit(f"unknown experiment {', '.join(unknown) or '(none named)'}; choose from: {', '.join(known)}")
    if words.action == "list":
        for name in names:
            print(f"{name:30} {'measured' if (RECORDS / f'{name}.json').exists() else 'not measured yet'}")
        return
    if words.action in ("run", "all"):
        for name in names:
            try:
                print(run(known[name], data=words.data, out=words.out.absolute(), seed=words.seed, extra=words.set))
            except subprocess.CalledProcessError as error:
                sys.exit(f"{name}: {error}")
    print(write_page(RECORDS, ROOT / "docs" / "results-tracks.md"))


if __name__ == "__main__":
    main()
