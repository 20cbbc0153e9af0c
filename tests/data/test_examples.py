"""Readers: every form, line ends that are none, and each kind of bad record in both modes."""

import gzip
import io
import json
from pathlib import Path

import pytest

from transduce.data.examples import CorpusConfig, read_pairs
from transduce.data.lines import read_lines
from transduce.data.report import DataReport
from transduce.errors import ConfigError, DataError


def aligned(folder: Path, source: bytes, target: bytes) -> CorpusConfig:
    (folder / "a.src").write_bytes(source)
    (folder / "a.tgt").write_bytes(target)
    return CorpusConfig(source=folder / "a.src", target=folder / "a.tgt")


def single(folder: Path, name: str, content: bytes, **columns: object) -> CorpusConfig:
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return CorpusConfig(path=folder / name, **columns)


def pairs(corpus: CorpusConfig, errors: str = "strict", report: DataReport | None = None) -> list[tuple[str, str]]:
    return [record.texts for record in read_pairs(corpus, errors=errors, report=report or DataReport())]


def test_aligned_files_with_and_without_the_last_line_end(tmp_path):
    assert pairs(aligned(tmp_path, b"a\nb\n", b"x\ny")) == [("a", "x"), ("b", "y")]


def test_only_newlines_part_lines(tmp_path):
    odd = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei\rj"
    corpus = aligned(tmp_path, f"{odd}\nsecond\n".encode(), b"1\r\n2\r\n")
    assert pairs(corpus) == [(odd, "1"), ("second", "2")]


def test_gz_of_each_form(tmp_path):
    for name in ("s.gz", "t.gz"):
        (tmp_path / name).write_bytes(gzip.compress(f"{name[0]}1\n{name[0]}2\n".encode()))
    expected = [("s1", "t1"), ("s2", "t2")]
    assert pairs(CorpusConfig(source=tmp_path / "s.gz", target=tmp_path / "t.gz")) == expected
    assert pairs(single(tmp_path, "x.tsv.gz", b"s1\tt1\ns2\tt2\n")) == expected
    lines = "".join(json.dumps({"source": s, "target": t}) + "\n" for s, t in expected)
    assert pairs(single(tmp_path, "x.jsonl.gz", lines.encode())) == expected


def test_columns_by_number_and_by_name(tmp_path):
    assert pairs(single(tmp_path, "n.tsv", b"0\ta\tb\n1\tc\td\n", source=2, target="1")) == [("b", "a"), ("d", "c")]
    assert pairs(single(tmp_path, "h.tsv", b"id\ten\tde\n7\ta\tb\n", source="en", target="de")) == [("a", "b")]
    with pytest.raises(DataError, match=r"h.tsv:1: no column called 'fr'; the header has 'id', 'en', 'de'"):
        pairs(CorpusConfig(path=tmp_path / "h.tsv", source="en", target="fr"))


def test_json_fields(tmp_path):
    line = json.dumps({"q": "a\tb\nc\u2028", "a": "x"}, ensure_ascii=False) + "\n"
    assert pairs(single(tmp_path, "x.jsonl", line.encode(), source="q", target="a")) == [("a\tb\nc\u2028", "x")]


BAD_LINES = [
    (b"a\nb\nc\n", b"1\n2\n", "unpaired line", 3),
    (b"a\nb\n", b"1\n2\n3\n", "unpaired line", 3),
    (b"a\n\xff\n", b"1\n2\n", "invalid UTF-8", 2),
    (b"a\nb\n", b"1\n\xc3\n", "invalid UTF-8", 2),
    (b"a\n\0\n", b"1\n2\n", "NUL character", 2),
    (b"a\n \n", b"1\n2\n", "empty source", 2),
    (b"a\nb\n", b"1\n\n", "empty target", 2),
]
BAD_RECORDS = [
    ("x.tsv", b"a\t1\nb\n", "wrong number of columns"),
    ("x.tsv", b"a\t1\nb\t2\t3\n", "wrong number of columns"),
    ("x.jsonl", b'{"source": "a", "target": "1"}\n{"source": "b"\n', "invalid JSON"),
    ("x.jsonl", b'{"source": "a", "target": "1"}\n["b", "2"]\n', "invalid JSON"),
    ("x.jsonl", b'{"source": "a", "target": "1"}\n' + b"[" * 100_000 + b"\n", "invalid JSON"),
    ("x.jsonl", b'{"source": "a", "target": "1"}\n{"source": "b"}\n', "missing field"),
    ("x.jsonl", b'{"source": "a", "target": "1"}\n{"source": "b", "target": 2}\n', "field is not text"),
    ("x.jsonl", b'{"source": "a", "target": "1"}\n{"source": "b", "target": "\\u0000"}\n', "NUL character"),
    ("x.jsonl", b'{"source": "a", "target": "1"}\n{"source": "b", "target": "\\ud800"}\n', "invalid Unicode"),
]


def assert_refused_or_counted(corpus: CorpusConfig, reason: str, line: int) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        pairs(corpus)
    assert caught.value.exit_code == 65
    assert caught.value.line == line
    assert f":{line}: " in str(caught.value)
    report = DataReport()
    kept = pairs(corpus, "tolerant", report)
    entry = report.corpora[0]
    assert kept[0] == ("a", "1")
    assert {name: found.count for name, found in entry.skipped.items()} == {reason: 1}
    assert entry.skipped[reason].places[0].endswith(f":{line}")
    assert entry.kept == len(kept) == entry.read - 1


@pytest.mark.parametrize(("source", "target", "reason", "line"), BAD_LINES)
def test_bad_lines(tmp_path, source, target, reason, line):
    assert_refused_or_counted(aligned(tmp_path, source, target), reason, line)


@pytest.mark.parametrize(("name", "content", "reason"), BAD_RECORDS)
def test_bad_records(tmp_path, name, content, reason):
    assert_refused_or_counted(single(tmp_path, name, content), reason, 2)


def test_the_error_names_the_file_at_fault(tmp_path):
    with pytest.raises(DataError, match=r"a\.tgt:2: invalid UTF-8: byte 0xff at byte 3 of the line"):
        pairs(aligned(tmp_path, b"a\nb\n", b"1\nok\xff\n"))


def test_utf16_is_recognised(tmp_path):
    with pytest.raises(DataError, match="looks like UTF-16"):
        pairs(aligned(tmp_path, "a\n".encode("utf-16"), b"1\n"))


def test_byte_order_mark_is_taken_off_and_noted(tmp_path):
    report = DataReport()
    corpus = aligned(tmp_path, b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", b"1\n2\n")
    assert pairs(corpus, report=report) == [("a", "1"), ("\ufeffb", "2")]
    assert report.corpora[0].noted["byte order mark removed"].count == 1
    assert any("byte order mark removed" in line for line in report.lines())


def test_validation_keeps_and_notes_empty_ends(tmp_path):
    report = DataReport()
    corpus = aligned(tmp_path, b"a\n\n", b"1\n2\n")
    assert len(list(read_pairs(corpus, errors="strict", report=report, keep_empty=True))) == 2
    assert report.corpora[0].noted["pairs with an empty end, kept"].places == [f"{tmp_path}/a.src:2"]


def test_counts_are_exact_where_places_are_few(tmp_path):
    report = DataReport()
    assert pairs(aligned(tmp_path, b"\n" * 40, b"1\n" * 40), "tolerant", report) == []
    assert report.corpora[0].skipped["empty source"].count == 40
    assert len(report.corpora[0].skipped["empty source"].places) == 5


def test_missing_file_folder_and_damaged_gzip(tmp_path):
    with pytest.raises(DataError, match=r"nothing.en: no such file"):
        pairs(CorpusConfig(source=tmp_path / "nothing.en", target=tmp_path / "nothing.de"))
    with pytest.raises(DataError, match="not a regular file"):
        list(read_lines(tmp_path))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"abc\n" * 1000)[:-9])
    with pytest.raises(DataError, match="damaged gzip"):
        list(read_lines(tmp_path / "cut.gz"))
    (tmp_path / "plain.gz").write_bytes(b"abc\n")
    with pytest.raises(DataError, match="damaged gzip"):
        list(read_lines(tmp_path / "plain.gz"))


def test_read_lines_gives_as_many_texts_as_lines(tmp_path, monkeypatch):
    content = "a\n\n\u2028 \x0b\r\nlast\0".encode()
    (tmp_path / "in.txt").write_bytes(content)
    expected = ["a", "", "\u2028 \x0b", "last\0"]
    assert list(read_lines(tmp_path / "in.txt")) == expected
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert list(read_lines(None)) == expected
    (tmp_path / "bad.txt").write_bytes(b"a\n\xff\n")
    with pytest.raises(DataError, match=r"bad.txt:2: invalid UTF-8"):
        list(read_lines(tmp_path / "bad.txt"))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"source": "a"}, "needs `source` and `target`"),
        ({"path": "data.txt"}, "cannot tell the format"),
        ({"path": "a.tsv", "format": "lines"}, "not `path`"),
        ({"source": "a", "target": "b", "format": "tsv"}, "needs `path`"),
    ],
)
def test_incomplete_corpora_are_refused(tree, message):
    with pytest.raises(ConfigError, match=message):
        CorpusConfig(**tree)


def test_format_follows_the_ending_unless_given():
    assert CorpusConfig(path=Path("x.ndjson.gz")).resolved_format == "jsonl"
    assert CorpusConfig(path=Path("x.tab")).resolved_format == "tsv"
    assert CorpusConfig(path=Path("x.tsv"), format="jsonl").resolved_format == "jsonl"
