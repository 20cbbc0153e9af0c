"""Configurations: what is read, what is refused and in which words, what is printed."""

import importlib.util
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from transduce.config import RunConfig, change_search, load_config, parse_config, preset_names
from transduce.decode.search import SearchConfig
from transduce.errors import ConfigError, StorageError
from transduce.model.frontends import NoSource, Pixels, Vocabulary
from transduce.model.recurrent import RecurrentEncoderConfig
from transduce.model.seq2seq import build_model
from transduce.tree import parse_words, parse_yaml, scalar_text

ROOT = Path(__file__).resolve().parent.parent

SHORT = """
preset: transformer-small
run_dir: runs/en-de
seed: 1
data:
  train: {source: train.en, target: train.de}      # or a list of such entries, each with an optional weight
  valid: {source: val.en, target: val.de}
train:
  max_minutes: 40            # or max_steps, max_epochs; the first that is reached ends the run cleanly
  save_every_steps: 200
"""


@pytest.fixture
def short(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(SHORT, encoding="utf-8")
    return path


def tree(**more: Any) -> dict[str, Any]:
    base: dict[str, Any] = parse_yaml(SHORT)
    return {**base, **more}


def refusal(path: Path, *words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, words)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_short_file_as_users_write_it(short: Path) -> None:
    config = load_config(short)
    assert (config.run_dir, config.seed, config.train.max_minutes, config.train.save_every_steps) == (Path("runs/en-de"), 1, 40, 200)
    assert config.model.tie == "all" and config.data.joint_vocabulary
    assert [str(path) for path in config.data.train[0].files] == ["train.en", "train.de"]


def test_words_stand_above_the_file_and_the_file_above_the_preset(short: Path) -> None:
    config = load_config(short, ["train.max_minutes=5", "train.optimizer.learning_rate=1e-4", "model.encoder.layers=1"])
    assert (config.train.max_minutes, config.train.optimizer.learning_rate, config.model.encoder.layers) == (5, 1e-4, 1)
    preset = load_config(short).model.encoder
    assert config.model.encoder == preset.model_copy(update={"layers": 1}), "other keys stay as the preset has them"
    assert config.train.save_every_steps == 200


def test_another_kind_replaces_the_whole_branch(short: Path) -> None:
    config = load_config(short, ["model.encoder.width=64", "model.encoder.kind=gru"])
    assert config.model.encoder.kind == "gru" and config.model.encoder.width == 64
    assert config.model.encoder == RecurrentEncoderConfig(kind="gru", width=64), "nothing of the Transformer may reach the GRU"
    assert config.model.decoder.kind == "transformer"


def test_another_kind_of_the_same_class_keeps_the_branch() -> None:
    rnn = tree(preset="rnn-luong")
    lstm, gru = parse_config(rnn), parse_config(rnn, parse_words(["model.encoder.kind=gru"]))
    assert gru.model.encoder == lstm.model.encoder.model_copy(update={"kind": "gru"})


def test_a_branch_without_its_kind_means_the_default_kind() -> None:
    bare = {**tree(model={"encoder": {"layers": 1}}), "preset": None}
    assert parse_config(bare).model.encoder.kind == "transformer"


def test_one_codec_of_a_joint_vocabulary_describes_both(short: Path) -> None:
    config = load_config(short, ["data.source_codec.vocabulary_size=500"])
    assert config.data.source_codec == config.data.target_codec
    assert config.data.target_codec.model_dump()["vocabulary_size"] == 500


def test_yaml_is_version_1_2() -> None:
    assert parse_words(["a=1e-4", "b=no", "c=2021-05-03", "d=null", "e=[1, x]", "f=0o10", "g.h=true", "i="]) == {
        "a": 1e-4, "b": "no", "c": "2021-05-03", "d": None, "e": [1, "x"], "f": 8, "g": {"h": True}, "i": None,
    }  # fmt: skip


TEXTS = ["no", "1e-4", "a: b", "", " x", "007", "null", "[a]", "3. März", "it's", '"', "a#b", "line\nbreak", "x\\y", "~", "-", "a, b"]


@pytest.mark.parametrize("value", TEXTS)
def test_text_comes_back_from_yaml_as_it_was(value: str) -> None:
    assert parse_yaml(f"key: {scalar_text(value)}") == {"key": value}
    assert parse_yaml(f"key: [{scalar_text([value])}]") == {"key": [[value]]}


@pytest.mark.parametrize("value", [1e-09, 0.1, 1e22, float("inf"), -3, True, None, 10**20])
def test_numbers_come_back_from_yaml_as_they_were(value: object) -> None:
    assert parse_yaml(scalar_text(value)) == value
    assert type(parse_yaml(scalar_text(value))) is type(value)


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("train.max_stesp=3", ["train.max_stesp is not a setting", "did you mean 'train.max_steps'?"]),
        ("max_steps=3", ["max_steps is not a setting", "did you mean 'train.max_steps' or 'rollout.max_steps'?"]),
        ("tarin.max_steps=3", ["tarin is not a setting", "did you mean 'train'?"]),
        ("train.max_steps=0", ["train.max_steps = 0 is not allowed", "a whole number >= 1 or null", "Limit in optimiser steps"]),
        ("train.max_steps=ten", ["train.max_steps = ten", "a whole number >= 1"]),
        ("train.max_steps='10'", ['train.max_steps = "10"', "a whole number >= 1"]),
        ("train.max_steps=1.5", ["train.max_steps = 1.5", "a whole number"]),
        ("train.optimizer.fused=no", ["train.optimizer.fused = no", "true or false"]),
        ("train.max_steps=true", ["train.max_steps = true", "a whole number"]),
        ("model.tie=al", ["model.tie = al is not allowed", "none, output or all", "did you mean 'all'?"]),
        ("model.encoder.dropout=1", ["model.encoder.dropout = 1", "a number >= 0 and < 1"]),
        ("model.encoder.kind=transfromer", ["kind = transfromer", "conformer or none", "did you mean 'transformer'?"]),
        ("model.encoder.bidirectional=true", ["model.encoder.bidirectional is not a setting of kind transformer", "layers"]),
        ("data.train.sorce=x", ["data.train.sorce is not a setting", "'data.train.source'"]),
        ("model.encoder.heads=7", ["model.encoder", "7", "width"]),
        ("preset=transformer-smal", ["preset = transformer-smal", "did you mean 'transformer-small'?"]),
        ("run_dir=null", ["run_dir = null", "a path"]),
        ("run_dir=5", ["run_dir = 5", "a path"]),
        ("model=5", ["model = 5", "a group"]),
    ],
)
def test_a_bad_word_names_key_value_what_is_allowed_and_the_nearest(short: Path, word: str, parts: list[str]) -> None:
    message = refusal(short, word)
    assert message.startswith(f"{short}: ")
    assert all(part in message for part in parts), message
    assert "pydantic" not in message and "[type=" not in message


def test_all_problems_are_named_at_once(short: Path) -> None:
    message = refusal(short, "train.max_steps=0", "model.tie=x", "sead=3")
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["data.joint_vocabulary=false"], "model.tie = all needs data.joint_vocabulary = true"),
        (["train.max_minutes=null"], "train has no end"),
        (["train.metric=ter"], "train.metric = ter is not measured"),
        (["data.max_source_tokens=2000"], "data.max_source_tokens = 2000 is above model.max_source_length = 1024"),
        (["model.decoder.positions=learned", "model.decoder.max_positions=100"], "model.decoder.max_positions = 100 is below"),
        (["search.max_length=5000"], "search.max_length = 5000 is above model.max_target_length"),
        (["search.min_length=1024"], "search.min_length = 1024 is not below model.max_target_length"),
        (["train.schedule.kind=noam"], "multiplies the noam schedule's own curve"),
        (["train.optimizer.learning_rate=1"], "is the peak of schedule"),
        (["model.decoder.kind=lstm", "model.decoder.attention=none", "model.decoder.attend=after"], "needs an attention"),
        (["model.decoder.kind=gru", "model.decoder.attention=multihead", "model.decoder.heads=3"], "heads 3 must divide width 256"),
        (["search.num_best=9"], "needs a beam_size of at least that"),
        (["data.max_tokens_per_batch=100"], "has no room for one pair"),
    ],
)
def test_contradictions_are_refused(short: Path, words: list[str], part: str) -> None:
    assert part in refusal(short, *words)


@pytest.mark.parametrize("words", [["a"], ["=1"], ["a..b=1"], ["a.b=1", "a.b=2"], ["a=1", "a.b=2"], ["a=["], ["a=*x"]])
def test_words_that_are_no_settings(words: list[str]) -> None:
    with pytest.raises(ConfigError):
        parse_words(words)


def test_files_that_are_no_configurations(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    with pytest.raises(StorageError, match="cannot be read"):
        load_config(path)
    bad = {b"- a": "a YAML mapping", b"a: 1\nb: [": "c.yaml:2: ", b"a: 1\na: 2": "duplicate", b"\xff": "UTF-8", b"1: 2": "not text"}
    for content, part in bad.items():
        path.write_bytes(content)
        assert part in refusal(path)


def test_what_must_be_given_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("train: {max_steps: 1}", encoding="utf-8")
    message = refusal(path)
    assert all(f"{key} is required" in message for key in ("run_dir", "data.train", "data.valid"))


@pytest.mark.parametrize("documented", [False, True])
def test_the_printed_tree_is_the_same_configuration(short: Path, tmp_path: Path, documented: bool) -> None:
    config = load_config(short, ["data.train=[{source: a, target: b, weight: 2}, {path: c.tsv, weight: 1e-3}]", "search.sampling.top_k=3"])
    again = tmp_path / "again.yaml"
    again.write_text(config.to_yaml(documented=documented), encoding="utf-8")
    assert load_config(again) == config


def test_the_printed_tree_documents_every_key(short: Path) -> None:
    lines = load_config(short).to_yaml(documented=True).splitlines()
    keys = [(above, line) for above, line in pairwise(lines) if ":" in line and "#" not in line and "- " not in line]
    undocumented = [line for above, line in keys if "#" not in above]
    assert [line for line in undocumented if not line.startswith("      ")] == [], "corpora of a list are printed plainly"
    assert any("Limit in optimiser steps" in line for line in lines)


def test_every_setting_has_a_meaning() -> None:
    page = load_script("make_configuration_page")
    rows = [line for line in page.page().splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    assert [row for row in rows if row.split("|")[4].strip() == "" and ".kind`" not in row] == []


def test_the_configuration_page_is_up_to_date() -> None:
    page = load_script("make_configuration_page")
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "run python scripts/make_configuration_page.py"


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SMALLER = [
    "rnn-bahdanau",
    "rnn-fixed",
    "rnn-luong",
    "student-small",
    "student-tiny",
    "transformer-base",
    "transformer-quick",
    "transformer-small",
    "transformer-tiny",
]
CAPTIONS = ["caption-show-tell", "caption-attend", "caption-transformer"]
LANGUAGE = ["lm-lstm", "lm-transformer"]


def test_presets_are_those_of_the_manual() -> None:
    others = ["transformer-big", "tracks-lstm", "tracks-transformer", "speech-conformer", "speech-las", "speech-transformer"]
    assert preset_names() == sorted([*SMALLER, *others, *CAPTIONS, *LANGUAGE])


def preset(name: str) -> RunConfig:
    return parse_config(tree(preset=name))


# Small vocabularies, so that big models are built in no time; sizes of the layers are the presets' own.
@pytest.mark.parametrize("name", SMALLER)
def test_every_preset_builds_a_model(name: str) -> None:
    vocabulary = Vocabulary(size=10, pad_id=0, bos_id=1, eos_id=2, unk_id=3)
    model = build_model(preset(name).model, vocabulary, vocabulary)
    assert sum(parameter.numel() for parameter in model.parameters()) > 100_000


@pytest.mark.parametrize("name", CAPTIONS)
def test_presets_for_captions_build_a_model_of_pictures(name: str) -> None:
    corpus = {"path": "x.jsonl", "source": "image", "target": "captions"}
    config = parse_config({"preset": name, "run_dir": "run", "data": {"train": corpus, "valid": corpus}, "train": {"max_steps": 1}})
    codec = config.data.source_codec
    assert codec.kind == "image"
    pixels = Pixels(codec.size, codec.patch, (0.5,) * 3, (0.3,) * 3)
    model = build_model(config.model, pixels, Vocabulary(size=3000, pad_id=0, bos_id=1, eos_id=2, unk_id=3))
    assert 2e6 < sum(parameter.numel() for parameter in model.parameters()) < 8e6


def language_model(name: str, **more: Any) -> RunConfig:
    alone = {"target": "texts.txt"}
    return parse_config({"preset": name, "run_dir": "run", "data": {"train": alone, "valid": alone}, "train": {"max_steps": 1}}, more)


@pytest.mark.parametrize("name", LANGUAGE)
def test_presets_for_language_models_build_a_model_without_a_source(name: str) -> None:
    config = language_model(name)
    model = build_model(config.model, NoSource(), Vocabulary(size=100, pad_id=0, bos_id=1, eos_id=2, unk_id=3))
    assert 1e6 < sum(parameter.numel() for parameter in model.parameters()) < 4e6
    assert (config.train.metric, config.train.loss.label_smoothing) == ("loss", 0)


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ({"model": {"encoder": {"kind": "gru"}}}, "model.encoder.kind = gru does not go with"),
        ({"model": {"frontend": {"kind": "tokens"}}}, "model.frontend.kind = tokens does not fit: the source is none, use none"),
        ({"model": {"decoder": {"attention": "dot"}}}, "there is nothing to look at, set attention = none"),
        ({"model": {"decoder": {"bridge": "dense"}}}, "model.decoder.bridge = dense does not go with"),
        ({"model": {"reverse_source": True}}, "model.reverse_source is for sources of text"),
        ({"model": {"ctc": True}}, "model.ctc or train.loss.doubly_stochastic does not go with"),
        ({"train": {"metric": "bleu", "validation": {"metrics": ["bleu"]}}}, "set metrics = [] and train.metric = loss"),
        ({"data": {"target_codec": {"kind": "frames"}}}, "data.target_codec.kind = frames does not go with"),
    ],
)
def test_what_a_language_model_cannot_have_is_refused(more: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        language_model("lm-lstm", **more)
    assert part in str(caught.value) and caught.value.exit_code == 2


def test_base_and_big_are_those_of_vaswani_2017() -> None:
    for name, width, heads, inner, dropout in (("transformer-base", 512, 8, 2048, 0.1), ("transformer-big", 1024, 16, 4096, 0.3)):
        config = preset(name)
        for part in (config.model.encoder, config.model.decoder):
            assert part.kind == "transformer" and part.norm_place == "post" and part.activation == "relu"
            assert (part.layers, part.width, part.heads, part.feed_forward, part.dropout) == (6, width, heads, inner, dropout)
        assert (config.model.tie, config.model.embedding_size, config.train.loss.label_smoothing) == ("all", width, 0.1)
        assert (config.train.schedule.kind, config.train.schedule.warmup_steps, config.train.optimizer.learning_rate) == ("noam", 4000, 1.0)


def test_base_has_the_size_of_the_paper() -> None:
    vocabulary = Vocabulary(size=37000, pad_id=0, bos_id=1, eos_id=2, unk_id=3)
    model = build_model(preset("transformer-base").model, vocabulary, vocabulary)
    assert 62e6 < sum(parameter.numel() for parameter in model.parameters()) < 66e6  # table 3: 65 million


def test_search_settings_of_a_finished_model() -> None:
    assert change_search(SearchConfig(), ["search.beam_size=8", "search.length_penalty=average"]).beam_size == 8
    with pytest.raises(ConfigError, match=r"search\.beam_sise is not a setting; did you mean 'search\.beam_size'"):
        change_search(SearchConfig(), ["search.beam_sise=8"])
    with pytest.raises(ConfigError, match=r"only search\.KEY=VALUE"):
        change_search(SearchConfig(), ["model.tie=all"])
