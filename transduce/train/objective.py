"""From a batch to `LossSums`: teacher forcing, scheduled sampling or R-Drop around the fused loss.

In: a model, a batch, the step. Out: sums with gradient. The decision to question: scheduled sampling is the parallel form
(two passes, Mihaylova & Martins 2019; Duckworth 2019), so that it works for every decoder and costs one forward pass.
"""

import math
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from transduce.data.batch import Batch, Padded
from transduce.model.heads import TokenHead, token_head
from transduce.model.interface import Memory
from transduce.model.seq2seq import Seq2Seq
from transduce.model.steps import StepsHead
from transduce.settings import Settings
from transduce.train.ctc_loss import ctc_loss
from transduce.train.loss import CHUNK_ELEMENTS, LossConfig, LossSums, token_loss
from transduce.train.steps_objective import displacement, steps_loss, steps_training_loss


class ForcingConfig(Settings):
    """Scheduled sampling (Bengio 2015): the share of decoder inputs that are the true previous token."""

    kind: Literal["constant", "linear", "inverse_sigmoid"] = "constant"
    """How the ratio goes from `ratio` to `final_ratio` over `decay_steps`; constant stays at `ratio`."""
    ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of true tokens at the start; 1 = teacher forcing."""
    final_ratio: float = Field(default=0.5, ge=0, le=1)
    """Share of true tokens after `decay_steps` (linear, inverse_sigmoid)."""
    decay_steps: int = Field(default=10_000, ge=1)
    """Steps of the decay; half of the way lies at half of them."""


def forcing_ratio(config: ForcingConfig, step: int) -> float:
    """The share of true previous tokens at `step`."""
    done = min(step / config.decay_steps, 1.0)
    match config.kind:
        case "constant":
            return config.ratio
        case "linear":
            left = 1 - done
        case "inverse_sigmoid":
            left = 1 / (1 + math.exp(12 * (done - 0.5)))
    return config.final_ratio + (config.ratio - config.final_ratio) * left


def training_loss(model: Seq2Seq, batch: Batch, *, loss: LossConfig, forced: float) -> LossSums:
    """The loss of one batch in training mode. `forced` is the share of true previous outputs."""
    match model.head:
        case StepsHead():
            return steps_training_loss(model, batch, config=loss.steps, forced=forced)
        case TokenHead() as head:
            return _text_loss(model, head, batch, loss=loss, forced=forced)


def evaluation_loss(model: Seq2Seq, batch: Batch, *, loss: LossConfig) -> LossSums:
    """The loss of one batch in evaluation mode: true previous outputs, no smoothing."""
    memory = model.memory_of(batch)
    hidden, _ = model.decode(memory, model.previous(batch.target))
    match model.head:
        case StepsHead() as head:
            return steps_loss(head, hidden, batch.target, config=loss.steps)
        case TokenHead() as head:
            return with_ctc(token_loss(head, hidden, batch.target, label_smoothing=0.0), model, batch=batch, memory=memory, loss=loss)


def source_error(model: Seq2Seq, batch: Batch) -> float:
    """How wrong the model is about a batch, in a positive unit: summed nats of a text, summed displacement of a track."""
    hidden = model(batch)
    match model.head:
        case StepsHead() as head:
            return float(displacement(head, hidden, batch.target))
        case TokenHead() as head:
            return float(token_loss(head, hidden, batch.target, label_smoothing=0.0).nll)


def _text_loss(model: Seq2Seq, head: TokenHead, batch: Batch, *, loss: LossConfig, forced: float) -> LossSums:
    previous = model.previous(batch.target) if forced >= 1 else mixed_inputs(model, batch, forced=forced)
    memory = model.memory_of(batch)
    hidden, weights = model.decode(memory, previous, with_attention=loss.doubly_stochastic > 0)
    if loss.r_drop:
        sums = r_drop_loss(head, (hidden, model(batch, previous)), batch.target, config=loss)
    else:
        sums = token_loss(head, hidden, batch.target, label_smoothing=loss.label_smoothing)
    if weights is not None:
        sums = replace(sums, loss=sums.loss + loss.doubly_stochastic * uneven_attention(weights, batch.target, memory.mask))
    return with_ctc(sums, model, batch=batch, memory=memory, loss=loss)


def with_ctc(sums: LossSums, model: Seq2Seq, *, batch: Batch, memory: Memory, loss: LossConfig) -> LossSums:
    """The sums of attention with the share of CTC that the settings ask for (Kim 2017, equation 13), summed over the same targets.

    memory: one row per target.
    """
    if model.ctc is None or not loss.ctc_weight:
        return sums
    ctc = ctc_loss(model.ctc, memory, batch.target)
    joint = (1 - loss.ctc_weight) * sums.loss + loss.ctc_weight * ctc.loss
    return replace(sums, loss=joint, ctc=ctc.loss.detach(), unaligned=ctc.unaligned)


def uneven_attention(weights: Tensor, target: Padded, mask: Tensor) -> Tensor:
    """weights: (B, T, S), mask: (B, S) -> scalar: sum over real source positions of (1 - attention of all real target tokens)^2
    (Xu 2015, equation 14, as a sum over sentences)."""
    looked = torch.einsum("bts,bt->bs", weights.float(), target.mask.float())  # (B, S)
    return ((1 - looked) ** 2 * mask).sum()


@torch.no_grad()
def mixed_inputs(model: Seq2Seq, batch: Batch, *, forced: float) -> Tensor:
    """(B, T) decoder inputs in which a share 1 - forced is what the model itself predicted from the true tokens."""
    truth = model.previous(batch.target)  # (B, T)
    guesses = _argmax(token_head(model.head), model(batch))  # (B, T), guess t is for target t
    shifted = torch.cat([truth[:, :1], guesses[:, :-1]], dim=1)
    own = torch.rand(truth.shape, device=truth.device) >= forced
    own[:, 0] = False
    return torch.where(own & batch.target.mask, shifted, truth)


def _argmax(head: TokenHead, hidden: Tensor) -> Tensor:
    """(B, T, D) -> most probable tokens (B, T), a few rows of logits at a time."""
    rows = max(1, CHUNK_ELEMENTS // len(head.weight))
    parts = torch.split(hidden.flatten(0, 1), rows)
    return torch.cat([head(part).argmax(-1) for part in parts]).view(hidden.shape[:2])


def r_drop_loss(head: TokenHead, pair: tuple[Tensor, Tensor], target: Padded, *, config: LossConfig) -> LossSums:
    """R-Drop (Wu 2021, equation 4, halved so that it compares with the plain loss): mean cross-entropy of two dropout
    masks plus alpha / 2 times their mean divergence in both directions. Holds both distributions, (2, tokens, V)."""
    mask, labels = target.mask, target.data[target.mask]
    first, second = (functional.log_softmax(head(hidden[mask]).float(), dim=-1) for hidden in pair)  # (M, V) each
    entropies = [
        functional.cross_entropy(scores, labels, label_smoothing=config.label_smoothing, reduction="sum") for scores in (first, second)
    ]
    divergence = ((first.exp() - second.exp()) * (first - second)).sum()  # KL(1|2) + KL(2|1)
    loss = (entropies[0] + entropies[1]) / 2 + config.r_drop / 4 * divergence
    nll = -(first + second).detach().gather(1, labels[:, None]).sum() / 2
    return LossSums(loss, nll, len(labels), (first.detach().argmax(-1) == labels).sum())
