"""One measured experiment: data prepared, trained, scored, recorded; and the command line of the scripts that hold the experiments.

    python scripts/results_{text,media,tracks}.py list
    python scripts/results_{text,media,tracks}.py run NAME... [--minutes 5] [--data ../shared/data]
    python scripts/results_{text,media,tracks}.py all
    python scripts/results_{text,media,tracks}.py table

In: experiments, and the data sets (--data). Out: runs/results/NAME/ (run folders, outputs) and docs/results/NAME.json; `table` writes the
page of the script from those records.

Decision to question: each step is a command that a reader can repeat by hand (it is printed), not a call inside this process; a run
that was interrupted goes on, and a finished one is only scored again.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transduce.train.journal import read_log

ROOT = Path(__file__).resolve().parent.parent
MISSING = "not measured yet"

Records = Mapping[str, dict[str, Any]]
"""What docs/results/NAME.json says of each experiment that was measured."""


@dataclass(frozen=True)
class Experiment:
    """One row of the results.

    train: the words after `transduce train`. prepare: makes the files in the work folder (second) from the data sets (first).
    score: figures of run folders, which predict together, on the split `valid` or `test`.
    """

    name: str
    train: tuple[str, ...]
    prepare: Callable[[Path, Path], None]
    score: Callable[[Sequence[Path], str], dict[str, Any]]
    minutes: float | None = None
    """Training time allowed; None = what the configuration says."""
    slow: float = 1
    """Times as many minutes on a processor without bf16 instructions."""
    num_models: int = 1
    """Trained with as many seeds, and predicting together."""


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
    limit = minutes
    if limit is None and experiment.minutes is not None:
        limit = experiment.minutes * (1 if machine.bf16 else experiment.slow)
    allowed = {} if limit is None else {"minutes_allowed": limit}
    runs, commands, times = [], [], []
    for number in range(experiment.num_models):
        place = out / experiment.name / ("run" if number == 0 else f"run-{seed + number}")
        limited = () if limit is None else (f"train.max_minutes={limit:g}",)
        command = ("train", *experiment.train, f"run_dir={place}", f"seed={seed + number}", *limited, *extra)
        runs.append(place)
        commands.append(shown(command))
        times.append(trained(place, command))
    record = {
        "name": experiment.name,
        "command": "\n".join(commands),
        "seed": seed if len(runs) == 1 else f"{seed} to {seed + len(runs) - 1}",
        "train_minutes": round(sum(times), 2),
        **allowed,
        **asdict(machine),
        "valid": experiment.score(runs, "valid"),
        "test": experiment.score(runs, "test"),
    }
    place = place_of(experiment)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return place


def trained(run_dir: Path, command: Sequence[str]) -> float:
    """Train, continue an interrupted run, or take the finished one. -> the minutes that the run counted."""
    if not (run_dir / "config.yaml").exists():
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        transduce(*command)
    elif not (run_dir / "model").exists():
        transduce("resume", str(run_dir))
    endings = [record["minutes"] for record in read_log(run_dir) if "minutes" in record]
    return float(str(endings[-1]))


def evaluated(run_dir: Path, split: str, *words: str) -> dict[str, Any]:
    """What `transduce evaluate` with these words finds."""
    found = run_dir.parent / f"{split}.json"
    transduce("evaluate", str(run_dir), *words, "--json", str(found))
    tree: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    return tree


def transduce(*words: str) -> None:
    """Run one `transduce` command, printed first. Raises CalledProcessError when it fails."""
    print(f"$ {shown(words)}", flush=True)
    subprocess.run([str(Path(sys.executable).with_name("transduce")), *words], cwd=ROOT, check=True)


def shown(words: Sequence[str]) -> str:
    """A command as a reader would type it in the repository root."""
    return " ".join(["transduce", *words]).replace(f"{ROOT}/", "")


def place_of(experiment: Experiment) -> Path:
    """Where the record of an experiment is, or will be."""
    return ROOT / "docs" / "results" / f"{experiment.name}.json"


def read_records(experiments: Sequence[Experiment]) -> Records:
    """What was measured, by name, in the order of the experiments."""
    places = {experiment.name: place_of(experiment) for experiment in experiments}
    return {name: json.loads(place.read_text(encoding="utf-8")) for name, place in places.items() if place.exists()}


def chosen(experiments: Sequence[Experiment], names: Sequence[str]) -> list[Experiment]:
    """The experiments of these names; exits with what is allowed when one is unknown."""
    known = {experiment.name: experiment for experiment in experiments}
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        sys.exit(f"unknown experiment {', '.join(unknown) or '(none named)'}; choose from: {', '.join(known)}")
    return [known[name] for name in names]


def main(experiments: Sequence[Experiment], write_pages: Callable[[Records, Path], Sequence[Path]]) -> None:
    """Run the action named on the command line. write_pages: from the records, and the folder to write docs/ in, to what was written."""
    parser = argparse.ArgumentParser(description="Train, score and tabulate the experiments of a page of results.")
    parser.add_argument("action", choices=("list", "run", "all", "table"), nargs="?", default="all")
    parser.add_argument("names", nargs="*", help="experiments, for `run`")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with the data sets")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "results", help="where run folders and outputs go")
    parser.add_argument("--minutes", type=float, help="training minutes instead of those of the list")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", help="a further setting (may be repeated)")
    words = parser.parse_args()
    if words.action == "list":
        for experiment in experiments:
            print(f"{experiment.name:30} {'measured' if place_of(experiment).exists() else MISSING}")
        return
    wanted = {"run": words.names, "all": [experiment.name for experiment in experiments]}
    for experiment in chosen(experiments, wanted[words.action]) if words.action in wanted else ():
        try:
            print(run(experiment, data=words.data, out=words.out.absolute(), seed=words.seed, minutes=words.minutes, extra=words.set))
        except subprocess.CalledProcessError as error:
            sys.exit(f"{experiment.name}: {error}")
    for path in write_pages(read_records(experiments), ROOT):
        print(path)
