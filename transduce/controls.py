"""Does a model that describes pictures look at them? The same model, shown other pictures; and whether it writes or recites.

In: an evaluation and its model. Out: what the model scores with the pictures exchanged, and how much of its text is new. The decision a
reader would question: every picture is exchanged for the one half a set further on, always the same one, so that the pictures seen are
the same pictures and only their captions are others'. A model that scores as well as before has learned what captions sound like.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from transduce.data.examples import read_pairs
from transduce.data.loader import DataConfig
from transduce.data.report import DataReport
from transduce.data.values import Media, Value
from transduce.errors import DataError, StorageError
from transduce.metrics.captions import reuse_rate, vocabulary_use

if TYPE_CHECKING:
    from transduce.predict import Predictor

BLIND_KINDS = ("image",)
"""Kinds of source that a fluent text can be written about without a look."""
CONTROL = "the same model, shown other pictures"
ItemT = TypeVar("ItemT")


def sees(predictor: "Predictor", sources: Sequence[Value]) -> bool:
    """Whether the sources are pictures, which a model is to be tested with."""
    match sources[0]:
        case Media():
            return predictor.source_codec.kind in BLIND_KINDS
    return False


def exchanged(items: Sequence[ItemT]) -> list[ItemT]:
    """Each item's place taken by the one half the list further on: nothing stays where it was."""
    half = len(items) // 2
    return [*items[half:], *items[:half]]


def training_texts(data: DataConfig | None) -> list[str] | None:
    """All targets that a model was trained on; None where its files are not on this machine."""
    if data is None:
        return None
    try:
        corpora = [read_pairs(corpus, errors=data.errors, report=DataReport(), reading=data.reading) for corpus in data.train]
        return [str(target) for records in corpora for record in records for target in record.targets]
    except (DataError, StorageError):
        return None


def originality(predictions: Sequence[str], references: Sequence[Sequence[str]], training: Sequence[str] | None) -> dict[str, float]:
    """Figures about how the captions are written.

    distinct_words, reference_words: different words of the predictions and of the references; distinct_captions: different predictions;
    reused_captions: share (0 to 1) that occur word for word in the training data, where that is known.
    """
    written, known = vocabulary_use(predictions, references)
    figures = {"distinct_captions": float(len(set(predictions))), "distinct_words": float(written), "reference_words": float(known)}
    return figures | ({} if training is None else {"reused_captions": reuse_rate(predictions, training)})


def originality_lines(figures: dict[str, float], count: int) -> list[str]:
    """For people."""
    if not figures:
        return []
    lines = [
        f"{figures['distinct_captions']:.0f} different captions for {count} pictures, "
        f"{figures['distinct_words']:.0f} different words ({figures['reference_words']:.0f} in the references)"
    ]
    if "reused_captions" in figures:
        return [*lines, f"{100 * figures['reused_captions']:.1f} % of the captions are captions of the training data, word for word"]
    return [*lines, "the training data are not here: how many captions are word for word in them was not counted"]
