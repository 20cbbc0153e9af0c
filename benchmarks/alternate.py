"""Several programs measured in turns, ABAB..., so that whatever happens to the machine meanwhile meets all of them.

In: sides (one command each) and a number of rounds. Out: per side its turns: the records that it printed, wall time, processor time, peak
memory, and how busy everybody else kept the machine. `Comparison` turns that into a table with medians and ratios, and into JSON.

The decision to question: every turn is a process of its own, with an environment that is made here, so that no side profits from
threads, allocator settings or warm caches that another side, or the caller's shell, has left behind.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transduce.processor import cpu_flags, cpu_line

Record = dict[str, Any]

MEBIBYTE = 2**20
TUNED_ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**34), "MALLOC_TOP_PAD_": str(2**27)}
"""glibc's allocator, told to keep large blocks; what `transduce` sets for itself (transduce/allocator.py)."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
TOLD_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
WARNED_SHARE = 0.05


def json_record(line: str) -> Record | None:
    """A line that is a JSON object; everything else that a program prints is for people."""
    if not line.startswith("{"):
        return None
    record: Record = json.loads(line)
    return record


@dataclass(frozen=True)
class Side:
    """One program to measure. read: what a printed line says, or None. environment: on top of all sides'. exit_codes: of success."""

    name: str
    command: tuple[str, ...]
    read: Callable[[str], Record | None] = json_record
    environment: Mapping[str, str] = field(default_factory=dict)
    exit_codes: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Turn:
    """What one run of a side gave. others_share: processor time of all other processes over the time that all cores had."""

    records: list[Record]
    seconds: float
    cpu_seconds: float
    others_share: float
    peak_mib: float


class SideFailed(Exception):
    """A side ended with an error, or printed nothing that could be read."""


def take_turn(side: Side, *, threads: int, log: Path) -> Turn:
    """Run one side to its end; everything that it prints also goes to `log`. Raises SideFailed."""
    begin, busy = time.perf_counter(), busy_seconds()
    process = subprocess.Popen(
        side.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment_of(side, threads)
    )
    assert process.stdout is not None
    log.parent.mkdir(parents=True, exist_ok=True)
    records, last = [], ""
    with log.open("w", encoding="utf-8") as file, process.stdout as lines:
        for line in lines:
            file.write(f"{time.perf_counter() - begin:9.3f}  {line}")
            last = line.strip() or last
            record = side.read(line.strip())
            if record is not None:
                records.append(record)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in side.exit_codes or not records:
        raise SideFailed(f"{side.name}: exit code {process.returncode}, {len(records)} records, last line {last!r}; all of it is in {log}")
    seconds, used = time.perf_counter() - begin, usage.ru_utime + usage.ru_stime
    others = max(0.0, busy_seconds() - busy - used) / (seconds * (os.cpu_count() or 1))
    return Turn(records, seconds, used, others, usage.ru_maxrss / 1024)


def environment_of(side: Side, threads: int) -> dict[str, str]:
    """The caller's environment without what decides speed, and then the same for all sides."""
    dropped = {*TUNED_ALLOCATOR, *THREAD_VARIABLES, "LD_PRELOAD"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    common = {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    return {**kept, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **common, **side.environment}


def busy_seconds() -> float:
    """Processor time that everybody together has used since the machine started; 0 where the system does not tell."""
    try:
        with Path("/proc/stat").open(encoding="ascii") as file:
            user, nice, system, _, _, interrupts, soft = (int(word) for word in file.readline().split()[1:8])
    except OSError:
        return 0.0
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


class Load:
    """How busy other processes keep the machine while this one and those that it waits for measure, from the moment that this is made."""

    def __init__(self) -> None:
        self.begin, self.busy, self.own = time.perf_counter(), busy_seconds(), own_seconds()

    def others_share(self) -> float:
        """Processor time of the others over the time that all cores had."""
        seconds, used = time.perf_counter() - self.begin, own_seconds() - self.own
        return max(0.0, busy_seconds() - self.busy - used) / (seconds * (os.cpu_count() or 1))

    def warn(self) -> float:
        """`others_share`, and a line where it is too much."""
        share = self.others_share()
        warn_disturbed(share)
        return share


def own_seconds() -> float:
    """Processor time of this process and of those that it has waited for, all in all."""
    return sum(os.times()[:4])


def warn_disturbed(share: float) -> None:
    """Say so where others used the machine, for then the figures mean little."""
    if share > WARNED_SHARE:
        print(f"disturbed: other processes used up to {share:.0%} of the machine meanwhile; measure again when it is quiet")


@dataclass
class Comparison:
    """All turns of all sides. failed: sides that were left out, and why."""

    turns: dict[str, list[Turn]]
    failed: dict[str, str] = field(default_factory=dict)

    def values(self, side: str, key: str, **where: object) -> list[float]:
        """What a side's records say under `key`, over all turns; of the records that have the given values, if any are given."""
        records = [record for turn in self.turns[side] for record in turn.records]
        return [float(record[key]) for record in records if key in record and all(record.get(k) == v for k, v in where.items())]

    def median(self, side: str, key: str, **where: object) -> float:
        """Of `values`; not a number where there are none."""
        values = self.values(side, key, **where)
        return statistics.median(values) if values else float("nan")

    def spread(self, side: str, key: str) -> tuple[float, float]:
        """The smallest and the largest median of a turn."""
        medians = [statistics.median([float(r[key]) for r in turn.records if key in r]) for turn in self.turns[side]]
        return min(medians), max(medians)

    def peak_mib(self, side: str) -> float:
        """The median of the turns' peaks: of the largest process, or of all processes together where a side tells."""
        told = [[float(record["peak_mib"]) for record in turn.records if "peak_mib" in record] for turn in self.turns[side]]
        return statistics.median(max([turn.peak_mib, *more]) for turn, more in zip(self.turns[side], told, strict=True))

    def disturbance(self) -> float:
        """The largest share of the machine that others had during a turn."""
        return max((turn.others_share for turns in self.turns.values() for turn in turns), default=0.0)


def alternate(sides: Sequence[Side], *, rounds: int, threads: int, logs: Path) -> Comparison:
    """Every side once, then every side again, ...: `rounds` turns each. A side that fails is left out from then on, and named."""
    comparison = Comparison({})
    for turn in range(rounds):
        for side in sides:
            if side.name in comparison.failed:
                continue
            try:
                done = take_turn(side, threads=threads, log=logs / f"{side.name.replace(' ', '-')}.{turn}.log")
            except (SideFailed, OSError) as error:
                comparison.failed[side.name] = str(error)
                print(f"left out: {error}", file=sys.stderr, flush=True)
                continue
            comparison.turns.setdefault(side.name, []).append(done)
            print(f"round {turn + 1}/{rounds}  {side.name:<28}{done.seconds:8.1f} s", file=sys.stderr, flush=True)
    for name in comparison.failed:
        comparison.turns.pop(name, None)
    return comparison


def machine() -> Record:
    """What a reader must know of the machine to compare figures."""
    flags = cpu_flags()
    kind = f"family {cpu_line('cpu family') or '?'}, model {cpu_line('model') or '?'}"
    return {
        "processor": f"{cpu_line('model name') or platform.processor()}, {kind}",
        "instructions": [flag for flag in TOLD_FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}, {' '.join(platform.libc_ver())}",
        "python": platform.python_version(),
    }


def say_machine(threads: int, **more: object) -> Record:
    """Print what `machine` and the caller know -> the same as a record."""
    facts = {**machine(), "threads": threads, **more}
    for name, value in facts.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{name:<14}{shown}")
    return facts


def say_disturbance(comparison: Comparison) -> None:
    """Warn where others used the machine, and name the sides that were left out."""
    warn_disturbed(comparison.disturbance())
    for name, why in comparison.failed.items():
        print(f"left out: {name}: {why}")


def say_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table whose columns line up; floats with as many digits as say something."""
    cells = [[str(cell) for cell in header], *([shown(cell) for cell in row] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells]
    print("\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]), flush=True)


def shown(cell: object) -> str:
    """Numbers of 100 and more without decimals, smaller ones with two or three digits; nothing for what was not measured."""
    if not isinstance(cell, float):
        return "" if cell is None else str(cell)
    if cell != cell:
        return ""
    return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}"


def write_json(path: Path | None, report: Mapping[str, object], comparison: Comparison | None = None) -> None:
    """The report, with every turn of a comparison. Nothing without a path."""
    if path is None:
        return
    turns = {} if comparison is None else {name: [asdict(turn) for turn in all_turns] for name, all_turns in comparison.turns.items()}
    more = {} if comparison is None else {"turns": turns, "failed": comparison.failed}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**report, **more}, indent=1) + "\n", encoding="utf-8")


def options(doc: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """What every comparison can be told."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: shows that it runs, measures nothing")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"turns of each side (default: {rounds})")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of every side (default: all cores)")
    parser.add_argument("--folder", type=Path, default=Path("work/bench"), help="for prepared data, models and logs")
    parser.add_argument("--peers", type=Path, default=Path("work/peers"), help="where benchmarks/peers.py put the environments")
    parser.add_argument("--json", type=Path, help="write everything that was measured here")
    return parser
