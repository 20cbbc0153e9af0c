"""Products in eight bits, for prediction.

In: a trained model. Out: a copy that answers nearly the same, whose encoder, decoder and output layer hold int8 weights: a quarter of the
memory traffic and, with VNNI instructions, a third of the time of float32 products (measured, docs/performance.md).

The decision to question: the inputs of a product are rounded to int8 row by row, each row in 255 steps from its own least number to its
largest, and the sums are whole numbers. So a sentence's answer does not depend on what else is in the batch, which torch's own dynamic
products (one scale for all rows) would not give. Weights have one scale per output (symmetric, as in CTranslate2 and Bhandare 2019).
"""

import copy
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from transduce.model.blocked import has_blocks
from transduce.model.fused import array, search_loops, searches
from transduce.model.heads import Asked, Best, TokenHead, token_head
from transduce.model.padded import padded_count, padded_rows
from transduce.model.products import FUSED, Linear
from transduce.model.ranking import RankingHead
from transduce.model.seq2seq import Seq2Seq
from transduce.model.whole import FEWEST_ROUNDED, LEAST, ZERO, Int16Linear, int8_matrix
from transduce.processor import cpu_flags

TILES = "amx_int8"
LARGEST, LARGEST_OF_PAIRS = 127.0, 63.0
"""Of a rounded weight, everywhere and where `torch._int_mm` adds up pairs of products in 16 bits; -128 is not used, so that the range is
symmetric."""
STEPS, HALF = 255.0, 128.0
"""Of a row of inputs, and what is taken from their number, so that it is one of int8."""
BLOCK = 256
"""Rows of one product: its sums, mostly a megabyte, stay in the second cache."""
DELICATE = "pasts.", ".memory.", ".cross.", ".0.feed_forward.inner"
"""In the names of the parts of a Transformer decoder whose rounding changes its answers most for what they cost (measured,
docs/performance.md): how it looks at what was written before and at the memory, and what comes first after that."""
FEWEST_WEIGHTS = 64 * 64
"""Smaller matrices stay as they are: rounding the inputs would cost more than the product."""


@cache
def largest_weight() -> float:
    """Which of the `LARGEST` keeps whole sums exact here. Without VNNI two products (one of 255 steps, the other of a weight) meet in 16
    bits, where larger ones would be cut without a word; so it is tried, not assumed."""
    numbers = torch.full((64, 64), int(LARGEST), dtype=torch.int8)
    exact = bool((torch._int_mm(numbers, numbers.t()) == 64 * int(LARGEST) ** 2).all())
    return LARGEST if exact else LARGEST_OF_PAIRS


class Int8Product(nn.Module):
    """x W^T + b with W (N, K) rounded to int8. Rounded weights and scales are derived from W and never stored.

    packed: whether W lies in the order in which oneDNN multiplies tiles of it; None = where the processor has AMX, on which that takes
    mostly 0.4 to 0.9 of the time of `_int_mm`. Elsewhere oneDNN has no fast code for such products (a thousand times slower on Zen 4).
    """

    scales: Tensor

    def __init__(self, weight: Tensor, *, packed: bool | None = None) -> None:
        super().__init__()
        scales = weight.detach().float().abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / largest_weight()  # (N,)
        rounded = (weight.detach() / scales[:, None]).round().to(torch.int8)  # (N, K)
        self.register_buffer("scales", scales, persistent=False)
        self.packed = TILES in cpu_flags() if packed is None else packed
        self.rounded = torch.ops.onednn.qlinear_prepack(rounded, None) if self.packed else rounded.t()
        self.zeros, self.sums = torch.zeros(len(scales), dtype=torch.int32), rounded.sum(1) * scales
        self.whole = int8_matrix(rounded, scales) if not self.packed and has_blocks(torch.int8) else None

    def forward(self, inputs: Tensor, bias: Tensor | None, *, then: str = "none") -> Tensor:
        """(..., K) -> (..., N) float32; bias (N,), then one of the non-linearities `FUSED`."""
        rows = inputs.reshape(-1, inputs.shape[-1])
        if searches(rows):
            by_loops = self._by_loops if self.whole is None else self.whole.multiply
            outputs = by_loops(rows.contiguous(), bias, rectified=then == "relu").view(*inputs.shape[:-1], -1)
            return outputs if then == "relu" else FUSED[then](outputs)
        low, high = rows.amin(1, keepdim=True).clamp_max_(0), rows.amax(1, keepdim=True).clamp_min_(0)  # (M, 1)
        steps = high.sub_(low).div_(STEPS).clamp_min_(torch.finfo(torch.float32).tiny)
        outputs = self.multiply(rows.sub(low).div_(steps).round_().sub_(HALF))
        outputs = outputs.mul_(steps).addcmul_(low.add_(steps, alpha=HALF), self.sums)
        return FUSED[then]((outputs if bias is None else outputs.add_(bias)).view(*inputs.shape[:-1], -1))

    def multiply(self, rows: Tensor) -> Tensor:
        """(M, K) whole numbers -> (M, N) float32: whole sums times the scale of each output."""
        if not self.packed:
            return torch._int_mm(rows.to(torch.int8), self.rounded).float().mul_(self.scales)
        return self._by_onednn(padded_rows(rows, torch.int8))[: len(rows)]

    def _by_onednn(self, rows: Tensor) -> Tensor:
        """(M', K) int8 -> (M', N) float32. M' as `padded_count` has it, because oneDNN compiles code for each number of rows."""
        weight = (self.rounded, self.scales, self.zeros)
        return torch.ops.onednn.qlinear_pointwise(rows, 1.0, 0, *weight, None, 1.0, 0, torch.float32, "none", [], "")  # type: ignore[no-any-return]

    def _by_loops(self, rows: Tensor, bias: Tensor | None, *, rectified: bool) -> Tensor:
        """(M, K) -> (M, N), `BLOCK` rows after the other, so that their sums are still in a core's cache where they are scaled."""
        outputs, size = torch.empty(len(rows), len(self.scales)), len(rows) if self.packed else BLOCK
        added, scales = None if bias is None else array(bias), None if self.packed else array(self.scales)
        least = ZERO if rectified else LEAST
        for first in range(0, len(rows), size):
            block = rows[first : first + size]
            whole = torch.empty(padded_count(len(block)) if self.packed else len(block), rows.shape[1], dtype=torch.int8)
            steps, lows = torch.empty(2, len(block)).numpy()
            search_loops().round_rows(array(block), (array(whole), steps, lows))
            products = self._by_onednn(whole) if self.packed else torch._int_mm(whole, self.rounded)
            written = array(outputs[first : first + size]), least
            search_loops().scale_rows(scales, added, ((array(products), array(self.sums)), (steps, lows), written))
        return outputs


class Int8Linear(nn.Module):
    """A linear layer with an int8 product. `weight` stays for those that read it (recurrent layers share it over their steps)."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.product = Int8Product(linear.weight)

    def forward(self, inputs: Tensor, *, then: str = "none") -> Tensor:
        """(..., K) -> (..., N), then one of the non-linearities `FUSED`."""
        return self.product(inputs, self.bias, then=then)  # type: ignore[no-any-return]


class Int8TokenHead(TokenHead):
    """A token head with an int8 product; the embedding that shares its weights is looked up as it was. Where our own loops multiply, they
    rank too: what is likely is computed in float32, so that rounding hardly changes which token is the best."""

    def __init__(self, head: TokenHead) -> None:
        nn.Module.__init__(self)
        self.bridge, self.weight, self.bias = head.bridge, head.weight, head.bias
        self.product = Int8Product(head.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        return self.product(self.project(hidden), self.bias)  # type: ignore[no-any-return]

    def best(self, hidden: Tensor, asked: Asked) -> Best | None:
        """See `TokenHead`."""
        whole = self.product.whole
        return None if whole is None else whole.best(self.project(hidden), (self.weight, self.bias), asked)

    def narrowed(self, tokens: Tensor) -> TokenHead:
        """See `TokenHead`. Of few tokens in float32: rounding and packing them for each batch would cost more than the products."""
        narrow = super().narrowed(tokens)
        return narrow if len(tokens) < FEWEST_ROUNDED else Int8TokenHead(narrow)


def int8_model(model: Seq2Seq) -> Seq2Seq:
    """A copy of `model` with int8 products in encoder, decoder and head; everything else is shared with it, the weights included. What
    rounding would change most (`DELICATE`) has products of 16 bits, where there are loops for them, all where there are none for 8."""
    converted = with_products(model, whole_layer)
    head = token_head(converted.head)
    converted.head = RankingHead(head) if has_blocks(torch.int16) and not has_blocks(torch.int8) else Int8TokenHead(head)
    return converted


def whole_layer(name: str, module: nn.Module) -> nn.Module | None:
    """What takes the place of a part of the model with that name; None = it stays."""
    if type(module) is not Linear:
        return None
    delicate = name.startswith("decoder.") and any(part in name for part in DELICATE)
    exact = has_blocks(torch.int16) and (delicate or not has_blocks(torch.int8))
    return Int16Linear(module.weight, module.bias) if exact else Int8Linear(module)


def with_products(model: Seq2Seq, make: Callable[[str, nn.Module], nn.Module | None]) -> Seq2Seq:
    """A copy of `model` that shares its weights, with make(name, part), where that is something, in place of each part of encoder and
    decoder down to single layers. Small linear layers stay as they are."""
    shared: dict[int, object] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    converted = copy.deepcopy(model, shared).eval()
    for end, part in (("encoder", converted.encoder), ("decoder", converted.decoder)):
        replaced: tuple[str, ...] = ()
        for name, module in list(part.named_modules()):
            small = type(module) is Linear and module.weight.numel() < FEWEST_WEIGHTS
            instead = None if small or name.startswith(replaced) else make(f"{end}.{name}", module)
            if instead is not None:
                part.set_submodule(name, instead)
                replaced = (*replaced, f"{name}.")
    return converted
