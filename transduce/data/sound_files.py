"""Sound files of any kind to samples: mono, float32, at one rate, all of it or a part. Extra `audio`.

In: an open binary file. Out: (N,) float32 between -1 and 1, or a length in seconds. The content decides what a file is, never its
name. WAV, FLAC and Ogg Vorbis are read by libsndfile, which is several times faster; everything else by FFmpeg (in PyAV).
The decision a reader would question: whatever is longer than the limit is refused, never cut, and decoding stops there, so
that a few kilobytes that unfold to hours of silence cost as much as the limit allows and no more.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from transduce.data.sound_headers import Header, checked, read_header
from transduce.data.values import BadValueError
from transduce.errors import ConfigError

Samples = NDArray[np.float32]

BLOCK_SAMPLES = 1 << 16
SLACK_SECONDS = 0.1  # how far a part may go on behind the end of its file: manifests round
SEEK_FROM_SECONDS = 30.0  # a part that begins before is reached by decoding from the start, which is exact in every container
PREROLL_SECONDS = 0.5  # decoded and thrown away before a part, so that lossy codecs have settled
# The containers that FFmpeg may open. Playlists (hls, concat, dash, sdp) are not among them: they name other files and addresses.
CONTAINERS = "aac,ac3,aiff,amr,asf,au,avi,caf,eac3,flac,flv,gsm,loas,m4a,matroska,mov,mp2,mp3,mp4,mpeg,mpegts,ogg,voc,w64,wav,webm,wv"
UNMEASURED = {"aac", "mp3", "loas", "ac3", "eac3", "amr"}  # raw streams, whose length FFmpeg guesses from the bit rate


@dataclass(frozen=True)
class Part:
    """What is wanted of a file, in seconds. end: None = to the end. max_seconds: the most that may be decoded."""

    start: float = 0.0
    end: float | None = None
    max_seconds: float = 60.0


def sound_seconds(file: BinaryIO, part: Part) -> float:
    """Length of the wanted part, from headers. Raises BadValueError: not sound, too long, a part that is not there."""
    header = read_header(file)
    seconds = header.seconds
    if seconds is None:
        seconds = _container_seconds(file)
    return _length(seconds, part)


def read_sound(file: BinaryIO, sample_rate_hz: int, part: Part) -> Samples:
    """(N,) the wanted part, channels averaged. Raises BadValueError for anything that cannot be read, ConfigError without the extra."""
    header = read_header(file)
    if header.seconds is not None:
        _length(header.seconds, part)
    file.seek(0)
    if header.format in ("wav", "flac", "vorbis"):
        samples, rate = _read_with_sndfile(file, header, part)
    else:
        samples, rate = _read_with_ffmpeg(file, part)
    if not len(samples):
        raise BadValueError("no sound in the file", "it holds no samples")
    if not np.isfinite(samples).all():
        raise BadValueError("sample is not finite", "the sound holds NaN or infinity")
    return samples if rate == sample_rate_hz else resampled(samples, rate, sample_rate_hz)


def resampled(samples: Samples, from_hz: float, to_hz: float) -> Samples:
    """(N,) -> (M,) at another rate. Raises ConfigError without the extra."""
    try:
        import soxr
    except ImportError as error:
        raise _missing(error) from error
    return np.asarray(soxr.resample(samples, from_hz, to_hz, quality="HQ"), dtype=np.float32)


def _length(seconds: float, part: Part) -> float:
    """Seconds of the part of a file of so many seconds. Raises BadValueError."""
    if not math.isfinite(seconds):
        raise BadValueError("length is not known", "the file does not say how long it is")
    if part.start > 0 and part.start >= seconds:
        raise BadValueError("part begins behind the end", f"it begins at {part.start:g} s, the file has {seconds:.2f} s")
    end = seconds if part.end is None else part.end
    if end > seconds + SLACK_SECONDS:
        raise BadValueError("part ends behind the end", f"it ends at {end:g} s, the file has {seconds:.2f} s")
    length = min(end, seconds) - part.start
    if length > part.max_seconds:
        raise BadValueError(*_too_long(f"{length:.1f} s", part))
    return length


def _too_long(what: str, part: Part) -> tuple[str, str]:
    return "sound is too long", f"{what}; max_seconds = {part.max_seconds:g}"


def _read_with_sndfile(file: BinaryIO, header: Header, part: Part) -> tuple[Samples, int]:
    try:
        import soundfile
    except ImportError as error:
        raise _missing(error) from error
    rate = header.sample_rate_hz
    first, limit = round(part.start * rate), math.ceil(part.max_seconds * rate)
    wanted = limit + 1 if part.end is None else min(limit + 1, round(part.end * rate) - first)
    try:
        with soundfile.SoundFile(file) as sound:
            if first:
                sound.seek(first)
            samples = _mono(sound, wanted)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise BadValueError("sound cannot be decoded", str(error)) from None
    if len(samples) > limit:
        raise BadValueError(*_too_long("it goes on behind it", part))
    if header.num_samples is not None and len(samples) < min(wanted, header.num_samples - first):
        raise BadValueError("file is cut off", f"{len(samples)} of {header.num_samples} samples are there")
    return samples, rate


def _mono(sound: Any, wanted: int) -> Samples:
    """Up to `wanted` samples, block by block, so that many channels never stand in memory together."""
    blocks, count = [np.zeros(0, dtype=np.float32)], 0
    while count < wanted:
        block = sound.read(min(BLOCK_SAMPLES, wanted - count), dtype="float32", always_2d=True)  # (N, C)
        if not len(block):
            break
        blocks.append(block.mean(axis=1))
        count += len(block)
    return np.concatenate(blocks)


def _read_with_ffmpeg(file: BinaryIO, part: Part) -> tuple[Samples, int]:
    """The first sound stream, decoded from shortly before the part to its end."""
    with _opened(file) as container:
        stream = container.streams.audio[0]
        rate = checked(Header("opus", stream.rate or 0, stream.channels or 0)).sample_rate_hz
        try:
            samples, origin = _decoded(container, stream, part)
        except _ffmpeg_errors() as error:
            raise BadValueError("sound cannot be decoded", _words(error)) from None
    if part.start and part.start >= origin + len(samples) / rate:
        raise BadValueError("part begins behind the end", f"it begins at {part.start:g} s")
    first = max(round((part.start - origin) * rate), 0)
    stop = len(samples) if part.end is None else round((part.end - origin) * rate)
    if stop > len(samples) + SLACK_SECONDS * rate:
        raise BadValueError("part ends behind the end", f"it ends at {part.end:g} s, the file has {origin + len(samples) / rate:.2f} s")
    if stop - first > math.ceil(part.max_seconds * rate):
        raise BadValueError(*_too_long("it goes on behind it", part))
    return samples[first:stop], rate


def _decoded(container: Any, stream: Any, part: Part) -> tuple[Samples, float]:
    """Samples and the time of the first one in seconds, not much more than the part and its limit."""
    begin = part.start - PREROLL_SECONDS if part.start > SEEK_FROM_SECONDS else 0.0
    if begin:
        container.seek(math.floor(begin / stream.time_base), stream=stream)
    end = min(part.start + part.max_seconds + SLACK_SECONDS, math.inf if part.end is None else part.end)
    blocks: list[Samples] = []
    origin, count = 0.0, 0
    zero = float((stream.start_time or 0) * stream.time_base)
    for block, time in _blocks(container, stream):
        if not blocks:
            origin = time - zero if begin else 0.0
        blocks.append(block)
        count += len(block)
        if origin + count / stream.rate > end:
            break
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32), origin


def _blocks(container: Any, stream: Any) -> Iterator[tuple[Samples, float]]:
    """Mono blocks and their times."""
    import av

    to_floats = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
    for frame in container.decode(stream):
        for converted in to_floats.resample(frame):
            values = converted.to_ndarray()  # (C, N)
            yield values.mean(axis=0, dtype=np.float32), float(converted.time or 0.0)


def _container_seconds(file: BinaryIO) -> float:
    """What the container says; where it does not know, the end of its last packet, which is found without decoding."""
    with _opened(file) as container:
        stream = container.streams.audio[0]
        checked(Header("opus", stream.rate or 0, stream.channels or 0))
        names = set(container.format.name.split(","))
        if stream.duration is not None and not names & UNMEASURED:
            return float(stream.duration * stream.time_base)
        if container.duration is not None and not names & UNMEASURED:
            return float(container.duration / 1_000_000)
        try:
            packets = [(packet.pts, packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None]
        except _ffmpeg_errors() as error:
            raise BadValueError("sound cannot be decoded", _words(error)) from None
        return float((sum(packets[-1]) - packets[0][0]) * stream.time_base) if packets else math.nan


def _opened(file: BinaryIO) -> Any:
    """A container with at least one stream of sound, to be used in a `with`."""
    try:
        import av
    except ImportError as error:
        raise _missing(error) from error
    file.seek(0, os.SEEK_SET)
    try:
        container = av.open(file, mode="r", options={"format_whitelist": CONTAINERS}, metadata_errors="ignore")
    except _ffmpeg_errors() as error:
        raise BadValueError("not a sound file", _words(error)) from None
    if not container.streams.audio:
        container.close()
        raise BadValueError("no sound in the file", f"it is {container.format.name} without a stream of sound")
    return container


def _ffmpeg_errors() -> tuple[type[Exception], ...]:
    import av

    return (av.FFmpegError, ValueError, OSError, EOFError)


def _words(error: Exception) -> str:
    match error:
        case OSError(strerror=str() as words):
            return words
    return str(error)


def _missing(error: ImportError) -> ConfigError:
    return ConfigError(f'sound needs {error.name}, which is not installed: pip install "transduce[audio]"')
