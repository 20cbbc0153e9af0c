"""Greedy search and sampling: every hypothesis walks alone, so nothing is ever reordered.

In: a scorer and the rules. Out: hypotheses per sentence, best first. A path ends at its first end-of-sequence symbol; with
sampling, num_best paths per sentence are walked at once. The decision to question: a step asks only three cheap questions in
numpy (did anything end, is every score finite, is a limit reached) and does its bookkeeping only after a yes.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from transduce.decode.candidates import Rules, best_of_each, best_tokens, log_probabilities, restrict
from transduce.decode.constraints import NEVER
from transduce.decode.hypotheses import Finished, Hypothesis, Pools, make_hypothesis
from transduce.decode.sampling import sample_tokens, uniform_table
from transduce.decode.scorers import Request, Scorer, StateT, Steps
from transduce.errors import DivergedError
from transduce.model.heads import Best

COMPACT_SHARE = 1 / 8  # finished sentences are dropped from the batch once they are at least this share of it


@dataclass(frozen=True)
class Paths:
    """The walks that are still in the batch, N = B * W rows grouped by sentence.

    tokens: (N, t) so far. values: (N, t) the model's log-probabilities of them. ranks: (N, t) the scores that the choice was made
    by, the same unless a constraint re-weighs. uniform: (N, T) random numbers, None when greedy. sentences: (B,) their numbers in
    the batch as given. open: (N,) False = ended, not dropped yet.
    """

    tokens: Tensor
    values: Tensor
    ranks: Tensor
    uniform: Tensor | None
    sentences: np.ndarray
    open: np.ndarray

    @property
    def width(self) -> int:
        """W: paths per sentence."""
        return len(self.open) // len(self.sentences)

    def select(self, sentences: np.ndarray, places: np.ndarray) -> "Paths":
        """Only the sentences at `sentences` (B',) and the rows at `places` (N',)."""
        rows = torch.from_numpy(places).to(self.tokens.device)
        values = self.values[rows]
        return Paths(
            tokens=self.tokens[rows],
            values=values,
            ranks=values if self.ranks is self.values else self.ranks[rows],
            uniform=None if self.uniform is None else self.uniform[rows],
            sentences=self.sentences[sentences],
            open=self.open[places],
        )


def walk(scorer: Scorer[StateT], rules: Rules, *, keys: np.ndarray) -> Steps[StateT]:
    """Asks for steps until every path has ended. keys: (B,) uint64, what the random draws of each sentence depend on."""
    paths = start_paths(rules, keys)
    pools = Pools(len(keys), rules.config.num_best)
    state = scorer.start()
    if paths.width > 1:
        state = state.select(torch.arange(len(keys), device=rules.suppressed.device).repeat_interleave(paths.width))
    last = torch.full((len(paths.open),), rules.bos_id, device=rules.suppressed.device)
    while True:
        scores, state = yield Request(scorer, last, state, rules.asked_by_walk)
        paths = extend(scores, paths, rules, normalised=scorer.normalised)
        if settle(paths, rules, pools=pools):
            alive = paths.open.reshape(-1, paths.width).max(axis=1)
            if not alive.any():
                return pools.results()
            if np.count_nonzero(~alive) >= COMPACT_SHARE * len(alive):
                kept, places = np.flatnonzero(alive), np.flatnonzero(np.repeat(alive, paths.width))
                paths = paths.select(kept, places)
                state = state.keep(torch.from_numpy(kept).to(last.device), torch.from_numpy(places).to(last.device))
        last = paths.tokens[:, -1]


def start_paths(rules: Rules, keys: np.ndarray) -> Paths:
    """Empty walks, and with sampling one random number per path and step."""
    count, device, sampling = len(keys), rules.suppressed.device, rules.config.sampling
    width = rules.config.num_best
    uniform = None
    if sampling is not None:
        steps = int(rules.limits.maximum.max()) + 1
        uniform = uniform_table(sampling.seed, keys, samples=width, steps=steps).to(device)
    tokens = torch.empty((count * width, 0), dtype=torch.int64, device=device)
    values = torch.empty((count * width, 0), device=device)
    ranks = values.clone() if rules.rescores else values
    return Paths(tokens, values, ranks, uniform, np.arange(count), np.ones(count * width, dtype=bool))


def extend(scores: Tensor | Best, paths: Paths, rules: Rules, *, normalised: bool) -> Paths:
    """scores: (N, V) of the scorer, overwritten, or what was asked of them -> the paths one token later."""
    match best_of_each(scores, rules.asked_by_walk) or scores:
        case Best(values=ranks, tokens=tokens):
            all_ranks = torch.cat([paths.ranks, ranks], 1)
            return replace(paths, tokens=torch.cat([paths.tokens, tokens], 1), values=all_ranks, ranks=all_ranks)
        case logits:
            return extend_by_all(logits, paths, rules, normalised=normalised)


def extend_by_all(scores: Tensor, paths: Paths, rules: Rules, *, normalised: bool) -> Paths:
    """scores: (N, V), overwritten."""
    scores = log_probabilities(scores, normalised)
    size, length = scores.shape[1], paths.tokens.shape[1]
    model_scores = scores.clone() if rules.rescores else None
    cube = scores.view(len(paths.sentences), paths.width, size)
    restrict(cube, rules, so_far=paths.tokens.view(*cube.shape[:2], length), sentences=paths.sentences)
    if paths.uniform is None or rules.config.sampling is None:
        ranks, tokens = best_tokens(scores, rules.columns)
    else:
        tokens = sample_tokens(scores, paths.uniform[:, length], rules.config.sampling)
        ranks = scores.gather(1, tokens[:, None])[:, 0]
    extended = torch.cat([paths.tokens, tokens[:, None]], 1)
    all_ranks = torch.cat([paths.ranks, ranks[:, None]], 1)
    values = all_ranks if model_scores is None else torch.cat([paths.values, model_scores.gather(1, tokens[:, None])], 1)
    return replace(paths, tokens=extended, values=values, ranks=all_ranks)


def settle(paths: Paths, rules: Rules, *, pools: Pools) -> bool:
    """Close, in place, the paths that ended, hit their limit or have nowhere to go. -> whether there were any."""
    length = paths.tokens.shape[1] - 1
    last, ranks = paths.tokens[:, -1].cpu().numpy(), paths.ranks[:, -1].cpu().numpy()
    ended = last == rules.eos_id
    if not ended.any() and length < rules.limits.shortest_maximum and np.isfinite(ranks).all():
        return False
    if np.isnan(ranks[paths.open]).any():
        raise DivergedError("the model gives scores that are not numbers (NaN); its weights are damaged or training has diverged")
    stuck = ranks == NEVER
    ended &= ~stuck
    owners = np.repeat(paths.sentences, paths.width)
    cut = stuck | (rules.limits.maximum[owners] <= length)
    closing = np.flatnonzero((ended | cut) & paths.open)
    for row in closing:
        pools.add(int(owners[row]), Finished.of(draw_up(paths, rules, row=int(row), ended=bool(ended[row]))))
    paths.open[closing] = False
    return len(closing) > 0


def draw_up(paths: Paths, rules: Rules, *, row: int, ended: bool) -> Hypothesis:
    """The hypothesis in one row, whose last token is the end or, where a limit was hit, one token too many."""
    tokens = paths.tokens[row, :-1].tolist()
    values = paths.values[row, : len(tokens) + int(ended)].tolist()
    total = float(paths.ranks[row, : len(values)].sum())
    return make_hypothesis(tokens, values, total=total, truncated=not ended, config=rules.config)
