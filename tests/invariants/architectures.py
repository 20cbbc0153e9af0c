"""The encoders and decoders that every invariant is checked on, tiny, by name. A new architecture adds a line here."""

from typing import Any

import torch

from transduce.data.batch import Batch, Padded
from transduce.model.conformer import ConformerConfig
from transduce.model.features import FeaturesConfig
from transduce.model.frontends import Pixels, Sound, Steps, Vocabulary
from transduce.model.images import CnnConfig, PatchesConfig
from transduce.model.no_encoder import NoEncoderConfig
from transduce.model.recurrent import RecurrentEncoderConfig
from transduce.model.recurrent_decoder import RecurrentDecoderConfig
from transduce.model.seq2seq import DecoderConfig, EncoderConfig, ModelConfig, Seq2Seq, build_model
from transduce.model.sound import SoundConfig
from transduce.model.ssru import SSRUDecoderConfig
from transduce.model.steps import StepsConfig, StepsHeadConfig
from transduce.model.transformer import TransformerDecoderConfig, TransformerEncoderConfig

TINY = {"width": 16, "heads": 4, "feed_forward": 24, "layers": 2}
LOCATION = {"location_filters": 3, "location_kernel": 4}
RNN = {"width": 12, "heads": 3, "attention_size": 10}
SOUND = Sound(8_000, FeaturesConfig(kind="fbank", num_bins=12), (8.0,) * 12, (3.0,) * 12)
PICTURE = Pixels(size=16, patch=8, mean=(0.5, 0.5, 0.5), std=(0.3, 0.3, 0.3))
SOURCE = Vocabulary(size=13, pad_id=0, bos_id=1, eos_id=2, unk_id=3)
TARGET = Vocabulary(size=11, pad_id=0, bos_id=1, eos_id=2, unk_id=3)

ENCODERS: dict[str, EncoderConfig] = {
    "lstm": RecurrentEncoderConfig(kind="lstm", width=12, bidirectional=False),
    "gru": RecurrentEncoderConfig(kind="gru", width=6, layers=2),
    "lstm-deep": RecurrentEncoderConfig(kind="lstm", width=6, layers=3, residual=True, layer_norm=True, variational=True),
    "lstm-pyramid": RecurrentEncoderConfig(kind="lstm", width=6, layers=3, pyramid=2),
    "transformer-pre-sinusoidal": TransformerEncoderConfig(**TINY),
    "transformer-post-learned": TransformerEncoderConfig(**TINY, norm_place="post", positions="learned", max_positions=20),
    "transformer-rope-swiglu": TransformerEncoderConfig(**TINY, positions="rope", norm="rms_norm", activation="swiglu", key_value_heads=2),
    "transformer-relative-gelu": TransformerEncoderConfig(**TINY, positions="relative", activation="gelu"),
    "conformer": ConformerConfig(**TINY, kernel_size=5),
    "none": NoEncoderConfig(),
}
DECODERS: dict[str, DecoderConfig] = {
    "lstm-none": RecurrentDecoderConfig(kind="lstm", attention="none", layers=2, **RNN),
    "gru-none-fed": RecurrentDecoderConfig(kind="gru", attention="none", feed_summary=True, **RNN),
    "lstm-additive": RecurrentDecoderConfig(kind="lstm", attention="additive", **RNN),
    "lstm-additive-gated": RecurrentDecoderConfig(kind="lstm", attention="additive", gate=True, **RNN),
    "gru-additive-maxout": RecurrentDecoderConfig(kind="gru", attention="additive", layers=2, deep_output="maxout", residual=True, **RNN),
    "gru-additive-after": RecurrentDecoderConfig(kind="gru", attention="additive", attend="after", **RNN),
    "gru-location": RecurrentDecoderConfig(kind="gru", attention="location", **LOCATION, **RNN),
    "lstm-location-feeding": RecurrentDecoderConfig(kind="lstm", attention="location", attend="after", layers=2, **LOCATION, **RNN),
    "lstm-dot-feeding": RecurrentDecoderConfig(kind="lstm", attention="dot", layers=2, layer_norm=True, feed_summary=True, **RNN),
    "gru-dot": RecurrentDecoderConfig(kind="gru", attention="dot", input_feeding=False, bridge="zero", **RNN),
    "gru-general-feeding": RecurrentDecoderConfig(kind="gru", attention="general", layers=2, residual=True, variational=True, **RNN),
    "gru-general-gated": RecurrentDecoderConfig(kind="gru", attention="general", gate=True, input_feeding=False, **RNN),
    "lstm-general": RecurrentDecoderConfig(kind="lstm", attention="general", input_feeding=False, layers=2, **RNN),
    "lstm-multihead-feeding": RecurrentDecoderConfig(kind="lstm", attention="multihead", **RNN),
    "gru-multihead-before": RecurrentDecoderConfig(kind="gru", attention="multihead", attend="before", **RNN),
    "transformer-pre-sinusoidal": TransformerDecoderConfig(**TINY),
    "transformer-post-learned": TransformerDecoderConfig(**TINY, norm_place="post", positions="learned", max_positions=20),
    "transformer-rope-grouped": TransformerDecoderConfig(**TINY, positions="rope", key_value_heads=2, norm="rms_norm", activation="swiglu"),
    "transformer-relative": TransformerDecoderConfig(**TINY, positions="relative", activation="gelu"),
    "ssru": SSRUDecoderConfig(**TINY),
    "ssru-post-grouped": SSRUDecoderConfig(**TINY, norm_place="post", key_value_heads=1),
}
SOUND_FRONTENDS: dict[str, SoundConfig] = {
    "conv2d": SoundConfig(channels=3),
    "stack": SoundConfig(subsampling="stack", factor=3, normalize="utterance"),
}
IMAGE_FRONTENDS: dict[str, CnnConfig | PatchesConfig] = {
    "cnn": CnnConfig(widths=(8, 16)),
    "patches": PatchesConfig(width=12, heads=3, feed_forward=16),
    "vit": PatchesConfig(width=12, layers=1, heads=3, feed_forward=16, class_token=True),
}
PAIRS = [(encoder, decoder) for encoder in ENCODERS for decoder in DECODERS]
EACH_ONCE = [(encoder, list(DECODERS)[0 if index else 2]) for index, encoder in enumerate(ENCODERS)] + [("gru", name) for name in DECODERS]
"""Each encoder and each decoder at least once, for what does not depend on the combination."""


def make_model(encoder: str, decoder: str, *, seed: int = 1, reverse: bool = False) -> Seq2Seq:
    """A tiny model in evaluation mode, embeddings not tied in width (10) to anything else."""
    torch.manual_seed(seed)
    config = ModelConfig(encoder=ENCODERS[encoder], decoder=DECODERS[decoder], embedding_size=10, reverse_source=reverse)
    return build_model(config, SOURCE, TARGET).eval()


def make_frames_model(encoder: str, decoder: str, head: StepsHeadConfig, *, seed: int = 1) -> Seq2Seq:
    """The same from frames of two numbers to frames of two numbers."""
    torch.manual_seed(seed)
    ends: dict[str, Any] = {"frontend": StepsConfig(), "head": head}
    config = ModelConfig(encoder=ENCODERS[encoder], decoder=DECODERS[decoder], embedding_size=10, tie="none", **ends)
    return build_model(config, Steps(2), Steps(2)).eval()


def make_frames_batch(source_lengths: list[int], target_lengths: list[int], *, seed: int = 1) -> Batch:
    """Random frames; the padding holds NaN, which must not matter."""
    generator = torch.Generator().manual_seed(seed)
    ends = []
    for lengths in (source_lengths, target_lengths):
        rows = Padded(torch.randn(len(lengths), max(lengths), 2, generator=generator), torch.tensor(lengths))
        ends.append(Padded(rows.data.masked_fill(~rows.mask[..., None], float("nan")), rows.lengths))
    return Batch(torch.arange(len(source_lengths)), *ends)


def make_batch(source_lengths: list[int], target_lengths: list[int], *, seed: int = 1) -> Batch:
    """Random tokens ending in end-of-sequence. What stands in the padding is random too: it must not matter."""
    generator = torch.Generator().manual_seed(seed)
    source = _rows(source_lengths, SOURCE, generator)
    return Batch(torch.arange(len(source_lengths)), source, _rows(target_lengths, TARGET, generator))


def _rows(lengths: list[int], vocabulary: Vocabulary, generator: torch.Generator) -> Padded:
    data = torch.randint(4, vocabulary.size, (len(lengths), max(lengths)), generator=generator)
    for row, length in enumerate(lengths):
        data[row, length - 1] = vocabulary.eos_id
    return Padded(data, torch.tensor(lengths))


def make_sound_model(frontend: str, encoder: str, decoder: str) -> Seq2Seq:
    """A tiny model that hears, in evaluation mode."""
    torch.manual_seed(1)
    parts = {"frontend": SOUND_FRONTENDS[frontend], "encoder": ENCODERS[encoder], "decoder": DECODERS[decoder]}
    return build_model(ModelConfig(embedding_size=10, **parts), SOUND, TARGET).eval()


def make_sound_batch(source_samples: list[int], target_lengths: list[int]) -> Batch:
    """Noise, and in the padding more noise: it must not matter. Keys as in training."""
    generator = torch.Generator().manual_seed(1)
    data = 0.1 * torch.randn(len(source_samples), max(source_samples), generator=generator)
    keys = torch.arange(len(source_samples)) * 7919 + 1
    source = Padded(data, torch.tensor(source_samples), keys)
    return Batch(torch.arange(len(source_samples)), source, _rows(target_lengths, TARGET, generator))


def make_image_model(frontend: str, encoder: str, decoder: str) -> Seq2Seq:
    """A tiny model that reads pictures, in evaluation mode."""
    torch.manual_seed(1)
    parts = {"frontend": IMAGE_FRONTENDS[frontend], "encoder": ENCODERS[encoder], "decoder": DECODERS[decoder]}
    return build_model(ModelConfig(embedding_size=10, **parts), PICTURE, TARGET).eval()


def make_image_batch(target_lengths: list[int], owners: list[int]) -> Batch:
    """Random pictures, and targets of which several may belong to one picture."""
    generator = torch.Generator().manual_seed(1)
    count = max(owners) + 1
    data = torch.randint(0, 256, (count, 3, PICTURE.size, PICTURE.size), dtype=torch.uint8, generator=generator)
    source = Padded(data, torch.full((count,), PICTURE.grid**2))
    return Batch(torch.arange(count), source, _rows(target_lengths, TARGET, generator), torch.tensor(owners))
