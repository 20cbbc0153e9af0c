"""A teacher's answers as training data: what is written, what takes the place of no answer, and that nothing is lost or mixed."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sacrebleu
import torch

import transduce.distill
from transduce import cli
from transduce.config import parse_config
from transduce.data.examples import Record
from transduce.data.text import CharactersConfig, fit_text_codec
from transduce.decode.options import SearchConfig
from transduce.distill import KEPT, LEFT_OUT, LEFT_OUT_BEFORE, distill
from transduce.errors import DataError
from transduce.model.seq2seq import ModelConfig, build_model
from transduce.model.transformer import TransformerDecoderConfig, TransformerEncoderConfig
from transduce.predict import Predictor
from transduce.train.checkpoint import save_model

SOURCES = ["a b c", "d", "b b b a", "abcd dcba", "a b c", "c", "da da", "abc", "dd cc"]
TARGETS = ["vw", "x", "yz y", "y z", "wv", "y z", "vvv", "xyz", "zz"]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model that writes something of its own for each source, beside its training data."""
    place = tmp_path_factory.mktemp("teacher")
    for name, lines in (("train.a", SOURCES), ("train.b", TARGETS), ("more.a", [*SOURCES[:2], "", "bad cab"])):
        (place / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    pairs = {"source": str(place / "train.a"), "target": str(place / "train.b")}
    search = {"beam_size": 3, "max_length": 9, "batch_tokens": 64}
    data = {"train": pairs, "valid": pairs, "source_codec": {"kind": "characters"}, "target_codec": {"kind": "characters"}}
    config = parse_config({"run_dir": str(place / "run"), "data": data, "train": {"max_steps": 1}, "search": search})
    small = {"layers": 1, "width": 16, "heads": 2, "feed_forward": 32}
    config = config.model_copy(
        update={
            "model": ModelConfig(
                encoder=TransformerEncoderConfig(**small), decoder=TransformerDecoderConfig(**small), embedding_size=16, tie="none"
            )
        }
    )
    source, target = (fit_text_codec(CharactersConfig(), texts, seed=0) for texts in (SOURCES, TARGETS))
    torch.manual_seed(3)
    model = build_model(config.model, source.vocabulary, target.vocabulary)
    with torch.no_grad():
        model.head.weight.mul_(4)
        model.head.bias[target.vocabulary.eos_id] += 2
    save_model(place / "model", model=model, config=config, codecs=(source, target), metrics={})
    return place / "model"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command inside this process: exit code, standard output, standard error."""

    def start(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["transduce", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        output = capsys.readouterr()
        return int(caught.value.code or 0), output.out, output.err

    return start


def pairs_of(path: Path) -> list[tuple[str, str]]:
    trees = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(tree["source"], tree["target"]) for tree in trees]


def test_a_pair_for_each_training_source_in_order(teacher: Path, tmp_path: Path, call: Call) -> None:
    code, output, error = call("distill", teacher, "--output", tmp_path / "new" / "d.jsonl")
    assert (code, output) == (0, f"{tmp_path / 'new' / 'd.jsonl'}\n"), error
    pairs = pairs_of(tmp_path / "new" / "d.jsonl")
    answers = Predictor.load(teacher).predict(SOURCES)
    whole = [bool(answer.text) and not answer.truncated for answer in answers]
    wanted = [answer.text if good else target for answer, good, target in zip(answers, whole, TARGETS, strict=True)]
    assert pairs == list(zip(SOURCES, wanted, strict=True)) and wanted != TARGETS
    assert sum(whole) > 4 and f"{len(SOURCES)} pairs\n" in error
    assert ("references kept" in error) == (not all(whole))


def test_what_is_no_answer_is_replaced_or_left_out_and_counted(teacher: Path, tmp_path: Path, call: Call) -> None:
    code, _, error = call("distill", teacher, "-o", tmp_path / "kept.jsonl", "search.max_length=1")
    kept = sum(pair in zip(SOURCES, TARGETS, strict=True) for pair in pairs_of(tmp_path / "kept.jsonl"))
    assert code == 0 and f"warning: {kept} {KEPT}\n" in error and kept > 4
    assert len(pairs_of(tmp_path / "kept.jsonl")) == len(SOURCES)
    code, _, error = call("distill", teacher, "-o", tmp_path / "left.jsonl", "--source", teacher.parent / "more.a", "search.min_length=2")
    assert code == 0 and f"warning: 1 {LEFT_OUT}\n" in error and "3 pairs\n" in error
    assert [source for source, _ in pairs_of(tmp_path / "left.jsonl")] == [*SOURCES[:2], "bad cab"]


@pytest.mark.parametrize("torn", [b"", b'{"source": "abcd d', b'{"source": "abcd dcba", "target": "v"}'])
def test_it_goes_on_after_the_last_whole_line(teacher: Path, tmp_path: Path, call: Call, torn: bytes) -> None:
    whole, output = tmp_path / "whole.jsonl", tmp_path / "d.jsonl"
    assert call("distill", teacher, "--output", whole)[0] == 0
    lines = whole.read_bytes().splitlines(keepends=True)
    output.write_bytes(b"".join(lines[:3]) + torn)
    shutil.copy(f"{whole}.json", f"{output}.json")
    code, _, error = call("distill", teacher, "--output", output)
    assert code == 0 and f"{len(SOURCES)} pairs, 3 of them from an earlier run" in error
    assert output.read_bytes() == whole.read_bytes()


def test_what_was_left_out_is_not_mistaken_for_what_is_left(
    teacher: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transduce.distill, "CHUNK", 2)
    command = ("distill", teacher, "-o", tmp_path / "d.jsonl", "--source", teacher.parent / "more.a", "search.min_length=2")
    assert call(*command)[0] == 0
    before = (tmp_path / "d.jsonl").read_bytes()
    code, _, error = call(*command)
    assert code == 0 and f"1 {LEFT_OUT_BEFORE}" in error and "3 pairs, 3 of them" in error
    assert (tmp_path / "d.jsonl").read_bytes() == before


def test_answers_of_different_making_are_not_mixed(teacher: Path, tmp_path: Path, call: Call) -> None:
    output = tmp_path / "d.jsonl"
    assert call("distill", teacher, "--output", output)[0] == 0
    code, _, error = call("distill", teacher, "--output", output, "--beam", "2")
    assert code == 2 and "begun with search = " in error and "name another --output" in error
    code, _, error = call("distill", teacher, "--output", output, "--source", teacher.parent / "more.a")
    assert code == 65 and "the source b b b a is not there, in this order" in error and f"{output}:3" in error
    Path(f"{output}.json").unlink()
    code, _, error = call("distill", teacher, "--output", output)
    assert code == 2 and "does not say how it was made" in error
    Path(f"{output}.json").write_text("{}")
    output.write_text("[1]\n")
    with pytest.raises(DataError, match="is no pair"):
        distill(Predictor.load(teacher), [], output)


def test_closest_takes_the_answer_most_like_a_reference(teacher: Path, tmp_path: Path, call: Call) -> None:
    assert call("distill", teacher, "--output", tmp_path / "d.jsonl", "--closest")[0] == 0
    found = pairs_of(tmp_path / "d.jsonl")
    many = Predictor.load(teacher).predict(SOURCES, search=SearchConfig(beam_size=3, num_best=3, max_length=9, batch_tokens=64))
    others = 0
    for (_, target), reference, prediction in zip(found, TARGETS, many, strict=True):
        entries = [entry.text for entry in prediction.alternatives if entry.text and not entry.truncated]
        if entries:
            scores = [sacrebleu.sentence_chrf(text, [reference]).score for text in entries]
            assert target == entries[scores.index(max(scores))]
            others += target != entries[0]
    assert others > 0


def test_of_several_references_the_nearest_counts(teacher: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(teacher)
    predictor.search = SearchConfig(beam_size=3, num_best=3, max_length=9)
    entries = [entry.text for entry in predictor.predict([SOURCES[3]])[0].alternatives if entry.text and not entry.truncated]
    assert len(set(entries)) > 1
    distill(predictor, [Record(SOURCES[3], ("qqq", entries[-1]), "x:1")], tmp_path / "d.jsonl", closest=True)
    assert pairs_of(tmp_path / "d.jsonl") == [(SOURCES[3], entries[-1])]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("-o", "d.jsonl.gz"), "cannot be compressed"),
        (("-o", "d.jsonl", "--closest", "--source", "x"), "--closest compares answers with references"),
        (("-o", "d.jsonl", "--engine", "torhc"), "did you mean 'torch'"),
        (("-o", "d.jsonl", "search.bim_size=2"), "search.bim_size is not a setting"),
    ],
)
def test_what_cannot_be_asked_for(
    teacher: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, error = call("distill", teacher, *words)
    assert code == 2 and part in error and not list(tmp_path.iterdir())
