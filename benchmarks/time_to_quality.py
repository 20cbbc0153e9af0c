"""How long until a model is good: `python benchmarks/time_to_quality.py --json time_to_quality.json`.

In: Multi30k (--data) and the environments of the two fastest trainers beside ours (--peers). Out: sacreBLEU (13a, beam 5) on the test
sentences after so many minutes of training, the minutes that each side took to a BLEU (--goal), and how much of the floor its training
reached: its median target tokens a second over what the matrix products alone would allow (benchmarks/ceiling.py).

The decision to question: every side trains as it is meant to, not alike. Our learning rate falls to its end at the time that a user
allows, so ours is one whole run for each of --limits, from the shortest until one is good enough, timed from the command to its end. The
others' rate falls with the root of the updates, so theirs is one run that is looked at after each of --minutes, and between two looks BLEU
is taken to lie on a line. Sizes, tokens and threads are the same. Saving a model counts as training time, translating does not.
"""

import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import sacrebleu
from alternate import (
    TUNED_ALLOCATOR,
    Record,
    Side,
    SideFailed,
    Turn,
    options,
    say_machine,
    say_table,
    take_turn,
    warn_disturbed,
    write_json,
)
from ceiling import training_precision
from pairs import Pairs, load_codec_of, prepare_pairs, read_lines
from peers import installed, version_words
from runners.ours_train import ends, run_tree
from shape import TINY, Shape
from toolkits import eole_predict, eole_until, read_opennmt
from train_speed import floors_of

from transduce.predict import Predictor
from transduce.train.journal import read_log

RUNNERS = Path(__file__).resolve().parent / "runners"
OURS = "transduce"
LIMITS = (5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0)
MINUTES = (5.0, 10.0, 15.0, 20.0, 25.0, 30.0)
QUICK_MINUTES = (0.02, 0.04)
WARMUP = 200
"""Updates until the full learning rate of the others, which is 0.001, as in the measurement that ours must beat."""
SAVE_EVERY = 20
"""Updates between two models of a toolkit that cannot be told a time."""
TIMED_OUT = 124
"""What the command `timeout` ends with when it has stopped a program."""

Look = tuple[float, float]
"""Minutes of training, and BLEU then."""


@dataclass(frozen=True)
class Measured:
    """A side. looks: in order of time. reached: minutes to the goal, None = never. speed: median target tokens a second between two
    reports of its training. others_share, peak_mib: as in `Turn`, the largest."""

    looks: list[Look]
    reached: float | None
    precision: str
    speed: float
    others_share: float
    peak_mib: float


def measured(looks: list[Look], reached: float | None, turns: Sequence[Turn], *, precision: str) -> Measured:
    """What the turns of one side gave; a line where the machine was not quiet."""
    others = max(turn.others_share for turn in turns)
    warn_disturbed(others)
    speed = statistics.median(record["tokens_per_second"] for turn in turns for record in turn.records if "tokens_per_second" in record)
    return Measured(looks, reached, precision, speed, others, max(turn.peak_mib for turn in turns))


def measure_ours(pairs: Pairs, limits: Sequence[float], *, goal: float, place: Path, model: Record, threads: int) -> Measured:
    """`transduce train` with one limit of time after the other, until a run ends with the goal. `model`: sizes other than the preset's."""
    looks, turns = [], []
    for limit in limits:
        run_dir = place / f"{OURS}-{limit:g}"
        turn = take_turn(ours(pairs, run_dir, limit, model=model), threads=threads, log=place / f"{run_dir.name}.log")
        turns.append(replace(turn, records=list(read_log(run_dir))))
        looks.append((turn.seconds / 60, our_bleu(pairs, run_dir)))
        say_look(OURS, looks[-1])
        if looks[-1][1] >= goal:
            return measured(looks, looks[-1][0], turns, precision=training_precision())
    return measured(looks, None, turns, precision=training_precision())


def ours(pairs: Pairs, run_dir: Path, limit: float, *, model: Record) -> Side:
    """A run of the preset `transformer-quick` on the prepared pairs."""
    tree = {
        "preset": "transformer-quick",
        "run_dir": str(run_dir),
        "data": {**run_tree(pairs.folder, vars(Shape()), run_dir=run_dir, train_settings={})["data"], "max_tokens_per_batch": 2048},
        "model": model,
        "train": {"max_minutes": limit, "metric": "loss", "validation": {"metrics": [], "samples": 0}},
    }
    config = run_dir.with_suffix(".yaml")
    config.write_text(json.dumps(tree), encoding="utf-8")
    return Side(OURS, (sys.executable, "-m", "transduce", "train", str(config)), read=spoken)


def spoken(line: str) -> Record | None:
    """Any line that a training prints."""
    return {"line": line} if line else None


def our_bleu(pairs: Pairs, model: Path) -> float:
    """BLEU of a model with beam 5."""
    predictor = Predictor.load(model)
    search = predictor.search.model_copy(update={"beam_size": 5})
    lines = read_lines(pairs.text("test", "en"))
    return bleu([prediction.text for prediction in predictor.predict(lines, search=search)], pairs)


@dataclass(frozen=True)
class Rival:
    """Another trainer. models: what a training that began then (seconds, as `time.time` tells them) has saved, each model with its minutes.
    translate: its command from a model to a file of ids."""

    side: Side
    precision: str
    models: Callable[[float], Sequence[tuple[float, Path]]]
    translate: Callable[[Path, Path], tuple[str, ...]]


def measure_rival(rival: Rival, pairs: Pairs, *, goal: float, place: Path, threads: int) -> Measured:
    """Train once, then translate with each of its models."""
    name, begin = rival.side.name.replace(" ", "-"), time.time()
    turn = take_turn(rival.side, threads=threads, log=place / f"{name}.log")
    codec, looks = load_codec_of(pairs), []
    for minutes, model in rival.models(begin):
        output = place / f"{name}-{minutes:.1f}.ids"
        take_turn(Side(name, rival.translate(model, output), read=spoken), threads=threads, log=output.with_suffix(".log"))
        lines = [codec.decode([int(word) for word in line.split()]) for line in read_lines(output)]
        looks.append((minutes, bleu(lines, pairs)))
        say_look(rival.side.name, looks[-1])
    return measured(looks, minutes_to(looks, goal), [turn], precision=rival.precision)


def huggingface(pairs: Pairs, shape: Shape, minutes: Sequence[float], *, python: Path, place: Path) -> Rival:
    """The loop of runners/huggingface_train.py, in bf16 where the processor has the instructions; it saves at each of the minutes."""
    precision, quiet = training_precision(), (str(python), "-W", "ignore")
    words = ("--pairs", str(pairs.folder), "--shape", shape.word(), "--precision", precision, "--save", str(place))
    times = ("--warmup", str(WARMUP), "--minutes", *(f"{minute:g}" for minute in minutes))
    command = (*quiet, str(RUNNERS / "huggingface_train.py"), *words, *times)
    translate = (*quiet, str(RUNNERS / "huggingface_translate.py"), "--pairs", str(pairs.folder))
    return Rival(
        Side(f"huggingface {precision}", command, environment=TUNED_ALLOCATOR),
        precision,
        models=lambda _: [(minute, place / f"{minute:g}") for minute in minutes],
        translate=lambda model, output: (*translate, "--model", str(model), "--output", str(output)),
    )


def eole(pairs: Pairs, shape: Shape, minutes: Sequence[float], *, python: Path, place: Path) -> Rival:
    """eole's own command in fp32 (it has no autocast on processors), stopped after the last of the minutes."""
    config = eole_until(pairs, shape, place, warmup=WARMUP, save_every=SAVE_EVERY)
    command = (str(python), "-W", "ignore", str(python.parent / "eole"))
    train = ("timeout", f"{60 * minutes[-1]:g}", *command, "train", "-config", str(config))
    return Rival(
        Side("eole fp32", train, read=read_opennmt, environment=TUNED_ALLOCATOR, exit_codes=(TIMED_OUT,)),
        "fp32",
        models=lambda begin: saved_by(place, begin, minutes),
        translate=lambda model, output: (*command, *eole_predict(pairs, model, output)),
    )


RIVALS = {"huggingface": huggingface, "eole": eole}


def saved_by(place: Path, begin: float, minutes: Sequence[float]) -> list[tuple[float, Path]]:
    """The newest model of each time, with the minutes from `begin` until its last file was written (none: it was stopped before)."""
    saved = sorted(((config.stat().st_mtime - begin) / 60, config.parent) for config in place.glob("step_*/config.json"))
    newest = [[pair for pair in saved if pair[0] <= minute][-1:] for minute in minutes]
    return sorted({pair for pairs in newest for pair in pairs})


def bleu(lines: Sequence[str], pairs: Pairs) -> float:
    """sacreBLEU against the test references."""
    return float(sacrebleu.corpus_bleu(list(lines), [read_lines(pairs.text("test", "de"))]).score)


def minutes_to(looks: Sequence[Look], goal: float) -> float | None:
    """When BLEU reached the goal, between two looks on a straight line; None if it did not."""
    before = (0.0, 0.0)
    for minute, score in looks:
        if score >= goal:
            return before[0] + (minute - before[0]) * (goal - before[1]) / (score - before[1])
        before = (minute, score)
    return None


def say_look(name: str, look: Look) -> None:
    """One line for who waits."""
    print(f"{name:<20}{look[0]:6.1f} min  BLEU {look[1]:.2f}", file=sys.stderr, flush=True)


def table(sides: dict[str, Measured], *, floors: dict[str, float]) -> list[list[object]]:
    """One row per side: what was seen, minutes to the goal, ours over that, its speed. floors: as `floors_of` has them."""
    best = sides[OURS].reached if OURS in sides else None
    return [
        [
            name,
            ", ".join(f"{score:.1f} ({minute:.1f})" for minute, score in side.looks),
            side.reached or "not reached",
            best / side.reached if best and side.reached else None,
            side.speed,
            f"{side.speed / floors[side.precision]:.0%}",
        ]
        for name, side in sides.items()
    ]


def rivals(pairs: Pairs, shape: Shape, minutes: Sequence[float], *, pythons: dict[str, Path], place: Path) -> list[Rival]:
    """Those of the interpreters, each with a folder of its own in `place`."""
    found = []
    for name, python in pythons.items():
        folder = place / name
        folder.mkdir()
        found.append(RIVALS[name](pairs, shape, minutes, python=python, place=folder))
    return found


def main() -> int:
    """Exit code 1 if a side did not run."""
    parser = options(__doc__, rounds=1)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/multi30k"), help="folder with train.en, train.de, val.en, ...")
    parser.add_argument("--limits", type=float, nargs="+", default=list(LIMITS), help="minutes that ours is given, until it is good enough")
    parser.add_argument("--minutes", type=float, nargs="+", default=list(MINUTES), help="when others are looked at; the last is their end")
    parser.add_argument("--goal", type=float, default=35.0, help="the BLEU to reach")
    words = parser.parse_args()
    limits, minutes = (QUICK_MINUTES, QUICK_MINUTES) if words.quick else (sorted(words.limits), sorted(words.minutes))
    shape, pairs_used = (TINY, 300) if words.quick else (Shape(), None)
    pairs = prepare_pairs(words.data, words.folder / f"pairs-{shape.vocabulary}", vocabulary=shape.vocabulary, limit=pairs_used)
    shape = replace(shape, vocabulary=pairs.vocabulary)
    place = words.folder / "quality"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    model = {**ends(vars(shape)), "embedding_size": shape.width} if words.quick else {}
    pythons = installed(tuple(RIVALS), words.peers)
    others = rivals(pairs, shape, minutes, pythons=pythons, place=place)
    facts = say_machine(words.threads, **version_words(pythons))
    goal, threads, sides, failed = words.goal, words.threads, {}, {}
    floors, cost = floors_of(pairs, shape, threads=threads, seconds=0.02 if words.quick else 0.5)
    ways = {OURS: partial(measure_ours, pairs, limits, goal=goal, place=place, model=model, threads=threads)}
    ways |= {rival.side.name: partial(measure_rival, rival, pairs, goal=goal, place=place, threads=threads) for rival in others}
    for name, measure in ways.items():
        try:
            sides[name] = measure()
        except SideFailed as error:
            failed[name] = str(error)
            print(f"left out: {error}", file=sys.stderr)
    rows = table(sides, floors=floors)
    say_table(["side", "BLEU (after minutes)", f"minutes to {goal:g}", "ours / this", "target tokens/s", "of the floor"], rows)
    told = {name: asdict(side) for name, side in sides.items()}
    write_json(words.json, {"machine": facts, "goal": goal, "cost": cost, "sides": told, "rows": rows, "failed": failed})
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
