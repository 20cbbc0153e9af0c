"""Sums between two progress reports, and what the process needs.

In: batches and times. Out: a `StepReport`. Rates count training steps only: validation and saving have their own lines.
"""

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from transduce.data.batch import Batch

MEBIBYTE = 2**20


@dataclass
class Meter:
    """Everything summed since the last report."""

    steps: int = 0
    loss: float = 0.0
    tokens: int = 0
    real: int = 0  # source and target tokens
    cells: int = 0  # source and target positions, padding included
    norm: float = 0.0  # largest gradient norm
    seconds: float = 0.0
    waited: float = 0.0  # of these, for data
    unaligned: int = 0  # pairs without a CTC path

    def add(self, batches: list[Batch], *, loss: float, norm: float, seconds: float, waited: float) -> None:
        """Count one optimiser step; `loss` is the sum over its tokens."""
        self.steps += 1
        self.loss += loss
        self.norm = max(self.norm, norm)
        self.seconds += seconds
        self.waited += waited
        for batch in batches:
            target = int(batch.target.lengths.sum())
            self.tokens += target
            self.real += target + int(batch.source.lengths.sum())
            self.cells += sum(len(end.lengths) * int(end.lengths.max()) for end in (batch.source, batch.target))

    @property
    def seconds_per_step(self) -> float:
        """Mean; 0 before the first step."""
        return self.seconds / max(self.steps, 1)


def memory_mib(device: torch.device) -> float:
    """Resident memory of this process, or what torch holds on the GPU, in MiB."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device) / MEBIBYTE
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return peak_memory_mib(device)
    return pages * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE


def peak_memory_mib(device: torch.device) -> float:
    """The largest `memory_mib` so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEBIBYTE
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MEBIBYTE if sys.platform == "darwin" else peak / 1024


def available_memory_mib(device: torch.device) -> float | None:
    """What could still be taken, in MiB; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / MEBIBYTE
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable")), None)
