"""what a run says about itself: one frozen record per logged step, and the receiver that a loop talks to.

In: plain numbers from train/loop.py. Out: the same numbers, to train/progress.py (terminal, log.jsonl, results.csv, pictures).
Records instead of keyword lists, so that the loop and every writer agree on names and units in one place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class StepReport:
    """The state of a run after an optimiser step, averaged over the steps since the last report."""

    step: int  # optimiser steps done since the start of the run (counted over resumes)
    epoch: int  # epoch of the last batch, from 0
    loss: float  # training loss per target token as optimised (smoothing included), nats
    tokens_per_second: float  # target tokens a second, padding not counted
    padding_share: float  # padded share of source and target positions, 0 to 1
    learning_rate: float
    gradient_norm: float  # before clipping
    memory_mib: float  # resident memory of the process, MiB (on a GPU: allocated there)
    eta_seconds: float | None  # until the first limit is reached at this pace; None when no limit can be foreseen
    data_wait_share: float  # share of the wall time spent waiting for batches, 0 to 1
    unaligned_pairs: int = 0  # pairs since the last report that are too short for CTC, left out of that part of the loss


class ProgressSink(Protocol):
    """What the loop calls. `Progress` in train/progress.py is the real one; `SilentProgress` below says nothing."""

    def start(self, info: Mapping[str, object]) -> None:
        """Once, before the first step: what was chosen (precision, threads, allocator, sizes, limits) by name."""
        ...

    def step(self, report: StepReport) -> None:
        """Every `train.log_every_steps` steps."""
        ...

    def validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """After each validation: `loss`, `accuracy`, of text `perplexity`, and the chosen metrics by name."""
        ...

    def message(self, text: str) -> None:
        """One line for people: warnings, what resume skipped, why the run ends."""
        ...

    def sample(self, step: int, texts: Sequence[tuple[str, str, str]]) -> None:
        """Fixed validation sentences: (source, reference, prediction)."""
        ...

    def finish(self, summary: Mapping[str, object]) -> None:
        """Once, at the end, also after an interruption."""
        ...


class SilentProgress:
    """Says nothing: for runs started from Python and for tests."""

    def start(self, info: Mapping[str, object]) -> None:
        """Ignored."""

    def step(self, report: StepReport) -> None:
        """Ignored."""

    def validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Ignored."""

    def message(self, text: str) -> None:
        """Ignored."""

    def sample(self, step: int, texts: Sequence[tuple[str, str, str]]) -> None:
        """Ignored."""

    def finish(self, summary: Mapping[str, object]) -> None:
        """Ignored."""
