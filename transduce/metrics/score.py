"""What a metric returns, and the bootstrap of metrics that are sums over sentences.

In: texts or per-sentence counts. Out: `Score`, `Comparison`. The decision to question: every value is in percent
(BLEU 31.2, WER 12.5, exact match 98.0), so that figures of different metrics stand side by side.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from transduce.errors import ConfigError, DataError

Better = Literal["higher", "lower"]
FloatArray = NDArray[np.float64]
# The seed that sacreBLEU uses by default: intervals of all metrics come from the same number.
BOOTSTRAP_SEED = 12345


@dataclass(frozen=True)
class Score:
    """One figure for a whole corpus.

    value: percent. details: JSON values; always `signature` (how it was computed), `interval` ([low, high], 95 %
    bootstrap) when one was asked for, and what the metric counts.
    """

    name: str
    value: float
    better: Better
    details: Mapping[str, object]

    @property
    def signature(self) -> str:
        """How the value was computed, in sacreBLEU's notation."""
        return str(self.details["signature"])

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % bootstrap interval, or None if none was asked for."""
        if "interval" not in self.details:
            return None
        low, high = cast(Sequence[float], self.details["interval"])
        return low, high

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"name": self.name, "value": self.value, "better": self.better, **self.details}


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same sentences. p_value: how often chance alone gives such a difference (two-sided)."""

    metric: str
    better: Better
    value: float
    baseline: float
    p_value: float
    signature: str

    @property
    def difference(self) -> float:
        """Value minus baseline; whether that is good says `better`."""
        return self.value - self.baseline

    @property
    def significant(self) -> bool:
        """At the 5 % level."""
        return self.p_value < 0.05

    @property
    def verdict(self) -> Literal["better", "worse", "no clear difference"]:
        """What the test says of the system, in words."""
        if not self.significant:
            return "no clear difference"
        return "better" if (self.difference > 0) == (self.better == "higher") else "worse"

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "metric": self.metric,
            "better": self.better,
            "value": self.value,
            "baseline": self.baseline,
            "difference": self.difference,
            "p_value": self.p_value,
            "verdict": self.verdict,
            "signature": self.signature,
        }


@dataclass(frozen=True)
class CountedMetric:
    """A metric that is a function of summed per-sentence counts (K columns).

    statistics: (predictions, references) -> (N, K). value: (..., K) sums -> (...) percent.
    """

    name: str
    better: Better
    signature: str
    columns: tuple[str, ...]
    statistics: Callable[[Sequence[str], Sequence[Sequence[str]]], FloatArray]
    value: Callable[[FloatArray], FloatArray]

    def __call__(self, predictions: Sequence[str], references: Sequence[Sequence[str]], *, resamples: int = 0) -> Score:
        """The score of the corpus, with a 95 % interval if `resamples` > 1."""
        check_texts(predictions, references)
        counts = self.statistics(predictions, references)
        sums = counts.sum(axis=0)
        details: dict[str, object] = {"signature": self._signature(references, resamples)}
        if resamples > 1:
            low, high = np.percentile(self.value(resampled_sums(counts, resamples)), [2.5, 97.5])
            details["interval"] = [float(low), float(high)]
        details.update({name: round(float(total), 6) for name, total in zip(self.columns, sums, strict=True)})
        return Score(self.name, float(self.value(sums)), self.better, details)

    def compare(self, system: Sequence[str], baseline: Sequence[str], references: Sequence[Sequence[str]], *, resamples: int) -> Comparison:
        """Paired bootstrap, the same test as sacreBLEU's."""
        counts, others = self.statistics(system, references), self.statistics(baseline, references)
        value, other = float(self.value(counts.sum(axis=0))), float(self.value(others.sum(axis=0)))
        gaps = np.abs(self.value(resampled_sums(counts, resamples)) - self.value(resampled_sums(others, resamples)))
        extreme = int(np.sum(gaps - gaps.mean() > abs(value - other)))
        p_value = 1.0 if value == other else (extreme + 1) / (resamples + 1)
        return Comparison(self.name, self.better, value, other, p_value, self._signature(references, resamples))

    def _signature(self, references: Sequence[Sequence[str]], resamples: int) -> str:
        bootstrap = f"|bs:{resamples}|seed:{BOOTSTRAP_SEED}" if resamples > 1 else ""
        return f"nrefs:{count_references(references)}{bootstrap}|{self.signature}"


def resampled_sums(counts: FloatArray, resamples: int) -> FloatArray:
    """(N, K) -> (R, K): sums over N sentences drawn with replacement, the same draws for every call with the same N."""
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    size = len(counts)
    sums = np.empty((resamples, counts.shape[1]))
    for row in sums:
        row[:] = np.bincount(generator.integers(size, size=size), minlength=size) @ counts
    return sums


def count_references(references: Sequence[Sequence[str]]) -> str:
    """References for each sentence: a number, or `var` where sentences differ."""
    numbers = {len(texts) for texts in references}
    return str(numbers.pop()) if len(numbers) == 1 else "var"


def check_texts(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Raises DataError unless there is at least one prediction and each has one reference or more."""
    if not predictions:
        raise DataError("there is nothing to score: no predictions were given, at least one is needed")
    if len(predictions) != len(references):
        raise DataError(f"{len(predictions)} predictions but {len(references)} lists of references: the numbers must be equal")
    for index, texts in enumerate(references):
        if isinstance(texts, str):
            raise DataError(f"references[{index}] is one text: give a list of texts for each prediction, such as [[text], ...]")
        if not texts:
            raise DataError(f"references[{index}] is empty: each prediction needs one reference or more")


def missing_extra(metric: str, module: str) -> ConfigError:
    """The error for a metric whose library is not installed."""
    return ConfigError(f'the metric {metric} needs {module}, which is not installed: pip install "transduce[metrics]"')
