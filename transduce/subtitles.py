"""From tokens with times to words with times, cues, and subtitle files (SRT, WebVTT).

In: what a model wrote, and when each token was said. Out: `TimedWord`s, `Cue`s, text of a file. The decision a reader would
question: which tokens make a word is read off the growing decoded text, not off the tokens, so that characters, subwords, bytes and
words are all treated by one rule.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transduce.data.tokens import TextCodec

MOST_CHARACTERS = 84
"""Of a cue: two lines of 42, the usual width of subtitles."""
LINE_CHARACTERS = 42
MOST_SECONDS = 7.0
LONGEST_PAUSE_SECONDS = 1.0
"""A longer silence between two words ends a cue."""


@dataclass(frozen=True)
class TimedWord:
    """A word and when it was said, in seconds from the beginning of the recording. confidence: mean probability, 0 to 1."""

    text: str
    start: float
    end: float
    confidence: float = 1.0


@dataclass(frozen=True)
class Cue:
    """What is shown at once. Seconds from the beginning of the recording."""

    start: float
    end: float
    text: str


def timed_words(
    codec: TextCodec, ids: Sequence[int], times: Sequence[tuple[float, float]], *, confidences: Sequence[float] | None = None
) -> list[TimedWord]:
    """The words of a decoded output. times: (start, end) in seconds of each token; a word lasts from its first token to its last."""
    lengths = [len(codec.decode(ids[: count + 1])) for count in range(len(ids))]
    certain = confidences or [1.0] * len(ids)
    text, words, place = codec.decode(ids), [], 0
    for word in text.split():
        begin = text.index(word, place)
        place = begin + len(word)
        first = next(number for number, length in enumerate(lengths) if length > begin)
        last = next(number for number, length in enumerate(lengths) if length >= place)
        mean = sum(certain[first : last + 1]) / (last + 1 - first)
        words.append(TimedWord(word, times[first][0], max(times[last][1], times[first][0]), mean))
    return words


def cues_of(words: Sequence[TimedWord]) -> list[Cue]:
    """Words gathered until a cue is full, too long, or followed by a pause."""
    return [_cue(group) for group in _groups(words)]


def _groups(words: Sequence[TimedWord]) -> Iterator[list[TimedWord]]:
    group: list[TimedWord] = []
    for word in words:
        if group and (
            len(" ".join(one.text for one in [*group, word])) > MOST_CHARACTERS
            or word.end - group[0].start > MOST_SECONDS
            or word.start - group[-1].end > LONGEST_PAUSE_SECONDS
        ):
            yield group
            group = []
        group.append(word)
    if group:
        yield group


def _cue(words: Sequence[TimedWord]) -> Cue:
    """One or two lines, broken where both are about as long."""
    text = " ".join(word.text for word in words)
    if len(text) > LINE_CHARACTERS and len(words) > 1:
        heads = [" ".join(word.text for word in words[:count]) for count in range(1, len(words))]
        head = min(heads, key=lambda line: max(len(line), len(text) - len(line) - 1))
        text = f"{head}\n{text[len(head) + 1 :]}"
    return Cue(words[0].start, words[-1].end, text)


def to_srt(cues: Sequence[Cue]) -> str:
    """A SubRip file."""
    return "\n".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{cue.text}\n" for number, cue in enumerate(cues, start=1)
    )


def to_vtt(cues: Sequence[Cue]) -> str:
    """A WebVTT file (W3C); what would be markup is escaped."""
    body = "".join(f"\n{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{_escaped(cue.text)}\n" for cue in cues)
    return f"WEBVTT\n{body}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(seconds: float, point: str) -> str:
    """`01:02:03,456`."""
    milliseconds = round(max(seconds, 0.0) * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"
