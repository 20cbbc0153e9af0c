"""Raw scores to the best continuations, with as few passes over (N, V) as torch allows on a processor.

The decisions to question: log-softmax in place (one fused pass, measured 2-3 times cheaper than log-sum-exp, which is four),
and a top-k in two stages: the maxima of blocks of 64 columns are cheap (vectorised), and the best k entries must lie in the k
blocks with the largest maxima, so only those are sorted (measured 5-7 times cheaper than topk over W * V). Where nothing but the model
ranks, in a process of one thread, a loop does all of it while a row is in the cache.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from transduce.decode.constraints import NEVER, Constraint, ForcedPrefix
from transduce.decode.length import LengthLimits
from transduce.decode.options import SearchConfig
from transduce.model.fused import array, search_loops, searches
from transduce.model.heads import Asked, Best

SMALL = 32768  # scores below which one plain pass costs less than the calls of two stages
BLOCK = 64  # columns whose maximum is taken at once: 8000 columns -> 125 maxima; 32 and 128 were slower


@dataclass(frozen=True)
class Rules:
    """Everything that stays the same during one search.

    suppressed: ids that are never produced, end-of-sequence not among them. columns: (BLOCK,) 0, 1, 2, ... size: V, where nothing but
    the model's logits ranks.
    """

    config: SearchConfig
    limits: LengthLimits
    constraints: tuple[Constraint, ...]
    prefix: ForcedPrefix | None
    suppressed: Tensor
    columns: Tensor
    size: int | None
    bos_id: int
    eos_id: int

    @cached_property
    def asked_by_walk(self) -> Asked | None:
        """What a step of a walk has to tell of the best token, which may be the end; None = all scores."""
        return None if self.size is None else Asked(1, self.suppressed, self.eos_id)

    @cached_property
    def asked_by_beam(self) -> Asked | None:
        """What a step of a beam has to tell of the best tokens beside the end; None = all scores."""
        if self.size is None:
            return None
        others = torch.cat([self.suppressed, self.suppressed.new_tensor([self.eos_id])])
        return Asked(min(self.config.beam_size, self.size), others, self.eos_id)

    @cached_property
    def rescores(self) -> bool:
        """Whether the ranking may differ from the model's own log-probabilities."""
        return any(constraint.rescores for constraint in self.constraints)


def best_of_each(scores: Tensor | Best, asked: Asked | None) -> Best | None:
    """What is asked of a step, which may have told it already, or from logits (N, V), which are overwritten; None where a loop cannot."""
    match scores:
        case Best():
            return scores
    if asked is None or not searches(scores):
        return None
    found = Best.empty(len(scores), asked.count)
    written = array(found.values), array(found.tokens), array(found.ends)
    search_loops().best_of_rows(array(scores), (array(asked.excluded), asked.end), written)
    return found


def log_probabilities(scores: Tensor, normalised: bool) -> Tensor:
    """(N, V) logits or log-probabilities -> float32 log-probabilities, in the same memory where the device allows."""
    scores = scores.float()
    if normalised:
        return scores
    if scores.device.type == "cpu":
        return torch.log_softmax(scores, -1, out=scores)
    return scores.log_softmax(-1)


def restrict(scores: Tensor, rules: Rules, *, so_far: Tensor, sentences: np.ndarray) -> None:
    """Apply suppression and constraints to (B, W, V) in place. so_far: (B, W, t). sentences: (B,)."""
    if not rules.constraints and rules.prefix is None:
        scores.index_fill_(2, rules.suppressed, NEVER)
        return
    step, numbers = so_far.shape[2], torch.from_numpy(sentences).to(scores.device)
    forced = None
    if rules.prefix is not None and step < rules.prefix.longest:
        forced = rules.prefix.read(scores, step, numbers)
    scores.index_fill_(2, rules.suppressed, NEVER)
    for constraint in rules.constraints:
        constraint.apply(scores, so_far, numbers)
    if rules.prefix is not None and forced is not None:
        rules.prefix.impose(scores, forced)


def best_tokens(scores: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """scores: (N, V) -> the largest score of each row (N,) and its token (N,)."""
    count, size = scores.shape
    if scores.numel() < SMALL or size < 4 * BLOCK:
        best = scores.max(-1)
        return best.values, best.indices
    values, tokens = best_candidates(scores[:, None], scores.new_zeros((count, 1)), 1, columns=columns)
    return values[:, 0], tokens[:, 0]


def best_candidates(scores: Tensor, totals: Tensor, count: int, *, columns: Tensor) -> tuple[Tensor, Tensor]:
    """The best `count` continuations of each sentence.

    scores: (B, W, V). totals: (B, W), added to every score of its hypothesis. columns: (BLOCK,) 0, 1, 2, ... -> values (B, count),
    best first, and indices (B, count) = hypothesis * V + token.
    """
    batch, width, size = scores.shape
    blocks = size // BLOCK
    if blocks < 4 or width * blocks <= count:
        return (scores + totals[:, :, None]).view(batch, -1).topk(count)
    maxima = scores[:, :, : blocks * BLOCK].view(batch, width, blocks, BLOCK).amax(3).add_(totals[:, :, None])  # (B, W, blocks)
    chosen = maxima.view(batch, -1).topk(count, sorted=False).indices  # (B, count) = hypothesis * blocks + block
    beams = chosen.div(blocks, rounding_mode="floor")
    starts = chosen * BLOCK + beams * (size % BLOCK)  # = hypothesis * V + block * BLOCK
    indices = (starts[:, :, None] + columns).view(batch, -1)  # (B, count * BLOCK)
    values = scores.view(batch, -1).gather(1, indices).view(batch, count, BLOCK).add_(totals.gather(1, beams)[:, :, None]).view(batch, -1)
    if size % BLOCK:
        values, indices = _with_tail(scores, totals, (values, indices))
    best, places = values.topk(count)
    return best, indices.gather(1, places)


def _with_tail(scores: Tensor, totals: Tensor, found: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Values and indices, both (B, entries), with those of the last V % BLOCK columns, which belong to no block."""
    batch, width, size = scores.shape
    first = size - size % BLOCK
    ends = torch.arange(first, size, device=scores.device)[None, :] + torch.arange(width, device=scores.device)[:, None] * size
    last = (scores[:, :, first:] + totals[:, :, None]).reshape(batch, -1)
    return torch.cat([found[0], last], 1), torch.cat([found[1], ends.view(1, -1).expand(batch, -1)], 1)
