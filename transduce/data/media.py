"""Media files by name: in a folder, or as members of a .tar archive that is never unpacked.

In: names in a manifest. Out: `Media` references, the rows that hold them, and the bytes behind them. The decision a reader would
question: members are read at their offsets with `pread`, from an index that is made once for each archive, so that many threads
can read one archive at any place without a lock. Names that lead out of an archive, and members that are links, are refused.
"""

import io
import json
import os
import tarfile
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from transduce.data.values import BadValueError, Media, Row
from transduce.errors import DataError

LARGEST_BYTES = 1 << 30
MOST_ARCHIVES = 64
WINDOW_BYTES = 1 << 16


def media_from_fields(name: str, root: Path, *, start: float | None = None, end: float | None = None) -> Media:
    """What a manifest names. root: a folder or a .tar archive. Raises BadValueError for a name that leads out of it."""
    if root.suffix == ".tar":
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise BadValueError("name leads out of its archive", name)
        return Media(root.absolute(), name, start, end)
    return Media((root / name).absolute(), None, start, end)  # an absolute name stands for itself


def media_row(media: Media, width: int) -> Row:
    """What a codec of media stores: the reference itself, as bytes. width: positions that lengths and budgets count."""
    tree = [str(media.path), media.member, media.start, media.end]
    return Row(np.frombuffer(json.dumps(tree).encode(), dtype=np.uint8), width)


def media_of(row: NDArray[np.uint8]) -> Media:
    """The reference in a stored row."""
    path, member, start, end = json.loads(row.tobytes())
    return Media(Path(path), member, start, end)


def root_stamp(root: Path) -> list[object]:
    """Where the media files are and when that last changed (a folder: when a file came or went). Raises DataError where there is none."""
    try:
        state = root.stat()
    except OSError as error:
        raise DataError(f"the folder or archive of the media files cannot be read: {error.strerror}", root) from None
    return [str(root.absolute()), state.st_size if root.is_file() else 0, state.st_mtime_ns]


def read_media(media: Media, *, first: int | None = None, largest: int = LARGEST_BYTES) -> bytes:
    """The whole file or member, or its `first` bytes. Raises BadValueError: missing, empty, larger than `largest`, truncated, no file."""
    try:
        if media.member is None:
            if not media.path.is_file():
                raise BadValueError("no such file", str(media.path))
            offset, size = 0, media.path.stat().st_size
        else:
            offset, size = member_place(media)
        if size > largest:
            raise BadValueError("file is too large", f"{media.place()} has {size} bytes; {largest} are allowed")
        return _read(media.path, media, offset=offset, size=size if first is None else min(size, first))
    except OSError as error:
        raise BadValueError("file cannot be read", f"{media.place()}: {error.strerror or error}") from None


def open_media(media: Media) -> BinaryIO:
    """The file or member, to be read in parts and at any place. Raises BadValueError: missing, not a regular file."""
    try:
        if media.member is None:
            if not media.path.is_file():
                raise BadValueError("no such file", str(media.path))
            return media.path.open("rb")
        offset, size = member_place(media)
        return io.BufferedReader(_Window(media.path, offset, size), WINDOW_BYTES)
    except OSError as error:
        raise BadValueError("file cannot be read", f"{media.place()}: {error.strerror or error}") from None


class _Window(io.RawIOBase):
    """`size` bytes of a file from `offset` on, as if they were a file."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        super().__init__()
        self._handle = os.open(path, os.O_RDONLY)
        self._offset, self._size, self._place = offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        self._place = place + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        return self._place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = os.pread(self._handle, max(min(len(buffer), self._size - self._place), 0), self._offset + self._place)
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)

    def close(self) -> None:
        if not self.closed:
            os.close(self._handle)
        super().close()


def member_place(media: Media) -> tuple[int, int]:
    """Offset and size of a member. Raises BadValueError where the archive has no such regular file."""
    state = media.path.stat()
    places = _index(media.path, state.st_mtime_ns, state.st_size)
    name = str(PurePosixPath(media.member or ""))
    if name not in places:
        raise BadValueError("no such member in the archive", media.place())
    return places[name]


@lru_cache(maxsize=MOST_ARCHIVES)
def _index(path: Path, _modified: int, _size: int) -> dict[str, tuple[int, int]]:
    """Where each regular file of an archive stands; read anew when the archive changes."""
    try:
        with tarfile.open(path, "r:") as archive:
            return {str(PurePosixPath(member.name)): (member.offset_data, member.size) for member in archive if member.isreg()}
    except (tarfile.TarError, EOFError) as error:
        raise BadValueError("not an uncompressed tar archive, or a damaged one", f"{path}: {error}") from None


def _read(path: Path, media: Media, *, offset: int, size: int) -> bytes:
    if size == 0:
        raise BadValueError("file is empty", media.place())
    handle = os.open(path, os.O_RDONLY)
    try:
        content = os.pread(handle, size, offset)
    finally:
        os.close(handle)
    if len(content) != size:
        raise BadValueError("file is cut off", f"{media.place()}: {len(content)} of {size} bytes")
    return content
