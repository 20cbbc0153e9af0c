"""From samples to features of sound: log-mel as Whisper computes it, filter banks as Kaldi computes them, and their cepstra.

In: samples (B, N), -1 to 1. Out: features (B, F, C) of one frame every 10 ms, and how many are real. The decision a reader would
question: features are computed in the model, in plain torch, so that an exported model takes samples and no second program has
to agree on how a mel scale is computed. The spectrum is an FFT: on a processor it was measured at a third of the time of a product
with the Fourier basis. What stands behind a row's end counts as silence, so padding never changes a feature.
"""

import math
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from transduce.errors import ConfigError
from transduce.settings import Settings

PRE_EMPHASIS = 0.97
KALDI_SCALE = 32768.0  # Kaldi counts samples as 16-bit numbers
KALDI_FLOOR = 1.1920928955078125e-07
WHISPER_FLOOR, WHISPER_RANGE = 1e-10, 8.0
LIFTER = 22.0


class FeaturesConfig(Settings):
    """What is computed of the samples, one frame after the other."""

    kind: Literal["log_mel", "fbank", "mfcc"] = "log_mel"
    """log_mel: as in Whisper (Radford 2022, 2.2), each utterance relative to its loudest frame. fbank: log mel energies as Kaldi
    computes them. mfcc: Kaldi's cepstra of these."""
    num_bins: int = Field(default=80, ge=1, le=512)
    """Mel bins. Whisper has 80 or 128; 40 are enough for 8 kHz."""
    num_cepstra: int = Field(default=13, ge=1)
    """Numbers kept of each frame; for mfcc only, at most num_bins."""
    window_ms: float = Field(default=25.0, gt=0, le=200)
    """Length of a frame in milliseconds."""
    hop_ms: float = Field(default=10.0, gt=0, le=100)
    """From one frame to the next in milliseconds."""
    lowest_hz: float | None = Field(default=None, ge=0)
    """Lower edge of the lowest bin; null = 0 for log_mel, 20 for fbank and mfcc."""
    highest_hz: float | None = Field(default=None, gt=0)
    """Upper edge of the highest bin; null = half the sample rate."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.kind == "mfcc" and self.num_cepstra > self.num_bins:
            raise ConfigError(f"num_cepstra = {self.num_cepstra} is above num_bins = {self.num_bins}")
        return self

    @property
    def size(self) -> int:
        """Numbers of a frame."""
        return self.num_cepstra if self.kind == "mfcc" else self.num_bins

    def window_samples(self, sample_rate_hz: int) -> int:
        """Samples of a frame, and of the shortest sound."""
        return round(self.window_ms * sample_rate_hz / 1000)

    def hop_samples(self, sample_rate_hz: int) -> int:
        """Samples from one frame to the next."""
        return max(round(self.hop_ms * sample_rate_hz / 1000), 1)

    def num_frames(self, num_samples: int, sample_rate_hz: int) -> int:
        """Frames of so many samples; 0 = too short for one."""
        window, hop = self.window_samples(sample_rate_hz), self.hop_samples(sample_rate_hz)
        if num_samples < window:
            return 0
        return num_samples // hop if self.kind == "log_mel" else 1 + (num_samples - window) // hop


class Features(nn.Module):
    """Samples to features in fp32, also under autocast. All constants are computed here and stored nowhere."""

    window: Tensor
    mel: Tensor
    cosines: Tensor

    def __init__(self, config: FeaturesConfig, sample_rate_hz: int) -> None:
        super().__init__()
        self.config = config
        self.sample_rate_hz = sample_rate_hz
        self.window_samples, self.hop = config.window_samples(sample_rate_hz), config.hop_samples(sample_rate_hz)
        whisper = config.kind == "log_mel"
        self.fft_size = self.window_samples if whisper else 1 << (self.window_samples - 1).bit_length()
        highest = sample_rate_hz / 2 if config.highest_hz is None else config.highest_hz
        lowest = (0.0 if whisper else 20.0) if config.lowest_hz is None else config.lowest_hz
        window = torch.hann_window(self.window_samples, periodic=whisper, dtype=torch.float64)
        self.register_buffer("window", (window if whisper else KALDI_SCALE * window**0.85).float(), persistent=False)
        make_mel = slaney_mel if whisper else kaldi_mel
        mel = make_mel(config.num_bins, self.fft_size, sample_rate_hz, lowest_hz=lowest, highest_hz=highest)
        self.register_buffer("mel", mel.float(), persistent=False)
        self.register_buffer("cosines", cepstra_matrix(config.size, config.num_bins).float(), persistent=False)

    def forward(self, samples: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N), (B,) in samples -> (B, F, C) zeros behind each end, (B,) in frames."""
        with torch.autocast(samples.device.type, enabled=False):
            positions = torch.arange(samples.shape[1], device=samples.device)
            samples = samples.float().masked_fill(positions >= lengths[:, None], 0.0)
            samples = functional.pad(samples, (0, max(self.window_samples - samples.shape[1], 0)))
            frames = self.num_frames(lengths)
            spectrum = self._whisper_frames(samples) if self.config.kind == "log_mel" else self._kaldi_frames(samples)
            spectrum = torch.fft.rfft(spectrum, n=self.fft_size)  # (B, F, fft_size / 2 + 1)
            energies = (spectrum.real.square() + spectrum.imag.square()) @ self.mel  # (B, F, num_bins)
            mask = (torch.arange(energies.shape[1], device=samples.device) < frames[:, None])[..., None]
            return self._logarithms(energies, mask).masked_fill(~mask, 0.0), frames

    def num_frames(self, lengths: Tensor) -> Tensor:
        """(B,) samples -> (B,) frames, as `FeaturesConfig.num_frames` counts them."""
        if self.config.kind == "log_mel":
            return torch.where(lengths < self.window_samples, 0, lengths // self.hop)
        return torch.where(lengths < self.window_samples, 0, 1 + (lengths - self.window_samples) // self.hop)

    def _whisper_frames(self, samples: Tensor) -> Tensor:
        """(B, F, window): frame t has its middle at t hops; the beginning is mirrored, behind the end there is silence."""
        half = self.window_samples // 2
        count = samples.shape[1] // self.hop
        padded = torch.cat([samples[:, 1 : half + 1].flip(1), functional.pad(samples, (0, self.window_samples))], dim=1)
        return padded.unfold(1, self.window_samples, self.hop)[:, :count] * self.window

    def _kaldi_frames(self, samples: Tensor) -> Tensor:
        """(B, F, window) without their mean, with pre-emphasis. A window that begins with 0 lets both be done on the whole row."""
        emphasised = samples - PRE_EMPHASIS * functional.pad(samples, (1, -1))
        means = functional.avg_pool1d(samples[:, None], self.window_samples, self.hop)[:, 0, :, None]  # (B, F, 1)
        frames = emphasised.unfold(1, self.window_samples, self.hop)
        return frames * self.window - (1 - PRE_EMPHASIS) * means * self.window

    def _logarithms(self, energies: Tensor, mask: Tensor) -> Tensor:
        match self.config.kind:
            case "log_mel":
                logs = energies.clamp(min=WHISPER_FLOOR).log10()
                loudest = logs.masked_fill(~mask, -math.inf).amax(dim=(1, 2), keepdim=True)
                return (torch.maximum(logs, loudest - WHISPER_RANGE) + 4.0) / 4.0
            case "fbank":
                return energies.clamp(min=KALDI_FLOOR).log()
            case "mfcc":
                return energies.clamp(min=KALDI_FLOOR).log() @ self.cosines


def slaney_mel(num_bins: int, fft_size: int, sample_rate_hz: int, *, lowest_hz: float, highest_hz: float) -> Tensor:
    """(fft_size / 2 + 1, num_bins) float64: triangles of equal area, linear below 1 kHz and logarithmic above (Slaney 1998)."""
    step, corner, ratio = 200 / 3, 1000.0, math.log(6.4) / 27

    def to_mel(hertz: float) -> float:
        return hertz / step if hertz < corner else corner / step + math.log(hertz / corner) / ratio

    mels = torch.linspace(to_mel(lowest_hz), to_mel(highest_hz), num_bins + 2, dtype=torch.float64)
    edges = torch.where(mels < corner / step, mels * step, corner * torch.exp(ratio * (mels - corner / step)))
    hertz = torch.linspace(0, sample_rate_hz / 2, fft_size // 2 + 1, dtype=torch.float64)
    return _triangles(hertz, edges) * (2 / (edges[2:] - edges[:-2]))


def kaldi_mel(num_bins: int, fft_size: int, sample_rate_hz: int, *, lowest_hz: float, highest_hz: float) -> Tensor:
    """(fft_size / 2 + 1, num_bins) float64: triangles of equal height on the mel scale of HTK; the highest frequency has no part."""
    low, high = (1127 * math.log1p(hertz / 700) for hertz in (lowest_hz, highest_hz))
    edges = torch.linspace(low, high, num_bins + 2, dtype=torch.float64)
    hertz = torch.arange(fft_size // 2, dtype=torch.float64) * sample_rate_hz / fft_size
    return functional.pad(_triangles(1127 * torch.log1p(hertz / 700), edges), (0, 0, 0, 1))


def cepstra_matrix(num_cepstra: int, num_bins: int) -> Tensor:
    """(num_bins, num_cepstra) float64: the orthonormal cosine transform with Kaldi's lifter of 22."""
    order = torch.arange(num_cepstra, dtype=torch.float64)
    cosines = torch.cos(math.pi / num_bins * (torch.arange(num_bins, dtype=torch.float64)[:, None] + 0.5) * order)
    norms = torch.where(order == 0, 1 / num_bins, 2 / num_bins).sqrt()
    return cosines * norms * (1 + LIFTER / 2 * torch.sin(math.pi * order / LIFTER))


def _triangles(places: Tensor, edges: Tensor) -> Tensor:
    """(places, edges - 2): one triangle over each three neighbouring edges."""
    left, middle, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (places[:, None] - left) / (middle - left)
    return torch.minimum(rising, (right - places[:, None]) / (right - middle)).clamp(min=0)
