"""The loss of numbers, scheduled feedback, and that tiny models learn motion, forks and lengths."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from steps_models import MIXTURE, make_batch, make_model, with_padding
from torch import Tensor

from transduce.data.batch import Batch, Padded
from transduce.decode.rollout import RolloutConfig, rollout
from transduce.model.seq2seq import Seq2Seq
from transduce.model.steps import StepsHead, StepsHeadConfig, steps_head
from transduce.train.steps_objective import StepsLossConfig, displacement, fed_back, steps_loss, steps_training_loss

PLAIN = StepsLossConfig()


class Given(StepsHead):
    """A head whose parameters are the hidden states."""

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., P) as it is."""
        return hidden


def test_regression_loss_by_hand() -> None:
    head = Given(StepsHeadConfig(), 2, size=2)
    hidden = torch.tensor([[[0.0, 0.0], [3.0, 1.0]], [[5.0, 5.05], [77.0, 77.0]]], requires_grad=True)
    target = Padded(torch.tensor([[[0.0, 0.5], [0.0, 1.0]], [[5.0, 5.0], [9.0, 9.0]]]), torch.tensor([2, 1]))
    expected = {
        "smooth_l1": (0.125 + 2.5 + 0.05**2 / 2) / 2,
        "mse": (0.25 + 9 + 0.05**2) / 2,
        "l1": (0.5 + 3 + 0.05) / 2,
        "euclidean": 2 * (0.5 + 3 + 0.05) / 2,
    }
    for distance, value in expected.items():
        sums = steps_loss(head, hidden, target, config=StepsLossConfig.model_validate({"distance": distance}))
        assert sums.loss.item() == pytest.approx(value, rel=1e-4) and sums.nll.item() == pytest.approx(value, rel=1e-4)
        assert sums.count == 3 and sums.correct.item() == 1
    tolerant = steps_loss(head, hidden, target, config=StepsLossConfig(tolerance=0.6, beta=0.25))
    assert tolerant.correct.item() == 2
    assert displacement(head, hidden, target).item() == pytest.approx(0.5 + 3 + 0.05, rel=1e-4)
    tolerant.loss.backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None and not hidden.grad[1, 1].any() and hidden.grad[0, 1, 0] == pytest.approx(0.5)


def test_mixture_loss_is_the_likelihood_of_frames_and_stops() -> None:
    head = Given(StepsHeadConfig(kind="mixture", components=1, stop=True, covariance="diagonal"), 6, size=2)
    wanted_scale = math.log(math.expm1(2.0 - 1e-2))  # softplus of it is 2 without the floor
    hidden = torch.tensor([0.0, 1.0, -1.0, wanted_scale, wanted_scale, 0.3]).expand(2, 3, 6)
    target = Padded(torch.tensor([1.0, -1.0]).expand(2, 3, 2), torch.tensor([3, 1]))
    frames = 4 * 2 * (math.log(2.0) + 0.5 * math.log(2 * math.pi))  # four frames of two numbers at the mean
    going, stopping = math.log1p(math.exp(0.3)), math.log1p(math.exp(-0.3))
    sums = steps_loss(head, hidden, target, config=StepsLossConfig(stop_weight=0.5))
    assert sums.nll.item() == pytest.approx(frames + 2 * going + 2 * stopping, rel=1e-5)
    assert sums.loss.item() == pytest.approx(frames + going + stopping, rel=1e-5)
    assert sums.count == 4 and sums.correct.item() == 4


def test_only_the_nearest_mode_learns() -> None:
    """Two modes of one number over tracks of 2 and 1 frames; the expected track is 0 everywhere, the modes are 1 and -1."""
    head = Given(StepsHeadConfig(kind="modes", modes=2, feedback="none"), 5, size=1)
    hidden = torch.tensor([0.0, 1.0, -1.0, 0.5, 0.0]).repeat(2, 2, 1).requires_grad_()
    target = Padded(torch.tensor([[[1.5], [1.0]], [[-3.0], [math.nan]]]), torch.tensor([2, 1]))
    sums = steps_loss(head, hidden, target, config=StepsLossConfig(distance="l1", choice_weight=0.1))
    expected, best = 1.5 + 1.0 + 3.0, 0.5 + 0.0 + 2.0
    first, second = math.log1p(math.exp(-0.5)), math.log1p(math.exp(0.5))  # of choosing the first mode, and the second
    assert sums.nll.item() == pytest.approx(expected + best, rel=1e-5)
    assert sums.loss.item() == pytest.approx(expected + best + 0.1 * (2 * first + second), rel=1e-5)
    sums.loss.backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None and hidden.grad.isfinite().all()
    assert hidden.grad[0, 0, 1] == -1 and not hidden.grad[0, :, 2].any(), "the mode at -1 is not pulled to the track at 1"
    assert hidden.grad[1, 0, 2] == 1 and not hidden.grad[1, :, 1].any() and not hidden.grad[1, 1].any()


@pytest.mark.parametrize("head", [StepsHeadConfig(stop=True), MIXTURE, StepsHeadConfig(kind="modes", modes=3, feedback="none")])
def test_padding_never_changes_the_loss(head: StepsHeadConfig) -> None:
    model, batch = make_model("transformer", "transformer", head), make_batch([4, 6, 1], [5, 2, 3])
    padded = Batch(batch.ids, with_padding(batch.source, math.nan, extra=2), with_padding(batch.target, math.nan, extra=2))
    plain, other = (steps_training_loss(model, rows, config=PLAIN, forced=1.0) for rows in (batch, padded))
    torch.testing.assert_close(plain.loss, other.loss)
    other.loss.backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())
    halves = [
        Batch(batch.ids[part], *(Padded(end.data[part], end.lengths[part]) for end in (batch.source, batch.target)))
        for part in (slice(0, 1), slice(1, 3))
    ]
    sums = [steps_training_loss(model, half, config=PLAIN, forced=1.0) for half in halves]
    torch.testing.assert_close(plain.loss, sums[0].loss + sums[1].loss)
    assert plain.count == sums[0].count + sums[1].count == 10


def test_the_loss_is_exact_under_autocast() -> None:
    model, batch = make_model("gru", "gru"), make_batch([4], [5])
    hidden = model(batch).detach()
    plain = steps_loss(steps_head(model.head), hidden, batch.target, config=PLAIN).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(steps_loss(steps_head(model.head), hidden, batch.target, config=PLAIN).loss, plain)


def test_own_frames_replace_the_truth() -> None:
    model, batch = make_model("gru", "transformer"), make_batch([4, 6, 1], [5, 2, 3])
    truth = model.previous(batch.target)
    assert torch.equal(fed_back(model, batch, config=PLAIN, forced=1.0), truth)
    own = fed_back(model, batch, config=PLAIN, forced=0.0)
    with torch.no_grad():
        guesses = steps_head(model.head).mean(model.head(model(batch)))
    real = batch.target.mask[:, 1:]
    torch.testing.assert_close(own[:, 1:, :2][real], guesses[:, :-1][real])
    assert torch.equal(own[:, 0], truth[:, 0]) and torch.equal(own[:, 1:][~real], truth[:, 1:][~real])
    half = fed_back(model, batch, config=PLAIN, forced=0.5)
    is_true, is_own = (half == truth).all(-1), (half == own).all(-1)
    assert (is_true | is_own).all() and (is_own & ~is_true).any() and (is_true & ~is_own).any()
    drawn = fed_back(model, batch, config=StepsLossConfig(feedback="sample"), forced=0.0)
    assert (drawn - own)[:, 1:, :2][real].abs().min() > 0 and torch.equal(drawn[:, 0], truth[:, 0])
    loss = steps_training_loss(model, batch, config=PLAIN, forced=0.0)
    torch.testing.assert_close(loss.loss, steps_loss(steps_head(model.head), model(batch, own), batch.target, config=PLAIN).loss)


@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
def test_as_many_passes_as_steps_are_the_roll_out(decoder: str) -> None:
    model, batch = make_model("gru", decoder), make_batch([4, 6, 1], [5, 5, 5])
    fed = fed_back(model, batch, config=StepsLossConfig(feedback_passes=4), forced=0.0)
    found = rollout(model, batch.source, config=RolloutConfig(steps=4), keys=np.arange(3).astype(np.uint64))
    torch.testing.assert_close(fed[:, 1:, :2], found.values, atol=1e-5, rtol=1e-4)
    once = fed_back(model, batch, config=PLAIN, forced=0.0)
    assert (once[:, -1] - fed[:, -1]).abs().max() > 1e-4


@pytest.mark.parametrize(("encoder", "decoder"), [("lstm", "lstm-additive"), ("gru", "lstm"), ("transformer", "transformer")])
def test_learns_to_go_on_round_a_circle(encoder: str, decoder: str) -> None:
    model = make_model(encoder, decoder, StepsHeadConfig())
    fit(model, circles, steps=150, config=PLAIN, forced=0.7)
    batch = circles(64, seed=10_000)
    found = rollout(model, batch.source, config=RolloutConfig(steps=6), keys=np.arange(64).astype(np.uint64))
    standing = (batch.source.data[:, -1:] - batch.target.data).norm(dim=-1).mean()
    velocity = batch.source.data[:, -1] - batch.source.data[:, -2]
    straight = batch.source.data[:, -1:] + velocity[:, None] * torch.arange(1, 7)[None, :, None]
    error = (found.values - batch.target.data).norm(dim=-1).mean()
    assert error < 0.2 * standing and error < 0.2 * (straight - batch.target.data).norm(dim=-1).mean()


def test_samples_find_both_ways_of_a_fork() -> None:
    model = make_model("gru", "gru", MIXTURE)
    fit(model, forks, steps=150, config=PLAIN)
    batch = forks(64, seed=10_000)
    found = rollout(model, batch.source, config=RolloutConfig(steps=4, num_samples=20), keys=np.arange(64).astype(np.uint64))
    assert found.samples is not None
    errors = (found.samples - batch.target.data[:, None]).norm(dim=-1).mean(-1)  # (B, K)
    expected = (found.values - batch.target.data).norm(dim=-1).mean()
    assert errors.amin(1).mean() < 0.25 * errors[:, 0].mean() and errors.amin(1).mean() < 0.25 * expected
    ends = found.samples[:, :, -1, 1]
    assert 0.3 < (ends > 0).float().mean() < 0.7 and (ends.abs() - 2).abs().median() < 0.3


def test_modes_find_both_ways_of_a_fork() -> None:
    model = make_model("gru", "gru", StepsHeadConfig(kind="modes", modes=2, feedback="none"))
    fit(model, forks, steps=150, config=StepsLossConfig(distance="euclidean"))
    batch = forks(64, seed=10_000)
    found = rollout(model, batch.source, config=RolloutConfig(steps=4, num_samples=2), keys=np.arange(64).astype(np.uint64))
    assert found.samples is not None and found.log_probability is not None
    ends = found.samples[:, :, -1, 1].sort(1).values
    assert (ends - torch.tensor([-2.0, 2.0])).abs().max() < 0.4
    torch.testing.assert_close(found.log_probability.exp(), torch.full((64, 2), 0.5), atol=0.2, rtol=0)
    assert (found.log_probability[:, 0] >= found.log_probability[:, 1]).all(), "the likeliest comes first"


def test_learns_when_to_stop() -> None:
    model = make_model("gru", "gru", StepsHeadConfig(stop=True))
    fit(model, countdowns, steps=120, config=PLAIN)
    batch = countdowns(64, seed=10_000)
    found = rollout(model, batch.source, config=RolloutConfig(max_steps=20), keys=np.arange(64).astype(np.uint64))
    assert (found.lengths == batch.target.lengths).float().mean() > 0.9 and not found.truncated.any()


def fit(model: Seq2Seq, make: Callable[..., Batch], *, steps: int, config: StepsLossConfig, forced: float = 1.0) -> None:
    """A few seconds of training on fresh batches."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps)
        sums = steps_training_loss(model, make(32, seed=step), config=config, forced=forced)
        optimizer.zero_grad()
        (sums.loss / sums.count).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()


def circles(count: int, *, seed: int) -> Batch:
    """Eight points on a circle to the six that follow; direction and phase vary."""
    generator = torch.Generator().manual_seed(seed)
    phase = torch.rand(count, 1, generator=generator) * 2 * math.pi
    speed = 0.4 * (torch.randint(2, (count, 1), generator=generator) * 2 - 1)
    angle = phase + speed * torch.arange(14)
    points = torch.stack([angle.cos(), angle.sin()], -1)
    return _pairs(points[:, :8], points[:, 8:])


def forks(count: int, *, seed: int) -> Batch:
    """A straight way to one that bends up or down, nobody knows which."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(count, 1, generator=generator) * 0.1
    way = torch.randint(2, (count, 1), generator=generator) * 2.0 - 1
    ahead = torch.arange(1, 5) / 2
    source = torch.stack([start + torch.arange(-3, 1) / 2, torch.zeros(count, 4)], -1)
    target = torch.stack([start + ahead, way * ahead], -1)
    return _pairs(source, target + torch.randn(target.shape, generator=generator) * 0.1)


def countdowns(count: int, *, seed: int) -> Batch:
    """One number n to the track n, n - 1, ... 1, in tenths."""
    numbers = torch.randint(1, 9, (count,), generator=torch.Generator().manual_seed(seed))
    track = (numbers[:, None] - torch.arange(8)[None, :]).clamp_min(0) / 10
    target = Padded(torch.stack([track, track], -1), numbers)
    source = (numbers[:, None, None] / 10).expand(-1, 1, 2).contiguous()
    return Batch(torch.arange(count), Padded(source, torch.ones_like(numbers)), target)


def _pairs(source: Tensor, target: Tensor) -> Batch:
    count = len(source)
    ends = (Padded(end, torch.full((count,), end.shape[1])) for end in (source, target))
    return Batch(torch.arange(count), *ends)
