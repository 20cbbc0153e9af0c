"""What every search runner is told, and how it tells what it measured.

In: the words of its command line. Out: JSON lines. A plan is {beam width: [setting, ...]}; what a setting says (batch size, threads) is
each engine's own business. The decision to question: a first pass is not timed, because every engine prepares its kernels for new
shapes then, and touches its memory for the first time (a fifth of ours, which takes hundreds of sentences at once).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

WARMING_SINGLE = 10
LONGEST = 80
"""Tokens after which every engine gives a sentence up."""

Translate = Callable[[Sequence[int]], int]
"""Numbers of sentences in, all at once -> tokens that came out, ends included."""
Make = Callable[[int, str], Translate]
"""Beam width and setting in."""


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """The words that all runners share."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--plan", type=json.loads, required=True, help="{beam width: [setting, ...]}")
    parser.add_argument("--passes", type=int, default=1, help="timed passes over the test sentences")
    parser.add_argument("--single", type=int, default=0, help="measure this many sentences one at a time instead")
    parser.add_argument("--force", type=int, help="exactly this many tokens for each sentence")
    parser.add_argument("--limit", type=int, help="only so many of the test sentences")
    return parser


def run_plan(words: argparse.Namespace, make: Make, *, count: int) -> None:
    """Everything in the plan over `count` sentences, one JSON line for each measurement."""
    for beam, settings in words.plan.items():
        for setting in settings:
            measure(make(int(beam), setting), words, count=count, beam=int(beam), setting=setting)


def measure(translate: Translate, words: argparse.Namespace, *, count: int, beam: int, setting: str) -> None:
    """Time passes over `count` sentences, or single sentences, and print the figures."""
    known = {"beam": beam, "setting": setting}
    if words.single:
        times = one_by_one(translate, min(words.single, count))
        print(json.dumps({**known, "median_ms": statistics.median(times), "p95_ms": sorted(times)[int(0.95 * len(times))]}), flush=True)
        return
    translate(range(count))
    for _ in range(words.passes):
        begin = time.perf_counter()
        tokens = translate(range(count))
        seconds = time.perf_counter() - begin
        rates = {"sentences_per_second": count / seconds, "tokens_per_second": tokens / seconds, "tokens": tokens}
        print(json.dumps({**known, **rates}), flush=True)


def one_by_one(translate: Translate, count: int) -> list[float]:
    """Milliseconds of each sentence by itself."""
    times = []
    for number in [*range(min(WARMING_SINGLE, count)), *range(count)]:
        begin = time.perf_counter()
        translate([number])
        times.append(1000 * (time.perf_counter() - begin))
    return times[-count:]
