"""Pixels as data URIs, so that a page holds its pictures itself.

In: arrays. Out: `data:image/...` texts. The decision to question: PNG is written here, in a few lines, because masks and spectrograms
are wanted also where Pillow is not installed; photographs become JPEG through Pillow, which whoever reads pictures has.
"""

import io
import struct
import zlib
from base64 import b64encode

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
COLOUR_TYPES = {1: 0, 2: 4, 3: 2}  # numbers of a pixel -> grey, grey and opacity, red green blue, as PNG numbers them
PALETTE = 3
JPEG_QUALITY = 82


def png_uri(pixels: Bytes, *, palette: Bytes | None = None) -> str:
    """pixels: (H, W, 1 to 3) grey, grey and opacity, or colours; with a palette (P, 3): (H, W, 1) rows of it."""
    height, width, size = pixels.shape
    colour_type = COLOUR_TYPES[size] if palette is None else PALETTE
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    lines = np.zeros((height, 1 + width * size), dtype=np.uint8)  # each begins with its filter: none
    lines[:, 1:] = pixels.reshape(height, -1)
    colours = b"" if palette is None else _chunk(b"PLTE", palette.tobytes())
    body = _chunk(b"IHDR", header) + colours + _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)) + _chunk(b"IEND", b"")
    return _uri("png", b"\x89PNG\r\n\x1a\n" + body)


def jpeg_uri(pixels: Bytes, *, largest: int) -> str:
    """pixels: (H, W, 3), made smaller where a side is longer than `largest`. Needs Pillow."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    picture.thumbnail((largest, largest))
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=JPEG_QUALITY)
    return _uri("jpeg", stream.getvalue())


def ramp(anchors: tuple[tuple[int, int, int], ...], steps: int) -> Bytes:
    """(steps, 3): colours that go evenly from the first anchor to the last."""
    places = np.linspace(0, len(anchors) - 1, steps)
    channels = [np.interp(places, range(len(anchors)), channel) for channel in np.array(anchors).T]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode('ascii')}"
