"""Shared keys and values, for the loops of search: where a beam moves, nothing of them is copied.

In: the keys and values of each step. Out: where those of a hypothesis lie. The decision to question: a position is written once, at a place
of its sentence, and never moves; each hypothesis knows the places of its past. Hypotheses of a sentence have most of their past in
common, so they read the same few numbers, near each other.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from transduce.model.attention import CACHE_CHUNK, HeadLayout
from transduce.model.fused import array, search_loops


@dataclass
class Pages:
    """buffer: (L, B, 2 G, P, W, K), room for P positions of W hypotheses of each of B sentences. used: positions that somebody wrote."""

    buffer: Tensor
    used: int


@dataclass(frozen=True)
class SharedCache:
    """What N hypotheses have in pages. sentences: (N,) int64, the number of each one's sentence there. places: (N, t) int64, in which of W
    places each of its positions is."""

    pages: Pages
    sentences: Tensor
    places: Tensor

    @staticmethod
    def empty(num_sentences: int, layout: HeadLayout, *, layers: int, kind: torch.dtype) -> "SharedCache":
        """A cache without positions for one hypothesis of each sentence."""
        buffer = torch.empty(layers, num_sentences, 2 * layout.key_value_heads, 0, 1, layout.head_width, dtype=kind)
        return SharedCache(Pages(buffer, 0), torch.arange(num_sentences), torch.empty(num_sentences, 0, dtype=torch.int64))

    def select(self, rows: Tensor) -> "SharedCache":
        """The hypotheses named by `rows` (N',)."""
        return SharedCache(self.pages, self.sentences[rows], self.places[rows])

    def opened(self, width: int) -> "SharedCache":
        """With one position more, into which somebody may write; `width` hypotheses of each sentence. Pages without room, and those in
        which somebody has written this position already (a state that is used twice), are copied first."""
        cache, position = self, self.places.shape[1]
        room, places = self.pages.buffer.shape[3:5]
        if position >= room or width > places or self.pages.used > position:
            cache = self._copied(max(width, places))
        cache.pages.used = position + 1
        own = torch.arange(len(self.places)).remainder_(width)[:, None]
        return SharedCache(cache.pages, cache.sentences, torch.cat([cache.places, own], 1))

    def arrays(self) -> tuple[Any, Any, Any]:
        """Buffer, sentences and places, as the loops take them."""
        return array(self.pages.buffer), array(self.sentences), array(self.places)

    def _copied(self, width: int) -> "SharedCache":
        """With pages of its own, of the sentences that it still has, and room for a quarter of the positions more."""
        old, position = self.pages.buffer, self.places.shape[1]
        kept, numbers = torch.unique(self.sentences, return_inverse=True)
        layers, _, pairs, _, _, size = old.shape
        room = (position * 5 // 4 // CACHE_CHUNK + 1) * CACHE_CHUNK
        grown = old.new_empty(layers, len(kept), pairs, room, width, size)
        search_loops().copy_pages(array(old), (array(kept), position), array(grown))
        return SharedCache(Pages(grown, position), numbers, self.places)
