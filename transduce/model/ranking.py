"""A token head that ranks: it tells the best tokens of exact search without computing all logits in float32.

In: hidden states. Out: what `TokenHead.best` is asked for. The output layer is nearly half of the arithmetic of a small decoder's step, and
nearly all of it goes into the sum of a softmax, over tokens that nobody asks for.

The decision to question: there, whole numbers of 16 bits, whose products take half the time (measured, docs/performance.md). Logits are off
by about 1e-4, each its own way, so that the logarithm of their sum is off by some millionths (of float32 numbers: by one). What is likely
is computed in float32.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from transduce.model.fused import array, compiles, searches, whole_loops
from transduce.model.heads import Asked, Best, TokenHead, token_head
from transduce.model.seq2seq import Seq2Seq


class RankingHead(TokenHead):
    """Any token head, and a copy of its weights in whole numbers, which is derived from these and never stored."""

    def __init__(self, head: TokenHead) -> None:
        nn.Module.__init__(self)
        self.head, self.bridge, self.weight, self.bias = head, head.bridge, head.weight, head.bias
        weight, loops = head.weight.detach().float(), whole_loops()
        size, width = weight.shape
        norms = torch.stack([part.norm(dim=1) for part in torch.split(weight, 2 * loops.WORDS, dim=1)]).amax(0)
        steps = torch.maximum(norms / float(loops.NORM), weight.abs().amax(1) / float(loops.LARGEST))
        steps = steps.clamp_min(torch.finfo(torch.float32).tiny)
        more = -size % loops.COLUMNS
        rounded = functional.pad((weight / steps[:, None]).round().to(torch.int16), (0, width % 2, 0, more))
        self.tiles = rounded.view(-1, loops.COLUMNS, rounded.shape[1] // 2, 2).transpose(1, 2).contiguous()
        self.steps = functional.pad(steps, (0, more))
        self.added = functional.pad(head.bias.detach().float(), (0, more), value=-torch.inf)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        return self.head(hidden)  # type: ignore[no-any-return]

    def best(self, hidden: Tensor, asked: Asked) -> Best | None:
        """See `TokenHead`; in a process of one thread."""
        rows = self.project(hidden)
        if not searches(rows):
            return None
        found = Best.empty(len(rows), asked.count)
        head = array(self.tiles), array(self.steps), array(self.added), array(self.weight)
        written = array(found.values), array(found.tokens), array(found.ends)
        whole_loops().best_of_pairs(array(rows.contiguous()), head, (array(asked.excluded), asked.end, *written))
        return found


def ranking_model(model: Seq2Seq) -> Seq2Seq:
    """The model with such a head, where there are loops and the instruction for it."""
    if not compiles("avx512_vnni"):
        return model
    head = RankingHead(token_head(model.head))
    return Seq2Seq(model.frontend, model.encoder, embedding=model.embedding, decoder=model.decoder, head=head, ctc=model.ctc).eval()
