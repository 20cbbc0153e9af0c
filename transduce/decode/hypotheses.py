"""What search returns, and where finished hypotheses wait while the others go on.

They are plain Python values, drawn up at the end of the search, for those that are returned: a beam finishes many more.
"""

from collections.abc import Callable
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


@dataclass(frozen=True)
class Finished:
    """A hypothesis that is over. draw: makes it, where it turns out to be one of the best."""

    score: float
    truncated: bool
    draw: Callable[[], Hypothesis]

    @staticmethod
    def of(hypothesis: Hypothesis) -> "Finished":
        """One that is made already."""
        return Finished(hypothesis.score, hypothesis.truncated, lambda: hypothesis)


@dataclass
class Pools:
    """The best `capacity` finished hypotheses of each of `num_sentences` sentences."""

    num_sentences: int
    capacity: int
    threshold: np.ndarray = field(init=False)  # (num_sentences,) worst score of a full pool, -inf while there is room
    finished: list[list[Finished]] = field(init=False)
    truncated: list[list[Finished]] = field(init=False)
    any_full: bool = False

    def __post_init__(self) -> None:
        self.threshold = np.full(self.num_sentences, -np.inf)
        self.finished = [[] for _ in range(self.num_sentences)]
        self.truncated = [[] for _ in range(self.num_sentences)]

    def add(self, sentence: int, hypothesis: Finished) -> None:
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

    def results(self, count: int | None = None) -> list[list[Hypothesis]]:
        """Per sentence the best `count` (None = all that were kept), the best first, truncated ones behind finished ones."""
        most = self.capacity if count is None else min(count, self.capacity)
        pairs = zip(self.finished, self.truncated, strict=True)
        return [[one.draw() for one in (done + sorted(cut, key=lambda kept: -kept.score))[:most]] for done, cut in pairs]
