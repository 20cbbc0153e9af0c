"""Recordings of any length to text with times: windows that overlap, each read by the one predictor, joined where they meet.

In: a predictor of recordings and a file. Out: a `Transcript`: words with times, and for each window what is to be known of it. The
decision a reader would question: in the middle of each overlap one window ends and the next begins; a word belongs to the window in
which its middle lies. So a word that a window's edge cuts in two is heard whole by the other window, and nothing is said twice.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from transduce.data.audio import AudioCodec
from transduce.data.media import open_media
from transduce.data.sound_files import Part, sound_seconds
from transduce.data.values import BadValueError, Media
from transduce.decode.options import SearchConfig
from transduce.errors import ConfigError, DataError
from transduce.predict import Prediction, Predictor
from transduce.readings import Readings
from transduce.subtitles import TimedWord, timed_words
from transduce.timing import TokenTimes, as_audio_codec, times_in

REPETITIVE, UNSURE, SILENT = "repetitive", "unsure", "silent"
LOOP_RATIO = 2.4
"""Bytes of a text over those of its compressed form, above which it goes round in circles (Radford 2022, 4.5)."""
UNSURE_LOG_PROBABILITY = -1.0
"""Mean per token, in nats, below which an output is a guess (Radford 2022, 4.5)."""
SILENCE_DB = -60.0
"""Level below full scale under which a window holds nothing to hear; it is not decoded, and flagged."""
USUAL_OVERLAP = 0.1
MOST_WINDOWS = 100_000


@dataclass(frozen=True)
class WindowsOfSound:
    """How a long recording is read, in seconds. window: None = the longest that the model takes. overlap: None = a tenth of it."""

    window: float | None = None
    overlap: float | None = None


@dataclass(frozen=True)
class Segment:
    """One window. start, end: seconds; text: as the model wrote it, overlaps included. flags: truncated, repetitive, unsure, silent, and
    those of `Prediction`."""

    start: float
    end: float
    text: str
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Transcript:
    """What was said. text: the words joined (of one window: as the model wrote it). seconds: length of the recording."""

    text: str
    words: tuple[TimedWord, ...]
    segments: tuple[Segment, ...]
    seconds: float

    @property
    def flags(self) -> dict[str, int]:
        """How many windows carry each flag."""
        names = sorted({flag for segment in self.segments for flag in segment.flags})
        return {name: sum(name in segment.flags for segment in self.segments) for name in names}


def transcribe(
    predictor: Predictor, recording: Path | str | Media, *, windows: WindowsOfSound | None = None, search: SearchConfig | None = None
) -> Transcript:
    """Read a recording of any length.

    Raises DataError for a file that cannot be read, ConfigError for windows that do not fit the model and for a model of other sources.
    """
    codec, windows = as_audio_codec(predictor.source_codec), windows or WindowsOfSound()
    media = Media(Path(recording).absolute()) if isinstance(recording, str | Path) else recording
    longest, overlap = _fitting(predictor, codec, windows)
    try:
        with open_media(media) as file:
            seconds = sound_seconds(file, Part(media.start or 0.0, media.end, longest * MOST_WINDOWS))
    except BadValueError as problem:
        raise DataError(str(problem)) from None
    parts = [_part(media, *span) for span in cut(seconds, longest, overlap)]
    share = 1 + predictor.language_weight(search or predictor.search)
    segments: list[Segment] = []
    times: dict[int, TokenTimes | None] = {}
    for readings in predictor.read(parts, search=search):
        heard = _heard(readings)
        sounding = readings.select(heard)
        predictions = predictor.answer(sounding, search=search)
        found = times_in(predictor, sounding, [prediction.text for prediction in predictions])
        first, said = len(segments), dict(zip(heard, predictions, strict=True))
        times |= {first + number: one for number, one in zip(heard, found, strict=True)}
        segments += [_segment(parts[first + number], media, said.get(number), share=share) for number in range(len(readings.values))]
    words = _joined(predictor, segments, times)
    text = segments[0].text if len(segments) == 1 else " ".join(word.text for word in words)
    return Transcript(text, tuple(words), tuple(segments), seconds)


def cut(seconds: float, window: float, overlap: float) -> list[tuple[float, float]]:
    """(start, end) of windows that cover a recording; the last one ends with it and is as long as the others."""
    if seconds <= window:
        return [(0.0, seconds)]
    count = int(np.ceil((seconds - window) / (window - overlap))) + 1
    starts = [min(number * (window - overlap), seconds - window) for number in range(count)]
    return [(start, start + window) for start in starts]


def level_db(samples: np.ndarray) -> float:
    """Root mean square below full scale, in decibels."""
    return float(10 * np.log10(max(np.square(samples).mean(dtype=np.float64), 1e-20)))


def guards(prediction: Prediction, *, share: float = 1.0) -> tuple[str, ...]:
    """What speaks against an output: it goes round in circles, or the model was guessing.

    share: what its log-probability is divided by, 1 + the weight of a language model that took part.
    """
    raw = prediction.text.encode()
    loops = bool(raw) and len(raw) / len(zlib.compress(raw)) > LOOP_RATIO
    unsure = prediction.log_probability / share / (len(prediction.tokens) + 1) < UNSURE_LOG_PROBABILITY
    return tuple(name for name, raised in ((REPETITIVE, loops), (UNSURE, unsure)) if raised)


def _heard(readings: Readings) -> list[int]:
    """Numbers of the windows that are not silent. Raises DataError for one that cannot be read."""
    rows = [readings.first(number) for number in range(len(readings.values))]
    for row in rows:
        if row.problem is not None:
            raise DataError(str(row.problem))
    return [number for number, row in enumerate(rows) if level_db(row.data) >= SILENCE_DB]


def _fitting(predictor: Predictor, codec: AudioCodec, windows: WindowsOfSound) -> tuple[float, float]:
    """Window and overlap. Raises ConfigError where the model takes no such window."""
    frames = min(predictor.ceilings.source, predictor.data.max_source_tokens if predictor.data else predictor.ceilings.source)
    longest = min(codec.config.max_seconds, frames * codec.config.features.hop_ms / 1000)
    window = windows.window or longest
    overlap = window * USUAL_OVERLAP if windows.overlap is None else windows.overlap
    if not 0 <= overlap < window <= longest:
        raise ConfigError(
            f"windows of {window:g} s with {overlap:g} s of overlap are not allowed: this model takes up to {longest:g} s, and the "
            "overlap must be shorter than the window"
        )
    return window, overlap


def _part(media: Media, start: float, end: float) -> Media:
    offset = media.start or 0.0
    whole = start == 0.0 and media.end is None and media.start is None
    return replace(media, start=None if whole else offset + start, end=offset + end)


def _segment(part: Media, media: Media, prediction: Prediction | None, *, share: float) -> Segment:
    offset = media.start or 0.0
    start, end = (part.start or 0.0) - offset, (part.end or 0.0) - offset
    if prediction is None:
        return Segment(start, end, "", (SILENT,))
    flags = (*prediction.flags, *(["truncated"] if prediction.truncated else []), *guards(prediction, share=share))
    return Segment(start, end, prediction.text, flags)


def _joined(predictor: Predictor, segments: Sequence[Segment], times: dict[int, TokenTimes | None]) -> list[TimedWord]:
    """The words of all windows. One whose text could not be aligned is spread evenly over its window."""
    words: list[TimedWord] = []
    for number, segment in enumerate(segments):
        first = 0.0 if number == 0 else (segments[number - 1].end + segment.start) / 2
        last = np.inf if number == len(segments) - 1 else (segment.end + segments[number + 1].start) / 2
        for word in _words_of(predictor, segment, times.get(number)):
            moved = replace(word, start=word.start + segment.start, end=min(word.end + segment.start, segment.end))
            if first <= (moved.start + moved.end) / 2 < last:
                words.append(moved)
    return words


def _words_of(predictor: Predictor, segment: Segment, times: TokenTimes | None) -> list[TimedWord]:
    if times is not None:
        return timed_words(predictor.target_codec, times.ids, times.spans, confidences=times.confidences)
    texts = segment.text.split()
    share = (segment.end - segment.start) / max(len(texts), 1)
    return [TimedWord(text, number * share, (number + 1) * share, 0.0) for number, text in enumerate(texts)]
