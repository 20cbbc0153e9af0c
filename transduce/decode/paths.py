"""Greedy search and sampling: every hypothesis walks alone, so nothing is ever reordered.

In: a scorer and the rules. Out: hypotheses per sentence, best first. A path ends at its first end-of-sequence symbol; with
sampling, num_best paths per sentence are walked at once.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from transduce.decode.candidates import Rules, best_candidates, log_probabilities, restrict
from transduce.decode.constraints import NEVER
from transduce.decode.hypotheses import Hypothesis, Pools, make_hypothesis
from transduce.decode.sampling import sample_tokens, uniform_table
from transduce.decode.scorers import Scorer, StateT
from transduce.errors import DivergedError

COMPACT_SHARE = 1 / 8  # as in beam search


@dataclass
class Paths:
    """The walks of one batch. tokens, values, ranks: (B * W, T + 1) buffers for the tokens, the model's log-probabilities of them
    and the scores that the choice was made by. sentences: (B',) still in the batch, rows: (N',) their rows of the buffers,
    open: (N',) False = ended."""

    tokens: Tensor
    values: Tensor
    ranks: Tensor
    sentences: np.ndarray
    rows: np.ndarray
    open: np.ndarray
    width: int


def walk(scorer: Scorer[StateT], rules: Rules, *, keys: np.ndarray) -> list[list[Hypothesis]]:
    """Runs until every path has ended. keys: (B,) uint64, what the random draws of each sentence depend on."""
    paths = start_paths(rules)
    uniform = draws(rules, keys)
    pools = Pools(len(paths.sentences), rules.config.num_best)
    state = scorer.start()
    if paths.width > 1:
        state = state.select(torch.arange(len(paths.sentences), device=rules.suppressed.device).repeat_interleave(paths.width))
    last = torch.full((len(paths.rows),), rules.bos_id, device=rules.suppressed.device)
    rows = torch.from_numpy(paths.rows).to(last.device)
    for length in range(paths.tokens.shape[1]):
        scores, state = scorer.step(last, state)
        last = choose(log_probabilities(scores, scorer.normalised), paths, rules, rows=rows, uniform=uniform, length=length)
        kept = settle(paths, rules, pools=pools, length=length, last=last)
        if not paths.open.any():
            break
        if kept is not None:
            state = state.keep(*kept)
            last, rows = last[kept[1]], torch.from_numpy(paths.rows).to(last.device)
    return pools.results()


def start_paths(rules: Rules) -> Paths:
    """Empty buffers for the longest output, one step more for its end."""
    count, device = len(rules.limits.maximum), rules.suppressed.device
    width = rules.config.num_best
    shape = (count * width, int(rules.limits.maximum.max(initial=0)) + 1)
    tokens = torch.empty(shape, dtype=torch.int64, device=device)
    values = torch.empty(shape, device=device)
    ranks = torch.empty(shape, device=device) if rules.rescores else values
    return Paths(tokens, values, ranks, np.arange(count), np.arange(count * width), np.ones(count * width, dtype=bool), width)


def draws(rules: Rules, keys: np.ndarray) -> Tensor | None:
    """(B * W, T + 1) uniform numbers, None for greedy search."""
    sampling = rules.config.sampling
    if sampling is None:
        return None
    steps = int(rules.limits.maximum.max(initial=0)) + 1
    return uniform_table(sampling.seed, keys, samples=rules.config.num_best, steps=steps).to(rules.suppressed.device)


def choose(scores: Tensor, paths: Paths, rules: Rules, *, rows: Tensor, uniform: Tensor | None, length: int) -> Tensor:
    """scores: (N', V) log-probabilities, overwritten -> the next tokens (N',), written into the buffers with their scores."""
    count, size = scores.shape
    model_scores = scores.clone() if rules.rescores else None
    cube = scores.view(len(paths.sentences), paths.width, size)
    so_far = paths.tokens[rows, :length].view(len(paths.sentences), paths.width, length)
    restrict(cube, rules, so_far, torch.from_numpy(paths.sentences).to(scores.device))
    if uniform is None or rules.config.sampling is None:
        ranked, chosen = best_candidates(scores[:, None], scores.new_zeros((count, 1)), 1)
        tokens, values = chosen[:, 0], ranked[:, 0]
    else:
        tokens = sample_tokens(scores, uniform[rows, length], rules.config.sampling)
        values = scores.gather(1, tokens[:, None])[:, 0]
    paths.tokens[rows, length] = tokens
    paths.ranks[rows, length] = values
    if model_scores is not None:
        paths.values[rows, length] = model_scores.gather(1, tokens[:, None])[:, 0]
    return tokens


def settle(paths: Paths, rules: Rules, *, pools: Pools, length: int, last: Tensor) -> tuple[Tensor, Tensor] | None:
    """Close what ended, hit its limit or has nowhere to go. -> (sentences, rows) to keep when enough have ended, else None."""
    step_values = paths.ranks[paths.rows, length].cpu().numpy()
    if np.isnan(step_values).any():
        raise DivergedError("the model gives scores that are not numbers (NaN); its weights are damaged or training has diverged")
    stuck = step_values == NEVER
    ended = (last.cpu().numpy() == rules.eos_id) & ~stuck
    owners = np.repeat(paths.sentences, paths.width)
    cut = (stuck | (rules.limits.maximum[owners] <= length)) & ~ended
    closing = np.flatnonzero((ended | cut) & paths.open)
    if not len(closing):
        return None
    for place in closing:
        pools.add(int(owners[place]), draw_up(paths, rules, row=int(paths.rows[place]), length=length, ended=bool(ended[place])))
    paths.open[closing] = False
    alive: np.ndarray = paths.open.reshape(-1, paths.width).max(axis=1)
    if np.count_nonzero(~alive) < COMPACT_SHARE * len(alive):
        return None
    places = np.flatnonzero(np.repeat(alive, paths.width))
    paths.sentences, paths.rows, paths.open = paths.sentences[alive], paths.rows[places], paths.open[places]
    return torch.from_numpy(np.flatnonzero(alive)).to(last.device), torch.from_numpy(places).to(last.device)


def draw_up(paths: Paths, rules: Rules, *, row: int, length: int, ended: bool) -> Hypothesis:
    """The hypothesis in one row of the buffers."""
    steps = length + 1 if ended else length
    total = float(paths.ranks[row, :steps].sum())
    values = paths.values[row, :steps].tolist()
    return make_hypothesis(paths.tokens[row, :length].tolist(), values, total=total, truncated=not ended, config=rules.config)
