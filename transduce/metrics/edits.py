"""Error rates and exact match: how many edits turn a reference into the prediction.

In: texts. Out: `Score` (percent), with the counts. The rates are of the corpus: summed edits over summed reference
lengths, so long sentences weigh more. Of several references the closest counts (fewest edits; of equals the longest).

For grapheme-to-phoneme tasks the literature's WER is the share of wrong words: 100 - exact_match here. `wer` counts
whitespace tokens inside a text, `per` does the same without an extra library.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from transduce.metrics.score import CountedMetric, FloatArray, missing_extra

EditKind = Literal["hit", "substitution", "insertion", "deletion"]
JiwerRate = Literal["wer", "cer"]
EDIT_KINDS: tuple[EditKind, ...] = ("hit", "substitution", "insertion", "deletion")
"""In the order of `EditCounts`."""


class EditCounts(NamedTuple):
    """An alignment in numbers: reference length = hits + substitutions + deletions."""

    hits: int
    substitutions: int
    insertions: int
    deletions: int

    @property
    def errors(self) -> int:
        """The edit distance."""
        return self.substitutions + self.insertions + self.deletions


def count_edits(prediction: Sequence[str], reference: Sequence[str]) -> EditCounts:
    """The shortest alignment of two sequences (Levenshtein 1966) in numbers."""
    path = edit_path(prediction, reference)
    return EditCounts(*(path.count(kind) for kind in EDIT_KINDS))


def edit_path(prediction: Sequence[str], reference: Sequence[str]) -> list[EditKind]:
    """The kinds of edits of the shortest alignment, from the beginning of the two sequences to their end."""
    rows, columns = len(reference) + 1, len(prediction) + 1
    costs = [list(range(columns))]
    for row in range(1, rows):
        above, current = costs[-1], [row]
        for column in range(1, columns):
            differs = reference[row - 1] != prediction[column - 1]
            current.append(min(above[column - 1] + differs, above[column] + 1, current[-1] + 1))
        costs.append(current)
    return _trace(costs, prediction, reference)


def _trace(costs: list[list[int]], prediction: Sequence[str], reference: Sequence[str]) -> list[EditKind]:
    """Walks the cost table back from its end and writes the moves down."""
    row, column = len(reference), len(prediction)
    path: list[EditKind] = []
    while row or column:
        cost = costs[row][column]
        differs = bool(row and column) and reference[row - 1] != prediction[column - 1]
        if row and column and costs[row - 1][column - 1] + differs == cost:
            path.append("substitution" if differs else "hit")
            row, column = row - 1, column - 1
        elif row and costs[row - 1][column] + 1 == cost:
            path.append("deletion")
            row -= 1
        else:
            path.append("insertion")
            column -= 1
    return path[::-1]


def sentence_similarity(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """100 * (1 - edits / longer length) over whitespace tokens, or characters where texts are single words; percent."""
    tokenize = str.split if any(len(text.split()) > 1 for texts in references for text in texts) else list
    scores = []
    for prediction, texts in zip(predictions, references, strict=True):
        tokens = tokenize(prediction)
        edits = closest(prediction, texts, lambda text, reference: count_edits(tokenize(text), tokenize(reference)))
        length = max(len(tokens), edits.hits + edits.substitutions + edits.deletions, 1)
        scores.append(100 * (1 - edits.errors / length))
    return scores


def closest(prediction: str, references: Sequence[str], count: Callable[[str, str], EditCounts]) -> EditCounts:
    """The counts against the reference with the fewest edits; of equals the one with most hits, the longest."""
    return min((count(prediction, reference) for reference in references), key=lambda edits: (edits.errors, -edits.hits))


def _table(predictions: Sequence[str], references: Sequence[Sequence[str]], count: Callable[[str, str], EditCounts]) -> FloatArray:
    rows = [closest(prediction, texts, count) for prediction, texts in zip(predictions, references, strict=True)]
    return np.array(rows, dtype=np.float64).reshape(-1, 4)  # (N, 4)


def jiwer_process(rate: JiwerRate) -> Callable[[str, str], Any]:
    """jiwer's alignment of a reference (first) and a prediction. Raises ConfigError where the extra is missing."""
    try:
        import jiwer
    except ImportError as error:
        raise missing_extra(rate, "jiwer") from error
    return jiwer.process_words if rate == "wer" else jiwer.process_characters


def jiwer_units(rate: JiwerRate, text: str) -> Sequence[str]:
    """What jiwer counts in a text. Some versions refuse an empty reference: then these are all insertions."""
    return text.split() if rate == "wer" else text.strip()


def _jiwer_edits(rate: JiwerRate, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    process = jiwer_process(rate)

    def count(prediction: str, reference: str) -> EditCounts:
        if not reference.strip():
            return EditCounts(0, 0, len(jiwer_units(rate, prediction)), 0)
        found = process(reference, prediction)
        return EditCounts(found.hits, found.substitutions, found.insertions, found.deletions)

    return _table(predictions, references, count)


def _token_edits(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    return _table(predictions, references, lambda prediction, reference: count_edits(prediction.split(), reference.split()))


def _matches(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> FloatArray:
    equal = [prediction.strip() in {text.strip() for text in texts} for prediction, texts in zip(predictions, references, strict=True)]
    return np.array([[match, 1] for match in equal], dtype=np.float64)


def _error_rate(counts: FloatArray) -> FloatArray:
    """(..., 4) -> (...). References that are all empty count as length 1, so inserted words still show."""
    hits, substitutions, insertions, deletions = np.moveaxis(counts, -1, 0)
    rate: FloatArray = 100 * (substitutions + insertions + deletions) / np.maximum(hits + substitutions + deletions, 1)
    return rate


def _match_share(counts: FloatArray) -> FloatArray:
    share: FloatArray = 100 * counts[..., 0] / counts[..., 1]
    return share


_EDIT_COLUMNS = EditCounts._fields
WER = CountedMetric("wer", "lower", "case:mixed|unit:word|refs:closest|lib:jiwer", _EDIT_COLUMNS, partial(_jiwer_edits, "wer"), _error_rate)
CER = CountedMetric(
    "cer", "lower", "case:mixed|unit:character|refs:closest|lib:jiwer", _EDIT_COLUMNS, partial(_jiwer_edits, "cer"), _error_rate
)
PER = CountedMetric("per", "lower", "case:mixed|unit:symbol|refs:closest", _EDIT_COLUMNS, _token_edits, _error_rate)
EXACT_MATCH = CountedMetric("exact_match", "higher", "case:mixed|space:stripped|refs:any", ("matches", "sentences"), _matches, _match_share)
