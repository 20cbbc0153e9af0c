"""What each part of a training step is worth: `python benchmarks/ablation.py --json ablation.json`.

In: Multi30k (--data). Out: target tokens a second of `transduce train` as it is, and with one part after another replaced by what torch
or other toolkits do (benchmarks/runners/plain.py), in turns. The decision to question: one part is taken away at a time, from the whole;
gains do not add up, since what one part saves another can no longer save.
"""

import math
import sys
from dataclasses import replace
from pathlib import Path

from alternate import Comparison, Side, alternate, options, say_disturbance, say_machine, say_table, write_json
from pairs import Pairs, prepare_pairs
from shape import TINY, Shape
from train_speed import OURS, ours, without_warmup

PARTS = {
    "loops": ("torch's operations for compiled loops", ("--without", "loops")),
    "dropout": ("the same, and torch's dropout", ("--without", "dropout")),
    "attention": ("scaled_dot_product_attention", ("--without", "attention")),
    "loss": ("all logits, torch's cross-entropy", ("--without", "loss")),
    "sizes": ("products in every size", ("--without", "sizes")),
    "allocator": ("glibc's allocator as it comes", ("--without", "allocator")),
    "processes": ("one process, all threads", ("--processes", "1")),
    "adam": ("Adam without a fused kernel", ("--without", "adam")),
    "bf16": ("float32", ("--precision", "fp32")),
    "eager": ("torch.compile of every layer as torch has it", ("--without", "eager")),
}


def sides_of(names: list[str], pairs: Pairs, shape: Shape, *, steps: int, every: int) -> list[Side]:
    """Ours, and ours with each of the parts replaced."""
    whole = ours(pairs, shape, steps=steps, every=every, precision="auto")
    return [whole, *(replace(whole, name=PARTS[name][0], command=(*whole.command, *PARTS[name][1])) for name in names)]


def table(comparison: Comparison) -> list[list[object]]:
    """One row per side, ours first."""
    whole = comparison.median(OURS, "tokens_per_second") if OURS in comparison.turns else math.nan
    rates = {name: comparison.median(name, "tokens_per_second") for name in comparison.turns}
    return [[name, rate, whole / rate, comparison.peak_mib(name)] for name, rate in rates.items()]


def main() -> int:
    """Exit code 1 if our side did not run."""
    parser = options(__doc__, rounds=3)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/multi30k"), help="folder with train.en, train.de, val.en, ...")
    parser.add_argument("--steps", type=int, default=30, help="updates of a turn")
    parser.add_argument("--warmup", type=int, default=10, help="first updates of a turn that are not counted")
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    words = parser.parse_args()
    shape = TINY if words.quick else Shape()
    steps, every, warmup, rounds = (4, 2, 0, 1) if words.quick else (words.steps, 5, words.warmup, words.rounds)
    limit = 300 if words.quick else None
    pairs = prepare_pairs(words.data, words.folder / f"pairs-{shape.vocabulary}", vocabulary=shape.vocabulary, limit=limit)
    shape = replace(shape, vocabulary=pairs.vocabulary)
    facts = say_machine(words.threads)
    sides = sides_of(words.parts, pairs, shape, steps=steps, every=every)
    comparison = alternate(sides, rounds=rounds, threads=words.threads, logs=words.folder / "logs" / "ablation")
    without_warmup(comparison, warmup)
    rows = table(comparison)
    say_table(["instead of ours", "target tokens/s", "ours is times", "peak MiB"], rows)
    say_disturbance(comparison)
    write_json(words.json, {"machine": facts, "shape": shape.word(), "rows": rows, "disturbance": comparison.disturbance()}, comparison)
    return int(OURS not in comparison.turns)


if __name__ == "__main__":
    sys.exit(main())
