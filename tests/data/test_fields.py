"""Fields as the two ends read them: numbers, several targets, and what is wrong with each."""

import json
from pathlib import Path
from typing import Any

import pytest

from transduce.data.examples import CorpusConfig, Reading, read_pairs
from transduce.data.report import DataReport
from transduce.errors import DataError

NUMBERS = Reading("text", "frames")


def lines(folder: Path, *records: dict[str, Any]) -> CorpusConfig:
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return CorpusConfig(path=path)


def test_a_list_of_texts_is_several_targets(tmp_path):
    corpus = lines(tmp_path, {"source": "a", "target": ["b", "c"]}, {"source": "d", "target": "e"})
    records = list(read_pairs(corpus, errors="strict", report=DataReport()))
    assert [(record.source, record.targets) for record in records] == [("a", ("b", "c")), ("d", ("e",))]


def test_several_sources_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"several sources.*only the target"):
        list(read_pairs(lines(tmp_path, {"source": ["a", "b"], "target": "b"}), errors="strict", report=DataReport()))


def test_frames_of_numbers(tmp_path):
    corpus = lines(tmp_path, {"source": "a", "target": [[1, 2.5], [3, 4]]})
    (record,) = read_pairs(corpus, errors="strict", report=DataReport(), reading=NUMBERS)
    assert record.targets[0].values.tolist() == [[1, 2.5], [3, 4]]
    table = tmp_path / "pairs.tsv"
    table.write_text("a\t[[1, 2]]\n")
    (record,) = read_pairs(CorpusConfig(path=table), errors="strict", report=DataReport(), reading=NUMBERS)
    assert record.targets[0].values.tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("x", "not numbers"),
        ([[1, 2], [3]], "not numbers"),
        ([1, 2], "not a track"),
        ([], "not a track"),
        ([[float("nan")]], "not finite"),
        ([[1e60]], "not finite"),
        (None, "not a track|not numbers"),
    ],
)
def test_bad_numbers_are_named(tmp_path, target, reason):
    corpus = lines(tmp_path, {"source": "a", "target": target}, {"source": "b", "target": [[1]]})
    with pytest.raises(DataError, match=reason) as caught:
        list(read_pairs(corpus, errors="strict", report=DataReport(), reading=NUMBERS))
    assert "pairs.jsonl:1" in str(caught.value)
    report = DataReport()
    assert len(list(read_pairs(corpus, errors="tolerant", report=report, reading=NUMBERS))) == 1
    assert sum(entry.count for entry in report.corpora[0].skipped.values()) == 1
