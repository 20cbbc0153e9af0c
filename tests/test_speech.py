"""Speech end to end: a few steps of training from a manifest, the stored model, predictions of good and broken recordings, a report."""

import io
import json
import random
import wave
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from test_report import check_html
from typer.testing import CliRunner

from transduce.cli import app
from transduce.config import parse_config
from transduce.data.audio import AudioCodec
from transduce.data.codec import as_text_codec
from transduce.data.loader import prepare
from transduce.data.sound_files import Part, Samples, read_sound
from transduce.data.values import Media
from transduce.decode.options import SearchConfig
from transduce.errors import ConfigError
from transduce.evaluate import evaluate, write_report
from transduce.model.seq2seq import build_model
from transduce.predict import Predictor
from transduce.report.exhibits import Hearing, gather
from transduce.train.loop import train


def recording(seconds: float, seed: int) -> bytes:
    """Noise, 16 bit, 8 kHz."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 8000, 0, "NONE", ""))
        writer.writeframes(random.Random(seed).randbytes(2 * round(8000 * seconds)))
    return file.getvalue()


def tree(folder: Path) -> dict:
    """Settings of a tiny model on ten recordings in a folder, which are written."""
    for number in range(10):
        (folder / f"{number}.wav").write_bytes(recording(0.3 + 0.05 * number, number))
    lines = [json.dumps({"audio": f"{number}.wav", "text": "ab"[number % 2] * (1 + number % 3)}) for number in range(10)]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    corpus = {"path": str(folder / "train.jsonl"), "source": "audio", "target": "text"}
    return {
        "preset": "speech-las",
        "run_dir": str(folder / "run"),
        "data": {
            "train": corpus,
            "valid": corpus,
            "source_codec": {"kind": "audio", "sample_rate_hz": 8000, "features": {"num_bins": 12}, "noise_share": 0.5},
            "max_tokens_per_batch": 400,
            "max_source_tokens": 300,
            "max_target_tokens": 20,
            "cache_dir": str(folder / "cache"),
        },
        "model": {
            "frontend": {"channels": 2},
            "encoder": {"layers": 2, "width": 8},
            "decoder": {"width": 8, "attention_size": 8},
            "embedding_size": 8,
        },
        "train": {"max_steps": 4, "save_every_steps": 2, "validate_every_steps": 4},
    }


def test_from_recordings_to_predictions(tmp_path: Path) -> None:
    config = parse_config(tree(tmp_path))
    assert config.model.frontend.kind == "sound", "the preset brings it"
    train(config)
    predictor = Predictor.load(tmp_path / "run")
    assert isinstance(predictor.source_codec, AudioCodec) and predictor.source_codec.config.features.num_bins == 12
    (tmp_path / "broken.wav").write_bytes(recording(1, 1)[:500])
    named = [tmp_path / f"{name}.wav" for name in ("3", "broken", "9", "none")]
    sources = [Media(path, start=0.25 if path.stem == "9" else None) for path in named]
    found = predictor.predict(sources, with_attention=True)
    assert [prediction.flags for prediction in found] == [(), ("unreadable_source",), (), ("unreadable_source",)]
    assert found[0].attention is not None and found[0].attention.shape == (len(found[0].tokens) + 1, -(-45 // 4))
    again = predictor.predict(sources[2:3])[0]
    assert again.text == found[2].text and again.score == pytest.approx(found[2].score, abs=1e-4)
    result = evaluate(predictor, [*sources, *sources[:1]], [["aa"]] * 5, metrics=["cer"])
    page = write_report(result, predictor, report_dir=tmp_path / "report").read_text(encoding="utf-8")
    check_html(page)
    assert "wav" in page and "real-time factor" in page and 'id="attention"' not in page
    items = page.split('id="worst"')[1].split("<li>")[1:]
    drawn = ['<svg class="sound"' in item for item in items]
    assert len(items) == 4 and drawn == ["unreadable source" not in item for item in items] and any(drawn)


def test_recordings_are_drawn_with_and_without_attention(tmp_path: Path) -> None:
    """The times of tokens come from CTC or attention; a model that has neither shows waveform and features."""
    settings = tree(tmp_path)
    settings["train"]["max_steps"] = 1
    settings["model"]["decoder"]["attention"] = "none"
    settings["model"]["ctc"] = False
    settings["train"]["loss"] = {"ctc_weight": 0.0}
    settings["search"] = {"ctc_weight": 0.0}
    train(parse_config(settings))
    predictor = Predictor.load(tmp_path / "run")
    source = Media(tmp_path / "3.wav")
    (bare,) = gather(predictor, [source], predictor.search)
    assert isinstance(bare, Hearing) and bare.attention is None and bare.spans == () and bare.seconds == pytest.approx(0.45)
    assert bare.features.shape[1] == 12 and bare.wave.shape == (420, 2) and (bare.wave[:, 0] <= bare.wave[:, 1]).all()


def test_the_command_line_writes_alignments(tmp_path: Path) -> None:
    settings = tree(tmp_path)
    settings["train"]["max_steps"] = 1
    train(parse_config(settings))
    words = ["evaluate", str(tmp_path / "run"), "--data", str(tmp_path / "train.jsonl")]
    done = CliRunner().invoke(app, [*words, "--metrics", "wer,cer", "--alignments", str(tmp_path / "aligned" / "out.jsonl")])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (tmp_path / "aligned" / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["line"] for line in lines] == list(range(1, 11)) and lines[0]["unit"] == "word"
    missing = sum(line["deletions"] for line in lines)
    assert f"{missing} deletions of 10" in done.output, "the figures that are printed"
    refused = CliRunner().invoke(app, [*words, "--metrics", "exact_match", "--alignments", str(tmp_path / "x")])
    assert isinstance(refused.exception, ConfigError) and refused.exception.exit_code == 2
    assert "none among exact_match: add one with --metrics (wer, cer, per)" in str(refused.exception)


def untrained(tmp_path: Path) -> Predictor:
    """A tiny model of the recordings that `tree` writes."""
    config = parse_config(tree(tmp_path))
    data = prepare(config.data, seed=1)
    torch.manual_seed(1)
    model = build_model(config.model, data.source_codec.shape, data.target_codec.shape)
    return Predictor([model], data.source_codec, as_text_codec(data.target_codec, "target"), search=SearchConfig(max_length=5))


def test_each_recording_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = untrained(tmp_path)
    predictor.members *= 2
    (tmp_path / "broken.wav").write_bytes(recording(1, 1)[:500])
    sources = [Media(tmp_path / f"{name}.wav") for name in (*range(10), "broken")]
    decoded: list[int] = []

    def counting(file: BinaryIO, rate: int, part: Part) -> Samples:
        decoded.append(1)
        return read_sound(file, rate, part)

    monkeypatch.setattr("transduce.data.audio.read_sound", counting)
    monkeypatch.setattr("transduce.data.audio.sound_seconds", None)
    whole = predictor.predict(sources, with_attention=True)
    assert len(decoded) == len(sources)
    result = evaluate(predictor, sources, [["a"]] * len(sources), metrics=["cer"])
    assert len(decoded) == 2 * len(sources)
    assert result.sound_seconds == pytest.approx(sum(0.3 + 0.05 * number for number in range(10)), abs=0.1)

    monkeypatch.setattr("transduce.readings.HELD_BYTES", 40_000)  # three or four recordings
    held = [[row.data.nbytes for rows in readings.rows for row in rows.values()] for readings in predictor.read(sources)]
    assert len(held) > 3 and all(sum(sizes[:-1]) < 40_000 for sizes in held)
    parts = predictor.predict(sources, with_attention=True)
    for one, other in zip(whole, parts, strict=True):
        assert (one.text, one.flags, one.source_length) == (other.text, other.flags, other.source_length)
        assert one.score == pytest.approx(other.score, abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"frontend": {"kind": "tokens"}}}, "the source is audio, use sound"),
        ({"data": {"target_codec": {"kind": "audio"}}}, "can only be sources"),
        ({"data": {"source_codec": {"kind": "characters"}}}, "model.frontend.kind = sound does not fit"),
        ({"model": {"frontend": {"factor": 3}}}, "2, 4 or 8"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(tmp_path: Path, changes: dict, words: str) -> None:
    settings = tree(tmp_path)
    for part, values in changes.items():
        settings[part] = settings[part] | values
    with pytest.raises(ConfigError, match=words):
        parse_config(settings)
