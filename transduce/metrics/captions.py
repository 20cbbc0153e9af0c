"""Scores of captions over all references: BLEU-1 to 4, ROUGE-L and CIDEr-D as the COCO caption tools compute them, without Java.

In: texts. Out: `Score`. The decision to question: the COCO tools split texts with Stanford's tokenizer and throw punctuation away; here
a token is a run of letters, marks and digits, lower case, hyphens inside a word kept, and clitics ('s, n't) stand alone as they do
there. Published figures differ by a few tenths at most where texts hold symbols. Unlike `bleu` (sacreBLEU), which counts punctuation
and case, these figures compare with papers on captions.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import partial

import numpy as np

from transduce.metrics.score import CountedMetric, FloatArray

LONGEST = 4  # words of an n-gram
BETA = 1.2  # of ROUGE-L: recall counts more than precision
SIGMA = 6.0  # of CIDEr-D's penalty for a different length, in words
TINY, SMALL = 1e-15, 1e-9  # what the COCO tools add to numerators and denominators
WORD = re.compile(r"n't\b|'(?:s|re|ve|ll|d|m)\b|[^\W_]+(?:-[^\W_]+)*?(?=n't\b)|[^\W_]+(?:-[^\W_]+)*")
Grams = Counter[tuple[str, ...]]


def caption_words(text: str) -> list[str]:
    """The words of a caption as they are compared: see the top of this file.

    >>> caption_words("A dog's ball isn't red-hot, it is BLUE .")
    ['a', 'dog', "'s", 'ball', 'is', "n't", 'red-hot', 'it', 'is', 'blue']
    """
    return WORD.findall(text.lower().replace("’", "'"))


def ngrams(words: Sequence[str]) -> Grams:
    """How often each run of 1 to 4 words occurs."""
    return Counter(tuple(words[start : start + n]) for n in range(1, LONGEST + 1) for start in range(len(words) - n + 1))


def _bleu_counts(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    """(N, 10): matches and n-grams for n = 1 to 4, the length, and the length of the reference that is closest (the shorter of two)."""
    rows = []
    for text, group in zip(predictions, references, strict=True):
        words, others = caption_words(text), [caption_words(reference) for reference in group]
        allowed: Grams = Counter()
        for other in others:
            allowed |= ngrams(other)
        matched = Counter(ngrams(words)) & allowed
        hits = [sum(count for gram, count in matched.items() if len(gram) == n) for n in range(1, LONGEST + 1)]
        totals = [max(len(words) - n + 1, 0) for n in range(1, LONGEST + 1)]
        closest = min((abs(len(other) - len(words)), len(other)) for other in others)[1]
        rows.append([*hits, *totals, len(words), closest])
    return np.array(rows, dtype=np.float64)


def _bleu(sums: FloatArray, order: int) -> FloatArray:
    """Papineni 2002 over the corpus, n-grams up to `order`."""
    precisions = (sums[..., :order] + TINY) / (sums[..., LONGEST : LONGEST + order] + SMALL)
    ratio = (sums[..., -2] + TINY) / (sums[..., -1] + SMALL)
    value = np.exp(np.log(precisions).mean(axis=-1)) * np.exp(np.minimum(1 - 1 / ratio, 0))
    return np.asarray(100 * value)


def longest_common(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for place, other in enumerate(right, start=1):
            diagonal, row[place] = row[place], diagonal + 1 if word == other else max(row[place], row[place - 1])
    return row[-1]


def _rouge_counts(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    """(N, 2): F of each sentence, from the best precision and the best recall over its references, and 1."""
    rows = []
    for text, group in zip(predictions, references, strict=True):
        words, others = caption_words(text), [caption_words(reference) for reference in group]
        common = [longest_common(words, other) for other in others]
        precision = max(common) / max(len(words), 1)
        recall = max(count / max(len(other), 1) for count, other in zip(common, others, strict=True))
        total = recall + BETA**2 * precision
        rows.append([(1 + BETA**2) * precision * recall / total if total else 0.0, 1.0])
    return np.array(rows, dtype=np.float64)


def _cider_counts(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    """(N, 2): CIDEr-D of each sentence (Vedantam 2015, section 5, factor 10) and 1. Document frequencies are those of `references`."""
    groups = [[caption_words(reference) for reference in group] for group in references]
    frequencies: Counter[tuple[str, ...]] = Counter()
    counted = [[ngrams(other) for other in group] for group in groups]
    for grams in counted:
        frequencies.update(set().union(*grams))
    documents = np.log(max(len(groups), 1))
    rows = []
    for text, others, grams in zip(predictions, groups, counted, strict=True):
        words = caption_words(text)
        own = _weighted(ngrams(words), frequencies, documents)
        scores = [
            _similarity(own, _weighted(gram, frequencies, documents)) * np.exp(-((len(words) - len(other)) ** 2) / (2 * SIGMA**2))
            for other, gram in zip(others, grams, strict=True)
        ]
        rows.append([10 * float(np.mean(scores)), 1.0])
    return np.array(rows, dtype=np.float64)


def _weighted(grams: Grams, frequencies: Counter[tuple[str, ...]], documents: float) -> list[dict[tuple[str, ...], float]]:
    """For each n: n-gram -> how often it occurs times the logarithm of how rare it is."""
    weighted: list[dict[tuple[str, ...], float]] = [{} for _ in range(LONGEST)]
    for gram, count in grams.items():
        weighted[len(gram) - 1][gram] = count * (documents - float(np.log(max(frequencies[gram], 1))))
    return weighted


def _similarity(own: list[dict[tuple[str, ...], float]], other: list[dict[tuple[str, ...], float]]) -> float:
    """Mean over n of the cosine, in which an n-gram of the prediction counts no more than in the reference."""
    total = 0.0
    for left, right in zip(own, other, strict=True):
        lengths = sum(value**2 for value in left.values()) ** 0.5 * sum(value**2 for value in right.values()) ** 0.5
        product = sum(min(value, right[gram]) * right[gram] for gram, value in left.items() if gram in right)
        total += product / lengths if lengths else 0.0
    return total / LONGEST


def _mean(sums: FloatArray) -> FloatArray:
    return np.asarray(100 * sums[..., 0] / sums[..., 1])


_WORDS = "case:lc|tok:words|punct:no"
_COLUMNS = (*(f"matches_{n}" for n in range(1, 5)), *(f"ngrams_{n}" for n in range(1, 5)), "words", "closest_reference_words")


def _bleu_metric(order: int) -> CountedMetric:
    signature = f"{_WORDS}|order:{order}|reflen:closest|smooth:none|as:coco"
    return CountedMetric(f"coco_bleu{order}", "higher", signature, _COLUMNS, _bleu_counts, partial(_bleu, order=order))


COCO_BLEU_1, COCO_BLEU_2, COCO_BLEU_3, COCO_BLEU_4 = (_bleu_metric(order) for order in range(1, 5))
COCO_ROUGE_L = CountedMetric("coco_rougeL", "higher", f"{_WORDS}|beta:{BETA}|as:coco", ("sum_f", "sentences"), _rouge_counts, _mean)
_CIDER = f"{_WORDS}|cider-d|n:1-4|sigma:6|df:references|x100"
CIDER = CountedMetric("cider", "higher", _CIDER, ("sum_cider", "sentences"), _cider_counts, _mean)


CAPTION_METRICS = ("coco_bleu1", "coco_bleu2", "coco_bleu3", "coco_bleu4", "coco_rougeL", "cider")


def sentence_cider(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of each caption, percent: to rank examples."""
    return [100 * float(value) for value in _cider_counts(predictions, references)[:, 0]]


def reuse_rate(predictions: Sequence[str], training: Sequence[str]) -> float:
    """Share (0 to 1) of predictions that occur word for word among the training captions."""
    known = {tuple(caption_words(text)) for text in training}
    return sum(tuple(caption_words(text)) in known for text in predictions) / max(len(predictions), 1)


def vocabulary_use(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[int, int]:
    """Distinct words of the predictions, and of the references."""
    written = {word for text in predictions for word in caption_words(text)}
    return len(written), len({word for group in references for text in group for word in caption_words(text)})
