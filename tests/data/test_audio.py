"""Recordings: widths from headers, batches of samples, random changes by key, what is refused, from a manifest to a batch."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sounds import opus_silence, tone, with_ffmpeg, with_sndfile

from transduce.data.audio import AudioCodec, AudioConfig, colored_noise
from transduce.data.codec import load_codec
from transduce.data.loader import DataConfig, prepare
from transduce.data.media import media_of, open_media, read_media
from transduce.data.values import BadValueError, Media
from transduce.errors import ConfigError, DataError

RATE = 8_000
CONFIG = AudioConfig(sample_rate_hz=RATE, max_seconds=4, features={"kind": "fbank", "num_bins": 20})


def codec(**settings: object) -> AudioCodec:
    return AudioCodec(CONFIG.model_copy(update=settings), [0.0] * 20, [1.0] * 20)


def recordings(folder: Path) -> dict[str, Media]:
    """A few formats of a second and a half or so, one as a member of an archive, one as a part of a longer file."""
    contents = {
        "a.wav": with_sndfile(tone(1.5, rate=RATE), RATE, "WAV"),
        "b.flac": with_sndfile(tone(1.2, rate=16_000), 16_000, "FLAC"),
        "c.mp3": with_ffmpeg(tone(1.4, rate=16_000), 16_000, "mp3", "libmp3lame"),
        "long.ogg": with_sndfile(tone(9.0, rate=16_000), 16_000, "OGG", "VORBIS"),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    with tarfile.open(folder / "all.tar", "w") as archive:
        for name in contents:
            archive.add(folder / name, f"in/{name}")
    found = {name: Media(folder / name) for name in ("a.wav", "b.flac", "c.mp3")}
    return {**found, "member": Media(folder / "all.tar", "in/b.flac"), "part": Media(folder / "all.tar", "in/long.ogg", 5.0, 6.25)}


def keys(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def test_an_open_file_or_member_reads_as_its_bytes(tmp_path: Path) -> None:
    for media in recordings(tmp_path).values():
        content = read_media(media)
        with open_media(media) as file:
            assert file.read() == content and file.seek(-5, io.SEEK_END) == len(content) - 5 and file.read(99) == content[-5:]
            assert file.seek(10) == 10 and file.read(7) == content[10:17] and file.tell() == 17
    for missing in (Media(tmp_path / "none.wav"), Media(tmp_path / "all.tar", "none.wav"), Media(tmp_path)):
        with pytest.raises(BadValueError, match="no such"):
            open_media(missing)


def test_widths_are_the_frames_of_what_is_decoded(tmp_path: Path) -> None:
    values = list(recordings(tmp_path).values())
    quick, thorough = codec().rows(values), codec().rows(values, thorough=True)
    for value, row, decoded in zip(values, quick, thorough, strict=True):
        assert row.problem is None and media_of(row.data) == value
        frames = CONFIG.features.num_frames(len(codec().samples(value)), RATE)
        assert decoded.width == frames and row.width == pytest.approx(frames, abs=8 if value.path.suffix == ".mp3" else 1)
    assert quick[-1].width == pytest.approx(123, abs=1), "a second and a quarter of a long file"


def test_a_batch_holds_samples_and_silence(tmp_path: Path) -> None:
    values = list(recordings(tmp_path).values())
    batch = codec().collate([row.data for row in codec().rows(values)], None)
    whole = list(codec().contents(values))
    assert torch.equal(codec().collate([row.data for row in whole], None).data, batch.data), "decoded before or in the batch"
    assert [row.width for row in whole] == [row.width for row in codec().rows(values, thorough=True)]
    assert batch.keys is None and batch.data.shape == (5, int(batch.lengths.max()))
    for value, row, length in zip(values, batch.data, batch.lengths.tolist(), strict=True):
        np.testing.assert_array_equal(row[:length].numpy(), codec().samples(value))
        assert not row[length:].any()


VARIED = {"speed_factors": [0.8, 1.0, 1.25], "gain_db": 6.0, "noise_share": 0.7}


def test_changes_are_a_function_of_the_key(tmp_path: Path) -> None:
    rows = [row.data for row in codec().rows(list(recordings(tmp_path).values()))]
    varied = codec(**VARIED)
    together, again = varied.collate(rows, keys(1, 2, 3, 4, 5)), varied.collate(rows[::-1], keys(5, 4, 3, 2, 1))
    plain = varied.collate(rows, None)
    for number, length in enumerate(together.lengths.tolist()):
        np.testing.assert_array_equal(together.data[number, :length], again.data[4 - number, :length])
    assert together.lengths.tolist() != plain.lengths.tolist() and together.keys is not None
    other = varied.collate(rows, keys(6, 7, 8, 9, 10))
    assert other.data.shape != together.data.shape or not np.array_equal(other.data, together.data)


def test_speed_changes_length_and_pitch(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(with_sndfile(tone(2.0, rate=RATE), RATE, "WAV"))
    row = codec().row(Media(tmp_path / "a.wav")).data
    for factor in (0.8, 1.25):
        batch = codec(speed_factors=[factor]).collate([row], keys(1))
        sound = batch.data[0].numpy()
        assert len(sound) == pytest.approx(2 * RATE / factor, abs=2)
        assert np.abs(np.fft.rfft(sound)).argmax() * RATE / len(sound) == pytest.approx(440 * factor, abs=2)
    limited = codec(speed_factors=[0.5], max_seconds=3.0).collate([row], keys(1))
    assert limited.lengths.tolist() == [2 * RATE], "four seconds would be too long: it keeps its speed"


def test_noise_and_gain_are_as_strong_as_asked(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(with_sndfile(tone(2.0, rate=RATE), RATE, "WAV", "FLOAT"))
    row, clean = codec().row(Media(tmp_path / "a.wav")).data, tone(2.0, rate=RATE)
    ratios = []
    for key in range(40):
        noise = codec(noise_share=0.5, noise_snr_db=(5.0, 15.0)).collate([row], keys(key)).data[0].numpy() - clean
        ratios.append(np.inf if not noise.any() else 10 * np.log10(np.square(clean).mean() / np.square(noise).mean()))
    noisy = np.isfinite(ratios)
    assert 10 <= noisy.sum() <= 30
    assert np.min(ratios) >= 4.9 and np.max(np.array(ratios)[noisy]) <= 15.1 and np.std(np.array(ratios)[noisy]) > 1
    gains = [np.abs(codec(gain_db=6.0).collate([row], keys(key)).data[0].numpy()).max() / np.abs(clean).max() for key in range(40)]
    assert 0.5 < min(gains) < 0.65 and 1.5 < max(gains) < 2.0


@pytest.mark.parametrize("color", [0.0, 1.0])
def test_noise_has_the_color_asked_for(color: float) -> None:
    power = np.abs(np.fft.rfft(colored_noise(1 << 16, color, seed=3))) ** 2
    low, high = power[500:1000].mean(), power[16_000:32_000].mean()
    assert np.log(low / high) / np.log(32) == pytest.approx(color, abs=0.05)


def test_5_what_is_learned_is_stored(tmp_path: Path) -> None:
    values = list(recordings(tmp_path).values())
    fitted = AudioCodec.fit(CONFIG, iter([*values, Media(tmp_path / "missing.wav")]), seed=1)
    assert len(fitted.shape.mean) == 20 and all(value > 0 for value in fitted.std)
    (tmp_path / "codec").mkdir()
    fitted.save(tmp_path / "codec")
    loaded = load_codec(tmp_path / "codec")
    assert loaded.digest == fitted.digest != codec().digest and loaded.shape == fitted.shape
    assert "8000 Hz" in loaded.describe() and loaded.check(values) is None
    with pytest.raises(DataError, match="no recording"):
        AudioCodec.fit(CONFIG, [Media(tmp_path / "missing.wav")], seed=1)


def test_bad_recordings_are_rows_with_a_problem(tmp_path: Path) -> None:
    contents = {
        "empty.wav": b"",
        "text.wav": b"hello",
        "long.opus": opus_silence(0.01),
        "short.wav": with_sndfile(tone(0.01, rate=RATE), RATE, "WAV"),
        "cut.flac": with_sndfile(tone(1.0), 16_000, "FLAC")[:3000],
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    reasons = ["file is empty", "not a sound file", "sound is too long", "sound is too short", "sound cannot be decoded"]
    values = [Media(tmp_path / name) for name in contents]
    quick, thorough = codec().rows(values), codec().rows(values, thorough=True)
    assert [row.problem and row.problem.reason for row in thorough] == reasons
    assert [row.problem and row.problem.reason for row in quick] == [*reasons[:-1], None]
    assert all(row.problem is None or name in row.problem.detail for name, row in zip(contents, thorough, strict=True))
    with pytest.raises(BadValueError, match=r"cut\.flac"):
        codec().collate([quick[-1].data], None)


def corpus(folder: Path, *, broken: bool) -> DataConfig:
    """A manifest of six recordings in an archive and its settings."""
    folder.mkdir()
    names = [f"{number}.wav" for number in range(6)]
    with tarfile.open(folder / "all.tar", "w") as archive:
        for number, name in enumerate(names):
            content = with_sndfile(tone(0.5 + 0.1 * number, rate=RATE), RATE, "WAV")
            entry = tarfile.TarInfo(name)
            entry.size = len(content) // 2 if broken and number == 3 else len(content)
            archive.addfile(entry, io.BytesIO(content))
    lines = [json.dumps({"audio": name, "text": "ab" * (1 + number)}) for number, name in enumerate(names)]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    part = {"path": folder / "train.jsonl", "source": "audio", "target": "text", "media": folder / "all.tar"}
    return DataConfig.model_validate(
        {
            "train": part,
            "valid": part,
            "source_codec": CONFIG.model_dump() | VARIED,
            "target_codec": {"kind": "characters"},
            "errors": "tolerant" if broken else "strict",
            "max_source_tokens": 90,
            "max_target_tokens": 20,
            "max_tokens_per_batch": 200,
            "cache_dir": folder / "cache",
            "workers": 1,
        }
    )


def test_from_a_manifest_to_batches(tmp_path: Path) -> None:
    data = prepare(corpus(tmp_path / "data", broken=False), seed=1)
    report = data.report.corpora[0]
    assert report.read == 6 and {reason: entry.count for reason, entry in report.skipped.items()} == {"source longer than 90 tokens": 1}
    assert report.source_lengths is not None and report.source_lengths.longest == 88 and data.lossless[0].checked == 0
    seen = list(data.train.batches(0))
    assert sorted(int(number) for batch in seen for number in batch.ids) == [0, 1, 2, 3, 4]
    assert all(batch.source.keys is not None and batch.source.data.dtype.is_floating_point for batch in seen)
    again = next(iter(data.train.batches(0, start=len(seen) - 1)))
    np.testing.assert_array_equal(again.source.data, seen[-1].source.data)
    assert all(batch.source.keys is None for batch in data.valid.batches(0))


def test_broken_recordings_are_counted_or_stop_the_run(tmp_path: Path) -> None:
    config = corpus(tmp_path / "data", broken=True)
    report = prepare(config, seed=1).report.corpora[0]
    assert report.skipped["file is cut off"].count == 1 and report.skipped["file is cut off"].places[0].endswith("train.jsonl:4")
    with pytest.raises(DataError, match=r"train\.jsonl:4.*file is cut off"):
        prepare(config.model_copy(update={"errors": "strict"}), seed=1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"speed_factors": [0.1]}, "from 0.5 to 2"),
        ({"noise_snr_db": (20, 10)}, "lower one first"),
        ({"features": {"kind": "mfcc", "num_bins": 10}}, "above num_bins"),
        ({"features": {"highest_hz": 6000.0}, "sample_rate_hz": 8000}, "above half"),
    ],
)
def test_settings_that_cannot_be(settings: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        AudioConfig(**settings)
