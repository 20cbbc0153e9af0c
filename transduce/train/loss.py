"""The training loss: output layer and cross-entropy in one piece, computed a few hundred rows at a time.

In: hidden states before the head (B, T, D) and the target tokens. Out: `LossSums`, sums over the real tokens; the loop
divides by the number of tokens of a whole update, so the size of a micro-batch never weighs in.
The decision to question: the gradient is computed during the forward pass. The logits of a chunk are at hand there, so
nothing of shape (tokens, V) is ever kept; `backward` only multiplies by the incoming gradient.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from transduce.data.batch import Padded
from transduce.model.blocked import summed, sums
from transduce.model.fused import column_sums, computes, cross_entropy
from transduce.model.heads import TokenHead
from transduce.model.padded import STEP, with_room
from transduce.model.products import multipliers, ready_rows
from transduce.settings import Settings

CHUNK_ELEMENTS = 1 << 23  # logits of one product; 1,024 rows of 8,000 words measured best
BLOCK_ELEMENTS = 1 << 20  # logits normalised at once: 4 MiB in fp32


class StepsLossConfig(Settings):
    """What is minimised where the target is numbers. A mixture is always trained by its likelihood."""

    distance: Literal["smooth_l1", "mse", "l1", "euclidean"] = "smooth_l1"
    """Of a regression and of modes. Mean over the numbers of a frame: smooth_l1 (Girshick 2015), mse (squared) or l1 (absolute error);
    euclidean: how far the frame is off, which is what average displacement measures."""
    beta: float = Field(default=1.0, gt=0)
    """Error at which smooth_l1 turns from squared to absolute, in the units of the normalised frames."""
    choice_weight: float = Field(default=0.05, ge=0)
    """Weight of the cross-entropy that tells modes which of them came nearest; only with model.head.kind = modes."""
    stop_weight: float = Field(default=1.0, ge=0)
    """Weight of the stop prediction's cross-entropy; only with model.head.stop."""
    feedback: Literal["mean", "sample"] = "mean"
    """What of the model's own replaces previous frames under train.forcing: its expected frame, or one drawn from its mixture."""
    feedback_passes: int = Field(default=1, ge=1)
    """Passes that make the model's own frames; each feeds the frames of the one before, and costs a decoder pass without gradient."""
    tolerance: float = Field(default=0.1, gt=0)
    """A frame counts as correct when none of its numbers is off by more, in the units of the normalised frames."""


class LossConfig(Settings):
    """What is minimised."""

    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Probability mass spread evenly over the vocabulary (Szegedy 2016, section 7)."""
    r_drop: float = Field(default=0.0, ge=0)
    """Weight alpha of the symmetric divergence between two dropout masks (Wu 2021); 0 = off. Doubles the cost of a step."""
    ctc_weight: float = Field(default=0.0, ge=0, lt=1)
    """Share of the CTC loss of the encoder in the sum: (1 - w) * attention + w * CTC (Kim 2017 used 0.2 to 0.8); needs model.ctc."""
    doubly_stochastic: float = Field(default=0.0, ge=0)
    """Weight of a penalty on source positions that the attention of all target tokens together does not add up to 1 for (Xu 2015, 4.2.1,
    who used 1); 0 = off. For decoders with attention."""
    steps: StepsLossConfig = StepsLossConfig()
    """The loss of targets that are numbers."""


@dataclass(frozen=True)
class LossSums:
    """Sums over the real target tokens of a batch, end-of-sequence included."""

    loss: Tensor  # scalar with gradient: what is minimised, nats
    nll: Tensor  # scalar without gradient: negative log-likelihood without smoothing, nats
    count: int  # tokens
    correct: Tensor  # scalar without gradient: tokens whose logit is the largest
    ctc: Tensor | None = None  # scalar without gradient: negative log-likelihood of CTC, nats; None without a CTC layer
    unaligned: int = 0  # pairs without a CTC path, left out of `ctc`


def token_loss(head: TokenHead, hidden: Tensor, target: Padded, *, label_smoothing: float) -> LossSums:
    """hidden: (B, T, D), target: (B, T) ids. Equals cross_entropy(head(hidden), target, label_smoothing, reduction="sum").

    Matrix products run in the autocast type when autocast is on, softmax and sums in fp32.
    """
    rows = target.mask.flatten().nonzero().squeeze(1)  # (M,)
    chosen = _PickRows.apply(hidden.flatten(0, 1), rows)  # type: ignore[no-untyped-call]  # (M, D)
    labels = target.data.flatten()[rows]  # (M,)
    projected = head.project(chosen)  # (M, E)
    keep_gradient = torch.is_grad_enabled()
    loss, nll, correct = _FusedCrossEntropy.apply(projected, head.weight, head.bias, labels, label_smoothing, keep_gradient)  # type: ignore[no-untyped-call]
    return LossSums(loss, nll, len(rows), correct)


class _PickRows(torch.autograd.Function):
    """inputs[rows] for rows that do not repeat, so that the backward pass copies instead of adding up."""

    @staticmethod
    def forward(ctx, inputs: Tensor, rows: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(rows)
        ctx.shape = inputs.shape
        return torch.index_select(inputs, 0, rows, out=with_room(inputs, (len(rows), inputs.shape[1])))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        (rows,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.shape).index_copy_(0, rows, gradient), None


class _Gradients(NamedTuple):
    """Gradients of the summed loss: hidden (M, E) in the product type, weight (V, E) and bias (V,) in fp32."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor


class _FusedCrossEntropy(torch.autograd.Function):
    """hidden (M, E), weight (V, E), bias (V,), labels (M,) -> summed loss, nll and number of correct tokens."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, labels, smoothing, keep_gradient):  # type: ignore[no-untyped-def]
        device = hidden.device.type
        product_type = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        with torch.autocast(device, enabled=False), torch.no_grad():
            inputs = tuple(tensor.to(product_type) for tensor in (hidden, weight, bias))
            sums, gradients = _chunked(*inputs, labels=labels, smoothing=smoothing, keep_gradient=keep_gradient)
        ctx.types = hidden.dtype, weight.dtype, bias.dtype
        if gradients is not None:
            ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(sums[1], sums[2])
        return sums

    @staticmethod
    def backward(ctx, scale, *_):  # type: ignore[no-untyped-def]
        gradients = tuple((tensor * scale).to(kind) for tensor, kind in zip(ctx.saved_tensors, ctx.types, strict=True))
        return *gradients, None, None, None


def _chunked(
    hidden: Tensor, weight: Tensor, bias: Tensor, *, labels: Tensor, smoothing: float, keep_gradient: bool
) -> tuple[tuple[Tensor, Tensor, Tensor], _Gradients | None]:
    """Walk over the rows: the products of a chunk, and everything else in blocks that a core's cache holds.

    The smoothing term is the same for every word, so it is one product with the summed weight instead of another pass over the logits:
    sum_v x_v = h . sum_v w_v + sum_v b_v.
    """
    num_rows, num_words = len(hidden), len(weight)
    ready = ready_rows(hidden, weight)
    multiply, multiply_back = multipliers(ready, weight, bias)
    size = max(STEP, CHUNK_ELEMENTS // num_words // STEP * STEP)
    log_total, picked, correct = (torch.zeros(num_rows, device=hidden.device) for _ in range(3))
    totals = (torch.zeros_like(tensor, dtype=torch.float32) for tensor in (weight, bias))
    gradients = _Gradients(torch.empty_like(ready), *totals)
    partial = None if hidden.dtype == torch.float32 else torch.empty_like(weight)
    for first in range(0, num_rows, size):
        rows, here = ready[first : first + size], slice(first, min(first + size, num_rows))
        scores = multiply(rows)
        found = _Found(log_total[here], picked[here], correct[here], gradients.bias if keep_gradient else None)
        _differentiate(scores, labels[here], found, amount=1 - smoothing)
        if keep_gradient:
            gradients.hidden[first : first + size] = multiply_back(scores)
            _add_product(gradients.weight, scores, rows, partial)
        del scores  # so that the next ones take its place
    sums, spread = _reduce(hidden, weight, bias, log_total=log_total, picked=picked, smoothing=smoothing)
    gradients = gradients._replace(hidden=gradients.hidden[:num_rows])
    if keep_gradient and smoothing:
        share = smoothing / num_words
        gradients.hidden.sub_(spread * share)
        gradients.weight.sub_(column_sums(hidden) * share)
        gradients.bias.sub_(num_rows * share)
    return (*sums, correct.sum()), gradients if keep_gradient else None


class _Found(NamedTuple):
    """What is read off the logits of some rows: log sum exp, the label's logit, whether it is the largest (R,); and the bias gradient (V,)
    that they are added to, None without gradients."""

    log_total: Tensor
    picked: Tensor
    correct: Tensor
    bias: Tensor | None


def _differentiate(scores: Tensor, labels: Tensor, found: _Found, *, amount: float) -> None:
    """Turn logits (R', V) into their gradient in place, softmax minus `amount` at the label, and fill `found`. Rows without a label
    (R' > R) get a gradient of zero. Sums and softmax are float32."""
    scores[len(labels) :].zero_()
    if computes(scores):
        cross_entropy(scores[: len(labels)], labels, amount, filled=(found.log_total, found.picked, found.correct), biases=found.bias)
        return
    size = max(1, BLOCK_ELEMENTS // scores.shape[1])
    exact = None if scores.dtype == torch.float32 else torch.empty(size, scores.shape[1], device=scores.device)
    for first in range(0, len(labels), size):
        here = slice(first, min(first + size, len(labels)))
        block = scores[here]
        softmax = block if exact is None else exact[: len(block)].copy_(block)
        _normalise(softmax, labels[here], log_total=found.log_total[here], picked=found.picked[here], correct=found.correct[here])
        if found.bias is not None:
            _subtract_target(softmax, labels[here], amount)
            found.bias.add_(softmax.sum(0))
            if exact is not None:
                block.copy_(softmax)


def _normalise(scores: Tensor, labels: Tensor, *, log_total: Tensor, picked: Tensor, correct: Tensor) -> None:
    """Turn logits (R, V) into probabilities in place; fill log sum exp, the label's logit and whether it is the largest (R,).

    The largest probability is exp(0) / sum, so log sum exp = largest logit - log(largest probability), without a pass of its own.
    """
    picked.copy_(scores.gather(1, labels[:, None]).squeeze(1))
    largest = scores.amax(1)
    torch.softmax(scores, 1, out=scores)
    torch.sub(largest, scores.amax(1).log_(), out=log_total)
    correct.copy_(picked >= largest)


def _subtract_target(softmax: Tensor, labels: Tensor, amount: float) -> None:
    """softmax (R, V) minus `amount` at each row's label."""
    softmax.scatter_add_(1, labels[:, None], softmax.new_full((len(labels), 1), -amount))


def _add_product(total: Tensor, scores: Tensor, rows: Tensor, partial: Tensor | None) -> None:
    """total (V, E) += scores^T rows, in fp32 also where the product is bf16."""
    if sums(scores, rows):
        summed(scores, rows, total=total)
    elif partial is None:
        total.addmm_(scores.t(), rows)
    else:
        total.add_(torch.mm(scores.t(), rows, out=partial))


def _reduce(
    hidden: Tensor, weight: Tensor, bias: Tensor, *, log_total: Tensor, picked: Tensor, smoothing: float
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """The summed loss and nll, and the summed weight rows (E,)."""
    spread = column_sums(weight)
    nll = (log_total - picked).sum()
    if not smoothing:
        return (nll.clone(), nll), spread
    mean_logit = (column_sums(hidden) @ spread + len(hidden) * bias.sum(dtype=torch.float32)) / len(weight)
    return ((1 - smoothing) * nll + smoothing * (log_total.sum() - mean_logit), nll), spread
