"""No encoder: the front-end's vectors are the memory (Vinyals 2015, Xu 2015: a picture's cells, seen by a network already).

In: vectors (B, S, E) and lengths. Out: `Memory` with the same vectors, and their mean as the summary.
"""

from typing import Literal

from torch import Tensor

from transduce.model.interface import Encoder, Memory, memory_with_mean, real_positions
from transduce.settings import Settings


class NoEncoderConfig(Settings):
    """The front-end's vectors as they are; for pictures, whose front-end is a whole network, and for language models, which have none."""

    kind: Literal["none"] = "none"
    """No encoder."""


class NoEncoder(Encoder):
    """Vectors (B, S, E) to `Memory` without doing anything but their mean."""

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.output_size = self.summary_size = input_size

    def forward(self, inputs: Tensor, lengths: Tensor) -> Memory:
        """inputs: (B, S, E), lengths: (B,) -> states (B, S, E), summary (B, E): the mean of the real ones."""
        return memory_with_mean(inputs, real_positions(lengths, inputs.shape[1]))
