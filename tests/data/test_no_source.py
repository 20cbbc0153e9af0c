"""Targets without sources: how they are read, what their codec does, and codecs that another model has stored."""

import gzip
from pathlib import Path

import pytest
import torch

from transduce.data.codec import fit_codec, load_codec, stored_codec
from transduce.data.examples import CorpusConfig, Reading, read_pairs
from transduce.data.loader import DataConfig, prepare
from transduce.data.no_source import NoSourceCodec, NoSourceConfig
from transduce.data.report import DataReport
from transduce.data.text import CharactersConfig, SentencePieceConfig, StoredConfig, WordsConfig, fit_text_codec
from transduce.data.values import Media
from transduce.errors import CheckpointError, ConfigError, DataError

ALONE = Reading(source="nothing")
TEXTS = ["to be or not", "to be", "that is"]


def targets(corpus: CorpusConfig, report: DataReport | None = None, errors: str = "strict") -> list[str]:
    records = list(read_pairs(corpus, errors=errors, report=report or DataReport(), reading=ALONE))
    assert all(record.source == "" for record in records)
    return [str(target) for record in records for target in record.targets]


def test_targets_alone_are_read_from_every_form_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    with gzip.open(tmp_path / "a.txt.gz", "wt", encoding="utf-8") as file:
        file.writelines(f"{text}\n" for text in TEXTS)
    (tmp_path / "a.jsonl").write_text("".join(f'{{"audio": "x.wav", "text": "{text}"}}\n' for text in TEXTS), encoding="utf-8")
    (tmp_path / "a.tsv").write_text("id\ttext\n" + "".join(f"{text[:1]}\t{text}\n" for text in TEXTS), encoding="utf-8")
    (tmp_path / "b.tsv").write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    corpora = [
        CorpusConfig(target=tmp_path / "a.txt"),
        CorpusConfig(target=tmp_path / "a.txt.gz"),
        CorpusConfig(path=tmp_path / "a.jsonl", target="text"),
        CorpusConfig(path=tmp_path / "a.tsv", target="text"),
        CorpusConfig(path=tmp_path / "b.tsv", target=0),
    ]
    for corpus in corpora:
        assert targets(corpus) == TEXTS
    with pytest.raises(DataError, match=r"a\.jsonl:1: missing field: no 'target'"):
        targets(CorpusConfig(path=tmp_path / "a.jsonl"))


def test_a_blank_target_is_bad_and_a_missing_source_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("to be\n \n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.txt:2: empty target"):
        targets(CorpusConfig(target=tmp_path / "a.txt"))
    report = DataReport()
    assert targets(CorpusConfig(target=tmp_path / "a.txt"), report, "tolerant") == ["to be"]
    assert report.corpora[0].skipped["empty target"].count == 1 and not report.corpora[0].noted


def test_a_source_is_wanted_where_there_ought_to_be_one_and_nowhere_else() -> None:
    alone, pair = {"target": "a.txt"}, {"source": "a.src", "target": "a.tgt"}
    with pytest.raises(ConfigError, match=r"a\.txt: a corpus needs `source` and `target`.* only a language model"):
        DataConfig.model_validate({"train": pair, "valid": alone})
    with pytest.raises(ConfigError, match=r"a\.src \+ a\.tgt: leave out `source`, because data.source_codec.kind = none"):
        DataConfig.model_validate({"train": alone, "valid": pair, "source_codec": {"kind": "none"}})
    assert DataConfig.model_validate({"train": alone, "valid": alone, "source_codec": {"kind": "none"}}).train[0].name == "a.txt"


def test_nothing_goes_in_and_nothing_comes_out(tmp_path: Path) -> None:
    codec = fit_codec(NoSourceConfig(), (), 0)
    codec.save(tmp_path)
    assert load_codec(tmp_path).digest == codec.digest and codec.check(["", ""]) is None
    rows = codec.rows(["", "a text", Media(Path("x.wav"))])
    assert [row.width for row in rows] == [1, 0, 0]
    assert rows[1].problem is not None and "'a text'" in str(rows[1].problem) and "x.wav" in str(rows[2].problem)
    padded = NoSourceCodec().collate([rows[0].data] * 3, None)
    assert padded.data.shape == (3, 1) and padded.lengths.tolist() == [1, 1, 1]
    assert codec.flags("", rows[0].data) == () and codec.labels(rows[0].data) == []


def test_the_loader_batches_targets_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"{text}\n" for text in TEXTS * 5), encoding="utf-8")
    corpus = {"target": tmp_path / "a.txt"}
    ends = {"source_codec": {"kind": "none"}, "target_codec": {"kind": "characters"}}
    config = DataConfig.model_validate(
        {"train": corpus, "valid": corpus, "cache_dir": tmp_path / "cache", "max_target_tokens": 20} | {"max_tokens_per_batch": 40, **ends}
    )
    said: list[str] = []
    data = prepare(config, 1, say=said.append)
    batches = list(data.train.batches(0))
    assert sum(len(batch.ids) for batch in batches) == 15
    assert all(batch.target.data.numel() <= 40 and batch.source.data.shape == (len(batch.ids), 1) for batch in batches)
    written = {data.target_codec.decode(row.tolist()) for batch in batches for row in batch.target.data}  # type: ignore[attr-defined]
    assert written == set(TEXTS)
    assert not any("source tokens" in line for line in said) and torch.equal(batches[0].source.lengths, torch.ones(len(batches[0].ids)))


KINDS = [CharactersConfig(), WordsConfig(), SentencePieceConfig(vocabulary_size=280)]


@pytest.mark.parametrize("config", KINDS, ids=lambda config: config.kind)
def test_a_codec_of_every_kind_is_taken_over_from_where_a_model_keeps_it(config, tmp_path: Path) -> None:
    codec = fit_text_codec(config, TEXTS, seed=1)
    for place in ("directory/target", "finished/model/target", "unfinished/checkpoints/step-00000002/target"):
        codec.save(tmp_path / place)
        taken = fit_codec(StoredConfig(path=tmp_path / place.split("/")[0]), (), 1)
        assert (taken.kind, taken.digest) == (codec.kind, codec.digest)


def test_a_stored_codec_that_is_not_there_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere is neither a run folder with a model nor .*nowhere/target") as caught:
        stored_codec(tmp_path / "nowhere")
    assert caught.value.exit_code == 74
    NoSourceCodec().save(tmp_path / "odd" / "target")
    with pytest.raises(ConfigError, match=r"the target of .*odd is none, not text"):
        stored_codec(tmp_path / "odd")
