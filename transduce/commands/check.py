"""`transduce check`: what this machine offers and what is missing, in lines for people.

In: nothing. Out: lines on standard output. It never fails: a missing extra is a line with the command that installs it.
"""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from transduce import __version__
from transduce.processor import cpu_flags, cpu_line

CORE = ("torch", "numpy", "safetensors", "pydantic", "ruamel.yaml", "typer", "rich", "sentencepiece", "sacrebleu")
EXTRAS = {
    "metrics": (("jiwer", "jiwer"), ("rouge-score", "rouge_score")),
    "plot": (("matplotlib", "matplotlib"),),
    "track": (("tensorboardX", "tensorboardX"),),
    "audio": (("av", "av"), ("soundfile", "soundfile"), ("soxr", "soxr")),
    "export": (("ctranslate2", "ctranslate2"),),
    "fast": (("numba", "numba"),),
    "demo": (("Babel", "babel"),),
}
# What decides how fast matrix products run: fused multiply-add, then half precision in hardware.
FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm")
GIBIBYTE = 2**30


def print_check() -> None:
    """Print versions, processor, precision, threads, memory, disk and missing extras."""
    for line in check_lines():
        print(line)


def check_lines() -> Iterator[str]:
    """The findings, one per line."""
    yield f"transduce {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield "packages:  " + ", ".join(f"{name} {_version(name)}" for name in CORE)
    yield from _machine_lines()
    yield from _extra_lines()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "MISSING (pip install transduce)"


def _machine_lines() -> Iterator[str]:
    import torch

    from transduce.train.precision import choose_device, choose_precision, physical_cores

    flags = cpu_flags()
    yield f"processor: {processor_name()}; {' '.join(flag for flag in FLAGS if flag in flags) or 'no vector flags known'}"
    device = choose_device("auto")
    yield f"precision: {choose_precision('auto', device)} on {device}"
    yield f"threads:   {physical_cores()} cores for this process (OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')})"
    if torch.cuda.is_available():
        yield f"gpu:       {torch.cuda.get_device_name(0)}"
    total, free = memory_bytes()
    if total:
        yield f"memory:    {free / GIBIBYTE:.1f} of {total / GIBIBYTE:.1f} GiB free"
    for label, folder in (("here", Path.cwd()), ("cache", _cache_folder())):
        usage = shutil.disk_usage(_existing(folder))
        yield f"disk:      {usage.free / GIBIBYTE:.1f} GiB free {label} ({folder})"


def processor_name() -> str:
    """As the system calls it."""
    return cpu_line("model name") or platform.processor() or "unknown"


def memory_bytes() -> tuple[int, int]:
    """Total and available memory; zeros where the system does not tell."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return 0, 0
    found = {name: int(size) * 1024 for name, size in re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", text, re.MULTILINE)}
    return found.get("MemTotal", 0), found.get("MemAvailable", 0)


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "transduce"


def _existing(folder: Path) -> Path:
    """The folder or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def _extra_lines() -> Iterator[str]:
    for extra, packages in EXTRAS.items():
        missing = [package for package, module in packages if importlib.util.find_spec(module) is None]
        if missing:
            yield f"extra:     {extra} is missing {', '.join(missing)}: pip install 'transduce[{extra}]'"
        else:
            yield f"extra:     {extra} is here ({', '.join(f'{package} {_version(package)}' for package, _ in packages)})"
