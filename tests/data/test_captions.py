"""Caption files as data sets publish them: every picture once, with all its captions."""

import json
from pathlib import Path

import pytest

from transduce.data.examples import CorpusConfig, Reading, Record, read_pairs
from transduce.data.report import DataReport
from transduce.data.values import Media
from transduce.errors import ConfigError, DataError

PICTURES = Reading(source="media")
TOKENS = "b.jpg#0\tA dog .\nb.jpg#1\tTwo dogs .\na.jpg#0\tA cat .\nc.jpg#0\tA cow .\nc.jpg#1\tGrass .\n"


def records(corpus: CorpusConfig, report: DataReport | None = None, errors: str = "strict") -> list[Record]:
    return list(read_pairs(corpus, errors=errors, report=report or DataReport(), reading=PICTURES))  # type: ignore[arg-type]


def flickr(folder: Path, text: str = TOKENS, **settings: object) -> CorpusConfig:
    (folder / "tokens.txt").write_text(text, encoding="utf-8")
    return CorpusConfig.model_validate({"path": folder / "tokens.txt", "format": "flickr8k", "media": folder / "pictures", **settings})


def test_a_token_file_gives_each_picture_with_its_captions(tmp_path: Path) -> None:
    found = records(flickr(tmp_path))
    assert [record.source for record in found] == [Media(tmp_path / "pictures" / f"{name}.jpg") for name in "bac"]
    assert [record.targets for record in found] == [("A dog .", "Two dogs ."), ("A cat .",), ("A cow .", "Grass .")]
    assert [record.place.rpartition(":")[2] for record in found] == ["1", "3", "4"]


def test_a_list_chooses_the_pictures_of_a_split(tmp_path: Path) -> None:
    (tmp_path / "split.txt").write_text("c.jpg\na.jpg\n", encoding="utf-8")
    report = DataReport()
    found = records(flickr(tmp_path, only=tmp_path / "split.txt"), report)
    assert [record.targets[0] for record in found] == ["A cat .", "A cow ."]
    assert report.corpora[0].noted["pictures that `only` does not name, left out"].count == 1
    (tmp_path / "split.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="must name the pictures"):
        records(flickr(tmp_path, only=tmp_path / "split.txt"))


def test_lines_that_are_no_captions_are_named_or_counted(tmp_path: Path) -> None:
    corpus = flickr(tmp_path, TOKENS + "d.jpg A line without a tab\ne.jpg#x\tno number\nf.jpg#0\t \n")
    with pytest.raises(DataError, match=r"tokens\.txt:6: not a caption"):
        records(corpus)
    report = DataReport()
    assert len(records(corpus, report, errors="tolerant")) == 3
    assert {reason: entry.count for reason, entry in report.corpora[0].skipped.items()} == {"not a caption": 2, "empty target": 1}


def test_coco_captions(tmp_path: Path) -> None:
    tree = {
        "images": [{"id": 7, "file_name": "x.jpg"}, {"id": 3, "file_name": "ä.jpg"}, {"id": 9, "file_name": "none.jpg"}],
        "annotations": [{"image_id": 3, "caption": "Ein Hund"}, {"image_id": 7, "caption": "A"}, {"image_id": 3, "caption": "Hunde"}],
    }
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    corpus = CorpusConfig(path=path, format="coco")
    assert [(record.source, record.targets) for record in records(corpus)] == [
        (Media(tmp_path / "x.jpg"), ("A",)),
        (Media(tmp_path / "ä.jpg"), ("Ein Hund", "Hunde")),
    ]
    for wrong, said in (
        ("[]", "not a file of COCO captions"),
        ("{", "not a file of COCO captions"),
        ('{"images": []}', "there is no 'annotations'"),
        ('{"images": [], "annotations": [{"image_id": 4, "caption": "x"}]}', "there is no 4"),
        ('{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": []}', "same id"),
    ):
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(DataError, match=said):
            records(corpus)


def test_only_and_path_belong_to_caption_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`only` is for"):
        CorpusConfig(path=tmp_path / "x.jsonl", only=tmp_path / "list")
    with pytest.raises(ConfigError, match="needs `path`"):
        CorpusConfig(source="a", target="b", format="coco")
