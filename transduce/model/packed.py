"""Packed float32 products, for prediction.

In: a trained model. Out: a copy that answers the same up to the last bits of sums, whose encoder, decoder and output layer have weights in
the order of our own loops (blocked.py) or of oneDNN and multiply by these. Where MKL, to which torch's products go, is slower (AMD's
processors) that saves 5 to 30 % of a product (measured, docs/performance.md); `packs` says whether.

The decision to question: for oneDNN rows are padded to a multiple of `SMALL_STEP`, because it compiles code for each number of them; and of
fewer rows than `FEWEST_ROWS` its call would cost more than it saves.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from transduce.model.blocked import KNOWN, fits, has_blocks, multiplier
from transduce.model.fused import computes
from transduce.model.heads import TokenHead, token_head
from transduce.model.int8 import with_products
from transduce.model.padded import SMALL_STEP, padded_count, padded_rows
from transduce.model.products import FUSED, Linear, has_onednn, packed_weight, product
from transduce.model.seq2seq import Seq2Seq
from transduce.processor import cpu_vendor

FEWEST_WEIGHTS = 256 * 256
"""Of smaller matrices the product takes as long either way."""
FEWEST_IN_BLOCKS = 4
"""Rows of which our own loops are the fastest, and oneDNN."""
FEWEST_ROWS = 16
FEWEST_ROWS_OF_SMALL, SMALL = 96, 256 * 512
"""The same of matrices with fewer weights than that."""


def packs() -> bool:
    """Whether packed float32 products are the faster ones here."""
    return has_blocks() or (has_onednn() and cpu_vendor() == "AuthenticAMD")


class PackedProduct(nn.Module):
    """f(x W^T + b) with W (N, K). The packed weights are derived from W and never stored."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        self.blocks = multiplier(self.weight, self.bias) if has_blocks() and fits(*weight.shape) else None
        self.packed = packed_weight(self.weight) if self.blocks is None and has_onednn() else None
        self.fewest = FEWEST_ROWS if weight.numel() >= SMALL else FEWEST_ROWS_OF_SMALL

    def forward(self, inputs: Tensor, *, then: str = "none") -> Tensor:
        """(..., K) -> (..., N)."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        if self.blocks is not None and len(rows) >= FEWEST_IN_BLOCKS and then in KNOWN and computes(rows):
            return self.blocks(rows, then=then).view(*inputs.shape[:-1], -1)
        if self.packed is None or len(rows) < self.fewest:
            return FUSED[then](functional.linear(inputs, self.weight, self.bias))
        outputs = product(padded_rows(rows, torch.float32, step=SMALL_STEP), self.packed, self.bias, then=then, by_onednn=True)
        return outputs[: len(rows)].view(*inputs.shape[:-1], -1)

    def count(self, rows: int) -> int:
        """The number of rows that so many are multiplied with."""
        return rows if self.packed is None or rows < FEWEST_ROWS else padded_count(rows, step=SMALL_STEP)


class PackedLinear(nn.Module):
    """A linear layer with a packed product. `weight` stays for those that read it (recurrent layers share it over their steps)."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.product = PackedProduct(linear.weight, linear.bias)

    def forward(self, inputs: Tensor, *, then: str = "none") -> Tensor:
        """(..., K) -> (..., N), then one of the non-linearities `FUSED`."""
        return self.product(inputs, then=then)  # type: ignore[no-any-return]


class PackedTokenHead(TokenHead):
    """A token head with a packed product; the embedding that shares its weights is looked up as it was."""

    def __init__(self, head: TokenHead) -> None:
        nn.Module.__init__(self)
        self.bridge, self.weight, self.bias = head.bridge, head.weight, head.bias
        self.product = PackedProduct(head.weight, head.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        return self.product(self.project(hidden))  # type: ignore[no-any-return]


def packed_layer(_name: str, module: nn.Module) -> nn.Module | None:
    """What takes the place of a module; None = it stays."""
    return PackedLinear(module) if type(module) is Linear and module.weight.numel() >= FEWEST_WEIGHTS else None


def packed_model(model: Seq2Seq) -> Seq2Seq:
    """A copy of `model` with packed products in encoder, decoder and head; everything else is shared with it, the weights included."""
    converted = with_products(model, packed_layer)
    converted.head = PackedTokenHead(token_head(converted.head))
    return converted
