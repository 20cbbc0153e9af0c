"""What a user may set about search, each default written once.

In: YAML or keyword arguments. Out: frozen settings. The decision to question: `early_stop: likely` is the default. The
exact rule `best` must assume that an open hypothesis might run to the length limit and be divided by the largest length
penalty, so it rarely stops early; `likely` lets it end at once and free of charge, which costs almost no quality.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from transduce.settings import Settings


class SamplingConfig(Settings):
    """Draw tokens at random instead of searching. The filters apply in this order: temperature, top_k, top_p, min_p."""

    temperature: float = Field(default=1.0, gt=0)
    """Logits are divided by this; below 1 is more careful, above 1 more varied."""
    top_k: int = Field(default=0, ge=0)
    """Only the k most probable tokens (Fan 2018); 0 = all."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Only the smallest set of tokens that holds this much probability (nucleus, Holtzman 2020); 1 = all."""
    min_p: float = Field(default=0.0, ge=0, lt=1)
    """Only tokens with at least this share of the best token's probability (Nguyen 2024); 0 = all."""
    seed: int = Field(default=1, ge=0)
    """Seed. The draws depend on it and on the source text only, never on the other sentences of a batch or their order."""


class SearchConfig(Settings):
    """How predictions are found. Lengths count target tokens without the end-of-sequence symbol."""

    beam_size: int = Field(default=5, ge=1)
    """Hypotheses kept open per sentence; 1 = greedy search."""
    num_best: int = Field(default=1, ge=1)
    """Hypotheses returned per sentence, at most beam_size (any number when sampling)."""
    length_penalty: Literal["none", "wu", "average"] = "wu"
    """Finished hypotheses are ranked by log-probability: as it is, over ((5 + length) / 6) ** alpha (Wu 2016), or over the length."""
    alpha: float = Field(default=0.6, ge=0)
    """Exponent of the Wu 2016 length penalty; larger favours longer outputs."""
    early_stop: Literal["first", "full", "likely", "best", "never"] = "likely"
    """When a sentence is done: `first` = num_best hypotheses finished; `full` = beam_size of them finished, and the best count;
    `likely` = no open one would beat them if it ended now; `best` = no open one can ever beat them; `never` = at the length limit."""
    min_length: int = Field(default=0, ge=0)
    """Shortest output in tokens."""
    min_length_ratio: float = Field(default=0.0, ge=0)
    """Shortest output as a multiple of the source length in tokens; the larger of both minima holds."""
    max_length: int | None = Field(default=None, ge=1)
    """Longest output in tokens; null = the ratio and the model's own limit only. What reaches a limit is marked `truncated`."""
    max_length_ratio: float = Field(default=3.0, ge=0)
    """Longest output = max_length_ratio * source length + max_length_margin."""
    max_length_margin: int = Field(default=50, ge=1)
    """See max_length_ratio; in tokens."""
    no_repeat_ngram: int = Field(default=0, ge=0)
    """No n-gram of this many tokens occurs twice in an output; 0 = off."""
    repetition_penalty: float = Field(default=1.0, ge=1)
    """Log-probabilities of tokens that are already in the output are multiplied by this (Keskar 2019, 4.1); 1 = off."""
    sampling: SamplingConfig | None = None
    """Sample instead of searching; num_best independent outputs per sentence."""
    ctc_weight: float = Field(default=0.0, ge=0, le=1)
    """Share of the model's CTC layer in the score of every token: 0 = the decoder alone; between = both in one search (Watanabe
    2017, II-C); 1 = CTC alone, the best path with beam_size 1, else prefix beam search (Graves 2006; Hannun 2014)."""
    ctc_candidates: int = Field(default=64, ge=1)
    """With vocabularies above 512 tokens: the decoder's best next tokens per hypothesis whose CTC score is computed; others come last."""
    language_weight: float = Field(default=0.3, ge=0)
    """Weight of the log-probability of a language model, added to the score of every token (shallow fusion, Gulcehre 2015); only where
    one is given beside the model (`--language-model`). 0 = as if there were none."""
    allow_unknown: bool = False
    """Whether the unknown token may be produced."""
    shortlist: bool = False
    """Whether search with rounded weights considers only the target tokens that the tokens of the source may become, as training learned
    at its end (Devlin 2017); float32 considers all, and so does torch with a beam. One list serves a batch: an answer may, rarely,
    depend on the others in it."""
    batch_tokens: int = Field(default=16384, ge=1)
    """Rows times source width that are searched at once, every hypothesis of a beam counted as a row."""
    too_long: Literal["flag", "refuse"] = "flag"
    """A source longer than the model allows: `flag` = empty output flagged source_too_long; `refuse` = error naming the line."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sampling is None and self.num_best > self.beam_size:
            raise ValueError(f"num_best={self.num_best} needs a beam_size of at least that, not {self.beam_size}, or sampling")
        beside = self.min_length or self.min_length_ratio or self.no_repeat_ngram or self.repetition_penalty != 1
        if self.ctc_weight == 1 and (beside or self.sampling is not None):
            raise ValueError(
                "ctc_weight=1 reads the output off the CTC layer: min_length, min_length_ratio, no_repeat_ngram, repetition_penalty and "
                "sampling need the decoder, so a ctc_weight below 1"
            )
        if self.max_length is not None and self.min_length > self.max_length:
            raise ValueError(f"min_length={self.min_length} is above max_length={self.max_length}")
        return self
