"""Features of sound: the numbers of Kaldi and of Whisper, at any rate, the same for a row alone and among others."""

import kaldi_native_fbank as knf
import numpy as np
import pytest
import torch

from transduce.model.features import Features, FeaturesConfig

KINDS = ("log_mel", "fbank", "mfcc")


def sound(seconds: float = 1.0, rate: int = 16_000, *, seed: int = 1) -> np.ndarray:
    """A sweep with noise and an offset: every bin has something, and the mean is not zero."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(seed).normal(0, 0.05, time.shape)
    return (0.3 * np.sin(2 * np.pi * (100 + rate / 8 * time) * time) + noise + 0.1).astype(np.float32)


def features(samples: np.ndarray, rate: int, config: FeaturesConfig) -> np.ndarray:
    module = Features(config, rate)
    found, lengths = module(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
    assert lengths.tolist() == [config.num_frames(len(samples), rate)] == [found.shape[1]]
    return found[0].numpy()


def kaldi(online: object, samples: np.ndarray, rate: int) -> np.ndarray:
    online.accept_waveform(rate, (samples * 32768).tolist())
    online.input_finished()
    return np.stack([online.get_frame(number) for number in range(online.num_frames_ready)])


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050])
@pytest.mark.parametrize("num_bins", [40, 80])
def test_filter_banks_are_those_of_kaldi(rate: int, num_bins: int) -> None:
    options = knf.FbankOptions()
    options.frame_opts.samp_freq, options.frame_opts.dither = rate, 0
    options.mel_opts.num_bins = num_bins
    expected = kaldi(knf.OnlineFbank(options), sound(rate=rate), rate)
    found = features(sound(rate=rate), rate, FeaturesConfig(kind="fbank", num_bins=num_bins))
    np.testing.assert_allclose(found, expected[: len(found)], atol=5e-3)
    assert abs(len(found) - len(expected)) <= (rate == 22_050), "22.05 kHz have no whole number of samples in 25 ms"


@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_cepstra_are_those_of_kaldi(rate: int) -> None:
    options = knf.MfccOptions()
    options.frame_opts.samp_freq, options.frame_opts.dither = rate, 0
    options.mel_opts.num_bins, options.num_ceps, options.use_energy = 23, 13, False
    expected = kaldi(knf.OnlineMfcc(options), sound(rate=rate), rate)
    found = features(sound(rate=rate), rate, FeaturesConfig(kind="mfcc", num_bins=23))
    np.testing.assert_allclose(found, expected, atol=2e-2)


@pytest.mark.parametrize("num_bins", [80, 128])
def test_log_mel_is_that_of_whisper(num_bins: int) -> None:
    """Energies by an independent implementation, then the arithmetic of Whisper's audio.py."""
    options = knf.WhisperFeatureOptions()
    options.dim = num_bins
    samples = sound(2.0)
    online = knf.OnlineWhisperFbank(options)
    online.accept_waveform(16_000, np.concatenate([np.zeros(80, np.float32), samples]).tolist())  # its first frame begins at -120
    online.input_finished()
    energies = np.stack([online.get_frame(number) for number in range(online.num_frames_ready)])
    logs = np.log10(np.maximum(energies, 1e-10))
    expected = (np.maximum(logs, logs.max() - 8) + 4) / 4
    found = features(samples, 16_000, FeaturesConfig(num_bins=num_bins))
    np.testing.assert_allclose(found[2:-3], expected[2 : len(found) - 3], atol=5e-3)


def test_log_mel_begins_mirrored_and_ends_in_silence() -> None:
    """By the definition, frame by frame, in double precision."""
    samples = sound(0.3).astype(np.float64)
    module = Features(FeaturesConfig(), 16_000)
    padded = np.concatenate([samples[200:0:-1], samples, np.zeros(400)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    spectra = np.abs(np.fft.rfft(np.stack([padded[160 * t : 160 * t + 400] * window for t in range(30)]))) ** 2
    logs = np.log10(np.maximum(spectra @ module.mel.double().numpy(), 1e-10))
    expected = (np.maximum(logs, logs.max() - 8) + 4) / 4
    np.testing.assert_allclose(features(sound(0.3), 16_000, FeaturesConfig()), expected, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [8_000, 16_000])
def test_2_padding_never_changes_a_feature(kind: str, rate: int) -> None:
    module = Features(FeaturesConfig(kind=kind, num_bins=23), rate)
    rows = [torch.from_numpy(sound(seconds, rate, seed=number)) for number, seconds in enumerate((0.5, 0.031, 0.2, 0.01))]
    batch = torch.full((4, rate), float("nan"))
    for place, row in zip(batch, rows, strict=True):
        place[: len(row)] = row
    together, lengths = module(batch, torch.tensor([len(row) for row in rows]))
    for row, frames, length in zip(rows, together, lengths.tolist(), strict=True):
        alone, count = module(row[None], torch.tensor([len(row)]))
        assert count.item() == length == module.config.num_frames(len(row), rate)
        torch.testing.assert_close(frames[:length], alone[0, :length], atol=1e-5, rtol=1e-5)
        assert not frames[length:].any() and frames.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_leaves_fp32(kind: str) -> None:
    module = Features(FeaturesConfig(kind=kind), 16_000)
    samples, lengths = torch.from_numpy(sound())[None], torch.tensor([16_000])
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = module(samples, lengths)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, module(samples, lengths)[0], atol=0, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_exported_and_stores_nothing(kind: str) -> None:
    module = Features(FeaturesConfig(kind=kind), 16_000)
    inputs = torch.from_numpy(sound())[None], torch.tensor([16_000])
    program = torch.export.export(module, inputs)
    torch.testing.assert_close(program.module()(*inputs)[0], module(*inputs)[0])
    assert not module.state_dict() and not list(module.parameters())
