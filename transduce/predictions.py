"""What is told of each source: a prediction with its n-best list, or the log-probability of a target that was given.

In: nothing. Out: frozen values. The decision to question: everything is there for every source, so that a source that could not be
searched is an empty prediction with a flag and not a gap.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Alternative:
    """One entry of an n-best list; fields as in `Prediction`."""

    text: str
    score: float
    log_probability: float
    tokens: tuple[str, ...]
    token_probabilities: tuple[float, ...]
    truncated: bool


@dataclass(frozen=True)
class Prediction:
    """What the model makes of one source.

    score: what hypotheses were ranked by (length penalty included). log_probability: natural logarithm, the end included.
    tokens: pieces for display, without begin and end; token_probabilities: one for each. alternatives: the whole n-best list, best
    first, so its first entry is this prediction. truncated: the length limit was hit before the end. flags: empty_source,
    source_too_long, unknown_tokens, unreadable_source; problem: why it is unreadable. source_length: its positions (tokens with the
    end, frames of sound, steps, cells of a picture), 0 where it cannot be read. num_unknown: source tokens that the vocabulary does not
    know. attention: (tokens + 1, source positions), of a text the last row and column belong to the end of sequence; None unless asked
    for and given by the architecture.
    """

    text: str
    score: float
    log_probability: float
    tokens: tuple[str, ...]
    token_probabilities: tuple[float, ...]
    alternatives: tuple[Alternative, ...]
    truncated: bool
    flags: tuple[str, ...]
    source_tokens: tuple[str, ...]
    source_length: int = 0
    num_unknown: int = 0
    problem: str = ""
    attention: np.ndarray | None = None


@dataclass(frozen=True)
class ForcedScore:
    """A given target's log-probability, the end included; NaN and a flag where it cannot be computed.

    tokens: pieces without the end; token_log_probabilities: one for each, and one for the end.
    """

    log_probability: float
    tokens: tuple[str, ...]
    token_log_probabilities: tuple[float, ...]
    flags: tuple[str, ...]
