"""Search with torch: questions without models, and what answers them, in this process or in a copy of it.

In: models, and sources as they read them. Out: hypotheses. The decision to question: a question holds rows, settings and keys of random
draws, but neither models nor codecs, so that it is small enough to be sent to a process that has the models already.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from transduce.data.values import Row, shown
from transduce.decode.ctc import model_scorer
from transduce.decode.ctc_only import ctc_search
from transduce.decode.fusion import FusedScorer, LanguageModel
from transduce.decode.hypotheses import Hypothesis
from transduce.decode.scorers import EnsembleScorer, Scorer, Steps
from transduce.decode.search import SearchConfig, search_steps
from transduce.decode.shortlist import Shortlist, ShortlistScorer
from transduce.decode.together import Search, search_together
from transduce.errors import ConfigError
from transduce.readings import Member, Readings, padded_sources

REHEARSED = 8
"""Tokens of an output that is thrown away."""


@dataclass(frozen=True)
class Question:
    """Sources that are searched together.

    row_share: of a full batch, what one hypothesis takes. rows: of each source, by digest of the codec. keys: what the random draws for
    each depend on; None = there are none. starts: ids that each output must begin with; None = any may come first.
    """

    row_share: float
    rows: Sequence[Mapping[str, Row]]
    config: SearchConfig
    keys: list[int] | None
    starts: list[list[int]] | None

    def shortened(self) -> "Question":
        """The same, but its outputs are cut off after a few tokens."""
        few = {"min_length": 0, "min_length_ratio": 0.0, "max_length": REHEARSED}
        return replace(self, config=self.config.model_copy(update=few))


def question(encoded: Readings, numbers: list[int], *, config: SearchConfig, starts: Sequence[list[int]] | None) -> Question:
    """The sources of these numbers. starts: of all sources of the stretch."""
    keys = None if config.sampling is None else [text_key(shown(encoded.values[number])) for number in numbers]
    own = None if starts is None else [starts[number] for number in numbers]
    row_share = max(encoded.lengths[number] for number in numbers) / config.batch_tokens
    return Question(row_share, [encoded.rows[number] for number in numbers], config, keys, own)


@dataclass(frozen=True)
class Searcher:
    """Models that search together. ceiling: tokens of the longest output that they were built for."""

    members: tuple[Member, ...]
    language_model: LanguageModel | None
    shortlist: Shortlist | None
    ceiling: int

    def state(self) -> object:
        """Equal for two searchers that share models whose parameters nobody has written to in between."""
        models = [member.model for member in self.members] + ([] if self.language_model is None else [self.language_model.model])
        versions = [0 if weight.is_inference() else weight._version for model in models for weight in model.parameters()]
        return list(map(id, models)), versions, id(self.shortlist), self.ceiling

    def answers(self, questions: Iterable[tuple[int, Question]]) -> Iterator[tuple[int, list[list[Hypothesis]]]]:
        """What is found for each source of a numbered question, best first, as questions get done: the next one is begun before the last
        sources of one are. Raises ConfigError for settings that cannot go together."""
        return search_together(Search(number, self._steps(asked), row_share=asked.row_share) for number, asked in questions)

    def _steps(self, question: Question) -> Steps[Any]:
        config, starts = question.config, question.starts
        weighed = self.language_model is not None and bool(config.language_weight)
        device = next(self.members[0].model.parameters()).device
        sources = padded_sources(self.members, question.rows, device)
        if config.ctc_weight == 1:
            if len(self.members) > 1 or any(starts or ()) or weighed:
                raise ConfigError(
                    "search.ctc_weight = 1 reads outputs off one model's CTC layer: no ensemble, no prefixes and no language model "
                    "(search.language_weight = 0 leaves one out)"
                )
            return ctc_search(self.members[0].model, sources[0], config, max_length=self.ceiling)
        if self.shortlist is not None and shortlists(config) and not (any(starts or ()) or weighed):
            digest = self.members[0].source_codec.digest
            tokens = torch.from_numpy(self.shortlist.tokens(row[digest].data for row in question.rows))
            few = ShortlistScorer(self.members[0].model, sources[0], tokens, max_length=self.ceiling)
            return few.named((yield from search_steps(few, config=config, keys=question.keys)))
        scorers = [
            model_scorer(member.model, source, config, max_length=self.ceiling)
            for member, source in zip(self.members, sources, strict=True)
        ]
        scorer: Scorer[Any] = scorers[0] if len(scorers) == 1 else EnsembleScorer(scorers)
        if self.language_model is not None and weighed:
            scorer = FusedScorer(scorer, self.language_model.scorer(len(question.rows), device), weight=config.language_weight)
        return (yield from search_steps(scorer, config=config, prefixes=starts, keys=question.keys))


def shortlists(config: SearchConfig) -> bool:
    """Whether such a search considers the tokens of a shortlist. Not with a beam: a sixth of its outputs would change (measured)."""
    return config.shortlist and config.beam_size == 1 and not config.ctc_weight


def text_key(text: str) -> int:
    """What the random draws of a source depend on, besides the seed: a number in [0, 2**64) hashed from its text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")
