"""Forced scoring: the log-probability that models give to targets that somebody else wrote.

In: models, sources, targets. Out: one log-probability per target token, its end included. Logits are made for a few hundred
positions at a time, so memory does not grow with the batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from transduce.data.batch import Batch, Padded
from transduce.model.seq2seq import Seq2Seq

CHUNK = 512  # positions whose logits are held at once: 512 x 8000 x 4 bytes = 16 MB


def forced_log_probabilities(models: Sequence[Seq2Seq], sources: Sequence[Padded], target: Padded) -> Tensor:
    """(B, T) log-probability of each target token, 0 at padding. sources: one reading of the batch per model; several models give
    the log of their mean probability, as `EnsembleScorer` does."""
    with torch.inference_mode():
        parts = [_one_model(model, source, target) for model, source in zip(models, sources, strict=True)]
        if len(parts) == 1:
            return parts[0]
        mean = torch.stack(parts).logsumexp(0) - torch.tensor(float(len(parts))).log().item()
        return torch.where(target.mask, mean, torch.zeros_like(mean))


def _one_model(model: Seq2Seq, source: Padded, target: Padded) -> Tensor:
    ids = torch.arange(len(target.lengths), device=target.data.device)
    hidden = model(Batch(ids, source, target))  # (B, T, D)
    mask = target.mask
    rows, tokens = hidden[mask], target.data[mask]  # (M, D), (M,)
    values = [
        model.head(part).float().log_softmax(-1).gather(1, wanted[:, None])[:, 0]
        for part, wanted in zip(torch.split(rows, CHUNK), torch.split(tokens, CHUNK), strict=True)
    ]
    result = torch.zeros(mask.shape, device=mask.device)
    result[mask] = torch.cat(values) if values else result[mask]
    return result
