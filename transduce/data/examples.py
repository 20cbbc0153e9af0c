"""Readers of pairs: two aligned files, one TSV file or one JSONL file, each plain or `.gz`; or a table of tracks; or targets alone.

In: paths. Out: `Record`s with the place they came from, one at a time, never a whole file.
The decision a reader would question: what a field means is decided by the codec of its end, not by the file format; the same
JSONL reader serves texts, names of media files and numbers.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal, NamedTuple, Self, cast

from pydantic import Field, model_validator

from transduce.data.captions import coco_records, flickr_records, picture_names
from transduce.data.fields import BadRecordError, EndReader, ValueKind, decoded, field_reader, json_fields
from transduce.data.lines import open_bytes, raw_lines
from transduce.data.report import CorpusReport, DataReport
from transduce.data.tables import read_windows
from transduce.data.values import NOTHING, Value
from transduce.data.windows import WindowsConfig, noisy
from transduce.errors import ConfigError, DataError
from transduce.settings import Settings

ENDINGS = {".tsv": "tsv", ".tab": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "tracks", ".npy": "tracks", ".parquet": "tracks"}

CAPTION_FORMATS = ("flickr8k", "coco")
Errors = Literal["strict", "tolerant"]


class CorpusConfig(Settings):
    """One corpus: two aligned files (`source`, `target`), or one TSV or JSONL file (`path`). Of a language model no end is the source."""

    source: int | str | Path | None = None
    """Without `path`: the file of sources, one a line. With `path`: column number (from 0), column name or JSON field."""
    target: int | str | Path | None = None
    """Without `path`: the file of targets, one a line. With `path`: column number (from 0), column name or JSON field."""
    path: Path | None = None
    """One TSV or JSONL file that holds both ends (default columns 0 and 1, default fields "source" and "target")."""
    format: Literal["auto", "lines", "tsv", "jsonl", "tracks", "flickr8k", "coco"] = "auto"
    """`auto` goes by the file ending (.tsv, .tab, .jsonl, .ndjson, each also with .gz; .csv, .npy and .parquet are tables of tracks).
    flickr8k: lines `name.jpg#0`, tab, caption. coco: JSON with `images` and `annotations`."""
    media: Path | None = None
    """Folder or uncompressed .tar archive of the recordings or pictures that the records name. None = the folder of the file."""
    only: Path | None = None
    """A file of names, one a line: only these pictures are read. For formats flickr8k and coco, whose captions stand in one file."""
    weight: float | None = Field(default=None, gt=0)
    """Share of this corpus relative to the others' weights. All corpora have one, or none has."""
    noise: float = Field(default=0.0, ge=0)
    """Of a table of tracks to train on: the observed steps of each window get noise, as if they had been measured badly. Its standard
    deviation is drawn evenly between 0 and this, in the user's units. Name the file twice, with and without, where the tracks to
    come may be rougher than those of training."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.only is not None and self.format not in CAPTION_FORMATS:
            raise ConfigError(f"`only` is for corpora of format {' or '.join(CAPTION_FORMATS)}")
        if self.path is None and self.format in ("tsv", "jsonl", *CAPTION_FORMATS):
            raise ConfigError(f"a corpus of format {self.format} needs `path`, the one file that holds both ends")
        if self.path is None and self.target is None:
            raise ConfigError("a corpus needs `source` and `target` (two aligned files), or `path` (one TSV or JSONL file)")
        if self.path is not None and self.format == "lines":
            raise ConfigError("a corpus of format lines needs `source` and `target`, two aligned files, not `path`")
        if self.path is not None and self.resolved_format == "lines":
            raise ConfigError(f"cannot tell the format of {self.path} from its ending ({', '.join(ENDINGS)}); set `format` to tsv or jsonl")
        if self.noise and self.resolved_format != "tracks":
            raise ConfigError(f"noise = {self.noise} is for tables of tracks, and {self.name} is none")
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
        """The files to read, source first; of a corpus without sources the one of targets."""
        if self.path is None:
            return tuple(Path(str(end)) for end in (self.source, self.target) if end is not None)
        return (self.path,)

    @property
    def media_root(self) -> Path:
        """Where the media files are that the records name."""
        return self.media or self.files[0].parent

    @property
    def name(self) -> str:
        """How reports call this corpus."""
        return " + ".join(str(path) for path in self.files) + (f" with noise of up to {self.noise:g}" if self.noise else "")


class Record(NamedTuple):
    """One example and where it stands: a source and its target or targets (several captions of one picture)."""

    source: Value
    targets: tuple[Value, ...]
    place: str
    """file:line; of an aligned pair the source file."""

    @property
    def texts(self) -> tuple[str, str]:
        """Source and first target of a pair of texts."""
        return cast(str, self.source), cast(str, self.targets[0])


@dataclass(frozen=True)
class Reading:
    """What the two ends of a corpus are, which decides how its fields are read."""

    source: ValueKind = "text"
    target: ValueKind = "text"
    windows: WindowsConfig | None = None
    """How tables of tracks are cut."""

    def tree(self) -> dict[str, object]:
        """For cache keys."""
        return {"ends": [self.source, self.target], "windows": self.windows and self.windows.model_dump(mode="json")}


PAIRS_OF_TEXT = Reading()
Pair = tuple[Value, tuple[Value, ...]]
Raws = tuple[bytes | None, ...]
NumberedRaws = tuple[int, Raws]
Parser = Callable[[Raws], Pair]


def read_pairs(
    corpus: CorpusConfig, *, errors: Errors, report: DataReport, keep_empty: bool = False, reading: Reading = PAIRS_OF_TEXT
) -> Iterator[Record]:
    """The examples of a corpus, in file order.

    Strict: the first bad record raises DataError with file and line. Tolerant: it is counted in `report` and left out.
    A text that is empty or blank is a bad record too, unless `keep_empty` (validation), where it is noted.
    """
    entry = report.start(corpus.name)
    if corpus.resolved_format == "tracks":
        path, windows = corpus.files[0], reading.windows
        if windows is None:
            raise ConfigError(f"{path} is a table of tracks: data.windows must tell its columns and how it is cut")
        for number, read in enumerate(read_windows(path, windows, tolerant=errors == "tolerant", entry=entry)):
            window = noisy(read, corpus.noise, number) if corpus.noise else read
            yield Record(window.source, (window.target,), f"{path}:{window.line}")
        return
    with ExitStack() as stack:
        rows, parse = _open_corpus(corpus, entry, stack, reading=reading)
        to_record = _record_maker(corpus, parse, errors=errors, entry=entry, keep_empty=keep_empty, reading=reading)
        for number, raws in rows:
            record = to_record(number, raws)
            if record is not None:
                yield record


def text_pairs(corpus: CorpusConfig) -> Iterator[tuple[str, str]]:
    """Source and target of each pair of texts. Raises DataError at the first bad record."""
    return (record.texts for record in read_pairs(corpus, errors="strict", report=DataReport()))


def _record_maker(
    corpus: CorpusConfig, parse: Parser, *, errors: Errors, entry: CorpusReport, keep_empty: bool, reading: Reading
) -> Callable[[int, Raws], Record | None]:
    """A function from a numbered raw record to a `Record`, or None for one that is left out and counted."""
    first = corpus.files[0]

    def to_record(number: int, raws: Raws) -> Record | None:
        entry.read += 1
        try:
            source, targets = parse(raws)
            blank = _blank_end(source, targets, reading)
            if blank is not None and not keep_empty:
                raise BadRecordError(f"empty {blank}", "the line or field is blank", corpus.files[0 if blank == "source" else -1])
        except BadRecordError as bad:
            if errors == "strict":
                message = f"{bad.reason}: {bad.detail} (data.errors: tolerant leaves such pairs out and counts them)"
                raise DataError(message, bad.path, number) from None
            entry.skip(bad.reason, f"{bad.path}:{number}")
            return None
        if blank is not None:
            entry.note("pairs with an empty end, kept", f"{first}:{number}")
        return Record(source, targets, f"{first}:{number}")

    return to_record


def _open_corpus(corpus: CorpusConfig, entry: CorpusReport, stack: ExitStack, *, reading: Reading) -> tuple[Iterator[NumberedRaws], Parser]:
    """Numbered raw records and what makes values of them; `stack` closes the files."""
    if corpus.resolved_format in CAPTION_FORMATS:
        return _captions(corpus, entry, stack), _caption_parser(corpus, reading)
    files = [raw_lines(stack.enter_context(open_bytes(path)), path, entry) for path in corpus.files]
    if len(files) > 1:
        return enumerate(zip_longest(*files), 1), _aligned_parser(corpus, reading)
    lines: Iterator[NumberedRaws] = ((number, (raw,)) for number, raw in enumerate(files[0], 1))
    if corpus.path is None:
        return lines, _target_parser(corpus, reading)
    return lines, _json_parser(corpus, reading) if corpus.resolved_format == "jsonl" else _column_parser(corpus, lines, reading)


def _readers(corpus: CorpusConfig, reading: Reading, names: tuple[str, str]) -> tuple[EndReader, EndReader]:
    """What the two ends make of their fields, which are called `names`."""
    paths = corpus.files[0], corpus.files[-1] if corpus.path is None else corpus.files[0]
    kinds = reading.source, reading.target
    source, target = (
        field_reader(kind, name=name, path=path, root=corpus.media_root) for kind, name, path in zip(kinds, names, paths, strict=True)
    )
    return source, target


def _aligned_parser(corpus: CorpusConfig, reading: Reading) -> Parser:
    (source, target), (read_source, read_target) = corpus.files, _readers(corpus, reading, ("source", "target"))

    def parse(raws: Raws) -> Pair:
        first, second = raws
        if first is None:
            raise BadRecordError("unpaired line", f"{source} has no such line, {target} goes on: the files differ in length", target)
        if second is None:
            raise BadRecordError("unpaired line", f"{target} has no such line, {source} goes on: the files differ in length", source)
        return read_source(decoded(first, source), {})[0], read_target(decoded(second, target), {})

    return parse


def _target_parser(corpus: CorpusConfig, reading: Reading) -> Parser:
    """Lines of targets without sources."""
    path, (_, read_target) = corpus.files[0], _readers(corpus, reading, ("source", "target"))
    return lambda raws: (NOTHING, read_target(decoded(raws[0] or b"", path), {}))


def _names(corpus: CorpusConfig, reading: Reading, defaults: tuple[str, str]) -> tuple[str, str]:
    """What the ends are called in a file that holds both. A source that is not there goes by the target's name, and is not read."""
    source, target = (default if end is None else str(end) for end, default in zip((corpus.source, corpus.target), defaults, strict=True))
    return target if reading.source == "nothing" else source, target


def _column_parser(corpus: CorpusConfig, lines: Iterator[NumberedRaws], reading: Reading) -> Parser:
    """Tab-separated columns. A column called by name means that the first line is a header, which is taken off `lines` here."""
    path = corpus.files[0]
    names = _names(corpus, reading, ("0", "1"))
    read_source, read_target = _readers(corpus, reading, names)
    width, header = 0, list[str]()
    if all(name.isdigit() for name in names):
        columns = [int(name) for name in names]
    else:
        first = next((raws[0] for _, raws in lines), None) or b""
        header = first.decode(errors="replace").split("\t")
        missing = [name for name in names if name not in header]
        if missing:
            raise DataError(f"no column called {missing[0]!r}; the header has {', '.join(map(repr, header))}", path, 1)
        columns, width = [header.index(name) for name in names], len(header)

    def parse(raws: Raws) -> Pair:
        nonlocal width
        cells = decoded(raws[0] or b"", path).split("\t")
        width = width or max(len(cells), max(columns) + 1)
        if len(cells) != width:
            raise BadRecordError("wrong number of columns", f"{len(cells)} instead of {width}", path)
        record = dict(zip(header, cells, strict=False))
        return read_source(cells[columns[0]], record)[0], read_target(cells[columns[1]], record)

    return parse


def _json_parser(corpus: CorpusConfig, reading: Reading) -> Parser:
    path = corpus.files[0]
    names = _names(corpus, reading, ("source", "target"))
    read_source, read_target = _readers(corpus, reading, names)

    def parse(raws: Raws) -> Pair:
        tree = json_fields(decoded(raws[0] or b"", path), names, path)
        sources = read_source(tree[names[0]], tree)
        if len(sources) != 1:
            raise BadRecordError("several sources", f"{names[0]!r} is a list; only the target may be one", path)
        return sources[0], read_target(tree[names[1]], tree)

    return parse


def _captions(corpus: CorpusConfig, entry: CorpusReport, stack: ExitStack) -> Iterator[NumberedRaws]:
    """The pictures of a caption file, those that `only` leaves out counted as noted."""
    path, only = corpus.files[0], None if corpus.only is None else picture_names(corpus.only)
    if corpus.resolved_format == "coco":
        records = coco_records(path)
    else:
        records = flickr_records(enumerate(raw_lines(stack.enter_context(open_bytes(path)), path, entry), 1))
    for number, raws in records:
        if only is None or len(raws) == 1 or (raws[0] or b"").decode(errors="replace") in only:
            yield number, raws
        else:
            entry.note("pictures that `only` does not name, left out", f"{path}:{number}")


def _caption_parser(corpus: CorpusConfig, reading: Reading) -> Parser:
    path = corpus.files[0]
    read_source, read_target = _readers(corpus, reading, ("the picture", "the captions"))

    def parse(raws: Raws) -> Pair:
        name, *captions = (decoded(raw or b"", path) for raw in raws)
        if not captions:
            raise BadRecordError("not a caption", f"{name[:60]!r} is not of the form name.jpg#0, tab, caption", path)
        return read_source(name, {})[0], read_target(captions, {})

    return parse


def _blank_end(source: Value, targets: tuple[Value, ...], reading: Reading) -> str | None:
    """The end that is an empty or blank text, if one is that ought to be there."""
    for end, values in (("source", (source,)), ("target", targets)):
        if (end, reading.source) != ("source", "nothing") and any(isinstance(value, str) and not value.strip() for value in values):
            return end
    return None
