"""Encoded pairs in memory-mapped arrays: what a corpus becomes before training.

In: a corpus and two codecs. Out: a `PairStore`, cached by content. Ten million pairs are a few hundred megabytes of
16-bit ids on disk, of which the operating system keeps in memory what it has room for.
The decision a reader would question: pairs that are too long are left out here, once, and counted, so that nothing
later has to look at lengths again.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from transduce.data.cache import Cache, key_of
from transduce.data.examples import CorpusConfig, Errors, Record, read_pairs
from transduce.data.report import CorpusReport, DataReport, LengthStatistics
from transduce.data.sampling import EvenSample
from transduce.data.symbols import Ids
from transduce.data.text import Codec, round_trip

FORMAT = 1
CHUNK_PAIRS = 8192
LOSSLESS_SAMPLE = 100_000
META = "store.json"


@dataclass(frozen=True)
class StoreOptions:
    """What decides which pairs of a corpus are stored."""

    errors: Errors
    max_source_tokens: int
    """End of sequence included."""
    max_target_tokens: int
    """End of sequence included."""
    validation: bool = False
    """Keep pairs with an empty end, and note (rather than count as left out) the too long ones: they are still generated from."""


@dataclass(frozen=True)
class TokenArrays:
    """All rows of one end in a row. ids: (N,) uint16 or int32. offsets: (R + 1,) int64, where each row begins. lengths: (R,) int32."""

    ids: NDArray[np.uint16] | NDArray[np.int32]
    offsets: NDArray[np.int64]
    lengths: Ids

    def row(self, number: int) -> Ids:
        """(T,) int32, without the end of sequence."""
        return self.ids[self.offsets[number] : self.offsets[number + 1]].astype(np.int32)


@dataclass(frozen=True)
class PairStore:
    """The pairs of one corpus, both ends encoded."""

    source: TokenArrays
    target: TokenArrays

    def __len__(self) -> int:
        return len(self.source.lengths)

    def pair(self, number: int) -> tuple[Ids, Ids]:
        """Source and target ids of one pair, without the end of sequence."""
        return self.source.row(number), self.target.row(number)

    @property
    def source_lengths(self) -> Ids:
        """(R,) int32, without the end of sequence."""
        return self.source.lengths

    @property
    def target_lengths(self) -> Ids:
        """(R,) int32, without the end of sequence."""
        return self.target.lengths


def build_store(corpus: CorpusConfig, *, codecs: tuple[Codec, Codec], options: StoreOptions, cache: Cache, report: DataReport) -> PairStore:
    """The encoded pairs of a corpus, from the cache if content, codecs and options are the same. Adds the corpus to `report`."""
    tree = corpus_key(corpus, cache) | {"format": FORMAT, "codecs": [codec.digest for codec in codecs], "options": asdict(options)}
    place = cache.entry(f"pairs/{key_of(tree)}", lambda directory: _write_store(directory, corpus, codecs=codecs, options=options))
    meta = json.loads((place / META).read_text(encoding="utf-8"))
    moved = dict(zip(meta["files"], map(str, corpus.files), strict=True))
    report.corpora.append(CorpusReport.from_dict(meta["report"]).renamed(corpus.name, moved))
    return PairStore(_open_arrays(place, "source", meta["source"]), _open_arrays(place, "target", meta["target"]))


def corpus_key(corpus: CorpusConfig, cache: Cache) -> dict[str, object]:
    """What decides the records of a corpus: the content of its files and which columns or fields of them."""
    columns = None if corpus.path is None else [None if end is None else str(end) for end in (corpus.source, corpus.target)]
    files = [[cache.digest(path), path.suffix == ".gz"] for path in corpus.files]
    return {"files": files, "form": corpus.resolved_format, "columns": columns}


def _write_store(directory: Path, corpus: CorpusConfig, *, codecs: tuple[Codec, Codec], options: StoreOptions) -> None:
    report = DataReport()
    records = read_pairs(corpus, errors=options.errors, report=report, keep_empty=options.validation)
    writers = [_ArrayWriter(directory, end, codec.vocabulary.size) for end, codec in zip(("source", "target"), codecs, strict=True)]
    samples = [EvenSample(LOSSLESS_SAMPLE, seed=0) for _ in codecs]
    try:
        for chunk in _chunks(records):
            texts = ([record.source for record in chunk], [record.target for record in chunk])
            ids = [codec.encode_many(side) for codec, side in zip(codecs, texts, strict=True)]
            kept = _keep_short(chunk, ids, options=options, entry=report.corpora[0])
            for writer, sample, side, rows in zip(writers, samples, texts, ids, strict=True):
                writer.add([rows[number] for number in kept])
                sample.add([side[number] for number in kept])
    finally:
        for writer in writers:
            writer.close()
    entry = report.corpora[0]
    entry.source_lengths, entry.target_lengths = (LengthStatistics.of(writer.lengths()) for writer in writers)
    entry.source_lossless, entry.target_lossless = (
        round_trip(codec, sample.texts()) for codec, sample in zip(codecs, samples, strict=True)
    )
    meta = {"files": list(map(str, corpus.files)), "source": writers[0].meta(), "target": writers[1].meta(), "report": asdict(entry)}
    (directory / META).write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    while chunk := list(islice(records, CHUNK_PAIRS)):
        yield chunk


def _keep_short(chunk: list[Record], ids: list[list[Ids]], *, options: StoreOptions, entry: CorpusReport) -> list[int]:
    """The numbers of the pairs that are short enough; the others are counted."""
    source_limit, target_limit = options.max_source_tokens, options.max_target_tokens
    count = entry.note if options.validation else entry.skip
    suffix = " for the validation loss, still generated from" if options.validation else ""
    kept = []
    for number, (source, target) in enumerate(zip(*ids, strict=True)):
        if len(source) >= source_limit:
            count(f"source longer than {source_limit} tokens{suffix}", chunk[number].place)
        elif len(target) >= target_limit:
            count(f"target longer than {target_limit} tokens{suffix}", chunk[number].place)
        else:
            kept.append(number)
    return kept


class _ArrayWriter:
    """One end of a store, written as it comes."""

    def __init__(self, directory: Path, end: str, vocabulary_size: int) -> None:
        self.dtype: type[np.uint16] | type[np.int32] = np.uint16 if vocabulary_size <= 1 << 16 else np.int32
        self.num_rows = self.num_ids = 0
        self._place = directory
        self._end = end
        self._ids: BinaryIO = (directory / f"{end}.ids").open("wb")
        self._offsets: BinaryIO = (directory / f"{end}.offsets").open("wb")
        self._offsets.write(np.zeros(1, dtype=np.int64).tobytes())

    def add(self, rows: list[Ids]) -> None:
        """More rows."""
        if not rows:
            return
        ends = self.num_ids + np.cumsum([len(row) for row in rows], dtype=np.int64)
        self._ids.write(np.concatenate(rows).astype(self.dtype).tobytes())
        self._offsets.write(ends.tobytes())
        self.num_rows += len(rows)
        self.num_ids = int(ends[-1])

    def close(self) -> None:
        """No more rows."""
        self._ids.close()
        self._offsets.close()

    def lengths(self) -> Ids:
        """(R,) of the closed file."""
        return _lengths(np.fromfile(self._place / f"{self._end}.offsets", dtype=np.int64))

    def meta(self) -> dict[str, object]:
        """What it takes to open the files again."""
        return {"rows": self.num_rows, "ids": self.num_ids, "dtype": np.dtype(self.dtype).name}


def _lengths(offsets: NDArray[np.int64]) -> Ids:
    return np.diff(offsets).astype(np.int32)


def _open_arrays(directory: Path, end: str, meta: dict[str, Any]) -> TokenArrays:
    offsets = np.memmap(directory / f"{end}.offsets", dtype=np.int64, mode="r", shape=(meta["rows"] + 1,)).view(np.ndarray)
    if meta["ids"] == 0:  # an empty file cannot be mapped
        return TokenArrays(np.zeros(0, dtype=meta["dtype"]), offsets, _lengths(offsets))
    ids = np.memmap(directory / f"{end}.ids", dtype=meta["dtype"], mode="r", shape=(meta["ids"],)).view(np.ndarray)
    return TokenArrays(ids, offsets, _lengths(offsets))
