"""What the machine can do: the type of matrix products, the device, the threads. Chosen once at start, and printed.

In: settings and what the processor says of itself. Out: a `Precision` and numbers. bf16 products are used only where
the processor has instructions for them: without, they were measured at a tenth of the speed of fp32.
"""

import os
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from transduce.errors import ConfigError
from transduce.model.blocked import has_blocks
from transduce.processor import cpu_flags, int8_instructions

Products = Literal["fp32", "int8", "bf16"]
"""Number format of the products of a prediction."""
ProductKind = Literal["auto", "fp32", "int8", "bf16"]
"""The same, or whatever is fast here."""
LARGE_MODEL = 1_000_000
"""Weights from which `auto` rounds them for prediction; a smaller model fits the caches and answers fast as it is."""


@dataclass(frozen=True)
class Precision:
    """The type of matrix products on a device, and why."""

    device: torch.device
    dtype: torch.dtype | None  # None = fp32, no autocast
    reason: str

    def __str__(self) -> str:
        return f"{'fp32' if self.dtype is None else 'bf16'} ({self.reason})"

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Raises ConfigError when a GPU is asked for and torch sees none."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device = cuda: torch sees no GPU here; use cpu or auto")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def choose_precision(wanted: Literal["auto", "bf16", "fp32"], device: torch.device) -> Precision:
    """auto = bf16 where there are instructions for it."""
    if wanted == "fp32":
        return Precision(device, None, "asked for")
    has, reason = _cuda_bf16() if device.type == "cuda" else _cpu_bf16(cpu_flags())
    if has:
        return Precision(device, torch.bfloat16, reason)
    return Precision(device, torch.bfloat16, f"asked for, slow: {reason}") if wanted == "bf16" else Precision(device, None, reason)


def _cpu_bf16(flags: frozenset[str]) -> tuple[bool, str]:
    found = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags]
    return (True, ", ".join(found)) if found else (False, "the processor has no avx512_bf16 or amx_bf16")


def choose_products(wanted: ProductKind, *, device: torch.device, num_weights: int) -> tuple[Products, str]:
    """What predictions are computed in, and why. auto = for large models on a processor that is fast at it, bf16 where it multiplies
    tiles of such numbers (AMX), else int8.

    Raises ConfigError for bf16 and int8 on a GPU.
    """
    if wanted == "fp32":
        return "fp32", "asked for"
    if device.type != "cpu":
        if wanted != "auto":
            raise ConfigError(f"precision = {wanted}: the model is on a GPU, and {wanted} products are for processors; use fp32 or auto")
        return "fp32", "on a GPU"
    tiles, int8, bf16 = "amx_bf16" in cpu_flags(), _cpu_int8(), _cpu_bf16(cpu_flags())
    if wanted == "bf16":
        return "bf16", bf16[1] if bf16[0] else f"asked for, slow: {bf16[1]}"
    if wanted == "int8":
        return "int8", int8 or "asked for, slow: the processor has no VNNI instructions"
    if num_weights < LARGE_MODEL:
        return "fp32", "a small model"
    if tiles:
        return "bf16", bf16[1]
    return ("int8", int8) if int8 is not None else ("fp32", "the processor has no VNNI instructions")


def _cpu_int8() -> str | None:
    """Why products of rounded numbers are faster than exact ones here; None where they are not."""
    return int8_instructions() or ("16-bit products, avx2" if has_blocks(torch.int16) else None)


def _cuda_bf16() -> tuple[bool, str]:
    return torch.cuda.is_bf16_supported(including_emulation=False), torch.cuda.get_device_name()


def set_threads(wanted: int | None) -> int:
    """Threads of one tensor operation: as asked, else OMP_NUM_THREADS, else the physical cores this process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    count = wanted or (int(given) if given.isdigit() and int(given) > 0 else physical_cores())
    torch.set_num_threads(count)
    if torch.get_num_interop_threads() != 1:
        with suppress(RuntimeError):  # only allowed before the first parallel work; a Python caller may have done some
            torch.set_num_interop_threads(1)
    return count


def physical_cores() -> int:
    """Cores (not hyper-threads) in this process's affinity mask, not more than its control group may use."""
    try:
        usable = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return max(1, os.cpu_count() or 1)
    cores = set()
    for cpu in usable:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text(encoding="ascii").strip() if siblings.exists() else str(cpu))
    return max(1, min(len(cores), _group_limit()))


def _group_limit(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    try:
        quota, period = path.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return 1 << 16
    return 1 << 16 if quota == "max" else max(1, round(int(quota) / int(period)))
