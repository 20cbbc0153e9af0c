"""The learning rate over time, as a pure function of the step and of the share of the run that is done.

In: settings, step (from 1), progress (0 to 1: the largest share of any limit that is used up, so that cosine and linear
also work for a run that is limited in minutes). Out: the learning rate. Only `plateau` has a memory, a small value that
the loop keeps in state.json.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from transduce.settings import Settings


class ScheduleConfig(Settings):
    """Warm-up, then decay. Every kind first rises in a straight line over `warmup_steps`."""

    kind: Literal["inverse_sqrt", "noam", "cosine", "linear", "plateau", "constant"] = "inverse_sqrt"
    """inverse_sqrt: peak * sqrt(warmup / step). noam: the same times width^-0.5 * warmup^-0.5 (Vaswani 2017, 5.3).
    cosine, linear: down to `final_factor` at the end of the run. plateau: times `plateau_factor` when the metric stalls."""
    warmup_steps: int = Field(default=400, ge=0)
    """Steps from 0 to the peak."""
    final_factor: float = Field(default=0.0, ge=0, le=1)
    """Share of the peak at the end of the run (cosine, linear)."""
    plateau_factor: float = Field(default=0.5, gt=0, lt=1)
    """What a stall multiplies the learning rate by (plateau)."""
    plateau_patience: int = Field(default=2, ge=1)
    """Validations without a better metric that count as a stall (plateau)."""


@dataclass(frozen=True)
class Plateau:
    """What the plateau schedule remembers."""

    factor: float = 1.0
    stalled: int = 0  # validations since the metric was last best

    def after_validation(self, config: ScheduleConfig, improved: bool) -> "Plateau":
        """The memory after one more validation."""
        if improved:
            return replace(self, stalled=0)
        if self.stalled + 1 < config.plateau_patience:
            return replace(self, stalled=self.stalled + 1)
        return Plateau(factor=self.factor * config.plateau_factor)


def learning_rate_factor(config: ScheduleConfig, step: int, *, progress: float, width: int, plateau: Plateau) -> float:
    """What the peak learning rate is multiplied by at `step` (from 1). `width` is the decoder's D (noam only)."""
    warmup = max(config.warmup_steps, 1)
    rise = min(1.0, step / warmup)
    match config.kind:
        case "inverse_sqrt":
            return min(rise, math.sqrt(warmup / step))
        case "noam":
            return float(width**-0.5 * min(step**-0.5, step * warmup**-1.5))
        case "cosine":
            return rise * (config.final_factor + (1 - config.final_factor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))
        case "linear":
            return rise * (1 - (1 - config.final_factor) * min(progress, 1.0))
        case "plateau":
            return rise * plateau.factor
        case "constant":
            return rise
