"""From hidden states to what is predicted. A token head gives logits over the target vocabulary.

The training loss reads `project` and `weight`/`bias` instead of calling the head, so that it can compute logits in chunks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from transduce.errors import ConfigError
from transduce.model.products import Linear


@dataclass(frozen=True)
class Asked:
    """What is to be known of the next token: the `count` best ones but for those `excluded` (X,), and how likely the `end` is."""

    count: int
    excluded: Tensor
    end: int


@dataclass(frozen=True)
class Best:
    """Of each row the best log-probabilities (N, k), best first, their tokens (N, k), and that of the end (N,)."""

    values: Tensor
    tokens: Tensor
    ends: Tensor

    @staticmethod
    def empty(rows: int, count: int) -> "Best":
        """Room for them."""
        return Best(torch.empty(rows, count), torch.empty(rows, count, dtype=torch.int64), torch.empty(rows))


class TokenHead(nn.Module):
    """Hidden states to logits. `weight` may be the embedding itself (tying: Press & Wolf 2017)."""

    def __init__(self, input_size: int, vocabulary_size: int, *, tied: nn.Parameter | None) -> None:
        super().__init__()
        size = input_size if tied is None else tied.shape[1]
        self.bridge: nn.Module = Linear(input_size, size, bias=False) if size != input_size else nn.Identity()
        self.weight = nn.Parameter(torch.randn(vocabulary_size, size) * size**-0.5) if tied is None else tied
        self.bias = nn.Parameter(torch.zeros(vocabulary_size))

    def project(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., E): what `weight` multiplies."""
        return self.bridge(hidden)  # type: ignore[no-any-return]

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V)."""
        return nn.functional.linear(self.project(hidden), self.weight, self.bias)

    def best(self, _hidden: Tensor, _asked: Asked) -> Best | None:
        """What is asked of hidden (N, D), from a head that finds it without logits (N, V); else None."""
        return None

    def narrowed(self, tokens: Tensor) -> "TokenHead":
        """The same layer for the tokens (V',) alone: (..., D) -> (..., V')."""
        return NarrowHead(self, tokens)


class NarrowHead(TokenHead):
    """A head for some tokens (V',) alone; its weights are a copy."""

    def __init__(self, head: TokenHead, tokens: Tensor) -> None:
        nn.Module.__init__(self)
        self.bridge = head.bridge
        self.weight, self.bias = (nn.Parameter(whole.detach()[tokens], requires_grad=False) for whole in (head.weight, head.bias))


def token_head(module: nn.Module) -> TokenHead:
    """The head of a model whose target is text. Raises ConfigError for any other."""
    match module:
        case TokenHead():
            return module
    raise ConfigError("the model's target is numbers, but this needs one that writes text")


class CTCHead(nn.Module):
    """The encoder's states to labels and the blank (Graves 2006), beside a decoder (Kim 2017). The blank is the vocabulary's padding."""

    def __init__(self, input_size: int, vocabulary_size: int, *, blank_id: int) -> None:
        super().__init__()
        self.blank_id = blank_id
        self.linear = Linear(input_size, vocabulary_size)
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def log_probabilities(self, states: Tensor) -> Tensor:
        """(B, S, D) -> (B, S, V) in float32."""
        return torch.log_softmax(self.linear(states).float(), dim=-1)


def expect_ctc(head: CTCHead | None) -> CTCHead:
    """The CTC layer of a model that must have one. Raises ConfigError where it has none."""
    if head is None:
        raise ConfigError("search.ctc_weight needs a model with a CTC layer: train one with model.ctc = true and train.loss.ctc_weight")
    return head
