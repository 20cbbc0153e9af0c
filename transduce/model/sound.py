"""From samples of sound to vectors: features, their normalisation, masks in training, and fewer positions than frames.

In: `Padded` samples (B, N). Out: vectors (B, S, E), one for each `factor` frames. The decision a reader would question: masks are drawn
from the keys of the batch alone (seed, epoch, example), so the same example is masked alike wherever it stands. The convolutions
keep their channels last in memory and follow autocast: on a processor with bf16 that was measured at a quarter of the time of fp32
with channels first. Behind each row's end every layer sees zeros, so padding never changes an answer.
"""

from collections.abc import Iterable
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from transduce.data.batch import Padded
from transduce.draws import uniform
from transduce.errors import ConfigError
from transduce.model.features import Features
from transduce.model.frontends import Sound
from transduce.model.interface import real_positions
from transduce.model.layers import Dropout
from transduce.model.products import Linear
from transduce.settings import Settings

SMALLEST_DEVIATION = 1e-2  # of logarithms: a bin that holds no frequency is constant, and stays so
FIRST_STREAM = 16  # draws below are those of codecs


class SpecAugmentConfig(Settings):
    """Masks over the features in training (SpecAugment, Park 2019; the double policy for LibriSpeech)."""

    frequency_masks: int = Field(default=2, ge=0)
    """Masks over neighbouring bins, for the whole length."""
    frequency_share: float = Field(default=0.34, ge=0, le=1)
    """Widest frequency mask as a share of the bins (27 of 80)."""
    time_masks: int = Field(default=2, ge=0)
    """Masks over neighbouring frames, for all bins."""
    time_frames: int = Field(default=100, ge=1)
    """Longest time mask in frames."""
    time_share: float = Field(default=0.2, ge=0, le=1)
    """Longest time mask as a share of the sound, so that short ones keep most of what they say."""


class SoundConfig(Settings):
    """Sound: features of samples, normalised, masked in training, joined into fewer positions."""

    kind: Literal["sound"] = "sound"
    normalize: Literal["global", "utterance", "none"] = "global"
    """global: mean and deviation of each feature over the training data. utterance: over each sound. none: as computed."""
    spec_augment: SpecAugmentConfig | None = SpecAugmentConfig()
    """Masks over the features in training; null = none."""
    subsampling: Literal["conv2d", "stack"] = "conv2d"
    """conv2d: 3 x 3 convolutions with stride 2 over time and bins (Dong 2018; Gulati 2020). stack: neighbouring frames side by side."""
    factor: int = Field(default=4, ge=1)
    """Frames for each position; for conv2d 2, 4 or 8."""
    channels: int = Field(default=64, ge=1)
    """Channels of the convolutions; their time grows with the square."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.subsampling == "conv2d" and self.factor not in (2, 4, 8):
            raise ConfigError(f"factor = {self.factor} is not allowed for conv2d: 2, 4 or 8 (or subsampling: stack)")
        return self


class SoundFrontend(nn.Module):
    """Samples to vectors."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: SoundConfig, sound: Sound, *, output_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.output_size = output_size
        self.features = Features(sound.features, sound.sample_rate_hz)
        self.register_buffer("mean", torch.tensor(sound.mean), persistent=False)
        self.register_buffer("scale", 1 / torch.tensor(sound.std).clamp(min=SMALLEST_DEVIATION), persistent=False)
        size = sound.features.size
        self.subsampling = (
            Stacking(size, config.factor, output_size=output_size)
            if config.subsampling == "stack"
            else Convolutions(size, config.factor, channels=config.channels, output_size=output_size)
        )
        self.dropout = Dropout(dropout)

    def forward(self, source: Padded) -> tuple[Tensor, Tensor]:
        """Padded (B, N) samples -> (B, S, E), (B,)."""
        features, lengths = self.features(source.data, source.lengths)  # (B, F, C)
        features = self.normalized(features, lengths)
        if self.training and source.keys is not None and self.config.spec_augment is not None:
            features = features * spec_augment_mask(self.config.spec_augment, source.keys, lengths=lengths, shape=features.shape[1:])
        vectors, lengths = self.subsampling(features, lengths)
        return self.dropout(vectors), lengths

    def normalized(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(B, F, C) -> (B, F, C) fp32, zeros behind each end."""
        mask = real_positions(lengths, features.shape[1])[..., None]
        match self.config.normalize:
            case "global":
                features = (features - self.mean) * self.scale
            case "utterance":
                count = lengths[:, None, None].clamp(min=1)
                centred = (features - features.sum(1, keepdim=True) / count).masked_fill(~mask, 0.0)
                deviation = (centred.square().sum(1, keepdim=True) / count).sqrt()
                features = centred / deviation.clamp(min=SMALLEST_DEVIATION)
        return features.masked_fill(~mask, 0.0)

    def as_written(self, weights: Tensor, lengths: Tensor) -> Tensor:  # noqa: ARG002
        """(B, T, S): sound is heard in its own order; position s stands for `factor` frames."""
        return weights


class Convolutions(nn.Module):
    """(B, F, C) -> (B, F / factor, E): a 3 x 3 convolution with stride 2 and ReLU for each halving, then one linear layer."""

    def __init__(self, size: int, factor: int, *, channels: int, output_size: int) -> None:
        super().__init__()
        halvings = factor.bit_length() - 1
        inputs = [1, *[channels] * (halvings - 1)]
        self.layers: Iterable[nn.Conv2d] = nn.ModuleList(nn.Conv2d(count, channels, 3) for count in inputs)  # type: ignore[assignment]
        for _ in range(halvings):
            size = halved(size)
        self.outer = Linear(channels * size, output_size)
        for layer in self.layers:
            keep_scale(layer, relu=True)
        keep_scale(self.outer)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, C), (B,) -> (B, S, E), (B,)."""
        maps = features[:, None].contiguous(memory_format=torch.channels_last)  # (B, 1, F, C)
        for layer in self.layers:
            lengths = (lengths + 1) // 2
            weight = layer.weight.contiguous(memory_format=torch.channels_last)  # here, so that the stored weight keeps torch's order
            maps = functional.relu(functional.conv2d(maps, weight, layer.bias, stride=2, padding=1))  # (B, channels, F / 2, C / 2)
            maps = maps * real_positions(lengths, maps.shape[2])[:, None, :, None].to(maps.dtype)
        return self.outer(maps.permute(0, 2, 3, 1).flatten(2)), lengths


class Stacking(nn.Module):
    """(B, F, C) -> (B, F / factor, E): neighbouring frames side by side (Sak 2015), then one linear layer."""

    def __init__(self, size: int, factor: int, *, output_size: int) -> None:
        super().__init__()
        self.factor = factor
        self.outer = Linear(size * factor, output_size)
        keep_scale(self.outer)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, C), (B,) -> (B, S, E), (B,)."""
        features = functional.pad(features, (0, 0, 0, -features.shape[1] % self.factor))
        return self.outer(features.reshape(len(features), -1, self.factor * features.shape[2])), (lengths + self.factor - 1) // self.factor


def keep_scale(layer: nn.Conv2d | nn.Linear, *, relu: bool = False) -> None:
    """Initial weights that keep the mean square of what goes through, ReLU included (He 2015), and no bias.

    torch's own would shrink the vectors to a tenth of what residual layers and positions add to them, and the encoder would be deaf.
    """
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu" if relu else "linear")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def spec_augment_mask(config: SpecAugmentConfig, keys: Tensor, *, lengths: Tensor, shape: tuple[int, ...] | torch.Size) -> Tensor:
    """(B, F, C) ones with zeros where a feature is hidden. keys: (B,) int64. lengths: (B,) frames. shape: (F, C)."""
    num_frames, num_bins = shape
    keep = torch.ones(len(keys), num_frames, num_bins, device=keys.device)
    stream = FIRST_STREAM
    bins = torch.full_like(lengths, num_bins)
    for _ in range(config.frequency_masks):
        keep = keep * ~_stretch(keys, stream, size=bins, longest=(bins * config.frequency_share).long(), places=num_bins)[:, None, :]
        stream += 2
    longest = (lengths * config.time_share).long().clamp(max=config.time_frames)
    for _ in range(config.time_masks):
        keep = keep * ~_stretch(keys, stream, size=lengths, longest=longest, places=num_frames)[:, :, None]
        stream += 2
    return keep


def _stretch(keys: Tensor, stream: int, *, size: Tensor, longest: Tensor, places: int) -> Tensor:
    """(B, places) True in a stretch of 0 to `longest` places that lies anywhere within `size`."""
    width = (uniform(keys, stream) * (longest + 1)).long()
    first = (uniform(keys, stream + 1) * (size - width + 1)).long()
    index = torch.arange(places, device=keys.device)
    return (index >= first[:, None]) & (index < (first + width)[:, None])


def halved(size: int) -> int:
    """Places left by a convolution of width 3 with stride 2 and a border of 1."""
    return (size + 1) // 2
