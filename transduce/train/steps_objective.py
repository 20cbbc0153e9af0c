"""From a batch of tracks to `LossSums`: teacher forcing or scheduled feedback around a loss of numbers.

In: a model with a `StepsHead`, a batch whose target is (B, T, C). Out: sums over the real frames, with gradient. The decision
to question: scheduled feedback is the parallel form, as for tokens (train/objective.py), but may be repeated: every pass feeds
the predictions of the pass before, so that after p passes errors have added up over p steps. No gradient flows back
through what is fed.
"""

import torch
from torch import Tensor
from torch.nn import functional

from transduce.data.batch import Batch, Padded
from transduce.model.modes import Modes
from transduce.model.seq2seq import Seq2Seq
from transduce.model.steps import StepsHead, steps_embedding, steps_head
from transduce.train.loss import LossSums, StepsLossConfig

SMALLEST_SQUARE = 1e-6  # under the root of a distance, whose slope would be infinite at zero


def steps_training_loss(model: Seq2Seq, batch: Batch, *, config: StepsLossConfig, forced: float) -> LossSums:
    """The loss of one batch in training mode. `forced` is the share of true previous frames."""
    previous = model.previous(batch.target) if forced >= 1 else fed_back(model, batch, config=config, forced=forced)
    hidden, _ = model.decode(model.memory_of(batch), previous)
    return steps_loss(steps_head(model.head), hidden, batch.target, config=config)


@torch.no_grad()
def fed_back(model: Seq2Seq, batch: Batch, *, config: StepsLossConfig, forced: float) -> Tensor:
    """(B, T, C + 1) decoder inputs in which a share 1 - forced of the frames is what the model itself predicts.

    With forced = 0 and as many passes as steps this is the roll-out.
    """
    head, embedding = steps_head(model.head), steps_embedding(model.embedding)
    truth, memory = model.previous(batch.target), model.memory_of(batch)
    own = torch.rand(truth.shape[:2], device=truth.device) >= forced  # (B, T)
    own[:, 0] = False
    own = (own & batch.target.mask)[..., None]
    uniform = torch.rand(*truth.shape[:2], head.num_uniform, dtype=torch.float64, device=truth.device)
    previous = truth
    for _ in range(config.feedback_passes):
        parameters = head(model.decode(memory, previous)[0])
        guesses = head.sample(parameters, uniform) if config.feedback == "sample" else head.mean(parameters)
        shifted = torch.cat([truth[:, :1], embedding.after(guesses[:, :-1])], dim=1)
        previous = torch.where(own, shifted, truth)
    return previous


def steps_loss(head: StepsHead, hidden: Tensor, target: Padded, *, config: StepsLossConfig) -> LossSums:
    """hidden: (B, T, D), target: (B, T, C) -> sums over the real frames.

    loss: nats of a mixture, or the distance of a regression, plus the weighted stop term; modes add the distance of the nearest one and
    the weighted choice. nll: the same without weights (and choice); what is not a likelihood is no negative log-likelihood, but a
    regression has nothing better to report. correct: frames within the
    tolerance. All in fp32, as the head is.
    """
    mask = target.mask  # (B, T)
    whole = head(hidden)  # (B, T, P)
    parameters, frames = whole[mask], target.data[mask].float()  # (M, P), (M, C)
    terms = -head.log_probability(parameters, frames) if head.probabilistic else distances(head.mean(parameters), frames, config)
    loss, stop = terms.sum(), stop_loss(head.stop_logits(parameters), target)
    near = (head.mean(parameters.detach()) - frames).abs().amax(-1) <= config.tolerance
    extra = config.stop_weight * stop
    if head.modes is not None:
        best, choice = modes_loss(head.modes.read(whole), target, config=config)
        loss, extra = loss + best, extra + config.choice_weight * choice
    return LossSums(loss + extra, (loss + stop).detach(), len(frames), near.sum())


def modes_loss(modes: Modes, target: Padded, *, config: StepsLossConfig) -> tuple[Tensor, Tensor]:
    """Summed distance of the nearest mode of each track, so that only this one learns from it (Gupta 2018, 3.3: variety loss), and the
    cross-entropy of having chosen it, once for each frame of the track."""
    mask = target.mask  # (B, T)
    truth = target.data.masked_fill(~mask[..., None], 0.0).float()
    errors = distances(modes.tracks, truth[:, None].expand_as(modes.tracks), config)  # (B, M, T)
    totals = errors.masked_fill(~mask[:, None], 0.0).sum(-1)  # (B, M)
    best, places = totals.min(-1)
    choice = functional.cross_entropy(modes.log_weights, places, reduction="none")  # (B,)
    return best.sum(), (choice * target.lengths).sum()


def distances(values: Tensor, frames: Tensor, config: StepsLossConfig) -> Tensor:
    """(..., C) each -> (...): the distance of each frame."""
    match config.distance:
        case "smooth_l1":
            errors = functional.smooth_l1_loss(values, frames, beta=config.beta, reduction="none")
        case "mse":
            errors = functional.mse_loss(values, frames, reduction="none")
        case "l1":
            errors = functional.l1_loss(values, frames, reduction="none")
        case "euclidean":
            return ((values - frames).square().sum(-1) + SMALLEST_SQUARE).sqrt()
    return errors.mean(-1)


def stop_loss(logits: Tensor | None, target: Padded) -> Tensor:
    """logits: (M,) of the real frames in order, or None -> summed cross-entropy of "this is the last frame", a scalar."""
    if logits is None:
        return torch.zeros((), device=target.data.device)
    positions = torch.arange(target.data.shape[1], device=target.data.device)
    is_last = (positions[None, :] == target.lengths[:, None] - 1)[target.mask]  # (M,)
    return functional.binary_cross_entropy_with_logits(logits, is_last.to(logits), reduction="sum")


@torch.no_grad()
def displacement(head: StepsHead, hidden: Tensor, target: Padded) -> Tensor:
    """Summed Euclidean error of the expected frames, a scalar in normalised units: what "wrong sources hurt" can be measured by
    where a log density, which may be negative, cannot."""
    errors = head.mean(head(hidden[target.mask])) - target.data[target.mask].float()  # (M, C)
    return errors.square().sum(-1).sqrt().sum()
