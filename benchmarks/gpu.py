"""Training and search on one GPU: `python benchmarks/gpu.py --json gpu.json`.

In: Multi30k and the environment of Hugging Face transformers. Out: target tokens a second of `transformer-base` and `transformer-big` at
25,000 tokens a batch, plain and compiled, beside MarianMT of the same sizes, with the share of the GPU's measured bfloat16 peak (model
FLOP utilisation); and sentences a second of search, all held to the same number of tokens.

The decision to question: utilisation counts the products of the model once forward and twice backward, without padding, over the peak
that a square product reached here in the same minute, not over the number on the box. Without a GPU it ends with exit code 2, except
with --quick, which runs everything in small on the processor.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from alternate import Comparison, Record, Side, alternate, options, say_disturbance, say_machine, say_table, write_json
from ceiling import timings_of
from pairs import Pairs, prepare_pairs
from peers import installed, version_words
from search_speed import FORCED_LENGTH, Engine, plan_of, run_group, throughput_rows, trained_model
from shape import TINY, Shape
from train_speed import OURS, huggingface, ours, without_warmup

SIZES = {
    "base": Shape(layers=6, width=512, heads=8, feed_forward=2048, batch_tokens=25_000),
    "big": Shape(layers=6, width=1024, heads=16, feed_forward=4096, batch_tokens=25_000),
}
SQUARE = 8192
RUNNERS = Path(__file__).resolve().parent / "runners"


def peak_tflops(device: str, *, size: int) -> float:
    """Trillions of operations a second of a square bfloat16 product."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))

    def multiply() -> None:
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * size**3 / min(timings_of(multiply, 0.5)) / 1e12


def training_sides(pairs: Pairs, shape: Shape, *, steps: int, device: str, python: Path | None) -> list[Side]:
    """Ours and theirs in bfloat16, plain and compiled."""
    same = {"steps": steps, "every": max(steps // 6, 1)}
    sides = [ours(pairs, shape, precision="bf16", **same)]
    compiled = [("--without", "eager")]
    if python is not None:
        sides.append(huggingface(pairs, shape, python=python, **same)[-1])
        compiled.append(("--compile",))
    sides = [replace(side, command=(*side.command, "--device", device)) for side in sides]
    faster = [
        replace(side, name=f"{side.name} compiled", command=(*side.command, *more)) for side, more in zip(sides, compiled, strict=True)
    ]
    return [*sides, *faster]


def training_rows(comparison: Comparison, *, shape: Shape, pairs: Pairs, peak: float) -> list[list[object]]:
    """One row per side, ours first."""
    flop = shape.training_flop(pairs.source / pairs.target, source=pairs.source, target=pairs.target)
    rates = {name: comparison.median(name, "tokens_per_second") for name in comparison.turns}
    first = next(iter(rates.values()), float("nan"))
    return [[name, rate, first / rate, f"{rate * flop / 1e12 / peak:.0%}"] for name, rate in rates.items()]


def search_engines(pairs: Pairs, shape: Shape, model: Path, *, device: str, python: Path | None) -> list[Engine]:
    """Ours and Hugging Face's generate on the same device."""
    common = ("--pairs", str(pairs.folder), "--device", device)
    command = (sys.executable, str(RUNNERS / "ours_search.py"), *common, "--model", str(model), "--engine", "torch", "--precision", "fp32")
    found = [Engine(OURS, command, plan_of(["16384", "65536"]), plan_of(["4096"]))]
    if python is not None:
        theirs = (str(python), "-W", "ignore", str(RUNNERS / "huggingface_search.py"), *common, "--shape", shape.word())
        found.append(Engine("huggingface", theirs, plan_of(["128", "512"]), plan_of(["1"])))
    return found


def measure_size(name: str, pairs: Pairs, *, words: Record) -> Record:
    """Both tables of one size."""
    shape, device, folder = words["sizes"][name], words["device"], words["folder"]
    peak = peak_tflops(device, size=words["square"])
    sides = training_sides(pairs, shape, steps=words["steps"], device=device, python=words["python"])
    trained = alternate(sides, rounds=words["rounds"], threads=words["threads"], logs=folder / "logs" / f"gpu-{name}")
    without_warmup(trained, words["warmup"])
    rows = training_rows(trained, shape=shape, pairs=pairs, peak=peak)
    print(f"\n{name}: training, {peak:.0f} TFLOP/s at most")
    say_table(["side", "target tokens/s", "ours is times", "utilisation"], rows)
    model = trained_model(pairs, shape, folder, minutes=1, steps=words["steps"])
    engines = search_engines(pairs, shape, model, device=device, python=words["python"])
    few = ("--force", str(FORCED_LENGTH), *words["few"])
    found = run_group(engines, few, rounds=words["rounds"], threads=words["threads"], logs=folder / "logs" / f"gpu-{name}-search")
    searched = throughput_rows(found, ours=OURS, bleu={})
    print(f"\n{name}: search, {FORCED_LENGTH} tokens for every sentence")
    say_table(["engine", "beam", "best setting", "sentences/s", "tokens/s", "ours is times", "peak MiB", "BLEU"], searched)
    for comparison in (trained, found):
        say_disturbance(comparison)
    return {"peak_tflops": peak, "training": rows, "search": searched, "failed": {**trained.failed, **found.failed}}


def main() -> int:
    """Exit code 1 if our side did not run, 2 where there is no GPU."""
    parser = options(__doc__, rounds=3)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/multi30k"), help="folder with train.en, train.de, val.en, ...")
    parser.add_argument("--steps", type=int, default=60, help="updates of a turn; the first third is not counted")
    asked = parser.parse_args()
    if not (torch.cuda.is_available() or asked.quick):
        print("torch sees no GPU here; --quick runs everything in small on the processor", file=sys.stderr)
        return 2
    sizes, steps = ({"tiny": TINY}, 3) if asked.quick else (SIZES, asked.steps)
    vocabulary = next(iter(sizes.values())).vocabulary
    limit = 300 if asked.quick else None
    pairs = prepare_pairs(asked.data, asked.folder / f"pairs-{vocabulary}", vocabulary=vocabulary, limit=limit)
    pythons = installed(("huggingface",), asked.peers)
    python, versions = pythons.get("huggingface"), version_words(pythons)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    facts = say_machine(asked.threads, device=torch.cuda.get_device_name() if device == "cuda" else "cpu", **versions)
    words = {
        "sizes": {name: replace(shape, vocabulary=pairs.vocabulary) for name, shape in sizes.items()},
        "device": device,
        "folder": asked.folder,
        "python": python,
        "threads": asked.threads,
        "rounds": 1 if asked.quick else asked.rounds,
        "steps": steps,
        "warmup": steps // 3,
        "square": 256 if asked.quick else SQUARE,
        "few": ("--limit", "8") if asked.quick else (),
    }
    found = {name: measure_size(name, pairs, words=words) for name in sizes}
    write_json(asked.json, {"machine": facts, **found})
    return int(any(OURS not in str(one["training"]) for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
