"""Tiny models from tracks to tracks, put together by hand, and batches for them."""

from typing import Any

import torch

from transduce.data.batch import Batch, Padded
from transduce.model.recurrent import RecurrentEncoderConfig
from transduce.model.recurrent_decoder import RecurrentDecoderConfig
from transduce.model.seq2seq import DecoderConfig, EncoderConfig, Seq2Seq, build_decoder, build_encoder
from transduce.model.ssru import SSRUDecoderConfig
from transduce.model.steps import StepsConfig, StepsEmbedding, StepsFrontend, StepsHead, StepsHeadConfig
from transduce.model.transformer import TransformerDecoderConfig, TransformerEncoderConfig

TINY = {"width": 16, "heads": 4, "feed_forward": 24, "layers": 2, "dropout": 0.0}
ENCODERS: dict[str, EncoderConfig] = {
    "lstm": RecurrentEncoderConfig(kind="lstm", width=8, dropout=0.0),
    "gru": RecurrentEncoderConfig(kind="gru", width=8, dropout=0.0),
    "transformer": TransformerEncoderConfig(**TINY),
}
DECODERS: dict[str, DecoderConfig] = {
    "lstm": RecurrentDecoderConfig(kind="lstm", attention="none", width=16, dropout=0.0),
    "lstm-additive": RecurrentDecoderConfig(kind="lstm", attention="additive", width=16, attention_size=8, dropout=0.0),
    "gru": RecurrentDecoderConfig(kind="gru", attention="dot", width=16, dropout=0.0),
    "transformer": TransformerDecoderConfig(**TINY),
    "ssru": SSRUDecoderConfig(**TINY),
}
MIXTURE = StepsHeadConfig(kind="mixture", components=3)


def make_model(encoder: str, decoder: str, head: StepsHeadConfig = MIXTURE, *, size: int = 2, seed: int = 1) -> Seq2Seq:
    """From frames of `size` numbers to frames of `size` numbers, in evaluation mode."""
    torch.manual_seed(seed)
    frontend = StepsFrontend(StepsConfig(), size, output_size=12)
    reader = build_encoder(ENCODERS[encoder], 12)
    writer = build_decoder(DECODERS[decoder], 10, reader)
    ends: dict[str, Any] = {
        "embedding": StepsEmbedding(size, 10, hidden_size=head.previous_hidden_size, feeds=head.feedback == "previous"),
        "head": StepsHead(head, writer.output_size, size=size),
    }
    return Seq2Seq(frontend, reader, decoder=writer, **ends).eval()


def make_batch(source_lengths: list[int], target_lengths: list[int], *, size: int = 2, seed: int = 1) -> Batch:
    """Random frames; what stands in the padding is random too."""
    generator = torch.Generator().manual_seed(seed)
    source, target = (
        Padded(torch.randn(len(lengths), max(lengths), size, generator=generator), torch.tensor(lengths))
        for lengths in (source_lengths, target_lengths)
    )
    return Batch(torch.arange(len(source_lengths)), source, target)


def with_padding(rows: Padded, value: float, *, extra: int = 0) -> Padded:
    """The same rows with `extra` more columns and `value` in all that is not real."""
    wider = torch.nn.functional.pad(rows.data, (0, 0, 0, extra))
    mask = torch.arange(wider.shape[1])[None, :] < rows.lengths[:, None]
    return Padded(wider.masked_fill(~mask[..., None], value), rows.lengths)
