"""Codecs of every kind: what one end of a run's data is made of, chosen, learned, stored and loaded here.

In: settings and values. Out: a `Codec`. The decision a reader would question: a codec makes both the row that is stored
and, later, the batch; whether a row is token ids or numbers is nobody else's business.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from transduce.data.audio import AudioCodec, AudioConfig
from transduce.data.batch import Padded
from transduce.data.fields import ValueKind
from transduce.data.frames import FramesCodec, FramesConfig
from transduce.data.image import ImageCodec, ImageConfig
from transduce.data.no_source import NoSourceCodec, NoSourceConfig
from transduce.data.report import Lossless
from transduce.data.symbols import CODEC_FILE
from transduce.data.text import (
    BytesConfig,
    CharactersConfig,
    SentencePieceConfig,
    StoredConfig,
    WordsConfig,
    fit_text_codec,
    load_text_codec,
)
from transduce.data.tokens import TextCodec
from transduce.data.values import Row
from transduce.errors import CheckpointError, ConfigError, DataError
from transduce.model.frontends import EndShape

TEXT_KINDS = ("sentencepiece", "characters", "bytes", "words")
VALUE_KINDS: dict[str, ValueKind] = {
    **dict.fromkeys((*TEXT_KINDS, "stored"), "text"),
    "frames": "frames",
    "audio": "media",
    "image": "media",
    "none": "nothing",
}

CodecConfig = Annotated[
    SentencePieceConfig
    | CharactersConfig
    | BytesConfig
    | WordsConfig
    | StoredConfig
    | FramesConfig
    | AudioConfig
    | ImageConfig
    | NoSourceConfig,
    Field(discriminator="kind"),
]


class Codec(Protocol):
    """One end of the data: from values to stored rows, from rows to batches."""

    @property
    def kind(self) -> str:
        """The name in the configuration."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides what the codec does."""
        ...

    @property
    def shape(self) -> EndShape:
        """What the model must know."""
        ...

    @property
    def row_type(self) -> np.dtype[Any]:
        """Type of the stored numbers."""
        ...

    def rows(self, values: Sequence[Any], *, thorough: bool = False) -> list[Row]:
        """A row for each value; one that cannot be read has an empty row with its `problem`.

        thorough: read the whole of a media file, not only what its length can be told from.
        """
        ...

    def contents(self, values: Sequence[Any]) -> Iterator[Row]:
        """The rows of values that are used at once: each holds all that its value does, so that a media file is decoded here and not again.

        Media files are decoded one by one, as they are asked for.
        """
        ...

    def collate(self, rows: Sequence[NDArray[Any]], keys: NDArray[np.uint64] | None) -> Padded:
        """A batch of what `rows` or `contents` made. keys: (B,), what augmentation draws from; None = none. Raises BadValueError."""
        ...

    def flags(self, value: Any, row: NDArray[Any]) -> tuple[str, ...]:
        """What a reader of a prediction should know of its source."""
        ...

    def num_unknown(self, row: NDArray[Any]) -> int:
        """Positions of the source that the codec has no name for."""
        ...

    def labels(self, row: NDArray[Any]) -> list[str]:
        """One string per position of the source, for display; none where there is nothing to show."""
        ...

    def check(self, values: Iterable[Any]) -> Lossless | None:
        """How many of `values` do not come back as they were; None for a kind that is never turned back."""
        ...

    def describe(self) -> str:
        """For people: `characters, 45 pieces`."""
        ...

    def save(self, directory: Path) -> None:
        """Write the codec into `directory`; `load_codec` reads it."""
        ...


def fit_codec(config: CodecConfig, values: Iterable[Any], seed: int) -> Codec:
    """Learn what `config` asks for from `values`, which are read once and need not fit into memory.

    Raises DataError if there is nothing to learn from, ConfigError if the vocabulary is too small for the characters, CheckpointError
    if a stored codec is not there.
    """
    if config.kind == "frames":
        return FramesCodec.fit(config, values)
    if config.kind == "audio":
        return AudioCodec.fit(config, values, seed)
    if config.kind == "image":
        return ImageCodec.fit(config, values)
    if config.kind == "none":
        return NoSourceCodec()
    if config.kind == "stored":
        return stored_codec(config.path)
    return fit_text_codec(config, values, seed)


def load_codec(directory: Path) -> Codec:
    """The codec that `save` wrote. Raises CheckpointError if it is missing or damaged."""
    try:
        tree = json.loads((directory / CODEC_FILE).read_text(encoding="utf-8"))
        kind = tree["kind"]
        if kind in TEXT_KINDS:
            return load_text_codec(directory, tree)
        if kind == "frames":
            return FramesCodec.from_tree(tree)
        if kind == "audio":
            return AudioCodec.from_tree(tree)
        if kind == "image":
            return ImageCodec.from_tree(tree)
        if kind == "none":
            return NoSourceCodec()
    except (OSError, ValueError, KeyError, TypeError, DataError) as error:
        raise CheckpointError(f"{directory}: the codec cannot be read: {error}") from None
    raise CheckpointError(f"{directory / CODEC_FILE}: unknown kind {kind!r} ({', '.join(VALUE_KINDS)})")


def stored_codec(path: Path) -> TextCodec:
    """The target codec of a run folder (finished or not) or model directory.

    Raises CheckpointError where there is none, ConfigError where the target is not text.
    """
    places = (path / "target", path / "model" / "target", *sorted((path / "checkpoints").glob("step-*/target")))
    found = next((place for place in places if (place / CODEC_FILE).is_file()), None)
    if found is None:
        looked = ", ".join(str(place) for place in places[:2])
        raise CheckpointError(f"{path} is neither a run folder with a model nor a model directory: it has no target codec ({looked})")
    return as_text_codec(load_codec(found), f"target of {path}")


def as_frames_codec(codec: Codec, end: str) -> FramesCodec:
    """The same codec, known to be one of numbers. Raises ConfigError where it is not."""
    match codec:
        case FramesCodec():
            return codec
    raise ConfigError(f"the {end} is {codec.kind}, not frames of numbers")


def as_text_codec(codec: Codec, end: str) -> TextCodec:
    """The same codec, known to be one of text. Raises ConfigError where it is not."""
    if codec.kind not in TEXT_KINDS:
        raise ConfigError(f"the {end} is {codec.kind}, not text: this works with {', '.join(TEXT_KINDS)}")
    return cast(TextCodec, codec)
