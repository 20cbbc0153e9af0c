"""glibc's allocator, told to keep what it has: large tensors otherwise come fresh from the system at every step.

In: nothing. Out: a line that says what was set, and a `Heap` that gives back what has frayed. A training step allocates the same few
hundred tensors again and again; with the default settings each large one is mapped, page-faulted and unmapped (measured: 11 to 52 % of the
speed of every trainer on CPU). Set through mallopt at start, so that no environment and no second process is needed.
"""

import ctypes
import os
from pathlib import Path

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h
_MADV_HUGEPAGE = 14  # mman.h
_WIDE_PAGE = 2 * 2**20
_TOP_PAD_BYTES = 128 * 2**20
_GROWTH_BYTES = 256 * 2**20
_STATM = Path("/proc/self/statm")


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


def widen_pages() -> None:
    """For a process that lives a second: what its tuned heap grows by next lies in pages of 2 MiB, where the system has them on request. In
    pages of 4 KiB a copy of a process spent a tenth of a search on having them mapped, one after the other (measured)."""
    if not _is_glibc():
        return
    library = ctypes.CDLL(None)
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.restype, library.free.argtypes = None, [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    place = library.malloc(_GROWTH_BYTES)
    if place is not None:
        first = -(-place // _WIDE_PAGE) * _WIDE_PAGE
        library.madvise(first, _GROWTH_BYTES - 2 * _WIDE_PAGE, _MADV_HUGEPAGE)
        library.free(place)


class Heap:
    """Keeps the memory of a long run near what it needs.

    Batches of ever other shapes leave gaps that the next ones do not fit in, so a heap that never shrinks grows to a multiple of what is
    alive. When it has grown by a quarter of a gibibyte since the step after the last time, its free pages go back to the system, wherever
    they lie. Since that step, because it takes back what every step needs: compared with what was left right after trimming, the heap had
    always grown, and every step of a training had its pages mapped anew (an eighth of its time).
    """

    def __init__(self) -> None:
        self._trim = ctypes.CDLL(None).malloc_trim if _is_glibc() and _STATM.exists() else None
        self._floor: int | None = None

    def check(self) -> bool:
        """Called between steps; costs some microseconds. -> whether memory was given back."""
        if self._trim is None:
            return False
        resident = _private_bytes()
        if self._floor is None or resident < self._floor:
            self._floor = resident
        if resident < self._floor + _GROWTH_BYTES:
            return False
        self._trim(0)
        self._floor = None
        return True


def _private_bytes() -> int:
    """Resident memory that is no file's."""
    _, resident, shared, *_ = map(int, _STATM.read_text(encoding="ascii").split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def _is_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):
        return False
