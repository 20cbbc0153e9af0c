"""CTC prefix scores, and a scorer that joins them with the decoder's (Watanabe 2017, II-C).

In: the log-probabilities of a CTC layer for B sentences, and the tokens of N = B * W hypotheses, one at a time. Out: for every hypothesis
the log-probability, under CTC, of each next token given the tokens so far, and of the end.

The decision to question: there is no loop over hypotheses, tokens or positions. With Phi(t) the probability that the first t positions
spell the hypothesis, the probability that it goes on with c is sum_t Phi(t) p(t + 1, c), a product of matrices; Phi itself is a linear
recurrence, which logcumsumexp solves at once in float64. Where a memory is padded, the layer is taken to be sure of the blank.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from transduce.data.batch import Padded
from transduce.decode.options import SearchConfig
from transduce.decode.scorers import ModelScorer, ModelState
from transduce.model.frontends import Vocabulary
from transduce.model.heads import expect_ctc
from transduce.model.interface import Memory
from transduce.model.seq2seq import Seq2Seq

IMPOSSIBLE = -1e9
"""The logarithm of a probability of zero where sums and differences must stay finite."""
LEAST = -1e4
"""The smallest logarithm of one position's probability."""
FLOOR = -80.0
"""The smallest score of a next token. It ranks behind whatever has a path, and a forced prefix may still pass through it."""
FULL = 512
"""Vocabulary up to which the scores of all tokens are computed at every step."""


@dataclass(frozen=True)
class Prefixes:
    """N hypotheses over B sentences of S positions, rows grouped by sentence.

    frames: (B, V, S) probabilities. blanks: (B, S + 1) log-probability of blanks only, up to each position. labelled, blank: (N, S + 1)
    log-probability that the first t positions spell the hypothesis and end in its last token, or in a blank. total: (N,)
    log-probability that an output begins with it. last: (N,) its last token, -1 = none. All but the frames are float64.
    """

    frames: Tensor
    blanks: Tensor
    labelled: Tensor
    blank: Tensor
    total: Tensor
    last: Tensor

    @staticmethod
    def start(logs: Tensor, mask: Tensor, blank_id: int) -> "Prefixes":
        """logs: (B, S, V), mask: (B, S) True = real -> the empty hypothesis of each sentence."""
        frames = logs.exp().masked_fill(~mask[:, :, None], 0.0)
        frames[:, :, blank_id].masked_fill_(~mask, 1.0)
        steps = logs[:, :, blank_id].double().masked_fill(~mask, 0.0).clamp(min=LEAST)
        blanks = torch.nn.functional.pad(steps.cumsum(1), (1, 0))  # (B, S + 1)
        count = len(logs)
        nothing, last = torch.full_like(blanks, IMPOSSIBLE), torch.full((count,), -1, device=logs.device)
        return Prefixes(frames.transpose(1, 2).contiguous(), blanks, nothing, blanks, blanks.new_zeros(count), last)

    @property
    def both(self) -> Tensor:
        """(N, S + 1): log-probability that the first t positions spell the hypothesis."""
        return torch.logaddexp(self.labelled, self.blank)

    @property
    def ended(self) -> Tensor:
        """(N,): log-probability of the end, given the hypothesis."""
        return self.both[:, -1] - self.total

    def sentences(self) -> Tensor:
        """(N,): the sentence of each hypothesis."""
        count = len(self.last)
        return torch.arange(count, device=self.last.device).div(count // max(1, len(self.frames)), rounding_mode="floor")

    def frames_of(self, tokens: Tensor) -> Tensor:
        """tokens: (N,) or (N, C) -> their probabilities at each position (N, S) or (N, C, S)."""
        size = self.frames.shape[1]
        sentences = self.sentences() if tokens.dim() == 1 else self.sentences()[:, None]
        return self.frames.flatten(0, 1)[sentences * size + tokens]

    def extended(self, tokens: Tensor) -> "Prefixes":
        """Each hypothesis with its token (N,) behind it."""
        steps = self.frames_of(tokens).double().log().clamp(min=LEAST)  # (N, S)
        grown = torch.nn.functional.pad(steps.cumsum(1), (1, 0))  # (N, S + 1)
        open_ = torch.where((tokens == self.last)[:, None], self.blank, self.both)[:, :-1]  # a token twice needs a blank between
        labelled = torch.logcumsumexp(open_ - grown[:, :-1], 1) + grown[:, 1:]
        labelled = torch.nn.functional.pad(labelled, (1, 0), value=IMPOSSIBLE)
        blanks = self.blanks[self.sentences()]
        blank = torch.logcumsumexp(labelled[:, :-1] - blanks[:, :-1], 1) + blanks[:, 1:]
        blank = torch.nn.functional.pad(blank, (1, 0), value=IMPOSSIBLE)
        return replace(self, labelled=labelled, blank=blank, total=(open_ + steps).logsumexp(1), last=tokens)

    def scores(self, candidates: Tensor) -> Tensor:
        """candidates: (N, C) tokens -> log-probability of each, given the hypothesis, float32, at least FLOOR."""
        reached = (self.both[:, :-1] - self.total[:, None]).exp().float()  # (N, S)
        shares = torch.bmm(self.frames_of(candidates), reached[:, :, None])[:, :, 0]  # (N, C)
        again = candidates == self.last[:, None]
        return torch.where(again, self._repeated()[:, None], shares).log().clamp(min=FLOOR)

    def all_scores(self) -> Tensor:
        """`scores` of the whole vocabulary, (N, V)."""
        batch, size, length = self.frames.shape
        reached = (self.both[:, :-1] - self.total[:, None]).exp().float().view(batch, -1, length)  # (B, W, S)
        shares = torch.bmm(reached, self.frames.transpose(1, 2)).view(-1, size)  # (N, V)
        repeated = torch.where(self.last >= 0, self._repeated(), shares[:, 0])
        return shares.scatter_(1, self.last.clamp(min=0)[:, None], repeated[:, None]).log().clamp(min=FLOOR)

    def _repeated(self) -> Tensor:
        """(N,): the probability that the last token comes once more; meaningless where there is none."""
        reached = (self.blank[:, :-1] - self.total[:, None]).exp().float()
        return (reached * self.frames_of(self.last.clamp(min=0))).sum(1)

    def select(self, rows: Tensor) -> "Prefixes":
        """See `ScorerState`."""
        return replace(self, labelled=self.labelled[rows], blank=self.blank[rows], total=self.total[rows], last=self.last[rows])

    def keep(self, sentences: Tensor, rows: Tensor) -> "Prefixes":
        """See `ScorerState`."""
        return replace(self.select(rows), frames=self.frames[sentences], blanks=self.blanks[sentences])


@dataclass(frozen=True)
class JointState:
    """The decoder's state and the prefixes; `begun` once begin-of-sequence was fed, which is no token of CTC."""

    decoder: ModelState
    prefixes: Prefixes
    begun: bool

    def select(self, rows: Tensor) -> "JointState":
        """See `ScorerState`."""
        return JointState(self.decoder.select(rows), self.prefixes.select(rows), self.begun)

    def keep(self, sentences: Tensor, rows: Tensor) -> "JointState":
        """See `ScorerState`."""
        return JointState(self.decoder.keep(sentences, rows), self.prefixes.keep(sentences, rows), self.begun)


class JointScorer:
    """(1 - w) times the decoder's log-probability plus w times that of CTC; one model, one batch of sources."""

    normalised = True

    def __init__(self, model: Seq2Seq, source: Padded, *, weight: float, candidates: int, max_length: int = 1024) -> None:
        self.head = expect_ctc(model.ctc)
        self.decoder = ModelScorer(model, source, max_length=max_length)
        self.weight, self.candidates, self.max_length = weight, candidates, max_length
        self.prefixes = start_prefixes(model, self.decoder.memory)

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's target vocabulary."""
        return self.decoder.vocabulary

    @property
    def source_lengths(self) -> Tensor:
        """See `ModelScorer`."""
        return self.decoder.source_lengths

    def start(self) -> JointState:
        """The decoder's beginning, and empty prefixes."""
        return JointState(self.decoder.start(), self.prefixes, False)

    def step(self, tokens: Tensor, state: JointState) -> tuple[Tensor, JointState]:
        """(N,) -> joint scores (N, V)."""
        logits, decoder = self.decoder.step(tokens, state.decoder)
        logs = torch.log_softmax(logits.float(), -1)
        prefixes = state.prefixes.extended(tokens) if state.begun else state.prefixes
        scores = self._ctc(prefixes, logs).mul_(self.weight).add_(logs, alpha=1 - self.weight)
        return scores, JointState(decoder, prefixes, True)

    def _ctc(self, prefixes: Prefixes, logs: Tensor) -> Tensor:
        """(N, V): CTC's part. With a large vocabulary only the decoder's best tokens get one, all others FLOOR."""
        if logs.shape[1] <= max(FULL, self.candidates):
            scores = prefixes.all_scores()
        else:
            candidates = logs.topk(self.candidates, sorted=False).indices  # (N, C)
            scores = torch.full_like(logs, FLOOR).scatter_(1, candidates, prefixes.scores(candidates))
        scores[:, self.head.blank_id] = FLOOR
        scores[:, self.vocabulary.eos_id] = prefixes.ended.float().clamp(min=FLOOR)
        return scores


def model_scorer(model: Seq2Seq, source: Padded, config: SearchConfig, *, max_length: int) -> ModelScorer | JointScorer:
    """The scorer that the settings ask for: the decoder alone, or joined with CTC. Raises ConfigError for a model without a CTC layer."""
    if not config.ctc_weight:
        return ModelScorer(model, source, max_length=max_length)
    return JointScorer(model, source, weight=config.ctc_weight, candidates=config.ctc_candidates, max_length=max_length)


def start_prefixes(model: Seq2Seq, memory: Memory) -> Prefixes:
    """The empty hypothesis of each sentence of a memory. Raises ConfigError for a model without a CTC layer."""
    head = expect_ctc(model.ctc)
    with torch.inference_mode():
        return Prefixes.start(head.log_probabilities(memory.states), memory.mask, head.blank_id)
