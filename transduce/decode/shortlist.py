"""Vocabulary shortlist: the few target tokens that the tokens of a source may become (Jean 2015, section 3.3; Devlin 2017).

In: the source tokens of a batch. Out: the target tokens that search considers for it, a third of a vocabulary or less, so that the output
layer costs less. The decision to question: one list for a whole batch, because one product for all rows is the point of it. A sentence is
offered what its neighbours may need as well, and so it can, rarely, get another answer beside others than alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transduce.data.batch import Padded
from transduce.decode.hypotheses import Hypothesis
from transduce.decode.scorers import ModelScorer
from transduce.model.frontends import Vocabulary
from transduce.model.heads import token_head
from transduce.model.seq2seq import Seq2Seq

ALWAYS = 1024  # tokens of every list: the four special ones and the most frequent
MULTIPLE = 128  # lists are filled up to one of it: few sizes of products, and none with a rest


@dataclass(frozen=True)
class Shortlist:
    """What the tokens of a source may become.

    candidates: (S, K) int32, most likely first, for each source token; -1 = none. ranking: (V,) int32, all target tokens, special ones
    first, then by falling frequency.
    """

    candidates: NDArray[np.int32]
    ranking: NDArray[np.int32]

    @property
    def always(self) -> NDArray[np.int32]:
        """The target tokens of every list."""
        return self.ranking[:ALWAYS]

    def tokens(self, rows: Iterable[NDArray[Any]]) -> NDArray[np.int64]:
        """Sorted target tokens (V',) for sources of these ids; V' is a multiple of `MULTIPLE` where the vocabulary has as many."""
        sources = np.unique(np.concatenate(list(rows)))
        wanted = np.zeros(len(self.ranking), dtype=bool)
        wanted[self.always] = True
        found = self.candidates[sources]
        wanted[found[found >= 0]] = True
        missing = -int(wanted.sum()) % MULTIPLE
        wanted[self.ranking[~wanted[self.ranking]][:missing]] = True
        return np.flatnonzero(wanted)


class ShortlistScorer(ModelScorer):
    """Logits of one model for a few target tokens (V',). Outside it, tokens are numbered by their place among these."""

    def __init__(self, model: Seq2Seq, source: Padded, tokens: Tensor, *, max_length: int) -> None:
        super().__init__(model, source, max_length=max_length)
        self.tokens = tokens
        self.head = token_head(model.head).narrowed(tokens)

    @property
    def vocabulary(self) -> Vocabulary:
        """The special ids where they stand among the tokens."""
        whole = super().vocabulary
        wanted = torch.tensor([whole.pad_id, whole.bos_id, whole.eos_id, whole.unk_id], device=self.tokens.device)
        return Vocabulary(len(self.tokens), *torch.searchsorted(self.tokens, wanted).tolist())

    def embed(self, tokens: Tensor) -> Tensor:
        """(N,) places -> (N, E)."""
        return super().embed(self.tokens[tokens])

    def named(self, found: Sequence[Sequence[Hypothesis]]) -> list[list[Hypothesis]]:
        """The same hypotheses with tokens of the whole vocabulary."""
        names = self.tokens.tolist()
        return [[replace(one, tokens=tuple(names[place] for place in one.tokens)) for one in row] for row in found]
