"""Recordings as sources: named in a manifest, measured by their headers, decoded when a batch needs them, varied in training.

In: `Media` references. Out: rows that hold the reference, and batches of samples at one rate. The decision a reader would question:
a batch holds samples, not features: the model computes those itself (`model/features.py`), so that speed, loudness and noise can
be varied here, and an exported model hears what the trained one heard.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from transduce.data.batch import Padded
from transduce.data.media import media_of, media_row, open_media
from transduce.data.report import Lossless
from transduce.data.sampling import evenly_sampled
from transduce.data.sound_files import Part, Samples, read_sound, resampled, sound_seconds
from transduce.data.symbols import digest_of, write_codec
from transduce.data.values import BadValueError, Media, Row, attempt
from transduce.draws import uniform
from transduce.errors import ConfigError, DataError
from transduce.model.features import Features, FeaturesConfig
from transduce.model.frontends import Sound
from transduce.settings import Settings

FIT_SAMPLE = 300  # recordings that the mean and deviation of features are learned from
SPEED, GAIN, WHETHER, RATIO, COLOR = range(3, 8)  # streams of draws
SMALLEST_RMS = 1e-5


class AudioConfig(Settings):
    """Recordings of any format, rate and number of channels. Needs the extra `audio`."""

    kind: Literal["audio"] = "audio"
    sample_rate_hz: int = Field(default=16_000, ge=4_000, le=48_000)
    """Everything is resampled to this rate, channels are averaged. 8000 for telephones, 16000 for speech."""
    max_seconds: float = Field(default=30.0, gt=0)
    """Longest recording, or part of one, that is decoded. A longer one is an unreadable record (see data.errors), never cut."""
    features: FeaturesConfig = FeaturesConfig()
    """What the model computes of the samples."""
    speed_factors: list[float] = []
    """In training, each example is played at one of these speeds, pitch included (Ko 2015): [0.9, 1.0, 1.1]. Empty = as recorded."""
    gain_db: float = Field(default=0.0, ge=0, le=40)
    """In training, each example is made louder or softer by up to this many decibels."""
    noise_share: float = Field(default=0.0, ge=0, le=1)
    """In training, share of the examples that get noise, of a colour between white and pink."""
    noise_snr_db: tuple[float, float] = (10.0, 30.0)
    """Signal over noise in decibels, drawn evenly between these two."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if any(not 0.5 <= factor <= 2 for factor in self.speed_factors):
            raise ConfigError(f"speed_factors = {self.speed_factors} is not allowed: each from 0.5 to 2")
        if self.noise_snr_db[0] > self.noise_snr_db[1]:
            raise ConfigError(f"noise_snr_db = {list(self.noise_snr_db)} is not allowed: the lower one first")
        if self.features.highest_hz is not None and self.features.highest_hz > self.sample_rate_hz / 2:
            raise ConfigError(f"features.highest_hz = {self.features.highest_hz:g} is above half of sample_rate_hz = {self.sample_rate_hz}")
        return self


class AudioCodec:
    """References to recordings, and batches of their samples.

    mean, std: of each feature over the training data; the model's front-end normalises with them.
    """

    kind = "audio"
    row_type: np.dtype[Any] = np.dtype(np.uint8)

    def __init__(self, config: AudioConfig, mean: Sequence[float], std: Sequence[float]) -> None:
        self.config = config
        self.mean, self.std = tuple(mean), tuple(std)
        self.digest = digest_of(self._tree())

    @classmethod
    def fit(cls, config: AudioConfig, values: Iterable[Media], seed: int) -> "AudioCodec":
        """Mean and deviation of the features over an even sample of recordings; unreadable ones are counted later, with all others.

        Raises DataError where not one can be read.
        """
        size = config.features.size
        plain, compute = cls(config, [0.0] * size, [1.0] * size), Features(config.features, config.sample_rate_hz)
        total, squares, count = np.zeros(size), np.zeros(size), 0
        problem: BadValueError | None = None
        for media in evenly_sampled(values, FIT_SAMPLE, seed):
            try:
                samples = torch.from_numpy(plain.samples(media))
            except BadValueError as error:
                problem = problem or error
                continue
            features = compute(samples[None], torch.tensor([len(samples)]))[0][0].double().numpy()
            total, squares, count = total + features.sum(0), squares + (features**2).sum(0), count + len(features)
        if not count:
            raise DataError(f"there is no recording to learn from: {problem or 'the corpora are empty'}")
        mean = total / count
        return cls(config, mean.tolist(), np.sqrt(np.maximum(squares / count - mean**2, 0)).tolist())

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> "AudioCodec":
        """From codec.json."""
        return cls(AudioConfig.model_validate(tree["config"]), tree["mean"], tree["std"])

    @property
    def shape(self) -> Sound:
        """The rate of the samples, and what is computed of them."""
        return Sound(self.config.sample_rate_hz, self.config.features, self.mean, self.std)

    def samples(self, media: Media) -> Samples:
        """(N,) the decoded recording, or the named part. Raises BadValueError with its place."""
        with _located(media), open_media(media) as file:
            samples = read_sound(file, self.config.sample_rate_hz, self._part(media))
            self._num_frames(len(samples))
            return samples

    def row(self, media: Media) -> Row:
        """The reference; the width is the number of feature frames, from the header. Raises BadValueError."""
        with _located(media), open_media(media) as file:
            seconds = sound_seconds(file, self._part(media))
            return media_row(media, self._num_frames(round(seconds * self.config.sample_rate_hz)))

    def rows(self, values: Sequence[Media], *, thorough: bool = False) -> list[Row]:
        """A row for each recording. thorough: decode it, so that what is broken behind its header is known now."""
        return list(attempt(self._decoded_row if thorough else self.row, values))

    def contents(self, values: Sequence[Media]) -> Iterator[Row]:
        """The samples of each recording, decoded one by one."""
        return attempt(self._content, values)

    def collate(self, rows: Sequence[NDArray[Any]], keys: NDArray[np.uint64] | None) -> Padded:
        """(B, N) samples, zeros behind each end; with keys speed, loudness and noise vary. Raises BadValueError."""
        sounds: list[Samples] = [row if row.dtype == np.float32 else self.samples(media_of(row)) for row in rows]
        words = None if keys is None else torch.from_numpy(keys.view(np.int64))
        if words is not None and keys is not None:
            draws = np.stack([uniform(words, stream).numpy() for stream in range(SPEED, COLOR + 1)], axis=1)  # (B, 5)
            sounds = [self._varied(sound, draw, int(key)) for sound, draw, key in zip(sounds, draws, keys, strict=True)]
        lengths = np.array([len(sound) for sound in sounds], dtype=np.int64)
        data = np.zeros((len(rows), int(lengths.max(initial=1))), dtype=np.float32)
        for place, sound in zip(data, sounds, strict=True):
            place[: len(sound)] = sound
        return Padded(torch.from_numpy(data), torch.from_numpy(lengths), words)

    def _varied(self, sound: Samples, draw: NDArray[np.float64], key: int) -> Samples:
        """Changed as the settings say. draw: (5,) numbers in [0, 1). What would become too long or too short keeps its speed."""
        config = self.config
        speed, gain, whether, ratio, color = draw
        if config.speed_factors:
            factor = config.speed_factors[int(speed * len(config.speed_factors))]
            count, longest = len(sound) / factor, config.max_seconds * config.sample_rate_hz
            if factor != 1 and count <= longest and config.features.num_frames(int(count) - 1, config.sample_rate_hz):
                sound = resampled(sound, config.sample_rate_hz * factor, config.sample_rate_hz)
        if whether < config.noise_share:
            low, high = config.noise_snr_db
            sound = sound + colored_noise(len(sound), color, seed=key) * _rms(sound) * decibels(-(low + ratio * (high - low)))
        if config.gain_db:
            sound = sound * decibels(config.gain_db * (2 * gain - 1))
        return sound

    def flags(self, value: Media, row: NDArray[Any]) -> tuple[str, ...]:  # noqa: ARG002
        """Nothing: what is wrong with a recording keeps it from being read."""
        return ()

    def num_unknown(self, row: NDArray[Any]) -> int:  # noqa: ARG002
        """Sound is never unknown."""
        return 0

    def labels(self, row: NDArray[Any]) -> list[str]:  # noqa: ARG002
        """None: how many positions a recording has is the model's choice."""
        return []

    def check(self, values: Iterable[Media]) -> Lossless | None:  # noqa: ARG002
        """None: sound is never written."""
        return None

    def describe(self) -> str:
        """For people: `audio, 16000 Hz, log_mel with 80 numbers every 10 ms`."""
        config, features = self.config, self.config.features
        return f"audio, {config.sample_rate_hz} Hz, {features.kind} with {features.size} numbers every {features.hop_ms:g} ms"

    def save(self, directory: Path) -> None:
        """Writes codec.json."""
        write_codec(directory, self._tree())

    def _decoded_row(self, media: Media) -> Row:
        return media_row(media, self._content(media).width)

    def _content(self, media: Media) -> Row:
        samples = self.samples(media)
        return Row(samples, self._num_frames(len(samples)))

    def _num_frames(self, num_samples: int) -> int:
        frames = self.config.features.num_frames(num_samples, self.config.sample_rate_hz)
        if not frames:
            detail = f"{1000 * num_samples / self.config.sample_rate_hz:.0f} ms; a frame has {self.config.features.window_ms:g} ms"
            raise BadValueError("sound is too short", detail)
        return frames

    def _part(self, media: Media) -> Part:
        return Part(media.start or 0.0, media.end, self.config.max_seconds)

    def _tree(self) -> dict[str, Any]:
        return {"kind": self.kind, "config": self.config.model_dump(mode="json"), "mean": list(self.mean), "std": list(self.std)}


@contextmanager
def _located(media: Media) -> Iterator[None]:
    """Gives the problems inside it the place of the recording."""
    try:
        yield
    except BadValueError as problem:
        place = media.place()
        if place in problem.detail:
            raise
        raise BadValueError(problem.reason, f"{place}: {problem.detail}") from None


def colored_noise(count: int, color: float, *, seed: int) -> Samples:
    """(count,) noise of mean square 1. color: 0 = white (all frequencies alike), 1 = pink (power falls with frequency)."""
    size = 1 << (count - 1).bit_length()  # the transform of a prime number of samples takes several times as long
    white = np.random.Generator(np.random.Philox(seed)).standard_normal(size, dtype=np.float32)
    spectrum = np.fft.rfft(white)
    spectrum *= np.arange(1, len(spectrum) + 1) ** (-color / 2)
    noise = np.fft.irfft(spectrum, size)[:count].astype(np.float32)
    return noise / max(_rms(noise), SMALLEST_RMS)


def decibels(value: float) -> float:
    """The factor of amplitude."""
    return float(10 ** (value / 20))


def _rms(sound: Samples) -> float:
    return float(np.sqrt(np.square(sound).mean(dtype=np.float64)))
