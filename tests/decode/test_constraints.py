"""Constraints, forced prefixes and sampling."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from toy_scorers import UNK, ToyScorer

from transduce.decode.constraints import NoRepeatNgram, RepetitionPenalty
from transduce.decode.options import SamplingConfig, SearchConfig
from transduce.decode.sampling import sample_tokens, uniform_table
from transduce.decode.search import search

NAMES = list(range(10))


def looping(names: list[int]) -> ToyScorer:
    """Few words, long outputs: repeats are certain."""
    return ToyScorer(names, size=10, order=1, max_length=20, end_bias=-5.0)


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_twice(beam: int, size: int) -> None:
    def repeats(tokens: tuple[int, ...]) -> bool:
        grams = [tokens[start : start + size] for start in range(len(tokens) - size + 1)]
        return len(set(grams)) < len(grams)

    free = search(looping(NAMES), config=SearchConfig(beam_size=beam))
    held = search(looping(NAMES), config=SearchConfig(beam_size=beam, no_repeat_ngram=size))
    assert any(repeats(one[0].tokens) for one in free)
    assert not any(repeats(one[0].tokens) for one in held)


def test_no_repeat_forbids_exactly_the_closing_token() -> None:
    scores = torch.zeros((1, 2, 8))
    so_far = torch.tensor([[[4, 5, 6, 4, 5], [4, 5, 6, 7, 6]]])
    NoRepeatNgram(3).apply(scores, so_far, torch.tensor([0]))
    assert scores.isneginf().nonzero().tolist() == [[0, 0, 6]]


def test_repetition_penalty() -> None:
    scores = torch.full((1, 1, 8), -2.0)
    RepetitionPenalty(1.5).apply(scores, torch.tensor([[[4, 6, 4]]]), torch.tensor([0]))
    assert scores[0, 0].tolist() == [-2, -2, -2, -2, -3, -2, -3, -2]
    for beam in (1, 4):
        plain = search(looping(NAMES), config=SearchConfig(beam_size=beam))
        scorer = looping(NAMES)
        varied = search(scorer, config=SearchConfig(beam_size=beam, repetition_penalty=3.0))
        distinct = [sum(len(set(one[0].tokens)) for one in found) for found in (plain, varied)]
        assert distinct[1] > distinct[0]
        for name, (best,) in zip(NAMES, varied, strict=True):
            forced = scorer.forced(name, best.tokens, ended=not best.truncated)
            assert best.token_log_probabilities == pytest.approx(forced, abs=1e-4), "probabilities stay the model's own"


@pytest.mark.parametrize(
    "config",
    [SearchConfig(beam_size=1), SearchConfig(beam_size=4, no_repeat_ngram=1, min_length=1), SearchConfig(sampling=SamplingConfig())],
)
def test_forced_prefix(config: SearchConfig) -> None:
    prefixes = [[5, 5, 6], [], [7], [8, 8]]
    scorer = ToyScorer([0, 1, 2, 3], size=12, end_bias=0.5)
    found = search(scorer, config=config, prefixes=prefixes)
    for name, (prefix, (best,)) in enumerate(zip(prefixes, found, strict=True)):
        assert list(best.tokens[: len(prefix)]) == prefix
        assert best.token_log_probabilities == pytest.approx(scorer.forced(name, best.tokens, ended=not best.truncated), abs=1e-4)
    free = search(ToyScorer([1], size=12, end_bias=0.5), config=config, keys=[1])
    assert found[1] == free[0] or found[1][0].score == pytest.approx(free[0][0].score, abs=1e-5)


def test_prefix_is_not_cut_by_the_length_settings() -> None:
    found = search(ToyScorer([0, 1], size=12), config=SearchConfig(max_length=1), prefixes=[[5, 6, 7], []])
    assert found[0][0].tokens == (5, 6, 7)
    assert len(found[1][0].tokens) <= 1


def test_unknown_only_when_allowed() -> None:
    class Unsure(ToyScorer):
        def logits(self, name: int, fed: Sequence[int]) -> torch.Tensor:
            logits = super().logits(name, fed)
            logits[UNK] += 20 * (len(fed) == 1)
            return logits

    for beam in (1, 3):
        assert all(UNK not in one[0].tokens for one in search(Unsure(NAMES, size=12), config=SearchConfig(beam_size=beam)))
        assert all(UNK in one[0].tokens for one in search(Unsure(NAMES, size=12), config=SearchConfig(beam_size=beam, allow_unknown=True)))


def test_sampling_filters() -> None:
    logs = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log().expand(4000, 4)
    uniform = uniform_table(3, np.arange(4000, dtype=np.uint64), samples=1, steps=1)[:, 0]

    def shares(**settings: float) -> list[float]:
        drawn = sample_tokens(logs, uniform, SamplingConfig(**settings))
        return (torch.bincount(drawn, minlength=4) / 4000).tolist()

    assert shares() == pytest.approx([0.5, 0.25, 0.15, 0.1], abs=0.03)
    assert shares(temperature=0.5) == pytest.approx([0.725, 0.181, 0.065, 0.029], abs=0.03)
    assert shares(top_k=2) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=0.03)
    assert shares(top_p=0.8) == pytest.approx([0.556, 0.278, 0.167, 0], abs=0.03)
    assert shares(top_p=0.5)[0] == 1
    assert shares(min_p=0.4) == pytest.approx([2 / 3, 1 / 3, 0, 0], abs=0.03)
    assert shares(temperature=0.01)[0] == 1


def test_samples_follow_seed_and_sentence_only() -> None:
    def run(seed: int) -> list[list[tuple[int, ...]]]:
        config = SearchConfig(num_best=4, sampling=SamplingConfig(seed=seed))
        found = search(ToyScorer([5, 6, 5], size=30, end_bias=0.5), config=config, keys=[50, 60, 50])
        return [[hypothesis.tokens for hypothesis in one] for one in found]

    first = run(1)
    assert first == run(1) and first != run(2)
    assert first[0] == first[2] and len(set(first[0])) > 1


def test_uniform_numbers_look_uniform() -> None:
    table = uniform_table(7, np.arange(300, dtype=np.uint64), samples=2, steps=50)
    assert table.shape == (600, 50)
    assert float(table.min()) >= 0 and float(table.max()) < 1
    assert float(table.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(table.var()) == pytest.approx(1 / 12, abs=0.002)
    assert torch.corrcoef(table.T).fill_diagonal_(0).abs().max() < 0.2
