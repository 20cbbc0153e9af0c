"""Searches of several batches at once: answers, order and errors are those of one after the other."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from transduce.data.batch import Padded
from transduce.decode import together
from transduce.decode.scorers import ModelScorer, Request
from transduce.decode.search import SearchConfig, search, search_steps
from transduce.decode.shortlist import ShortlistScorer
from transduce.decode.together import Search, search_together
from transduce.errors import DivergedError
from transduce.model import fused
from transduce.model.frontends import Vocabulary
from transduce.model.search_transformer import with_loops
from transduce.model.seq2seq import ModelConfig, Seq2Seq, build_model

WORDS = Vocabulary(90, 0, 1, 2, 3)
SIZES = (5, 9, 3, 4)
"""Sentences of each batch."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the processes of a search."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model() -> Seq2Seq:
    """Random weights; the end is made likely, or all outputs would be as long as they may."""
    if fused.kernels() is None:
        pytest.skip("numba is not installed")
    torch.manual_seed(0)
    part = {"kind": "transformer", "layers": 2, "width": 32, "heads": 2, "feed_forward": 64}
    model = build_model(ModelConfig.model_validate({"encoder": part, "decoder": part, "embedding_size": 32, "tie": "none"}), WORDS, WORDS)
    with torch.no_grad():
        model.head.weight.mul_(12)
        model.head.bias[WORDS.eos_id] = 4
    return with_loops(model.eval())


def scorers(model: Seq2Seq) -> list[ModelScorer]:
    """One for each batch; sentences have 1 to 12 tokens."""
    made, generator = [], torch.Generator().manual_seed(3)
    for size in SIZES:
        lengths = torch.randint(1, 13, (size,), generator=generator)
        made.append(ModelScorer(model, Padded(torch.randint(4, 90, (size, 12), generator=generator), lengths), max_length=24))
    return made


def in_turn(all_scorers: list[ModelScorer], config: SearchConfig, **settings: Any) -> list[tuple[int, list[Any]]]:
    """All searched together, a hypothesis being such a share of a full batch."""
    steps = [search_steps(scorer, config=config) for scorer in all_scorers]
    return list(search_together(Search(number, one, **settings) for number, one in enumerate(steps)))


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many searches each step was for."""
    made: list[int] = []
    own = together.step_each

    def counted(requests: list[Request[Any]]) -> list[tuple[Tensor, Any]]:
        made.append(len(requests))
        return own(requests)

    monkeypatch.setattr(together, "step_each", counted)
    return made


@pytest.mark.parametrize("config", [SearchConfig(beam_size=1), SearchConfig(beam_size=3, num_best=2)], ids=["greedy", "beam"])
def test_batches_that_share_steps_find_what_each_finds_alone(model: Seq2Seq, config: SearchConfig, steps: list[int]) -> None:
    alone = [search(scorer, config=config) for scorer in scorers(model)]
    apart = len(steps)
    found = dict(in_turn(scorers(model), config, row_share=0.01))
    assert [tokens(found[number]) for number in range(len(SIZES))] == [tokens(batch) for batch in alone]
    for ours, exact in zip(scores(found[1]), scores(alone[1]), strict=True):
        assert ours == pytest.approx(exact, abs=1e-4)
    assert max(steps) > 1 and len(steps) - apart < apart / 2, "the batches had no steps in common"
    assert len({len(path.tokens) for batch in alone for paths in batch for path in paths}) > 3, "outputs of one length would test little"


def tokens(batch: list[Any]) -> list[list[tuple[int, ...]]]:
    return [[path.tokens for path in paths] for paths in batch]


def scores(batch: list[Any]) -> list[float]:
    return [path.score for paths in batch for path in paths]


def test_batches_with_shortlists_of_their_own_share_steps(model: Seq2Seq, steps: list[int]) -> None:
    config, lists = SearchConfig(beam_size=1), [torch.arange(60), torch.cat([torch.arange(10), torch.arange(40, 90)]), torch.arange(90)]
    generator = torch.Generator().manual_seed(1)
    sources = [Padded(torch.randint(4, 90, (size, 7), generator=generator), torch.full((size,), 7)) for size in (4, 5, 6)]

    def made() -> list[ModelScorer]:
        return [ShortlistScorer(model, source, few, max_length=24) for source, few in zip(sources, lists, strict=True)]

    alone = [search(scorer, config=config) for scorer in made()]
    del steps[:]
    assert [tokens(batch) for _, batch in sorted(in_turn(made(), config, row_share=0.01))] == [tokens(batch) for batch in alone]
    assert max(steps) > 1


def test_a_batch_begins_when_few_hypotheses_and_half_of_a_full_one_are_left(
    model: Seq2Seq, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SearchConfig(beam_size=3)
    in_turn(scorers(model), config, row_share=0.5)  # one hypothesis takes that much: never two batches at once
    monkeypatch.setattr(together, "FEWEST_ROWS", 1)
    in_turn(scorers(model), config, row_share=0.01)
    assert max(steps) == 1


def test_models_that_cannot_share_steps_are_searched_in_turn(model: Seq2Seq, steps: list[int]) -> None:
    torch.set_num_threads(2)
    found = in_turn(scorers(model), SearchConfig(beam_size=3), row_share=0.01)
    assert max(steps) == 1 and [number for number, _ in found] == [0, 1, 2, 3]


def test_what_is_found_at_once_is_given_before_the_next_begins() -> None:
    begun: list[int] = []

    def at_once(number: int) -> Iterator[Any]:
        begun.append(number)
        return []
        yield

    found = search_together(Search(number, at_once(number)) for number in range(3))
    assert [(next(found)[0], len(begun)) for _ in range(3)] == [(0, 1), (1, 2), (2, 3)]
    assert not list(found)


def test_an_error_of_one_search_is_raised(model: Seq2Seq) -> None:
    with torch.no_grad():
        model.head.weight[7] = float("nan")
    with pytest.raises(DivergedError):
        in_turn(scorers(model), SearchConfig(beam_size=2), row_share=0.01)
