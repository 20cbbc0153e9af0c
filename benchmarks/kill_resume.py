"""Kill a training run with SIGKILL again and again, also in the middle of saving, and compare what it ends with.

In: numbers of kills. Out: a table and a JSON file. A tiny model is trained once without interruption; then the same run is killed at
random moments (or as soon as a half-written checkpoint is seen), resumed, killed again, until it is through, as often as it takes.
Every finished run must hold exactly the bytes of the uninterrupted one. Nothing in the package knows of this script.

    python benchmarks/kill_resume.py --kills 200 --inside-saves 60 --json kill_resume.json
"""

import argparse
import json
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

from transduce.config import parse_config
from transduce.train.events import SilentProgress
from transduce.train.loop import resume, train

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["transduce.train.loop", "torch._dynamo"])
TEMPORARY = ".tmp-step-*"


def write_pairs(folder: Path) -> None:
    """Short words and their reverse."""
    draw = random.Random(0)
    for name, count in (("train", 200), ("valid", 16)):
        words = ["".join(draw.choices("abcdef", k=draw.randint(2, 8))) for _ in range(count)]
        (folder / f"{name}.src").write_text("\n".join(words) + "\n", encoding="utf-8")
        (folder / f"{name}.tgt").write_text("\n".join(word[::-1] for word in words) + "\n", encoding="utf-8")


def make_tree(folder: Path, run: str, steps: int) -> dict[str, object]:
    """The run: accumulation, a moving average, a schedule, validation, several kept checkpoints."""
    layers = {"kind": "transformer", "layers": 1, "heads": 2, "width": 32, "feed_forward": 64}
    corpora = {name: {"source": str(folder / f"{name}.src"), "target": str(folder / f"{name}.tgt")} for name in ("train", "valid")}
    codecs = {"source_codec": {"kind": "characters"}, "target_codec": {"kind": "characters"}}
    limits = {"max_source_tokens": 16, "max_target_tokens": 16, "max_tokens_per_batch": 128}
    return {
        "run_dir": str(folder / run),
        "data": {**corpora, **codecs, **limits, "cache_dir": str(folder / "cache")},
        "model": {"embedding_size": 32, "encoder": layers, "decoder": layers},
        "search": {"max_length": 8},
        "train": {
            "max_steps": steps,
            "save_every_steps": 5,
            "precision": "fp32",
            "threads": 1,
            "accumulate": 2,
            "ema_decay": 0.9,
            "keep_best": 2,
            "average_best": 2,
            "validation": {"metrics": ["cer"], "sentences": 4},
        },
    }


def child(tree: dict[str, object]) -> None:
    """Train, or go on where a checkpoint is."""
    run = Path(str(tree["run_dir"]))
    if (run / "config.yaml").exists():
        resume(run, output=SilentProgress())
    else:
        train(parse_config(tree), SilentProgress())


def start(tree: dict[str, object]) -> BaseProcess:
    """The run in a process of its own."""
    process = FORKS.Process(target=child, args=(tree,))
    process.start()
    return process


def final_bytes(run: Path) -> dict[str, bytes]:
    """All tensors of the newest checkpoint and of the model."""
    newest = sorted((run / "checkpoints").glob("step-*"))[-1]
    files = [*newest.glob("*.safetensors"), run / "model" / "model.safetensors"]
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in files}


def kill_once(tree: dict[str, object], draw: random.Random, *, inside: bool, longest: float) -> str:
    """Start or resume, then kill. -> "inside a save", "elsewhere", or "finished" when it was through before."""
    run = Path(str(tree["run_dir"]))
    process = start(tree)
    if inside:
        skip = draw.randint(0, 2)  # not always the first save after the start
        while process.is_alive():
            if any((run / "checkpoints").glob(TEMPORARY)):
                if skip == 0:
                    time.sleep(draw.uniform(0, 0.01))
                    break
                skip -= 1
                while any((run / "checkpoints").glob(TEMPORARY)) and process.is_alive():
                    time.sleep(0.0002)
            time.sleep(0.0002)
    else:
        time.sleep(draw.uniform(0, longest))
    process.kill()
    process.join()
    if process.exitcode == 0:
        return "finished"
    return "inside a save" if any((run / "checkpoints").glob(TEMPORARY)) else "elsewhere"


def main() -> int:
    """The exit code: 0 when every run ended as the uninterrupted one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--inside-saves", type=int, default=60, help="at least this many of them while a checkpoint is written")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=Path("kill_resume.json"))
    options = parser.parse_args()
    draw, counts = random.Random(options.seed), Counter()
    begin, equal, ended = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_pairs(folder)
        ready = FORKS.Process(target=int)  # the server imports torch once; the time of a run must not include that
        ready.start()
        ready.join()
        started = time.monotonic()
        reference = start(make_tree(folder, "reference", options.steps))
        reference.join()
        longest = time.monotonic() - started
        expected = final_bytes(folder / "reference")
        tree = make_tree(folder, "killed", options.steps)
        while (killed := counts["inside a save"] + counts["elsewhere"]) < options.kills or counts["inside a save"] < options.inside_saves:
            inside = counts["inside a save"] * max(options.kills, 1) <= options.inside_saves * killed
            outcome = kill_once(tree, draw, inside=inside, longest=longest)
            counts[outcome] += 1
            print(f"{time.monotonic() - begin:7.1f} s  {outcome}", file=sys.stderr)
            if outcome == "finished":
                ended, equal = ended + 1, equal + (final_bytes(folder / "killed") == expected)
                shutil.rmtree(folder / "killed")
        last = start(tree)
        last.join()
        ended, equal = ended + 1, equal + (last.exitcode == 0 and final_bytes(folder / "killed") == expected)
    figures = {
        "kills": counts["inside a save"] + counts["elsewhere"],
        "inside a save": counts["inside a save"],
        "runs finished": ended,
        "equal to the uninterrupted run, byte for byte": equal,
        "seconds": round(time.monotonic() - begin, 1),
        "seed": options.seed,
    }
    for name, value in figures.items():
        print(f"{name:<48}{value:>8}")
    options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if equal == ended else 1


if __name__ == "__main__":
    sys.exit(main())
