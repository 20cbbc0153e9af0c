"""The model that all sides build, and what its arithmetic costs.

In: nothing, or changed sizes. Out: a `Shape`, passed to every program of a comparison as one JSON word, and the floating-point
operations of a target token. The decision to question: the cost counts matrix products alone, without padding, as if attention saw
half of the target; what a program does beyond that (dropout, norms, softmax, the optimiser) is what a share of the floor shows.
"""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Shape:
    """A Transformer of `layers` layers at each end with one embedding matrix for source, target and output, or an LSTM with
    attention of the same width and one layer."""

    kind: str = "transformer"
    layers: int = 3
    width: int = 256
    heads: int = 4
    feed_forward: int = 1024
    vocabulary: int = 8000
    dropout: float = 0.1
    label_smoothing: float = 0.1
    batch_tokens: int = 4096
    """Rows times the longer of source and target width, padding included."""

    def word(self) -> str:
        """One word of a command line that `read_shape` understands."""
        return json.dumps(asdict(self))

    def training_flop(self, source_per_target: float, *, source: float, target: float) -> float:
        """Floating-point operations of a training step per target token: forward once, backward twice.

        source_per_target: source tokens for each target token. source, target: mean lengths, end of sequence included.
        """
        return 6 * self.forward_products(source_per_target, source=source, target=target)

    def forward_products(self, source_per_target: float, *, source: float, target: float) -> float:
        """Multiply-adds of the forward pass per target token, those of its source tokens included."""
        return self._encoder(source) * source_per_target + self._decoder(source, target)

    def search_flop(self, beam: int, *, source: float, target: float) -> float:
        """Floating-point operations of a search for a sentence: its source once, `beam` hypotheses of `target` tokens, the end included."""
        return 2 * (self._encoder(source) * source + beam * target * self._decoder(source, target))

    def _encoder(self, source: float) -> float:
        """Multiply-adds of a source token, those of its keys and values for the decoder included."""
        d, f = self.width, self.feed_forward
        return self.layers * (6 * d * d + 2 * d * f + 2 * source * d)

    def _decoder(self, source: float, target: float) -> float:
        """Multiply-adds of a target token, the output layer included."""
        d, f = self.width, self.feed_forward
        return self.layers * (6 * d * d + 2 * d * f + target * d + 2 * source * d) + self.vocabulary * d


def read_shape(word: str) -> Shape:
    """What `Shape.word` made."""
    return Shape(**json.loads(word))


TINY = Shape(layers=1, width=32, heads=2, feed_forward=64, vocabulary=400, batch_tokens=256)
"""For smoke runs."""
