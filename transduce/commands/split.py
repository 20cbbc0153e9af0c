"""A validation split of one corpus, written to new files; the user's own files are never touched.

In: a corpus. Out: two corpora, the second for validation. A pair's side depends on a hash of its source alone: the
same data always splits alike, whatever its order, and pairs with the same source never stand on both sides.
"""

import hashlib
import heapq
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from transduce.data.examples import CorpusConfig, text_pairs
from transduce.errors import ConfigError, DataError, StorageError

VALID_SHARE = 0.05
MOST_VALID = 2000


def split_corpus(corpus: CorpusConfig, num_pairs: int, folder: Path) -> tuple[CorpusConfig, CorpusConfig, int]:
    """-> training corpus, validation corpus, pairs in the latter: 5 %, 2000 at most. Raises ConfigError, StorageError."""
    wanted = min(MOST_VALID, max(1, round(VALID_SHARE * num_pairs)))
    smallest = heapq.nsmallest(wanted, {_hash(source) for source, _ in text_pairs(corpus)})
    limit = smallest[-1]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        counts = _write_both(corpus, folder, lambda source: _hash(source) <= limit)
    except OSError as error:
        raise StorageError(f"{folder}: the validation split cannot be written: {error.strerror}") from error
    if counts[0] == 0:
        raise DataError("has too few different sources for a validation split; name validation files", corpus.files[0])
    return _part(corpus, folder, "train"), _part(corpus, folder, "valid"), counts[1]


def _hash(source: str) -> bytes:
    return hashlib.blake2b(source.encode(), digest_size=8).digest()


def _part(corpus: CorpusConfig, folder: Path, part: str) -> CorpusConfig:
    """Aligned files stay aligned files with their endings; everything else becomes JSONL, which holds any text."""
    if corpus.path is not None:
        return CorpusConfig(path=folder / f"{part}.jsonl")
    source, target = (Path(file.name.removesuffix(".gz")).suffix for file in corpus.files)
    if source == target:
        source, target = ".source", ".target"
    return CorpusConfig(source=str(folder / f"{part}{source or '.source'}"), target=str(folder / f"{part}{target or '.target'}"))


def _write_both(corpus: CorpusConfig, folder: Path, is_valid: Callable[[str], bool]) -> tuple[int, int]:
    """Pairs written for training and for validation."""
    counts = [0, 0]
    with ExitStack() as stack:
        outputs = [[stack.enter_context(_new(path)) for path in _part(corpus, folder, part).files] for part in ("train", "valid")]
        for source, target in text_pairs(corpus):
            side = int(is_valid(source))
            counts[side] += 1
            if corpus.path is None:
                outputs[side][0].write(source + "\n")
                outputs[side][1].write(target + "\n")
            else:
                outputs[side][0].write(json.dumps({"source": source, "target": target}, ensure_ascii=False) + "\n")
    return counts[0], counts[1]


def _new(path: Path) -> TextIO:
    try:
        return path.open("x", encoding="utf-8", newline="\n")
    except FileExistsError:
        raise ConfigError(f"{path} exists; it is not written over: remove it, or name validation files") from None
