"""The model: a front-end, an encoder, a decoder and a head, put together once for every architecture.

In: tensors. Out: tensors. It never sees files, tokenizers or devices. `build_model` is the one place where a
configuration becomes modules.
"""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from transduce.data.batch import Batch, Padded
from transduce.model.conformer import ConformerConfig, ConformerEncoder
from transduce.model.frontends import (
    EndShape,
    Frontend,
    NoSource,
    Pixels,
    Sound,
    Steps,
    TokenEmbedding,
    TokenFrontend,
    TokensConfig,
    Vocabulary,
    expect_vocabulary,
)
from transduce.model.heads import CTCHead, TokenHead
from transduce.model.images import CnnConfig, ImageFrontend, PatchesConfig
from transduce.model.interface import Decoder, Encoder, Memory, State
from transduce.model.no_encoder import NoEncoder, NoEncoderConfig
from transduce.model.no_source import NoSourceFrontend, NoSourceFrontendConfig
from transduce.model.recurrent import RecurrentEncoder, RecurrentEncoderConfig
from transduce.model.recurrent_decoder import RecurrentDecoder, RecurrentDecoderConfig
from transduce.model.sound import SoundConfig, SoundFrontend
from transduce.model.ssru import SSRUDecoder, SSRUDecoderConfig
from transduce.model.steps import StepsConfig, StepsEmbedding, StepsFrontend, StepsHead, StepsHeadConfig
from transduce.model.transformer import TransformerDecoder, TransformerDecoderConfig, TransformerEncoder, TransformerEncoderConfig
from transduce.settings import Settings

EncoderConfig = Annotated[
    RecurrentEncoderConfig | TransformerEncoderConfig | ConformerConfig | NoEncoderConfig, Field(discriminator="kind")
]
FrontendConfig = Annotated[
    TokensConfig | StepsConfig | SoundConfig | CnnConfig | PatchesConfig | NoSourceFrontendConfig, Field(discriminator="kind")
]
TargetEmbedding = TokenEmbedding | StepsEmbedding
Head = TokenHead | StepsHead
DecoderConfig = Annotated[RecurrentDecoderConfig | TransformerDecoderConfig | SSRUDecoderConfig, Field(discriminator="kind")]


class ModelConfig(Settings):
    """The network: a front-end, one encoder, one decoder, and what they share."""

    frontend: FrontendConfig = TokensConfig()
    """From what a codec makes to vectors; its `kind` is tokens for texts, steps for tracks of numbers, sound for recordings,
    cnn or patches for pictures, none for language models."""
    encoder: EncoderConfig = TransformerEncoderConfig()
    """The encoder; its `kind` is lstm, gru, transformer, conformer or none."""
    decoder: DecoderConfig = TransformerDecoderConfig()
    """The decoder; its `kind` is lstm, gru, transformer or ssru."""
    head: StepsHeadConfig = StepsHeadConfig()
    """How numbers are predicted; for targets of tracks only."""
    ctc: bool = False
    """A CTC output layer on the encoder's states beside the decoder (Kim 2017), for sources and targets that run in the same order, such as
    speech and text; trained by `train.loss.ctc_weight`, used by `search.ctc_weight`."""
    embedding_size: int = Field(default=256, ge=1)
    """Width of the vectors that go into encoder and decoder: embeddings of tokens, lifted frames of numbers."""
    tie: Literal["none", "output", "all"] = "output"
    """Shared weights: output = target embedding and output layer (2-way); all = also the source embedding (3-way, joint vocabulary)."""
    embedding_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of embedding elements zeroed in training."""
    word_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of whole tokens replaced by the unknown token in training, source and target."""
    reverse_source: bool = False
    """Feed the source right to left (Sutskever 2014)."""
    max_source_length: int = Field(default=1024, ge=1)
    """Longest source in tokens, end included. A longer one is reported by training and refused or flagged by prediction."""
    max_target_length: int = Field(default=1024, ge=1)
    """Longest target in tokens, end included."""


class Seq2Seq(nn.Module):
    """Encoder-decoder from any source to any target. Shapes: see `transduce.model`."""

    def __init__(
        self,
        frontend: Frontend,
        encoder: Encoder,
        *,
        embedding: TargetEmbedding,
        decoder: Decoder[State],
        head: Head,
        ctc: CTCHead | None = None,
    ) -> None:
        super().__init__()
        self.frontend = frontend
        self.encoder = encoder
        self.embedding = embedding
        self.decoder = decoder
        self.head = head
        self.ctc = ctc

    def encode(self, source: Padded) -> Memory:
        """Padded -> Memory of B sources, projected for the decoder."""
        vectors, lengths = self.frontend(source)
        return self.decoder.project(self.encoder(vectors, lengths))

    def start(self, memory: Memory) -> State:
        """The decoder state before the first output, one row per source."""
        return self.decoder.start(memory)

    def step(self, previous: Tensor, state: State, memory: Memory) -> tuple[Tensor, State]:
        """previous: (N,) token ids (begin-of-sequence first) or (N, C) numbers -> the head's output (N, V) and the next state."""
        hidden, state = self.decoder.step(self.embedding(previous), state, memory)
        return self.head(hidden), state

    def decode(self, memory: Memory, previous: Tensor, *, with_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """Teacher forcing: previous outputs (B, T) or (B, T, C) -> hidden states (B, T, D) before the head, attention (B, T, S)."""
        return self.decoder(self.embedding(previous), memory, with_attention=with_attention)  # type: ignore[no-any-return]

    def memory_of(self, batch: Batch) -> Memory:
        """One row per target: the sources are encoded once and repeated where they have several targets."""
        memory = self.encode(batch.source)
        return memory if batch.owners is None else memory.select(batch.owners)

    def forward(self, batch: Batch, previous: Tensor | None = None) -> Tensor:
        """Teacher forcing: hidden states (B, T, D) before the head. `previous` (B, T) replaces the shifted target."""
        return self.decode(self.memory_of(batch), self.previous(batch.target) if previous is None else previous)[0]

    def attention(self, batch: Batch, memory: Memory | None = None) -> Tensor | None:
        """Attention weights (B, T, S) of the given targets over the memory in the source's order; None for a fixed context vector.

        memory: of the batch, where it is known already.
        """
        memory = memory or self.memory_of(batch)
        _, weights = self.decode(memory, self.previous(batch.target), with_attention=True)
        return None if weights is None else self.frontend.as_written(weights, memory.mask.sum(1))

    def previous(self, target: Padded) -> Tensor:
        """(B, T) or (B, T, C): the target shifted right behind its beginning."""
        return self.embedding.previous(target)


def build_model(config: ModelConfig, source: EndShape, target: EndShape) -> Seq2Seq:
    """Modules from a configuration. Raises ConfigError where parts do not fit the data (most are refused by `contradictions.py` before)."""
    match target:
        case Steps(size):
            return build_track_model(config, source, size)
    words = expect_vocabulary(target, "target")
    embedding = token_embedding(config, words)
    frontend = build_frontend(config, source, shared=embedding if config.tie == "all" else None)
    encoder = build_encoder(config.encoder, frontend.output_size)
    decoder = build_decoder(config.decoder, config.embedding_size, encoder)
    head = TokenHead(decoder.output_size, words.size, tied=None if config.tie == "none" else embedding.weight)
    ctc = CTCHead(encoder.output_size, words.size, blank_id=words.pad_id) if config.ctc else None
    return Seq2Seq(frontend, encoder, embedding=embedding, decoder=decoder, head=head, ctc=ctc)


def build_track_model(config: ModelConfig, source: EndShape, size: int) -> Seq2Seq:
    """A model that predicts frames of `size` numbers."""
    width, hidden = config.embedding_size, config.head.previous_hidden_size
    feeds = config.head.feedback == "previous"
    embedding = StepsEmbedding(size, width, hidden_size=hidden, dropout=config.embedding_dropout, feeds=feeds)
    frontend = build_frontend(config, source, shared=None)
    encoder = build_encoder(config.encoder, frontend.output_size)
    decoder = build_decoder(config.decoder, width, encoder)
    return Seq2Seq(frontend, encoder, embedding=embedding, decoder=decoder, head=StepsHead(config.head, decoder.output_size, size=size))


def token_embedding(config: ModelConfig, vocabulary: Vocabulary) -> TokenEmbedding:
    """The embedding of one end of text."""
    return TokenEmbedding(vocabulary, config.embedding_size, dropout=config.embedding_dropout, word_dropout=config.word_dropout)


def build_frontend(config: ModelConfig, source: EndShape, *, shared: TokenEmbedding | None) -> Frontend:
    """The front-end that a configuration names; `shared` is the target's embedding where both ends have one."""
    match config.frontend, source:
        case StepsConfig() as steps, Steps(size):
            return StepsFrontend(steps, size, output_size=config.embedding_size, dropout=config.embedding_dropout)
        case SoundConfig() as hearing, Sound() as sound:
            return SoundFrontend(hearing, sound, output_size=config.embedding_size, dropout=config.embedding_dropout)
        case CnnConfig() | PatchesConfig() as seeing, Pixels() as pixels:
            return ImageFrontend(seeing, pixels, output_size=config.embedding_size, dropout=config.embedding_dropout)
        case NoSourceFrontendConfig(), NoSource():
            return NoSourceFrontend()
    return TokenFrontend(shared or token_embedding(config, expect_vocabulary(source, "source")), config.reverse_source)


def build_encoder(config: EncoderConfig, input_size: int) -> Encoder:
    """The encoder that a configuration names, for inputs (B, S, input_size)."""
    if config.kind == "transformer":
        return TransformerEncoder(config, input_size)
    if config.kind == "conformer":
        return ConformerEncoder(config, input_size)
    if config.kind == "none":
        return NoEncoder(input_size)
    return RecurrentEncoder(config, input_size)


def build_decoder(config: DecoderConfig, input_size: int, encoder: Encoder) -> Decoder[State]:
    """The decoder that a configuration names, for the memory that `encoder` makes."""
    if config.kind == "transformer":
        return TransformerDecoder(config, input_size, encoder=encoder)  # type: ignore[return-value]
    if config.kind == "ssru":
        return SSRUDecoder(config, input_size, encoder=encoder)  # type: ignore[return-value]
    return RecurrentDecoder(config, input_size, encoder=encoder)  # type: ignore[return-value]
