"""Recordings of any length: windows, words where they meet, guards, files."""

import json
import wave
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("soundfile")
pytest.importorskip("soxr")

from transduce.commands.transcribe import TranscribeOptions, transcribe_files, written
from transduce.data.audio import AudioCodec, AudioConfig
from transduce.data.sound_files import read_sound
from transduce.data.symbols import CharacterCodec
from transduce.data.values import Media
from transduce.decode.options import SearchConfig
from transduce.errors import ConfigError, DataError
from transduce.model.conformer import ConformerConfig
from transduce.model.features import FeaturesConfig
from transduce.model.recurrent_decoder import RecurrentDecoderConfig
from transduce.model.seq2seq import ModelConfig, build_model
from transduce.model.sound import SoundConfig
from transduce.predict import Predictor
from transduce.readings import LengthCeilings
from transduce.timing import TokenTimes, token_times
from transduce.transcribe import Segment, WindowsOfSound, _joined, cut, guards, level_db, transcribe

RATE = 8000


def predictor(*, ctc: bool = True, attention: str = "additive") -> Predictor:
    torch.manual_seed(3)
    sound = AudioCodec(AudioConfig(sample_rate_hz=RATE, max_seconds=1, features=FeaturesConfig(kind="fbank", num_bins=8)), [0] * 8, [5] * 8)
    text = CharacterCodec.fit(["ab "], min_count=1)
    config = ModelConfig(
        frontend=SoundConfig(factor=4, channels=4),
        encoder=ConformerConfig(layers=1, width=8, heads=2, feed_forward=8, kernel_size=3),
        decoder=RecurrentDecoderConfig(width=8, attention=attention, attention_size=8),
        embedding_size=8,
        ctc=ctc,
    )
    model = build_model(config, sound.shape, text.shape)
    with torch.no_grad():  # it writes letters that depend on the sound, and never blanks only
        for parameter in model.parameters():
            parameter.mul_(3)
    search = SearchConfig(beam_size=1, ctc_weight=1.0 if ctc else 0.0, max_length=12)
    return Predictor([model], sound, text, search=search, ceilings=LengthCeilings(400, 50))


def recording(path: Path, seconds: float, *, silent: tuple[float, float] = (0, 0)) -> Path:
    times = np.arange(round(seconds * RATE)) / RATE
    samples = 0.4 * np.sin(2 * np.pi * (300 + 800 * times) * times) * (1 + 0.5 * np.sin(40 * times))
    samples[round(silent[0] * RATE) : round(silent[1] * RATE)] = 0
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 20_000).astype("<i2").tobytes())
    return path


def test_windows_cover_a_recording_and_overlap():
    assert cut(0.7, 1.0, 0.25) == [(0.0, 0.7)]
    assert cut(1.0, 1.0, 0.25) == [(0.0, 1.0)]
    spans = cut(3.3, 1.0, 0.25)
    assert spans[0] == (0.0, 1.0) and spans[-1] == (pytest.approx(2.3), pytest.approx(3.3))
    assert all(start < end and end - start == pytest.approx(1.0) for start, end in spans)
    assert all(later[0] <= earlier[1] - 0.25 + 1e-9 for earlier, later in pairwise(spans))


def test_a_short_recording_is_what_predict_says(tmp_path):
    model, path = predictor(), recording(tmp_path / "a.wav", 0.8)
    transcript = transcribe(model, path)
    assert transcript.text == model.predict([Media(path)])[0].text != ""
    assert transcript.seconds == pytest.approx(0.8)
    assert [word.text for word in transcript.words] == transcript.text.split()


def test_every_window_is_read_and_silence_is_told(tmp_path, monkeypatch):
    model, path = predictor(), recording(tmp_path / "a.wav", 3.3, silent=(0.7, 1.8))
    decoded = []
    monkeypatch.setattr("transduce.data.audio.read_sound", lambda *words: decoded.append(words) or read_sound(*words))
    transcript = transcribe(model, path, windows=WindowsOfSound(1.0, 0.25))
    assert len(decoded) == len(transcript.segments), "level, text and times are of the same samples"
    with monkeypatch.context() as patched:
        patched.setattr("transduce.readings.HELD_BYTES", 1)
        parts = transcribe(model, path, windows=WindowsOfSound(1.0, 0.25))
    assert [replace(word, confidence=0) for word in parts.words] == [replace(word, confidence=0) for word in transcript.words]
    assert parts.segments == transcript.segments
    spans = [(segment.start, segment.end) for segment in transcript.segments]
    assert spans == [(pytest.approx(start), pytest.approx(end)) for start, end in cut(3.3, 1.0, 0.25)]
    assert [segment.flags for segment in transcript.segments][1] == ("silent",)
    assert transcript.flags["silent"] == 1
    for segment in transcript.segments:
        if segment.flags != ("silent",):
            assert segment.text == model.predict([Media(path, None, segment.start or None, segment.end)])[0].text
    starts = [word.start for word in transcript.words]
    assert starts and starts == sorted(starts)
    assert max(word.end for word in transcript.words) <= 3.3 + 1e-6


def test_a_word_belongs_to_the_window_that_holds_its_middle():
    model = predictor()
    encode = model.target_codec.encode
    segments = [Segment(0.0, 1.0, "a b", ()), Segment(0.8, 1.8, "b a", ())]
    times = {
        0: TokenTimes(tuple(encode("a b").tolist()), ((0.1, 0.2), (0.2, 0.8), (0.82, 0.86)), (1, 1, 1)),
        1: TokenTimes(tuple(encode("b a").tolist()), ((0.02, 0.06), (0.1, 0.5), (0.6, 0.7)), (1, 1, 1)),
    }
    words = [(word.text, round(word.start, 2)) for word in _joined(model, segments, times)]
    assert words == [("a", 0.1), ("b", 0.82), ("a", 1.4)]


def test_what_speaks_against_an_output():
    model = predictor()
    (one,) = model.predict([Media(Path("/none.wav"))])
    assert guards(one) == ()
    assert guards(replace(one, text="ab " * 40)) == ("repetitive",)
    assert guards(replace(one, text="ab", tokens=("a", "b"), log_probability=-9.0)) == ("unsure",)
    fused = replace(one, text="ab", tokens=("a", "b"), log_probability=-4.0)  # of a model and of a language model with weight 0.5
    assert guards(fused) == ("unsure",) and guards(fused, share=1.5) == ()
    assert level_db(np.zeros(10)) == -200
    assert level_db(np.ones(10)) == 0


@pytest.mark.parametrize("window, overlap", [(2.0, 0.1), (0.5, 0.5), (0.5, 0.6)])
def test_windows_that_do_not_fit_are_refused(tmp_path, window, overlap):
    with pytest.raises(ConfigError, match="up to 1 s"):
        transcribe(predictor(), recording(tmp_path / "a.wav", 0.8), windows=WindowsOfSound(window, overlap))


def test_broken_recordings_are_refused(tmp_path):
    (tmp_path / "b.wav").write_bytes(b"RIFF nothing")
    for path in (tmp_path / "b.wav", tmp_path / "none.wav"):
        with pytest.raises(DataError):
            transcribe(predictor(), path)
        with pytest.raises(DataError):
            transcribe_files(tmp_path, [path], options=TranscribeOptions(), words=[], threads=None)


def test_attention_tells_times_where_there_is_no_ctc(tmp_path):
    path = recording(tmp_path / "a.wav", 0.8)
    (times,) = token_times(predictor(ctc=False), [Media(path)], ["ab a"])
    assert times is not None and len(times.spans) == 4
    assert [start for start, _ in times.spans] == sorted(start for start, _ in times.spans)
    assert times.spans[0][0] >= 0 and times.spans[-1][1] <= 0.8 + 0.04
    with pytest.raises(ConfigError, match="neither CTC nor attention"):
        token_times(predictor(ctc=False, attention="none"), [Media(path)], ["ab"])


def test_options_that_cannot_work_are_refused(tmp_path):
    path = recording(tmp_path / "a.wav", 0.3)
    (tmp_path / "other").mkdir()
    twin = recording(tmp_path / "other" / "a.wav", 0.3)
    for options, files, words in (
        (TranscribeOptions("srtt"), [path], "srt"),
        (TranscribeOptions("srt"), [path, twin], "--output"),
        (TranscribeOptions("vtt", tmp_path / "out"), [path, twin], "two recordings"),
    ):
        with pytest.raises(ConfigError, match=words):
            transcribe_files(tmp_path, files, options=options, words=[], threads=None)


def test_transcripts_are_written_in_each_style(tmp_path):
    path = recording(tmp_path / "a.wav", 0.8)
    transcript = transcribe(predictor(), path)
    assert written(path, transcript, "text").split() == transcript.text.split()
    assert written(path, transcript, "srt").startswith("1\n00:00:00,")
    assert written(path, transcript, "vtt").startswith("WEBVTT\n")
    assert json.loads(written(path, transcript, "jsonl"))["words"][0]["text"] == transcript.words[0].text
