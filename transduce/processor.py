"""What the processor says that it can do. Nothing is assumed: where it says nothing, nothing is there.

In: what Linux lists. Out: names of instruction sets. Decisions made from them stand with what they decide.
"""

from functools import cache
from pathlib import Path

INT8 = ("amx_int8", "avx512_vnni", "avx_vnni")
"""Instructions that multiply 8-bit numbers and add up in 32 bits, the fastest first."""


@cache
def cpu_line(name: str, path: Path = Path("/proc/cpuinfo")) -> str:
    """What Linux says under this name of the first processor; empty elsewhere."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == name), "")


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The instruction sets that Linux lists; empty elsewhere."""
    return frozenset(cpu_line("flags", path).split())


def cpu_vendor() -> str:
    """Who made the processor (GenuineIntel, AuthenticAMD); empty where Linux does not say."""
    return cpu_line("vendor_id")


def int8_instructions() -> str | None:
    """The fastest of `INT8` that is there."""
    flags = cpu_flags()
    return next((name for name in INT8 if name in flags), None)
