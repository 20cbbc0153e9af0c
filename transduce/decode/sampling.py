"""Random choices that depend on the sentence, not on its neighbours.

In: log-probabilities (N, V) and a table of uniform numbers made once per batch. Out: tokens (N,).
The decision to question: one uniform number per row and step, hashed from (seed, the sentence's key, the number of the
sample, the step), picks from the cumulated distribution. So no generator has a state that batch-mates could advance.
"""

import numpy as np
import torch
from torch import Tensor

from transduce.decode.options import SamplingConfig

MIX_ONE, MIX_TWO, GOLDEN = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB), np.uint64(0x9E3779B97F4A7C15)


def uniform_table(seed: int, keys: np.ndarray, *, samples: int, steps: int) -> Tensor:
    """keys: (B,) uint64, one per sentence -> (B * samples, steps) float64 in [0, 1)."""
    rows = mix(keys[:, None] ^ mix(np.arange(1, samples + 1, dtype=np.uint64) * GOLDEN + np.uint64(seed))[None, :]).reshape(-1)
    bits = mix(rows[:, None] + np.arange(1, steps + 1, dtype=np.uint64)[None, :] * GOLDEN)  # (B * samples, steps)
    return torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def mix(numbers: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele 2014): every input bit changes half of the output bits."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * MIX_ONE
    numbers = (numbers ^ (numbers >> np.uint64(27))) * MIX_TWO
    return np.asarray(numbers ^ (numbers >> np.uint64(31)), dtype=np.uint64)


def sample_tokens(log_probabilities: Tensor, uniform: Tensor, config: SamplingConfig) -> Tensor:
    """log_probabilities: (N, V), -inf = forbidden. uniform: (N,) -> tokens (N,) int64."""
    scores = log_probabilities / config.temperature
    order = None
    if config.top_k or config.top_p < 1:
        count = min(config.top_k or scores.shape[1], scores.shape[1])
        scores, order = scores.topk(count, dim=-1)  # (N, k), best first
    probabilities = scores.double().softmax(-1)
    if config.top_p < 1:
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= config.top_p, 0)
    if config.min_p:
        probabilities = probabilities.masked_fill(probabilities < config.min_p * probabilities.amax(-1, keepdim=True), 0)
    cumulated = probabilities.cumsum(-1)
    target = uniform[:, None].to(cumulated) * cumulated[:, -1:]
    chosen = torch.searchsorted(cumulated, target, right=True).clamp_max(scores.shape[1] - 1)  # (N, 1)
    return (chosen if order is None else order.gather(1, chosen))[:, 0]
