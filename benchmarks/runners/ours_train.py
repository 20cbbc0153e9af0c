"""transduce's side of a training comparison: `transduce train` as it is, with reports that a program can read.

In: prepared pairs, a shape, a number of updates. Out: one JSON line every few updates: target tokens a second, padding not counted; the
first line says what the run chose (precision, threads, allocator). Everything that a user's run does is part of it but checkpoints.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transduce.config import parse_config
from transduce.train.events import SilentProgress, StepReport
from transduce.train.loop import train

TOLD = ("parameters", "precision", "threads", "processes", "allocator")


class Spoken(SilentProgress):
    """Reports as JSON lines."""

    def start(self, info: Mapping[str, object]) -> None:
        """What was chosen."""
        print(json.dumps({name: info[name] for name in TOLD}), flush=True)

    def step(self, report: StepReport) -> None:
        """Speed of the steps since the last report; the rest is for whoever doubts it."""
        known = {"tokens_per_second": report.tokens_per_second, "loss": report.loss, "padding_share": report.padding_share}
        memory = {"peak_mib": proportional_mib()}
        print(json.dumps({"step": report.step, **known, "data_wait_share": report.data_wait_share, **memory}), flush=True)


def proportional_mib() -> float:
    """Memory of this process and of those that share its work; what they have in common counts once. The allocator gives little back, so
    between steps it is nearly that of their peak."""
    children = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children")).split()
    rolls = [Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii") for process in ("self", *children)]
    return sum(int(line.split()[1]) for roll in rolls for line in roll.splitlines() if line.startswith("Pss:")) / 1024


def run_tree(pairs: Path, shape: Mapping[str, Any], *, run_dir: Path, train_settings: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a run on prepared pairs; what the shape does not say is the default."""
    codec = {"kind": "sentencepiece", "model_file": str(pairs / "spm.model")}
    corpora = {
        name: {"source": str(pairs / f"{split}.en"), "target": str(pairs / f"{split}.de")}
        for name, split in (("train", "train"), ("valid", "val"))
    }
    loss = {"label_smoothing": shape["label_smoothing"]}
    return {
        "run_dir": str(run_dir),
        "data": {
            **corpora,
            "joint_vocabulary": True,
            "source_codec": codec,
            "max_source_tokens": min(256, shape["batch_tokens"]),
            "max_target_tokens": min(256, shape["batch_tokens"]),
            "max_tokens_per_batch": shape["batch_tokens"],
            "cache_dir": str(pairs / "cache"),
        },
        "model": {**ends(shape), "embedding_size": shape["width"], "embedding_dropout": shape["dropout"], "tie": "all"},
        "train": {"optimizer": {"kind": "adam", "learning_rate": 1e-3}, "loss": loss, **train_settings},
    }


def ends(shape: Mapping[str, Any]) -> dict[str, Any]:
    """Encoder and decoder."""
    if shape["kind"] == "lstm":
        one = {"kind": "lstm", "layers": 1, "width": shape["width"], "dropout": shape["dropout"]}
        attention = {"attention": "additive", "attend": "after", "input_feeding": True, "attention_size": shape["width"]}
        return {"encoder": {**one, "bidirectional": True}, "decoder": {**one, **attention}}
    sizes = {name: shape[name] for name in ("layers", "width", "heads", "feed_forward", "dropout")}
    one = {"kind": "transformer", **sizes, "attention_dropout": shape["dropout"], "norm_place": "pre"}
    return {"encoder": one, "decoder": one}


def main() -> None:
    """Train and tell how fast."""
    from plain import WITHOUT  # a neighbour, which only this program sees; `run_tree` is for others as well

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--shape", type=json.loads, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--processes", type=int, help="that share a step (default: as `transduce train` chooses)")
    parser.add_argument("--without", nargs="*", choices=["adam", *WITHOUT], default=[], help="parts to be as other toolkits have them")
    words = parser.parse_args()
    for name in WITHOUT.keys() & set(words.without):
        WITHOUT[name]()
    settings = {
        "max_steps": words.steps,
        "save_every_steps": words.steps,
        "log_every_steps": words.every,
        "optimizer": {"kind": "adam", "learning_rate": 1e-3, "fused": "adam" not in words.without},
        "precision": words.precision,
        "processes": words.processes,
        "device": words.device,
        "validation": {"metrics": [], "samples": 0},
    }
    with tempfile.TemporaryDirectory(dir=words.pairs) as folder:
        config = parse_config(run_tree(words.pairs, words.shape, run_dir=Path(folder) / "run", train_settings=settings))
        train(config, Spoken())


if __name__ == "__main__":
    main()
