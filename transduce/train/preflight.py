"""The whole run in small, before the first step: what would fail after an hour fails in the first seconds.

In: the trainer, the loader, the validator. Out: how much memory the largest batch takes. One forward and backward pass on
the largest batch of the plan (gradients are dropped), one search, and every metric once. Nothing of the run changes.
"""

from dataclasses import dataclass

import numpy as np

from transduce.data.batch import Batch
from transduce.data.loader import Loader
from transduce.train.meter import available_memory_mib, memory_mib, peak_memory_mib
from transduce.train.trainer import Trainer
from transduce.train.validation import Validator

OPTIMIZER_FLOATS = 2  # Adam's two moments, fp32 each


@dataclass(frozen=True)
class MemoryNeed:
    """Estimate in MiB; `available` is what the system could give at the start."""

    expected: float
    available: float | None

    def __str__(self) -> str:
        limit = "" if self.available is None else f" of {self.available:,.0f} MiB that are free"
        return f"about {self.expected:,.0f} MiB{limit}"

    @property
    def warning(self) -> str | None:
        """When it is likely not to fit."""
        if self.available is None or self.expected < 0.95 * self.available:
            return None
        return f"warning: this run needs {self} and may be stopped: lower data.max_tokens_per_batch and raise train.accumulate"


def preflight(trainer: Trainer, loader: Loader, validator: Validator) -> MemoryNeed:
    """Raises whatever the run would raise later: ConfigError, DataError, DivergedError, out of memory."""
    device = trainer.precision.device
    before, available = memory_mib(device), available_memory_mib(device)
    batch = largest_batch(loader, trainer.state.epoch)
    trainer.gradients([batch], between=_go_on)
    trainer.optimizer.zero_grad(set_to_none=True)
    validator.judge.outputs(trainer.evaluated, validator.data.valid_records[:2])
    weights = sum(parameter.numel() for parameter in trainer.parameters) * OPTIMIZER_FLOATS * 4 / 2**20
    peak = peak_memory_mib(device) if device.type == "cuda" else max(peak_memory_mib(device), memory_mib(device))
    helpers = trainer.helpers.count * (peak - before)  # what was there before is common to all processes
    return MemoryNeed(peak + helpers + weights, None if available is None else available + before)


def largest_batch(loader: Loader, epoch: int) -> Batch:
    """The batch with the most positions (source and target, padding included) of an epoch; the widest among equals."""
    plan = loader.plan(epoch)
    widths = loader.source_widths, loader.target_widths
    source, target = (np.maximum.reduceat(end[plan.rows], plan.bounds[:-1]).astype(np.int64) for end in widths)
    cells = np.diff(plan.bounds) * (source + target)
    number = int(np.lexsort((np.maximum(source, target), cells))[-1])
    return loader.gather(plan.rows[plan.bounds[number] : plan.bounds[number + 1]])


def _go_on() -> None:
    """Nothing interrupts the small run but the signal guard around it."""
