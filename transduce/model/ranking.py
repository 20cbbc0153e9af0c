"""A token head that ranks: it tells the best tokens of exact search without computing all logits in float32.

In: hidden states. Out: what `TokenHead.best` is asked for. The output layer is nearly half of the arithmetic of a small decoder's step, and
nearly all of it goes into the sum of a softmax, over tokens that nobody asks for.

The decision to question: there, whole numbers of 16 bits, whose products take half the time (measured, docs/performance.md). Logits are off
by about 1e-4, each its own way, so that the logarithm of their sum is off by some millionths (of float32 numbers: by one). What is likely
is computed in float32.
"""

from torch import Tensor, nn

from transduce.model.blocked import has_ranking
from transduce.model.heads import Asked, Best, TokenHead, token_head
from transduce.model.seq2seq import Seq2Seq
from transduce.model.whole import FEWEST_ROUNDED, int16_matrix


class RankingHead(TokenHead):
    """Any token head, and a copy of its weights in whole numbers."""

    def __init__(self, head: TokenHead) -> None:
        nn.Module.__init__(self)
        self.head, self.bridge, self.weight, self.bias = head, head.bridge, head.weight, head.bias
        self._matrix = int16_matrix(head.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        return self.head(hidden)  # type: ignore[no-any-return]

    def best(self, hidden: Tensor, asked: Asked) -> Best | None:
        """See `TokenHead`."""
        return self._matrix.best(self.project(hidden), (self.weight, self.bias), asked)

    def narrowed(self, tokens: Tensor) -> TokenHead:
        """See `TokenHead`."""
        narrow = super().narrowed(tokens)
        return narrow if len(tokens) < FEWEST_ROUNDED else RankingHead(narrow)


def ranking_model(model: Seq2Seq) -> Seq2Seq:
    """The model with such a head, where there are loops and the instruction for it."""
    if not has_ranking():
        return model
    head = RankingHead(token_head(model.head))
    return Seq2Seq(model.frontend, model.encoder, embedding=model.embedding, decoder=model.decoder, head=head, ctc=model.ctc).eval()
