"""Encoded examples in memory-mapped arrays: what a corpus becomes before training.

In: a corpus and two codecs. Out: a `PairStore`, cached by content. Ten million pairs of text are a few hundred megabytes of
16-bit ids on disk, of which the operating system keeps in memory what it has room for.
The decision a reader would question: examples that are too long are left out here, once, and counted, so that nothing
later has to look at lengths again.
"""

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from transduce.data.cache import Cache, key_of
from transduce.data.codec import Codec
from transduce.data.examples import CorpusConfig, Errors, Reading, Record, read_pairs
from transduce.data.media import root_stamp
from transduce.data.report import CorpusReport, DataReport, LengthStatistics
from transduce.data.sampling import EvenSample
from transduce.data.values import Row, Value
from transduce.errors import DataError

FORMAT = 2
CHUNK_RECORDS = 1024
LOSSLESS_SAMPLE = 100_000
META = "store.json"
FIRSTS = "firsts"


@dataclass(frozen=True)
class StoreOptions:
    """What decides which examples of a corpus are stored."""

    errors: Errors
    reading: Reading
    max_source_tokens: int
    """Positions of a source, the end of sequence of a text included."""
    max_target_tokens: int
    """Positions of a target, the end of sequence of a text included."""
    validation: bool = False
    """Keep examples with an empty end, and note (rather than count as left out) the too long ones: they are still generated from."""


@dataclass(frozen=True)
class RowArrays:
    """All rows of one end in a row. data: (N,) of the codec's type. offsets: (R + 1,) int64, where each row begins. widths: (R,) int32."""

    data: NDArray[Any]
    offsets: NDArray[np.int64]
    widths: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.widths)

    def rows(self, numbers: NDArray[np.int64]) -> list[NDArray[Any]]:
        """The stored rows of these numbers, 1-D each."""
        starts, ends = self.offsets[numbers].tolist(), self.offsets[numbers + 1].tolist()
        return [self.data[start:end] for start, end in zip(starts, ends, strict=True)]


@dataclass(frozen=True)
class PairStore:
    """The examples of one corpus: sources, and one or more targets for each.

    firsts: (R + 1,) int64, the targets of source r are those from firsts[r] to firsts[r + 1]; None = one each.
    """

    source: RowArrays
    target: RowArrays
    firsts: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.source)

    def examples(self, numbers: NDArray[np.int64]) -> list[tuple[NDArray[Any], list[NDArray[Any]]]]:
        """The rows of these sources, each with those of its targets."""
        sources = self.source.rows(numbers)
        if self.firsts is None:
            return [(source, [target]) for source, target in zip(sources, self.target.rows(numbers), strict=True)]
        spans = zip(self.firsts[numbers].tolist(), self.firsts[numbers + 1].tolist(), strict=True)
        return [(source, self.target.rows(np.arange(start, end))) for source, (start, end) in zip(sources, spans, strict=True)]

    @property
    def target_widths(self) -> NDArray[np.int32]:
        """(R,) int32: positions that the targets of each source fill together when each is as wide as the longest of them.

        So sources whose longest targets are alike come into one batch, where their targets share one width.
        """
        if self.firsts is None:
            return self.target.widths
        return (np.maximum.reduceat(self.target.widths, self.firsts[:-1]) * np.diff(self.firsts)).astype(np.int32)

    @property
    def target_pads(self) -> NDArray[np.int32]:
        """(R,) int32: how much of `target_widths` is padding, because the targets of one source differ."""
        if self.firsts is None:
            return np.zeros(len(self), dtype=np.int32)
        return (self.target_widths - np.add.reduceat(self.target.widths, self.firsts[:-1])).astype(np.int32)


def build_store(corpus: CorpusConfig, *, codecs: tuple[Codec, Codec], options: StoreOptions, cache: Cache, report: DataReport) -> PairStore:
    """The encoded examples of a corpus, from the cache if content, codecs and options are the same. Adds the corpus to `report`."""
    tree = corpus_key(corpus, cache, options.reading) | {
        "format": FORMAT,
        "codecs": [codec.digest for codec in codecs],
        "options": asdict(options) | {"reading": options.reading.tree()},
    }
    place = cache.entry(f"pairs/{key_of(tree)}", lambda directory: _write_store(directory, corpus, codecs=codecs, options=options))
    meta = json.loads((place / META).read_text(encoding="utf-8"))
    moved = dict(zip(meta["files"], map(str, corpus.files), strict=True))
    report.corpora.append(CorpusReport.from_dict(meta["report"]).renamed(corpus.name, moved))
    firsts = _mapped(place / FIRSTS, "int64", meta["source"]["rows"] + 1) if (place / FIRSTS).exists() else None
    return PairStore(_open_arrays(place, "source", meta["source"]), _open_arrays(place, "target", meta["target"]), firsts)


def corpus_key(corpus: CorpusConfig, cache: Cache, reading: Reading) -> dict[str, object]:
    """What decides the records of a corpus: the content of its files and how they are read."""
    columns = None if corpus.path is None else [None if end is None else str(end) for end in (corpus.source, corpus.target)]
    files = [[cache.digest(path), path.suffix == ".gz"] for path in corpus.files]
    tree: dict[str, object] = {"files": files, "form": corpus.resolved_format, "columns": columns, "reading": reading.tree()}
    if corpus.only is not None:
        tree["only"] = cache.digest(corpus.only)
    if corpus.noise:
        tree["noise"] = corpus.noise
    return tree | ({"media": root_stamp(corpus.media_root)} if "media" in (reading.source, reading.target) else {})


def _write_store(directory: Path, corpus: CorpusConfig, *, codecs: tuple[Codec, Codec], options: StoreOptions) -> None:
    report = DataReport()
    records = read_pairs(corpus, errors=options.errors, report=report, keep_empty=options.validation, reading=options.reading)
    writers = [_ArrayWriter(directory, end, codec.row_type) for end, codec in zip(("source", "target"), codecs, strict=True)]
    samples: list[EvenSample[Value]] = [EvenSample(LOSSLESS_SAMPLE, seed=0) for _ in codecs]
    counts = array("q")
    try:
        for chunk in _chunks(records):
            encoded = _encoded(chunk, codecs, thorough=options.errors == "tolerant")
            kept = list(_keep(chunk, encoded, options=options, entry=report.corpora[0]))
            writers[0].add([encoded[number][0] for number in kept])
            writers[1].add([row for number in kept for row in encoded[number][1]])
            samples[0].add(chunk[number].source for number in kept)
            samples[1].add(target for number in kept for target in chunk[number].targets)
            counts.extend(len(encoded[number][1]) for number in kept)
    finally:
        for writer in writers:
            writer.close()
    if any(count != 1 for count in counts):
        np.cumsum(np.array([0, *counts], dtype=np.int64)).tofile(directory / FIRSTS)
    entry = report.corpora[0]
    entry.source_lengths, entry.target_lengths = (LengthStatistics.of(writer.widths()) for writer in writers)
    if options.reading.source == "nothing":
        entry.source_lengths = None
    entry.source_lossless, entry.target_lossless = (codec.check(sample.items()) for codec, sample in zip(codecs, samples, strict=True))
    meta = {"files": list(map(str, corpus.files)), "source": writers[0].meta(), "target": writers[1].meta(), "report": asdict(entry)}
    (directory / META).write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    while chunk := list(islice(records, CHUNK_RECORDS)):
        yield chunk


def _encoded(chunk: Sequence[Record], codecs: tuple[Codec, Codec], *, thorough: bool) -> list[tuple[Row, list[Row]]]:
    """Per record the row of its source and those of its targets. thorough: what is broken must be known, and counted, now."""
    sources = codecs[0].rows([record.source for record in chunk], thorough=thorough)
    targets = iter(codecs[1].rows([target for record in chunk for target in record.targets]))
    return [(source, list(islice(targets, len(record.targets)))) for record, source in zip(chunk, sources, strict=True)]


def _keep(
    chunk: Sequence[Record],
    encoded: Sequence[tuple[Row, list[Row]]],
    *,
    options: StoreOptions,
    entry: CorpusReport,
) -> Iterator[int]:
    """The numbers of the records that can be read and are short enough; the others are counted, or raise DataError (strict)."""
    limits = (("source", options.max_source_tokens), ("target", options.max_target_tokens))
    count = entry.note if options.validation else entry.skip
    suffix = " for the validation loss, still generated from" if options.validation else ""
    for number, (record, (source, targets)) in enumerate(zip(chunk, encoded, strict=True)):
        problem = next((row.problem for row in (source, *targets) if row.problem is not None), None)
        if problem is not None:
            if options.errors == "strict":
                raise DataError(f"{record.place}: {problem} (data.errors: tolerant leaves such examples out and counts them)")
            entry.skip(problem.reason, record.place)
            continue
        widths = source.width, max(target.width for target in targets)
        long = [f"{end} longer than {limit} tokens" for (end, limit), width in zip(limits, widths, strict=True) if width > limit]
        if long:
            count(f"{long[0]}{suffix}", record.place)
        else:
            yield number


class _ArrayWriter:
    """One end of a store, written as it comes."""

    def __init__(self, directory: Path, end: str, row_type: np.dtype[Any]) -> None:
        self.row_type = row_type
        self.num_rows = self.num_items = 0
        self._files: dict[str, BinaryIO] = {name: (directory / f"{end}.{name}").open("wb") for name in ("data", "offsets", "widths")}
        self._widths = directory / f"{end}.widths"
        self._files["offsets"].write(np.zeros(1, dtype=np.int64).tobytes())

    def add(self, rows: Sequence[Row]) -> None:
        """More rows."""
        if not rows:
            return
        ends = self.num_items + np.cumsum([len(row.data) for row in rows], dtype=np.int64)
        self._files["data"].write(np.concatenate([row.data for row in rows]).astype(self.row_type, copy=False).tobytes())
        self._files["offsets"].write(ends.tobytes())
        self._files["widths"].write(np.array([row.width for row in rows], dtype=np.int32).tobytes())
        self.num_rows += len(rows)
        self.num_items = int(ends[-1])

    def close(self) -> None:
        """No more rows."""
        for file in self._files.values():
            file.close()

    def widths(self) -> NDArray[np.int32]:
        """(R,) of the closed file."""
        return np.fromfile(self._widths, dtype=np.int32)

    def meta(self) -> dict[str, object]:
        """What it takes to open the files again."""
        return {"rows": self.num_rows, "items": self.num_items, "type": self.row_type.name}


def _open_arrays(directory: Path, end: str, meta: dict[str, Any]) -> RowArrays:
    return RowArrays(
        _mapped(directory / f"{end}.data", meta["type"], meta["items"]),
        _mapped(directory / f"{end}.offsets", "int64", meta["rows"] + 1),
        _mapped(directory / f"{end}.widths", "int32", meta["rows"]),
    )


def _mapped(path: Path, kind: str, count: int) -> NDArray[Any]:
    """An array in a file; an empty file cannot be mapped."""
    return np.memmap(path, dtype=kind, mode="r", shape=(count,)).view(np.ndarray) if count else np.zeros(0, dtype=kind)
