"""`transduce init`: what it makes of users' files, and that what it writes is a configuration."""

import gzip
import json
import random
from pathlib import Path

import pytest

from transduce.commands.initialise import initialise
from transduce.config import RunConfig, load_config
from transduce.data.examples import read_pairs
from transduce.data.report import DataReport
from transduce.errors import ConfigError, DataError

WORDS = ["house", "tree", "woman", "sees", "likes", "walks", "green", "old", "child", "street", "window", "bread", "friend", "summer"]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sentences(count: int, seed: int = 1, vocabulary: int = 3000) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choice(WORDS) + str(draw.randrange(vocabulary)) for _ in range(draw.randint(5, 12))) for _ in range(count)]


def write(name: str, lines: list[str]) -> Path:
    text = "".join(line + "\n" for line in lines).encode()
    Path(name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return Path(name)


def run(*files: Path) -> RunConfig:
    initialise(files, output=Path("c.yaml"), run_dir=Path("runs/x"), force=False)
    return load_config("c.yaml")


def pairs(config: RunConfig, part: str) -> list[tuple[str, str]]:
    corpus = config.data.valid if part == "valid" else config.data.train[0]
    return [record.texts for record in read_pairs(corpus, errors="strict", report=DataReport())]


def test_four_files_of_running_text(capsys: pytest.CaptureFixture[str]) -> None:
    train, valid = sentences(300), sentences(20, seed=2)
    config = run(write("train.en", train), write("train.de", train), write("val.en", valid), write("val.de", valid))
    assert (config.preset, config.data.source_codec.kind, config.data.joint_vocabulary) == ("transformer-small", "sentencepiece", True)
    assert [str(path) for path in config.data.valid.files] == ["val.en", "val.de"]
    assert len(pairs(config, "train")) == 300 and len(pairs(config, "valid")) == 20
    text = Path("c.yaml").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 30 and "#" in text
    assert "transduce train c.yaml" in capsys.readouterr().out


def test_files_are_told_apart_by_name_whatever_their_order() -> None:
    lines = {name: sentences(20, seed=number) for number, name in enumerate(("dev", "test_2016", "train"))}
    files = [write(f"{name}.{end}", texts) for name, texts in lines.items() for end in ("de", "en")]
    config = run(*files)
    assert str(config.data.train[0].files[0]) == "train.de" and str(config.data.valid.files[0]) == "dev.de"


def test_short_texts_become_characters() -> None:
    draw = random.Random(3)
    words = ["".join(draw.choice("abcdefgh") for _ in range(draw.randint(3, 9))) for _ in range(200)]
    config = run(write("words.tsv", [f"{word}\t{' '.join(word.upper())}" for word in words]))
    assert (config.preset, config.data.source_codec.kind, config.data.target_codec.kind) == ("transformer-tiny", "characters", "characters")
    assert config.train.metric == "exact_match" and config.model.tie == "output"


def test_commands_of_few_words_become_words() -> None:
    draw = random.Random(3)
    source = [" ".join(draw.choice(["jump", "walk", "left", "twice", "and"]) for _ in range(6)) for _ in range(200)]
    config = run(write("scan.src", source), write("scan.tgt", [line.upper() for line in source]))
    assert config.data.source_codec.kind == "words"


def test_another_alphabet_gets_a_vocabulary_of_its_own() -> None:
    train = sentences(50)
    greek = [line.translate({ord(a): ord(a) + 0x350 for a in "abcdefghijklmnopqrstuvwxyz"}) for line in train]
    config = run(write("a.en", train), write("a.el", greek), write("b.en", train[:5]), write("b.el", greek[:5]))
    assert not config.data.joint_vocabulary and config.model.tie == "output"


def test_a_split_is_made_and_is_the_same_every_time(capsys: pytest.CaptureFixture[str]) -> None:
    lines = sentences(200)
    source, target = write("t.en", [*lines, lines[0]]), write("t.de", [*lines, "another target"])
    config = run(source, target)
    assert "No validation files were named" in capsys.readouterr().out
    train, valid = pairs(config, "train"), pairs(config, "valid")
    assert sorted(train + valid) == sorted(zip([*lines, lines[0]], [*lines, "another target"], strict=True))
    assert 10 <= len(valid) <= 11
    assert not {text for text, _ in train} & {text for text, _ in valid}, "pairs with one source stay on one side"
    with pytest.raises(ConfigError, match="exists"):
        initialise([source, target], output=Path("c.yaml"), run_dir=Path("r"), force=True)  # the split is not written over
    for path in Path("c-data").iterdir():
        path.unlink()
    order = list(range(201))
    random.Random(5).shuffle(order)
    shuffled = [([*lines, lines[0]][i], [*lines, "another target"][i]) for i in order]
    write("t.en", [pair[0] for pair in shuffled])
    write("t.de", [pair[1] for pair in shuffled])
    initialise([source, target], output=Path("c.yaml"), run_dir=Path("r"), force=True)
    assert sorted(pairs(load_config("c.yaml"), "valid")) == sorted(valid), "the order of the pairs does not matter"


def test_compressed_jsonl_is_split_into_jsonl() -> None:
    lines = sentences(40)
    records = [json.dumps({"source": line + "\nsecond line", "target": line}) for line in lines]
    config = run(write("all.jsonl.gz", records))
    assert len(pairs(config, "train")) == 38 and pairs(config, "valid")[0][0].endswith("\nsecond line")


def test_what_cannot_be_used_is_refused() -> None:
    text, table = write("a.en", sentences(5)), write("b.tsv", ["a\tb"])
    with pytest.raises(DataError, match="no such file"):
        run(Path("missing.en"), text)
    with pytest.raises(ConfigError, match="cannot be paired"):
        run(text)
    with pytest.raises(ConfigError, match="one sort"):
        run(text, text, table)
    with pytest.raises(DataError, match="unpaired line"):
        run(text, write("short.de", sentences(4)))
    with pytest.raises(DataError, match="holds no pairs"):
        run(write("empty.en", []), write("empty.de", []))
    assert not Path("c.yaml").exists()


def test_a_configuration_is_not_written_over() -> None:
    text = write("a.en", sentences(30))
    Path("c.yaml").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="--force"):
        run(text, text)
    assert Path("c.yaml").read_text(encoding="utf-8") == "mine"
