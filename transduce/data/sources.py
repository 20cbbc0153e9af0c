"""What a model is asked to predict or is scored on, from the user's files, for every kind of source.

In: a file, and how the model's own training data was read. Out: source values, or whole examples. The decision a reader
would question: a file of examples is read with the field names of the training corpus, so that the same words that
described the data once need not be repeated; and a file that is no text (it has a NUL byte) is itself the one recording or picture.
"""

from collections.abc import Iterator
from pathlib import Path

from transduce.data.examples import CorpusConfig, Record, read_pairs
from transduce.data.fields import BadRecordError, field_reader, json_fields
from transduce.data.lines import open_bytes, read_lines
from transduce.data.loader import DataConfig
from transduce.data.report import DataReport
from transduce.data.values import Media, Value
from transduce.errors import DataError

NUL_WITHIN = 4096  # bytes at the beginning of a file that tell text from a recording or picture


def read_sources(path: Path | None, data: DataConfig, media: Path | None = None) -> Iterator[Value]:
    """The sources in a file (None = standard input), one for each line, in order.

    A text is a line. A track is a line of JSON: a list of frames, or in a JSONL file the source field of an object. A recording or
    picture is a line that names its file, or a JSON object as in the training data; names are relative to `media` (a folder or .tar
    archive), else plain ones to the current folder and those of objects to the file's. Raises DataError with the line that cannot be read.
    """
    kind = data.reading.source
    if kind == "text":
        yield from read_lines(path)
        return
    if kind == "media" and path is not None and _is_media(path):
        yield Media(path.absolute())
        return
    place = path or Path("<stdin>")
    name = str(data.valid.source) if data.valid.resolved_format == "jsonl" and data.valid.source is not None else "source"
    plain, nested = (field_reader(kind, name=name, path=place, root=media or root) for root in (Path(), place.parent))
    for number, line in enumerate(read_lines(path), 1):
        try:
            if line.lstrip().startswith("{"):
                tree = json_fields(line, (name,), place)
                yield nested(tree[name], tree)[0]
            else:
                yield plain(line, {})[0]
        except BadRecordError as bad:
            raise DataError(f"{bad.reason}: {bad.detail}", place, number) from None


def _is_media(path: Path) -> bool:
    """Whether a file is a recording or picture itself and no list of them. Raises DataError for an empty one, which is neither."""
    with open_bytes(path) as handle:
        start = handle.read(NUL_WITHIN)
    if not start:
        raise DataError("is empty: a recording, a picture or a list of such files is wanted", path)
    return b"\0" in start


def read_examples(path: Path, data: DataConfig, media: Path | None = None) -> list[Record]:
    """All examples of a file of the same form as the model's validation corpus. Raises DataError for a bad or empty one.

    media: folder or .tar archive of the files that the records name; None = the folder of the file.
    """
    trained = data.valid
    like = {} if trained.path is None else {"source": trained.source, "target": trained.target, "format": trained.format}
    corpus = CorpusConfig.model_validate({"path": path, "media": media, **like})
    records = list(read_pairs(corpus, errors="strict", report=DataReport(), keep_empty=True, reading=data.reading))
    if not records:
        raise DataError("is empty: there is nothing to evaluate", path)
    return records
