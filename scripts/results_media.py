"""The figures of docs/results-media.md: speech (AN4, spoken digits) and captions (Flickr8k). Command line: see results_run.py.

In: the data sets and examples/{speech,captions}/*.yaml. Out: docs/results/NAME.json and docs/results-media.md.

Decision to question: the archives are read where they are, through links in the work folder; nothing is unpacked or copied.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import results_data
import results_run
from results_media_page import write_pages
from results_run import Experiment

FILES = {"train": "train", "valid": "val", "test": "test"}
SPEECH, CAPTIONS = ("wer", "cer"), ("cider", "coco_bleu1", "coco_bleu2", "coco_bleu3", "coco_bleu4", "coco_rougeL")
CTC = {"attention": ("search.ctc_weight=0",), "ctc": ("search.ctc_weight=1",)}
"""Searches beside the preset's own, by what decides in them."""
NO_CTC = ("model.ctc=false", "train.loss.ctc_weight=0", "search.ctc_weight=0")
"""Settings of a model that learns without CTC."""
FOUND = ("sentences", "scores", "seconds", "sound_seconds", "control", "control_verdict", "originality")


def media(
    name: str, config: str, *pieces: str, metrics: tuple[str, ...], minutes: float, searches: Mapping[str, tuple[str, ...]] | None = None
) -> Experiment:
    """An experiment on the data set that its configuration is named after. searches: further ones with the same model."""
    folder = Path(config).stem
    return Experiment(
        name,
        (f"examples/{config}", *pieces),
        partial(prepare, folder),
        partial(score, folder, metrics, searches or {}),
        minutes=minutes,
        slow=2,
    )


def prepare(folder: str, data: Path, work: Path) -> None:
    """Links to manifests and archives in the work folder."""
    for file in FILES.values():
        for ending in ("jsonl", "tar"):
            results_data.link(data / folder / f"{file}.{ending}", work / folder / f"{file}.{ending}")


def score(
    folder: str, metrics: tuple[str, ...], searches: Mapping[str, tuple[str, ...]], runs: Sequence[Path], split: str
) -> dict[str, Any]:
    """What `transduce evaluate` finds on one split, with the model's own search and with others."""
    file = f"work/{folder}/{FILES[split]}"
    words = ("--data", f"{file}.jsonl", "--media", f"{file}.tar", "--metrics", ",".join(metrics))
    tree = results_run.evaluated(runs[0], split, *words)
    found = {key: tree[key] for key in FOUND}
    if searches:
        others = {name: results_run.evaluated(runs[0], f"{split}-{name}", *words, *changes) for name, changes in searches.items()}
        found["searches"] = {name: {key: tree[key] for key in ("scores", "seconds")} for name, tree in others.items()}
    return found


EXPERIMENTS = (
    media("an4-las", "speech/an4.yaml", "preset=speech-las", metrics=SPEECH, minutes=60, searches=CTC),
    media("an4-las-no-ctc", "speech/an4.yaml", "preset=speech-las", *NO_CTC, metrics=SPEECH, minutes=60),
    media("an4-transformer", "speech/an4.yaml", "preset=speech-transformer", metrics=SPEECH, minutes=60, searches=CTC),
    media("an4-conformer", "speech/an4.yaml", metrics=SPEECH, minutes=60, searches=CTC),
    media("fsdd", "speech/fsdd.yaml", metrics=SPEECH, minutes=10),
    media("flickr8k-show-tell", "captions/flickr8k.yaml", "preset=caption-show-tell", metrics=CAPTIONS, minutes=60),
    media("flickr8k-attend", "captions/flickr8k.yaml", metrics=CAPTIONS, minutes=60),
    media("flickr8k-transformer", "captions/flickr8k.yaml", "preset=caption-transformer", metrics=CAPTIONS, minutes=60),
)

if __name__ == "__main__":
    results_run.main(EXPERIMENTS, write_pages)
