"""glibc's allocator, told to keep what it has: large tensors otherwise come fresh from the system at every step.

In: nothing. Out: a line that says what was set. A training step allocates the same few hundred tensors again and again;
with the default settings each large one is mapped, page-faulted and unmapped (measured: 11 to 52 % of the speed of every
trainer on CPU). Set through mallopt at start, so that no environment and no second process is needed.
"""

import ctypes
import os

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h
_TOP_PAD_BYTES = 128 * 2**20


def tune_allocator() -> str:
    """Keep freed memory and take it in large pieces. Does nothing where the C library is not glibc."""
    if not _is_glibc():
        return "system default (not glibc)"
    preloaded = os.environ.get("LD_PRELOAD", "")
    if "tcmalloc" in preloaded or "jemalloc" in preloaded or "mimalloc" in preloaded:
        return f"preloaded ({preloaded})"
    library = ctypes.CDLL(None)
    done = [library.mallopt(_M_MMAP_MAX, 0), library.mallopt(_M_TRIM_THRESHOLD, -1), library.mallopt(_M_TOP_PAD, _TOP_PAD_BYTES)]
    return "glibc, tuned (no mmap, no trim, 128 MiB steps)" if all(done) else "glibc, default (mallopt refused)"


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):
        return False
