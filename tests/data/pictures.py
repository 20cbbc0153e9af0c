"""Pictures of our own for tests, well made and badly made."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MIDDLE = (20, 200, 90)


def striped(width: int = 60, height: int = 40) -> Image.Image:
    """Red on the left quarter, blue on the right quarter, green between."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:] = MIDDLE
    pixels[:, : width // 4] = (250, 10, 10)
    pixels[:, -(width // 4) :] = (10, 10, 250)
    return Image.fromarray(pixels)


def saved(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The bytes of a file."""
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def png(width: int, height: int, *, data: bytes = b"", colour: int = 2, extra: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """A PNG file by hand, so that the header can promise what the data do not hold."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", data or zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def huge_webp(width: int, height: int) -> bytes:
    """An extended WebP header that promises a canvas of that size."""
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(body)) + body


def animated(form: str) -> bytes:
    """Two frames."""
    return saved(striped(), form, save_all=True, append_images=[striped().transpose(Image.Transpose.FLIP_LEFT_RIGHT)])


def sixteen_bits(width: int = 8, height: int = 8) -> bytes:
    """A grey PNG of 16 bits: black on the left, white on the right."""
    values: NDArray[np.uint16] = np.zeros((height, width), dtype=np.uint16)
    values[:, width // 2 :] = 65535
    return saved(Image.fromarray(values))
