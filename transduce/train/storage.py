"""Folders that are either complete or not there: written beside their place, flushed to disk, described, renamed.

In: a function that writes files into an empty folder. Out: that folder under its final name, with `manifest.json` (sizes,
SHA-256, format version) as the last file written. A power cut leaves the old folder or the new one, and a `.tmp-` folder at worst.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from transduce.errors import CheckpointError, StorageError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
TEMPORARY = ".tmp-"
ASIDE = ".tmp-old-"
_WAY_OUT = "What was saved before is intact: make room or make the folder writable, and continue with `transduce resume`"


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the system says about a write into a StorageError that names the place and the way out."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StorageError(f"cannot write {path}: {reason}. {_WAY_OUT}") from error


def write_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Make the folder `target` out of what `fill` writes; an older one of that name is replaced. Raises StorageError."""
    temporary = target.parent / f"{TEMPORARY}{target.name}"
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            temporary.mkdir()
            fill(temporary)
            _write_manifest(temporary)
            _swap(temporary, target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        flush(target.parent)


def write_line(path: Path, line: str) -> None:
    """A one-line file, replaced by rename. Raises StorageError."""
    temporary = path.parent / f"{TEMPORARY}{path.name}"
    with storage_errors(path):
        temporary.write_text(line + "\n", encoding="utf-8")
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)


def write_json(path: Path, value: object) -> None:
    """Indented JSON; infinities and NaN are refused, because JSON has none."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """A safetensors file of tensors that do not share memory."""
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises CheckpointError."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error


def verify_folder(folder: Path, *, leave_out: frozenset[str] = frozenset()) -> None:
    """Raises CheckpointError when a file of the manifest is missing or changed, or the format is of another version."""
    manifest = _read_manifest(folder)
    for name, facts in manifest["files"].items():
        file = folder / name
        if name in leave_out:
            continue
        if not file.is_file():
            raise CheckpointError(f"{folder} is damaged: {name} is missing")
        if file.stat().st_size != facts["bytes"]:
            raise CheckpointError(f"{folder} is damaged: {name} has {file.stat().st_size} bytes instead of {facts['bytes']}")
        if _digest(file) != facts["sha256"]:
            raise CheckpointError(f"{folder} is damaged: the content of {name} does not match its SHA-256 in {MANIFEST}")


def remove_temporary(folder: Path) -> list[str]:
    """Delete what an interrupted save left in `folder`, and put back what had only stepped aside; the names, for people."""
    for aside in folder.glob(f"{ASIDE}*"):
        place = folder / aside.name.removeprefix(ASIDE)
        if not place.exists():
            aside.rename(place)
    left = sorted(folder.glob(f"{TEMPORARY}*"))
    for path in left:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return [path.name for path in left]


def flush(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _swap(temporary: Path, target: Path) -> None:
    """Rename over `target`. A folder cannot replace a full one, so the old one steps aside first."""
    if target.is_symlink() or not target.exists():
        temporary.rename(target)
        return
    aside = target.parent / f"{ASIDE}{target.name}"
    shutil.rmtree(aside, ignore_errors=True)
    target.rename(aside)
    temporary.rename(target)
    shutil.rmtree(aside, ignore_errors=True)


def _write_manifest(folder: Path) -> None:
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        flush(path)
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": _digest(path)}
    for path in folder.rglob("*"):
        if path.is_dir():
            flush(path)
    write_json(folder / MANIFEST, {"format_version": FORMAT_VERSION, "files": files})
    flush(folder / MANIFEST)
    flush(folder)


def _read_manifest(folder: Path) -> dict[str, dict[str, dict[str, object]]]:
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version, files = manifest["format_version"], manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} is not a complete model directory: {MANIFEST} is missing or unreadable ({error})") from error
    if version != FORMAT_VERSION:
        raise CheckpointError(f"{folder} has format version {version}; this transduce reads {FORMAT_VERSION}")
    return {"files": files}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
