"""Beam search: the W best hypotheses of each sentence go on together.

In: a scorer and the rules. Out: finished hypotheses per sentence, best first. The decision to question: the end-of-sequence
column is taken out before the W best are chosen. So the W best others keep the beam full without the usual 2W
candidates, and an ending counts when it would be among the W best of all (as if both had been ranked together).
Hypotheses are drawn up in Python only at the end; a step that finishes nothing touches (B, W) numbers in numpy.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from transduce.decode.candidates import Rules, best_candidates, best_of_each, log_probabilities, restrict
from transduce.decode.constraints import NEVER
from transduce.decode.hypotheses import Finished, Hypothesis, Pools, make_hypothesis
from transduce.decode.length import length_divisor
from transduce.decode.options import SearchConfig
from transduce.decode.scorers import Request, Scorer, StateT, Steps
from transduce.errors import DivergedError
from transduce.model.heads import Best

COMPACT_SHARE = 1 / 16  # finished sentences are dropped from the batch once they are at least this share of it


@dataclass(frozen=True)
class Beam:
    """The open hypotheses, N = B * W rows grouped by sentence.

    tokens: (N, t) so far. trail: (N, t) summed log-probability of the model after each token. totals: (B, W) what they are ranked by.
    starts: (B, 1) row of each sentence's first hypothesis. sentences: (B,) their numbers in the batch as given. open: (B,) False =
    finished, not dropped yet.
    """

    tokens: Tensor
    trail: Tensor
    totals: Tensor
    starts: Tensor
    sentences: np.ndarray
    open: np.ndarray

    @property
    def width(self) -> int:
        """W now: 1 before the first token, then at most the beam size."""
        return self.totals.shape[1]


@dataclass(frozen=True)
class Expansion:
    """One step of a beam.

    ended: (B, W) totals with the end appended. totals, origins, tokens: (B, W') the best others, best first; which
    hypothesis each came from and its new token. ended_trail (B, W), trail (B, W'): the same in the model's own log-probability.
    """

    ended: Tensor
    totals: Tensor
    origins: Tensor
    tokens: Tensor
    ended_trail: Tensor
    trail: Tensor


def beam_search(scorer: Scorer[StateT], rules: Rules) -> Steps[StateT]:
    """Asks for steps until every sentence is done. -> per sentence up to num_best hypotheses."""
    state = scorer.start()
    beam = first_beam(len(rules.limits.maximum), rules)
    full = rules.config.early_stop == "full"
    pools = Pools(len(rules.limits.maximum), rules.config.beam_size if full else rules.config.num_best)
    last = torch.full((len(beam.sentences),), rules.bos_id, device=rules.suppressed.device)
    while True:
        scores, state = yield Request(scorer, last, state, rules.asked_by_beam)
        expansion = expand(scores, beam, rules, normalised=scorer.normalised)
        still_open = settle(expansion, beam, rules, pools=pools)
        if not still_open.any():
            return pools.results(rules.config.num_best)
        rows, kept = next_rows(expansion, beam, still_open)
        beam = advance(beam, expansion, rows=rows, still_open=still_open, kept=kept)
        last = beam.tokens[:, -1]
        if kept is not None and rows is not None:
            state = state.keep(kept, rows)
        elif rows is not None:
            state = state.select(rows)


def first_beam(num_sentences: int, rules: Rules) -> Beam:
    """One empty hypothesis per sentence; the first expansion widens it."""
    device, numbers = rules.suppressed.device, np.arange(num_sentences)
    return Beam(
        tokens=torch.empty((num_sentences, 0), dtype=torch.int64, device=device),
        trail=torch.empty((num_sentences, 0), device=device),
        totals=torch.zeros((num_sentences, 1), device=device),
        starts=torch.arange(num_sentences, device=device)[:, None],
        sentences=numbers,
        open=np.ones(num_sentences, dtype=bool),
    )


def expand(scores: Tensor | Best, beam: Beam, rules: Rules, *, normalised: bool) -> Expansion:
    """scores: (N, V) of the scorer, overwritten, or what was asked of them. Shapes: see `Expansion`."""
    match best_of_each(scores, rules.asked_by_beam) or scores:
        case Best() as best:
            return expand_by_best(best, beam, rules)
        case logits:
            return expand_by_all(logits, beam, rules, normalised=normalised)


def expand_by_all(scores: Tensor, beam: Beam, rules: Rules, *, normalised: bool) -> Expansion:
    """scores: (N, V), overwritten."""
    batch, width = beam.totals.shape
    size = scores.shape[1]
    scores = log_probabilities(scores, normalised).view(batch, width, size)
    model_scores = scores.clone() if rules.rescores else None
    restrict(scores, rules, so_far=beam.tokens.view(batch, width, beam.tokens.shape[1]), sentences=beam.sentences)
    ended = scores[:, :, rules.eos_id] + beam.totals  # (B, W)
    scores[:, :, rules.eos_id] = NEVER
    totals, indices = best_candidates(scores, beam.totals, min(rules.config.beam_size, width * size), columns=rules.columns)
    origins = indices.div(size, rounding_mode="floor") if width > 1 else torch.zeros_like(indices)
    tokens = indices - origins * size
    if model_scores is None:
        return Expansion(ended, totals, origins, tokens, ended, totals)
    before = beam.trail[:, -1].view(batch, width) if beam.trail.shape[1] else torch.zeros_like(ended)
    trail = model_scores.view(batch, -1).gather(1, indices) + before.gather(1, origins)
    return Expansion(ended, totals, origins, tokens, model_scores[:, :, rules.eos_id] + before, trail)


def expand_by_best(best: Best, beam: Beam, rules: Rules) -> Expansion:
    """The best of a sentence are among the best of each of its hypotheses."""
    (batch, width), each = beam.totals.shape, best.values.shape[1]
    sums = (best.values.view(batch, width, each) + beam.totals[:, :, None]).view(batch, -1)
    totals, places = sums.topk(min(rules.config.beam_size, width * each))
    ended = best.ends.view(batch, width) + beam.totals
    origins = places.div(each, rounding_mode="floor")
    return Expansion(ended, totals, origins, best.tokens.view(batch, -1).gather(1, places), ended, totals)


def settle(expansion: Expansion, beam: Beam, rules: Rules, *, pools: Pools) -> np.ndarray:
    """Put what ended or hit its limit into the pools. -> (B,) True where the sentence goes on."""
    length = beam.tokens.shape[1]
    totals, ended = expansion.totals.cpu().numpy(), expansion.ended.cpu().numpy()
    best = totals[:, 0]
    finite = bool(np.isfinite(best).all())
    if not finite and np.isnan(best[beam.open]).any():
        raise DivergedError("the model gives scores that are not numbers (NaN); its weights are damaged or training has diverged")
    full = totals.shape[1] == rules.config.beam_size
    ending = (ended > (totals[:, -1:] if full else NEVER)) & beam.open[:, None]
    if ending.any():
        rank = (totals[:, None, :] > ended[:, :, None]).sum(2) + (ended[:, None, :] > ended[:, :, None]).sum(2)
        ending &= rank < rules.config.beam_size
        collect(np.argwhere(ending), beam, rules, pools=pools, expansion=expansion)
    still_open = beam.open
    if not finite or length >= rules.limits.shortest_maximum:
        stuck = still_open & ((best == NEVER) | (rules.limits.maximum[beam.sentences] <= length))
        previous = beam.totals.cpu().numpy() > NEVER
        collect(np.argwhere(stuck[:, None] & previous & ~ending), beam, rules, pools=pools, expansion=None)
        still_open = still_open & ~stuck
    if pools.any_full:
        threshold = pools.threshold[beam.sentences]
        still_open = still_open & ((threshold == NEVER) | (reachable(best, beam, rules) > threshold))
    return still_open


def reachable(best: np.ndarray, beam: Beam, rules: Rules) -> np.ndarray:
    """(B,) the score that the best open hypothesis, with total `best` (B,), is taken to be able to reach; see `early_stop`."""
    config, length = rules.config, beam.tokens.shape[1] + 1
    match config.early_stop:
        case "first" | "full":
            return np.full_like(best, NEVER)
        case "never":
            return np.full_like(best, np.inf)
        case "likely":
            return np.asarray(best / length_divisor(config, length + 1))
        case "best":
            longest = rules.limits.maximum[beam.sentences] + 1
            return np.asarray(best / np.array([length_divisor(config, int(limit)) for limit in longest]))


def collect(cells: np.ndarray, beam: Beam, rules: Rules, *, pools: Pools, expansion: Expansion | None) -> None:
    """Put the hypotheses in `cells` (count, 2) = (row of sentence, beam) into the pools: with an end from `expansion`, else truncated."""
    tokens, trail = beam.tokens.cpu().numpy(), beam.trail.cpu().numpy()
    totals = (beam.totals if expansion is None else expansion.ended).cpu().numpy()
    ended_trail = None if expansion is None else expansion.ended_trail.cpu().numpy()
    divisor = length_divisor(rules.config, tokens.shape[1] + (expansion is not None))
    for sentence, place in cells.tolist():
        number, row, total = int(beam.sentences[sentence]), sentence * beam.width + place, float(totals[sentence, place])
        score = total / divisor
        if expansion is not None and score <= pools.threshold[number]:
            continue
        ended = None if ended_trail is None else ended_trail[sentence, place]
        draw = partial(draw_up, tokens[row], (trail[row], ended), total=total, config=rules.config)
        pools.add(number, Finished(score, expansion is None, draw))


def draw_up(tokens: np.ndarray, trail: tuple[np.ndarray, np.float32 | None], *, total: float, config: SearchConfig) -> Hypothesis:
    """tokens: (t,). trail: (t,) summed log-probabilities, and that with the end; None = the hypothesis is truncated."""
    sums, ended = trail
    steps = np.diff(sums if ended is None else np.append(sums, ended), prepend=np.float32(0)).tolist()
    return make_hypothesis(tokens.tolist(), steps, total=total, truncated=ended is None, config=config)


def next_rows(expansion: Expansion, beam: Beam, still_open: np.ndarray) -> tuple[Tensor | None, Tensor | None]:
    """-> rows (N',) that the state goes on with, None = all as they are; sentences (B',) that are kept, None = all."""
    closed = len(still_open) - np.count_nonzero(still_open)
    if closed >= COMPACT_SHARE * len(still_open) and closed:
        kept = torch.from_numpy(np.flatnonzero(still_open)).to(beam.starts.device)
        return (expansion.origins + beam.starts)[kept].view(-1), kept
    origins = expansion.origins.cpu().numpy()
    if origins.shape[1] == beam.width and (origins == np.arange(beam.width)).all():
        return None, None
    return (expansion.origins + beam.starts).view(-1), None


def advance(beam: Beam, expansion: Expansion, *, rows: Tensor | None, still_open: np.ndarray, kept: Tensor | None) -> Beam:
    """The beam one token later, of the kept sentences."""
    tokens, trail, totals, sentences = expansion.tokens, expansion.trail, expansion.totals, beam.sentences
    if kept is not None:
        tokens, trail, totals = tokens[kept], trail[kept], totals[kept]
        sentences, still_open = sentences[still_open], still_open[still_open]
    width, starts = totals.shape[1], beam.starts
    if kept is not None or width != beam.width:
        starts = torch.arange(0, len(sentences) * width, width, device=starts.device)[:, None]
    old_tokens = beam.tokens if rows is None else beam.tokens.index_select(0, rows)
    old_trail = beam.trail if rows is None else beam.trail.index_select(0, rows)
    return Beam(
        tokens=torch.cat([old_tokens, tokens.reshape(-1, 1)], 1),
        trail=torch.cat([old_trail, trail.reshape(-1, 1)], 1),
        totals=totals,
        starts=starts,
        sentences=sentences,
        open=still_open,
    )
