"""How long an output may be, and how its length enters its score.

In: settings, source lengths. Out: a shortest and a longest output per sentence, and the divisor of a log-probability.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from transduce.decode.options import SearchConfig


@dataclass(frozen=True)
class LengthLimits:
    """minimum, maximum: (B,) int64, tokens of an output without end-of-sequence."""

    minimum: np.ndarray
    maximum: np.ndarray

    @cached_property
    def shortest_maximum(self) -> int:
        """Before this many tokens no sentence is at its limit."""
        return int(self.maximum.min(initial=np.iinfo(np.int64).max))


def length_limits(config: SearchConfig, source_lengths: np.ndarray, *, ceiling: int, prefix_lengths: Sequence[int] = ()) -> LengthLimits:
    """Limits per sentence. ceiling: longest output that the model takes. The settings never cut a forced prefix short."""
    maximum = (config.max_length_ratio * source_lengths + config.max_length_margin).astype(np.int64)
    if config.max_length is not None:
        maximum = np.minimum(maximum, config.max_length)
    if prefix_lengths:
        maximum = np.maximum(maximum, np.asarray(prefix_lengths, dtype=np.int64))
    maximum = np.minimum(maximum, ceiling)
    minimum = np.maximum((config.min_length_ratio * source_lengths).astype(np.int64), config.min_length)
    return LengthLimits(np.minimum(minimum, maximum), maximum)


def length_divisor(config: SearchConfig, length: int) -> float:
    """What a log-probability over `length` tokens (end-of-sequence counted) is divided by; grows with the length."""
    match config.length_penalty:
        case "none":
            return 1.0
        case "wu":
            return float(((5 + length) / 6) ** config.alpha)
        case "average":
            return float(max(length, 1))
