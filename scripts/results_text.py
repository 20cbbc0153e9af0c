"""The text results of docs/results.md: every experiment by name, run through the `transduce` commands.

    python scripts/results_text.py list
    python scripts/results_text.py run scan-simple g2p-eng-us [--minutes 5] [--data ../shared/data]
    python scripts/results_text.py all
    python scripts/results_text.py table

In: the data sets (--data) and examples/text/*.yaml. Out: runs/results/NAME/ (run folders, outputs) and docs/results/NAME.json;
`table` writes docs/results.md, the table of README.md and the plot of BLEU by source length from those records.

Decision to question: each step is a command that a reader can repeat by hand (it is printed), not a call inside this
process; the test set is decoded once, by the checkpoint that validation chose.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import results_data
import results_page

from transduce.metrics import compute_metrics
from transduce.train.journal import read_log

ROOT = Path(__file__).resolve().parent.parent
RECORDS = Path("docs") / "results"


@dataclass(frozen=True)
class Experiment:
    """One row of the results. `test` are the source and target file in the work folder; minutes: training time allowed."""

    name: str
    config: str
    prepare: Callable[[Path, Path], None]
    test: tuple[str, str]
    valid: tuple[str, str]
    metrics: tuple[str, ...]
    minutes: float
    slow_minutes: float
    """Training time on a processor without bf16 instructions."""
    references: str | None = None
    """TSV with several references per source."""
    num_models: int = 1
    """Trained with as many seeds, and predicting together."""
    pieces: tuple[str, ...] = ()
    """Words after the configuration file: settings that differ from it."""


def multi30k(name: str, config: str, minutes: float, *, direction: str = "en-de", slow: float = 1) -> Experiment:
    """A Multi30k experiment: BLEU and chrF on test_2016_flickr."""
    source, target = direction.split("-")
    files = {split: (f"multi30k/{split}.{source}", f"multi30k/{split}.{target}") for split in ("train", "val", "test_2016_flickr")}
    pieces = () if direction == "en-de" else settings_of(files["train"], files["val"])
    return Experiment(
        name,
        config,
        results_data.prepare_multi30k,
        test=files["test_2016_flickr"],
        valid=files["val"],
        metrics=("bleu", "chrf"),
        minutes=minutes,
        slow_minutes=minutes * slow,
        pieces=pieces,
    )


def symbols(
    name: str,
    config: str,
    folder: str,
    *,
    prepare: Callable[[Path, Path], None],
    minutes: float,
    num_models: int = 1,
    pieces: tuple[str, ...] = (),
) -> Experiment:
    """A symbol experiment whose files are FOLDER/{train,valid,test}.{source,target}. pieces: settings that differ from the file."""
    train, valid, test = ((f"{folder}/{split}.source", f"{folder}/{split}.target") for split in ("train", "valid", "test"))
    return Experiment(
        name,
        config,
        prepare,
        test=test,
        valid=valid,
        metrics=("exact_match",) if folder.startswith("scan") else ("exact_match", "per"),
        minutes=minutes,
        slow_minutes=minutes * 2,
        references="cmudict/references.tsv" if folder == "cmudict" else None,
        num_models=num_models,
        pieces=(*settings_of(train, valid), *pieces),
    )


def settings_of(train: tuple[str, str], valid: tuple[str, str]) -> tuple[str, ...]:
    """Command-line words that point a configuration at other files of the work folder."""
    corpora = (("train", train), ("valid", valid))
    return tuple(f"data.{split}.{side}=work/{files[at]}" for split, files in corpora for at, side in enumerate(("source", "target")))


# CMUdict has four times the words of the other list.
LESS_DROPOUT = (
    *("model.encoder.dropout=0.2", "model.decoder.dropout=0.2", "model.embedding_dropout=0.1"),
    "train.validate_every_steps=800",
)

EXPERIMENTS: tuple[Experiment, ...] = (
    multi30k("multi30k-en-de-rnn-fixed", "multi30k-en-de-rnn-fixed.yaml", 40),
    multi30k("multi30k-en-de-rnn-bahdanau", "multi30k-en-de-rnn-bahdanau.yaml", 40),
    multi30k("multi30k-en-de-rnn-luong", "multi30k-en-de-rnn-luong.yaml", 40),
    multi30k("multi30k-en-de-transformer", "multi30k-en-de-transformer.yaml", 60, slow=2),
    multi30k("multi30k-en-fr-transformer", "multi30k-en-de-transformer.yaml", 60, direction="en-fr", slow=2),
    multi30k("multi30k-de-en-transformer", "multi30k-en-de-transformer.yaml", 60, direction="de-en", slow=2),
    symbols("g2p-eng-us", "g2p.yaml", "g2p", prepare=results_data.prepare_g2p, minutes=20, num_models=3),
    symbols("cmudict", "g2p.yaml", "cmudict", prepare=results_data.prepare_cmudict, minutes=60, pieces=LESS_DROPOUT),
    symbols("scan-simple", "scan.yaml", "scan-simple", prepare=results_data.prepare_scan, minutes=10),
    symbols("scan-length", "scan.yaml", "scan-length", prepare=results_data.prepare_scan, minutes=10),
    symbols("scan-addprim-jump", "scan.yaml", "scan-addprim_jump", prepare=results_data.prepare_scan, minutes=10),
)


@dataclass(frozen=True)
class Machine:
    """What the time of a run depends on."""

    processor: str
    bf16: bool
    threads: int

    @staticmethod
    def here() -> "Machine":
        """This machine, from /proc/cpuinfo where there is one."""
        info = Path("/proc/cpuinfo")
        lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        flags = {flag for line in lines if line.startswith("flags") for flag in line.partition(":")[2].split()}
        threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
        return Machine((names or [platform.processor() or platform.machine()])[0], "avx512_bf16" in flags or "amx_bf16" in flags, threads)


def run(experiment: Experiment, *, data: Path, out: Path, seed: int = 1, minutes: float | None = None, extra: Sequence[str] = ()) -> Path:
    """Prepare, train, score validation and test, and write docs/results/NAME.json. Commands run in the repository root."""
    experiment.prepare(data, ROOT / "work")
    machine = Machine.here()
    limit = minutes if minutes is not None else experiment.minutes if machine.bf16 else experiment.slow_minutes
    folder = out / experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    runs = [folder / ("run" if number == 0 else f"run-{seed + number}") for number in range(experiment.num_models)]
    commands, times = [], []
    for number, place in enumerate(runs):
        words = [*experiment.pieces, f"run_dir={place}", f"seed={seed + number}", f"train.max_minutes={limit:g}", *extra]
        command, minutes_taken = trained(place, experiment.config, words)
        commands.append(command)
        times.append(minutes_taken)
    figures = {
        "valid": score(experiment, runs, experiment.valid, references=None),
        "test": score(experiment, runs, experiment.test, references=experiment.references),
    }
    record: dict[str, Any] = {
        "name": experiment.name,
        "command": "\n".join(commands),
        "seed": seed if len(runs) == 1 else f"{seed} to {seed + len(runs) - 1}",
        "train_minutes": round(sum(times), 2),
        "minutes_allowed": limit,
        "processor": machine.processor,
        "bf16": machine.bf16,
        "threads": machine.threads,
        **figures,
    }
    place = ROOT / RECORDS / f"{experiment.name}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return place


def trained(run_dir: Path, config: str, words: Sequence[str]) -> tuple[str, float]:
    """Train, continue an interrupted run, or take the finished one. -> the command and the minutes that the run counted."""
    command = ("train", f"examples/text/{config}", *words)
    if not (run_dir / "config.yaml").exists():
        transduce(*command)
    elif not (run_dir / "model").exists():
        transduce("resume", str(run_dir))
    endings = [record["minutes"] for record in read_log(run_dir) if "minutes" in record]
    return shown(command), float(endings[-1])


def score(experiment: Experiment, runs: Sequence[Path], files: tuple[str, str], *, references: str | None) -> dict[str, Any]:
    """Decode one file with all models together and score it: {metric: {value, details}} and, for BLEU, the score by source length."""
    source, target = (ROOT / "work" / name for name in files)
    output = runs[0].parent / f"{source.name}.out"
    others = [word for place in runs[1:] for word in ("--ensemble", str(place))]
    transduce("predict", str(runs[0]), *others, "--input", str(source), "--output", str(output))
    sources, predictions = results_data.read_lines(source), results_data.read_lines(output)
    expected = [[line] for line in results_data.read_lines(target)]
    if references is not None:
        expected = results_data.references_of(sources, ROOT / "work" / references)
    scores = compute_metrics(experiment.metrics, predictions, expected)
    found: dict[str, Any] = {name: {"value": value.value, "details": value.details} for name, value in scores.items()}
    if "bleu" in experiment.metrics:
        found["by_length"] = results_page.bleu_by_length(sources, predictions, expected)
    return found


def transduce(*words: str) -> None:
    """Run one `transduce` command, printed first. Raises CalledProcessError when it fails."""
    print(f"$ {shown(words)}", flush=True)
    subprocess.run([str(Path(sys.executable).with_name("transduce")), *words], cwd=ROOT, check=True)


def shown(words: Sequence[str]) -> str:
    """A command as a reader would type it in the repository root."""
    return " ".join(["transduce", *words]).replace(f"{ROOT}/", "")


def arguments() -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description="Reproduce docs/results.md.")
    parser.add_argument("action", choices=("list", "run", "all", "table"), nargs="?", default="all")
    parser.add_argument("names", nargs="*", help="experiments, for `run`")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with the data sets")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "results", help="where run folders and outputs go")
    parser.add_argument("--minutes", type=float, help="training minutes instead of those of the list")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="a further setting (may be repeated)")
    return parser.parse_args()


def chosen(names: Sequence[str]) -> list[Experiment]:
    """The experiments of these names; exits with what is allowed when one is unknown."""
    known = {experiment.name: experiment for experiment in EXPERIMENTS}
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        sys.exit(f"unknown experiment {', '.join(unknown) or '(none named)'}; choose from: {', '.join(known)}")
    return [known[name] for name in names]


def main() -> None:
    """Run the action named on the command line."""
    words = arguments()
    out = words.out.absolute()
    match words.action:
        case "list":
            for experiment in EXPERIMENTS:
                state = "measured" if (ROOT / RECORDS / f"{experiment.name}.json").exists() else "not measured yet"
                print(f"{experiment.name:30} {experiment.minutes:4g} min  {state}")
            return
        case "run" | "all":
            names = words.names if words.action == "run" else [experiment.name for experiment in EXPERIMENTS]
            for experiment in chosen(names):
                print(run(experiment, data=words.data, out=out, seed=words.seed, minutes=words.minutes, extra=words.set))
    for path in results_page.write_pages(ROOT / RECORDS, ROOT):
        print(path)


if __name__ == "__main__":
    main()
