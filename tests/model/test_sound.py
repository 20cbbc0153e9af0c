"""The front-end of sound: padding, masks that depend on keys alone, normalisation, fewer positions than frames."""

import numpy as np
import pytest
import torch

from transduce.data.batch import Padded
from transduce.draws import uniform
from transduce.errors import ConfigError
from transduce.model.features import FeaturesConfig
from transduce.model.frontends import Sound
from transduce.model.sound import SoundConfig, SoundFrontend, SpecAugmentConfig, spec_augment_mask

RATE, BINS = 8_000, 23
SHAPE = Sound(RATE, FeaturesConfig(kind="fbank", num_bins=BINS), (8.0,) * BINS, (3.0,) * BINS)
WAYS = [{"factor": 2}, {"factor": 4}, {"factor": 8}, {"subsampling": "stack", "factor": 1}, {"subsampling": "stack", "factor": 3}]
LENGTHS = [4000, 1111, 2600, 200]


def front(**settings: object) -> SoundFrontend:
    torch.manual_seed(1)
    return SoundFrontend(SoundConfig(channels=4, **settings), SHAPE, output_size=6).eval()


def samples(keys: bool = False) -> Padded:
    data = torch.randn(4, 4000, generator=torch.Generator().manual_seed(1)) * 0.1
    return Padded(data, torch.tensor(LENGTHS), torch.tensor([11, -22, 33, 44]) if keys else None)


@pytest.mark.parametrize("normalize", ["global", "utterance", "none"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_2_padding_never_changes_a_vector(way: dict, normalize: str) -> None:
    module, batch = front(normalize=normalize, **way), samples()
    together, lengths = module(batch)
    frames = [SHAPE.features.num_frames(length, RATE) for length in LENGTHS]
    assert lengths.tolist() == [-(-count // way["factor"]) for count in frames] and lengths.min() >= 1
    for row, length in enumerate(LENGTHS):
        alone, count = module(Padded(batch.data[row : row + 1, :length], batch.lengths[row : row + 1]))
        torch.testing.assert_close(together[row, : int(count)], alone[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_masks_in_training_depend_on_the_key_alone(way: dict) -> None:
    module, batch = front(**way).train(), samples(keys=True)
    together, lengths = module(batch)
    assert not torch.equal(together, module.eval()(batch)[0])
    module.train()
    for row in (0, 2):
        one = Padded(batch.data[row : row + 1, : LENGTHS[row]], batch.lengths[row : row + 1], batch.keys[row : row + 1])
        torch.testing.assert_close(together[row, : int(lengths[row])], module(one)[0][0], atol=1e-5, rtol=1e-4)
    other = Padded(batch.data, batch.lengths, batch.keys + 1)
    assert not torch.equal(module(other)[0], together)
    plain = Padded(batch.data, batch.lengths)
    torch.testing.assert_close(module(plain)[0], module.eval()(batch)[0], atol=0, rtol=0)


def test_masks_are_stretches_within_their_bounds() -> None:
    config = SpecAugmentConfig(frequency_masks=1, frequency_share=0.5, time_masks=1, time_frames=30, time_share=0.2)
    keys, lengths = torch.arange(500) * 7919, torch.tensor([100, 400] * 250)
    keep = spec_augment_mask(config, keys, lengths=lengths, shape=(400, 20))
    hidden_bins = (keep[:, 399] == 0).sum(1)  # the last frame is rarely hidden by a time mask
    hidden_frames = (keep.amax(2) == 0).sum(1)
    assert hidden_frames[0::2].max() == 20, "a fifth of a short row"
    assert hidden_frames[1::2].max() == 30, "time_frames of a long row"
    assert 4 < hidden_bins.float().mean() < 6.5 and hidden_frames.float().mean() == pytest.approx(12.5, abs=2)
    assert (keep.amax(2)[0::2, 100:] == 1).all(), "masks lie within the row"
    changes = (keep.amax(2)[:, 1:] != keep.amax(2)[:, :-1]).sum(1)
    assert changes.max() <= 2, "one stretch"


def test_normalisation() -> None:
    batch = samples()
    features, lengths = front(normalize="utterance").features(batch.data, batch.lengths)
    normal = front(normalize="utterance").normalized(features, lengths)
    for row, length in enumerate(lengths.tolist()[:3]):
        torch.testing.assert_close(normal[row, :length].mean(0), torch.zeros(BINS), atol=1e-4, rtol=0)
        torch.testing.assert_close(normal[row, :length].std(0, correction=0), torch.ones(BINS), atol=1e-3, rtol=0)
    scaled = front(normalize="global").normalized(features, lengths)
    torch.testing.assert_close(scaled[0], (features[0] - 8) / 3)


@pytest.mark.parametrize("way", WAYS[1:4], ids=str)
def test_gradients_reach_every_parameter(way: dict) -> None:
    module = front(**way).train()
    with torch.autocast("cpu", torch.bfloat16):
        module(samples(keys=True))[0].float().square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


def test_factors_that_convolutions_cannot_have() -> None:
    with pytest.raises(ConfigError, match="2, 4 or 8"):
        SoundConfig(factor=3)


def test_draws_are_uniform_and_those_of_splitmix64() -> None:
    keys = np.array([0, 1, (1 << 63) + 5, (1 << 64) - 1], dtype=np.uint64)
    found = uniform(torch.from_numpy(keys.view(np.int64)), 2)
    for key, number in zip(keys.tolist(), found.tolist(), strict=True):
        word = (key + 3 * 0x9E3779B97F4A7C15) % (1 << 64)
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % (1 << 64)
        word = (word ^ word >> 27) * 0x94D049BB133111EB % (1 << 64)
        assert number == ((word ^ word >> 31) >> 11) / (1 << 53)
    many = uniform(torch.arange(100_000), 0)
    assert many.min() >= 0 and many.max() < 1 and many.mean().item() == pytest.approx(0.5, abs=0.005)
