"""What a corpus looks like: how many pairs, how long, which letters and words.

In: a corpus. Out: a `Survey`. It reads everything once and keeps counts only; words are counted up to a limit, because
beyond it only "many" matters.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from transduce.data.examples import CorpusConfig, text_pairs
from transduce.errors import DataError

MOST_WORDS = 20_000
PROSE_WORDS = 4.0


@dataclass
class EndSurvey:
    """One end of the pairs."""

    texts: int = 0
    characters: int = 0
    words: int = 0
    longest: int = 0
    letters: set[str] = field(default_factory=set)
    vocabulary: set[str] = field(default_factory=set)

    def add(self, text: str) -> None:
        """One more text."""
        words = text.split()
        self.texts += 1
        self.characters += len(text)
        self.words += len(words)
        self.longest = max(self.longest, len(text))
        self.letters.update(text)
        if len(self.vocabulary) <= MOST_WORDS:
            self.vocabulary.update(words)

    @property
    def mean_characters(self) -> float:
        """Characters per text."""
        return self.characters / max(self.texts, 1)

    @property
    def mean_words(self) -> float:
        """Words between white space per text."""
        return self.words / max(self.texts, 1)

    @property
    def distinct_words(self) -> int:
        """Different words, counted up to `MOST_WORDS`."""
        return len(self.vocabulary)

    @property
    def is_prose(self) -> bool:
        """Whether texts are sentences: several words of more than two letters on average."""
        return self.mean_words >= PROSE_WORDS and self.mean_characters / max(self.mean_words, 1.0) > 3.0

    def line(self, name: str) -> str:
        """For people."""
        words = f"more than {MOST_WORDS}" if self.distinct_words > MOST_WORDS else str(self.distinct_words)
        return (
            f"{name}: {self.mean_characters:.1f} characters and {self.mean_words:.1f} words on average, longest {self.longest} characters, "
            f"{len(self.letters)} different characters, {words} different words"
        )


@dataclass
class Survey:
    """Both ends."""

    source: EndSurvey = field(default_factory=EndSurvey)
    target: EndSurvey = field(default_factory=EndSurvey)

    @property
    def pairs(self) -> int:
        """How many pairs were read."""
        return self.source.texts

    @property
    def longest(self) -> int:
        """Characters of the longest text of either end."""
        return max(self.source.longest, self.target.longest)

    @property
    def shared_alphabet(self) -> float:
        """Share of the different characters that both ends use."""
        union = self.source.letters | self.target.letters
        return len(self.source.letters & self.target.letters) / max(len(union), 1)

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.pairs} pairs; {100 * self.shared_alphabet:.0f} % of the characters are common to both ends"
        yield self.source.line("source")
        yield self.target.line("target")


def survey_corpus(corpus: CorpusConfig) -> Survey:
    """Read a corpus once. Raises DataError with file and line for a bad record, and for an empty corpus."""
    survey = Survey()
    for source, target in text_pairs(corpus):
        survey.source.add(source)
        survey.target.add(target)
    if not survey.pairs:
        raise DataError("holds no pairs", corpus.files[0])
    return survey
