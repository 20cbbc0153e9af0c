"""ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004) through rouge-score: the mean F1 of the sentences, in percent.

In: texts. Out: `Score`. The decision to question: rouge-score's own tokenizer deletes every letter outside a-z, which
turns Greek into nothing and "für" into "f r"; here a token is a run of Unicode letters, marks and digits, lower case.
English text scores the same with both. No stemming. Of several references the one with the highest F1 counts.
"""

import unicodedata
from collections.abc import Sequence

import numpy as np

from transduce.metrics.score import CountedMetric, FloatArray, missing_extra


class UnicodeTokenizer:
    """The interface that rouge-score asks for."""

    def tokenize(self, text: str) -> list[str]:
        """Runs of letters, marks and digits in any script, lower case."""
        return "".join(character if unicodedata.category(character)[0] in "LMN" else " " for character in text.lower()).split()


def _f_scores(kind: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise missing_extra(kind, "rouge-score") from error
    scorer = RougeScorer([kind], tokenizer=UnicodeTokenizer())
    found = [scorer.score_multi(list(texts), text)[kind] for text, texts in zip(predictions, references, strict=True)]
    return np.array([[score.fmeasure, score.precision, score.recall, 1] for score in found], dtype=np.float64)


def _rouge_1(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    return _f_scores("rouge1", predictions, references)


def _rouge_2(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    return _f_scores("rouge2", predictions, references)


def _rouge_l(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    return _f_scores("rougeL", predictions, references)


def _mean_f(sums: FloatArray) -> FloatArray:
    mean: FloatArray = 100 * sums[..., 0] / sums[..., 3]
    return mean


_SIGNATURE = "case:lc|tok:unicode|stem:no|refs:best|lib:rouge-score"
_COLUMNS = ("sum_f1", "sum_precision", "sum_recall", "sentences")
ROUGE_1 = CountedMetric("rouge1", "higher", _SIGNATURE, _COLUMNS, _rouge_1, _mean_f)
ROUGE_2 = CountedMetric("rouge2", "higher", _SIGNATURE, _COLUMNS, _rouge_2, _mean_f)
ROUGE_L = CountedMetric("rougeL", "higher", _SIGNATURE, _COLUMNS, _rouge_l, _mean_f)
