"""From files to batches: content, order, mixing, caching, damage, and what the report says."""

import gzip
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

import transduce.data.loader as loader_module
from transduce.data.cache import Cache
from transduce.data.examples import CorpusConfig
from transduce.data.loader import DataConfig, Loader, PreparedData, prepare
from transduce.data.report import CorpusReport
from transduce.data.store import META
from transduce.errors import ConfigError, DataError, StorageError


def write(path: Path, lines: list[str]) -> str:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


def corpus(folder: Path, name: str, count: int, **options: object) -> dict[str, object]:
    sources = [f"{name} {'ab' * (number % 9)} {number}" for number in range(count)]
    return {
        "source": write(folder / f"{name}.src", sources),
        "target": write(folder / f"{name}.tgt", [text[::-1] for text in sources]),
        **options,
    }


def settings(folder: Path, **options: object) -> DataConfig:
    tree: dict[str, object] = {
        "train": corpus(folder, "train", 200),
        "valid": corpus(folder, "valid", 20),
        "source_codec": {"kind": "characters"},
        "target_codec": {"kind": "characters"},
        "max_tokens_per_batch": 300,
        "cache_dir": folder / "cache",
    }
    return DataConfig(**(tree | options))


def fed(loader: Loader, epoch: int, start: int = 0) -> list[list[int]]:
    return [batch.ids.tolist() for batch in loader.batches(epoch, start)]


def test_batches_hold_the_texts(tmp_path):
    data = prepare(settings(tmp_path), seed=1)
    sources = (tmp_path / "train.src").read_text().splitlines()
    seen = []
    for batch in data.train.batches(0):
        assert max(batch.source.data.shape[1], batch.target.data.shape[1]) * len(batch.ids) <= 300
        for row, number in enumerate(batch.ids.tolist()):
            source, target = batch.source.data[row].tolist(), batch.target.data[row].tolist()
            end = int(batch.source.lengths[row])
            assert source[end - 1 :] == [2] + [0] * (len(source) - end)
            assert target[int(batch.target.lengths[row]) - 1] == 2
            assert data.source_codec.decode(source) == sources[number]
            assert data.target_codec.decode(target) == sources[number][::-1]
            seen.append(number)
    assert sorted(seen) == list(range(200))


def test_order_is_a_function_of_seed_epoch_and_index(tmp_path):
    config = settings(tmp_path)
    first, again, other = (prepare(config, seed=seed).train for seed in (1, 1, 2))
    whole = fed(first, 3)
    assert fed(again, 3) == whole
    assert fed(first, 4) != whole
    assert fed(other, 3) != whole
    assert fed(first, 3, start=7) == whole[7:]
    assert fed(first, 3, start=len(whole)) == []
    assert first.num_batches(3) == len(whole)


def test_resuming_makes_no_batch_before(tmp_path, monkeypatch):
    loader = prepare(settings(tmp_path), seed=1).train
    calls = []
    gather = Loader.gather
    monkeypatch.setattr(Loader, "gather", lambda self, rows, epoch: calls.append(1) or gather(self, rows, epoch))
    next(loader.batches(0, start=loader.num_batches(0) - 1))
    assert len(calls) == 1


def test_validation_is_in_one_fixed_order(tmp_path):
    data = prepare(settings(tmp_path), seed=1)
    assert fed(data.valid, 0) == fed(data.valid, 5) == fed(prepare(settings(tmp_path), seed=9).valid, 0)
    assert data.valid_records[3].texts == ("valid ababab 3", "3 bababa dilav")
    assert len(data.valid_records) == len(data.valid) == 20


def test_corpora_are_mixed_by_weight(tmp_path):
    parts = [corpus(tmp_path, "one", 30, weight=2.0), corpus(tmp_path, "two", 90, weight=1.0)]
    data = prepare(settings(tmp_path, train=parts), seed=1)
    texts = [*(tmp_path / "one.src").read_text().splitlines(), *(tmp_path / "two.src").read_text().splitlines()]
    for epoch in range(3):
        numbers = []
        for batch in data.train.batches(epoch):
            numbers += batch.ids.tolist()
            rows = batch.source.data.tolist()
            assert [data.source_codec.decode(row) for row in rows] == [texts[number] for number in batch.ids.tolist()]
        assert len(numbers) == 120
        assert sum(number < 30 for number in numbers) == 80


def test_corpora_are_mixed_by_temperature(tmp_path):
    parts = [corpus(tmp_path, "one", 10), corpus(tmp_path, "two", 90)]
    assert prepare(settings(tmp_path, train=parts), seed=1).train.counts == [10, 90]
    assert prepare(settings(tmp_path, train=parts, temperature=2.0), seed=1).train.counts == [25, 75]


def test_contradictions_are_refused(tmp_path):
    parts = [corpus(tmp_path, "one", 3, weight=2.0), corpus(tmp_path, "two", 3)]
    with pytest.raises(ConfigError, match=r"two\.tgt has no `weight`"):
        settings(tmp_path, train=parts)
    with pytest.raises(ConfigError, match="not allowed together with weights"):
        settings(tmp_path, train=parts[:1], temperature=2.0)
    with pytest.raises(ConfigError, match="no room for one pair of 256 tokens"):
        settings(tmp_path, max_tokens_per_batch=255)
    with pytest.raises(ConfigError, match="must be the same"):
        settings(tmp_path, joint_vocabulary=True, target_codec={"kind": "words"})


def test_joint_vocabulary_is_learned_from_both_ends(tmp_path):
    parts = {"source": write(tmp_path / "j.src", ["abc"] * 9), "target": write(tmp_path / "j.tgt", ["xyz"] * 9)}
    tree = settings(tmp_path, train=parts).model_dump()
    del tree["target_codec"]
    data = prepare(DataConfig(**(tree | {"joint_vocabulary": True})), seed=1)
    assert data.source_codec is data.target_codec
    assert data.source_codec.vocabulary.size == 4 + 6


def test_long_pairs_are_counted_and_left_out(tmp_path):
    lines = ["a" * length for length in (1, 9, 10, 50)]
    parts = {"source": write(tmp_path / "l.src", lines), "target": write(tmp_path / "l.tgt", ["b" * 20, "b", "b", "b"])}
    config = settings(tmp_path, train=parts, valid=parts, max_source_tokens=10, max_target_tokens=20)
    data = prepare(config, seed=1)
    train, valid = data.report.corpora
    found = {reason: (entry.count, entry.places[0].rpartition("/")[2]) for reason, entry in train.skipped.items()}
    assert found == {"target longer than 20 tokens": (1, "l.src:1"), "source longer than 10 tokens": (2, "l.src:3")}
    assert (train.read, train.kept, len(data.train)) == (4, 1, 1)
    assert (train.source_lengths.longest, train.source_lengths.tokens) == (10, 10)
    assert (valid.kept, len(data.valid), len(data.valid_records)) == (4, 1, 4)
    assert sum(entry.count for entry in valid.noted.values()) == 3


def test_validation_keeps_empty_ends(tmp_path):
    parts = {"source": write(tmp_path / "v.src", ["a", ""]), "target": write(tmp_path / "v.tgt", ["", "b"])}
    data = prepare(settings(tmp_path, valid=parts), seed=1)
    assert [record.texts for record in data.valid_records] == [("a", ""), ("", "b")]
    assert sorted(length for batch in data.valid.batches(0) for length in batch.source.lengths.tolist()) == [1, 2]


def test_tolerant_report_is_the_same_on_the_second_start(tmp_path):
    (tmp_path / "t.src").write_bytes(b"a\n\xff\n\nb\n")
    (tmp_path / "t.tgt").write_bytes(b"1\n2\n3\n4\n5\n")
    parts = {"source": str(tmp_path / "t.src"), "target": str(tmp_path / "t.tgt")}
    config = settings(tmp_path, train=parts, errors="tolerant")
    said: list[list[str]] = [[], []]
    reports = [prepare(config, seed=1, say=said[turn].append).report for turn in (0, 1)]
    assert {reason: entry.count for reason, entry in reports[0].corpora[0].skipped.items()} == {
        "invalid UTF-8": 1,
        "empty source": 1,
        "unpaired line": 1,
    }
    assert reports[0] == reports[1]
    assert said[0] == said[1]
    assert any("5 pairs read, 2 kept, 3 left out" in line for line in said[0])
    assert json.loads(json.dumps(reports[0].to_dict()))["corpora"][0]["kept"] == 2
    with pytest.raises(DataError, match=r"t.src:2: invalid UTF-8"):
        prepare(settings(tmp_path, train=parts), seed=1)


def test_losslessness_is_said(tmp_path):
    parts = {"source": write(tmp_path / "w.src", ["a b", "a  b", "b a"]), "target": write(tmp_path / "w.tgt", ["x", "y", "z"])}
    said: list[str] = []
    data = prepare(settings(tmp_path, train=parts, source_codec={"kind": "words"}), seed=1, say=said.append)
    assert (data.lossless[0].checked, data.lossless[0].lossy, data.lossless[0].example) == (3, 1, "a  b")
    assert data.lossless[1].lossy == 0
    assert any("lossless check, source: 1 of 3 values change" in line and "'a  b'" in line for line in said)


def test_nothing_left_to_train_on(tmp_path):
    config = settings(tmp_path, max_source_tokens=2)
    with pytest.raises(DataError, match=r"no pair is left for training:\n.*200 pairs read, 0 kept(.|\n)*200 source longer than 2 tokens"):
        prepare(config, seed=1)


def test_missing_files_are_found_before_any_work(tmp_path):
    config = settings(tmp_path, valid={"source": "no.src", "target": "no.tgt"})
    with pytest.raises(DataError, match=r"no.src: no such file"):
        prepare(config, seed=1)
    assert not (tmp_path / "cache" / "codecs").exists()


@pytest.fixture
def no_work(monkeypatch):
    """Call it: from then on nothing may be learned, encoded or hashed."""

    def forbidden(*_args: object, **_options: object) -> None:
        raise AssertionError("work that the cache should have spared")

    def arm() -> None:
        monkeypatch.setattr(loader_module, "fit_codec", forbidden)
        monkeypatch.setattr("transduce.data.store._write_store", forbidden)
        monkeypatch.setattr("transduce.data.cache._sha256", forbidden)

    return arm


def same_batches(one: PreparedData, other: PreparedData) -> bool:
    pairs = zip(one.train.batches(0), other.train.batches(0), strict=True)
    return all(bool((a.source.data == b.source.data).all()) and a.ids.tolist() == b.ids.tolist() for a, b in pairs)


def test_the_second_start_does_nothing_twice(tmp_path, no_work):
    config = settings(tmp_path)
    first = prepare(config, seed=1)
    no_work()
    assert same_batches(first, prepare(config, seed=1))


def test_the_cache_goes_by_content(tmp_path, monkeypatch):
    config = settings(tmp_path)
    prepare(config, seed=1)
    moved = {"source": str(tmp_path / "moved.src"), "target": str(tmp_path / "moved.tgt")}
    for end in ("src", "tgt"):
        os.link(tmp_path / f"train.{end}", tmp_path / f"moved.{end}")
    monkeypatch.setattr("transduce.data.store._write_store", lambda *_args, **_options: pytest.fail("rebuilt"))
    report = prepare(config.model_copy(update={"train": [CorpusConfig(**moved)]}), seed=1).report
    assert report.corpora[0].name == f"{moved['source']} + {moved['target']}"


def test_changed_content_is_seen_even_with_the_old_size_and_time(tmp_path):
    config = settings(tmp_path)
    prepare(config, seed=1)
    path = tmp_path / "train.src"
    state = path.stat()
    time.sleep(0.02)
    path.write_bytes(path.read_bytes().replace(b"train ", b"niart "))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    data = prepare(config, seed=1)
    assert data.source_codec.decode(data.train.stores[0].source.rows(np.array([0]))[0].tolist()).startswith("niart")


def test_gz_content_is_not_mistaken_for_plain(tmp_path):
    packed = tmp_path / "g.src.gz"
    packed.write_bytes(gzip.compress("".join(f"zip {number}\n" for number in range(5)).encode()))
    parts = {"source": str(packed), "target": write(tmp_path / "g.tgt", [str(number) for number in range(5)])}
    data = prepare(settings(tmp_path, train=parts), seed=1)
    assert data.source_codec.decode(data.train.stores[0].source.rows(np.array([4]))[0].tolist()) == "zip 4"


@pytest.mark.parametrize("damage", ["flip", "cut", "meta", "manifest", "gone"])
def test_damaged_entries_are_made_again(tmp_path, damage):
    config = settings(tmp_path)
    first = prepare(config, seed=1)
    expected = [batch.source.data.clone() for batch in first.train.batches(0)]
    for entry in [path for path in (tmp_path / "cache" / "pairs").iterdir() if path.is_dir()]:
        ids = entry / "source.data"
        content = bytearray(ids.read_bytes())
        if damage == "flip":
            content[10] ^= 1
            ids.unlink()  # the first mapping stays what it was
            ids.write_bytes(content)
        elif damage == "cut":
            ids.unlink()
            ids.write_bytes(content[:-4])
        elif damage == "gone":
            ids.unlink()
        else:
            (entry / {"meta": META, "manifest": "manifest.json"}[damage]).write_text("{")
    again = prepare(config, seed=1)
    assert all(bool((a == b.source.data).all()) for a, b in zip(expected, again.train.batches(0), strict=True))


def test_an_interrupted_build_leaves_no_entry(tmp_path):
    cache = Cache(tmp_path)

    def broken(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.entry("pairs/x", broken)
    (tmp_path / "pairs" / ".tmp-x").mkdir()  # as after SIGKILL
    (tmp_path / "pairs" / ".tmp-x" / "half").write_text("x")
    place = cache.entry("pairs/x", lambda folder: (folder / "whole").write_text("y"))
    assert sorted(path.name for path in place.iterdir()) == ["manifest.json", "whole"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"data\.cache_dir"):
        prepare(settings(tmp_path, cache_dir=tmp_path / "file"), seed=1)


def test_given_codecs_are_used_as_they_are(tmp_path, monkeypatch):
    config = settings(tmp_path)
    first = prepare(config, seed=1)
    monkeypatch.setattr(loader_module, "fit_codec", lambda *_args: pytest.fail("learned again"))
    again = prepare(config, seed=1, codecs=(first.source_codec, first.target_codec))
    assert again.source_codec is first.source_codec
    assert same_batches(first, again)


def test_ids_are_stored_small(tmp_path):
    store = prepare(settings(tmp_path), seed=1).train.stores[0]
    assert store.source.data.dtype == np.uint16
    assert store.source.widths.dtype == np.int32
    assert len(store) == 200
    assert store.source.widths.tolist() == [len(row) + 1 for row in store.source.rows(np.arange(200))]
    assert store.target_widths.sum() == len(store.target.data) + 200


def test_sources_whose_longest_targets_are_alike_come_together(tmp_path):
    draw = np.random.default_rng(1)
    texts = [["b" * int(length) for length in draw.integers(2, 30, 4)] for _ in range(300)]
    train = write(tmp_path / "train.jsonl", [json.dumps({"source": "aa", "target": several}) for several in texts])
    data = prepare(settings(tmp_path, train={"path": train}, max_tokens_per_batch=600), seed=1)
    loader = data.train
    cells = pads = longest = 0
    for batch in loader.batches(1):
        assert batch.owners is not None and batch.target.data.numel() <= 600
        cells += batch.target.data.numel() + batch.source.data.numel()
        pads += batch.target.data.numel() - int(batch.target.lengths.sum())
        longest += 4 * sum(max(map(len, texts[number])) + 1 for number in batch.ids.tolist())
    assert loader.padding_share(1) == pytest.approx(pads / cells)
    inside = longest - sum(len(text) + 1 for several in texts for text in several)
    assert inside <= pads < 1.1 * inside, "hardly more than the targets of one source need among themselves"
    assert f"padding: {100 * loader.padding_share(0):.1f} %" in "\n".join(data.report.lines())


def test_reports_read_back():
    report = CorpusReport("x", read=3)
    report.skip("empty source", "a:1")
    report.note("byte order mark removed", "a:1")
    moved = report.renamed("y", {"a": "b"})
    assert (moved.name, moved.skipped["empty source"].places, moved.noted["byte order mark removed"].count) == ("y", ["b:1"], 1)
    assert report.skipped["empty source"].places == ["a:1"]
