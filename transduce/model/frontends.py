"""From what a codec makes to vectors: one front-end per source modality.

In: `Padded`. Out: vectors (B, S, E) and lengths (B,). Positions are the encoder's business, not the front-end's.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from transduce.data.batch import Padded
from transduce.errors import ConfigError
from transduce.model.features import FeaturesConfig
from transduce.model.layers import Dropout, random_bytes
from transduce.settings import Settings


class Frontend(Protocol):
    """A module from `Padded` source to vectors and their lengths."""

    output_size: int

    def __call__(self, source: Padded) -> tuple[Tensor, Tensor]:
        """-> (B, S, E), (B,)."""
        ...

    def as_written(self, weights: Tensor, lengths: Tensor) -> Tensor:
        """Attention (B, T, S) over a memory of so many real positions (B,), put back into the order of the source."""
        ...


@dataclass(frozen=True)
class Vocabulary:
    """The numbers of a token codec that a model needs."""

    size: int
    pad_id: int
    bos_id: int
    eos_id: int
    unk_id: int


@dataclass(frozen=True)
class Steps:
    """Frames of `size` numbers."""

    size: int


@dataclass(frozen=True)
class Sound:
    """Samples at one rate, and what is computed of them. mean, std: of each feature over the training data."""

    sample_rate_hz: int
    features: FeaturesConfig
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Pixels:
    """Square pictures of `size` x `size` pixels, seen in cells of `patch` x `patch`. mean, std: of each colour, 0 to 1."""

    size: int
    patch: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def grid(self) -> int:
        """Cells along each side."""
        return self.size // self.patch


@dataclass(frozen=True)
class NoSource:
    """Nothing: the source of a language model."""


EndShape = Vocabulary | Steps | Sound | Pixels | NoSource
"""What a model must know of one end of its data."""


def expect_vocabulary(shape: EndShape, end: str) -> Vocabulary:
    """The shape of an end that must be text. Raises ConfigError where it is not."""
    match shape:
        case Vocabulary():
            return shape
        case _:
            raise ConfigError(f"the {end} is {type(shape).__name__.lower()}, but this part of the model takes tokens")


class TokenEmbedding(nn.Module):
    """Token ids to vectors (Vaswani 2017, 3.4: scaled by sqrt(E)), with dropout of elements and of whole tokens."""

    def __init__(self, vocabulary: Vocabulary, size: int, *, dropout: float, word_dropout: float) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.output_size = size
        self.weight = nn.Parameter(torch.randn(vocabulary.size, size) * size**-0.5)
        self.dropout = Dropout(dropout)
        self.word_threshold = round(word_dropout * 256)

    def forward(self, tokens: Tensor) -> Tensor:
        """(...) int64 -> (..., E)."""
        if self.training and self.word_threshold:
            dropped = (random_bytes(tokens.shape, tokens.device) < self.word_threshold) & (tokens > self.vocabulary.eos_id)
            tokens = tokens.masked_fill(dropped, self.vocabulary.unk_id)
        scale = self.output_size**0.5
        return self.dropout(nn.functional.embedding(tokens, self.weight) * scale)  # type: ignore[no-any-return]

    def previous(self, target: Padded) -> Tensor:
        """(B, T): the target shifted right behind begin-of-sequence."""
        return torch.cat([self.begin(len(target.data), target.data.device), target.data[:, :-1]], dim=1)  # (B, T)

    def begin(self, rows: int, device: torch.device) -> Tensor:
        """(B, 1): begin-of-sequence."""
        return torch.full((rows, 1), self.vocabulary.bos_id, device=device)


def token_vocabulary(module: nn.Module) -> Vocabulary:
    """The vocabulary of a model whose target is text, from its target embedding. Raises ConfigError for any other."""
    match module:
        case TokenEmbedding():
            return module.vocabulary
    raise ConfigError("the model's target is numbers, but this needs one that writes text")


class TokensConfig(Settings):
    """Token ids, looked up in the source embedding."""

    kind: Literal["tokens"] = "tokens"


class TokenFrontend(nn.Module):
    """Source tokens to vectors; `reverse` turns each row round within its length (Sutskever 2014, 3.3)."""

    def __init__(self, embedding: TokenEmbedding, reverse: bool) -> None:
        super().__init__()
        self.embedding = embedding
        self.reverse = reverse
        self.output_size = embedding.output_size

    def forward(self, source: Padded) -> tuple[Tensor, Tensor]:
        """Padded (B, S) -> (B, S, E), (B,)."""
        tokens = source.data
        if self.reverse:
            tokens = tokens.gather(1, reversed_positions(source.lengths, tokens.shape[1]))
        return self.embedding(tokens), source.lengths

    def as_written(self, weights: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, S), turned back round if the source was."""
        if not self.reverse:
            return weights
        return weights.gather(2, reversed_positions(lengths, weights.shape[2])[:, None, :].expand_as(weights))


def reversed_positions(lengths: Tensor, width: int) -> Tensor:
    """(B, S): for each position the one that it swaps with when real tokens are turned round and padding stays."""
    positions = torch.arange(width, device=lengths.device)[None, :]
    mirrored = lengths[:, None] - 1 - positions
    return torch.where(mirrored >= 0, mirrored, positions)  # (B, S)
