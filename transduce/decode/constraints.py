"""Small parts that forbid or re-weigh next tokens.

In: log-probabilities (B, W, V) and the tokens so far (B, W, t). Out: nothing; scores are changed in place, a forbidden token
gets -inf. The decision to question: a constraint keeps no state between steps but reads the tokens so far, so reordered and
dropped hypotheses never concern it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

NEVER = float("-inf")


class Constraint(Protocol):
    """One rule about next tokens."""

    @property
    def rescores(self) -> bool:
        """True when a score may change to another finite score (not only to -inf)."""
        ...

    def apply(self, scores: Tensor, so_far: Tensor, sentences: Tensor) -> None:
        """scores: (B, W, V), changed in place. so_far: (B, W, t) int64. sentences: (B,) their numbers in the batch as given."""
        ...


@dataclass(frozen=True)
class NoRepeatNgram:
    """No n-gram of `size` tokens occurs twice."""

    size: int
    rescores: bool = False

    def apply(self, scores: Tensor, so_far: Tensor, sentences: Tensor) -> None:  # noqa: ARG002
        """Forbids every token that followed an earlier copy of the last size - 1 tokens."""
        length = so_far.shape[2]
        if length < self.size:
            return
        grams = so_far.unfold(2, self.size, 1)  # (B, W, t - size + 1, size)
        suffix = so_far[:, :, length - self.size + 1 :]  # (B, W, size - 1)
        repeated = (grams[..., :-1] == suffix[:, :, None, :]).all(-1)
        batch, beam, start = repeated.nonzero(as_tuple=True)
        scores[batch, beam, grams[batch, beam, start, -1]] = NEVER


@dataclass(frozen=True)
class RepetitionPenalty:
    """Multiplies the log-probability of tokens that are already there (Keskar 2019, 4.1, on log-probabilities, which unlike
    logits have a sign and an origin that mean something)."""

    penalty: float
    rescores: bool = True

    def apply(self, scores: Tensor, so_far: Tensor, sentences: Tensor) -> None:  # noqa: ARG002
        """A token that occurs twice is penalised once."""
        if so_far.shape[2]:
            scores.scatter_(2, so_far, scores.gather(2, so_far) * self.penalty)


@dataclass(frozen=True)
class MinimumLength:
    """Forbids the end before `minimum` (B,) tokens."""

    minimum: Tensor
    eos_id: int
    rescores: bool = False

    def apply(self, scores: Tensor, so_far: Tensor, sentences: Tensor) -> None:
        """Sets the end's column for the sentences that are still too short."""
        early = self.minimum[sentences] > so_far.shape[2]  # (B,)
        scores[:, :, self.eos_id].masked_fill_(early[:, None], NEVER)


class ForcedPrefix:
    """Every output of a sentence begins with given tokens. Stronger than every constraint, so the engine reads the forced
    tokens' scores before the constraints and imposes them afterwards."""

    def __init__(self, prefixes: Sequence[Sequence[int]], device: torch.device) -> None:
        self.longest = max((len(prefix) for prefix in prefixes), default=0)
        rows = [list(prefix) + [-1] * (self.longest - len(prefix)) for prefix in prefixes]
        self.tokens = torch.tensor(rows, dtype=torch.int64, device=device)  # (B, longest), -1 = free

    def read(self, scores: Tensor, step: int, sentences: Tensor) -> tuple[Tensor, Tensor]:
        """-> forced tokens (B, W, 1), -1 where free, and their scores (B, W, 1)."""
        tokens = self.tokens[sentences, step][:, None, None].expand(-1, scores.shape[1], 1)
        return tokens, scores.gather(2, tokens.clamp_min(0))

    def impose(self, scores: Tensor, forced: tuple[Tensor, Tensor]) -> None:
        """Leaves only the forced token where there is one."""
        tokens, values = forced
        active = tokens[:, 0, 0] >= 0  # (B,)
        scores[active] = torch.full_like(scores[active], NEVER).scatter_(2, tokens[active], values[active])
