"""What a model is asked to predict or is scored on, from the user's files, for every kind of source.

In: a file, and how the model's own training data was read. Out: source values, or whole examples. The decision a reader
would question: a file of examples is read with the field names of the training corpus, so that the same words that
described the data once need not be repeated.
"""

from collections.abc import Iterator
from pathlib import Path

from transduce.data.examples import ENDINGS, CorpusConfig, Record, read_pairs
from transduce.data.fields import BadRecordError, field_reader, json_fields
from transduce.data.lines import read_lines
from transduce.data.loader import DataConfig
from transduce.data.report import DataReport
from transduce.data.values import Media, Value
from transduce.errors import DataError

SOUND_ENDINGS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".webm", ".mp4", ".mkv", ".mov", ".avi")
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


def read_sources(path: Path | None, data: DataConfig, root: Path | None = None) -> Iterator[Value]:
    """The sources in a file (None = standard input), one for each line, in order.

    A text is a line. A media file is named by a line, or by the source field of a JSONL manifest; `root` is the folder or .tar
    that names are relative to (default: the folder of the file, the current one for standard input). A media file may also be
    given itself. A track is a line of JSON: a list of frames. Raises DataError with the line that cannot be read.
    """
    kind = data.reading.source
    if kind == "text":
        yield from read_lines(path)
        return
    if path is not None and kind == "media" and path.suffix.lower() in SOUND_ENDINGS + PICTURE_ENDINGS:
        yield Media(path)
        return
    place = path or Path("<stdin>")
    folder = root or (Path() if path is None else path.parent)
    field = None if data.valid.source is None else str(data.valid.source)
    name = field if field is not None and not field.isdigit() and data.valid.path is not None else "source"
    read = field_reader(kind, name=name, path=place, root=folder)
    manifest = ENDINGS.get(Path(place.name.removesuffix(".gz")).suffix) == "jsonl"
    for number, line in enumerate(read_lines(path), 1):
        try:
            record = json_fields(line, (name,), place) if manifest else {name: line}
            yield read(record[name], record)[0]
        except BadRecordError as bad:
            raise DataError(f"{bad.reason}: {bad.detail}", place, number) from None


def read_examples(path: Path, data: DataConfig, root: Path | None = None) -> list[Record]:
    """All examples of a file of the same form as the model's validation corpus. Raises DataError for a bad or empty one."""
    changed = {"path": path, "source": data.valid.source, "target": data.valid.target, "root": root or _root_beside(path, data.valid)}
    form = {} if data.valid.path is None else {"format": data.valid.format}
    ends = {name: value for name, value in changed.items() if value is not None}
    if data.valid.path is None:
        ends = {"path": path}
    corpus = CorpusConfig.model_validate({**ends, **form})
    report = DataReport()
    records = list(read_pairs(corpus, errors="strict", report=report, keep_empty=True, reading=data.reading))
    if not records:
        raise DataError("is empty: there is nothing to evaluate", path)
    return records


def _root_beside(path: Path, trained: CorpusConfig) -> Path | None:
    """An archive with the file's own name (test.jsonl, test.tar), where the training corpus had its archive in the same way."""
    beside = path.with_suffix(".tar")
    named_alike = trained.root is not None and trained.path is not None and trained.root == trained.path.with_suffix(".tar")
    return beside if named_alike and beside.exists() else None
