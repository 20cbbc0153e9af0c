"""How good is a model after how many minutes: `python benchmarks/time_to_quality.py --json time_to_quality.json`.

In: Multi30k (--data) and the environment of Hugging Face transformers (--peers), the fastest trainer beside ours. Out: sacreBLEU (13a,
beam 5) on the test sentences after 5, 10, ... minutes of training of each side, and the minutes that each took to a BLEU (--goal).

The decision to question: every side trains as it is meant to, not alike: ours with the recipe of the preset `transformer-small`, the others
in the loop of runners/huggingface_train.py with warm-up 200 and batches of 4,096 tokens, in bf16 and in fp32, the allocator tuned. Sizes,
tokens, processor threads are the same; saving a model counts as training time. Translating does not: it is done afterwards.
"""

import json
import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import sacrebleu
from alternate import TUNED_ALLOCATOR, Record, Side, SideFailed, options, say_machine, say_table, take_turn, warn_disturbed, write_json
from pairs import Pairs, load_codec_of, prepare_pairs, read_lines
from peers import PEERS, python_of, versions_of
from runners.ours_train import ends, run_tree
from shape import TINY, Shape

from transduce.predict import Predictor
from transduce.train.precision import choose_device, choose_precision

RUNNERS = Path(__file__).resolve().parent / "runners"
OURS = "transduce"
MINUTES = (5.0, 10.0, 15.0, 20.0, 25.0, 30.0)
QUICK_MINUTES = (0.02, 0.04)
WARMUP = 200


def spoken(line: str) -> Record | None:
    """Any line that a training prints."""
    return {"line": line} if line else None


def ours(pairs: Pairs, run_dir: Path, minutes: Sequence[float], *, model: Record, every: int) -> Side:
    """`transduce train` with a preset and a limit of time; a checkpoint every few steps is kept, each of which is a model."""
    limits = {"max_minutes": minutes[-1], "save_every_steps": every, "keep_last": 1000, "validate_every_steps": 400}
    tree = {
        "preset": "transformer-small",
        "run_dir": str(run_dir),
        "data": {**run_tree(pairs.folder, vars(Shape()), run_dir=run_dir, train_settings={})["data"], "max_tokens_per_batch": 2048},
        "model": model,
        "train": {**limits, "metric": "loss", "validation": {"metrics": [], "samples": 0}},
    }
    config = run_dir.with_suffix(".yaml")
    config.write_text(json.dumps(tree), encoding="utf-8")
    return Side(OURS, (sys.executable, "-m", "transduce", "train", str(config)), read=spoken)


def huggingface(pairs: Pairs, shape: Shape, minutes: Sequence[float], *, python: Path, precision: str, save: Path) -> Side:
    """The loop of runners/huggingface_train.py, which saves the model at each time."""
    script = str(RUNNERS / "huggingface_train.py")
    words = ("--pairs", str(pairs.folder), "--shape", shape.word(), "--precision", precision, "--save", str(save))
    times = ("--warmup", str(WARMUP), "--minutes", *(f"{minute:g}" for minute in minutes))
    return Side(f"huggingface {precision}", (str(python), "-W", "ignore", script, *words, *times), environment=TUNED_ALLOCATOR)


def newest_models(run_dir: Path, minutes: Sequence[float]) -> dict[float, Path]:
    """Our newest checkpoint of each time; none where nothing was saved by then."""
    saved = {}
    for folder in sorted((run_dir / "checkpoints").iterdir()):
        saved[folder] = float(json.loads((folder / "state.json").read_text(encoding="utf-8"))["minutes"])
    in_time = {
        minute: [folder for folder, end in saved.items() if end <= minute * 1.005] for minute in minutes
    }  # the last step may be late
    return {minute: folders[-1] for minute, folders in in_time.items() if folders}


def our_bleu(pairs: Pairs, model: Path) -> float:
    """BLEU of a checkpoint with beam 5."""
    predictor = Predictor.load(model)
    search = predictor.search.model_copy(update={"beam_size": 5})
    lines = read_lines(pairs.text("test", "en"))
    return bleu([prediction.text for prediction in predictor.predict(lines, search=search)], pairs)


def their_bleu(pairs: Pairs, model: Path, *, python: Path, threads: int) -> float:
    """BLEU of a saved MarianMTModel with beam 5."""
    output = model / "test.ids"
    words = ("--pairs", str(pairs.folder), "--model", str(model), "--output", str(output))
    side = Side(model.name, (str(python), "-W", "ignore", str(RUNNERS / "huggingface_translate.py"), *words))
    take_turn(side, threads=threads, log=model / "translate.log")
    codec = load_codec_of(pairs)
    return bleu([codec.decode([int(word) for word in line.split()]) for line in read_lines(output)], pairs)


def bleu(lines: Sequence[str], pairs: Pairs) -> float:
    """sacreBLEU against the test references."""
    return float(sacrebleu.corpus_bleu(list(lines), [read_lines(pairs.text("test", "de"))]).score)


def minutes_to(curve: dict[float, float], goal: float) -> float:
    """When a curve of BLEU by minutes reached the goal, between two times on a straight line; infinite if it did not."""
    before = (0.0, 0.0)
    for minute, score in sorted(curve.items()):
        if score >= goal:
            return before[0] + (minute - before[0]) * (goal - before[1]) / (score - before[1])
        before = (minute, score)
    return math.inf


def table(curves: dict[str, dict[float, float]], minutes: Sequence[float], *, goal: float) -> list[list[object]]:
    """One row per side: BLEU at each time, minutes to the goal, and ours over that."""
    reached = {name: minutes_to(curve, goal) for name, curve in curves.items()}
    best = reached.get(OURS, math.inf)
    return [
        [
            name,
            *(curve.get(minute) for minute in minutes),
            reached[name] if math.isfinite(reached[name]) else "not reached",
            best / reached[name] if math.isfinite(best) and math.isfinite(reached[name]) else None,
        ]
        for name, curve in curves.items()
    ]


@dataclass(frozen=True)
class Run:
    """What a side's training left. models: by minutes. others_share, peak_mib: as in `Turn`."""

    models: dict[float, Path]
    others_share: float
    peak_mib: float


def run_sides(sides: dict[str, tuple[Side, Path]], minutes: Sequence[float], *, threads: int, logs: Path) -> dict[str, Run]:
    """Train one side after the other. The folder of each is where its models are."""
    runs = {}
    for name, (side, place) in sides.items():
        try:
            turn = take_turn(side, threads=threads, log=logs / f"{name.replace(' ', '-')}.log")
        except SideFailed as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        models = newest_models(place, minutes) if name == OURS else {minute: place / f"{minute:g}" for minute in minutes}
        runs[name] = Run(models, turn.others_share, turn.peak_mib)
        warn_disturbed(turn.others_share)
    return runs


def main() -> int:
    """Exit code 1 if our side did not run."""
    parser = options(__doc__, rounds=1)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/multi30k"), help="folder with train.en, train.de, val.en, ...")
    parser.add_argument("--minutes", type=float, nargs="+", default=list(MINUTES), help="when models are looked at; the last ends training")
    parser.add_argument("--goal", type=float, default=35.0, help="the BLEU to reach")
    words = parser.parse_args()
    minutes = QUICK_MINUTES if words.quick else tuple(sorted(words.minutes))
    shape, limit = (TINY, 300) if words.quick else (Shape(), None)
    pairs = prepare_pairs(words.data, words.folder / f"pairs-{shape.vocabulary}", vocabulary=shape.vocabulary, limit=limit)
    shape = replace(shape, vocabulary=pairs.vocabulary)
    place = words.folder / "quality"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    model = {**ends(vars(shape)), "embedding_size": shape.width} if words.quick else {}
    sides = {OURS: (ours(pairs, place / OURS, minutes, model=model, every=2 if words.quick else 100), place / OURS)}
    python, versions = interpreter(words.peers)
    for precision in precisions() if python else ():
        side = huggingface(pairs, shape, minutes, python=python, precision=precision, save=place / precision)
        sides[side.name] = (side, place / precision)
    facts = say_machine(words.threads, **versions)
    runs = run_sides(sides, minutes, threads=words.threads, logs=words.folder / "logs" / "quality")
    curves = {
        name: {
            minute: our_bleu(pairs, folder) if name == OURS else their_bleu(pairs, folder, python=python, threads=words.threads)
            for minute, folder in run.models.items()
        }
        for name, run in runs.items()
    }
    rows = table(curves, minutes, goal=words.goal)
    say_table(["side", *(f"{minute:g} min" for minute in minutes), f"minutes to {words.goal:g}", "ours / this"], rows)
    told = {name: {"bleu": curves[name], "disturbance": run.others_share, "peak_mib": run.peak_mib} for name, run in runs.items()}
    write_json(words.json, {"machine": facts, "goal": words.goal, "sides": told, "rows": rows})
    return int(OURS not in runs)


def precisions() -> tuple[str, ...]:
    """What the peer computes in: bf16 only where the processor has the instructions."""
    return ("bf16", "fp32") if choose_precision("auto", choose_device("cpu")).dtype is not None else ("fp32",)


def interpreter(peers: Path) -> tuple[Path | None, Record]:
    """The peer's Python and its versions; None, and why on stderr, where it is not installed."""
    try:
        python = python_of(peers, "huggingface")
    except FileNotFoundError as missing:
        print(f"left out: huggingface: {missing}", file=sys.stderr)
        return None, {}
    return python, {"huggingface": " ".join(versions_of(python, [PEERS["huggingface"].package.partition("==")[0], "torch"]).values())}


if __name__ == "__main__":
    sys.exit(main())
