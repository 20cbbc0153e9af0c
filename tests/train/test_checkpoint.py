"""Model directories: complete or absent, verified, tied weights once, found under every name that users give."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_config

from transduce.errors import CheckpointError, StorageError
from transduce.train.averaging import own_tensors
from transduce.train.checkpoint import RunFolder, average_models, load_model, resolve_model, save_model
from transduce.train.events import SilentProgress
from transduce.train.loop import train
from transduce.train.storage import read_tensors, remove_temporary, verify_folder, write_folder, write_line


@pytest.fixture(scope="module")
def run(pairs: Path) -> Path:
    """A run of 20 steps that keeps its three best checkpoints and averages them."""
    train(tiny_config(pairs, "kept", keep_best=3, average_best=3, ema_decay=0.0), SilentProgress())
    return pairs / "kept"


def test_contents_and_tied_weights(run: Path) -> None:
    names = {path.relative_to(run / "model").as_posix() for path in (run / "model").rglob("*") if path.is_file()}
    assert names == {
        "README.md",
        "config.yaml",
        "manifest.json",
        "metrics.json",
        "model.safetensors",
        "source/codec.json",
        "target/codec.json",
    }
    loaded = load_model(run / "model")
    assert not loaded.model.training
    assert loaded.model.head.weight is loaded.model.embedding.weight
    stored = read_tensors(run / "model" / "model.safetensors")
    assert sum(name.endswith("embedding.weight") or name == "head.weight" for name in stored) == 2  # source; target and output layer once
    assert "loss" in loaded.metrics
    assert "parameters" in (run / "model" / "README.md").read_text(encoding="utf-8")


def test_resolve_model(run: Path, tmp_path: Path) -> None:
    assert resolve_model(run) == run / "model"
    assert resolve_model(run / "model") == run / "model"
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "model")
    assert resolve_model(copy).name == (run / "best").read_text(encoding="utf-8").strip().split("/")[-1]
    (copy / "best").unlink()
    assert resolve_model(copy).name == "step-00000020"
    with pytest.raises(CheckpointError, match="looked for"):
        resolve_model(tmp_path)


def test_the_model_is_the_mean_of_the_best_or_the_best(run: Path, tmp_path: Path) -> None:
    folders = [RunFolder(run).folder(step) for step in RunFolder(run).steps()]
    assert len(folders) == 3
    average_models(folders, tmp_path / "mean", metrics={"loss": 1.0})
    mean = read_tensors(tmp_path / "mean" / "model.safetensors")
    parts = [read_tensors(folder / "model.safetensors") for folder in folders]
    for name, tensor in mean.items():
        torch.testing.assert_close(tensor, sum(part[name] for part in parts) / 3)
    best = min(folders, key=lambda folder: json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["loss"])
    final = read_tensors(run / "model" / "model.safetensors")
    candidates = [mean, read_tensors(best / "model.safetensors")]
    assert any(all(torch.allclose(final[name], one[name]) for name in final) for one in candidates)
    with pytest.raises(CheckpointError, match="nothing to average"):
        average_models([], tmp_path / "none", metrics={})


def test_only_the_kept_checkpoints_stay(pairs: Path) -> None:
    train(tiny_config(pairs, "pruned", keep_best=0, keep_last=1, metric="loss"), SilentProgress())
    assert RunFolder(pairs / "pruned").steps() == [20]


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "version", "manifest"])
def test_damage_is_found(run: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(run / "model", folder)
    weights, manifest = folder / "model.safetensors", folder / "manifest.json"
    content = weights.read_bytes()
    match damage:
        case "cut":
            weights.write_bytes(content[:-1])
        case "changed":
            weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "gone":
            (folder / "target" / "codec.json").unlink()
        case "version":
            text = manifest.read_text(encoding="utf-8")
            manifest.write_text(text.replace('"format_version": 1', '"format_version": 99'), encoding="utf-8")
        case "manifest":
            manifest.unlink()
    with pytest.raises(CheckpointError, match=r"damaged|version 99|not a complete"):
        load_model(folder)


def test_weights_of_another_shape_are_refused(run: Path, tmp_path: Path) -> None:
    loaded = load_model(run / "model")
    wider = loaded.config.model.model_copy(update={"embedding_size": 8, "tie": "none"})
    config = loaded.config.model_copy(update={"model": wider})
    codecs = loaded.source_codec, loaded.target_codec
    save_model(tmp_path / "odd", model=loaded.model, config=config, codecs=codecs, metrics={})
    with pytest.raises(CheckpointError, match="does not fit"):
        load_model(tmp_path / "odd")


def test_a_replaced_model_directory_is_whole(run: Path, tmp_path: Path) -> None:
    loaded = load_model(run / "model")
    codecs = loaded.source_codec, loaded.target_codec
    for value in (1.0, 2.0):
        with torch.no_grad():
            loaded.model.head.bias.fill_(value)
        save_model(tmp_path / "again", model=loaded.model, config=loaded.config, codecs=codecs, metrics={"loss": value})
    assert load_model(tmp_path / "again").metrics == {"loss": 2.0}
    assert float(own_tensors(load_model(tmp_path / "again").model)["head.bias"][0]) == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_a_folder_that_only_stepped_aside_is_put_back(tmp_path: Path) -> None:
    """Killed between the two renames of a replacement: the old folder is whole, under another name."""
    write_folder(tmp_path / "thing", lambda folder: write_line(folder / "a", "old"))
    (tmp_path / "thing").rename(tmp_path / ".tmp-old-thing")
    (tmp_path / ".tmp-thing").mkdir()
    assert remove_temporary(tmp_path) == [".tmp-thing"]
    verify_folder(tmp_path / "thing")
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    write_folder(tmp_path / "thing", lambda folder: write_line(folder / "a", "old"))

    def fail(folder: Path) -> None:
        write_line(folder / "a", "new")
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left on device"):
        write_folder(tmp_path / "thing", fail)
    verify_folder(tmp_path / "thing")
    assert (tmp_path / "thing" / "a").read_text(encoding="utf-8") == "old\n"
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]
