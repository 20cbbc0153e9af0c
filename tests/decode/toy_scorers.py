"""Scorers small enough to know every answer: scores are a fixed random function of the sentence and the tokens so far."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from transduce.model.frontends import Vocabulary

PAD, BOS, EOS, UNK = 0, 1, 2, 3


@dataclass(frozen=True)
class ToyState:
    """sentences: (N,) which sentence each row belongs to. tokens: (N, t) what it was fed."""

    sentences: Tensor
    tokens: Tensor

    def select(self, rows: Tensor) -> "ToyState":
        return ToyState(self.sentences[rows], self.tokens[rows])

    def keep(self, sentences: Tensor, rows: Tensor) -> "ToyState":
        kept = ToyState(self.sentences[rows], self.tokens[rows])
        assert len(rows) % len(sentences) == 0
        width = len(rows) // len(sentences)
        assert (kept.sentences.view(-1, width) == kept.sentences.view(-1, width)[:, :1]).all(), "rows are grouped by sentence"
        return kept


class ToyScorer:
    """Log-probabilities over `size` tokens, a function of (name of the sentence, the last `order` tokens, the position)."""

    normalised = False

    def __init__(
        self, names: Sequence[int], *, size: int, order: int = 2, max_length: int = 8, end_bias: float = 0.0, sharpness: float = 2.0
    ) -> None:
        self.names = list(names)
        self.vocabulary = Vocabulary(size=size, pad_id=PAD, bos_id=BOS, eos_id=EOS, unk_id=UNK)
        self.source_lengths = torch.full((len(self.names),), 3)
        self.max_length = max_length
        self.order, self.end_bias, self.sharpness = order, end_bias, sharpness
        self.steps = 0
        self.rows = 0

    def start(self) -> ToyState:
        return ToyState(torch.arange(len(self.names)), torch.empty((len(self.names), 0), dtype=torch.int64))

    def step(self, tokens: Tensor, state: ToyState) -> tuple[Tensor, ToyState]:
        fed = torch.cat([state.tokens, tokens[:, None]], 1)
        self.steps += 1
        self.rows += len(tokens)
        rows = [
            self.logits(self.names[sentence], history) for sentence, history in zip(state.sentences.tolist(), fed.tolist(), strict=True)
        ]
        return torch.stack(rows), ToyState(state.sentences, fed)

    def logits(self, name: int, fed: Sequence[int]) -> Tensor:
        """(V,), `fed` begins with begin-of-sequence."""
        seed = name * 7919 + len(fed)
        for token in fed[-self.order :]:
            seed = seed * 131 + token
        logits = torch.randn(self.vocabulary.size, generator=torch.Generator().manual_seed(seed % (2**31))) * self.sharpness
        logits[EOS] += self.end_bias * len(fed)
        return logits

    def forced(self, name: int, tokens: Sequence[int], *, ended: bool = True) -> list[float]:
        """The log-probability of each token of an output, and of its end."""
        wanted = [*tokens, EOS] if ended else list(tokens)
        return [float(self.logits(name, [BOS, *tokens[:place]]).log_softmax(-1)[token]) for place, token in enumerate(wanted)]

    def exact(self, name: int, longest: int) -> list[tuple[float, tuple[int, ...]]]:
        """Every finished output of at most `longest` tokens with its log-probability, best first."""
        words = [token for token in range(self.vocabulary.size) if token not in (PAD, BOS, EOS, UNK)]
        outputs = itertools.chain.from_iterable(itertools.product(words, repeat=length) for length in range(longest + 1))
        return sorted(((sum(self.forced(name, output)), output) for output in outputs), reverse=True)


def naive_greedy(scorer: ToyScorer, name: int, longest: int) -> tuple[tuple[int, ...], bool]:
    """The plainest greedy loop: tokens, whether the limit was hit."""
    tokens: list[int] = []
    while True:
        logits = scorer.logits(name, [BOS, *tokens])
        logits[[PAD, BOS, UNK]] = float("-inf")
        best = int(logits.argmax())
        if best == EOS:
            return tuple(tokens), False
        if len(tokens) == longest:
            return tuple(tokens), True
        tokens.append(best)
