"""Text codecs: how a string becomes token ids and comes back, and how one is chosen, fitted, stored and loaded.

In: settings and texts. Out: a `Codec`. The kinds themselves are in `subwords.py` (SentencePiece) and `symbols.py`
(characters, bytes, words). The decision a reader would question: no kind normalises anything. What the user wrote is
what the model learns to write; `round_trip` counts what a codec cannot give back.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import Field

from transduce.data.report import Lossless
from transduce.data.subwords import MODEL_FILE, SentencePieceCodec, read_model, train_model
from transduce.data.symbols import CODEC_FILE, ByteCodec, CharacterCodec, Ids, WordCodec
from transduce.errors import CheckpointError, DataError
from transduce.model.frontends import Vocabulary
from transduce.settings import Settings


class Codec(Protocol):
    """Text to token ids (without begin and end of sequence) and back."""

    @property
    def kind(self) -> str:
        """The name in the configuration."""
        ...

    @property
    def vocabulary(self) -> Vocabulary:
        """Size and special ids."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides what the codec does."""
        ...

    def encode(self, text: str) -> Ids:
        """(T,) int32."""
        ...

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """One (T,) int32 array per text; the same as `encode` of each, and faster."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text; padding, begin and end are ignored."""
        ...

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """One string per id, for display."""
        ...

    def save(self, directory: Path) -> None:
        """Write the codec into `directory`; `load_codec` reads it."""
        ...


class SentencePieceConfig(Settings):
    """Subwords learned from the data, with a byte fallback so that nothing is unknown."""

    kind: Literal["sentencepiece"] = "sentencepiece"
    model_type: Literal["unigram", "bpe"] = "unigram"
    """Unigram language model (Kudo 2018) or byte-pair encoding (Sennrich 2016)."""
    vocabulary_size: int = Field(default=8000, ge=261)
    """Pieces to learn, 4 special ones and 256 bytes among them. Small data gives fewer; the real size is reported."""
    character_coverage: float = Field(default=0.9995, gt=0, le=1)
    """Share of the characters in the data that get pieces of their own; the others are written as bytes."""
    max_training_texts: int = Field(default=1_000_000, ge=1)
    """Learn from an even sample of at most this many texts."""
    model_file: Path | None = None
    """A SentencePiece .model to use as it is; the settings above then say nothing."""


class CharactersConfig(Settings):
    """One token per Unicode code point."""

    kind: Literal["characters"] = "characters"
    min_count: int = Field(default=1, ge=1)
    """A character that is rarer is unknown."""


class BytesConfig(Settings):
    """One token per UTF-8 byte."""

    kind: Literal["bytes"] = "bytes"


class WordsConfig(Settings):
    """One token per word between whitespace."""

    kind: Literal["words"] = "words"
    vocabulary_size: int | None = Field(default=None, ge=5)
    """At most this many words, 4 special tokens among them; None = no limit."""
    min_count: int = Field(default=1, ge=1)
    """A word that is rarer is unknown."""


CodecConfig = Annotated[SentencePieceConfig | CharactersConfig | BytesConfig | WordsConfig, Field(discriminator="kind")]


def fit_codec(config: CodecConfig, texts: Iterable[str], seed: int) -> Codec:
    """Learn what `config` asks for from `texts`, which are read once and need not fit into memory.

    Raises DataError if there is nothing to learn from, ConfigError if the vocabulary is too small for the characters.
    """
    if config.kind == "characters":
        return CharacterCodec.fit(texts, min_count=config.min_count)
    if config.kind == "bytes":
        return ByteCodec()
    if config.kind == "words":
        return WordCodec.fit(texts, min_count=config.min_count, limit=config.vocabulary_size)
    if config.model_file is not None:
        return read_model(config.model_file)
    return train_model(
        texts,
        model_type=config.model_type,
        size=config.vocabulary_size,
        coverage=config.character_coverage,
        sample=config.max_training_texts,
        seed=seed,
    )


def load_codec(directory: Path) -> Codec:
    """The codec that `save` wrote. Raises CheckpointError if it is missing or damaged."""
    try:
        tree = json.loads((directory / CODEC_FILE).read_text(encoding="utf-8"))
        kind = tree["kind"]
        if kind == "sentencepiece":
            return SentencePieceCodec((directory / MODEL_FILE).read_bytes())
        if kind == "characters":
            return CharacterCodec(tree["characters"])
        if kind == "words":
            return WordCodec(tree["words"])
    except (OSError, ValueError, KeyError, TypeError, DataError) as error:
        raise CheckpointError(f"{directory}: the codec cannot be read: {error}") from None
    if kind == "bytes":
        return ByteCodec()
    raise CheckpointError(f"{directory / CODEC_FILE}: unknown kind {kind!r} (sentencepiece, characters, bytes, words)")


def round_trip(codec: Codec, texts: Iterable[str]) -> Lossless:
    """How many of `texts` do not come back from the codec as they were, and the first of them."""
    checked = lossy = 0
    example: str | None = None
    for text in texts:
        checked += 1
        if codec.decode(codec.encode(text).tolist()) != text:
            lossy += 1
            example = text if example is None else example
    return Lossless(checked, lossy, example)
