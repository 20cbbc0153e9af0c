"""Media files by name: in a folder, or as members of a .tar archive that is never unpacked.

In: names in a manifest. Out: `Media` references and the bytes behind them. The decision a reader would question: members are read
at their offsets with `pread`, from an index that is made once for each archive, so that many threads can read one archive
at any place without a lock. Names that lead out of the folder, and members that are links, are refused.
"""

import os
import tarfile
from functools import lru_cache
from pathlib import Path, PurePosixPath

from transduce.data.values import BadValueError, Media

LARGEST_BYTES = 1 << 30
MOST_ARCHIVES = 64


def media_from_fields(name: str, root: Path, start: float | None = None, end: float | None = None) -> Media:
    """What a manifest names. root: a folder or a .tar archive. Raises BadValueError for a name that leads out of it."""
    parts = PurePosixPath(name).parts
    if root.suffix == ".tar":
        if ".." in parts or name.startswith("/"):
            raise BadValueError("name leads out of its archive", name)
        return Media(root, name, start, end)
    return Media(Path(name) if Path(name).is_absolute() else root / name, None, start, end)


def read_media(media: Media) -> bytes:
    """The whole file or member. Raises BadValueError: missing, empty, too large, truncated, not a regular file."""
    try:
        if media.member is None:
            if not media.path.is_file():
                raise BadValueError("no such file", str(media.path))
            return _read(media.path, 0, media.path.stat().st_size, media)
        offset, size = member_place(media)
        return _read(media.path, offset, size, media)
    except OSError as error:
        raise BadValueError("file cannot be read", f"{media.place()}: {error.strerror or error}") from None


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


def _read(path: Path, offset: int, size: int, media: Media) -> bytes:
    if size == 0:
        raise BadValueError("file is empty", media.place())
    if size > LARGEST_BYTES:
        raise BadValueError("file is too large", f"{media.place()} has {size} bytes; {LARGEST_BYTES} are allowed")
    handle = os.open(path, os.O_RDONLY)
    try:
        content = os.pread(handle, size, offset)
    finally:
        os.close(handle)
    if len(content) != size:
        raise BadValueError("file is cut off", f"{media.place()}: {len(content)} of {size} bytes")
    return content
