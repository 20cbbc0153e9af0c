"""What longer sentences and more data cost: `python benchmarks/scaling.py --json scaling.json`.

In: nothing; pairs are made up. Out, for sentences of 16 to 1,024 words: target tokens a second in training, sentences and tokens a second
in search (greedy and beam 5, outputs as long as the sources), the shares of the floor that these are (benchmarks/ceiling.py; attention's
own products, which grow with the length, are in it), peak memory of both. For 10 thousand to 10 million pairs: seconds until
training starts the first and the second time, target tokens a second of its steps, peak memory (`data_scale.py`, one process each).

The decision to question: a batch holds as many tokens whatever the length, so what is seen is what attention adds, and what short
sentences waste. The weights come from the few steps that were timed: what a step of search costs does not depend on them.
"""

import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import data_scale
from alternate import Load, Record, Side, options, say_machine, say_table, take_turn, write_json
from ceiling import SEARCHED, search_precision, training_peaks, training_precision
from generated import word
from pairs import SPLITS, Pairs, prepare_pairs
from runners.ours_train import run_tree
from shape import TINY, Shape

from transduce.decode.options import SearchConfig
from transduce.train.checkpoint import load_model
from transduce.train.journal import read_log

RUNNERS = Path(__file__).resolve().parent / "runners"
LENGTHS = (16, 64, 256, 1024)
QUICK_LENGTHS = (8, 16)
PAIRS = (10_000, 100_000, 1_000_000, 10_000_000)
QUICK_PAIRS = (200,)
BEAMS = ("1", "5")
NUM_WORDS = 4000
LONGEST = 2048
"""Tokens of a sentence that training may have: a made-up word may be two."""


def write_sentences(folder: Path, length: int, *, count: int) -> None:
    """Files with the names of Multi30k: sentences of `length` words, the frequent ones often, and the same in other letters."""
    folder.mkdir(parents=True, exist_ok=True)
    draw, ranks = random.Random(length), range(NUM_WORDS)
    weights = [1 / (rank + 1) for rank in ranks]
    for split, size in (("train", count), ("val", 8), ("test", max(count // 10, 8))):
        rows = [draw.choices(ranks, weights, k=length) for _ in range(size)]
        for language, consonants in (("en", "bdfgklm"), ("de", "nprstvz")):
            text = "".join(" ".join(word(rank, consonants) for rank in row) + "\n" for row in rows)
            (folder / f"{SPLITS[split]}.{language}").write_text(text, encoding="utf-8")


def train(pairs: Pairs, shape: Shape, run_dir: Path, *, steps: int, threads: int) -> Record:
    """Some steps of `transduce train` -> median speed of the second half of them, and peak memory."""
    every = max(steps // 8, 1)
    settings = {"max_steps": steps, "save_every_steps": steps, "log_every_steps": every, "validation": {"metrics": [], "samples": 0}}
    tree = run_tree(pairs.folder, vars(shape), run_dir=run_dir, train_settings=settings)
    tree["data"] |= dict.fromkeys(("max_source_tokens", "max_target_tokens"), min(LONGEST, shape.batch_tokens))
    tree["model"] |= dict.fromkeys(("max_source_length", "max_target_length"), LONGEST)
    config = run_dir.with_suffix(".yaml")
    config.write_text(json.dumps(tree), encoding="utf-8")
    command = (sys.executable, "-m", "transduce", "train", str(config))
    turn = take_turn(Side("train", command, read=lambda line: {"line": line}), threads=threads, log=run_dir.with_suffix(".log"))
    speeds = [float(str(record["tokens_per_second"])) for record in read_log(run_dir) if record["kind"] == "step"]
    return {"tokens_per_second": statistics.median(speeds[len(speeds) // 2 :]), "peak_mib": turn.peak_mib}


def search(pairs: Pairs, model: Path, *, length: int, threads: int, limit: int) -> Record:
    """Speed of `Predictor` as `transduce predict` has it, by beam width, and peak memory."""
    plan = json.dumps({beam: [str(SearchConfig().batch_tokens)] for beam in BEAMS})
    words = ("--pairs", str(pairs.folder), "--model", str(model), "--plan", plan, "--force", str(length), "--limit", str(limit))
    side = Side("search", (sys.executable, str(RUNNERS / "ours_search.py"), *words))
    turn = take_turn(side, threads=threads, log=pairs.folder / "search.log")
    return {"beams": {str(one["beam"]): one for one in turn.records if "beam" in one}, "peak_mib": turn.peak_mib}


def costs(pairs: Pairs, shape: Shape, *, model: Path) -> Record:
    """Which precision is used, and GFLOP of a target token in training and, by beam width, of a sentence in search."""
    searches = search_precision(load_model(model).model)
    token = shape.training_flop(pairs.source / pairs.target, source=pairs.source, target=pairs.target) / 1e9
    sentences = {beam: shape.search_flop(int(beam), source=pairs.source, target=pairs.target) / 1e9 for beam in BEAMS}
    return {"precisions": {"train": training_precision()} | dict.fromkeys(BEAMS, searches), "gflop": {"train": token, **sentences}}


def shares_of_floor(found: Record, peaks: dict[str, float]) -> dict[str, float]:
    """Of the speed that the products alone would have at the peak (GFLOP/s) of the precision used: training, and search by beam width."""
    beams, costs = found["search"]["beams"], found["costs"]
    rates = {"train": found["train"]["tokens_per_second"], **{beam: beams[beam]["sentences_per_second"] for beam in BEAMS}}
    return {what: rate * costs["gflop"][what] / peaks[costs["precisions"][what]] for what, rate in rates.items()}


def measure_length(length: int, shape: Shape, folder: Path, *, steps: int, threads: int) -> Record:
    """Training and search of one length."""
    count = max(steps * shape.batch_tokens // length, 64)
    write_sentences(folder / f"texts-{length}", length, count=count)
    pairs = prepare_pairs(folder / f"texts-{length}", folder / f"pairs-{length}", vocabulary=shape.vocabulary)
    shape, run_dir = replace(shape, vocabulary=pairs.vocabulary), folder / f"run-{length}"
    load = Load()
    trained = train(pairs, shape, run_dir, steps=steps, threads=threads)
    limit = max(8, min(count // 10, 16_384 // length))
    found = search(pairs, run_dir / "model", length=length, threads=threads, limit=limit)
    load.warn()
    cost = costs(pairs, shape, model=run_dir / "model")
    return {"length": length, "target_tokens": pairs.target, "train": trained, "search": found, "costs": cost}


def measure_pairs(count: int, folder: Path, *, preset: str, steps: int) -> Record:
    """What `data_scale.py` finds for a number of pairs."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        return {"pairs": count, **data_scale.measure(count, Path(place), preset=preset, steps=steps)}


def length_rows(found: Sequence[Record]) -> list[list[object]]:
    """One row per length."""
    rows: list[list[object]] = []
    for one in found:
        rates = [one["search"]["beams"][beam][what] for beam in BEAMS for what in ("sentences_per_second", "tokens_per_second")]
        trained = one["train"]
        memory = (trained["peak_mib"], one["search"]["peak_mib"])
        shares = [f"{one['of_floor'][what]:.0%}" for what in ("train", *BEAMS)]
        rows.append([one["length"], one["target_tokens"], trained["tokens_per_second"], *rates, *memory, *shares])
    return rows


def pair_rows(found: Sequence[Record]) -> list[list[object]]:
    """One row per number of pairs."""
    starts = [[one[turn]["start_seconds"] for turn in ("first", "second")] for one in found]
    peaks = [max(one[turn]["peak_gib"] for turn in ("first", "second", "train")) for one in found]
    return [
        [one["pairs"], *start, one["train"]["steps"], one["train"]["seconds"], peak]
        for one, start, peak in zip(found, starts, peaks, strict=True)
    ]


def main() -> int:
    """Exit code 0, or an error where something did not run."""
    parser = options(__doc__, rounds=1)
    parser.add_argument("--lengths", type=int, nargs="*", default=list(LENGTHS), help="words of a sentence")
    parser.add_argument("--pairs", type=int, nargs="*", default=list(PAIRS), help="numbers of pairs")
    parser.add_argument("--steps", type=int, default=24, help="steps of every training")
    words = parser.parse_args()
    lengths, counts, steps = (QUICK_LENGTHS, QUICK_PAIRS, 4) if words.quick else (words.lengths, words.pairs, words.steps)
    shape, preset = (TINY, "transformer-tiny") if words.quick else (Shape(), "transformer-small")
    facts = say_machine(words.threads)
    words.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=words.folder) as folder:
        by_length = [measure_length(length, shape, Path(folder), steps=steps, threads=words.threads) for length in lengths]
        by_pairs = [measure_pairs(count, Path(folder), preset=preset, steps=steps) for count in counts]
    peaks = training_peaks(shape, threads=words.threads, seconds=0.02 if words.quick else 0.5, precisions=SEARCHED)
    by_length = [{**one, "of_floor": shares_of_floor(one, peaks)} for one in by_length]
    searched = [f"{name} {what}/s" for name in ("greedy", "beam 5") for what in ("sentences", "tokens")]
    shares = [f"{name} of the floor" for name in ("training", "greedy", "beam 5")]
    say_table(["words", "target tokens", "training tokens/s", *searched, "MiB training", "MiB search", *shares], length_rows(by_length))
    print()
    say_table(["pairs", "first start, s", "second start, s", "steps", "seconds of the training", "peak GiB"], pair_rows(by_pairs))
    write_json(words.json, {"machine": facts, "shape": shape.word(), "peaks_gflops": peaks, "lengths": by_length, "pairs": by_pairs})
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(str(error))
