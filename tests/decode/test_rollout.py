"""Tracks predicted step by step: the same path as teacher forcing, draws that depend on the source only, stops."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from steps_models import DECODERS, MIXTURE, make_batch, make_model, with_padding
from torch import Tensor, nn
from torch.nn import functional

from transduce.data.batch import Batch, Padded
from transduce.decode.rollout import RolloutConfig, rollout
from transduce.errors import ConfigError, DivergedError
from transduce.model.interface import Memory
from transduce.model.seq2seq import Seq2Seq
from transduce.model.steps import StepsEmbedding, StepsHead, StepsHeadConfig, steps_head

STOPPING = StepsHeadConfig(kind="mixture", components=3, stop=True)
KEYS = np.array([11, 12, 13], dtype=np.uint64)


@pytest.mark.parametrize("decoder", DECODERS)
def test_expected_frames_are_their_own_teacher_forced_means(decoder: str) -> None:
    model, batch = make_model("gru", decoder), make_batch([4, 6, 1], [5, 5, 5])
    found = rollout(model, batch.source, config=RolloutConfig(steps=5), keys=KEYS)
    assert found.values.shape == (3, 5, 2) and found.lengths.tolist() == [5, 5, 5] and found.samples is None
    means = _forced(model, batch.source, Padded(found.values, found.lengths))[0]
    torch.testing.assert_close(found.values, means, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("config", [RolloutConfig(steps=4, num_samples=9), RolloutConfig(max_steps=4, num_samples=9)])
def test_a_samples_score_is_its_teacher_forced_score(decoder: str, config: RolloutConfig) -> None:
    model, source = make_model("transformer", decoder, STOPPING), make_batch([4, 6, 1], [1, 1, 1]).source
    with torch.no_grad():
        steps_head(model.head).lift.outer.bias[-1] = -0.7  # stops are not too likely
    found = rollout(model, source, config=config, keys=KEYS)
    assert found.samples is not None and found.sample_lengths is not None and found.log_probability is not None
    assert found.samples.shape[:2] == (3, 9) and found.samples_truncated is not None
    cut = found.samples_truncated
    if config.steps is None:
        assert cut.any() and not cut.all() and len(found.sample_lengths.unique()) > 2  # else this tests no stops
    for sample in range(9):
        target = Padded(found.samples[:, sample], found.sample_lengths[:, sample])
        _, frames, stop = _forced(model, source, target)
        mask, last = target.mask, torch.arange(target.data.shape[1])[None, :] == target.lengths[:, None] - 1
        score = (frames * mask).sum(1)
        if config.steps is None:
            is_cut = last & cut[:, sample, None]  # no decision was made there
            score = score + functional.logsigmoid(torch.where(last, stop, -stop)).masked_fill(~mask | is_cut, 0).sum(1)
        torch.testing.assert_close(found.log_probability[:, sample], score, atol=1e-3, rtol=1e-4)


def test_neither_neighbours_nor_padding_matter() -> None:
    model, source = make_model("transformer", "transformer", STOPPING), make_batch([4, 6, 1], [1, 1, 1]).source
    config = RolloutConfig(max_steps=8, num_samples=4, seed=3)
    together = rollout(model, with_padding(source, math.nan, extra=2), config=config, keys=KEYS)
    assert together.samples is not None and together.sample_lengths is not None and together.log_probability is not None
    for row in range(3):
        lonely = Padded(source.data[row : row + 1, : int(source.lengths[row])], source.lengths[row : row + 1])
        alone = rollout(model, lonely, config=config, keys=KEYS[row : row + 1])
        assert alone.samples is not None and alone.sample_lengths is not None and alone.log_probability is not None
        assert torch.equal(alone.lengths[0], together.lengths[row])
        assert torch.equal(alone.sample_lengths[0], together.sample_lengths[row])
        width = alone.samples.shape[2]
        torch.testing.assert_close(alone.values[0], together.values[row, : alone.values.shape[1]], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(alone.samples[0], together.samples[row, :, :width], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(alone.log_probability[0], together.log_probability[row], atol=1e-3, rtol=1e-4)


def test_draws_depend_on_seed_key_and_number() -> None:
    model, source = make_model("gru", "gru"), make_batch([4], [1]).source
    twins = Padded(source.data.repeat(2, 1, 1), source.lengths.repeat(2))

    def samples(seed: int, keys: list[int], count: int = 2, steps: int = 3) -> Tensor:
        config = RolloutConfig(steps=steps, num_samples=count, seed=seed)
        found = rollout(model, twins, config=config, keys=np.array(keys, dtype=np.uint64)).samples
        assert found is not None
        return found

    first = samples(1, [5, 6])
    assert torch.equal(first, samples(1, [5, 6]))
    torch.testing.assert_close(first, samples(1, [6, 5]).flip(0))
    torch.testing.assert_close(first, samples(1, [5, 6], count=7)[:, :2])  # more samples and steps change none of the first
    torch.testing.assert_close(first, samples(1, [5, 6], steps=9)[:, :, :3])
    assert (first - samples(2, [5, 6])).abs().min() > 0
    assert (first[0] - first[1]).abs().min() > 0 and (first[:, 0] - first[:, 1]).abs().min() > 0


def test_samples_spread_round_the_first_expected_frame() -> None:
    model, source = make_model("gru", "gru"), make_batch([4], [1]).source
    found = rollout(model, source, config=RolloutConfig(steps=1, num_samples=4000), keys=KEYS[:1])
    assert found.samples is not None
    torch.testing.assert_close(found.samples[0, :, 0].mean(0), found.values[0, 0], atol=0.06, rtol=0)
    cold = rollout(model, source, config=RolloutConfig(steps=1, num_samples=4000, temperature=0.1), keys=KEYS[:1]).samples
    assert cold is not None and cold[0, :, 0].var(0).sum() < 0.5 * found.samples[0, :, 0].var(0).sum()


@dataclass(frozen=True)
class Goal:
    """How far each walk is to count, (N, 1)."""

    numbers: Tensor

    def select(self, rows: Tensor) -> "Goal":
        """Of these walks."""
        return Goal(self.numbers[rows])


class CountingModel(nn.Module):
    """Counts 1, 2, 3 ... by what it is fed, and stops at the number that the source says."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = StepsEmbedding(1, 4)
        self.head = StepsHead(StepsHeadConfig(stop=True), 4, size=1)

    def encode(self, source: Padded) -> Memory:
        """The number is all that is kept."""
        return Memory(source.data, source.mask, source.data[:, 0])

    def start(self, memory: Memory) -> Goal:
        """Every source's own goal."""
        return Goal(memory.summary)

    def step(self, previous: Tensor, state: Goal, memory: Memory) -> tuple[Tensor, Goal]:
        """-> the next number and the stop logit. Memory and state must belong together, whatever was dropped."""
        assert torch.equal(memory.summary, state.numbers)
        number = previous[:, :1] + 1
        return torch.cat([number, number - state.numbers + 0.5], 1), state


def test_stops_end_rows_one_by_one() -> None:
    model: Any = CountingModel()
    source = Padded(torch.tensor([[[2.0]], [[5.0]], [[1.0]], [[99.0]]]), torch.ones(4, dtype=torch.int64))
    found = rollout(model, source, config=RolloutConfig(max_steps=7), keys=np.arange(4).astype(np.uint64))
    assert found.lengths.tolist() == [2, 5, 1, 7] and found.truncated.tolist() == [False, False, False, True]
    assert found.values[..., 0].tolist() == [
        [1, 2, 0, 0, 0, 0, 0],
        [1, 2, 3, 4, 5, 0, 0],
        [1, 0, 0, 0, 0, 0, 0],
        [1, 2, 3, 4, 5, 6, 7],
    ]
    short = rollout(model, Padded(source.data[:3], source.lengths[:3]), config=RolloutConfig(), keys=KEYS)
    assert short.values.shape == (3, 5, 1)
    fixed = rollout(model, source, config=RolloutConfig(steps=3), keys=np.arange(4).astype(np.uint64))
    assert fixed.lengths.tolist() == [3] * 4 and not fixed.truncated.any()


def test_what_the_head_cannot_do_is_refused() -> None:
    source = make_batch([4], [1]).source
    with pytest.raises(ConfigError, match=r"rollout\.steps = null.*model\.head\.stop"):
        rollout(make_model("gru", "gru"), source, config=RolloutConfig(), keys=KEYS[:1])
    with pytest.raises(ConfigError, match=r"rollout\.num_samples = 2 .*mixture"):
        rollout(make_model("gru", "gru", StepsHeadConfig()), source, config=RolloutConfig(steps=2, num_samples=2), keys=KEYS[:1])


@pytest.mark.parametrize("head", [StepsHeadConfig(), MIXTURE, STOPPING])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_numbers(head: StepsHeadConfig, value: float) -> None:
    model, source = make_model("gru", "gru", head), make_batch([4, 2], [1, 1]).source
    with torch.no_grad():
        steps_head(model.head).lift.outer.bias[-1] = value
    with pytest.raises(DivergedError, match="not finite"):
        rollout(model, source, config=RolloutConfig(steps=3), keys=KEYS[:2])


def _forced(model: Seq2Seq, source: Padded, target: Padded) -> tuple[Tensor, Tensor, Tensor]:
    """Means (B, T, C), log densities (B, T) and stop logits (B, T) under teacher forcing."""
    head = steps_head(model.head)
    with torch.no_grad():
        parameters = head(model(Batch(torch.arange(len(source.data)), source, target)))
        stop = head.stop_logits(parameters)
        frames = head.log_probability(parameters, target.data)
    return head.mean(parameters), frames, torch.zeros_like(frames) if stop is None else stop
