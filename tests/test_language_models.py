"""Language models as users meet them: trained on texts alone, scored, sampled from, and at work in another model's search.

The pairs are ambiguous on purpose: "tu dog" is written "to dog" more often than "two dog", whatever follows. The texts know better.
"""

import io
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from transduce import cli
from transduce.config import parse_config
from transduce.data.values import NOTHING
from transduce.errors import ConfigError, DataError
from transduce.evaluate_language import evaluate_language_model
from transduce.predict import Predictor
from transduce.train.checkpoint import load_model
from transduce.train.events import SilentProgress
from transduce.train.loop import train

SOURCES, WRITTEN = ["tu dog", "tu town"], ["two dog", "to town"]
Call = Callable[..., tuple[int, str, str]]


def run(folder: Path, name: str, **parts: object) -> Path:
    """Train a tiny model in `folder`."""
    tree = {"run_dir": str(folder / name), "seed": 1, **parts}
    tree["data"] = {**parts["data"], "cache_dir": str(folder / "cache"), "max_tokens_per_batch": 256}  # type: ignore[dict-item]
    config = parse_config(tree)
    train(config, SilentProgress())
    return folder / name


def settings(steps: int) -> dict[str, object]:
    return {
        "max_steps": steps,
        "save_every_steps": steps,
        "precision": "fp32",
        "ema_decay": 0.0,
        "optimizer": {"kind": "adamw", "learning_rate": 0.02},
        "schedule": {"kind": "cosine", "warmup_steps": 5},
        "validation": {"metrics": [], "samples": 1},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pairs: a model of ambiguous pairs; lm: a language model with its codec; other: one with a codec of its own."""
    place = tmp_path_factory.mktemp("language")
    pairs = [(source, f"{first} {source.split()[1]}") for source in SOURCES for first in ["to"] * 6 + ["two"] * 4]
    (place / "pairs.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in pairs * 4), encoding="utf-8")
    (place / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in WRITTEN * 20), encoding="utf-8")
    (place / "texts.txt").write_text("".join(f"{text}\n" for text in WRITTEN), encoding="utf-8")
    (place / "sources.txt").write_text("".join(f"{text}\n" for text in SOURCES), encoding="utf-8")
    words, corpus = {"kind": "words"}, {"path": str(place / "pairs.tsv")}
    model = {"embedding_size": 16, "encoder": {"kind": "gru", "width": 16}, "decoder": {"kind": "gru", "width": 16, "attention_size": 16}}
    data = {"train": corpus, "valid": corpus, "source_codec": words, "target_codec": words}
    run(place, "pairs", data=data, model=model, train=settings(30), search={"length_penalty": "none"})
    texts = {"path": str(place / "texts.jsonl"), "target": "text"}
    stored = {"kind": "stored", "path": str(place / "pairs")}
    small = {"decoder": {"width": 16, "dropout": 0.0}, "embedding_size": 16, "embedding_dropout": 0.0}
    language = {"preset": "lm-lstm", "model": small}
    run(
        place, "lm", data={"train": texts, "valid": texts, "target_codec": stored, "max_target_tokens": 20}, train=settings(100), **language
    )
    run(place, "other", data={"train": texts, "valid": texts, "max_target_tokens": 20}, train=settings(1), **language)
    return place


@pytest.fixture
def call(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command inside this process: exit code, standard output, standard error."""
    monkeypatch.chdir(folder)

    def start(*words: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["transduce", *words])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        with pytest.raises(SystemExit) as caught:
            cli.main()
        output = capsys.readouterr()
        return int(caught.value.code or 0), output.out, output.err

    return start


def test_it_learns_what_texts_are_like(folder: Path) -> None:
    """The first word is a toss-up, all else is certain: one bit for each text of three tokens, and no less."""
    predictor = Predictor.load(folder / "lm")
    fit = evaluate_language_model(predictor, WRITTEN)
    assert 0.99 < fit.bits_per_token * 3 < 1.15
    assert (fit.texts, fit.tokens, fit.words, fit.characters) == (2, 6, 6, 16)
    assert fit.bits_per_character == pytest.approx(fit.bits_per_token * 6 / 16)
    assert fit.perplexity == pytest.approx(2**fit.bits_per_token) and fit.word_perplexity == pytest.approx(fit.perplexity)
    assert fit.log_probability == pytest.approx(sum(score.log_probability for score in predictor.score([NOTHING] * 2, WRITTEN)))
    assert evaluate_language_model(predictor, ["to dog"]).perplexity > 3 * fit.perplexity
    stored = load_model(folder / "lm" / "model").metrics
    assert stored["perplexity"] == pytest.approx(fit.perplexity, rel=1e-3) and "source_gain" not in stored


def test_a_language_model_mends_what_is_ambiguous(folder: Path, call: Call) -> None:
    predictor = Predictor.load(folder / "pairs")
    assert [prediction.text for prediction in predictor.predict(SOURCES)] == ["to dog", "to town"]
    command = ("evaluate", "pairs", "--source", "sources.txt", "--target", "texts.txt", "--metrics", "exact_match", "--json", "x.json")
    code, output, error = call(*command, "--language-model", "lm", "search.language_weight=0.6", "--baseline", "pairs")
    assert code == 0, error
    written = json.loads((folder / "x.json").read_text(encoding="utf-8"))
    assert written["scores"]["exact_match"]["value"] == 100 and written["model"] == "pairs with lm"
    assert "+50.00  against 50.00 of pairs" in output
    assert call("predict", "pairs", "-i", "sources.txt", "--language-model", "lm")[1].splitlines() == WRITTEN


def test_a_score_is_the_sum_of_both_models_forced_scores(folder: Path) -> None:
    fused, plain, language = (
        Predictor.load(folder / "pairs", language_model=folder / "lm"),
        *map(Predictor.load, (folder / "pairs", folder / "lm")),
    )
    for size in (1, 4):
        search = plain.search.model_copy(update={"beam_size": size, "num_best": size, "language_weight": 0.6})
        for source, prediction in zip(SOURCES, fused.predict(SOURCES, search=search), strict=True):
            for entry in prediction.alternatives:
                (own,), (beside,) = plain.score([source], [entry.text]), language.score([NOTHING], [entry.text])
                assert entry.score == pytest.approx(own.log_probability + 0.6 * beside.log_probability, abs=1e-4)
                steps = zip(own.token_log_probabilities, beside.token_log_probabilities, entry.token_probabilities, strict=False)
                assert all(math.exp(one + 0.6 * other) == pytest.approx(found, abs=1e-4) for one, other, found in steps)
    assert fused.score(SOURCES, WRITTEN) == plain.score(SOURCES, WRITTEN), "forced scores are the model's own"


def test_weight_0_is_no_language_model(folder: Path) -> None:
    fused, plain = Predictor.load(folder / "pairs", language_model=folder / "lm"), Predictor.load(folder / "pairs")
    assert fused.predict(SOURCES, search=plain.search.model_copy(update={"language_weight": 0.0})) == plain.predict(SOURCES)
    assert fused.predict(SOURCES) != plain.predict(SOURCES)
    both = Predictor.load([folder / "pairs", folder / "pairs"], language_model=folder / "lm")
    assert [prediction.text for prediction in both.predict(SOURCES)] == [prediction.text for prediction in fused.predict(SOURCES)]


def test_outputs_are_as_long_as_both_allow_and_weight_0_asks_one_alone(folder: Path) -> None:
    fused = Predictor.load(folder / "pairs", language_model=folder / "lm")
    assert fused.language_model is not None
    fused.language_model = replace(fused.language_model, longest=2)
    (cut, _), (whole, _) = (
        fused.predict(SOURCES, search=fused.search.model_copy(update={"language_weight": weight})) for weight in (0.3, 0.0)
    )
    assert len(cut.tokens) == 1
    assert whole.text == "to dog" and not whole.truncated


def test_eight_bits_are_enough_for_both(folder: Path) -> None:
    rounded = Predictor.load(folder / "pairs", language_model=folder / "lm", precision="int8")
    assert rounded.precision.startswith("int8") and [prediction.text for prediction in rounded.predict(SOURCES)] == WRITTEN
    (plain, own) = (Predictor.load(folder / "lm", precision=kind).score([NOTHING], ["to town"])[0] for kind in ("fp32", "int8"))
    assert own.log_probability == pytest.approx(plain.log_probability, abs=0.05) and own != plain


def test_another_codec_is_refused_with_the_way_out(call: Call) -> None:
    code, _, error = call("predict", "pairs", "-i", "sources.txt", "--language-model", "other")
    assert code == 2
    assert "other writes with another target codec (characters, 11 pieces) than pairs (words, 8 pieces)" in error
    assert "train the language model with data.target_codec: {kind: stored, path: pairs}" in error


def test_what_is_no_language_model_is_refused(folder: Path, call: Call) -> None:
    code, _, error = call("predict", "pairs", "-i", "sources.txt", "--language-model", "pairs")
    assert code == 2 and "pairs is no language model: its source is words" in error
    code, _, error = call("predict", "pairs", "-i", "sources.txt", "search.language_weight=0.5")
    assert code == 2 and "there is no language model to weigh, name one with --language-model MODEL" in error
    with pytest.raises(ConfigError, match="it reads words"):
        evaluate_language_model(Predictor.load(folder / "pairs"), WRITTEN)
    fused = Predictor.load(folder / "pairs", language_model=folder / "lm")
    with pytest.raises(ConfigError, match="no prefixes and no language model"):
        fused.predict(SOURCES, search=fused.search.model_copy(update={"ctc_weight": 1.0}))


def test_evaluate_scores_texts(folder: Path, call: Call) -> None:
    code, output, error = call("evaluate", "lm", "--target", "texts.txt", "--json", "fit.json")
    assert code == 0 and error == ""
    written = json.loads((folder / "fit.json").read_text(encoding="utf-8"))
    assert written["texts"] == 2 and written["scores"]["bits_per_token"] < 0.4 and f"{written['scores']['perplexity']:.3f}" in output
    more = call("evaluate", "lm", "--data", "texts.jsonl")[1]
    assert "40 texts, 120 words, 120 tokens, 320 characters" in more and more.splitlines()[0] == output.splitlines()[0]
    (folder / "odd.txt").write_text("two cats\n" + "to " * 2000 + "\n", encoding="utf-8")
    code, _, error = call("evaluate", "lm", "--target", "odd.txt")
    assert code == 0 and "1 texts are longer than the model allows" in error and "1 of 3 tokens are unknown" in error


def test_evaluate_refuses_what_only_sources_have(folder: Path, call: Call) -> None:
    code, _, error = call("evaluate", "lm", "--source", "sources.txt", "--target", "texts.txt", "--metrics", "bleu", "search.beam_size=2")
    assert code == 2 and "--source, --metrics, search.KEY=VALUE: not for a language model" in error
    code, _, error = call("evaluate", "lm")
    assert code == 2 and "either --target FILE" in error
    (folder / "empty.txt").write_text("", encoding="utf-8")
    assert call("evaluate", "lm", "--target", "empty.txt")[0] == 65
    with pytest.raises(DataError, match="all of them too long"):
        evaluate_language_model(Predictor.load(folder / "lm"), ["to " * 2000])


def test_predict_goes_on_from_each_line(call: Call) -> None:
    code, output, _ = call("predict", "lm", "search.sampling=null", stdin="two\nto\n\n")
    assert code == 0 and output.splitlines()[:2] == ["two dog", "to town"] and output.splitlines()[2] in WRITTEN
    _, drawn, _ = call("predict", "lm", "--num-best", "20", stdin="\n")
    assert {line.split("\t")[2] for line in drawn.splitlines()} >= set(WRITTEN)
    code, _, error = call("predict", "lm", "--prefix", "two", stdin="\n")
    assert code == 2 and "beginnings already" in error
    assert Predictor.load("lm").predict(["a source"])[0].flags == ("unreadable_source",)


def test_info_and_card_tell_that_it_has_no_source(folder: Path, call: Call) -> None:
    output = call("info", "lm")[1]
    assert "source:     none (a language model)" in output and "encoder:    none" in output
    card = (folder / "lm" / "model" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# A language model") and "--language-model THIS_FOLDER" in card and "predict THIS_FOLDER" not in card
