"""Several searches at once: while the last sentences of one batch are searched, the next batch begins, and both share their products.

In: searches that ask for steps. Out: what each has found, as it ends. A step reads all weights, so one of few rows costs nearly as much as
one of a hundred. The decision to question: batches stay apart, each with its own length, memory and rules; only the rows of products are
put together (selective batching: Yu 2022, Orca, section 3.2).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from transduce.decode.hypotheses import Hypothesis
from transduce.decode.scorers import ModelScorer, ModelState, Request, Steps
from transduce.model.heads import Asked, Best

FEWEST_ROWS = 128
"""Hypotheses of which products are about as fast as they get."""
REFILL_SHARE = 1 / 2

ModelRequest = tuple[ModelScorer, Tensor, ModelState, Asked | None]
"""A model's scorer, the last tokens (N,), the state, what is asked."""


class Search:
    """A search with what it waits for or has found. number: its name for who asks. row_share: what one hypothesis takes of a full batch."""

    def __init__(self, number: int, steps: Steps[Any], *, row_share: float = 1.0) -> None:
        self.number, self._steps, self._row_share = number, steps, row_share
        self.request: Request[Any] | None = None
        self.found: list[list[Hypothesis]] | None = None

    @property
    def rows(self) -> int:
        """Its hypotheses."""
        return 0 if self.request is None else len(self.request.tokens)

    @property
    def share(self) -> float:
        """Of a full batch, what they take."""
        return self._row_share * self.rows

    def begin(self) -> None:
        """Make the first step, after which a beam is as wide as it gets."""
        self.go_on(None)
        if self.request is not None:
            (scored,) = step_each([self.request])
            self.go_on(scored)

    def go_on(self, scored: tuple[Tensor | Best, Any] | None) -> None:
        """Take the scores (N, V), or what it asked of them, and the state that it has waited for; None = it has not begun."""
        try:
            self.request = next(self._steps) if scored is None else self._steps.send(scored)
        except StopIteration as end:
            self.request, self.found = None, end.value


def search_together(searches: Iterable[Search]) -> Iterator[tuple[int, list[list[Hypothesis]]]]:
    """The number of each search and what it has found. The next one begins when none is left or, where steps can be put together, when all
    that is left has less than `FEWEST_ROWS` and is less than `REFILL_SHARE` of a full batch."""
    waiting, running = iter(searches), list[Search]()
    while True:
        with torch.inference_mode():
            for search, scored in zip(running, step_each([search.request for search in running if search.request]), strict=True):
                search.go_on(scored)
            ended = [search for search in running if search.request is None]
            running = [search for search in running if search.request is not None]
            while takes_more(running, ended) and (following := next(waiting, None)) is not None:
                following.begin()
                (running if following.request is not None else ended).append(following)
        yield from ((search.number, search.found or []) for search in ended)
        if not (running or ended):
            return


def takes_more(running: Sequence[Search], ended: Sequence[Search]) -> bool:
    """Whether another search shall begin beside those that wait for a step. What others have found is given first, where none does."""
    if not running:
        return not ended
    few = sum(search.rows for search in running) < FEWEST_ROWS and sum(search.share for search in running) < REFILL_SHARE
    known = of_one_model([search.request for search in running if search.request]) if few else None
    return known is not None and known[0][0].model.decoder.joins(known[0][0].memory)


def step_each(requests: Sequence[Request[Any]]) -> list[tuple[Tensor | Best, Any]]:
    """The scores (N, V), or what is asked of them, and the next state for each, by the same products where they can be put together."""
    known = of_one_model(requests)
    if not known:
        return [request.scorer.step(request.tokens, request.state) for request in requests]
    inputs = [scorer.embed(tokens) for scorer, tokens, *_ in known]
    memories = [state.memory for *_, state, _ in known]
    hidden, states = known[0][0].model.decoder.step_together(inputs, [state.decoder for *_, state, _ in known], memories)
    following = [ModelState(memory, state) for memory, state in zip(memories, states, strict=True)]
    return list(zip(scores_of(known, hidden, counts=[len(rows) for rows in inputs]), following, strict=True))


def scores_of(known: Sequence[ModelRequest], hidden: Tensor, *, counts: Sequence[int]) -> Sequence[Tensor | Best]:
    """What is asked of hidden (N1 + N2 + ..., D), or all logits (N1, V), (N2, V), ..."""
    parts = torch.split(hidden, list(counts))
    found = [scorer.best(rows, asked) for (scorer, *_, asked), rows in zip(known, parts, strict=True)]
    best = [one for one in found if one is not None]
    if len(best) == len(known):
        return best
    head = known[0][0].head
    if all(scorer.head is head for scorer, *_ in known):
        return torch.split(head(hidden), list(counts))
    return [scorer.head(rows) for (scorer, *_), rows in zip(known, parts, strict=True)]  # each has a shortlist of its own


def of_one_model(requests: Sequence[Request[Any]]) -> list[ModelRequest] | None:
    """The requests, where they are of one model alone; else None."""
    known: list[ModelRequest] = []
    for request in requests:
        match request:
            case Request(scorer=ModelScorer() as scorer, tokens=tokens, state=ModelState() as state, asked=asked):
                known.append((scorer, tokens, state, asked))
            case _:
                return None
    return known if all(scorer.model is known[0][0].model for scorer, *_ in known) else None
