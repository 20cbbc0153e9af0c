"""What an example looks or sounds like, and where the model looked: gathered for the few examples of a report whose sources are files.

In: a predictor, sources, and their predictions. Out: `Sight` or `Hearing`, plain arrays of bounded size. The decision to question: a
picture is shown as the model sees it, square and small, because attention is over these pixels, not over the file's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from transduce.data.audio import AudioCodec
from transduce.data.image import ImageCodec
from transduce.data.tokens import TextCodec
from transduce.data.values import Media, Row, Value
from transduce.decode.search import SearchConfig
from transduce.model.features import Features
from transduce.predict import Prediction, Predictor
from transduce.readings import Readings
from transduce.timing import TokenTimes, times_in

MOST_WORDS = 40  # of a caption that are drawn
MOST_COLUMNS = 420  # of a drawing over time; longer sounds are averaged
MOST_BINS = 64

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Sight:
    """pixels: (H, W, 3) as the model sees them. words: what was written. looks: (words, grid, grid) where each was looked at, or None."""

    pixels: NDArray[np.uint8]
    words: tuple[str, ...]
    looks: Floats | None


@dataclass(frozen=True)
class Hearing:
    """A recording over its whole time. wave: (N, 2) lowest and highest sample of each column. features: (F, C).

    tokens, spans: what was written and when it was said in seconds, both empty where nobody knows. attention: (T, S) or None.
    """

    seconds: float
    wave: Floats
    features: Floats
    tokens: tuple[str, ...]
    spans: tuple[tuple[float, float], ...]
    attention: Floats | None


Exhibit = Sight | Hearing


def are_files(sources: Sequence[Value]) -> bool:
    """Whether the sources are recordings or pictures."""
    match sources[0] if sources else "":
        case Media():
            return True
    return False


def gather(predictor: Predictor, sources: Sequence[Value], search: SearchConfig) -> list[Exhibit | None]:
    """One for each source; None where it is no file or cannot be read. Predicts the sources again, for their attention."""
    if not are_files(sources):
        return [None] * len(sources)
    return [exhibit for readings in predictor.read(sources, search=search) for exhibit in _exhibits(predictor, readings, search)]


def _exhibits(predictor: Predictor, readings: Readings, search: SearchConfig) -> list[Exhibit | None]:
    found = predictor.answer(readings, search=search, with_attention=True)
    rows = [readings.first(number) for number in range(len(found))]
    match predictor.source_codec:
        case ImageCodec() as codec:
            return [_seen(codec, row, prediction) for row, prediction in zip(rows, found, strict=True)]
        case AudioCodec() as codec:
            times = _times(predictor, readings, found)
            said = [_Said(prediction, one, predictor.target_codec) for prediction, one in zip(found, times, strict=True)]
            return [_heard(codec, row, one) for row, one in zip(rows, said, strict=True)]
    return [None] * len(rows)


def _seen(codec: ImageCodec, row: Row, prediction: Prediction) -> Sight | None:
    if row.problem is not None:  # its prediction says so in its flags
        return None
    words, grid = prediction.tokens[:MOST_WORDS], codec.shape.grid
    looks = None
    if prediction.attention is not None and prediction.attention.shape[1] == grid * grid:
        looks = prediction.attention[: len(words)].reshape(-1, grid, grid)
    return Sight(row.data.transpose(1, 2, 0), words, looks)


@dataclass(frozen=True)
class _Said:
    """What was written of a recording, and when it was said."""

    prediction: Prediction
    times: TokenTimes | None
    target_codec: TextCodec

    def pieces(self) -> tuple[str, ...]:
        """Labels of the tokens whose times are known."""
        return () if self.times is None else tuple(self.target_codec.pieces(list(self.times.ids)))


def _times(predictor: Predictor, readings: Readings, found: Sequence[Prediction]) -> list[TokenTimes | None]:
    """None where the model has neither CTC nor attention, or the text does not fit into the recording."""
    if predictor.members[0].model.ctc is None and all(prediction.attention is None for prediction in found):
        return [None] * len(found)
    return times_in(predictor, readings, [prediction.text for prediction in found])


def _heard(codec: AudioCodec, row: Row, said: _Said) -> Hearing | None:
    if row.problem is not None:
        return None
    samples: Floats = row.data
    rate, attention = codec.config.sample_rate_hz, said.prediction.attention
    features, _ = Features(codec.config.features, rate)(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
    edges = _edges(len(samples), MOST_COLUMNS)
    return Hearing(
        seconds=len(samples) / rate,
        wave=np.stack([np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)], axis=1),
        features=_averaged(_averaged(features[0].numpy(), MOST_COLUMNS).T, MOST_BINS).T,
        tokens=said.pieces(),
        spans=() if said.times is None else said.times.spans,
        attention=None if attention is None else _averaged(attention.T, MOST_COLUMNS).T,
    )


def _edges(count: int, most: int) -> NDArray[np.intp]:
    """Where at most `most` groups of neighbours begin."""
    return np.linspace(0, count, min(count, most), endpoint=False).astype(np.intp)


def _averaged(rows: Floats, most: int) -> Floats:
    """(N, C) -> at most (most, C): means of neighbouring rows."""
    edges = _edges(len(rows), most)
    sums = np.add.reduceat(rows, edges, axis=0)
    return np.asarray(sums / np.diff([*edges, len(rows)])[:, None], dtype=np.float32)
