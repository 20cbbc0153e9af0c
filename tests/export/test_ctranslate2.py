"""Every option of a Transformer in CTranslate2: the same log-probabilities, the same outputs of search; the rest is refused by name."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ctranslate2", reason="the extra `export` is not installed")

import ctranslate2
from exported_models import LONGEST, OPTIONS, SHAPES, SOURCE, TARGET, TEXTS, named_config, named_model

from transduce.data.batch import pad_tokens
from transduce.data.text import WordsConfig, fit_text_codec
from transduce.decode.forced import forced_log_probabilities
from transduce.decode.options import SamplingConfig, SearchConfig
from transduce.engines import EngineChoice
from transduce.errors import ConfigError, ExportError
from transduce.export.ctranslate2 import distance_table, obstacles, vocabulary_of, write_model
from transduce.export.engine import CTranslate2Engine, CTranslate2Options, setting_obstacle
from transduce.model.conformer import ConformerConfig
from transduce.model.positions import RelativePositions
from transduce.model.recurrent import RecurrentEncoderConfig
from transduce.model.recurrent_decoder import RecurrentDecoderConfig
from transduce.model.seq2seq import ModelConfig
from transduce.model.sound import SoundConfig
from transduce.model.ssru import SSRUDecoderConfig
from transduce.model.transformer import TransformerConfig
from transduce.predict import Predictor
from transduce.readings import LengthCeilings

SEARCHES = {
    "greedy": SearchConfig(beam_size=1),
    "likely, no penalty": SearchConfig(length_penalty="none"),
    "best, no penalty": SearchConfig(length_penalty="none", early_stop="best"),
    "never, no penalty": SearchConfig(alpha=0, early_stop="never", max_length=12),
    "first": SearchConfig(early_stop="first"),
    "full": SearchConfig(early_stop="full"),
    "full, strong penalty": SearchConfig(early_stop="full", alpha=2.0, beam_size=4),
    "full, average": SearchConfig(early_stop="full", length_penalty="average", beam_size=3),
    "full, no penalty": SearchConfig(early_stop="full", length_penalty="none"),
}


def exported(folder: Path, name: str, *, probabilities: bool = True) -> tuple[Predictor, Predictor]:
    """The same random model on torch and on CTranslate2."""
    config, model = named_config(name), named_model(name)
    write_model(folder, model, config, codecs=(SOURCE, TARGET))
    options = CTranslate2Options("float32", 1, probabilities, config.reverse_source)
    engine = CTranslate2Engine(folder, codecs=(SOURCE, TARGET), options=options)
    own = Predictor([model], SOURCE, TARGET, ceilings=LengthCeilings(LONGEST, LONGEST))
    return own, own.with_engine(EngineChoice(engine, "named", forced=True))


@pytest.mark.parametrize("name", [*OPTIONS, *SHAPES])
def test_forced_scores_and_outputs_are_those_of_torch(name: str, tmp_path: Path) -> None:
    own, other = exported(tmp_path, name, probabilities=False)
    random = np.random.default_rng(0)
    sources = [random.integers(4, SOURCE.vocabulary.size, length) for length in (1, 5, 9, 30, 17)]
    targets = [random.integers(4, TARGET.vocabulary.size, length) for length in (3, 0, 12, 35, 7)]
    names, ends, special = vocabulary_of(SOURCE), vocabulary_of(TARGET), TARGET.vocabulary
    rows = [[names[token] for token in row] + ["</s>"] for row in sources]
    rows = [row[::-1] for row in rows] if name == "reversed" else rows
    translator = ctranslate2.Translator(str(tmp_path), compute_type="float32", intra_threads=1)
    found = translator.score_batch(rows, [[ends[token] for token in row] for row in targets])
    padded = [pad_tokens(some, eos_id=special.eos_id, pad_id=special.pad_id) for some in (sources, targets)]
    expected = forced_log_probabilities([own.members[0].model], padded[:1], padded[1])
    for result, row, target in zip(found, expected, targets, strict=True):
        np.testing.assert_allclose(result.log_probs, row[: len(target) + 1], atol=5e-4)
    for search in (SEARCHES["greedy"], SEARCHES["full, strong penalty"]):
        wanted, answers = own.predict(TEXTS, search=search), other.predict(TEXTS, search=search)
        assert [one.tokens for one in answers] == [one.tokens for one in wanted]
        assert [one.log_probability for one in answers] == pytest.approx([one.log_probability for one in wanted], abs=1e-3)
    assert other.left_to_torch < len(TEXTS), "some of them the engine answered"


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("options", ["plain", "multi-query rope"])
def test_each_search_gives_what_torch_gives(name: str, options: str, tmp_path: Path) -> None:
    own, other = exported(tmp_path, options)
    wanted, found = own.predict(TEXTS, search=SEARCHES[name]), other.predict(TEXTS, search=SEARCHES[name])
    assert other.left_to_torch < len(TEXTS) / 2
    for one, two in zip(wanted, found, strict=True):
        assert (one.text, one.tokens, one.flags, one.truncated) == (two.text, two.tokens, two.flags, two.truncated)
        assert (one.source_tokens, one.num_unknown, len(one.alternatives)) == (two.source_tokens, two.num_unknown, len(two.alternatives))
        assert two.score == pytest.approx(one.score, abs=1e-4)
        assert two.log_probability == pytest.approx(one.log_probability, abs=1e-4)
        np.testing.assert_allclose(two.token_probabilities, one.token_probabilities, atol=1e-4)


def test_without_probabilities_there_is_no_second_pass(tmp_path: Path) -> None:
    own, other = exported(tmp_path, "plain", probabilities=False)
    wanted, found = (predictor.predict(TEXTS, search=SEARCHES["greedy"]) for predictor in (own, other))
    assert [one.text for one in found] == [one.text for one in wanted]
    assert [one.score for one in found] == pytest.approx([one.score for one in wanted], abs=1e-4)
    assert all(one.truncated == bool(one.token_probabilities) for one in found if one.tokens) and other.left_to_torch == 0


def test_order_batches_and_length_limits(tmp_path: Path) -> None:
    own, other = exported(tmp_path, "rope")
    search = SearchConfig(beam_size=1, max_length=3)
    wanted = [(one.text, one.truncated) for one in own.predict(TEXTS, search=search)]
    assert any(truncated for _, truncated in wanted)
    assert [(one.text, one.truncated) for one in other.predict(TEXTS, search=search)] == wanted
    beam = SEARCHES["full"].model_copy(update={"max_length": 3})
    wanted = [(one.text, one.truncated) for one in own.predict(TEXTS, search=beam)]
    before = other.left_to_torch
    assert [(one.text, one.truncated) for one in other.predict(TEXTS, search=beam)] == wanted
    assert other.left_to_torch - before >= sum(truncated for _, truncated in wanted)
    alone = [other.predict([text], search=SEARCHES["full"])[0].text for text in TEXTS]
    small = SEARCHES["full"].model_copy(update={"batch_tokens": 1})
    assert [one.text for one in other.predict(TEXTS, search=small)] == alone
    assert [one.text for one in other.predict_stream(TEXTS, search=small, chunk_lines=5)] == alone
    assert other.predict([], search=small) == []


@pytest.mark.parametrize("probabilities", [False, True])
def test_greedy_outputs_are_cut_each_at_its_own_limit(probabilities: bool, tmp_path: Path) -> None:
    """Limits differ within a batch; what is cut has the score of what is left."""
    own, other = exported(tmp_path, "plain", probabilities=probabilities)
    search = SearchConfig(beam_size=1, max_length_ratio=0.5, max_length_margin=1)
    wanted, found = (predictor.predict(TEXTS, search=search) for predictor in (own, other))
    assert len({len(one.tokens) for one in wanted if one.truncated}) > 1
    assert [(one.tokens, one.truncated) for one in found] == [(one.tokens, one.truncated) for one in wanted]
    assert [one.score for one in found] == pytest.approx([one.score for one in wanted], abs=1e-4)
    assert [one.log_probability for one in found] == pytest.approx([one.log_probability for one in wanted], abs=1e-4)
    assert other.left_to_torch < len(TEXTS) / 2


def test_a_greedy_output_with_a_forbidden_token_is_left_to_torch(tmp_path: Path) -> None:
    own, other = exported(tmp_path, "plain", probabilities=False)
    wanted = own.predict(TEXTS, search=SEARCHES["greedy"])
    engine = other.choice.engine
    assert isinstance(engine, CTranslate2Engine)
    taken = {token for one in wanted for token in one.tokens}
    row = [engine.target_ids[sorted(taken)[0]], TARGET.vocabulary.unk_id, TARGET.vocabulary.eos_id]
    allowed = SearchConfig(beam_size=1, allow_unknown=True)
    assert engine._greedy(row, -1.0, limit=9, config=SEARCHES["greedy"]) is None
    assert (
        engine._greedy(row, -1.0, limit=9, config=allowed) is not None
        and engine._greedy(row, -1.0, limit=1, config=SEARCHES["greedy"]) is not None
    )
    assert engine._greedy([], 0.0, limit=9, config=allowed) is None


def test_8_bit_weights_answer_too(tmp_path: Path) -> None:
    own, _ = exported(tmp_path, "plain")
    if "int8" not in ctranslate2.get_supported_compute_types("cpu"):
        pytest.skip("this processor has no 8-bit products in CTranslate2")
    engine = CTranslate2Engine(tmp_path, codecs=(SOURCE, TARGET), options=CTranslate2Options("int8", 1))
    found = own.with_engine(EngineChoice(engine, "named", forced=True)).predict(TEXTS, search=SEARCHES["greedy"])
    assert "int8" in engine.name and ctranslate2.__version__ in engine.name
    wanted = own.predict(TEXTS, search=SEARCHES["greedy"])
    assert sum(one.text == two.text for one, two in zip(wanted, found, strict=True)) > len(TEXTS) / 2


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"sampling": SamplingConfig()}, "sampling"),
        ({"num_best": 2}, "num_best"),
        ({"ctc_weight": 0.5}, "ctc_weight"),
        ({"min_length": 2}, "min_length"),
        ({"min_length_ratio": 0.5}, "min_length_ratio"),
        ({"no_repeat_ngram": 2}, "no_repeat_ngram"),
        ({"repetition_penalty": 1.2}, "repetition_penalty"),
        ({"early_stop": "likely"}, "early_stop"),
        ({"early_stop": "best", "length_penalty": "average"}, "early_stop"),
    ],
)
def test_what_it_cannot_search_is_named(settings: dict[str, object], name: str) -> None:
    config = SearchConfig.model_validate({"early_stop": "full", **settings})
    assert f"search.{name} = " in (setting_obstacle(config) or "")
    assert setting_obstacle(SEARCHES["full"]) is None


def test_requests_that_need_torch_go_there_or_are_refused(tmp_path: Path) -> None:
    own, named = exported(tmp_path, "plain")
    free = own.with_engine(EngineChoice(named.choice.engine, "its export passed"))
    likely, full = SearchConfig(), SEARCHES["full"]
    assert free.predict(TEXTS, search=likely) == own.predict(TEXTS, search=likely)
    assert free.choice.describe(full)[0].startswith("ctranslate2 ") and free.choice.describe(full)[1] == "its export passed"
    assert free.choice.describe(likely)[0] == "torch" and "search.early_stop = likely" in free.choice.describe(likely)[1]
    assert free.choice.describe(full, prefixes=True) == ("torch", "a forced prefix needs torch")
    assert free.choice.describe(full, language_model=True) == ("torch", "a language model needs torch")
    assert free.predict(["abc"], search=full, prefixes=["zz"])[0].text.startswith("zz")
    assert free.predict(["abc"], search=full, with_attention=True)[0].attention is not None
    with pytest.raises(ConfigError, match=r"--engine ctranslate2: search\.early_stop = likely"):
        named.predict(TEXTS, search=likely)
    with pytest.raises(ConfigError, match="a forced prefix needs torch"):
        named.predict(["abc"], search=full, prefixes=["zz"])
    with pytest.raises(ConfigError, match="attention needs torch"):
        named.predict(["abc"], search=full, with_attention=True)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (ModelConfig(encoder=RecurrentEncoderConfig(kind="gru")), ["model.encoder.kind is gru"]),
        (ModelConfig(encoder=ConformerConfig()), ["model.encoder.kind is conformer"]),
        (ModelConfig(decoder=RecurrentDecoderConfig(kind="lstm")), ["model.decoder.kind is lstm"]),
        (ModelConfig(decoder=SSRUDecoderConfig()), ["model.decoder.kind is ssru"]),
        (
            ModelConfig(frontend=SoundConfig(), encoder=ConformerConfig()),
            ["model.frontend.kind is sound", "model.encoder.kind is conformer"],
        ),
        (ModelConfig(decoder=TransformerConfig(norm="rms_norm")), ["model.encoder.norm and model.decoder.norm differ"]),
        (ModelConfig(), []),
    ],
)
def test_models_it_cannot_hold_are_refused_by_name(config: ModelConfig, names: list[str]) -> None:
    found = list(obstacles(config))
    assert len(found) == len(names) and all(name in sentence for name, sentence in zip(names, found, strict=True))


def test_a_refused_model_is_not_written(tmp_path: Path) -> None:
    config, model = named_config("plain"), named_model("plain")
    with pytest.raises(ExportError, match=r"model\.decoder\.kind is ssru"):
        write_model(tmp_path, model, config.model_copy(update={"decoder": SSRUDecoderConfig()}), codecs=(SOURCE, TARGET))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("both_ways", [False, True])
def test_the_table_of_distances_has_a_row_for_each(both_ways: bool) -> None:
    """CTranslate2 puts a distance below half of its buckets (of one direction) into the bucket of that number."""
    import torch

    relative = RelativePositions(2, buckets=8, max_distance=20, both_ways=both_ways)
    with torch.no_grad():
        relative.weight.copy_(torch.randn(8, 2))
    table = distance_table(relative)
    rows = len(table) // 2 if both_ways else len(table)
    for distance in range(-100 if both_ways else 0, 100):
        place = min(abs(distance), rows - 1) + (rows if distance < 0 else 0)
        torch.testing.assert_close(table[place], relative.weight[relative.bucket(torch.tensor(distance))])


def test_tokens_that_look_alike_are_numbered() -> None:
    assert vocabulary_of(TARGET)[:5] == ["<pad>", "<s>", "</s>", "<unk>", TARGET.pieces([4])[0]]
    alike = fit_text_codec(WordsConfig(), ["one <s> two"], seed=0)
    assert vocabulary_of(alike) == [f"#{number}" for number in range(7)]
