"""The record of a parity check, stored as parity.json beside an exported model.

In: figures, or a folder. Out: `ParityRecord`. The decision to question: whether a check passed is stored and not judged again when
the record is read, so that an export means the same to every later version.
"""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from transduce.errors import ExportError
from transduce.settings import Settings

PARITY = "parity.json"
COMPUTE_TYPES = ("int8", "float32")
"""The numbers that an engine may compute with, the faster ones first."""
SHORTLISTED = "int8 shortlist"
"""8-bit numbers and a shortlist of target tokens."""
KINDS = ("greedy", "beam")
"""The kinds of search that are checked."""


class Agreement(Settings):
    """How one engine's outputs compare with torch's, for one kind of search and of numbers."""

    kind: Literal["greedy", "beam"]
    """The search."""
    compute_type: Literal["int8 shortlist", "int8", "float32"]
    """The numbers that the engine computed with, and whether with a shortlist."""
    passed: bool
    """Whether the figures keep the bounds for these numbers."""
    sentences: int = Field(ge=0)
    """Sources that the engine answered."""
    left_to_torch: int = Field(ge=0)
    """Sources that it left to torch, because a length limit was reached or another best output could not be excluded."""
    same: float = Field(ge=0, le=1)
    """Share of its outputs that are the same, token for token."""
    likeness: float = Field(ge=0)
    """chrF of all outputs against those of torch, percent."""
    score_error: float = Field(ge=0)
    """Largest difference of the log-probabilities of one and the same output, over its number of tokens."""
    metric_torch: float | None = None
    """chrF of torch against references, percent; null where there are none."""
    metric: float | None = None
    """The same of the engine."""


class ParityRecord(Settings):
    """What was checked, where, and what came out."""

    format: Literal["ctranslate2"]
    """The engine that the model was exported to."""
    engine_version: str
    """Its version."""
    transduce_version: str
    """The version that exported."""
    torch_version: str
    """The version of torch that it was compared with."""
    processor: str
    """Where it was compared."""
    model_sha256: str
    """Of the model.safetensors that was exported."""
    sources: str
    """What was searched."""
    agreements: tuple[Agreement, ...]
    """One for each kind of search and of numbers."""

    def passed(self, compute_type: str) -> frozenset[str]:
        """The kinds of search that passed with these numbers."""
        return frozenset(one.kind for one in self.agreements if one.compute_type == compute_type and one.passed)


def read_record(folder: Path) -> ParityRecord:
    """The record of an export. Raises ExportError."""
    try:
        return ParityRecord.model_validate(json.loads((folder / PARITY).read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise ExportError(f"{folder / PARITY} cannot be read: {error}") from None
