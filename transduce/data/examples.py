"""Readers of pairs: two aligned text files, one TSV file or one JSONL file, each plain or `.gz`.

In: paths. Out: `Record`s with the place they came from, one at a time, never a whole file.
The decision a reader would question: a line ends at "\\n" (or "\\r\\n") and nowhere else. `str.splitlines` and text mode
also break at U+2028, U+0085, vertical tab and a lone carriage return, which shifts every later pair of an aligned
corpus by one, in silence; so files are read as bytes and decoded line by line.
"""

import gzip
import json
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, Self, cast

from pydantic import Field, model_validator

from transduce.data.report import CorpusReport, DataReport
from transduce.errors import ConfigError, DataError, StorageError
from transduce.settings import Settings

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
ENDINGS = {".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl"}

Errors = Literal["strict", "tolerant"]


class CorpusConfig(Settings):
    """One corpus: two aligned files (`source`, `target`), or one TSV or JSONL file (`path`)."""

    source: int | str | Path | None = None
    """Without `path`: the file of sources, one a line. With `path`: column number (from 0), column name or JSON field."""
    target: int | str | Path | None = None
    """Without `path`: the file of targets, one a line. With `path`: column number (from 0), column name or JSON field."""
    path: Path | None = None
    """One TSV or JSONL file that holds both ends (default columns 0 and 1, default fields "source" and "target")."""
    format: Literal["auto", "lines", "tsv", "jsonl"] = "auto"
    """`auto` goes by the file ending (.tsv, .tab, .jsonl, .ndjson, each also with .gz)."""
    weight: float | None = Field(default=None, gt=0)
    """Share of this corpus relative to the others' weights. All corpora have one, or none has."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.path is None and self.format in ("tsv", "jsonl"):
            raise ConfigError(f"a corpus of format {self.format} needs `path`, the one file that holds both ends")
        if self.path is None and (self.source is None or self.target is None):
            raise ConfigError("a corpus needs `source` and `target` (two aligned files), or `path` (one TSV or JSONL file)")
        if self.path is not None and self.format == "lines":
            raise ConfigError("a corpus of format lines needs `source` and `target`, two aligned files, not `path`")
        if self.path is not None and self.resolved_format == "lines":
            raise ConfigError(f"cannot tell the format of {self.path} from its ending ({', '.join(ENDINGS)}); set `format` to tsv or jsonl")
        return self

    @property
    def resolved_format(self) -> str:
        """lines, tsv or jsonl."""
        if self.path is None or self.format != "auto":
            return "lines" if self.format == "auto" else self.format
        name = self.path.name.removesuffix(".gz")
        return ENDINGS.get(Path(name).suffix, "lines")

    @property
    def files(self) -> tuple[Path, ...]:
        """The files to read, source first."""
        return (Path(str(self.source)), Path(str(self.target))) if self.path is None else (self.path,)

    @property
    def name(self) -> str:
        """How reports call this corpus."""
        return " + ".join(str(path) for path in self.files)


class Record(NamedTuple):
    """One pair and where it stands."""

    source: str
    target: str
    place: str
    """file:line; of an aligned pair the source file."""


class BadRecordError(Exception):
    """A record that is not what its format says. `reason` is counted, `detail` is shown."""

    def __init__(self, reason: str, detail: str, path: Path) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.path = reason, detail, path


Raws = tuple[bytes | None, ...]
Row = tuple[int, Raws]
Parser = Callable[[Raws], tuple[str, str]]


def read_pairs(corpus: CorpusConfig, *, errors: Errors, report: DataReport, keep_empty: bool = False) -> Iterator[Record]:
    """The pairs of a corpus, in file order.

    Strict: the first bad record raises DataError with file and line. Tolerant: it is counted in `report` and left out.
    An end that is empty or blank is a bad record too, unless `keep_empty` (validation), where it is noted.
    """
    entry = report.start(corpus.name)
    with ExitStack() as stack:
        rows, parse = _open_corpus(corpus, entry, stack)
        to_record = _record_maker(corpus, parse, errors=errors, entry=entry, keep_empty=keep_empty)
        for number, raws in rows:
            record = to_record(number, raws)
            if record is not None:
                yield record


def _record_maker(
    corpus: CorpusConfig, parse: Parser, *, errors: Errors, entry: CorpusReport, keep_empty: bool
) -> Callable[[int, Raws], Record | None]:
    """A function from a numbered raw record to a `Record`, or None for one that is left out and counted."""
    first = corpus.files[0]

    def to_record(number: int, raws: Raws) -> Record | None:
        entry.read += 1
        try:
            source, target = parse(raws)
            _check_empty(source, target, paths=corpus.files, keep=keep_empty)
        except BadRecordError as bad:
            if errors == "strict":
                message = f"{bad.reason}: {bad.detail} (data.errors: tolerant leaves such pairs out and counts them)"
                raise DataError(message, bad.path, number) from None
            entry.skip(bad.reason, f"{bad.path}:{number}")
            return None
        if keep_empty and not (source.strip() and target.strip()):
            entry.note("pairs with an empty end, kept", f"{first}:{number}")
        return Record(source, target, f"{first}:{number}")

    return to_record


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
    for number, raw in enumerate(_raw_lines(handle, path), 1):
        try:
            yield raw.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"invalid UTF-8: {_utf8_detail(raw, error)}", path, number) from None


def _raw_lines(handle: BinaryIO, path: Path, entry: CorpusReport | None = None) -> Iterator[bytes]:
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


def _open_corpus(corpus: CorpusConfig, entry: CorpusReport, stack: ExitStack) -> tuple[Iterator[Row], Parser]:
    """Numbered raw records and what makes texts of them; `stack` closes the files."""
    files = [_raw_lines(stack.enter_context(open_bytes(path)), path, entry) for path in corpus.files]
    if corpus.path is None:
        source, target = corpus.files
        return enumerate(zip_longest(*files), 1), _aligned_parser(source, target)
    lines = enumerate(files[0], 1)
    if corpus.resolved_format == "jsonl":
        source_field = "source" if corpus.source is None else str(corpus.source)
        target_field = "target" if corpus.target is None else str(corpus.target)
        parse = _json_parser(corpus.path, source_field, target_field)
    else:
        parse = _column_parser(corpus, lines)
    return ((number, (raw,)) for number, raw in lines), parse


def _aligned_parser(source: Path, target: Path) -> Parser:
    def parse(raws: Raws) -> tuple[str, str]:
        first, second = raws
        if first is None:
            raise BadRecordError("unpaired line", f"{source} has no such line, {target} goes on: the files differ in length", target)
        if second is None:
            raise BadRecordError("unpaired line", f"{target} has no such line, {source} goes on: the files differ in length", source)
        return _text(first, source), _text(second, target)

    return parse


def _column_parser(corpus: CorpusConfig, lines: Iterator[tuple[int, bytes]]) -> Parser:
    """Tab-separated columns. A column called by name means that the first line is a header, which is taken off `lines` here."""
    path = corpus.files[0]
    names = ("0" if corpus.source is None else str(corpus.source), "1" if corpus.target is None else str(corpus.target))
    width = 0
    if all(name.isdigit() for name in names):
        columns = [int(name) for name in names]
    else:
        header = next((raw for _, raw in lines), b"").decode(errors="replace").split("\t")
        missing = [name for name in names if name not in header]
        if missing:
            raise DataError(f"no column called {missing[0]!r}; the header has {', '.join(map(repr, header))}", path, 1)
        columns, width = [header.index(name) for name in names], len(header)

    def parse(raws: Raws) -> tuple[str, str]:
        nonlocal width
        cells = _text(raws[0] or b"", path).split("\t")
        width = width or max(len(cells), max(columns) + 1)
        if len(cells) != width:
            raise BadRecordError("wrong number of columns", f"{len(cells)} instead of {width}", path)
        return cells[columns[0]], cells[columns[1]]

    return parse


def _json_parser(path: Path, source: str, target: str) -> Parser:
    def parse(raws: Raws) -> tuple[str, str]:
        line = _text(raws[0] or b"", path)
        try:
            tree = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadRecordError("invalid JSON", str(error), path) from None
        return _field(tree, source, path), _field(tree, target, path)

    return parse


def _field(tree: object, name: str, path: Path) -> str:
    if not isinstance(tree, dict):
        raise BadRecordError("invalid JSON", "the line is not an object", path)
    if name not in tree:
        raise BadRecordError("missing field", f"no {name!r}; there are {', '.join(map(repr, tree))}", path)
    value = tree[name]
    if not isinstance(value, str):
        raise BadRecordError("field is not text", f"{name!r} is {json.dumps(value)[:60]}", path)
    if "\0" in value:
        raise BadRecordError("NUL character", f"in {name!r}", path)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRecordError("invalid Unicode", f"{name!r}: {error.reason}", path) from None
    return value


def _text(raw: bytes, path: Path) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise BadRecordError("invalid UTF-8", _utf8_detail(raw, error), path) from None
    if "\0" in text:
        raise BadRecordError("NUL character", f"at byte {raw.index(0) + 1} of the line", path)
    return text


def _utf8_detail(raw: bytes, error: UnicodeDecodeError) -> str:
    hint = "; the file looks like UTF-16, convert it to UTF-8" if raw.startswith(UTF16_MARKS) else ""
    return f"byte 0x{raw[error.start]:02x} at byte {error.start + 1} of the line{hint}"


def _check_empty(source: str, target: str, *, paths: tuple[Path, ...], keep: bool) -> None:
    if keep:
        return
    if not source or source.isspace():
        raise BadRecordError("empty source", "the line or field is blank", paths[0])
    if not target or target.isspace():
        raise BadRecordError("empty target", "the line or field is blank", paths[-1])
