"""What a model is asked to predict or is scored on, from the user's files, for every kind of source.

In: a file, and how the model's own training data was read. Out: source values, or whole examples. The decision a reader
would question: a file of examples is read with the field names of the training corpus, so that the same words that
described the data once need not be repeated.
"""

from collections.abc import Iterator
from pathlib import Path

from transduce.data.examples import CorpusConfig, Record, read_pairs
from transduce.data.fields import BadRecordError, field_reader, json_fields
from transduce.data.lines import read_lines
from transduce.data.loader import DataConfig
from transduce.data.report import DataReport
from transduce.data.values import Value
from transduce.errors import DataError


def read_sources(path: Path | None, data: DataConfig) -> Iterator[Value]:
    """The sources in a file (None = standard input), one for each line, in order.

    A text is a line. A track is a line of JSON: a list of frames, or in a JSONL file the source field of an object. Raises DataError
    with the line that cannot be read.
    """
    kind = data.reading.source
    if kind == "text":
        yield from read_lines(path)
        return
    place = path or Path("<stdin>")
    name = str(data.valid.source) if data.valid.resolved_format == "jsonl" and data.valid.source is not None else "source"
    read = field_reader(kind, name=name, path=place)
    for number, line in enumerate(read_lines(path), 1):
        try:
            whole = line.lstrip().startswith("{")
            yield read(json_fields(line, (name,), place)[name] if whole else line)[0]
        except BadRecordError as bad:
            raise DataError(f"{bad.reason}: {bad.detail}", place, number) from None


def read_examples(path: Path, data: DataConfig) -> list[Record]:
    """All examples of a file of the same form as the model's validation corpus. Raises DataError for a bad or empty one."""
    trained = data.valid
    like = {} if trained.path is None else {"source": trained.source, "target": trained.target, "format": trained.format}
    corpus = CorpusConfig.model_validate({"path": path, **like})
    records = list(read_pairs(corpus, errors="strict", report=DataReport(), keep_empty=True, reading=data.reading))
    if not records:
        raise DataError("is empty: there is nothing to evaluate", path)
    return records
