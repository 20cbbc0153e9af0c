"""Shallow fusion: what a fused scorer gives, in greedy and beam search, around one model, an ensemble and a joint CTC scorer."""

import itertools

import pytest
import torch
from test_ctc import forced, joint_model, sources
from toy_scorers import BOS, EOS, ToyScorer

from transduce.decode.ctc import JointScorer
from transduce.decode.fusion import FusedScorer
from transduce.decode.options import SearchConfig
from transduce.decode.scorers import EnsembleScorer
from transduce.decode.search import search
from transduce.errors import ConfigError

SIZE, NAMES, WEIGHT = 7, [3, 8, 1], 0.7


def pair() -> tuple[ToyScorer, ToyScorer]:
    """A scorer of three sentences, and one that says the same whatever the sentence is."""
    return ToyScorer(NAMES, size=SIZE, end_bias=0.4), ToyScorer([1, 1, 1], size=SIZE, end_bias=0.2, order=1)


def by_hand(main: ToyScorer, language: ToyScorer, row: int, tokens: tuple[int, ...], *, ended: bool) -> list[float]:
    """log p + weight * log p_LM of each token, from the definitions."""
    parts = main.forced(main.names[row], tokens, ended=ended), language.forced(language.names[row], tokens, ended=ended)
    return [one + WEIGHT * other for one, other in zip(*parts, strict=True)]


@pytest.mark.parametrize("beam", [1, 4])
def test_scores_are_the_weighted_sum_of_both(beam: int) -> None:
    main, language = pair()
    config = SearchConfig(beam_size=beam, num_best=beam, length_penalty="none")
    for row, found in enumerate(search(FusedScorer(main, language, weight=WEIGHT), config=config)):
        for hypothesis in found:
            steps = by_hand(main, language, row, hypothesis.tokens, ended=not hypothesis.truncated)
            assert hypothesis.token_log_probabilities == pytest.approx(steps, abs=1e-4)
            assert hypothesis.score == pytest.approx(sum(steps), abs=1e-4)


def test_a_wide_beam_finds_the_best_of_the_sum() -> None:
    main, language = pair()
    config = SearchConfig(beam_size=90, max_length=3, early_stop="never", length_penalty="none")
    every = [output for length in range(4) for output in itertools.product(range(4, SIZE), repeat=length)]
    alone = search(main, config=config)
    changed = 0
    for row, (best,) in enumerate(search(FusedScorer(main, language, weight=WEIGHT), config=config)):
        scores = {output: sum(by_hand(main, language, row, output, ended=True)) for output in every}
        assert best.tokens == max(scores, key=scores.__getitem__)
        changed += best.tokens != alone[row][0].tokens
    assert changed, "the language model must have changed an answer for this test to say anything"


@pytest.mark.parametrize("beam", [1, 3])
def test_weight_0_is_no_fusion(beam: int) -> None:
    config = SearchConfig(beam_size=beam, num_best=beam)
    main, language = pair()
    plain, fused = (search(scorer, config=config) for scorer in (main, FusedScorer(main, language, weight=0.0)))
    for one, other in zip(plain, fused, strict=True):
        assert [hypothesis.tokens for hypothesis in one] == [hypothesis.tokens for hypothesis in other]
        assert [hypothesis.score for hypothesis in one] == pytest.approx([hypothesis.score for hypothesis in other], abs=1e-5)


def test_an_ensemble_is_averaged_before_it_is_fused() -> None:
    main, language = pair()
    second = ToyScorer([2, 2, 4], size=SIZE)
    scorer = FusedScorer(EnsembleScorer([main, second]), language, weight=WEIGHT)
    for row, (best,) in enumerate(search(scorer, config=SearchConfig(beam_size=3, length_penalty="none"))):
        ended = not best.truncated
        members = torch.tensor([part.forced(part.names[row], best.tokens, ended=ended) for part in (main, second)])
        mean = members.exp().mean(0).log()
        beside = torch.tensor(language.forced(1, best.tokens, ended=ended))
        assert best.token_log_probabilities == pytest.approx((mean + WEIGHT * beside).tolist(), abs=1e-4)


def test_it_joins_with_ctc() -> None:
    """((1 - c) decoder + c CTC) + weight * language model, of every token that the search writes."""
    joint = JointScorer(joint_model(), sources(), weight=0.4, candidates=64)
    language = ToyScorer([5] * 4, size=9, order=1, max_length=20)
    config = SearchConfig(beam_size=4, num_best=4, max_length=6, ctc_weight=0.4, length_penalty="none")
    for row, found in enumerate(search(FusedScorer(joint, language, weight=WEIGHT), config=config)):
        for hypothesis in found:
            ended = not hypothesis.truncated
            parts = forced(joint, row, hypothesis.tokens, ended=ended), language.forced(5, hypothesis.tokens, ended=ended)
            steps = [one + WEIGHT * other for one, other in zip(*parts, strict=True)]
            assert hypothesis.token_log_probabilities == pytest.approx(steps, abs=1e-3)


def test_lengths_and_vocabulary_are_those_of_both() -> None:
    main, language = pair()
    language.max_length = 4
    fused = FusedScorer(main, language, weight=WEIGHT)
    assert fused.max_length == 4 and (fused.vocabulary.bos_id, fused.vocabulary.eos_id) == (BOS, EOS)
    with pytest.raises(ConfigError, match="the language model writes 9 tokens, the model 7"):
        FusedScorer(main, ToyScorer([5], size=9), weight=WEIGHT)
