"""Caption metrics against figures worked out by hand and examples of the papers that define them."""

import math

import pytest

from transduce.metrics import compute_metrics
from transduce.metrics.captions import caption_words, longest_common, reuse_rate, sentence_cider, vocabulary_use


def value(name: str, predictions: list[str], references: list[list[str]]) -> float:
    return compute_metrics([name], predictions, references)[name].value


def test_words_of_captions() -> None:
    assert caption_words("Two dogs , one RED-hot ball .") == ["two", "dogs", "one", "red-hot", "ball"]
    assert caption_words("The man’s dog isn't here; he doesn't care!") == [
        *("the", "man", "'s", "dog", "is", "n't", "here", "he", "does", "n't", "care"),
    ]
    assert caption_words("Ein Mädchen läuft über die Straße 7") == ["ein", "mädchen", "läuft", "über", "die", "straße", "7"]
    assert caption_words(" . _ ' ") == []


def test_bleu_clips_counts_over_all_references() -> None:
    """Papineni 2002, example 2: seven times "the" matches twice, the most that one reference has."""
    references = [["The cat is on the mat.", "There is a cat on the mat."]]
    assert value("coco_bleu1", ["the the the the the the the"], references) == pytest.approx(100 * 2 / 7, abs=1e-4)


def test_bleu_counts_the_closest_reference_and_of_two_the_shorter() -> None:
    prediction = ["a dog runs"]
    assert value("coco_bleu1", prediction, [["a dog runs fast", "a dog"]]) == pytest.approx(100, abs=1e-4)
    assert value("coco_bleu1", prediction, [["a dog runs very fast"]]) == pytest.approx(100 * math.exp(1 - 5 / 3), abs=1e-4)


def test_bleu_is_of_the_corpus_not_the_mean_of_sentences() -> None:
    predictions, references = ["a b c d", "a b x y z"], [["a b c d"], ["a b c d e"]]
    precisions = (6 / 9, 4 / 7, 2 / 5, 1 / 3)  # 1- to 4-grams over both sentences
    for order in range(1, 5):
        expected = math.prod(precisions[:order]) ** (1 / order)
        assert value(f"coco_bleu{order}", predictions, references) == pytest.approx(100 * expected, abs=1e-4)


def test_rouge_l_of_its_paper() -> None:
    """Lin 2004, section 3.1: S2 shares "police the gunman" with S1, S3 only "the gunman"."""
    first = [["police killed the gunman"]]
    assert longest_common(["police", "kill", "the", "gunman"], ["police", "killed", "the", "gunman"]) == 3
    assert value("coco_rougeL", ["police kill the gunman"], first) == pytest.approx(75)
    assert value("coco_rougeL", ["the gunman kill police"], first) == pytest.approx(50)


def test_rouge_l_takes_the_best_precision_and_the_best_recall() -> None:
    references = [["a dog runs over the green grass", "a dog"]]
    precision, recall = 3 / 3, 2 / 2  # of the long one, of the short one
    assert value("coco_rougeL", ["a dog runs"], references) == pytest.approx(100 * 2.44 * precision * recall / (recall + 1.44 * precision))
    one = 2.44 * 1 * (3 / 7) / (3 / 7 + 1.44)
    assert value("coco_rougeL", ["a dog runs"], [references[0][:1]]) == pytest.approx(100 * one)


def test_cider_by_hand() -> None:
    """Two pictures: "a" is in both and weighs nothing, "cat" and "a cat" weigh log 2; there are no 3- and 4-grams."""
    references = [["a cat"], ["a dog"]]
    assert sentence_cider(["a cat", "a dog"], references) == pytest.approx([500, 500])
    assert sentence_cider(["cat cat", "a"], references) == pytest.approx([125, 0]), "a repeated word counts once: CIDEr-D's clipping"
    assert sentence_cider(["cat", "dog"], references) == pytest.approx([250 * math.exp(-1 / 72)] * 2), "one word shorter"
    several = [["a cat", "the red bird"], ["a dog"]]
    assert sentence_cider(["a cat", "a dog"], several)[0] == pytest.approx(250), "the mean over references"
    assert value("cider", ["a cat", "a"], references) == pytest.approx(250)


def test_cider_weighs_rare_words_more() -> None:
    references = [["a cat sits"], ["a dog sits"], ["a cow lies"]]
    common, rare = math.log(3 / 2), math.log(3)
    own, other = (0, rare, common), (0, 0, common)  # a, cat, sits
    cosine = common * common / (math.hypot(*own) * math.hypot(*other, rare))
    assert sentence_cider(["a cow sits", "", ""], references)[0] == pytest.approx(1000 * cosine / 4)


def test_a_whole_match_of_four_words_or_more_is_a_thousand() -> None:
    texts = ["a small red dog runs", "two people sit on a bench"]
    assert value("cider", texts, [[text] for text in texts]) == pytest.approx(1000)


def test_reuse_and_vocabulary() -> None:
    training = ["A dog runs .", "A cat sleeps."]
    assert reuse_rate(["a dog runs", "a dog sleeps"], training) == 0.5
    assert vocabulary_use(["a dog", "a dog"], [["a dog runs", "a cat"], ["two dogs"]]) == (2, 6)
