"""What search returns, and where finished hypotheses wait while the others go on.

Finished hypotheses are plain Python values: they are built only when something finishes, never inside a step.
"""

from dataclasses import dataclass, field

import numpy as np

from transduce.decode.length import length_divisor
from transduce.decode.options import SearchConfig


@dataclass(frozen=True)
class Hypothesis:
    """One output. tokens: ids without begin and end. score: what it was ranked by. log_probability: sum of the model's own
    token_log_probabilities, which include the end-of-sequence symbol unless the hypothesis is `truncated` (hit the limit).
    """

    tokens: tuple[int, ...]
    score: float
    log_probability: float
    token_log_probabilities: tuple[float, ...]
    truncated: bool


def make_hypothesis(
    tokens: list[int], log_probabilities: list[float], *, total: float, truncated: bool, config: SearchConfig
) -> Hypothesis:
    """total: sum of the scores that the search ranked by, not the log-probability where a repetition penalty is on."""
    divisor = length_divisor(config, len(log_probabilities))
    return Hypothesis(tuple(tokens), total / divisor, float(sum(log_probabilities)), tuple(log_probabilities), truncated)


@dataclass
class Pools:
    """The best `capacity` finished hypotheses of each of `num_sentences` sentences."""

    num_sentences: int
    capacity: int
    threshold: np.ndarray = field(init=False)  # (num_sentences,) worst score of a full pool, -inf while there is room
    finished: list[list[Hypothesis]] = field(init=False)
    truncated: list[list[Hypothesis]] = field(init=False)
    any_full: bool = False

    def __post_init__(self) -> None:
        self.threshold = np.full(self.num_sentences, -np.inf)
        self.finished = [[] for _ in range(self.num_sentences)]
        self.truncated = [[] for _ in range(self.num_sentences)]

    def add(self, sentence: int, hypothesis: Hypothesis) -> None:
        """Keep it if it is among the best; a truncated one counts only where finished ones are missing."""
        if hypothesis.truncated:
            self.truncated[sentence].append(hypothesis)
            return
        pool = self.finished[sentence]
        pool.append(hypothesis)
        pool.sort(key=lambda kept: -kept.score)
        del pool[self.capacity :]
        if len(pool) == self.capacity:
            self.threshold[sentence] = pool[-1].score
            self.any_full = True

    def results(self) -> list[list[Hypothesis]]:
        """Per sentence the best first, truncated ones behind finished ones."""
        pairs = zip(self.finished, self.truncated, strict=True)
        return [(done + sorted(cut, key=lambda kept: -kept.score))[: self.capacity] for done, cut in pairs]
