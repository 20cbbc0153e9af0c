"""What all text codecs share: a text becomes token ids, and a batch of them one rectangle.

In: texts. Out: rows of token ids for the store and `Padded` batches. A kind of text codec says how texts and ids
correspond (`symbols.py`, `subwords.py`); everything after the ids is here, once.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from transduce.data.batch import Padded, pad_tokens
from transduce.data.report import Lossless
from transduce.data.values import Row
from transduce.model.frontends import Vocabulary

EMPTY, UNKNOWN = "empty_source", "unknown_tokens"
SMALL_VOCABULARY = 1 << 16

Ids = NDArray[np.int32]


class TextCodec(ABC):
    """Text to token ids (without begin and end of sequence) and back."""

    kind: str
    vocabulary: Vocabulary
    digest: str
    """SHA-256 of everything that decides what the codec does."""

    @abstractmethod
    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """One (T,) int32 array per text."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text; padding, begin and end are ignored."""

    @abstractmethod
    def pieces(self, ids: Sequence[int]) -> list[str]:
        """One string per id, for display."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write the codec into `directory`; `load_codec` reads it."""

    def encode(self, text: str) -> Ids:
        """(T,) int32."""
        return self.encode_many([text])[0]

    @property
    def shape(self) -> Vocabulary:
        """What the model must know."""
        return self.vocabulary

    @property
    def row_type(self) -> np.dtype[Any]:
        """16 bits where they are enough: ten million pairs are a few hundred megabytes."""
        return np.dtype(np.uint16 if self.vocabulary.size <= SMALL_VOCABULARY else np.int32)

    def rows(self, values: Sequence[str], *, thorough: bool = False) -> list[Row]:  # noqa: ARG002
        """The ids of each text; its width counts the end of sequence."""
        return [Row(ids, len(ids) + 1) for ids in self.encode_many(values)]

    def contents(self, values: Sequence[str]) -> Iterator[Row]:
        """The same rows, made together."""
        return iter(self.rows(values))

    def collate(self, rows: Sequence[NDArray[Any]], keys: NDArray[np.uint64] | None) -> Padded:
        """(B, T), each row closed by end-of-sequence."""
        padded = pad_tokens(rows, eos_id=self.vocabulary.eos_id, pad_id=self.vocabulary.pad_id)
        return padded if keys is None else Padded(padded.data, padded.lengths, torch.from_numpy(keys.view(np.int64)))

    def flags(self, value: str, row: NDArray[Any]) -> tuple[str, ...]:
        """What a reader of a prediction should know of its source: it is empty, it has tokens that the vocabulary does not know."""
        found = {EMPTY: len(row) == 0 or not value.strip(), UNKNOWN: self.num_unknown(row) > 0}
        return tuple(flag for flag, raised in found.items() if raised)

    def num_unknown(self, row: NDArray[Any]) -> int:
        """Tokens that the vocabulary does not know."""
        return int((row == self.vocabulary.unk_id).sum())

    def labels(self, row: NDArray[Any]) -> list[str]:
        """One string per position of the source, for display."""
        return self.pieces(row.tolist())

    def describe(self) -> str:
        """For people: `characters, 45 pieces`."""
        return f"{self.kind}, {self.vocabulary.size} pieces"

    def check(self, values: Iterable[str]) -> Lossless | None:
        """How many of `values` do not come back as they were."""
        return round_trip(self, values)


def round_trip(codec: TextCodec, texts: Iterable[str]) -> Lossless:
    """How many of `texts` do not come back from the codec as they were, and the first of them."""
    checked = lossy = 0
    example: str | None = None
    for text in texts:
        checked += 1
        if codec.decode(codec.encode(text).tolist()) != text:
            lossy += 1
            example = text if example is None else example
    return Lossless(checked, lossy, example)
