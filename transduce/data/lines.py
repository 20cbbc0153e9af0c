"""Lines of files: plain or `.gz`, and nothing but "\\n" (or "\\r\\n") ends one.

In: paths. Out: bytes or texts, one line at a time. The decision a reader would question: `str.splitlines` and text mode
also break at U+2028, U+0085, vertical tab and a lone carriage return, which shifts every later pair of an aligned corpus by
one, in silence; so files are read as bytes and decoded line by line.
"""

import gzip
import stat
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from transduce.data.fields import utf8_detail
from transduce.data.report import CorpusReport
from transduce.errors import DataError, StorageError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_lines(path: Path | None) -> Iterator[str]:
    """One text per line of a UTF-8 file, plain or `.gz`; None or "-" is standard input. As many texts as lines.

    Raises DataError with the line for bytes that are not UTF-8, and for a missing file.
    """
    if path is None or str(path) == "-":
        yield from _decoded(cast(BinaryIO, sys.stdin.buffer), Path("<stdin>"))
        return
    with open_bytes(path) as handle:
        yield from _decoded(handle, path)


def open_bytes(path: Path) -> BinaryIO:
    """A regular file for reading, decompressed if its name ends in .gz. DataError if there is none, StorageError if it cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError("not a regular file (data is read more than once, so a pipe or folder will not do)", path)
        return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")
    except FileNotFoundError:
        raise DataError("no such file", path) from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error


def _decoded(handle: BinaryIO, path: Path) -> Iterator[str]:
    for number, raw in enumerate(raw_lines(handle, path), 1):
        try:
            yield raw.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"invalid UTF-8: {utf8_detail(raw, error)}", path, number) from None


def raw_lines(handle: BinaryIO, path: Path, entry: CorpusReport | None = None) -> Iterator[bytes]:
    """Lines without their end. A byte order mark at the start of the file is taken off and noted."""
    try:
        for number, raw in enumerate(handle):
            body = raw if number else _without_mark(raw, path, entry)
            yield body[:-2] if body.endswith(b"\r\n") else body.removesuffix(b"\n")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"damaged gzip file: {error}", path) from None
    except OSError as error:
        raise StorageError(f"{path}: cannot be read: {error.strerror or error}") from error


def _without_mark(raw: bytes, path: Path, entry: CorpusReport | None) -> bytes:
    if raw.startswith(BYTE_ORDER_MARK) and entry is not None:
        entry.note("byte order mark removed", f"{path}:1")
    return raw.removeprefix(BYTE_ORDER_MARK)
