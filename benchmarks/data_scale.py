"""How much memory and time many pairs take: `python benchmarks/data_scale.py --pairs 10000000 --json scale.json`.

In: a number of pairs. Out: a table and JSON: files in MB, first and second start in seconds, seconds to plan and to
feed a whole epoch, and a training of some steps with a preset as `transduce train` does it; peak resident memory of each
process (its mapped file pages included).
Every start is a process of its own, so neither memory nor caches of the first help the second.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transduce import RunConfig

NUM_WORDS = 50_000
CHUNK = 50_000
MEAN_WORDS = 11
LIMIT_GIB = 3.0


def write_pairs(folder: Path, name: str, count: int, seed: int) -> None:
    """Sentences of made-up words, frequencies as 1 / rank; the target says the same in other words, partly in another order."""
    rng = np.random.default_rng(seed)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    words = [made_up_words(syllables, np.random.default_rng(end)) for end in (1, 2)]
    chances = 1 / np.arange(1, NUM_WORDS + 1)
    edges = np.cumsum(chances / chances.sum())
    with (folder / f"{name}.src").open("w") as source, (folder / f"{name}.tgt").open("w") as target:
        for start in range(0, count, CHUNK):
            for sentence in sentences(min(CHUNK, count - start), edges, rng):
                source.write(" ".join(words[0][word] for word in sentence) + "\n")
                half = len(sentence) // 2
                target.write(" ".join(words[1][word] for word in sentence[half:] + sentence[:half]) + "\n")


def made_up_words(syllables: list[str], rng: np.random.Generator) -> list[str]:
    """Short words for the frequent ones."""
    return ["".join(rng.choice(syllables, 1 + min(int(np.log10(rank + 1)), 3))) for rank in range(NUM_WORDS)]


def sentences(count: int, edges: np.ndarray, rng: np.random.Generator) -> Iterator[list[int]]:
    """Word numbers of `count` sentences."""
    lengths = rng.poisson(MEAN_WORDS, count) + 1
    words = np.minimum(np.searchsorted(edges, rng.random(int(lengths.sum()))), NUM_WORDS - 1).tolist()
    place = 0
    for length in lengths.tolist():
        yield words[place : place + length]
        place += length


def start(folder: Path, preset: str, *, whole_epoch: bool) -> dict[str, float]:
    """What one training process does with the data before and between its steps."""
    begin = time.perf_counter()
    from transduce.data.loader import prepare

    imported = time.perf_counter()
    data = prepare(configuration(folder, preset, steps=1).data, seed=1)
    next(data.train.batches(0))
    ready = time.perf_counter()
    figures = {"import_seconds": imported - begin, "start_seconds": ready - imported}
    if whole_epoch:
        num_batches = sum(1 for _ in data.train.batches(0))
        fed = time.perf_counter()
        data.train.num_batches(1)
        figures |= {"feed_epoch_seconds": fed - ready, "plan_seconds": time.perf_counter() - fed, "batches": num_batches}
    return figures | {"pairs": len(data.train), "padding_share": data.train.padding_share(0), "peak_gib": peak_gib()}


def train(folder: Path, preset: str, steps: int) -> dict[str, float]:
    """A training on the stored pairs, as a user starts it: everything from the configuration to the finished model."""
    from transduce import train_model

    config = configuration(folder, preset, steps)
    begin = time.perf_counter()
    train_model(config)
    return {"steps": steps, "seconds": time.perf_counter() - begin, "peak_gib": peak_gib()}


def configuration(folder: Path, preset: str, steps: int) -> "RunConfig":
    """The same for every process, so that they share the cache."""
    from transduce.config import parse_config

    pairs = {split: {"source": str(folder / f"{split}.src"), "target": str(folder / f"{split}.tgt")} for split in ("train", "valid")}
    tree = {"preset": preset, "run_dir": str(folder / "run"), "data": {**pairs, "cache_dir": str(folder / "cache")}}
    return parse_config(tree | {"train": {"max_steps": steps, "validation": {"sentences": 100}}})


def peak_gib() -> float:
    """The most memory this process has had resident."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def in_process(folder: Path, *words: str) -> dict[str, float]:
    """`start` or `train` in a fresh process. What they print before their last line is for people."""
    command = [sys.executable, __file__, "--worker", str(folder), *words]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
    return result


def measure(pairs: int, folder: Path, *, preset: str, steps: int) -> dict[str, object]:
    """Everything, in `folder`."""
    begin = time.perf_counter()
    write_pairs(folder, "train", pairs, seed=1)
    write_pairs(folder, "valid", 1000, seed=2)
    made = time.perf_counter() - begin
    megabytes = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    same = ("--preset", preset)
    first, second = in_process(folder, *same, "--steps", "0"), in_process(folder, *same, "--steps", "0", "--whole-epoch")
    trained = in_process(folder, *same, "--steps", str(steps))
    cache = sum(path.stat().st_size for path in (folder / "cache").rglob("*") if path.is_file()) / 1e6
    starts = {"first": first, "second": second, "train": trained}
    return {"text_mb": megabytes, "cache_mb": cache, "generate_seconds": made, **starts, "preset": preset, "cpus": os.cpu_count()}


def main() -> int:
    """Exit code 1 if a process needed more than 3 GiB."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where the temporary files go (about 2.5 GB for 10 million pairs)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--preset", default="transformer-small", help="what the training uses")
    parser.add_argument("--steps", type=int, default=100, help="of the training")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--whole-epoch", action="store_true", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.worker:
        folder, preset = words.worker, words.preset
        print(json.dumps(train(folder, preset, words.steps) if words.steps else start(folder, preset, whole_epoch=words.whole_epoch)))
        return 0
    with tempfile.TemporaryDirectory(dir=words.folder) as folder:
        figures = measure(words.pairs, Path(folder), preset=words.preset, steps=words.steps)
    if words.json:
        words.json.write_text(json.dumps(figures, indent=1) + "\n")
    for name, value in figures.items():
        if isinstance(value, str):
            print(f"{name:<18}{value}")
            continue
        for key, figure in value.items() if isinstance(value, dict) else [("", value)]:
            print(f"{name:<18}{key:<22}{figure:>14,.3f}")
    return int(max(figures[turn]["peak_gib"] for turn in ("first", "second", "train")) > LIMIT_GIB)


if __name__ == "__main__":
    sys.exit(main())
