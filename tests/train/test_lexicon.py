"""Which token becomes which: learned from pairs whose dictionary is known."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import tiny_tree, write_pairs

from transduce.config import parse_config
from transduce.data.store import PairStore, RowArrays
from transduce.errors import ConfigError
from transduce.model.frontends import Vocabulary
from transduce.predict import Predictor
from transduce.train import lexicon
from transduce.train.checkpoint import average_models, load_model
from transduce.train.events import SilentProgress
from transduce.train.lexicon import best_translations, learn_shortlist
from transduce.train.loop import train

WORDS = 30
VOCABULARY = Vocabulary(4 + WORDS, 0, 1, 2, 3)


def rows(values: list[np.ndarray]) -> RowArrays:
    widths = np.array([len(value) for value in values], dtype=np.int32)
    data = np.concatenate([*values, np.zeros(0, dtype=np.int64)])
    return RowArrays(data, np.concatenate([[0], np.cumsum(widths)]).astype(np.int64), widths + 1)


def dictionary_store(pairs: int = 400) -> tuple[PairStore, np.ndarray]:
    """Sentences of four different words, each translated by `dictionary`, in any order, with a frequent word that translates nothing."""
    draw = np.random.default_rng(0)
    dictionary = 5 + draw.permutation(WORDS - 1)
    sources = [4 + draw.choice(WORDS - 1, 4, replace=False) for _ in range(pairs)]
    targets = [draw.permutation(np.append(dictionary[source - 4], 4)) for source in sources]
    return PairStore(rows(sources), rows(targets)), dictionary


def test_the_dictionary_of_the_pairs_is_found() -> None:
    store, dictionary = dictionary_store()
    found = learn_shortlist([store], VOCABULARY, VOCABULARY, shared=False)
    assert found.candidates[4 : 4 + WORDS - 1, 0].tolist() == dictionary.tolist()
    assert (found.candidates[:4] == -1).all()
    assert sorted(found.ranking[:4].tolist()) == [0, 1, 2, 3]
    assert found.ranking[4] == 4


def test_a_shared_vocabulary_lets_every_token_be_copied() -> None:
    store, _ = dictionary_store()
    found = learn_shortlist([store], VOCABULARY, VOCABULARY, shared=True)
    assert found.candidates[:, -1].tolist() == list(range(VOCABULARY.size))


def test_few_pairs_of_many_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    store, dictionary = dictionary_store(4000)
    monkeypatch.setattr(lexicon, "MOST_CELLS", 10_000)
    sources, _, frequencies = lexicon.sampled_pairs([store], VOCABULARY.size)
    assert len(sources) == 500
    assert frequencies[4] == 500
    found = learn_shortlist([store], VOCABULARY, VOCABULARY, shared=False)
    assert found.candidates[4 : 4 + WORDS - 1, 0].tolist() == dictionary.tolist()


def test_without_words_there_are_no_candidates() -> None:
    empty = [np.zeros(0, dtype=np.int64)] * 3
    assert (best_translations(empty, empty, sizes=(5, 6)) == -1).all()


class Told(SilentProgress):
    """Keeps what is said at the end."""

    def __init__(self) -> None:
        self.summary: dict[str, object] = {}

    def finish(self, summary: Mapping[str, object]) -> None:
        self.summary = dict(summary)


def test_training_writes_it_and_prediction_with_rounded_weights_keeps_to_it(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    tree = tiny_tree(tmp_path, "run", max_steps=4)
    tree["search"] = {"max_length": 8, "shortlist": True}
    told = Told()
    model = train(parse_config(tree), told)
    loaded = load_model(model)
    assert loaded.shortlist is not None
    assert str(told.summary["shortlist"]).startswith(f"of {len(loaded.shortlist.candidates)} source tokens, in ")
    exact, *rounded = (Predictor.load(model, precision=kind) for kind in ("fp32", "int8", "bf16"))
    assert exact.shortlist is None
    assert all(one.shortlist is not None for one in rounded)
    same = average_models([model, model], tmp_path / "mean", metrics={}).shortlist
    assert same is not None
    assert (load_model(tmp_path / "mean").shortlist.candidates == loaded.shortlist.candidates).all()  # type: ignore[union-attr]


def test_a_shortlist_needs_texts(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path, "run")
    tree["data"] = {**tree["data"], "source_codec": {"kind": "audio"}}  # type: ignore[dict-item]
    tree["search"] = {"shortlist": True}
    with pytest.raises(ConfigError, match=r"search\.shortlist needs texts at both ends"):
        parse_config(tree)
