"""Evaluation with a model that answers from a list: scores, counts, speed, comparison, report."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from test_report import check_html

from transduce.decode.search import SearchConfig
from transduce.errors import ConfigError, DataError
from transduce.evaluate import compare, evaluate, write_report
from transduce.predict import Prediction, Predictor
from transduce.report.build import find_run_folder
from transduce.train.journal import Journal, ResultsTable

WORDS = ["ein", "Hund", "läuft", "über", "die", "grüne", "Wiese", "und", "bellt", "laut"]
SOURCES = [" ".join(WORDS[: 3 + index % 8]) for index in range(24)]
REFERENCES = [[source.upper()] for source in SOURCES]


class Answers:
    """Stands in for a Predictor: `answer` gives the text; attention is uniform, or None as for a fixed context vector."""

    def __init__(self, answer: Callable[[str], str], attends: bool = True) -> None:
        self.answer, self.attends = answer, attends
        self.search = SearchConfig(beam_size=3)

    def predict(self, sources: Sequence[str], *, search: SearchConfig | None = None, with_attention: bool = False) -> list[Prediction]:
        del search
        return [self.one(source, with_attention and self.attends) for source in sources]

    def one(self, source: str, with_attention: bool) -> Prediction:
        text = self.answer(source)
        tokens, source_tokens = tuple(text.split()), tuple(source.split())
        shape = (len(tokens) + 1, len(source_tokens) + 1)
        return Prediction(
            text=text,
            score=-1.0,
            log_probability=-1.0,
            tokens=tokens,
            token_probabilities=(0.5,) * len(tokens),
            alternatives=(),
            truncated=len(tokens) > 9,
            flags=("unknown_tokens",) if len(tokens) == 3 else (),
            source_tokens=source_tokens,
            attention=np.full(shape, 1 / shape[1]) if with_attention else None,
        )


def model(answer: Callable[[str], str] = str.upper, attends: bool = True) -> Predictor:
    return cast(Predictor, Answers(answer, attends))


def worse(source: str) -> str:
    return source.upper().replace("HUND", "KATZE <script>") if len(source.split()) > 5 else source.upper()


def test_figures_of_an_evaluation() -> None:
    evaluation = evaluate(model(), SOURCES, REFERENCES, metrics=["bleu", "exact_match"])
    assert evaluation.scores["exact_match"].value == 100 and evaluation.scores["bleu"].value == pytest.approx(100)
    assert evaluation.scores["bleu"].interval is not None
    assert evaluation.truncated == 3 and evaluation.flags == {"unknown_tokens": 3}
    assert evaluation.seconds > 0 and evaluation.sentences_per_second == pytest.approx(24 / evaluation.seconds)
    told = json.loads(json.dumps(evaluation.to_dict()))
    assert told["scores"]["bleu"]["signature"].startswith("nrefs:1|") and told["truncated"] == 3
    assert told["search"]["beam_size"] == 3 and told["sentences"] == 24


def test_plain_references_and_several_references_are_taken() -> None:
    plain = evaluate(model(), SOURCES[:4], [texts[0] for texts in REFERENCES[:4]], metrics=["exact_match"])
    ragged = evaluate(model(worse), SOURCES[5:7], [["x", worse(SOURCES[5])], ["y"]], metrics=["exact_match"])
    assert plain.scores["exact_match"].value == 100 and ragged.scores["exact_match"].value == 50


def test_bad_inputs_are_refused_before_any_prediction() -> None:
    def never(source: str) -> str:
        raise AssertionError(source)

    with pytest.raises(DataError, match="nothing to evaluate"):
        evaluate(model(never), [], [])
    with pytest.raises(DataError, match="2 sources but 1 references"):
        evaluate(model(never), ["a", "b"], [["a"]])
    with pytest.raises(DataError, match="source 2 has no reference"):
        evaluate(model(never), ["a", "b"], [["a"], []])
    with pytest.raises(ConfigError, match="unknown metric"):
        evaluate(model(never), ["a"], [["a"]], metrics=["blue"])


def test_the_report_shows_everything_and_needs_nothing(tmp_path: Path) -> None:
    evaluate(model(worse), SOURCES, REFERENCES, metrics=["bleu", "chrf"], report_dir=tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    check_html(page)
    for part in ('id="scores"', 'id="length"', 'id="attention"', 'id="worst"', 'id="best"', 'id="settings"', "95 %: ", "tok:13a"):
        assert part in page
    assert "6 of 24 predictions hit the length limit" in page and "flagged unknown tokens" in page
    assert "<script" not in page and "&lt;script&gt;" in page
    assert page.count('<svg class="map"') == 4 and "beam_size: 3" in page
    worst, best = page.split('id="worst"')[1].split('id="best"')
    assert "KATZE" in worst.split("</li>")[0] and "KATZE" not in best.split("</li>")[0]
    assert json.loads((tmp_path / "report" / "evaluation.json").read_text())["sentences"] == 24
    lines = [json.loads(line) for line in (tmp_path / "report" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["source"] for line in lines] == SOURCES and lines[0]["prediction"] == worse(SOURCES[0])


def test_a_model_without_attention_is_said_to_have_none(tmp_path: Path) -> None:
    evaluate(model(attends=False), SOURCES, REFERENCES, metrics=["per"], report_dir=tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "This model has no attention" in page and '<svg class="map"' not in page
    assert "Ranked by similarity" in page


def test_one_sentence_is_enough_for_a_report(tmp_path: Path) -> None:
    evaluate(model(lambda _: ""), ["a"], ["b"], metrics=["exact_match"], report_dir=tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    check_html(page)
    assert "(empty)" in page


def test_error_rates_show_what_became_what(tmp_path: Path) -> None:
    result = evaluate(model(worse), SOURCES, REFERENCES, metrics=["chrf", "wer"], report_dir=tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    check_html(page)
    wrong = result.scores["wer"].details["substitutions"]
    assert sum(alignment.counts.substitutions for alignment in result.alignments()) == wrong
    assert f"{wrong:.0f} sub, " in page and 'id="errors"' in page
    pair = '<span class="pair substitution" title="substitution"><b>HUND</b><i>&lt;script&gt;</i></span>'
    assert pair in page.split('id="errors"')[1].split('id="worst"')[0] and pair in page.split('id="worst"')[1].split("</li>")[0]
    assert "substitutions 1, insertions 1, deletions 0 of words 6" in page
    best = page.split('id="best"')[1].split("</li>")[0]
    assert 'class="pair hit"' in best and 'class="pair' not in best.replace('class="pair hit"', ""), "what is right is not marked"
    plain = evaluate(model(worse), SOURCES, REFERENCES, metrics=["chrf"])
    assert plain.alignments() == []


def test_a_baseline_is_compared_by_paired_bootstrap(tmp_path: Path) -> None:
    evaluation = compare(evaluate(model(), SOURCES, REFERENCES, metrics=["chrf", "per"]), model(worse), name="old")
    assert evaluation.baseline is not None
    assert [test.verdict for test in evaluation.baseline.comparisons] == ["better", "better"]
    assert evaluation.to_dict()["baseline"] == "old"
    page = write_report(evaluation, model(), report_dir=tmp_path).read_text(encoding="utf-8")
    check_html(page)
    assert 'id="comparison"' in page and "Baseline: old" in page and 'class="dot s2"' in page
    same = compare(replace(evaluation, baseline=None), model(), name="same")
    assert same.baseline is not None and same.baseline.comparisons[0].p_value == 1


def test_learning_curves_come_from_the_run_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    journal, results = Journal(run), ResultsTable(run)
    for step in (10, 20):
        journal.write("step", {"step": step, "loss": 5 - step / 10})
        results.add(step, {"loss": 4.0, "bleu": float(step)})
    model_dir = run / "model"
    model_dir.mkdir()
    (model_dir / "model.safetensors").touch()
    (model_dir / "config.yaml").write_text("preset: transformer-tiny\n")
    assert find_run_folder(model_dir) == run and find_run_folder(run) == run and find_run_folder(tmp_path) is None
    evaluation = evaluate(model(), SOURCES, REFERENCES, metrics=["bleu"])
    page = write_report(evaluation, model(), report_dir=tmp_path / "report", paths=[model_dir]).read_text(encoding="utf-8")
    check_html(page)
    assert 'id="curves"' in page and "Loss per token" in page and "preset: transformer-tiny" in page
    assert 'id="curves"' not in write_report(evaluation, model(), report_dir=tmp_path / "other").read_text(encoding="utf-8")
