"""A cache of folders keyed by what they were made from, so that the second start takes seconds.

In: a key and a function that fills a folder. Out: the path of a complete, verified folder.
An entry is written beside its place and renamed, with the size and CRC-32 of every file; whatever does not verify is
made again. The decision a reader would question: the SHA-256 of an input file is remembered under its path, size,
modification and change time, so that tens of gigabytes need not be read again to learn that they are the same.
"""

import fcntl
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from transduce.data.lines import open_bytes
from transduce.errors import StorageError

MANIFEST = "manifest.json"
DIGESTS = "digests.json"
BLOCK_BYTES = 1 << 20


def default_cache() -> Path:
    """`transduce` in the XDG cache home."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home else Path.home() / ".cache") / "transduce"


def key_of(tree: Mapping[str, object]) -> str:
    """A name for everything that decides an entry's content."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:32]


class Cache:
    """Entries and remembered file digests in one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def entry(self, name: str, fill: Callable[[Path], None]) -> Path:
        """The folder `name`, filled by `fill` unless a complete one is there. Other processes wait or find it ready."""
        place = self.root / name
        with self._storage(), self._locked(name):
            if not _verified(place):
                self._make(place, fill)
        return place

    def _make(self, place: Path, fill: Callable[[Path], None]) -> None:
        fresh = place.with_name(f".tmp-{place.name}")
        shutil.rmtree(fresh, ignore_errors=True)  # left by a process that was killed: the lock is ours, so it is nobody's
        shutil.rmtree(place, ignore_errors=True)
        fresh.mkdir(parents=True)
        try:
            fill(fresh)
            _write_manifest(fresh)
            fresh.rename(place)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def digest(self, path: Path) -> str:
        """SHA-256 of a file's bytes."""
        with open_bytes(path):
            pass  # says what is wrong with the file
        state = path.stat()
        stamp = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        name = str(path.resolve())
        known = self._digests().get(name)
        if known is not None and known[:-1] == stamp:
            return str(known[-1])
        digest = _sha256(path)
        with self._storage(), self._locked(DIGESTS):
            fresh = self.root / f".tmp-{DIGESTS}"
            fresh.write_text(json.dumps(self._digests() | {name: [*stamp, digest]}, indent=0), encoding="utf-8")
            fresh.replace(self.root / DIGESTS)
        return digest

    def _digests(self) -> dict[str, list[object]]:
        try:
            tree: dict[str, list[object]] = json.loads((self.root / DIGESTS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return tree

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        place = self.root / f"{name}.lock"
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _storage(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(f"the cache {self.root} cannot be written: {error} (data.cache_dir names another folder)") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as handle:
        while block := handle.read(BLOCK_BYTES):
            value = zlib.crc32(block, value)
    return value


def _write_manifest(directory: Path) -> None:
    files = {path.name: [path.stat().st_size, _crc32(path)] for path in sorted(directory.iterdir())}
    (directory / MANIFEST).write_text(json.dumps(files, indent=0), encoding="utf-8")


def _verified(directory: Path) -> bool:
    try:
        files = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        return bool(files) and all(
            (directory / name).stat().st_size == size and _crc32(directory / name) == crc for name, (size, crc) in files.items()
        )
    except (OSError, ValueError, AttributeError, TypeError):
        return False
