"""How fast training is beside other toolkits: `python benchmarks/train_speed.py --json train_speed.json`.

In: Multi30k (--data) and the environments that benchmarks/peers.py made (--peers); a peer whose environment is missing is left out and
named. Out: target tokens a second without padding, peak memory, the ratio of ours to each, and shares of the floor, that is of the
speed that the matrix products alone would have at the measured peak of the precision used (benchmarks/ceiling.py).

The decision to question: every peer runs twice, as it comes and with glibc's allocator tuned, because that alone is worth up to half
its speed and nobody's user should pay for not knowing; ours tunes the allocator itself.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from alternate import (
    TUNED_ALLOCATOR,
    Comparison,
    Load,
    Record,
    Side,
    alternate,
    options,
    say_disturbance,
    say_machine,
    say_table,
    write_json,
)
from ceiling import training_peaks, training_precision
from pairs import Pairs, prepare_pairs
from peers import PEERS, installed, told_versions
from shape import TINY, Shape
from toolkits import toolkit_side

RUNNERS = Path(__file__).resolve().parent / "runners"
OURS = "transduce"
TOOLKITS = ("joeynmt", "eole", "opennmt")


def ours(pairs: Pairs, shape: Shape, *, steps: int, every: int, precision: str) -> Side:
    """`transduce train`; precision auto is what it does by default."""
    name = OURS if precision == "auto" else f"{OURS} {precision}"
    return Side(name, (sys.executable, *words_for("ours_train.py", pairs, shape, steps=steps, every=every), "--precision", precision))


def huggingface(pairs: Pairs, shape: Shape, *, steps: int, every: int, python: Path) -> list[Side]:
    """Marian in a plain loop, in fp32 and, where the processor has the instructions, bf16."""
    words = words_for("huggingface_train.py", pairs, shape, steps=steps, every=every)
    precisions = ("fp32", "bf16") if training_precision() == "bf16" else ("fp32",)
    return [Side(f"huggingface {kind}", (str(python), "-W", "ignore", *words, "--precision", kind)) for kind in precisions]


def words_for(script: str, pairs: Pairs, shape: Shape, *, steps: int, every: int) -> tuple[str, ...]:
    """The words that our own runners share."""
    return (str(RUNNERS / script), "--pairs", str(pairs.folder), "--shape", shape.word(), "--steps", str(steps), "--every", str(every))


def with_allocator(side: Side) -> Side:
    """The same side with glibc told to keep large blocks."""
    return replace(side, name=f"{side.name}, tuned", environment={**side.environment, **TUNED_ALLOCATOR})


def peer_sides(names: Sequence[str], pairs: Pairs, shape: Shape, *, steps: int, every: int, peers: Path) -> tuple[list[Side], Record]:
    """The sides of the named peers that are installed, each as it comes and tuned, and their versions."""
    plain: list[Side] = []
    pythons = installed(names, peers)
    for name, python in pythons.items():
        if name == "huggingface":
            plain += huggingface(pairs, shape, steps=steps, every=every, python=python)
        else:
            plain.append(toolkit_side(name, python, pairs=pairs, shape=shape, steps=steps, every=every))
    versions = {name: told_versions(name, python) for name, python in pythons.items()}
    return [version for side in plain for version in (side, with_allocator(side))], versions


def without_warmup(comparison: Comparison, warmup: int) -> None:
    """Forget the records of the first steps, where buffers and batches of new shapes come for the first time."""
    for turn in (turn for turns in comparison.turns.values() for turn in turns):
        turn.records[:] = [record for record in turn.records if record.get("step", math.inf) > warmup]


def table(comparison: Comparison, *, floors: dict[str, float]) -> list[list[object]]:
    """One row per side, the fastest first. floors: target tokens a second that products alone would allow, by precision."""
    rates = {name: comparison.median(name, "tokens_per_second") for name in comparison.turns}
    best = rates.get(OURS, math.nan)
    rows: list[list[object]] = []
    for name in sorted(rates, key=lambda side: -rates[side]):
        low, high = comparison.spread(name, "tokens_per_second")
        share = f"{rates[name] / floors[precision_of(comparison, name)]:.0%}" if floors else None
        rows.append([name, rates[name], f"{low:,.0f} to {high:,.0f}", best / rates[name], comparison.peak_mib(name), share])
    return rows


def precision_of(comparison: Comparison, side: str) -> str:
    """What a side computes in; toolkits that do not say compute in fp32."""
    said = [str(record["precision"]) for turn in comparison.turns[side] for record in turn.records if "precision" in record]
    return "bf16" if said and said[0].startswith("bf16") else "fp32"


def floors_of(pairs: Pairs, shape: Shape, *, threads: int, seconds: float) -> tuple[dict[str, float], Record]:
    """Target tokens a second at the measured peaks, by precision; empty for a recurrent model, whose cost is not counted here."""
    if shape.kind != "transformer":
        return {}, {}
    flop = shape.training_flop(pairs.source / pairs.target, source=pairs.source, target=pairs.target)
    load, peaks = Load(), training_peaks(shape, threads=threads, seconds=seconds)
    share = load.warn()
    told = ", ".join(f"{name} {rate:.0f}" for name, rate in peaks.items())
    print(f"floor         {flop / 1e6:.1f} MFLOP a target token; peaks {told} GFLOP/s")
    return {name: rate * 1e9 / flop for name, rate in peaks.items()}, {
        "mflop_per_target_token": flop / 1e6,
        "peaks_gflops": peaks,
        "disturbance": share,
    }


def main() -> int:
    """Exit code 1 if our side did not run."""
    parser = options(__doc__, rounds=3)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/multi30k"), help="folder with train.en, train.de, val.en, ...")
    parser.add_argument("--model", choices=["transformer", "lstm"], default="transformer")
    parser.add_argument("--steps", type=int, default=40, help="updates of a turn")
    parser.add_argument("--warmup", type=int, default=10, help="first updates of a turn that are not counted")
    parser.add_argument("--against", nargs="*", choices=[*PEERS], help="peers to run (default: all that can train this model)")
    words = parser.parse_args()
    shape = replace(TINY if words.quick else Shape(), kind=words.model)
    steps, every, warmup, rounds = (4, 2, 0, 1) if words.quick else (words.steps, 5, words.warmup, words.rounds)
    pairs = prepare_pairs(
        words.data, words.folder / f"pairs-{shape.vocabulary}", vocabulary=shape.vocabulary, limit=300 if words.quick else None
    )
    shape = replace(shape, vocabulary=pairs.vocabulary)
    able = ("huggingface", *TOOLKITS) if words.model == "transformer" else ("joeynmt",)
    names = able if words.against is None else words.against
    others, versions = peer_sides(names, pairs, shape, steps=steps, every=every, peers=words.peers)
    same = {"steps": steps, "every": every}
    sides = [ours(pairs, shape, precision="auto", **same), *others, ours(pairs, shape, precision="fp32", **same)]
    facts = say_machine(words.threads, **{name: " ".join(f"{k} {v}" for k, v in found.items()) for name, found in versions.items()})
    floors, cost = floors_of(pairs, shape, threads=words.threads, seconds=0.02 if words.quick else 0.5)
    comparison = alternate(sides, rounds=rounds, threads=words.threads, logs=words.folder / "logs" / f"train-{words.model}")
    without_warmup(comparison, warmup)
    rows = table(comparison, floors=floors)
    say_table(["side", "target tokens/s", "turns", "ours is times", "peak MiB", "share of floor"], rows)
    say_disturbance(comparison)
    report = {"machine": facts, "shape": shape.word(), "cost": cost, "rows": rows, "disturbance": comparison.disturbance()}
    write_json(words.json, report, comparison)
    return int(OURS not in comparison.turns)


if __name__ == "__main__":
    sys.exit(main())
