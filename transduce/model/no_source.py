"""No source: what a language model reads.

In: a batch of B rows that hold nothing. Out: one position of no numbers, (B, 1, 0). The decision a reader would question: a
language model is no special model but one whose source says nothing. Everything from the loader to the search then works as it is;
a decoder that finds a memory of no numbers has no attention over it.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from transduce.data.batch import Padded
from transduce.settings import Settings


class NoSourceFrontendConfig(Settings):
    """Nothing to read; for language models."""

    kind: Literal["none"] = "none"
    """No front-end."""


class NoSourceFrontend(nn.Module):
    """One position without numbers for each row."""

    output_size = 0

    def forward(self, source: Padded) -> tuple[Tensor, Tensor]:
        """-> (B, 1, 0), (B,)."""
        return torch.zeros(len(source.lengths), 1, 0, device=source.lengths.device), source.lengths

    def as_written(self, weights: Tensor, lengths: Tensor) -> Tensor:  # noqa: ARG002
        """Nothing is turned round."""
        return weights
