"""Scores of predictions against references, by name.

In: predictions (one text each) and references (a list of texts for each prediction, lists may differ in length).
Out: `Score` values, all in percent, and `Comparison` for two systems. `METRICS` is the whole list of what there is.
"""

import difflib
from collections.abc import Sequence
from typing import Protocol

from transduce.errors import ConfigError
from transduce.metrics.captions import CIDER, COCO_BLEU_1, COCO_BLEU_2, COCO_BLEU_3, COCO_BLEU_4, COCO_ROUGE_L
from transduce.metrics.edits import CER, EXACT_MATCH, PER, WER
from transduce.metrics.overlap import BLEU, CHRF, TER
from transduce.metrics.rouge import ROUGE_1, ROUGE_2, ROUGE_L
from transduce.metrics.score import Better, Comparison, Score, check_texts

__all__ = ["METRICS", "Comparison", "Metric", "Score", "compute_metrics", "find_metric", "paired_bootstrap"]

NUM_RESAMPLES = 1000


class Metric(Protocol):
    """A corpus-level metric: call it for a `Score`, or let it compare two systems on the same sentences."""

    @property
    def name(self) -> str:
        """The name in `METRICS`."""
        ...

    @property
    def better(self) -> Better:
        """Which direction is better."""
        ...

    def __call__(self, predictions: Sequence[str], references: Sequence[Sequence[str]], *, resamples: int = 0) -> Score:
        """The score of the whole corpus; `resamples` > 1 adds a 95 % bootstrap interval."""
        ...

    def compare(self, system: Sequence[str], baseline: Sequence[str], references: Sequence[Sequence[str]], *, resamples: int) -> Comparison:
        """Paired bootstrap of `system` against `baseline` (Koehn 2004)."""
        ...


METRICS: dict[str, Metric] = {
    "bleu": BLEU,
    "chrf": CHRF,
    "ter": TER,
    "rouge1": ROUGE_1,
    "rouge2": ROUGE_2,
    "rougeL": ROUGE_L,
    "wer": WER,
    "cer": CER,
    "exact_match": EXACT_MATCH,
    "per": PER,
    "coco_bleu1": COCO_BLEU_1,
    "coco_bleu2": COCO_BLEU_2,
    "coco_bleu3": COCO_BLEU_3,
    "coco_bleu4": COCO_BLEU_4,
    "coco_rougeL": COCO_ROUGE_L,
    "cider": CIDER,
}


def find_metric(name: str) -> Metric:
    """The metric of that name; ConfigError with the nearest spelling if there is none."""
    if name in METRICS:
        return METRICS[name]
    near = difflib.get_close_matches(name, METRICS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ConfigError(f"unknown metric {name!r}{hint} Allowed: {', '.join(METRICS)}")


def compute_metrics(
    names: Sequence[str], predictions: Sequence[str], references: Sequence[Sequence[str]], *, resamples: int = 0
) -> dict[str, Score]:
    """Scores by name, in the order of `names`.

    `resamples` > 1 adds 95 % bootstrap intervals; 0 (the default, for validation while training) leaves them out.
    Raises ConfigError for an unknown name or a missing extra, DataError for empty or unequal inputs.
    """
    metrics = {name: find_metric(name) for name in names}
    check_texts(predictions, references)
    return {name: metric(predictions, references, resamples=resamples) for name, metric in metrics.items()}


def paired_bootstrap(
    metric: str,
    system_a: Sequence[str],
    system_b: Sequence[str],
    *,
    references: Sequence[Sequence[str]],
    resamples: int = NUM_RESAMPLES,
) -> Comparison:
    """Is A really better than the baseline B? Both are scored on the same resampled sentences (Koehn 2004).

    The same seed gives the same figures every time. Raises as `compute_metrics` does.
    """
    found = find_metric(metric)
    check_texts(system_a, references)
    check_texts(system_b, references)
    return found.compare(system_a, system_b, references, resamples=resamples)
