"""The CTC part of the training loss (Graves 2006; beside attention: Kim 2017).

In: the encoder's memory and the target tokens. Out: summed nats and how many pairs had to be left out. Softmax and sums are float32.

The decision to question: a pair whose memory has fewer positions than its labels need (one each, and one between two equal neighbours) has
no path at all and an infinite loss. Such pairs are left out of this part, counted, and the count is shown; attention still learns them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from transduce.data.batch import Padded
from transduce.model.heads import CTCHead
from transduce.model.interface import Memory


@dataclass(frozen=True)
class CTCSums:
    """loss: scalar with gradient, nats summed over the pairs that have a path. unaligned: pairs that have none."""

    loss: Tensor
    unaligned: int


def ctc_loss(head: CTCHead, memory: Memory, target: Padded) -> CTCSums:
    """memory: (B, S, D), target: (B, T) ids that end in end-of-sequence, which is no label of CTC."""
    lengths, num_labels = memory.mask.sum(1), target.lengths - 1  # (B,)
    rows = (lengths >= positions_needed(target)).nonzero().squeeze(1)  # (B',)
    unaligned = len(lengths) - len(rows)
    if not len(rows):
        return CTCSums(memory.states.new_zeros((), dtype=torch.float32), unaligned)
    states, labels = memory.states, target.data
    if unaligned:
        states, labels, lengths, num_labels = (part[rows] for part in (states, labels, lengths, num_labels))
    logs = head.log_probabilities(states).transpose(0, 1)  # (S, B', V)
    with torch.autocast(states.device.type, enabled=False):
        loss = functional.ctc_loss(logs, labels, lengths, num_labels, blank=head.blank_id, reduction="sum")
    return CTCSums(loss, unaligned)


def positions_needed(target: Padded) -> Tensor:
    """(B,): labels, and a blank between each two equal neighbours."""
    positions = torch.arange(1, target.data.shape[1], device=target.data.device)
    equal = target.data[:, 1:] == target.data[:, :-1]  # (B, T - 1)
    return target.lengths - 1 + (equal & (positions[None, :] < target.lengths[:, None] - 1)).sum(1)
