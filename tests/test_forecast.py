"""Tracks from file to forecast: training, scores beside baselines, predictions, resume; texts to numbers and numbers to texts."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from transduce import cli
from transduce.config import parse_config
from transduce.data.sources import read_examples
from transduce.data.values import Track
from transduce.errors import ConfigError
from transduce.evaluate_tracks import frame_losses
from transduce.forecast import Forecaster
from transduce.model.seq2seq import ModelConfig
from transduce.predict import Predictor
from transduce.train.checkpoint import load_model
from transduce.train.events import SilentProgress
from transduce.train.journal import ResultsTable
from transduce.train.loop import resume, train

GRU = {"kind": "gru", "layers": 1, "width": 24}
FIXED = {**GRU, "attention": "none"}


def write_circles(path: Path, count: int, *, seed: int) -> None:
    """Objects on circles of different size and direction: constant velocity leaves them, a model need not."""
    draw = np.random.default_rng(seed)
    rows = ["frame,id,x,y"]
    for number in range(count):
        radius, turn, phase = draw.uniform(2, 4), draw.choice([-0.25, 0.25]), draw.uniform(0, 6)
        angles = phase + turn * np.arange(12)
        rows += [f"{frame},{number},{radius * np.cos(angle):.4f},{radius * np.sin(angle):.4f}" for frame, angle in enumerate(angles)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def tracks_tree(folder: Path, run: str, **train_settings: Any) -> dict[str, Any]:
    codec = {"kind": "frames", "rotate": True}
    return {
        "run_dir": str(folder / run),
        "data": {
            "train": {"path": str(folder / "train.csv")},
            "valid": {"path": str(folder / "valid.csv")},
            "source_codec": {**codec, "relative": "velocity"},
            "target_codec": {**codec, "relative": "residual"},
            "windows": {"frame": "frame", "track": "id", "values": ["x", "y"], "observed": 5, "predicted": 5},
            "cache_dir": str(folder / "cache"),
        },
        "model": {
            "frontend": {"kind": "steps"},
            "encoder": {**GRU, "bidirectional": False},
            "decoder": FIXED,
            "head": {"feedback": "none"},
            "embedding_size": 16,
            "embedding_dropout": 0.0,
        },
        "train": {
            "max_steps": 150,
            "save_every_steps": 75,
            "precision": "fp32",
            "validation": {"metrics": ["ade", "fde"]},
            "metric": "ade",
            "optimizer": {"learning_rate": 1e-2},
            **train_settings,
        },
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tracks")
    write_circles(place / "train.csv", 100, seed=0)
    write_circles(place / "valid.csv", 12, seed=1)
    train(parse_config(tracks_tree(place, "run")), SilentProgress())
    return place


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["transduce", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_circles_are_learned_and_baselines_stand_beside(folder, monkeypatch, capsys):
    out = folder / "scores.json"
    words = ("evaluate", str(folder / "run"), "--data", str(folder / "valid.csv"), "--json", str(out))
    assert command(monkeypatch, *words) == 0
    systems = json.loads(out.read_text())["systems"]
    assert systems["model"]["ade"] < systems["constant velocity"]["ade"] / 3
    table = capsys.readouterr().out
    assert "constant velocity" in table and "Kalman filter" in table and "36 tracks" in table


def test_a_forecast_for_each_track(folder, monkeypatch, capsys):
    assert command(monkeypatch, "predict", str(folder / "run"), "--input", str(folder / "valid.csv")) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 12 and all(np.shape(line["values"]) == (5, 2) for line in lines)
    asked = [json.dumps([[0, 0], [1, 0], [2, 0], [3, 0], [4, 0]]), json.dumps([[0, 0], [0, 1]])]
    (folder / "asked.jsonl").write_text("".join(f'{{"source": {track}}}\n' for track in asked))
    forecaster = Forecaster.load(folder / "run")
    forecasts = forecaster.predict([Track(np.array(json.loads(track), dtype=np.float32)) for track in asked])
    assert [forecast.values.shape for forecast in forecasts] == [(5, 2), (5, 2)]
    alone = forecaster.predict([Track(np.array(json.loads(asked[1]), dtype=np.float32))])
    np.testing.assert_allclose(alone[0].values, forecasts[1].values, atol=1e-5)


def test_text_options_are_refused(folder, monkeypatch, capsys):
    assert command(monkeypatch, "predict", str(folder / "run"), "--input", str(folder / "valid.csv"), "--beam", "3") == 2
    assert "--beam: the target of this model is numbers" in capsys.readouterr().err
    assert command(monkeypatch, "evaluate", str(folder / "run"), "--source", "a", "--target", "b") == 2
    assert "--data" in capsys.readouterr().err


def test_6_resume_is_bit_for_bit(folder):
    changes = {"max_steps": 20, "save_every_steps": 10}
    random_codec = {"random_rotation": True, "random_mirror": True, "random_scale": 0.2, "rotate": False}
    whole, parts = (tracks_tree(folder, name, **changes) for name in ("whole", "parts"))
    for tree in (whole, parts):
        for end in ("source_codec", "target_codec"):
            tree["data"][end] |= random_codec
    parts["train"]["max_steps"] = 10
    model = train(parse_config(whole), SilentProgress())
    train(parse_config(parts), SilentProgress())
    resumed = resume(folder / "parts", ["train.max_steps=20"], SilentProgress())
    assert (resumed / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_samples_of_a_mixture(folder):
    tree = tracks_tree(folder, "mixture", max_steps=30, save_every_steps=30, validation={"metrics": ["min_ade"]}, metric="min_ade")
    tree["model"]["head"] = {"kind": "mixture", "components": 2}
    tree["rollout"] = {"num_samples": 4}
    train(parse_config(tree), SilentProgress())
    source = Track(np.cumsum(np.ones((5, 2), dtype=np.float32), 0))
    (forecast,) = Forecaster.load(folder / "mixture").predict([source])
    assert len(forecast.samples) == len(forecast.log_probabilities) == 4
    assert all(sample.shape == (5, 2) for sample in forecast.samples)
    assert not np.allclose(forecast.samples[0], forecast.samples[1])


def test_modes_are_whole_tracks_with_probabilities(folder, monkeypatch, capsys):
    tree = tracks_tree(folder, "modes", max_steps=60, save_every_steps=60, validation={"metrics": ["ade", "min_ade"]})
    tree["model"]["head"] = {"kind": "modes", "modes": 3, "feedback": "none"}
    tree["train"]["loss"] = {"steps": {"distance": "euclidean"}}
    tree["rollout"] = {"num_samples": 3}
    train(parse_config(tree), SilentProgress())
    source = Track(np.cumsum(np.ones((5, 2), dtype=np.float32), 0))
    (forecast,) = Forecaster.load(folder / "modes").predict([source])
    assert [sample.shape for sample in forecast.samples] == [(5, 2)] * 3
    assert sum(np.exp(forecast.log_probabilities)) == pytest.approx(1, abs=1e-5)
    assert list(forecast.log_probabilities) == sorted(forecast.log_probabilities, reverse=True)
    assert command(monkeypatch, "evaluate", str(folder / "modes"), "--data", str(folder / "valid.csv")) == 0
    assert "best of 3 samples" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"is above model\.head\.modes = 3"):
        parse_config({**tree, "rollout": {"num_samples": 4}})
    tree["model"]["head"]["feedback"] = "previous"
    with pytest.raises(ConfigError, match=r"set model\.head\.feedback = none"):
        parse_config(tree)


def test_losses_and_a_report(folder, monkeypatch, capsys):
    ResultsTable(folder / "run").add(75, {"loss": 0.5, "ade": 0.3})
    ResultsTable(folder / "run").add(150, {"loss": 0.2, "ade": 0.1})
    words = ("evaluate", str(folder / "run"), "--data", str(folder / "valid.csv"), "--report", str(folder / "report"))
    assert command(monkeypatch, *words) == 0
    printed = capsys.readouterr().out
    assert "loss per frame: " in printed and "share of frames within tolerance: " in printed
    assert "perplexity" not in printed and "likelihood" not in printed, "a regression has no likelihood, numbers have no perplexity"
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    for part in ("Kalman filter", "Error by step ahead", "Worst tracks", "Best tracks", "Learning curves", "valid.csv:"):
        assert part in page
    assert page.count('<svg class="chart"') == 12 + 1 + 2, "twelve fans, error by step, two learning curves"
    assert "perplexity" not in page and "http" not in page
    tree = json.loads((folder / "report" / "evaluation.json").read_text(encoding="utf-8"))
    assert set(tree["losses"]) == {"loss", "within_tolerance"} and tree["count"] == 36


def test_the_likelihood_is_in_the_users_units(folder, tmp_path):
    """The same tracks a thousand times as large are a thousand times less dense, in each of two numbers."""
    found = []
    for factor in (1, 1000):
        for name in ("train", "valid"):
            first, *rows = (folder / f"{name}.csv").read_text().splitlines()
            scaled = [",".join([*row.split(",")[:2], *(f"{factor * float(cell):.4f}" for cell in row.split(",")[2:])]) for row in rows]
            (tmp_path / f"{name}.csv").write_text("\n".join([first, *scaled]) + "\n")
        tree = tracks_tree(tmp_path, f"run-{factor}", max_steps=20, save_every_steps=20)
        tree["model"]["head"] = {"kind": "mixture", "components": 2}
        train(parse_config(tree), SilentProgress())
        forecaster = Forecaster.load(tmp_path / f"run-{factor}")
        assert forecaster.data is not None
        found.append(frame_losses(forecaster, read_examples(tmp_path / "valid.csv", forecaster.data)))
    assert found[1]["nll"] - found[0]["nll"] == pytest.approx(2 * np.log(1000), abs=0.05)
    assert found[1]["loss"] == pytest.approx(found[0]["loss"], abs=0.05)


def mixed_tree(folder: Path, run: str, *, source: str, target: str) -> dict[str, Any]:
    """One end text, the other numbers, in a JSONL file."""
    codecs = {"text": {"kind": "characters"}, "frames": {"kind": "frames"}}
    return {
        "run_dir": str(folder / run),
        "data": {
            "train": {"path": str(folder / "mixed.jsonl"), "source": source, "target": target},
            "valid": {"path": str(folder / "mixed.jsonl"), "source": source, "target": target},
            "source_codec": codecs[source],
            "target_codec": codecs[target],
            "cache_dir": str(folder / "cache"),
        },
        "model": {
            "frontend": {"kind": "steps" if source == "frames" else "tokens"},
            "encoder": GRU,
            "decoder": {**GRU, "attention": "additive"},
            "head": {"stop": True},
            "embedding_size": 16,
            "embedding_dropout": 0.0,
        },
        "train": {
            "max_steps": 150,
            "save_every_steps": 150,
            "precision": "fp32",
            "validation": {"metrics": ["exact_match"] if target == "text" else ["ade"]},
            "metric": "exact_match" if target == "text" else "ade",
            "optimizer": {"learning_rate": 1e-2},
        },
    }


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Letters and the heights they stand for, 1 to 4 of them."""
    place = tmp_path_factory.mktemp("mixed")
    draw = np.random.default_rng(0)
    records = []
    for _ in range(150):
        letters = draw.integers(0, 3, draw.integers(1, 5))
        records.append({"text": "".join("abc"[letter] for letter in letters), "frames": [[float(letter), -1.0] for letter in letters]})
    (place / "mixed.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return place


def test_numbers_become_text(mixed):
    train(parse_config(mixed_tree(mixed, "to-text", source="frames", target="text")), SilentProgress())
    frames = [Track(np.array(rows, dtype=np.float32)) for rows in ([[0, -1], [2, -1]], [[1, -1]], [[2, -1], [2, -1], [0, -1]])]
    assert [prediction.text for prediction in Predictor.load(mixed / "to-text").predict(frames)] == ["ac", "b", "cca"]


def test_text_becomes_numbers_of_its_own_length(mixed):
    train(parse_config(mixed_tree(mixed, "to-numbers", source="text", target="frames")), SilentProgress())
    forecasts = Forecaster.load(mixed / "to-numbers").predict(["ac", "b", "cca"])
    for forecast, heights in zip(forecasts, ([0, 2], [1], [2, 2, 0]), strict=True):
        assert forecast.values.shape == (len(heights), 2)
        np.testing.assert_allclose(forecast.values[:, 0], heights, atol=0.3)


def test_contradictions_are_refused(folder):
    for change, message in (
        ({"model": {"frontend": {"kind": "tokens"}}}, r"model\.frontend\.kind = tokens .* source is frames"),
        ({"rollout": {"num_samples": 3}}, r"rollout\.num_samples = 3 needs model\.head\.kind = mixture"),
        ({"train": {"metric": "bleu", "validation": {"metrics": ["bleu"]}}}, "bleu is not measured of a target of numbers"),
        ({"train": {"loss": {"r_drop": 1.0}, "metric": "ade", "validation": {"metrics": ["ade"]}}}, r"r_drop needs a target of text"),
        ({"data": {"windows": None}}, r"data\.windows"),
        ({"data": {"valid": {"path": "valid.csv", "noise": 0.1}}}, r"data\.valid\.noise = 0\.1: noise is for training"),
    ):
        tree = tracks_tree(folder, "refused")
        for group, settings in change.items():
            tree[group] = {**tree.get(group, {}), **settings}
        with pytest.raises(ConfigError, match=message):
            parse_config(tree)


def test_the_model_directory_tells_what_it_is(folder, monkeypatch, capsys):
    assert command(monkeypatch, "info", str(folder / "run")) == 0
    assert "frames, 2 numbers, residual" in capsys.readouterr().out
    assert load_model(folder / "run" / "model").config.model != ModelConfig()
