"""Sound files: what is read is what was written, in any container; headers tell lengths; hostile files cost little and say why."""

import io
import resource
import time
from contextlib import suppress

import numpy as np
import pytest
from sounds import flac_bomb, opus_silence, tone, wav_header, with_ffmpeg, with_sndfile

from transduce.data.sound_files import CONTAINERS, Part, read_sound, sound_seconds
from transduce.data.sound_headers import read_header
from transduce.data.values import BadValueError

TONE = tone(2.0)
RATE = 16_000
WHOLE = Part()
LOSSLESS = {
    "wav-16": with_sndfile(TONE, RATE, "WAV", "PCM_16"),
    "wav-24": with_sndfile(TONE, RATE, "WAV", "PCM_24"),
    "wav-float": with_sndfile(TONE, RATE, "WAV", "FLOAT"),
    "wav-extensible": with_sndfile(TONE, RATE, "WAVEX", "PCM_16"),
    "rf64": with_sndfile(TONE, RATE, "RF64", "PCM_16"),
    "flac": with_sndfile(TONE, RATE, "FLAC"),
    "aiff": with_sndfile(TONE, RATE, "AIFF", "PCM_16"),
    "matroska-pcm": with_ffmpeg(TONE, RATE, "matroska", "pcm_s16le"),
}
LOSSY = {
    "mu-law": with_sndfile(TONE, RATE, "WAV", "ULAW"),
    "vorbis": with_sndfile(TONE, RATE, "OGG", "VORBIS"),
    "mp3": with_ffmpeg(TONE, RATE, "mp3", "libmp3lame"),
    "opus": with_ffmpeg(TONE, RATE, "ogg", "libopus"),
    "webm": with_ffmpeg(TONE, RATE, "webm", "libopus"),
    "m4a": with_ffmpeg(TONE, RATE, "mp4", "aac"),
    "aac": with_ffmpeg(TONE, RATE, "adts", "aac"),
    "adpcm": with_ffmpeg(TONE, RATE, "wav", "adpcm_ms"),
    "video": with_ffmpeg(TONE, RATE, "mp4", "aac", picture=True),
}
FILES = {**LOSSLESS, **LOSSY}
EXACT = ("wav-16", "wav-24", "wav-float", "wav-extensible", "rf64", "flac", "vorbis", "opus", "mu-law")


def read(content: bytes, rate: int = RATE, part: Part = WHOLE) -> np.ndarray:
    return read_sound(io.BytesIO(content), rate, part)


def seconds(content: bytes, part: Part = WHOLE) -> float:
    return sound_seconds(io.BytesIO(content), part)


def distance(sound: np.ndarray, other: np.ndarray) -> float:
    """Relative, at the best of some shifts: lossy codecs delay by a few milliseconds where their container does not say so."""
    middle = other[8000:24000]
    shifts = [float(np.square(sound[8000 + shift : 24000 + shift] - middle).mean()) for shift in range(0, 1200)]
    return float(np.sqrt(min(shifts) / np.square(middle).mean()))


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_files_come_back(name: str) -> None:
    np.testing.assert_allclose(read(LOSSLESS[name]), TONE, atol=1e-4)


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_files_come_back_nearly(name: str) -> None:
    sound = read(LOSSY[name])
    assert sound.dtype == np.float32 and abs(len(sound) - len(TONE)) < 0.12 * RATE
    assert distance(np.pad(sound, (0, 2000)), TONE) < 0.1


@pytest.mark.parametrize("name", FILES)
def test_headers_tell_the_length(name: str) -> None:
    assert seconds(FILES[name]) == pytest.approx(2.0, abs=1e-3 if name in EXACT else 0.12)
    assert (read_header(io.BytesIO(FILES[name])).seconds is not None) == (name in EXACT)


@pytest.mark.parametrize("name", FILES)
def test_a_part_is_what_stands_there(name: str) -> None:
    part = Part(0.5, 1.25)
    whole, piece = read(FILES[name]), read(FILES[name], part=part)
    assert len(piece) == 0.75 * RATE and seconds(FILES[name], part) == pytest.approx(0.75)
    np.testing.assert_allclose(piece[200:-200], whole[RATE // 2 + 200 : RATE * 5 // 4 - 200], atol=1e-3)
    assert len(read(FILES[name], part=Part(0.5))) == pytest.approx(len(whole) - RATE // 2, abs=1)


def test_a_late_part_of_a_long_file_is_found_by_seeking() -> None:
    long = with_ffmpeg(tone(60.0), RATE, "mp4", "aac")
    whole = read(long, part=Part(max_seconds=70))
    np.testing.assert_allclose(read(long, part=Part(45.0, 46.0)), whole[45 * RATE : 46 * RATE], atol=1e-3)


@pytest.mark.parametrize("content", [with_sndfile(tone(rate=8000), 8000, "WAV"), with_ffmpeg(tone(rate=48000), 48000, "ogg", "libopus")])
@pytest.mark.parametrize("rate", [8000, 16000, 22050])
def test_any_rate_becomes_the_wanted_one(content: bytes, rate: int) -> None:
    sound = read(content, rate)
    assert len(sound) == pytest.approx(rate, abs=2)
    peak = np.abs(np.fft.rfft(sound)).argmax() * rate / len(sound)
    assert peak == pytest.approx(440, abs=2)


@pytest.mark.parametrize("form", ["WAV", "FLAC", "AIFF"])
def test_channels_are_averaged(form: str) -> None:
    both = np.stack([TONE, np.zeros_like(TONE), -0.5 * TONE], axis=1)
    np.testing.assert_allclose(read(with_sndfile(both, RATE, form)), TONE / 6, atol=1e-4)


def test_the_content_decides_and_not_the_name() -> None:
    assert read_header(io.BytesIO(LOSSLESS["flac"])).format == "flac", "there is no name to look at"
    with_tag = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + LOSSY["mp3"]
    assert abs(len(read(with_tag)) - len(TONE)) < 0.12 * RATE


def test_a_length_that_was_never_filled_in_reads_to_the_end() -> None:
    """What a program writes into a pipe."""
    for claimed in (0xFFFFFFFF, 0):
        assert seconds(wav_header(data_bytes=32000, claimed=claimed)) == 1.0
        assert len(read(wav_header(data_bytes=32000, claimed=claimed))) == RATE


PLAYLISTS = (
    b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
    b"ffconcat version 1.0\nfile '/etc/hostname'\n",
)
HOSTILE = {
    "empty": (b"", "file is empty"),
    "wav-cut-off": (LOSSLESS["wav-16"][:20_000], "file is cut off"),
    "wav-cut-in-header": (LOSSLESS["wav-16"][:30], "file is cut off"),
    "flac-cut-off": (LOSSLESS["flac"][: len(LOSSLESS["flac"]) // 2], "sound cannot be decoded"),
    "flac-cut-in-header": (LOSSLESS["flac"][:30], "file is cut off"),
    "m4a-cut-off": (LOSSY["m4a"][:5000], "not a sound file"),
    "text": (b"hello world\n" * 50, "not a sound file"),
    "random": (np.random.default_rng(1).bytes(100_000), "not a sound file"),
    "playlist": (PLAYLISTS[0], "not a sound file"),
    "list-of-files": (PLAYLISTS[1], "not a sound file"),
    "flac-of-68-billion": (flac_bomb(), "header claims more than the file can hold"),
    "flac-of-25-seconds": (flac_bomb(samples=400_000), "sound cannot be decoded"),
    "opus-of-hours": (opus_silence(5), "sound is too long"),
    "opus-that-lies": (opus_silence(5, claimed_seconds=3), "sound is too long"),
    "not-a-number": (with_sndfile(np.full(RATE, np.nan, np.float32), RATE, "WAV", "FLOAT"), "sample is not finite"),
    "no-channels": (wav_header(channels=0), "wrong number of channels"),
    "many-channels": (wav_header(channels=1000, block=2000), "wrong number of channels"),
    "no-rate": (wav_header(rate=0), "wrong sample rate"),
    "absurd-rate": (wav_header(rate=1 << 31), "wrong sample rate"),
    "absurd-block": (wav_header(block=60_000), "wrong block size"),
    "no-samples": (wav_header(data_bytes=0), "no sound in the file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_at_little_cost(name: str) -> None:
    content, reason = HOSTILE[name]
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(BadValueError) as caught:
        read(content, part=Part(max_seconds=30))
    assert caught.value.reason == reason and caught.value.detail
    assert time.perf_counter() - started < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "kilobytes"
    with suppress(BadValueError):  # a length from the header: an answer or a reason, but never another error
        assert seconds(content, Part(max_seconds=30)) >= 0


def test_a_film_without_sound_says_so() -> None:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), dtype=np.uint8), "rgb24")
        output.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(BadValueError, match="no sound in the file"):
        read(file.getvalue())


@pytest.mark.parametrize("name", FILES)
def test_too_long_is_refused_and_never_cut(name: str) -> None:
    with pytest.raises(BadValueError, match="sound is too long"):
        read(FILES[name], part=Part(max_seconds=1))
    assert len(read(FILES[name], part=Part(1.0, 1.5, max_seconds=1))) == RATE // 2, "a part that is short enough"


@pytest.mark.parametrize("name", ["wav-16", "vorbis", "mp3", "m4a", "webm"])
def test_parts_that_are_not_there_are_refused(name: str) -> None:
    for part, reason in ((Part(5.0), "begins behind the end"), (Part(1.0, 9.0), "ends behind the end")):
        with pytest.raises(BadValueError, match=reason):
            read(FILES[name], part=part)


def test_no_container_may_name_other_files() -> None:
    assert not {"hls", "concat", "dash", "sdp", "applehttp", "image2", "imf"} & set(CONTAINERS.split(","))
