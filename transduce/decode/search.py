"""One search engine for every architecture: it sees a scorer, never a model.

In: a scorer for a batch of sentences, settings, constraints. Out: hypotheses per sentence, best first.
Greedy search and sampling walk single paths (`paths.py`); everything else is beam search (`beam.py`).
"""

from collections.abc import Sequence

import numpy as np
import torch

from transduce.decode.beam import beam_search
from transduce.decode.candidates import BLOCK, Rules
from transduce.decode.constraints import Constraint, ForcedPrefix, MinimumLength, NoRepeatNgram, RepetitionPenalty
from transduce.decode.hypotheses import Hypothesis
from transduce.decode.length import LengthLimits, length_limits
from transduce.decode.options import SamplingConfig, SearchConfig
from transduce.decode.paths import walk
from transduce.decode.scorers import EnsembleScorer, ModelScorer, Scorer, StateT, Steps
from transduce.decode.together import Search, search_together
from transduce.errors import ConfigError

__all__ = [
    "EnsembleScorer",
    "Hypothesis",
    "ModelScorer",
    "SamplingConfig",
    "Scorer",
    "SearchConfig",
    "make_rules",
    "search",
    "search_steps",
]


def search(
    scorer: Scorer[StateT],
    *,
    config: SearchConfig,
    constraints: Sequence[Constraint] = (),
    prefixes: Sequence[Sequence[int]] | None = None,
    keys: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """Per sentence of the scorer 1 to num_best hypotheses, finished ones first, then by score.

    constraints: applied after those that the settings ask for. prefixes: token ids that each output must begin with.
    keys: one number in [0, 2**64) per sentence that its random draws depend on; without them, its place in the batch.
    Raises ConfigError for a prefix longer than the model allows.
    """
    steps = search_steps(scorer, config=config, constraints=constraints, prefixes=prefixes, keys=keys)
    ((_, found),) = search_together([Search(0, steps)])
    return found


def search_steps(
    scorer: Scorer[StateT],
    *,
    config: SearchConfig,
    constraints: Sequence[Constraint] = (),
    prefixes: Sequence[Sequence[int]] | None = None,
    keys: Sequence[int] | None = None,
) -> Steps[StateT]:
    """`search`, whose steps are somebody else's to compute."""
    rules = make_rules(scorer, config=config, constraints=constraints, prefixes=prefixes)
    if not len(rules.limits.maximum):
        return []
    if config.beam_size > 1 and config.sampling is None:
        return (yield from beam_search(scorer, rules))
    numbers = np.arange(len(rules.limits.maximum)) if keys is None else np.asarray(keys, dtype=np.uint64)
    return (yield from walk(scorer, rules, keys=numbers.astype(np.uint64)))


def make_rules(
    scorer: Scorer[StateT], *, config: SearchConfig, constraints: Sequence[Constraint] = (), prefixes: Sequence[Sequence[int]] | None = None
) -> Rules:
    """What stays the same during a search, from settings and the scorer's sentences."""
    vocabulary, device = scorer.vocabulary, scorer.source_lengths.device
    ceiling = scorer.max_length - 1
    prefix_lengths = [len(prefix) for prefix in prefixes or ()]
    if max(prefix_lengths, default=0) > ceiling:
        raise ConfigError(f"a forced prefix has {max(prefix_lengths)} tokens; the model's outputs have at most {ceiling}")
    limits = length_limits(config, scorer.source_lengths.cpu().numpy(), ceiling=ceiling, prefix_lengths=prefix_lengths)
    banned = {vocabulary.pad_id, vocabulary.bos_id} | (set() if config.allow_unknown else {vocabulary.unk_id})
    suppressed = torch.tensor(sorted(banned - {vocabulary.eos_id}), dtype=torch.int64, device=device)
    all_constraints = (*configured(config, limits, eos_id=vocabulary.eos_id, device=device), *constraints)
    prefix = ForcedPrefix(prefixes, device) if prefixes and any(prefix_lengths) else None
    by_all = scorer.normalised or all_constraints or prefix is not None or config.sampling is not None
    return Rules(
        config=config,
        limits=limits,
        constraints=all_constraints,
        prefix=prefix,
        suppressed=suppressed,
        columns=torch.arange(BLOCK, device=device),
        size=None if by_all else vocabulary.size,
        bos_id=vocabulary.bos_id,
        eos_id=vocabulary.eos_id,
    )


def configured(config: SearchConfig, limits: LengthLimits, *, eos_id: int, device: torch.device) -> list[Constraint]:
    """The constraints that the settings ask for; what re-weighs comes before what forbids."""
    parts: list[Constraint] = []
    if config.repetition_penalty != 1:
        parts.append(RepetitionPenalty(config.repetition_penalty))
    if config.no_repeat_ngram:
        parts.append(NoRepeatNgram(config.no_repeat_ngram))
    if limits.minimum.any():
        parts.append(MinimumLength(torch.from_numpy(limits.minimum).to(device), eos_id))
    return parts
