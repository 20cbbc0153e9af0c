"""Sound files made by our own code: whole ones by libsndfile and FFmpeg, damaged and hostile ones byte by byte."""

import io
import struct

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

Sound = NDArray[np.float32]


def tone(seconds: float = 1.0, *, rate: int = 16_000, hertz: float = 440.0) -> Sound:
    """(N,) a tone that swells, so that no two places are alike."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.4 * time / max(seconds, 1) * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def with_sndfile(sound: Sound, rate: int, form: str, subtype: str | None = None) -> bytes:
    """sound: (N,) or (N, C)."""
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format=form, subtype=subtype)
    return file.getvalue()


def with_ffmpeg(sound: Sound, rate: int, container: str, codec: str, *, picture: bool = False) -> bytes:
    """One channel of sound in any container; `picture` adds a stream of video in front."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        if picture:
            video = output.add_stream("mpeg4", rate=5)
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        stream = output.add_stream(codec, rate=rate)
        stream.layout = "mono"
        if picture:
            frames = [av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * number, dtype=np.uint8), "rgb24") for number in range(5)]
            output.mux([packet for frame in [*frames, None] for packet in video.encode(frame)])
        frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        shaped = av.AudioResampler(stream.format.name, "mono", rate, stream.codec_context.frame_size or 1024)
        for part in [*shaped.resample(frame), *shaped.resample(None), None]:
            output.mux(stream.encode(part))
    return file.getvalue()


def wav_header(*, channels: int = 1, rate: int = 16_000, block: int = 2, data_bytes: int = 3200, claimed: int | None = None) -> bytes:
    """A WAV file of silence with any claims in its header."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * block & 0xFFFFFFFF, block, 16)
    data = struct.pack("<4sI", b"data", data_bytes if claimed is None else claimed) + bytes(data_bytes)
    return b"RIFF" + struct.pack("<I", 4 + len(form) + len(data)) + b"WAVE" + form + data


def flac_bomb(*, samples: int = (1 << 36) - 1, size: int = 99) -> bytes:
    """A FLAC header that claims up to 68 billion samples, and nothing behind it."""
    packed = 16_000 << 44 | 0 << 41 | 15 << 36 | samples
    info = struct.pack(">HH", 4096, 4096) + bytes(6) + packed.to_bytes(8, "big") + bytes(16)
    return (b"fLaC" + bytes([0x80, 0, 0, 34]) + info).ljust(size, b"\0")


def ogg_pages(packets: list[bytes], *, last: int, tables: int = 255) -> bytes:
    """Pages of an Ogg stream, the first packet alone, then one header packet, then as many packets as fit (RFC 3533)."""
    pages, groups = [], [packets[:1], packets[1:2]]
    groups += [packets[start : start + tables] for start in range(2, len(packets), tables)]
    for number, group in enumerate(groups):
        position = last if number == len(groups) - 1 else 0
        kind = 2 if number == 0 else 4 if number == len(groups) - 1 else 0
        head = struct.pack("<4sBBqIIIB", b"OggS", 0, kind, position, 7, number, 0, len(group)) + bytes(len(packet) for packet in group)
        page = head + b"".join(group)
        pages.append(page[:22] + struct.pack("<I", _ogg_checksum(page)) + page[26:])
    return b"".join(pages)


def opus_silence(hours: float, *, claimed_seconds: float | None = None) -> bytes:
    """Opus packets of 120 ms of silence, four bytes each. claimed_seconds: a length at its end that may be a lie."""
    count = round(hours * 3600 / 0.12)
    head = struct.pack("<8sBBHIhB", b"OpusHead", 1, 1, 312, 48_000, 0, 0)
    tags = struct.pack("<8sI4sI", b"OpusTags", 4, b"none", 0)
    silence = bytes([(1 << 3) | 3, 6 - 4, 0xFF, 0xFE])
    seconds = count * 0.12 if claimed_seconds is None else claimed_seconds
    return ogg_pages([head, tags, *[silence] * count], last=round(seconds * 48_000))


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 with polynomial 0x04C11DB7, not reflected (RFC 3533)."""
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
        table.append(value)
    checksum = 0
    for byte in page:
        checksum = (checksum << 8 ^ table[checksum >> 24 ^ byte]) & 0xFFFFFFFF
    return checksum
