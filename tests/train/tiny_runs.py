"""Tiny training runs for the tests of this folder: data, configurations, and child processes that can be killed."""

import multiprocessing
import random
import resource
import sys
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from transduce.config import RunConfig, parse_config
from transduce.errors import TransduceError
from transduce.train.events import SilentProgress
from transduce.train.loop import resume, train

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["transduce.train.loop", "torch._dynamo"])  # torch is imported once, each child starts in milliseconds


def write_pairs(folder: Path) -> None:
    """Short words and their reverse: 120 training and 12 validation pairs."""
    draw = random.Random(0)
    for name, count in (("train", 120), ("valid", 12)):
        words = ["".join(draw.choices("abcd", k=draw.randint(2, 7))) for _ in range(count)]
        (folder / f"{name}.src").write_text("\n".join(words) + "\n", encoding="utf-8")
        (folder / f"{name}.tgt").write_text("\n".join(word[::-1] for word in words) + "\n", encoding="utf-8")


def tiny_tree(folder: Path, run: str, **train: object) -> dict[str, object]:
    """A configuration in plain values: 20 steps of a 16-wide Transformer, a checkpoint every 5."""
    layers = {"kind": "transformer", "layers": 1, "heads": 2, "width": 16, "feed_forward": 32}
    return {
        "run_dir": str(folder / run),
        "seed": 3,
        "data": {
            "train": {"source": str(folder / "train.src"), "target": str(folder / "train.tgt")},
            "valid": {"source": str(folder / "valid.src"), "target": str(folder / "valid.tgt")},
            "source_codec": {"kind": "characters"},
            "target_codec": {"kind": "characters"},
            "max_source_tokens": 16,
            "max_target_tokens": 16,
            "max_tokens_per_batch": 64,
            "cache_dir": str(folder / "cache"),
        },
        "model": {"embedding_size": 16, "encoder": layers, "decoder": layers},
        "search": {"max_length": 8},
        "train": {
            "max_steps": 20,
            "save_every_steps": 5,
            "log_every_steps": 5,
            "precision": "fp32",
            "threads": 1,
            "ema_decay": 0.9,
            "accumulate": 2,
            "validation": {"metrics": ["cer"], "sentences": 4, "samples": 2},
            "schedule": {"warmup_steps": 10},
            **train,
        },
    }


def tiny_config(folder: Path, run: str = "run", **train: object) -> RunConfig:
    """`tiny_tree`, checked."""
    return parse_config(tiny_tree(folder, run, **train))


def start(tree: dict[str, object], *, again: bool = False, file_bytes: int | None = None) -> ForkServerProcess:
    """Train (or resume) in a child process, which exits as the command line would. file_bytes: no file may grow larger, as on
    a full disk."""
    child = FORKS.Process(target=_child, args=(tree, again, file_bytes))
    child.start()
    return child


def _child(tree: dict[str, object], again: bool, file_bytes: int | None) -> None:
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    try:
        if again:
            resume(Path(str(tree["run_dir"])), output=SilentProgress())
        else:
            train(parse_config(tree), SilentProgress())
    except TransduceError as error:
        error_file(tree).write_text(str(error), encoding="utf-8")
        sys.exit(error.exit_code)


def error_file(tree: dict[str, object]) -> Path:
    """Where a child writes the message that it ended with."""
    return Path(f"{tree['run_dir']}.error")


def wait_for(path: Path, seconds: float = 60) -> None:
    """Until a file is there and not empty."""
    end = time.monotonic() + seconds
    while not (path.exists() and path.stat().st_size) and time.monotonic() < end:
        time.sleep(0.005)


def finish(child: ForkServerProcess, seconds: float = 60) -> int:
    """Wait for a child; its exit code (negative: killed by that signal)."""
    child.join(seconds)
    assert child.exitcode is not None, "the child process hangs"
    return child.exitcode


def final_bytes(folder: Path) -> dict[str, bytes]:
    """The tensors that a run ends with: its newest checkpoint and its model."""
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    files = [*newest.glob("*.safetensors"), folder / "model" / "model.safetensors"]
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in files}
