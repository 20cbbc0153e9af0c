"""Where a run stands: everything of a checkpoint that is not a tensor.

In: what the loop has done. Out: `state.json`. There are no random generator states in it: each step seeds torch with a
number made of (seed, step, micro-batch), so that a resumed run draws what the uninterrupted one would have drawn.
"""

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from transduce.errors import CheckpointError
from transduce.train.schedule import Plateau


@dataclass
class RunState:
    """Changed by the loop after each step and each validation, never in between."""

    step: int = 0  # optimiser steps done
    epoch: int = 0  # of the next batch
    batch: int = 0  # number of the next batch within its epoch
    minutes: float = 0.0  # of training and validation, over all resumes
    tokens: int = 0  # target tokens seen
    precision: str = ""  # what the last session computed in
    loops: str = ""  # whose loops it used
    validated_step: int = 0
    best_value: float | None = None  # of the deciding metric
    stale: int = 0  # validations since then
    best: list[tuple[int, float]] = field(default_factory=list)  # (step, value) of kept checkpoints, best first
    plateau: Plateau = field(default_factory=Plateau)

    def record(self, value: float, *, better: Literal["higher", "lower"], keep: int) -> bool:
        """Note the deciding metric of a validation at the present step; whether it is a new best."""
        sign = 1 if better == "lower" else -1
        improved = self.best_value is None or sign * value < sign * self.best_value
        self.validated_step = self.step
        self.best_value = value if improved else self.best_value
        self.stale = 0 if improved else self.stale + 1
        ranked = [*((step, old) for step, old in self.best if step != self.step), (self.step, value)]
        self.best = sorted(ranked, key=lambda entry: (sign * entry[1], -entry[0]))[:keep]
        return improved

    def to_tree(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> "RunState":
        """From JSON. Raises CheckpointError when keys are missing or unknown."""
        try:
            best = [(int(step), float(value)) for step, value in tree["best"]]
            return cls(**{**tree, "best": best, "plateau": Plateau(**tree["plateau"])})
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"state.json is not of this version: {error}") from error


def mixed_seed(seed: int, *words: int) -> int:
    """A 63-bit number that depends on `seed` and `words` alone and changes wildly with each."""
    text = ",".join(str(word) for word in (seed, *words))
    return int.from_bytes(hashlib.blake2b(text.encode("ascii"), digest_size=8).digest(), "big") >> 1
