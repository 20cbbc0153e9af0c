"""Who gives scores to the next token: one model, several models, or anything else with the same three methods.

In: the last token of N = B * W hypotheses (rows grouped by sentence) and a state. Out: scores (N, V) and the next state.
The decision to question: sentence-level memory lives inside the state, so that the engine drops sentences and reorders
hypotheses through one value and never sees a model. The engine may overwrite the scores that it is given.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from transduce.data.batch import Padded
from transduce.decode.hypotheses import Hypothesis
from transduce.model.frontends import Vocabulary, token_vocabulary
from transduce.model.heads import Asked, Best, TokenHead
from transduce.model.interface import Memory, State
from transduce.model.seq2seq import Seq2Seq


class ScorerState(Protocol):
    """What a scorer remembers of N hypotheses and of their B sentences."""

    def select(self, rows: Tensor) -> Self:
        """The hypotheses named by `rows` (N',), of the same sentences in the same order."""
        ...

    def keep(self, sentences: Tensor, rows: Tensor) -> Self:
        """Only `sentences` (B',) go on, with the hypotheses named by `rows` (N',) of the numbering before."""
        ...


StateT = TypeVar("StateT", bound=ScorerState)


class Scorer(Protocol[StateT]):
    """A source of next-token scores for the B sentences that it was made for."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Size of V and the special ids."""
        ...

    @property
    def source_lengths(self) -> Tensor:
        """(B,) source tokens of each sentence, end-of-sequence not counted; bounds the output length."""
        ...

    @property
    def max_length(self) -> int:
        """Longest target that can be scored, end-of-sequence counted."""
        ...

    @property
    def normalised(self) -> bool:
        """True: `step` gives log-probabilities; False: logits, and the engine normalises."""
        ...

    def start(self) -> StateT:
        """State before the first token, one row per sentence."""
        ...

    def step(self, tokens: Tensor, state: StateT) -> tuple[Tensor, StateT]:
        """tokens: (N,) int64, begin-of-sequence first -> fresh scores (N, V), the next state."""
        ...


@dataclass(frozen=True)
class Request(Generic[StateT]):
    """The step that a search waits for: the last tokens (N,) of its hypotheses, the state that these have left, and, unless it needs all
    scores, what it asks of them."""

    scorer: Scorer[StateT]
    tokens: Tensor
    state: StateT
    asked: Asked | None = None


Steps = Generator[Request[StateT], tuple[Tensor | Best, StateT], list[list[Hypothesis]]]
"""A search under way: it asks for steps, is sent scores (N, V), or what it asked of them, and the next state, and returns hypotheses per
sentence, best first."""


@dataclass(frozen=True)
class ModelState:
    """Memory has one row per sentence, the decoder's state one per hypothesis."""

    memory: Memory
    decoder: State

    def select(self, rows: Tensor) -> "ModelState":
        """See `ScorerState`."""
        return ModelState(self.memory, self.decoder.select(rows))

    def keep(self, sentences: Tensor, rows: Tensor) -> "ModelState":
        """See `ScorerState`."""
        return ModelState(self.memory.select(sentences), self.decoder.select(rows))


class ModelScorer:
    """Logits of one model for one batch of sources."""

    normalised = False

    def __init__(self, model: Seq2Seq, source: Padded, *, max_length: int = 1024) -> None:
        self.model = model
        self.head: Callable[[Tensor], Tensor] = model.head
        self.max_length = max_length
        with torch.inference_mode():
            self.memory = model.encode(source)

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's target vocabulary."""
        return token_vocabulary(self.model.embedding)

    @property
    def source_lengths(self) -> Tensor:
        """(B,) positions of the memory, the last one (of a text: end-of-sequence) not counted."""
        return self.memory.mask.sum(1) - 1

    def start(self) -> ModelState:
        """The encoded batch and the decoder's beginning."""
        return ModelState(self.memory, self.model.start(self.memory))

    def step(self, tokens: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
        """(N,) -> logits (N, V)."""
        hidden, decoder = self.model.decoder.step(self.embed(tokens), state.decoder, state.memory)
        return self.head(hidden), ModelState(state.memory, decoder)

    def best(self, hidden: Tensor, asked: Asked | None) -> Best | None:
        """What is asked of hidden (N, D), where the head finds it without all logits."""
        match self.head:
            case TokenHead() as head if asked is not None:
                return head.best(hidden, asked)
        return None

    def embed(self, tokens: Tensor) -> Tensor:
        """(N,) -> (N, E)."""
        return self.model.embedding(tokens)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class EnsembleState:
    """One state per member."""

    members: tuple[ScorerState, ...]

    def select(self, rows: Tensor) -> "EnsembleState":
        """See `ScorerState`."""
        return EnsembleState(tuple(member.select(rows) for member in self.members))

    def keep(self, sentences: Tensor, rows: Tensor) -> "EnsembleState":
        """See `ScorerState`."""
        return EnsembleState(tuple(member.keep(sentences, rows) for member in self.members))


class EnsembleScorer:
    """Mean of the members' probabilities. They share the target vocabulary; their sources may be encoded differently."""

    normalised = True

    def __init__(self, members: Sequence[Scorer[Any]]) -> None:
        self.members = tuple(members)
        self.max_length = min(member.max_length for member in members)

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary that all members share."""
        return self.members[0].vocabulary

    @property
    def source_lengths(self) -> Tensor:
        """(B,), the longest of the members' readings."""
        return torch.stack([member.source_lengths for member in self.members]).amax(0)

    def start(self) -> EnsembleState:
        """Every member's start."""
        return EnsembleState(tuple(member.start() for member in self.members))

    def step(self, tokens: Tensor, state: EnsembleState) -> tuple[Tensor, EnsembleState]:
        """(N,) -> log of the mean probability (N, V)."""
        outputs = [member.step(tokens, own) for member, own in zip(self.members, state.members, strict=True)]
        logs = [scores if member.normalised else scores.log_softmax(-1) for member, (scores, _) in zip(self.members, outputs, strict=True)]
        mean = torch.stack(logs).logsumexp(0) - torch.tensor(float(len(logs))).log().item()
        return mean, EnsembleState(tuple(own for _, own in outputs))
