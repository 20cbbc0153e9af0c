"""A search over few target tokens: the scores are those of the whole head, the tokens those of the list."""

import numpy as np
import pytest
import torch

from transduce.data.batch import Padded
from transduce.data.text import CharactersConfig, fit_text_codec
from transduce.decode import shortlist
from transduce.decode.options import SearchConfig
from transduce.decode.scorers import ModelScorer
from transduce.decode.search import search
from transduce.decode.shortlist import MULTIPLE, Shortlist, ShortlistScorer
from transduce.model import int8 as int8_module
from transduce.model import ranking as ranking_module
from transduce.model.frontends import Vocabulary
from transduce.model.int8 import int8_model
from transduce.model.seq2seq import ModelConfig, Seq2Seq, build_model
from transduce.predict import Predictor

SIZE = 300
FREQUENT = 104
VOCABULARY = Vocabulary(SIZE, 0, 1, 2, 3)
TINY = {"layers": 1, "width": 64, "heads": 2, "feed_forward": 64}


def model(size: int = SIZE) -> Seq2Seq:
    torch.manual_seed(0)
    words = Vocabulary(size, 0, 1, 2, 3)
    config = {"encoder": {"kind": "transformer", **TINY}, "decoder": {"kind": "transformer", **TINY}, "embedding_size": 64}
    built = build_model(ModelConfig.model_validate(config), words, words).eval()
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if "layers" in name or "pasts" in name or "memory" in name:
                parameter.mul_(4)
    return built


@pytest.fixture(autouse=True)
def small_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists that leave out most of a tiny vocabulary."""
    monkeypatch.setattr(shortlist, "ALWAYS", FREQUENT)


def sources() -> Padded:
    return Padded(torch.tensor([[7, 8, 9, 2], [10, 11, 2, 0]]), torch.tensor([4, 3]))


def ranking() -> np.ndarray:
    return np.arange(SIZE, dtype=np.int32)


def test_a_list_holds_what_its_sources_may_become_and_has_few_sizes() -> None:
    candidates = np.full((SIZE, 2), -1, dtype=np.int32)
    candidates[5], candidates[6, 0] = (290, 280), 299
    tokens = Shortlist(candidates, ranking()).tokens([np.array([5]), np.array([6, 7])])
    assert {290, 280, 299, *range(FREQUENT)} <= set(tokens.tolist())
    assert len(tokens) == MULTIPLE
    assert tokens.tolist() == sorted(set(tokens.tolist()))
    everything = Shortlist(np.arange(SIZE, dtype=np.int32)[None], ranking()).tokens([np.array([0])])
    assert everything.tolist() == list(range(SIZE))


@pytest.mark.parametrize("int8", [False, True])
def test_scores_are_those_of_the_whole_head(int8: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for head in (int8_module, ranking_module):
        monkeypatch.setattr(head, "FEWEST_ROUNDED", 1)
    whole = int8_model(model()) if int8 else model()
    tokens = torch.tensor([0, 1, 2, 3, 20, 77, 123, 299])
    with torch.inference_mode():
        full, few = ModelScorer(whole, sources(), max_length=20), ShortlistScorer(whole, sources(), tokens, max_length=20)
        assert few.vocabulary == Vocabulary(8, 0, 1, 2, 3)
        before = full.start(), few.start()
        for place in (1, 6):
            rows = torch.full((2,), place)
            expected, state = full.step(tokens[rows], before[0])
            found, own = few.step(rows, before[1])
            torch.testing.assert_close(found, expected[:, tokens])
            before = state, own


@pytest.mark.parametrize("beam_size", [1, 3])
def test_search_gives_names_of_the_whole_vocabulary(beam_size: int) -> None:
    """With every token in the list, the same outputs; with few, only these."""
    whole, config = model(), SearchConfig(beam_size=beam_size, max_length=6)
    everything = ShortlistScorer(whole, sources(), torch.arange(SIZE), max_length=20)
    wanted = search(ModelScorer(whole, sources(), max_length=20), config=config)
    assert everything.named(search(everything, config=config)) == wanted
    tokens = torch.tensor([0, 1, 2, 3, 250, 260, 270])
    few = ShortlistScorer(whole, sources(), tokens, max_length=20)
    found = few.named(search(few, config=config))
    used = {token for row in found for token in row[0].tokens}
    assert used
    assert used <= set(tokens.tolist())
    assert used.isdisjoint({token for row in wanted for token in row[0].tokens})


def test_the_predictor_uses_it_where_nothing_else_is_asked() -> None:
    codec = fit_text_codec(CharactersConfig(), ["".join(map(chr, range(0x4E00, 0x4E00 + SIZE - 4)))], seed=0)
    size = codec.vocabulary.size
    predictor = Predictor([model(size)], codec, codec, search=SearchConfig(beam_size=1, max_length=5, shortlist=True))
    text, beam = codec.decode([9, 10, 11]), predictor.search.model_copy(update={"beam_size": 2})
    free, wide = predictor.predict([text])[0], predictor.predict([text], search=beam)[0]
    candidates = np.full((size, 1), -1, dtype=np.int32)
    banned = sorted({int(codec.encode(token)[0]) for token in free.tokens})
    kept = [token for token in range(size) if token not in banned]
    predictor.shortlist = Shortlist(candidates, np.array([*kept, *banned], dtype=np.int32))
    narrow = predictor.predict([text])[0]
    assert set(narrow.tokens).isdisjoint(free.tokens)
    assert predictor.predict([text], search=predictor.search.model_copy(update={"shortlist": False}))[0] == free
    assert predictor.predict([text], search=beam)[0] == wide
    forced = predictor.predict([text], prefixes=[free.tokens[0]])[0]
    assert forced.tokens[0] == free.tokens[0]
