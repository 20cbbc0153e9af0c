"""The Predictor: one typed answer per source, in order, whatever the batches were."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch

import transduce.predict as predict_module
from transduce.config import parse_config
from transduce.data.text import CharactersConfig, WordsConfig, fit_text_codec
from transduce.data.tokens import TextCodec
from transduce.decode.batches import plan_batches
from transduce.decode.options import SamplingConfig, SearchConfig
from transduce.engines import EngineChoice
from transduce.errors import CheckpointError, ConfigError, DataError
from transduce.model.recurrent import RecurrentEncoderConfig
from transduce.model.recurrent_decoder import RecurrentDecoderConfig
from transduce.model.seq2seq import ModelConfig, Seq2Seq, build_model
from transduce.model.transformer import TransformerDecoderConfig, TransformerEncoderConfig
from transduce.predict import Prediction, Predictor
from transduce.readings import LengthCeilings, Readings
from transduce.searcher import REHEARSED, Question, Searcher
from transduce.train.checkpoint import save_model

TEXTS = ["a b c", "", "d", "b b b a", "abcd dcba", "a b c", "c", "da da"]
SEARCH = SearchConfig(beam_size=3, num_best=2, max_length=9)

SMALL = ModelConfig(
    encoder=TransformerEncoderConfig(layers=1, width=16, heads=2, feed_forward=32),
    decoder=TransformerDecoderConfig(layers=1, width=16, heads=2, feed_forward=32),
    embedding_size=16,
)


def codec(texts: list[str]) -> TextCodec:
    return fit_text_codec(CharactersConfig(), texts, seed=0)


def network(source: TextCodec, target: TextCodec, *, recurrent: bool, seed: int = 0, attention: str = "additive") -> Seq2Seq:
    torch.manual_seed(seed)
    config = SMALL
    if recurrent:
        encoder = RecurrentEncoderConfig(kind="gru", width=16)
        config = ModelConfig(encoder=encoder, decoder=RecurrentDecoderConfig(kind="gru", width=16, attention=attention), embedding_size=16)
    model = build_model(config, source.vocabulary, target.vocabulary)
    with torch.no_grad():
        model.head.weight.mul_(3)
    return model


def predictor(*, recurrent: bool = False, **settings: object) -> Predictor:
    source, target = codec(["abcd "]), codec(["vwxyz"])
    return Predictor([network(source, target, recurrent=recurrent)], source, target, search=SEARCH, **settings)  # type: ignore[arg-type]


@pytest.fixture(params=[False, True], ids=["transformer", "gru"])
def ready(request: pytest.FixtureRequest) -> Predictor:
    return predictor(recurrent=request.param)


def essence(predictions: list[Prediction]) -> list[tuple[str, float]]:
    return [(entry.text, round(entry.score, 3)) for prediction in predictions for entry in prediction.alternatives]


def test_one_answer_per_source_in_order(ready: Predictor) -> None:
    steps: list[tuple[int, int]] = []
    found = ready.predict(TEXTS, on_progress=lambda done, total: steps.append((done, total)))
    assert len(found) == len(TEXTS)
    assert [prediction.flags for prediction in found] == [("empty_source",) if not text else () for text in TEXTS]
    assert found[0] == found[5]
    assert steps[-1] == (8, 8)
    for text, prediction in zip(TEXTS, found, strict=True):
        assert "".join(prediction.source_tokens).replace("▁", " ") == text or text
        assert len(prediction.tokens) == len(prediction.token_probabilities)
        assert all(0 < probability <= 1 for probability in prediction.token_probabilities)
        assert prediction.alternatives[0].text == prediction.text
        assert set(prediction.text) <= set("vwxyz")
    assert found[1].text == "" and not found[1].truncated and len(found[1].alternatives) == 1
    assert len(found[3].alternatives) == 2


def test_company_order_and_batch_size_do_not_matter(ready: Predictor) -> None:
    together = ready.predict(TEXTS)
    assert essence([ready.predict([text])[0] for text in TEXTS]) == essence(together)
    assert essence(ready.predict(TEXTS[::-1])[::-1]) == essence(together)
    assert essence(ready.predict(TEXTS, search=SEARCH.model_copy(update={"batch_tokens": 1}))) == essence(together)
    sampling = SearchConfig(num_best=2, max_length=9, sampling=SamplingConfig())
    drawn = ready.predict(TEXTS, search=sampling)
    assert essence([ready.predict([text], search=sampling)[0] for text in TEXTS]) == essence(drawn)
    assert drawn[0] == drawn[5]


def test_a_source_that_is_too_long(ready: Predictor) -> None:
    short = predictor(ceilings=LengthCeilings(source=6, target=20))
    texts = ["abcd", "abcda", "abcdab", "a"]
    found = short.predict(texts)
    assert [prediction.flags for prediction in found] == [(), (), ("source_too_long",), ()]
    assert found[2].text == "" and len(found[2].source_tokens) == 6
    assert essence(found[:2]) == essence(short.predict(texts[:2]))
    with pytest.raises(DataError, match=r"input:3: .*7 tokens.*takes 6") as caught:
        short.predict(texts, search=SEARCH.model_copy(update={"too_long": "refuse"}))
    assert caught.value.line == 3
    stream = short.predict_stream(iter(texts), search=SEARCH.model_copy(update={"too_long": "refuse"}), chunk_lines=2)
    assert [next(stream).flags, next(stream).flags] == [(), ()]
    with pytest.raises(DataError, match="input:3: "):
        next(stream)
    assert all(len(prediction.tokens) <= 19 for prediction in short.predict(texts, search=SearchConfig()))
    assert ready.predict(["abcdab"])[0].flags == ()


def test_unknown_characters_are_counted(ready: Predictor) -> None:
    (prediction,) = ready.predict(["a?b!"])
    assert prediction.flags == ("unknown_tokens",) and prediction.num_unknown == 2
    assert prediction.text == ready.predict(["a!b?"])[0].text


def test_attention_has_a_row_per_token_and_end() -> None:
    for recurrent in (False, True):
        for prediction, text in zip(predictor(recurrent=recurrent).predict(TEXTS, with_attention=True), TEXTS, strict=True):
            if not text:
                assert prediction.attention is None
                continue
            assert prediction.attention is not None
            assert prediction.attention.shape == (len(prediction.tokens) + 1, len(prediction.source_tokens) + 1)
            np.testing.assert_allclose(prediction.attention.sum(1), 1, atol=1e-5)
    source, target = codec(["abcd "]), codec(["vwxyz"])
    fixed = Predictor([network(source, target, recurrent=True, attention="none")], source, target, search=SEARCH)
    assert fixed.predict(["abc"], with_attention=True)[0].attention is None


def test_prefixes(ready: Predictor) -> None:
    found = ready.predict(["a b", "c", ""], prefixes=["zz", "", "v"])
    assert found[0].text.startswith("zz")
    assert essence(found[1:2]) == essence(ready.predict(["c"]))
    with pytest.raises(DataError, match=r"prefixes:2: .*does not know"):
        ready.predict(["a", "b"], prefixes=["z", "q"])
    with pytest.raises(DataError, match=r"prefixes:102: .*does not know"):
        ready.predict(["a", "b"], prefixes=["z", "q"], first_line=101)
    with pytest.raises(DataError, match="1 prefixes and 2 sources"):
        ready.predict(["a", "b"], prefixes=["z"])


def test_forced_scores_are_those_of_search(ready: Predictor) -> None:
    found = ready.predict(TEXTS, search=SearchConfig(beam_size=3, max_length=40, length_penalty="none"))
    scores = ready.score(TEXTS, [prediction.text for prediction in found])
    for text, prediction, forced in zip(TEXTS, found, scores, strict=True):
        if not text:
            assert np.isnan(forced.log_probability) and forced.flags == ("empty_source",)
            continue
        assert forced.tokens == prediction.tokens
        assert len(forced.token_log_probabilities) == len(forced.tokens) + 1
        np.testing.assert_allclose(np.exp(forced.token_log_probabilities[:-1]), prediction.token_probabilities, atol=1e-4)
        if not prediction.truncated:
            assert forced.log_probability == pytest.approx(prediction.log_probability, abs=1e-4)
    short = predictor(ceilings=LengthCeilings(source=6, target=4))
    flags = [score.flags for score in short.score(["abcdab", "a", "a"], ["v", "vvv", "vvvv"])]
    assert flags == [("source_too_long",), (), ("target_too_long",)]
    with pytest.raises(DataError, match="2 sources and 1 targets"):
        short.score(["a", "b"], ["v"])


def test_ensemble_members_may_read_the_source_differently() -> None:
    """Two models over characters and words; the ensemble's forced score is the mean of their probabilities."""
    letters, words, target = codec(["abcd "]), fit_text_codec(WordsConfig(), ["a b c d"], seed=0), codec(["vwxyz"])
    singles = [
        Predictor([network(letters, target, recurrent=True)], letters, target, search=SEARCH),
        Predictor([network(words, target, recurrent=False, seed=3)], words, target, search=SEARCH),
    ]
    both = Predictor([singles[0].members[0].model], letters, target, search=SEARCH)
    both.members = (singles[0].members[0], singles[1].members[0])
    assert [prediction.source_length for prediction in both.predict(["a b c", ""])] == [6, 1], "the longer reading, with its end"
    texts = ["a b c", "d", "b a"]
    found = both.predict(texts)
    parts = [single.score(texts, [prediction.text for prediction in found]) for single in singles]
    for prediction, one, other in zip(found, *parts, strict=True):
        mean = np.exp([one.token_log_probabilities, other.token_log_probabilities]).mean(0)[: len(prediction.tokens)]
        np.testing.assert_allclose(prediction.token_probabilities, mean, atol=1e-4)


def test_stretches_of_sources_change_no_answer(ready: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    prefixes = ["v" if number % 3 == 0 and text else "" for number, text in enumerate(TEXTS)]
    outputs = [prediction.text for prediction in ready.predict(TEXTS)]
    whole, forced = ready.predict(TEXTS, prefixes=prefixes), ready.score(TEXTS, outputs)
    monkeypatch.setattr("transduce.readings.HELD_BYTES", 20)
    assert len(list(ready.read(TEXTS))) > 3
    steps: list[tuple[int, int]] = []
    parts = ready.predict(TEXTS, prefixes=prefixes, on_progress=lambda done, total: steps.append((done, total)))
    assert essence(parts) == essence(whole) and [prediction.flags for prediction in parts] == [prediction.flags for prediction in whole]
    assert steps == sorted(steps) and steps[-1] == (8, 8)
    logs = [[score.log_probability for score in scores] for scores in (ready.score(TEXTS, outputs), forced)]
    np.testing.assert_allclose(*logs, atol=1e-5)
    short = predictor(ceilings=LengthCeilings(source=6, target=20))
    with pytest.raises(DataError, match="input:13: "):
        short.predict(["abcd", "abcda", "abcdab"], search=SEARCH.model_copy(update={"too_long": "refuse"}), first_line=11)


def test_stream_answers_as_lines_come(ready: Predictor) -> None:
    taken = 0

    def lines() -> Iterator[str]:
        nonlocal taken
        for text in TEXTS * 3:
            taken += 1
            yield text

    stream = ready.predict_stream(lines(), chunk_lines=5)
    first = next(stream)
    assert taken == 5, "no more than a chunk is held"
    assert essence([first, *stream]) == essence(ready.predict(TEXTS) * 3)
    assert list(ready.predict_stream([])) == [] and ready.predict([]) == []


def test_training_mode_is_left_as_it_was(ready: Predictor) -> None:
    model = ready.members[0].model
    model.train()
    model.decoder.eval()
    noisy = ready.predict(TEXTS)
    assert model.training and not model.decoder.training
    model.eval()
    assert essence(ready.predict(TEXTS)) == essence(noisy), "dropout is off while predicting"
    assert not model.training


def test_batches_keep_the_budget() -> None:
    lengths = [3, 9, 1, 5, 9, 40, 2, 2]
    plan = plan_batches(lengths, budget=90, rows_each=5)
    assert sorted(number for batch in plan for number in batch) == list(range(8))
    assert all(len(batch) == 1 or max(lengths[number] for number in batch) * len(batch) * 5 <= 90 for batch in plan)
    assert [lengths[number] for batch in plan for number in batch] == sorted(lengths, reverse=True)
    assert plan_batches([], budget=10) == []


def test_batches_for_several_processes_become_smaller() -> None:
    sizes = [len(batch) for batch in plan_batches([5] * 400, budget=1000, workers=2)]
    assert sizes[:5] == [100, 75, 57, 48, 48] and sum(sizes) == 400
    assert max(len(batch) for batch in plan_batches([5] * 400, budget=250, workers=2)) == 50
    assert [len(batch) for batch in plan_batches([5] * 32, budget=1000, workers=2)] == [16, 16]


def test_a_stored_model_answers_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One directory, and an ensemble of two; a member with another target vocabulary is refused."""
    source, target, other = codec(["abcd "]), codec(["vwxyz"]), codec(["vwxy"])
    pairs = {"source": "a", "target": "b"}
    config = parse_config({"run_dir": "run", "data": {"train": pairs, "valid": pairs, "max_source_tokens": 5}, "train": {"max_steps": 1}})
    config = config.model_copy(update={"search": SEARCH, "model": SMALL.model_copy(update={"max_source_length": 6})})
    models = [network(source, target, recurrent=False, seed=seed) for seed in (0, 1)]
    for name, model, codecs in zip("abc", [*models, network(source, other, recurrent=False)], [target, target, other], strict=True):
        save_model(tmp_path / name, model=model, config=config, codecs=(source, codecs), metrics={})
    limits = LengthCeilings(source=6)
    monkeypatch.setattr(predict_module, "quick_beam", lambda *_: 3)
    loaded = Predictor.load(tmp_path / "a")
    assert loaded.quick_beam is None  # small models are searched faster by an engine
    monkeypatch.setattr(predict_module, "LARGE_MODEL", 1)
    assert Predictor.load(tmp_path / "a").quick_beam == 3
    assert (loaded.search, loaded.ceilings) == (SEARCH, limits)
    made = Predictor([models[0]], source, target, search=SEARCH, ceilings=limits)
    assert essence(loaded.predict(TEXTS)) == essence(made.predict(TEXTS))
    both = Predictor.load([tmp_path / "a", tmp_path / "b"])
    assert essence(both.predict(TEXTS)) == essence(Predictor(models, source, target, search=SEARCH, ceilings=limits).predict(TEXTS))
    assert essence(both.predict(TEXTS)) != essence(made.predict(TEXTS))
    with pytest.raises(ConfigError, match="another target codec"):
        Predictor.load([tmp_path / "a", tmp_path / "c"])
    with pytest.raises(CheckpointError):
        Predictor.load(tmp_path / "nowhere")


def test_predictions_are_values() -> None:
    (prediction,) = predictor().predict(["a"])
    assert replace(prediction, text="x").text == "x"
    with pytest.raises(AttributeError):
        prediction.text = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    "search",
    [SEARCH, SearchConfig(max_length=9), SearchConfig(num_best=2, max_length=9, sampling=SamplingConfig(seed=3))],
    ids=["beam", "greedy", "sampling"],
)
def test_several_processes_answer_as_one_does(ready: Predictor, search: SearchConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = TEXTS * 6
    alone = ready.predict(texts, search=search)
    monkeypatch.setattr(predict_module, "can_fork", lambda: True)  # the test runner has threads of its own
    monkeypatch.setattr(Searcher, "_steps", partialmethod(_searched_elsewhere, Searcher._steps, os.getpid()))
    ready.workers = 2
    together = ready.predict(texts, search=search)
    assert essence(together) == essence(alone)
    assert [prediction.flags for prediction in together] == [prediction.flags for prediction in alone]
    assert essence(ready.predict(texts[::-1], search=search)) == essence(alone[::-1])  # by the same copies


def _searched_elsewhere(self: Searcher, own: Callable[..., object], process: int, question: Question) -> object:
    rehearsed = len(question.rows) == 1 and question.config.max_length == REHEARSED
    assert os.getpid() != process or rehearsed, "more than the rehearsal was searched in this process"
    return own(self, question)


def test_a_few_long_sources_are_enough_for_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_module, "can_fork", lambda: True)
    own = predictor()
    own.workers = 2
    assert own._shared(4, tokens=1024) and own._shared(32) and own._shared(32, tokens=40)
    assert not (own._shared(3, tokens=9999) or own._shared(4, tokens=1023) or own._shared(31))


class Counting:
    """An engine that leaves all to torch, and the numbers of sources that it was asked for."""

    name = "counting 1"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def obstacle(self, _config: SearchConfig) -> None:
        return None

    def search(self, read: Readings, _config: SearchConfig, *, ceiling: int) -> Iterator[tuple[list[int], list[None]]]:
        assert ceiling
        self.asked.append(len(read.searchable()))
        yield read.searchable(), [None] * self.asked[-1]


def test_many_sources_are_left_to_torch_where_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_module, "can_fork", lambda: True)
    own, engine, texts = predictor(), Counting(), ["abcd"] * 32
    own.choice, own.workers, own.quick_beam = EngineChoice(engine), 2, 2
    beam, greedy = SearchConfig(beam_size=2, max_length=4), SearchConfig(beam_size=1, max_length=4)
    own.predict(texts, search=beam)
    assert not engine.asked and own.prefers_torch(beam) and not own.prefers_torch(greedy)
    own.predict(texts[:31], search=beam)
    own.predict(texts, search=greedy)
    found = list(own.predict_stream([*texts, "abc", ""], search=beam, chunk_lines=32))
    assert engine.asked == [31, 32], "the last ones of a stream were searched otherwise than those before"
    assert essence(found) == essence(own.predict([*texts, "abc", ""], search=beam))
    own.quick_beam = None
    own.predict(texts, search=beam)
    own.quick_beam, own.workers = 2, 1
    own.predict(texts, search=beam)
    own.workers, own.choice = 2, EngineChoice(engine, forced=True)
    own.predict(texts, search=beam)
    assert engine.asked == [31, 32, 32, 32, 32] and not own.prefers_torch(beam)


def test_copies_answer_with_the_weights_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    own = predictor()
    monkeypatch.setattr(predict_module, "can_fork", lambda: True)
    own.workers, search, texts = 2, SearchConfig(max_length=9), TEXTS * 6
    before = own.predict(texts, search=search)
    with torch.no_grad():
        for weight in own.members[0].model.decoder.parameters():
            weight.mul_(-2)
    after = own.predict(texts, search=search)
    own.workers = 1
    assert essence(after) == essence(own.predict(texts, search=search)) != essence(before)
