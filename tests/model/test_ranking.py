"""A head that ranks by whole numbers, of 16 bits or of 8, tells what logits in float64 would."""

import math

import pytest
import torch
from torch import Tensor

from tests.model.test_int8 import DECODERS, model_with
from transduce.data.batch import Padded
from transduce.decode.options import SearchConfig
from transduce.decode.search import ModelScorer, search
from transduce.model import ranking
from transduce.model.blocked import has_blocks, has_ranking
from transduce.model.heads import Asked, Best, NarrowHead, TokenHead
from transduce.model.int8 import Int8TokenHead, int8_model
from transduce.model.ranking import RankingHead, ranking_model
from transduce.model.seq2seq import Seq2Seq
from transduce.model.whole import int16_matrix

pytestmark = pytest.mark.skipif(not has_ranking(), reason="needs numba and AVX512 VNNI, or one of AMD's processors")
ENOUGH = torch.tensor([0, 3])


def head(size: int, width: int, *, spread: float = 3.0) -> TokenHead:
    """Logits spread about so far."""
    torch.manual_seed(size)
    made = TokenHead(width, size, tied=None)
    torch.nn.init.normal_(made.weight, std=spread * width**-0.5)
    torch.nn.init.normal_(made.bias)
    return made


def best(head: TokenHead, hidden: Tensor, *, count: int = 3, excluded: Tensor = ENOUGH, bits: int = 16) -> Best:
    """What the head tells, the end being token 1."""
    if bits == 8 and not has_blocks(torch.int8):
        pytest.skip("needs one of AMD's processors")
    with torch.inference_mode():
        found = (RankingHead(head) if bits == 16 else Int8TokenHead(head)).best(hidden, Asked(count, excluded, 1))
    assert found is not None
    return found


def exact(head: TokenHead, hidden: Tensor) -> Tensor:
    """Log-probabilities in float64."""
    with torch.no_grad():
        return (hidden.double() @ head.weight.double().t() + head.bias.double()).log_softmax(-1)


@pytest.mark.parametrize(("size", "width"), [(7, 16), (48, 16), (49, 33), (1000, 64), (4001, 256)])
@pytest.mark.parametrize("rows", [1, 8, 19])
@pytest.mark.parametrize(("bits", "off"), [(16, 2e-5), (8, 4e-3)])
def test_it_ranks_as_exact_logits_do(size: int, width: int, rows: int, bits: int, off: float) -> None:
    made, hidden = head(size, width), torch.randn(rows, width, generator=torch.Generator().manual_seed(rows))
    found, wanted = best(made, hidden, bits=bits), exact(made, hidden)
    assert (found.ends.double() - wanted[:, 1]).abs().max() < off
    wanted[:, ENOUGH] = -math.inf
    values, tokens = wanted.topk(3)
    assert torch.equal(found.tokens, tokens)
    assert (found.values.double() - values).abs().max() < off


@pytest.mark.parametrize("bits", [16, 8])
def test_where_there_are_fewer_tokens_than_asked_for_the_rest_has_none(bits: int) -> None:
    found = best(head(7, 16), torch.randn(2, 16), count=7, bits=bits)
    assert found.values[:, :5].isfinite().all() and (found.values[:, 5:] == -math.inf).all()
    assert (found.tokens[:, 5:] == 0).all()


def test_a_shortlist_is_ranked_too_where_it_has_tokens_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    made, tokens = RankingHead(head(300, 64)), torch.arange(0, 300, 3)
    assert type(made.narrowed(tokens)) is NarrowHead
    monkeypatch.setattr(ranking, "FEWEST_ROUNDED", len(tokens))
    narrow, hidden = made.narrowed(tokens), torch.randn(5, 64, generator=torch.Generator().manual_seed(3))
    assert type(narrow) is RankingHead
    with torch.inference_mode():
        found = narrow.best(hidden, Asked(2, ENOUGH, 1))
    wanted = (hidden.double() @ made.weight[tokens].double().t() + made.bias[tokens].double()).log_softmax(-1).detach()
    wanted[:, ENOUGH] = -math.inf
    assert found is not None and torch.equal(found.tokens, wanted.topk(2).indices)


def test_whole_numbers_alone_would_not_do() -> None:
    """Tokens so alike that rounding mixes them up are told apart, though all that is unlikely is summed as whole numbers."""
    made, hidden = head(600, 64), torch.randn(40, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        made.weight[10:14] = made.weight[10] + 1e-5 * torch.randn(4, 64, generator=torch.Generator().manual_seed(2))
        made.bias[10:14] = 25.0
    wanted = exact(made, hidden)
    with torch.inference_mode():
        whole = int16_matrix(made.weight).multiply(hidden, made.bias)
    assert not torch.equal(whole[:, 10:14].argsort(), wanted[:, 10:14].argsort())
    for bits in (16, 8):
        assert torch.equal(best(made, hidden, count=2, bits=bits).tokens, wanted[:, 10:14].topk(2).indices + 10)


@pytest.mark.parametrize("width", [2, 1024])
@pytest.mark.parametrize("alone", [True, False])
def test_sums_do_not_overflow(width: int, alone: bool) -> None:
    """Not even of vectors with the same direction, or of one number alone."""
    made, hidden = head(100, width), torch.full((2, width), 1000.0)
    if alone:
        hidden[:, 1:] = 0
    with torch.no_grad():
        made.weight.zero_()
        made.weight[5:7] = hidden * torch.tensor([[1e-8], [-1e-8]])
    found, wanted = best(made, hidden), exact(made, hidden)
    assert (found.ends.double() - wanted[:, 1]).abs().max() < 2e-5


@pytest.mark.parametrize("bits", [16, 8])
def test_what_is_no_number_has_no_best(bits: int) -> None:
    hidden = torch.zeros(3, 16)
    hidden[1, 4] = math.nan
    found = best(head(300, 16), hidden, bits=bits)
    assert found.values[1].isnan().all() and found.ends[1].isnan()
    assert found.values[[0, 2]].isfinite().all() and found.ends[[0, 2]].isfinite().all()


@pytest.mark.parametrize("beam_size", [1, 4])
@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: str(decoder["kind"]))
def test_search_asks_it_and_finds_the_same(decoder: dict[str, object], beam_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_with(decoder)
    expect_same_search(ranking_model(model), model, beam_size=beam_size, off=1e-4, monkeypatch=monkeypatch)


@pytest.mark.skipif(not has_blocks(torch.int8), reason="needs numba and one of AMD's processors with AVX512 VNNI")
@pytest.mark.parametrize("beam_size", [1, 4])
@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: str(decoder["kind"]))
def test_an_int8_head_ranks_as_the_exact_one_does(decoder: dict[str, object], beam_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_with(decoder)
    rounded, exact_head = int8_model(model), int8_model(model)
    exact_head.head = model.head
    expect_same_search(rounded, exact_head, beam_size=beam_size, off=1e-2, monkeypatch=monkeypatch)


def expect_same_search(ranks: Seq2Seq, model: Seq2Seq, *, beam_size: int, off: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one's head is asked, and its answers are the second one's."""
    source, calls, kind = Padded(torch.tensor([[5, 9, 14, 2], [7, 2, 0, 0]]), torch.tensor([4, 2])), [], type(ranks.head)
    assert isinstance(ranks.head, TokenHead)
    own = kind.best

    def counted(head: TokenHead, hidden: Tensor, asked: Asked) -> Best | None:
        calls.append(len(hidden))
        return own(head, hidden, asked)

    monkeypatch.setattr(kind, "best", counted)
    config = SearchConfig(beam_size=beam_size)
    found, wanted = (search(ModelScorer(one, source, max_length=24), config=config) for one in (ranks, model))
    for ours, theirs in zip(found, wanted, strict=True):
        assert [one.tokens for one in ours] == [one.tokens for one in theirs]
        assert ours[0].log_probability == pytest.approx(theirs[0].log_probability, abs=off)
    assert len(calls) > 2
