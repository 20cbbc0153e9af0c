"""From raw scores to the best continuations, with as few passes over (N, V) as torch allows on a processor.

The decisions to question: log-softmax in place (one fused pass, measured 2-3 times cheaper than log-sum-exp, which is four),
and a top-k in two stages: the maxima of blocks of 64 columns are cheap (vectorised), and the best k entries must lie in the k
blocks with the largest maxima, so only those are sorted (measured 5-7 times cheaper than topk over W * V).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from transduce.decode.constraints import NEVER, Constraint, ForcedPrefix
from transduce.decode.length import LengthLimits
from transduce.decode.options import SearchConfig

BLOCK = 64  # columns whose maximum is taken at once: 8000 columns -> 125 maxima; 32 and 128 were slower


@dataclass(frozen=True)
class Rules:
    """Everything that stays the same during one search. suppressed: ids that are never produced, end-of-sequence not among them."""

    config: SearchConfig
    limits: LengthLimits
    constraints: tuple[Constraint, ...]
    prefix: ForcedPrefix | None
    suppressed: Tensor
    bos_id: int
    eos_id: int

    @property
    def rescores(self) -> bool:
        """Whether the ranking may differ from the model's own log-probabilities."""
        return any(constraint.rescores for constraint in self.constraints)


def log_probabilities(scores: Tensor, normalised: bool) -> Tensor:
    """(N, V) logits or log-probabilities -> float32 log-probabilities, in the same memory where the device allows."""
    scores = scores.float()
    if normalised:
        return scores
    if scores.device.type == "cpu":
        return torch.log_softmax(scores, -1, out=scores)
    return scores.log_softmax(-1)


def restrict(scores: Tensor, rules: Rules, so_far: Tensor, sentences: Tensor) -> None:
    """Apply suppression and constraints to (B, W, V) in place. so_far: (B, W, t)."""
    step = so_far.shape[2]
    forced = None
    if rules.prefix is not None and step < rules.prefix.longest:
        forced = rules.prefix.read(scores, step, sentences)
    scores.index_fill_(2, rules.suppressed, NEVER)
    for constraint in rules.constraints:
        constraint.apply(scores, so_far, sentences)
    if rules.prefix is not None and forced is not None:
        rules.prefix.impose(scores, forced)


def best_candidates(scores: Tensor, totals: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best `count` continuations of each sentence.

    scores: (B, W, V). totals: (B, W), added to every score of its hypothesis. -> values (B, count), best first, and
    indices (B, count) = hypothesis * V + token.
    """
    batch, width, size = scores.shape
    blocks = size // BLOCK
    if blocks < 4 or width * blocks <= count:
        return (scores + totals[:, :, None]).view(batch, -1).topk(count)
    body = scores[:, :, : blocks * BLOCK]
    maxima = body.view(batch, width, blocks, BLOCK).amax(3).add_(totals[:, :, None])  # (B, W, blocks)
    chosen = maxima.view(batch, -1).topk(count, sorted=False).indices  # (B, count) = hypothesis * blocks + block
    rows = torch.arange(batch, device=scores.device)[:, None]
    beams = chosen.div(blocks, rounding_mode="floor")
    starts = beams * size + (chosen - beams * blocks) * BLOCK  # (B, count)
    values, columns = _columns(scores, totals, (rows, beams, starts))
    best, places = values.topk(count)
    return best, columns.gather(1, places)


def _columns(scores: Tensor, totals: Tensor, where: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The chosen blocks and the last V % BLOCK columns, which belong to no block: values and indices, both (B, entries)."""
    rows, beams, starts = where
    batch, width, size = scores.shape
    indices = (starts[:, :, None] + torch.arange(BLOCK, device=scores.device)).view(batch, -1)  # (B, count * BLOCK)
    values = scores.view(batch, -1).gather(1, indices).view(*beams.shape, BLOCK) + totals[rows, beams][:, :, None]
    values = values.view(batch, -1)
    tail = size % BLOCK
    if tail == 0:
        return values, indices
    ends = torch.arange(size - tail, size, device=scores.device)[None, :] + torch.arange(width, device=scores.device)[:, None] * size
    last = (scores[:, :, size - tail :] + totals[:, :, None]).reshape(batch, -1)
    return torch.cat([values, last], 1), torch.cat([indices, ends.reshape(1, -1).expand(batch, -1)], 1)
