"""What the first and last bytes of a sound file say: format, rate, channels, length. No codec is run here.

In: an open binary file. Out: a `Header`. The decision a reader would question: the three formats that are decoded by libsndfile
are checked by our own reader first, because a claim (68 billion frames in 99 bytes) must be refused before anybody believes it;
every other format is left to FFmpeg, which counts what it decodes.
"""

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO, Literal

from transduce.data.values import BadValueError

HEAD_BYTES = 1 << 16
TAIL_BYTES = 1 << 17  # an Ogg page is at most 65 kB long
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 4_000, 384_000
MOST_CHANNELS = 32
# PCM, floats, A-law, mu-law, and "see the longer header": what libsndfile reads in WAV as well as FFmpeg.
WAV_FORMATS = {1: "pcm", 3: "float", 6: "a-law", 7: "mu-law", 0xFFFE: "extensible"}
UNKNOWN_SIZES = (0, 0xFFFFFFFF)  # what a program writes that could not go back to fill in the length
FLAC_FRAME_BYTES, FLAC_FRAME_SAMPLES = 8, 65535  # the smallest frame, the most samples in one
OPUS_RATE_HZ = 48_000

Format = Literal["wav", "flac", "vorbis", "opus", "other"]


@dataclass(frozen=True)
class Header:
    """What a file claims of itself. num_samples: per channel, None = not known without decoding."""

    format: Format
    sample_rate_hz: int = 0
    channels: int = 0
    num_samples: int | None = None

    @property
    def seconds(self) -> float | None:
        """Length, if it is known."""
        return None if self.num_samples is None else self.num_samples / self.sample_rate_hz


def read_header(file: BinaryIO) -> Header:
    """The header of a seekable file. Raises BadValueError for an empty file and for claims that cannot be true."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if not head:
        raise BadValueError("file is empty", "0 bytes")
    try:
        if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
            return checked(_wav(file, size))
        if head[:4] == b"fLaC":
            return checked(_flac(head, size))
        if head[:4] == b"OggS":
            return checked(_ogg(file, head, size))
    except (struct.error, IndexError):
        raise BadValueError("file is cut off", f"its header ends after {size} bytes") from None
    return Header("other")


def checked(header: Header) -> Header:
    """The same header. Raises BadValueError for a number of channels or a rate that no sound has."""
    if header.format == "other":
        return header
    if not 1 <= header.channels <= MOST_CHANNELS:
        raise BadValueError("wrong number of channels", f"{header.channels}; 1 to {MOST_CHANNELS} are read")
    if not LOWEST_RATE_HZ <= header.sample_rate_hz <= HIGHEST_RATE_HZ:
        raise BadValueError("wrong sample rate", f"{header.sample_rate_hz} Hz; {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} are read")
    return header


def _wav(file: BinaryIO, size: int) -> Header:
    """The format, then the length of the samples: as claimed, or all the rest where a program could not go back to fill it in."""
    chunks, place = _wav_chunks(file)
    if b"fmt " not in chunks:
        raise BadValueError("not a sound file", "a WAV file without a format chunk in front of its data")
    tag, channels, rate, _, block, _ = struct.unpack("<HHIIHH", chunks[b"fmt "])
    if tag not in WAV_FORMATS:
        return Header("other")
    (claimed,), present = struct.unpack("<I", chunks[b"data"]), size - place
    open_end = claimed in UNKNOWN_SIZES
    if open_end:
        claimed = struct.unpack("<QQ", chunks[b"ds64"])[1] if b"ds64" in chunks else present
    if claimed > present:
        raise BadValueError("file is cut off", f"{present} of {claimed} bytes of samples are there")
    header = checked(Header("wav", rate, channels))
    if not channels <= block <= 8 * channels:
        raise BadValueError("wrong block size", f"{block} bytes for {channels} channels")
    reader: Format = "other" if open_end and b"ds64" not in chunks else "wav"  # libsndfile believes the 0
    return Header(reader, header.sample_rate_hz, channels, claimed // block)


def _wav_chunks(file: BinaryIO) -> tuple[dict[bytes, bytes], int]:
    """The beginnings of the RIFF chunks (of `data` its length alone) and where the samples start; RF64 has a length in `ds64`."""
    chunks: dict[bytes, bytes] = {}
    place = 12
    while b"data" not in chunks:
        file.seek(place)
        name, length = struct.unpack("<4sI", file.read(8))
        chunks[name] = struct.pack("<I", length) if name == b"data" else file.read(16)
        place += 8 + (0 if name == b"data" else length + length % 2)
    return chunks, place


def _flac(head: bytes, size: int) -> Header:
    """The STREAMINFO block (RFC 9639, 8.2): 20 bits of rate, 3 of channels, 5 of sample size, 36 of length."""
    packed = int.from_bytes(head[18:26], "big")
    if len(head) < 42:
        raise IndexError
    rate, channels, samples = packed >> 44, (packed >> 41 & 7) + 1, packed & (1 << 36) - 1
    most = size // FLAC_FRAME_BYTES * FLAC_FRAME_SAMPLES
    if samples > most:
        raise BadValueError("header claims more than the file can hold", f"{samples} samples in {size} bytes")
    return Header("flac", rate, channels, samples or None)


def _ogg(file: BinaryIO, head: bytes, size: int) -> Header:
    """The first packet says what it is; the position of the last page of the same stream is its length (RFC 3533, 7845)."""
    (serial,) = struct.unpack_from("<I", head, 14)
    packet = head[27 + head[26] :]
    if packet.startswith(b"\x01vorbis"):
        channels, rate = struct.unpack_from("<BI", packet, 11)
        kind, skipped = "vorbis", 0
    elif packet.startswith(b"OpusHead"):
        channels, skipped = struct.unpack_from("<BH", packet, 9)
        kind, rate = "opus", OPUS_RATE_HZ
    else:
        return Header("other")
    file.seek(max(0, size - TAIL_BYTES))
    last = _last_position(file.read(), serial)
    return Header("opus" if kind == "opus" else "vorbis", rate, channels, None if last is None else max(last - skipped, 0))


def _last_position(tail: bytes, serial: int) -> int | None:
    """The position in samples of the last page; None where several streams stand one behind the other."""
    place = tail.rfind(b"OggS")
    while place >= 0:
        if place + 27 <= len(tail):
            position, owner = struct.unpack_from("<qI", tail, place + 6)
            if owner != serial:
                return None
            if position >= 0:
                return int(position)
        place = tail.rfind(b"OggS", 0, place)
    return None
