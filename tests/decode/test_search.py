"""Search on scorers whose every answer is known."""

import math
from collections.abc import Iterator

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from toy_scorers import BOS, EOS, PAD, UNK, ToyScorer, naive_greedy

from transduce.decode import candidates
from transduce.decode.candidates import best_candidates, best_tokens, log_probabilities
from transduce.decode.hypotheses import Hypothesis
from transduce.decode.length import length_divisor
from transduce.decode.options import SamplingConfig, SearchConfig
from transduce.decode.scorers import EnsembleScorer
from transduce.decode.search import search
from transduce.errors import ConfigError, DivergedError
from transduce.model import fused
from transduce.model.heads import Asked, Best

STOPS = ("first", "full", "likely", "best", "never")


@pytest.mark.parametrize("size", [5, 60, 257, 512, 1000])
@pytest.mark.parametrize("width", [1, 3])
def test_two_stage_selection_is_topk(size: int, width: int) -> None:
    generator = torch.Generator().manual_seed(size)
    scores = torch.randn((4, width, size), generator=generator)
    scores[:, 0, :3] = float("-inf")
    totals = torch.randn((4, width), generator=generator)
    for count in (1, 4, width * size):
        values, indices = best_candidates(scores, totals, count, columns=torch.arange(64))
        expected = (scores + totals[:, :, None]).view(4, -1).topk(count)
        assert torch.equal(values, expected.values)
        assert torch.equal((scores + totals[:, :, None]).view(4, -1).gather(1, indices), expected.values)
        assert all(len(set(row)) == count for row in indices.tolist())


@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("size", [60, 1000, 1024])
def test_best_token_is_the_maximum(rows: int, size: int) -> None:
    scores = torch.randn((rows, size), generator=torch.Generator().manual_seed(size))
    values, tokens = best_tokens(scores, torch.arange(64))
    assert torch.equal(values, scores.amax(1)) and torch.equal(tokens, scores.argmax(1))


def test_log_softmax_in_place_is_exact() -> None:
    logits = torch.randn((7, 801), generator=torch.Generator().manual_seed(0)) * 8
    expected = logits.double().log_softmax(-1)
    assert (log_probabilities(logits, False).double() - expected).abs().max() < 1e-5


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """One thread, as in the processes of a search; the rows of each call of the loop."""
    if fused.kernels() is None:
        pytest.skip("numba is not installed")
    calls, own, before = [], candidates.best_of_each, torch.get_num_threads()

    def counted(scores: Tensor | Best, asked: Asked | None) -> Best | None:
        found = own(scores, asked)
        calls.extend([] if found is None else [len(found.values)])
        return found

    monkeypatch.setattr("transduce.decode.beam.best_of_each", counted)
    monkeypatch.setattr("transduce.decode.paths.best_of_each", counted)
    torch.set_num_threads(1)
    yield calls
    torch.set_num_threads(before)


@pytest.mark.parametrize("size", [7, 60, 128, 257, 1000])
@pytest.mark.parametrize("excluded", [[0, 1], [0, 1, EOS]])
@pytest.mark.usefixtures("loops")
def test_a_loop_ranks_as_torch_does(size: int, excluded: list[int]) -> None:
    logits = 4 * torch.randn((9, size), generator=torch.Generator().manual_seed(size))
    logits[3, 5:] = -math.inf
    exact = logits.log_softmax(-1)
    with torch.inference_mode():
        best = candidates.best_of_each(logits.clone(), Asked(3, torch.tensor(excluded), EOS))
    assert best is not None
    torch.testing.assert_close(best.ends, exact[:, EOS].clone())
    exact[:, excluded] = -math.inf
    wanted = exact.topk(3)
    torch.testing.assert_close(best.values, wanted.values)
    finite = wanted.values > -math.inf
    assert torch.equal(best.tokens[finite], wanted.indices[finite])


@pytest.mark.usefixtures("loops")
def test_a_loop_gives_nothing_for_what_is_no_number() -> None:
    logits = torch.zeros(2, 300)
    logits[1, 260] = math.nan
    with torch.inference_mode():
        best = candidates.best_of_each(logits, Asked(2, torch.tensor([0]), EOS))
    assert best is not None
    assert best.values[0].isfinite().all() and best.ends[0].isfinite() and best.values[1].isnan().all() and best.ends[1].isnan()


@pytest.mark.parametrize(
    "config", [SearchConfig(beam_size=1), SearchConfig(beam_size=4), SearchConfig(beam_size=4, num_best=4, early_stop="full")]
)
def test_searches_by_loop_find_what_others_find(loops: list[int], config: SearchConfig) -> None:
    scorer = ToyScorer([0, 1, 2, 3], size=200, end_bias=1.0)
    found = search(scorer, config=config)
    assert len(loops) > 2
    torch.set_num_threads(2)
    wanted = search(scorer, config=config)
    for ours, exact in zip(found, wanted, strict=True):
        assert [path.tokens for path in ours] == [path.tokens for path in exact]
        for one, other in zip(ours, exact, strict=True):
            assert one.token_log_probabilities == pytest.approx(other.token_log_probabilities, abs=1e-5)


def test_what_re_ranks_goes_the_general_way(loops: list[int]) -> None:
    scorer = ToyScorer([0, 1], size=60)
    search(scorer, config=SearchConfig(beam_size=3, min_length=2))
    search(scorer, config=SearchConfig(sampling=SamplingConfig(seed=1)))
    search(scorer, config=SearchConfig(beam_size=1), prefixes=[[7], [8]])
    assert not loops


@pytest.mark.parametrize("size", [5, 9, 300])
def test_greedy_is_the_naive_loop(size: int) -> None:
    names = list(range(12))
    scorer = ToyScorer(names, size=size, end_bias=0.3)
    results = search(scorer, config=SearchConfig(beam_size=1))
    for name, (best,) in zip(names, results, strict=True):
        assert (best.tokens, best.truncated) == naive_greedy(scorer, name, 7)
        assert best.token_log_probabilities == pytest.approx(scorer.forced(name, best.tokens, ended=not best.truncated), abs=1e-4)


@pytest.mark.parametrize("stop", ["best", "never"])
@pytest.mark.parametrize("penalty", ["none", "wu", "average"])
def test_a_wide_beam_finds_the_exact_best(stop: str, penalty: str) -> None:
    """5 words, at most 3 tokens: 156 outputs, all of which fit into the beam."""
    names = [3, 4, 5]
    scorer = ToyScorer(names, size=9, order=4, max_length=4)
    config = SearchConfig(beam_size=200, num_best=4, early_stop=stop, length_penalty=penalty, alpha=0.8)
    for name, found in zip(names, search(scorer, config=config), strict=True):
        exact = [(total / length_divisor(config, len(output) + 1), total, output) for total, output in scorer.exact(name, 3)]
        exact.sort(reverse=True)
        assert [hypothesis.tokens for hypothesis in found] == [output for _, _, output in exact[:4]]
        assert [hypothesis.score for hypothesis in found] == pytest.approx([score for score, _, _ in exact[:4]], abs=1e-4)
        assert [hypothesis.log_probability for hypothesis in found] == pytest.approx([total for _, total, _ in exact[:4]], abs=1e-4)


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("width", [2, 3, 7])
def test_scores_are_those_of_the_output(stop: str, width: int) -> None:
    names = list(range(20))
    scorer = ToyScorer(names, size=90, end_bias=0.6, max_length=10)
    config = SearchConfig(beam_size=width, num_best=width, early_stop=stop)
    for name, found in zip(names, search(scorer, config=config), strict=True):
        assert 1 <= len(found) <= width
        assert len({(hypothesis.tokens, hypothesis.truncated) for hypothesis in found}) == len(found)
        for hypothesis in found:
            forced = scorer.forced(name, hypothesis.tokens, ended=not hypothesis.truncated)
            assert hypothesis.token_log_probabilities == pytest.approx(forced, abs=1e-4)
            assert hypothesis.score == pytest.approx(sum(forced) / length_divisor(config, len(forced)), abs=1e-4)
            assert not {PAD, BOS, EOS, UNK} & set(hypothesis.tokens)
        ranks = [(hypothesis.truncated, -hypothesis.score) for hypothesis in found]
        assert ranks == sorted(ranks)


@pytest.mark.parametrize(
    "config",
    [
        SearchConfig(beam_size=1),
        SearchConfig(beam_size=4, num_best=3),
        SearchConfig(beam_size=3, no_repeat_ngram=2, repetition_penalty=1.3, min_length=2),
        SearchConfig(num_best=3, sampling=SamplingConfig(top_k=20)),
    ],
)
def test_company_and_order_do_not_matter(config: SearchConfig) -> None:
    names = list(range(15))

    def run(some: list[int]) -> list[list[tuple[tuple[int, ...], float]]]:
        found = search(ToyScorer(some, size=40, end_bias=0.5), config=config, keys=some)
        return [[(hypothesis.tokens, round(hypothesis.score, 4)) for hypothesis in one] for one in found]

    together = run(names)
    assert [run([name])[0] for name in names] == together
    assert run(names[::-1])[::-1] == together


def test_finished_sentences_leave_the_batch() -> None:
    scorer = ToyScorer(list(range(16)), size=40, end_bias=0.8, max_length=30)
    results = search(scorer, config=SearchConfig(beam_size=4, max_length=29, early_stop="first"))
    lengths = sorted(len(found[0].tokens) for found in results)
    assert lengths[0] < lengths[-1]
    assert scorer.rows < 0.9 * scorer.steps * 16 * 4
    greedy = ToyScorer(list(range(16)), size=40, end_bias=0.5, max_length=30)
    ends = [len(found[0].tokens) + 1 for found in search(greedy, config=SearchConfig(beam_size=1))]
    assert greedy.steps == max(ends)
    assert greedy.rows <= sum(ends) + greedy.steps * 2  # never more than an eighth of the batch is dead weight


@pytest.mark.parametrize("penalty", ["none", "wu", "average"])
def test_full_is_the_best_of_the_first_beam_size_to_finish(penalty: str) -> None:
    names = list(range(20))

    def run(stop: str, num_best: int) -> list[list[Hypothesis]]:
        config = SearchConfig(beam_size=5, num_best=num_best, early_stop=stop, length_penalty=penalty, alpha=2.0)
        return search(ToyScorer(names, size=60, end_bias=0.4, max_length=30), config=config)

    first = run("first", 5)
    assert run("full", 1) == [found[:1] for found in first]
    assert run("full", 3) == [found[:3] for found in first]
    assert run("first", 1) != run("full", 1)


def test_first_stops_earliest_and_best_never_loses_to_likely() -> None:
    names = list(range(20))
    scores, steps = {}, {}
    for stop in STOPS:
        scorer = ToyScorer(names, size=60, end_bias=0.4, max_length=12)
        found = search(scorer, config=SearchConfig(beam_size=5, early_stop=stop))
        scores[stop], steps[stop] = [one[0].score for one in found], scorer.rows
    assert steps["first"] <= steps["likely"] <= steps["best"] <= steps["never"]
    assert steps["first"] <= steps["full"] <= steps["never"]
    assert scores["best"] == pytest.approx(scores["never"], abs=1e-6)
    assert all(sure >= guess - 1e-6 for sure, guess in zip(scores["best"], scores["likely"], strict=True))


@pytest.mark.parametrize("beam", [1, 4])
def test_length_limits(beam: int) -> None:
    names = list(range(8))

    def run(**settings: object) -> list[tuple[int, bool]]:
        found = search(ToyScorer(names, size=30, end_bias=0.5, max_length=12), config=SearchConfig(beam_size=beam, **settings))
        return [(len(one[0].tokens), one[0].truncated) for one in found]

    assert all(length >= 4 for length, _ in run(min_length=4))
    assert all(length >= 6 for length, _ in run(min_length_ratio=2.0))
    assert all(length <= 1 for length, _ in run(max_length=1))
    assert all(length == 3 for length, cut in run(max_length=3) if cut)
    assert any(cut for _, cut in run(max_length=1)) and not all(cut for _, cut in run(max_length=11))
    assert all(length <= 4 for length, _ in run(max_length_ratio=1.0, max_length_margin=1))
    never_ends = ToyScorer(names, size=30, end_bias=-50.0, max_length=5)
    assert all((len(one[0].tokens), one[0].truncated) == (4, True) for one in search(never_ends, config=SearchConfig(beam_size=beam)))


@pytest.mark.parametrize("beam", [1, 5])
@pytest.mark.parametrize("size", [4, 5])
def test_tiny_vocabularies(beam: int, size: int) -> None:
    """No word or one word besides the special tokens, and a beam that is wider than the vocabulary."""
    found = search(ToyScorer([1, 2, 3], size=size), config=SearchConfig(beam_size=beam, num_best=beam))
    for one in found:
        assert one and all(set(hypothesis.tokens) <= {4} for hypothesis in one)
        assert len({hypothesis.tokens for hypothesis in one if not hypothesis.truncated}) == sum(
            not hypothesis.truncated for hypothesis in one
        )


class Forbid:
    """Forbids everything from some position on."""

    rescores = False

    def __init__(self, position: int, name: int) -> None:
        self.position, self.name = position, name

    def apply(self, scores: torch.Tensor, so_far: torch.Tensor, sentences: torch.Tensor) -> None:
        if so_far.shape[2] >= self.position:
            scores[sentences == self.name] = float("-inf")


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("position", [0, 2])
def test_a_dead_end_gives_what_there_was(beam: int, position: int) -> None:
    scorer = ToyScorer([0, 1, 2], size=30, end_bias=-3.0)
    free = search(scorer, config=SearchConfig(beam_size=beam))
    found = search(scorer, config=SearchConfig(beam_size=beam), constraints=[Forbid(position, 1)])
    assert len(found[1][0].tokens) == position and found[1][0].truncated
    for ours, exact in ((found[0], free[0]), (found[2], free[2])):
        assert [path.tokens for path in ours] == [path.tokens for path in exact]
        assert [path.score for path in ours] == pytest.approx([path.score for path in exact])


def test_numbers_that_are_no_numbers_are_an_error() -> None:
    class Broken(ToyScorer):
        def logits(self, name: int, fed: object) -> torch.Tensor:  # noqa: ARG002
            return torch.full((self.vocabulary.size,), float("nan"))

    for beam in (1, 3):
        with pytest.raises(DivergedError, match="NaN"):
            search(Broken([1], size=9), config=SearchConfig(beam_size=beam))


def test_ensemble_is_the_mean_of_probabilities() -> None:
    names = [1, 2, 3]
    members = [ToyScorer(names, size=9, order=order, max_length=4) for order in (1, 3)]
    found = search(EnsembleScorer(members), config=SearchConfig(beam_size=200, early_stop="never", length_penalty="none"))

    def mean(name: int, output: tuple[int, ...]) -> float:
        pairs = zip(*(member.forced(name, output) for member in members), strict=True)
        return sum(math.log(sum(math.exp(part) for part in parts) / 2) for parts in pairs)

    for name, (best,) in zip(names, found, strict=True):
        exact = max((mean(name, output), output) for _, output in members[0].exact(name, 3))
        assert best.tokens == exact[1]
        assert best.log_probability == pytest.approx(exact[0], abs=1e-4)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="num_best=3 needs a beam_size"):
        SearchConfig(beam_size=2, num_best=3)
    with pytest.raises(ValidationError, match="min_length=5 is above max_length=4"):
        SearchConfig(min_length=5, max_length=4)
    with pytest.raises(ConfigError, match="forced prefix has 8 tokens"):
        search(ToyScorer([1], size=9), config=SearchConfig(), prefixes=[[5] * 8])
