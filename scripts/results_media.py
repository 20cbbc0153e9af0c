"""The figures of docs/results-media.md: speech (AN4, spoken digits) and captions (Flickr8k), through the `transduce` commands.

    python scripts/results_media.py list
    python scripts/results_media.py run an4-conformer fsdd [--minutes 5] [--data ../shared/data]
    python scripts/results_media.py all
    python scripts/results_media.py table

In: the data sets (--data) and examples/{speech,captions}/*.yaml. Out: runs/results/NAME/ and docs/results/NAME.json; `table` writes
docs/results-media.md from those records.

Decision to question: the archives are read where they are, through links in the work folder; nothing is unpacked or copied.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import results_data
from results_media_page import write_page
from results_text import Machine, shown, transduce

from transduce.train.journal import read_log

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "docs" / "results"
SPEECH, CAPTIONS = ("wer", "cer"), ("cider", "coco_bleu1", "coco_bleu2", "coco_bleu3", "coco_bleu4", "coco_rougeL")


@dataclass(frozen=True)
class Experiment:
    """One training and its scores. data: the folder of the data set. minutes: of training; pieces: words after the configuration."""

    name: str
    config: str
    data: str
    metrics: tuple[str, ...]
    minutes: float
    pieces: tuple[str, ...] = ()


EXPERIMENTS = (
    Experiment("an4-las", "speech/an4.yaml", "an4", SPEECH, 60, ("preset=speech-las",)),
    Experiment("an4-transformer", "speech/an4.yaml", "an4", SPEECH, 60, ("preset=speech-transformer",)),
    Experiment("an4-conformer", "speech/an4.yaml", "an4", SPEECH, 60),
    Experiment("fsdd", "speech/fsdd.yaml", "fsdd", SPEECH, 10),
    Experiment("flickr8k-show-tell", "captions/flickr8k.yaml", "flickr8k", CAPTIONS, 60, ("preset=caption-show-tell",)),
    Experiment("flickr8k-attend", "captions/flickr8k.yaml", "flickr8k", CAPTIONS, 60),
    Experiment("flickr8k-transformer", "captions/flickr8k.yaml", "flickr8k", CAPTIONS, 60, ("preset=caption-transformer",)),
)


def prepare(experiment: Experiment, data: Path) -> None:
    """Links to manifests and archives in the work folder."""
    for split in ("train", "val", "test"):
        for ending in ("jsonl", "tar"):
            name = f"{split}.{ending}"
            results_data.link(data / experiment.data / name, ROOT / "work" / experiment.data / name)


def run(experiment: Experiment, *, data: Path, out: Path, seed: int = 1, minutes: float | None = None, extra: Sequence[str] = ()) -> Path:
    """Prepare, train (or take the finished run), score validation and test, and write docs/results/NAME.json."""
    prepare(experiment, data)
    machine, place = Machine.here(), out / experiment.name / "run"
    limit = minutes or experiment.minutes * (1 if machine.bf16 else 2)
    words = (*experiment.pieces, f"run_dir={place}", f"seed={seed}", f"train.max_minutes={limit:g}", *extra)
    command = ("train", f"examples/{experiment.config}", *words)
    if not (place / "config.yaml").exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        transduce(*command)
    elif not (place / "model").exists():
        transduce("resume", str(place))
    endings = [record["minutes"] for record in read_log(place) if "minutes" in record]
    record: dict[str, Any] = {
        "name": experiment.name,
        "command": shown(command),
        "seed": seed,
        "train_minutes": round(float(str(endings[-1])), 2),
        "minutes_allowed": limit,
        "processor": machine.processor,
        "bf16": machine.bf16,
        "threads": machine.threads,
        "valid": score(experiment, place, "val"),
        "test": score(experiment, place, "test"),
    }
    target = RECORDS / f"{experiment.name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return target


def score(experiment: Experiment, place: Path, split: str) -> dict[str, Any]:
    """What `transduce evaluate` finds on one split."""
    found, files = place.parent / f"{split}.json", f"work/{experiment.data}/{split}"
    words = ("--data", f"{files}.jsonl", "--media", f"{files}.tar", "--metrics", ",".join(experiment.metrics), "--json", str(found))
    transduce("evaluate", str(place), *words)
    tree: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    return {key: tree[key] for key in ("sentences", "scores", "seconds", "sound_seconds", "control", "control_verdict", "originality")}


def arguments() -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description="Reproduce docs/results-media.md.")
    parser.add_argument("action", choices=("list", "run", "all", "table"), nargs="?", default="all")
    parser.add_argument("names", nargs="*", help="experiments, for `run`")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with the data sets")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "results", help="where run folders and outputs go")
    parser.add_argument("--minutes", type=float, help="training minutes instead of those of the list")
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
            print(f"{name:24} {'measured' if (RECORDS / f'{name}.json').exists() else 'not measured yet'}")
        return
    if words.action in ("run", "all"):
        for name in names:
            try:
                out = words.out.absolute()
                print(run(known[name], data=words.data, out=out, seed=words.seed, minutes=words.minutes, extra=words.set))
            except subprocess.CalledProcessError as error:
                sys.exit(f"{name}: {error}")
    print(write_page(RECORDS, ROOT / "docs" / "results-media.md"))


if __name__ == "__main__":
    main()
