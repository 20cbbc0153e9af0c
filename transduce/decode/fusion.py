"""Shallow fusion: a scorer that also asks a language model (Gulcehre 2015, 4.1).

In: any scorer for B sentences, and one of a language model that writes the same tokens. Out: log p(next token | source, tokens so far)
+ weight * log p_LM(next token | tokens so far), for all tokens, the end included. The decision to question: the sum is not normalised
again, as in the paper, so that an output's score is what the two models give it whole, and a beam can be checked by hand.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from transduce.data.codec import Codec
from transduce.data.no_source import NoSourceCodec
from transduce.data.tokens import TextCodec
from transduce.data.values import NOTHING
from transduce.decode.candidates import log_probabilities
from transduce.decode.scorers import ModelScorer, Scorer, ScorerState
from transduce.errors import ConfigError
from transduce.model.frontends import Vocabulary
from transduce.model.seq2seq import Seq2Seq


@dataclass(frozen=True)
class LanguageModel:
    """A model without a source, in evaluation mode, that others search with. longest: the most tokens that it takes, end included."""

    model: Seq2Seq
    longest: int

    def scorer(self, sentences: int, device: torch.device) -> ModelScorer:
        """Its scorer for so many sentences, of whose sources it knows nothing."""
        codec = NoSourceCodec()
        nothing = codec.collate([row.data for row in codec.rows([NOTHING] * sentences)], None)
        return ModelScorer(self.model, nothing.to(device), max_length=self.longest)


def expect_language_model(path: Path | str, codecs: tuple[Codec, Codec], *, writes: TextCodec, beside: Path | str) -> None:
    """Raises ConfigError where a model of these codecs is no language model, or does not write as the model `beside` it."""
    source, target = codecs
    if source.kind != "none":
        raise ConfigError(f"{path} is no language model: its source is {source.describe()}, but data.source_codec.kind = none is wanted")
    if target.digest != writes.digest:
        raise ConfigError(
            f"{path} writes with another target codec ({target.describe()}) than {beside} ({writes.describe()}); train the "
            f"language model with data.target_codec: {{kind: stored, path: {beside}}}"
        )


@dataclass(frozen=True)
class FusedState:
    """What the scorer and the language model remember of the same hypotheses."""

    main: ScorerState
    language: ScorerState

    def select(self, rows: Tensor) -> "FusedState":
        """See `ScorerState`."""
        return FusedState(self.main.select(rows), self.language.select(rows))

    def keep(self, sentences: Tensor, rows: Tensor) -> "FusedState":
        """See `ScorerState`."""
        return FusedState(self.main.keep(sentences, rows), self.language.keep(sentences, rows))


class FusedScorer:
    """A scorer (one model, an ensemble, one joined with CTC) and a language model, for the same batch of sources."""

    normalised = True

    def __init__(self, main: Scorer[Any], language: Scorer[Any], *, weight: float) -> None:
        self.main, self.language, self.weight = main, language, weight
        self.max_length = min(main.max_length, language.max_length)
        if main.vocabulary != language.vocabulary:
            raise ConfigError(
                f"the language model writes {language.vocabulary.size} tokens, the model {main.vocabulary.size}: they must agree"
            )

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary that both share."""
        return self.main.vocabulary

    @property
    def source_lengths(self) -> Tensor:
        """(B,), the scorer's: a language model has no source."""
        return self.main.source_lengths

    def start(self) -> FusedState:
        """Both starts."""
        return FusedState(self.main.start(), self.language.start())

    def step(self, tokens: Tensor, state: FusedState) -> tuple[Tensor, FusedState]:
        """(N,) -> fused scores (N, V)."""
        scores, main = self.main.step(tokens, state.main)
        beside, language = self.language.step(tokens, state.language)
        fused = log_probabilities(scores, self.main.normalised)
        fused = fused.add_(log_probabilities(beside, self.language.normalised), alpha=self.weight)
        return fused, FusedState(main, language)
