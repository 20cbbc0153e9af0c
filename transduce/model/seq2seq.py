"""The model: a front-end, an encoder, a decoder and a head, put together once for every architecture.

In: tensors. Out: tensors. It never sees files, tokenizers or devices. `build_model` is the one place where a
configuration becomes modules.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from transduce.data.batch import Batch, Padded
from transduce.model.frontends import TokenEmbedding, TokenFrontend, Vocabulary, reversed_positions
from transduce.model.heads import TokenHead
from transduce.model.interface import Decoder, Encoder, Memory, State
from transduce.model.recurrent import RecurrentEncoder, RecurrentEncoderConfig
from transduce.model.recurrent_decoder import RecurrentDecoder, RecurrentDecoderConfig
from transduce.model.ssru import SSRUDecoder, SSRUDecoderConfig
from transduce.model.transformer import TransformerDecoder, TransformerDecoderConfig, TransformerEncoder, TransformerEncoderConfig
from transduce.settings import Settings

EncoderConfig = Annotated[RecurrentEncoderConfig | TransformerEncoderConfig, Field(discriminator="kind")]
DecoderConfig = Annotated[RecurrentDecoderConfig | TransformerDecoderConfig | SSRUDecoderConfig, Field(discriminator="kind")]


class ModelConfig(Settings):
    """The network: embeddings, one encoder, one decoder, and what they share."""

    encoder: EncoderConfig = TransformerEncoderConfig()
    """The encoder; its `kind` is lstm, gru or transformer."""
    decoder: DecoderConfig = TransformerDecoderConfig()
    """The decoder; its `kind` is lstm, gru, transformer or ssru."""
    embedding_size: int = Field(default=256, ge=1)
    """Width of the token embeddings, source and target."""
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
    """Encoder-decoder over tokens. Shapes: see `transduce.model`."""

    def __init__(
        self, frontend: TokenFrontend, encoder: Encoder, *, embedding: TokenEmbedding, decoder: Decoder[State], head: TokenHead
    ) -> None:
        super().__init__()
        self.frontend = frontend
        self.encoder = encoder
        self.embedding = embedding
        self.decoder = decoder
        self.head = head

    def encode(self, source: Padded) -> Memory:
        """Padded (B, S) -> Memory of B sentences, projected for the decoder."""
        vectors, lengths = self.frontend(source)
        return self.decoder.project(self.encoder(vectors, lengths))

    def start(self, memory: Memory) -> State:
        """The decoder state before the first token, one row per sentence."""
        return self.decoder.start(memory)

    def step(self, previous: Tensor, state: State, memory: Memory) -> tuple[Tensor, State]:
        """previous: (N,) token ids (begin-of-sequence first) -> logits (N, V) and the next state."""
        hidden, state = self.decoder.step(self.embedding(previous), state, memory)
        return self.head(hidden), state

    def forward(self, batch: Batch, previous: Tensor | None = None) -> Tensor:
        """Teacher forcing: hidden states (B, T, D) before the head. `previous` (B, T) replaces the shifted target."""
        memory = self.encode(batch.source)
        hidden, _ = self.decoder(self.embedding(self.previous_tokens(batch.target) if previous is None else previous), memory)
        return hidden  # type: ignore[no-any-return]

    def attention(self, batch: Batch) -> Tensor | None:
        """Attention weights (B, T, S) of the given targets over the source as written; None for a fixed context vector."""
        memory = self.encode(batch.source)
        _, weights = self.decoder(self.embedding(self.previous_tokens(batch.target)), memory, with_attention=True)
        if weights is None or not self.frontend.reverse:
            return weights  # type: ignore[no-any-return]
        positions = reversed_positions(batch.source)[:, None, :].expand_as(weights)
        return weights.gather(2, positions)  # type: ignore[no-any-return]

    def previous_tokens(self, target: Padded) -> Tensor:
        """(B, T): the target shifted right behind begin-of-sequence."""
        begin = torch.full_like(target.data[:, :1], self.embedding.vocabulary.bos_id)
        return torch.cat([begin, target.data[:, :-1]], dim=1)  # (B, T)


def build_model(config: ModelConfig, source: Vocabulary, target: Vocabulary) -> Seq2Seq:
    """Modules from a configuration. Raises ConfigError where parts do not fit (checked by `config.check_model`)."""
    size, dropout, words = config.embedding_size, config.embedding_dropout, config.word_dropout
    embedding = TokenEmbedding(target, size, dropout=dropout, word_dropout=words)
    shared = config.tie == "all"
    source_embedding = embedding if shared else TokenEmbedding(source, size, dropout=dropout, word_dropout=words)
    encoder = build_encoder(config.encoder, size)
    decoder = build_decoder(config.decoder, size, encoder)
    tied = None if config.tie == "none" else embedding.weight
    head = TokenHead(decoder.output_size, target.size, tied=tied)
    return Seq2Seq(TokenFrontend(source_embedding, config.reverse_source), encoder, embedding=embedding, decoder=decoder, head=head)


def build_encoder(config: EncoderConfig, input_size: int) -> Encoder:
    """The encoder that a configuration names, for inputs (B, S, input_size)."""
    if config.kind == "transformer":
        return TransformerEncoder(config, input_size)
    return RecurrentEncoder(config, input_size)


def build_decoder(config: DecoderConfig, input_size: int, encoder: Encoder) -> Decoder[State]:
    """The decoder that a configuration names, for the memory that `encoder` makes."""
    if config.kind == "transformer":
        return TransformerDecoder(config, input_size, encoder=encoder)  # type: ignore[return-value]
    if config.kind == "ssru":
        return SSRUDecoder(config, input_size, encoder=encoder)  # type: ignore[return-value]
    return RecurrentDecoder(config, input_size, encoder=encoder)  # type: ignore[return-value]
