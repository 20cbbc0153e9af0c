"""Parts of training as textbooks and other toolkits have them, to show what ours are worth: each function puts one in place of ours.

In: nothing. Out: the running program, changed. For `ours_train.py --without NAME` alone; nothing of it is undone.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from transduce.data.batch import Padded
from transduce.model import attention, fused, layers, products
from transduce.model.heads import TokenHead
from transduce.model.seq2seq import Seq2Seq
from transduce.train import objective, setup, trainer
from transduce.train.loss import LossSums


def loops() -> None:
    """torch's operations for all that compiled loops do, several passes over memory each."""
    fused.kernels = lambda: None


def dropout() -> None:
    """torch's dropout, also behind the ReLU of a feed-forward block; without compiled loops, which draw within other work."""
    loops()

    class ReluThenDropout:
        @staticmethod
        def apply(inner: Tensor, threshold: int, rectified: bool) -> Tensor:  # noqa: ARG004
            return functional.dropout(functional.relu(inner), threshold / 256)

    layers.Dropout.forward = lambda self, inputs: functional.dropout(inputs, self.threshold / 256, self.training)
    layers._ReluDrop = ReluThenDropout


def attention_products() -> None:
    """torch's scaled_dot_product_attention, with its own dropout."""
    attention.Attend._fused = lambda *_: True


def fused_loss() -> None:
    """All logits at once, and torch's cross-entropy."""

    def token_loss(head: TokenHead, hidden: Tensor, target: Padded, *, label_smoothing: float) -> LossSums:
        labels = target.data[target.mask]
        logits = head(hidden)[target.mask]  # (M, V)
        loss = functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing, reduction="sum")
        with torch.no_grad():
            nll = functional.cross_entropy(logits.float(), labels, reduction="sum")
            correct = (logits.argmax(1) == labels).sum()
        return LossSums(loss, nll, len(labels), correct)

    objective.token_loss = token_loss


def few_sizes() -> None:
    """torch's linear layers under autocast, in the sizes that batches happen to have."""
    products.compiles_sizes = layers.compiles_sizes = lambda _: False


def allocator() -> None:
    """glibc's allocator as it comes."""
    setup.tune_allocator = lambda: "as it comes"


def eager() -> None:
    """What is not compiled: with torch.compile, layer by layer, for batches of any size, without loops, products and dropout of ours, which
    it cannot see into."""
    dropout()
    few_sizes()
    build = trainer.build_model

    def build_compiled(*words: object) -> Seq2Seq:
        model = build(*words)
        for layer in (*model.encoder.layers, *model.decoder.stack.layers):
            layer.compile(dynamic=True)
        return model

    trainer.build_model = build_compiled


WITHOUT: dict[str, Callable[[], None]] = {
    "loops": loops,
    "dropout": dropout,
    "attention": attention_products,
    "loss": fused_loss,
    "sizes": few_sizes,
    "allocator": allocator,
    "eager": eager,
}
