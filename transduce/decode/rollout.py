"""Predicting numbers step by step: each frame from the ones before it, once with the expected values and K times at random.

In: a model with a `StepsHead`, a batch of sources and one key per source. Out: `Rollout`. The decision to question: the
deterministic walk feeds back the expectation of each frame, also that of a mixture, which is no frame the data would show
where futures part, but the one with the smallest expected squared error. The random walks show the parting. They draw as text
does: a table of numbers made from (seed, the source's key, number of the sample, step), so that no batch-mate matters.
"""

from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from transduce.data.batch import Padded
from transduce.decode.sampling import uniform_table
from transduce.decode.scorers import ModelState
from transduce.errors import ConfigError, DivergedError
from transduce.model.interface import Memory
from transduce.model.modes import Modes
from transduce.model.seq2seq import Seq2Seq
from transduce.model.steps import StepsHead, steps_embedding, steps_head
from transduce.settings import Settings

COMPACT_SHARE = 1 / 8  # as in text search


class RolloutConfig(Settings):
    """How tracks are predicted."""

    steps: int | None = Field(default=None, ge=1)
    """Frames predicted of each source; null = until the model says stop (needs model.head.stop)."""
    max_steps: int = Field(default=512, ge=1)
    """Most frames without a stop; what reaches it is marked truncated."""
    num_samples: int = Field(default=0, ge=0)
    """Further outputs per source beside the expected one (K): random ones of model.head.kind = mixture, the K likeliest of modes."""
    temperature: float = Field(default=1.0, gt=0)
    """Of a mixture: divides the logits of the components and multiplies all variances; below 1 is more careful, above 1 more varied."""
    seed: int = Field(default=1, ge=0)
    """Seed of the samples. They depend on it and on the source only, never on the other sources of a batch or their order."""


@dataclass(frozen=True)
class Paths:
    """N finished walks. values: (N, T, C), zeros after the end. lengths: (N,) frames. truncated: (N,) ended by max_steps.

    log_probability: (N,) of the frames and of the decisions to go on or stop, in nats at temperature 1; None for a regression.
    parameters: (N, T, P) what the head gave, for a head of modes.
    """

    values: Tensor
    lengths: Tensor
    truncated: Tensor
    log_probability: Tensor | None
    parameters: Tensor | None = None


@dataclass(frozen=True)
class Rollout:
    """The expected output of B sources, and K further ones of each (None without): random ones of a mixture, or the likeliest modes.

    values: (B, T, C), zeros after the end. lengths: (B,). truncated: (B,) True = max_steps came before a stop.
    samples: (B, K, T', C). sample_lengths, samples_truncated: (B, K). log_probability: (B, K) of the samples, nats; of modes the
    logarithm of each one's probability.
    """

    values: Tensor
    lengths: Tensor
    truncated: Tensor
    samples: Tensor | None = None
    sample_lengths: Tensor | None = None
    samples_truncated: Tensor | None = None
    log_probability: Tensor | None = None


@torch.no_grad()
def rollout(model: Seq2Seq, source: Padded, *, config: RolloutConfig, keys: np.ndarray) -> Rollout:
    """Runs until every walk has ended; the model is in evaluation mode. keys: (B,) uint64, what the draws of each source depend on.

    Raises ConfigError where the head cannot do what is asked, DivergedError where the model gives no finite numbers.
    """
    head, count = steps_head(model.head), config.num_samples
    check_rollout(head, config)
    memory = model.encode(source)
    mean = walk(model, memory, config=config, uniform=None)
    if not count:
        return Rollout(mean.values, mean.lengths, mean.truncated)
    if mean.parameters is not None and head.modes is not None:
        return _with_modes(mean, head.modes.read(mean.parameters).likeliest(count))
    per_step = head.num_uniform + 1
    table = uniform_table(config.seed, keys, samples=count, steps=(config.steps or config.max_steps) * per_step)
    paths = walk(model, memory, config=config, uniform=table.view(len(table), -1, per_step).to(memory.mask.device))
    shape = (len(keys), count)
    return Rollout(
        mean.values,
        mean.lengths,
        mean.truncated,
        samples=paths.values.reshape(*shape, -1, head.size),
        sample_lengths=paths.lengths.view(shape),
        samples_truncated=paths.truncated.view(shape),
        log_probability=None if paths.log_probability is None else paths.log_probability.view(shape),
    )


def check_rollout(head: StepsHead, config: RolloutConfig) -> None:
    """Raises ConfigError where the head cannot do what the configuration asks."""
    if config.steps is None and not head.stops:
        raise ConfigError("rollout.steps = null predicts until the model says stop: set model.head.stop = true, or rollout.steps")
    most = head.num_guesses
    if most is not None and config.num_samples > most:
        what = f"is above model.head.modes = {most}" if most else "needs model.head.kind = mixture or modes: a regression has no samples"
        raise ConfigError(f"rollout.num_samples = {config.num_samples} {what}")


def _with_modes(mean: Paths, modes: Modes) -> Rollout:
    """The expected walks with their likeliest modes, which are as long as they are."""
    count, width = modes.tracks.shape[1:3]
    is_real = torch.arange(width, device=mean.lengths.device)[None, :] < mean.lengths[:, None]  # (B, T)
    lengths, truncated = (end[:, None].expand(-1, count) for end in (mean.lengths, mean.truncated))
    samples = modes.tracks.where(is_real[:, None, :, None], 0.0)
    return Rollout(mean.values, mean.lengths, mean.truncated, samples, lengths, truncated, modes.log_weights)


@dataclass
class _Record:
    """What N walks have written so far. values: (N, limit, C). lengths, scores, truncated: (N,). parameters: (N, limit, P) of modes."""

    values: Tensor
    lengths: Tensor
    scores: Tensor
    truncated: Tensor
    parameters: Tensor | None

    def finished(self, *, scored: bool) -> Paths:
        """As wide as the longest."""
        width = int(self.lengths.max())
        parameters = None if self.parameters is None else self.parameters[:, :width]
        return Paths(self.values[:, :width], self.lengths, self.truncated, self.scores if scored else None, parameters)


@dataclass(frozen=True)
class _Choice:
    """The next frame of N walks. frames: (N, C). stopping: (N,) it is the last. scores, stop_scores: (N,) log-probabilities of both."""

    frames: Tensor
    stopping: Tensor
    scores: Tensor
    stop_scores: Tensor

    def only(self, is_open: Tensor) -> "_Choice":
        """Zeros for the walks that have ended."""
        scores, stop_scores = self.scores.where(is_open, 0.0), self.stop_scores.where(is_open, 0.0)
        return _Choice(self.frames.where(is_open[:, None], 0.0), self.stopping, scores, stop_scores)


def walk(model: Seq2Seq, memory: Memory, *, config: RolloutConfig, uniform: Tensor | None) -> Paths:
    """One walk per source that takes the expected frames, or, with uniform (B * K, steps, num_uniform + 1), K random ones."""
    head, embedding, device = steps_head(model.head), steps_embedding(model.embedding), memory.mask.device
    num_sources, limit = len(memory.mask), config.steps or config.max_steps
    width = 1 if uniform is None else len(uniform) // num_sources
    rows = torch.arange(num_sources * width, device=device)  # of each walk that goes on, its place in the record
    record = _empty_record(len(rows), limit, head=head, device=device)
    is_open = torch.ones_like(rows, dtype=torch.bool)
    state = ModelState(memory, model.start(memory))
    state = state if width == 1 else state.select(rows // width)
    previous = embedding.begin(len(rows), device)[:, 0]
    for step in range(limit):
        parameters, decoder = model.step(previous, state.decoder, state.memory)
        _expect_finite(parameters, is_open)
        choice = choose(head, parameters, None if uniform is None else uniform[rows, step], temperature=config.temperature)
        choice = choice.only(is_open)
        state, previous = ModelState(state.memory, decoder), embedding.after(choice.frames)
        if record.parameters is not None:
            record.parameters[rows, step] = parameters
        _write(record, rows, choice=choice, is_open=is_open, step=step, last=None if config.steps else limit - 1)
        if config.steps is not None:
            continue
        is_open = is_open & ~choice.stopping
        alive = is_open.view(-1, width).any(1)  # (B',)
        if not alive.any():
            break
        if (~alive).sum() >= COMPACT_SHARE * len(alive):
            kept, places = alive.nonzero()[:, 0], alive.repeat_interleave(width).nonzero()[:, 0]
            state, rows, is_open, previous = state.keep(kept, places), rows[places], is_open[places], previous[places]
    return record.finished(scored=head.probabilistic)


def choose(head: StepsHead, parameters: Tensor, uniform: Tensor | None, *, temperature: float) -> _Choice:
    """parameters: (N, P); uniform: (N, num_uniform + 1), the last of them decides on the stop, None = expected frames, likelier stop."""
    frames = head.mean(parameters) if uniform is None else head.sample(parameters, uniform[:, :-1], temperature=temperature)
    scores = head.log_probability(parameters, frames) if head.probabilistic else torch.zeros_like(frames[:, 0])
    logits = head.stop_logits(parameters)
    if logits is None:
        return _Choice(frames, torch.zeros_like(scores, dtype=torch.bool), scores, torch.zeros_like(scores))
    stopping = logits > 0 if uniform is None else uniform[:, -1] < logits.sigmoid()
    return _Choice(frames, stopping, scores, functional.logsigmoid(torch.where(stopping, logits, -logits)))


def _empty_record(count: int, limit: int, *, head: StepsHead, device: torch.device) -> _Record:
    lengths = torch.zeros(count, dtype=torch.int64, device=device)
    values, scores = torch.zeros(count, limit, head.size, device=device), torch.zeros(count, device=device)
    parameters = None if head.modes is None else torch.zeros(count, limit, head.num_parameters, device=device)
    return _Record(values, lengths, scores, torch.zeros_like(lengths, dtype=torch.bool), parameters)


def _write(record: _Record, rows: Tensor, *, choice: _Choice, is_open: Tensor, step: int, last: int | None) -> None:
    """Enter one step of the open walks. `last`: the step at which walks without a stop are cut, None = stops are not asked for.

    A walk that is cut did not decide to go on, so its last decision does not count.
    """
    record.values[rows, step] = choice.frames
    record.lengths[rows] += is_open
    scores = choice.scores
    if last is not None:
        cut = ~choice.stopping & (step == last)
        scores = scores + choice.stop_scores.masked_fill(cut, 0.0)
        record.truncated[rows] = cut & is_open
    record.scores[rows] += scores


def _expect_finite(parameters: Tensor, is_open: Tensor) -> None:
    if not parameters[is_open].isfinite().all():
        raise DivergedError("the model predicts numbers that are not finite; its weights are damaged or training has diverged")
