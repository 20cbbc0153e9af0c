"""Products in bfloat16, for prediction.

In: a trained model. Out: a copy that answers nearly the same, whose encoder and decoder multiply bfloat16 numbers. What layers pass on,
norms and the scores of attention stay float32 (of one query for each row, torch's bfloat16 products were measured two to three times
slower); the output layer has int8 products, whose sums are exact (int8.py).

The decision to question: weights are put once into the order in which oneDNN multiplies them, by operations that torch has for its own
compiler. A product is then one call instead of the eleven around an int8 product, and a third of its time from 64 rows on (measured,
docs/performance.md). Rows are padded as in training (products.py), because code is compiled for each number of them.
"""

import torch
from torch import Tensor, nn

from transduce.model.heads import token_head
from transduce.model.int8 import Int8TokenHead, with_products
from transduce.model.layers import FeedForward
from transduce.model.padded import padded_rows
from transduce.model.products import FUSED, Linear, has_onednn, packed_weight, product
from transduce.model.seq2seq import Seq2Seq


class BFloat16Product(nn.Module):
    """f(x W^T + b) with W (N, K) rounded to bfloat16. Rounded weights are derived from W and never stored.

    packed: whether oneDNN multiplies; None = where it does so at all. Otherwise it is torch's own product.
    """

    def __init__(self, linear: nn.Linear, *, then: str = "none", packed: bool | None = None) -> None:
        super().__init__()
        self.packed = has_onednn() if packed is None else packed
        rounded = linear.weight.detach().bfloat16()
        self.rounded = packed_weight(rounded) if self.packed else rounded
        self.bias = None if linear.bias is None else linear.bias.detach().bfloat16()
        self.then = then

    def forward(self, rows: Tensor) -> Tensor:
        """(M, K) bfloat16 -> (M, N) bfloat16; M as `padded_count` has it."""
        return product(rows, self.rounded, self.bias, then=self.then, by_onednn=self.packed)


class BFloat16Linear(nn.Module):
    """A linear layer with a bfloat16 product. `weight` stays for those that read it (recurrent layers share it over their steps)."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.product = BFloat16Product(linear)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., K) -> (..., N) float32."""
        outputs = self.product(rounded_rows(inputs))
        return outputs[: inputs.shape[:-1].numel()].float().view(*inputs.shape[:-1], -1)  # type: ignore[no-any-return]


class BFloat16FeedForward(nn.Module):
    """A feed-forward block whose inner numbers are never written in float32."""

    def __init__(self, block: FeedForward) -> None:
        super().__init__()
        self.inner, self.outer = BFloat16Product(block.inner, then=block.activation), BFloat16Product(block.outer)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., D) -> (..., D) float32."""
        outputs = self.outer(self.inner(rounded_rows(inputs)))
        return outputs[: inputs.shape[:-1].numel()].float().view(inputs.shape)  # type: ignore[no-any-return]


def rounded_rows(inputs: Tensor) -> Tensor:
    """(..., K) -> (M, K) bfloat16 with M as `padded_count` has it."""
    return padded_rows(inputs.reshape(-1, inputs.shape[-1]), torch.bfloat16)


def bfloat16_layer(_name: str, module: nn.Module) -> nn.Module | None:
    """What takes the place of a module; None = it stays."""
    match module:
        case FeedForward() if module.activation in FUSED:
            return BFloat16FeedForward(module)
        case Linear():
            return BFloat16Linear(module)
    return None


def bfloat16_model(model: Seq2Seq) -> Seq2Seq:
    """A copy of `model` with bfloat16 products in encoder and decoder; everything else is shared with it, the weights included."""
    converted = with_products(model, bfloat16_layer)
    converted.head = Int8TokenHead(token_head(converted.head))
    return converted
