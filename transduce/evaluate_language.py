"""How well does a language model know these texts? Log-probabilities of every token, and what follows from their sum.

In: a `Predictor` of a model without a source, and texts. Out: `TextFit`. The decision a reader would question: the end of each text
is predicted too, and counts as a token, as a word and as a character (its line break), so that the figures per token, word and
character are shares of the same sum; models with different codecs compare by those per word and per character.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from transduce.data.values import NOTHING
from transduce.errors import ConfigError, DataError
from transduce.predict import TARGET_TOO_LONG, Predictor


@dataclass(frozen=True)
class TextFit:
    """What came out. log_probability: natural logarithm, of all texts together.

    texts: how many were scored. tokens, words, characters: of these texts, the end of each text counted as one. num_unknown: tokens that
    the vocabulary does not know, which the model finds too easy. too_long: texts that the model does not take and that are left out.
    """

    model: str
    log_probability: float
    texts: int
    tokens: int
    words: int
    characters: int
    num_unknown: int
    too_long: int
    seconds: float

    @property
    def perplexity(self) -> float:
        """Per token."""
        return math.exp(min(-self.log_probability / self.tokens, 700.0))

    @property
    def word_perplexity(self) -> float:
        """Per word between spaces."""
        return math.exp(min(-self.log_probability / self.words, 700.0))

    @property
    def bits_per_token(self) -> float:
        """Binary logarithm of the perplexity."""
        return -self.log_probability / math.log(2) / self.tokens

    @property
    def bits_per_character(self) -> float:
        """What a character costs."""
        return -self.log_probability / math.log(2) / self.characters

    @property
    def figures(self) -> dict[str, float]:
        """By name, for people and for JSON."""
        return {
            "perplexity": self.perplexity,
            "word_perplexity": self.word_perplexity,
            "bits_per_token": self.bits_per_token,
            "bits_per_character": self.bits_per_character,
        }

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "model": self.model,
            "scores": self.figures,
            "log_probability": self.log_probability,
            "texts": self.texts,
            "tokens": self.tokens,
            "words": self.words,
            "characters": self.characters,
            "num_unknown": self.num_unknown,
            "too_long": self.too_long,
            "seconds": round(self.seconds, 3),
        }


def evaluate_language_model(predictor: Predictor, texts: Sequence[str], *, name: str = "model") -> TextFit:
    """Score texts. Raises ConfigError for a model with a source, DataError where there is no text that the model takes."""
    if predictor.source_codec.kind != "none":
        raise ConfigError(f"{name} is no language model: it reads {predictor.source_codec.describe()}")
    begin = time.perf_counter()
    scores = predictor.score([NOTHING] * len(texts), texts)
    seconds = time.perf_counter() - begin
    scored = [(text, score) for text, score in zip(texts, scores, strict=True) if TARGET_TOO_LONG not in score.flags]
    if not scored:
        raise DataError(f"there is no text to score: {len(texts)} texts, all of them too long for the model")
    unknown = predictor.target_codec.vocabulary.unk_id
    rows = predictor.target_codec.encode_many([text for text, _ in scored])
    return TextFit(
        model=name,
        log_probability=math.fsum(score.log_probability for _, score in scored),
        texts=len(scored),
        tokens=sum(len(score.token_log_probabilities) for _, score in scored),
        words=sum(len(text.split()) + 1 for text, _ in scored),
        characters=sum(len(text) + 1 for text, _ in scored),
        num_unknown=sum(int((row == unknown).sum()) for row in rows),
        too_long=len(texts) - len(scored),
        seconds=seconds,
    )
