"""A training that starts from another model: its codecs and whatever weights fit; what does not is told or refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_tree
from torch import Tensor

from transduce.config import parse_config
from transduce.data.codec import load_codec
from transduce.data.text import CharacterCodec
from transduce.errors import CheckpointError, ConfigError, TransduceError
from transduce.train.averaging import own_tensors
from transduce.train.checkpoint import RunFolder
from transduce.train.events import SilentProgress
from transduce.train.loop import resume, train
from transduce.train.setup import Parts, prepare_run
from transduce.train.storage import FORMAT_VERSION, read_tensors


@pytest.fixture
def first(pairs: Path, uninterrupted: dict[str, bytes]) -> Path:  # noqa: ARG001
    """A run that is there already."""
    return pairs / "uninterrupted"


def other_tree(pairs: Path, run: str, start_from: Path, **train_settings: object) -> dict[str, object]:
    """A configuration for other data, whose characters are those of the first run and one more."""
    (pairs / "other.src").write_text("abz\nzba\nab\nba\n", encoding="utf-8")
    corpus = {"source": str(pairs / "other.src"), "target": str(pairs / "other.src")}
    tree = tiny_tree(pairs, run, start_from=str(start_from), **train_settings)
    tree["data"] |= {"train": corpus, "valid": corpus}  # type: ignore[operator]
    return tree


def begin(tree: dict[str, object]) -> tuple[Parts, list[str]]:
    """A run before its first step, and what it said."""
    said: list[str] = []
    config = parse_config(tree)
    return prepare_run(config, RunFolder(config.run_dir), say=said.append), said


def told(said: list[str]) -> str:
    return next(line for line in said if line.startswith("started with"))


def test_weights_and_vocabularies_are_taken_over(pairs: Path, first: Path) -> None:
    parts, said = begin(other_tree(pairs, "tuned", first))
    stored: dict[str, Tensor] = read_tensors(first / "model" / "model.safetensors")
    for model in (parts.trainer.model, parts.trainer.evaluated):
        own = own_tensors(model)
        assert own.keys() == stored.keys()
        assert all(torch.equal(own[name], stored[name]) for name in stored)
    assert [codec.digest for codec in parts.codecs] == [load_codec(first / "model" / end).digest for end in ("source", "target")]
    assert told(said) == f"started with {len(stored)} of {len(stored)} tensors from {first}"


def test_what_is_new_and_what_is_left_is_told(pairs: Path, first: Path) -> None:
    tree = other_tree(pairs, "deeper", first)
    layers = tree["model"]["encoder"]  # type: ignore[index]
    tree["model"] |= {"encoder": layers | {"layers": 2}, "decoder": layers | {"feed_forward": 48}}  # type: ignore[operator]
    parts, said = begin(tree)
    stored, own = read_tensors(first / "model" / "model.safetensors"), own_tensors(parts.trainer.model)
    new = [name for name in own if name not in stored or own[name].shape != stored[name].shape]
    left = [name for name in stored if name in new]
    assert any(name.startswith("encoder.layers.1.") for name in new)
    assert left  # the feed-forward block of the decoder, which is wider
    assert all(torch.equal(own[name], stored[name]) for name in own if name not in new)
    assert f"new: {len(new)} ({new[0]}, " in told(said)
    assert f"not taken: {len(left)} ({left[0]}, " in told(said)


def test_a_started_run_needs_its_origin_no_more(pairs: Path, first: Path) -> None:
    origin = pairs / "origin"
    shutil.copytree(first / "model", origin)
    train(parse_config(other_tree(pairs, "independent", origin, max_steps=5)), SilentProgress())
    shutil.rmtree(origin)
    resume(pairs / "independent", ["train.max_steps=10"], SilentProgress())
    assert (pairs / "independent" / "checkpoints" / "step-00000010").is_dir()
    assert load_codec(pairs / "independent" / "model" / "source").digest == load_codec(first / "model" / "source").digest


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"start_from": "nowhere"}, CheckpointError, "nowhere is not there"),
        ({"kind": "frames"}, ConfigError, r"its target is characters, and data\.target_codec\.kind is frames"),
        ({"width": 32}, ConfigError, "no matrix of it has the name and shape"),
    ],
)
def test_what_cannot_be_started_from_is_refused(
    pairs: Path, first: Path, change: dict[str, object], error: type[TransduceError], message: str
) -> None:
    tree = other_tree(pairs, "refused", Path(str(change.get("start_from", first))))
    data, model, settings = tree["data"], tree["model"], tree["train"]
    if "kind" in change:
        (pairs / "frames.jsonl").write_text('{"source": "ab", "target": [[0.5]]}\n', encoding="utf-8")
        corpus = {"path": str(pairs / "frames.jsonl")}
        data |= {"train": corpus, "valid": corpus, "target_codec": {"kind": "frames"}}  # type: ignore[operator]
        model["head"] = {"stop": True}  # type: ignore[index]
        settings |= {"validation": {"metrics": []}}  # type: ignore[operator]
    if "width" in change:
        shape = model["encoder"] | {"width": 32, "feed_forward": 64}  # type: ignore[index]
        model |= {"encoder": shape, "decoder": shape, "embedding_size": 32}  # type: ignore[operator]
    with pytest.raises(error, match=message):
        begin(tree)


def test_two_vocabularies_are_no_joint_one(pairs: Path, first: Path) -> None:
    origin = pairs / "parted"
    shutil.copytree(first / "model", origin)
    shutil.rmtree(origin / "target")
    CharacterCodec.fit(["xyz"], min_count=1).save(origin / "target")
    with pytest.raises(CheckpointError, match="damaged: target/codec"):
        begin(other_tree(pairs, "refused", origin))
    (origin / "manifest.json").write_text(json.dumps({"format_version": FORMAT_VERSION, "files": {}}), encoding="utf-8")
    tree = other_tree(pairs, "refused", origin)
    tree["data"]["joint_vocabulary"] = True  # type: ignore[index]
    with pytest.raises(ConfigError, match=r"has a vocabulary for each end: set data\.joint_vocabulary to false"):
        begin(tree)
