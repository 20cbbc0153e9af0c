"""Metrics against hand-made figures and against the libraries themselves."""

import itertools
import sys

import numpy as np
import pytest
import sacrebleu

from transduce.errors import ConfigError, DataError
from transduce.metrics import METRICS, compute_metrics, find_metric, paired_bootstrap
from transduce.metrics.by_length import score_by_length
from transduce.metrics.edits import EditCounts, count_edits, sentence_similarity
from transduce.metrics.overlap import sentence_chrf

PREDICTIONS = ["A man rides a horse.", "The cat sits on a mat.", "Two dogs run in the snow."]
REFERENCES = [["A man is riding a horse."], ["The cat sat on the mat."], ["Two dogs run through the snow."]]
BEST = {name: 100.0 if metric.better == "higher" else 0.0 for name, metric in METRICS.items()} | {"cider": 1000.0}


@pytest.mark.parametrize("name", METRICS)
def test_perfect_predictions_reach_the_best_value(name: str) -> None:
    texts = ["Ein Mann reitet auf einem Pferd .", "Die Katze sitzt auf der Matte ."]
    score = METRICS[name](texts, [[text] for text in texts])
    assert score.value == pytest.approx(BEST[name])
    assert score.name == name and score.better == METRICS[name].better


@pytest.mark.parametrize("name", METRICS)
def test_one_reference_is_scored_worse_than_two_of_which_one_fits(name: str) -> None:
    ragged = [[REFERENCES[0][0], PREDICTIONS[0]], REFERENCES[1], [PREDICTIONS[2], "Another text.", REFERENCES[2][0]]]
    one, several = METRICS[name](PREDICTIONS, REFERENCES), METRICS[name](PREDICTIONS, ragged)
    assert (several.value > one.value) == (METRICS[name].better == "higher") and several.value != one.value
    assert "nrefs:1" in one.signature and "nrefs:var" in several.signature


@pytest.mark.parametrize("name", METRICS)
def test_interval_holds_the_value_and_is_the_same_every_time(name: str) -> None:
    predictions, references = PREDICTIONS * 5 + ["A man is riding a horse."] * 5, REFERENCES * 5 + [REFERENCES[0]] * 5
    first, second = (METRICS[name](predictions, references, resamples=200) for _ in range(2))
    assert first.interval is not None and first.interval == second.interval
    low, high = first.interval
    assert low < first.value < high
    assert "bs:200" in first.signature and "seed:12345" in first.signature
    assert METRICS[name](predictions, references).interval is None


def test_sacrebleu_figures_are_those_of_the_library() -> None:
    columns = [[texts[0] for texts in REFERENCES]]
    scores = compute_metrics(["bleu", "chrf", "ter"], PREDICTIONS, REFERENCES)
    assert scores["bleu"].value == pytest.approx(sacrebleu.corpus_bleu(PREDICTIONS, columns).score)
    assert scores["chrf"].value == pytest.approx(sacrebleu.corpus_chrf(PREDICTIONS, columns).score)
    assert scores["ter"].value == pytest.approx(sacrebleu.corpus_ter(PREDICTIONS, columns).score)
    assert "tok:13a" in scores["bleu"].signature and "case:mixed" in scores["bleu"].signature


def test_a_score_of_zero_has_an_interval() -> None:
    assert METRICS["bleu"](["x"], [["a b c d e"]], resamples=50).interval == (0.0, 0.0)


def test_bleu_says_when_predictions_look_tokenized() -> None:
    texts = ["A man rides ."] * 100
    assert "note" in METRICS["bleu"](texts, [[text] for text in texts]).details
    assert "note" not in METRICS["bleu"](texts[:99], [[text] for text in texts[:99]]).details


def test_word_and_character_error_rates_are_of_the_corpus() -> None:
    predictions, references = ["a b x", "d"], [["a b c"], ["d e f g"]]
    scores = compute_metrics(["wer", "cer", "per"], predictions, references)
    assert scores["wer"].value == pytest.approx(100 * 4 / 7)  # 1 substitution + 3 deletions over 7 words
    assert scores["wer"].details["substitutions"] == 1 and scores["wer"].details["deletions"] == 3
    assert scores["wer"].details["hits"] == 3 and scores["wer"].details["insertions"] == 0
    assert scores["per"].value == scores["wer"].value
    assert scores["cer"].value == pytest.approx(100 * 7 / 12)


def test_closest_reference_of_equals_is_the_longest() -> None:
    score = METRICS["per"](["a b c"], [["a b", "a b c d"]])
    assert score.value == pytest.approx(25)


@pytest.mark.parametrize("name", ["wer", "cer", "per"])
def test_empty_references_and_predictions_are_counted(name: str) -> None:
    assert METRICS[name](["", "a"], [["a"], [""]]).value == pytest.approx(200)
    assert METRICS[name](["a"], [[""]]).value == pytest.approx(100)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("kitten", "sitting", EditCounts(4, 2, 0, 1)),
        ("", "abc", EditCounts(0, 0, 0, 3)),
        ("abc", "", EditCounts(0, 0, 3, 0)),
        ("abc", "abc", EditCounts(3, 0, 0, 0)),
        ("xabc", "abc", EditCounts(3, 0, 1, 0)),
    ],
)
def test_count_edits(prediction: str, reference: str, expected: EditCounts) -> None:
    assert count_edits(prediction, reference) == expected


def test_edit_counts_agree_with_jiwer_on_random_texts() -> None:
    generator = np.random.default_rng(1)
    texts = [" ".join(generator.choice(list("abcd"), size=size)) for size in generator.integers(1, 12, size=80)]
    scores = compute_metrics(["wer", "per"], texts[:40], [[text] for text in texts[40:]])
    assert scores["wer"].value == pytest.approx(scores["per"].value)


def test_exact_match_ignores_space_around_only() -> None:
    score = METRICS["exact_match"](["a b ", "A", "c"], [["a b"], ["a"], ["b", "c"]])
    assert score.value == pytest.approx(200 / 3) and score.details["matches"] == 2


def test_rouge_figures() -> None:
    scores = compute_metrics(["rouge1", "rouge2", "rougeL"], ["the cat sat"], [["the cat ran and sat"]])
    assert scores["rouge1"].value == pytest.approx(100 * 2 * 1.0 * 0.6 / 1.6)
    assert scores["rouge2"].value == pytest.approx(100 * 2 * 0.5 * 0.25 / 0.75)
    assert scores["rougeL"].value == pytest.approx(100 * 2 * 1.0 * 0.6 / 1.6)


def test_rouge_reads_every_script() -> None:
    assert METRICS["rouge1"](["für die Straße"], [["Für die Straße!"]]).value == pytest.approx(100)
    assert METRICS["rouge1"](["καλημέρα κόσμε"], [["καλημέρα φίλε"]]).value == pytest.approx(50)


@pytest.mark.parametrize(("name", "module"), [("wer", "jiwer"), ("cer", "jiwer"), ("rougeL", "rouge_score.rouge_scorer")])
def test_a_missing_extra_names_the_install_line(monkeypatch: pytest.MonkeyPatch, name: str, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r'pip install "transduce\[metrics\]"'):
        METRICS[name](["a"], [["a"]])


def test_unknown_names_get_the_nearest_spelling() -> None:
    with pytest.raises(ConfigError, match="did you mean 'bleu'"):
        find_metric("blue")
    with pytest.raises(ConfigError, match="exact_match"):
        compute_metrics(["qqqq"], ["a"], [["a"]])


@pytest.mark.parametrize("name", METRICS)
def test_bad_inputs_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="nothing to score"):
        METRICS[name]([], [])
    with pytest.raises(DataError, match="2 predictions but 1"):
        METRICS[name](["a", "b"], [["a"]])
    with pytest.raises(DataError, match=r"references\[1\] is empty"):
        compute_metrics([name], ["a", "b"], [["a"], []])
    with pytest.raises(DataError, match="list of texts"):
        compute_metrics([name], ["a"], ["a"])


@pytest.mark.parametrize("name", METRICS)
def test_paired_bootstrap_tells_a_better_system_from_an_equal_one(name: str) -> None:
    words = ["a", "man", "on", "horse", "rides", "the", "big", "street", "in", "every", "town"]
    generator = np.random.default_rng(3)
    texts = [" ".join(generator.choice(words, size=8)) for _ in range(30)]
    references = [[text] for text in texts]
    worse = [" ".join(["x", "y", *text.split()[:4]]) if index % 3 else text for index, text in enumerate(texts)]
    better = paired_bootstrap(name, texts, worse, references=references, resamples=200)
    assert better.verdict == "better" and better.p_value < 0.05 and better.value == pytest.approx(BEST[name])
    assert paired_bootstrap(name, worse, texts, references=references, resamples=200).verdict == "worse"
    same = paired_bootstrap(name, worse, worse, references=references, resamples=200)
    assert same.p_value == 1 and same.verdict == "no clear difference" and same.difference == 0


def test_a_small_difference_is_not_significant() -> None:
    texts = [f"word{index} a b c" for index in range(20)]
    references = [[text] for text in texts]
    first = ["wrong", *texts[1:]]
    second = [texts[0], "wrong", *texts[2:]]
    comparison = paired_bootstrap("chrf", first, second, references=references, resamples=200)
    assert comparison.verdict == "no clear difference"
    assert comparison.to_dict()["baseline"] == comparison.baseline


def test_sentence_scores_rank_examples() -> None:
    predictions, references = ["a b c d", "a b x d", "q"], [["a b c d"]] * 3
    for rank in (sentence_chrf, sentence_similarity):
        scores = rank(predictions, references)
        assert scores[0] == pytest.approx(100) and scores[0] > scores[1] > scores[2]
    assert sentence_similarity(["abcd"], [["abxd"]]) == [75]


def test_score_by_length_covers_every_sentence_once() -> None:
    sources = [" ".join(["w"] * size) for size in [3, 3, 3, 4, 5, 6, 7, 9, 12, 30]]
    predictions = ["right" if len(source.split()) < 7 else "wrong" for source in sources]
    groups = score_by_length("exact_match", sources, predictions=predictions, references=[["right"]] * 10, num_groups=3)
    assert sum(group.count for group in groups) == 10
    assert all(before.high < after.low for before, after in itertools.pairwise(groups))
    assert groups[0].low == 3 and groups[-1].high == 30 and groups[0].unit == "words"
    assert groups[0].score.value == 100 and groups[-1].score.value < 50
    short = score_by_length("exact_match", ["ab", "abc"], predictions=["right"] * 2, references=[["right"]] * 2)
    assert [group.label for group in short] == ["2", "3"] and short[0].unit == "characters"


def test_an_interval_where_some_resamples_match_nothing() -> None:
    """Two short sentences of which one shares no word: some resamples score exactly zero."""
    predictions, references = ["a b c d e", "x"], [["a b c d e"], ["q"]]
    for name in ("bleu", "chrf", "ter"):
        low, high = compute_metrics([name], predictions, references, resamples=50)[name].details["interval"]
        assert 0 <= low <= high
