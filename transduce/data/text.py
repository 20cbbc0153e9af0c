"""Text codecs: the settings of each kind, and how one is learned from texts or loaded.

In: settings and texts. Out: a `TextCodec`. The kinds themselves are in `subwords.py` (SentencePiece) and `symbols.py`
(characters, bytes, words). The decision a reader would question: no kind normalises anything. What the user wrote is
what the model learns to write; `round_trip` counts what a codec cannot give back.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from transduce.data.subwords import MODEL_FILE, SentencePieceCodec, read_model, train_model
from transduce.data.symbols import ByteCodec, CharacterCodec, WordCodec
from transduce.data.tokens import TextCodec
from transduce.settings import Settings


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


class StoredConfig(Settings):
    """The target codec of a model that is there already, whatever its kind."""

    kind: Literal["stored"] = "stored"
    path: Path
    """A run folder or model directory whose target is text."""


TextConfig = SentencePieceConfig | CharactersConfig | BytesConfig | WordsConfig


def fit_text_codec(config: TextConfig, texts: Iterable[str], seed: int) -> TextCodec:
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


def load_text_codec(directory: Path, tree: Mapping[str, Any]) -> TextCodec:
    """The codec that `save` wrote; `tree` is its codec.json. Raises what reading a damaged one raises: OSError, KeyError, DataError."""
    match tree["kind"]:
        case "characters":
            return CharacterCodec(tree["characters"])
        case "words":
            return WordCodec(tree["words"])
        case "bytes":
            return ByteCodec()
        case _:
            return SentencePieceCodec((directory / MODEL_FILE).read_bytes())
