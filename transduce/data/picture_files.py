"""Picture files of strangers to square pixels, at a bounded cost.

In: the bytes of a JPEG, PNG or WebP file. Out: a square RGB picture. The decision a reader would question: Pillow's readers are called
one by one and not through `Image.open`. What a file is says its first bytes, whatever its name; how large it is says its header, which
is looked at before Pillow sets memory aside for it (for WebP it does so before it tells the size).
"""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from transduce.data.values import BadValueError
from transduce.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image

JPEG, PNG, RIFF, WEBP = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"WEBP"
ANIMATED = 0x02  # a flag of WebP's extended header
ORIENTATION = 0x0112  # an EXIF tag
# EXIF orientation -> what turns the picture upright (Image.Transpose).
TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, as shares of width and height."""


@dataclass(frozen=True)
class Limits:
    """What a picture may have. place: the file, for messages."""

    max_pixels: int
    place: str

    def check(self, width: int, height: int) -> None:
        """Raises BadValueError for too many pixels."""
        if width * height > self.max_pixels:
            detail = f"{self.place} has {width} x {height} pixels; {self.max_pixels} are allowed in all"
            raise BadValueError("picture is too large", detail)


def check_pillow() -> None:
    """Raises ConfigError where Pillow is missing."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise ConfigError('pictures need Pillow, which is not installed: pip install "transduce[image]"') from error


def open_picture(content: bytes, limits: Limits) -> "Image.Image":
    """A picture of which only the header has been read. Raises BadValueError: no picture, damaged, too large, animated."""
    try:
        return _opened(content, limits)
    except (OSError, SyntaxError, ValueError, IndexError, EOFError) as error:
        raise BadValueError("picture is damaged", f"{limits.place}: {error}") from None


def _opened(content: bytes, limits: Limits) -> "Image.Image":
    from PIL import JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    stream = io.BytesIO(content)
    if content.startswith(JPEG):
        picture: Image.Image = JpegImagePlugin.JpegImageFile(stream)
    elif content.startswith(PNG):
        picture = drawn = PngImagePlugin.PngImageFile(stream)
        _refuse_animation(drawn.is_animated, limits)
    elif content.startswith(RIFF) and content[8:12] == WEBP:
        limits.check(*webp_size(content))
        _refuse_animation(content[12:16] == b"VP8X" and bool(content[20] & ANIMATED), limits)
        picture = WebPImagePlugin.WebPImageFile(stream)
    else:
        raise BadValueError("not a picture", f"{limits.place} is no JPEG, PNG or WebP file")
    limits.check(*picture.size)
    return picture


def _refuse_animation(animated: bool, limits: Limits) -> None:
    if animated:
        raise BadValueError("picture is animated", f"{limits.place} has several frames; save the one that is meant")


def webp_size(content: bytes) -> tuple[int, int]:
    """Width and height in a WebP header. Raises ValueError for an unknown or unfinished one."""
    kind, head = content[12:16], content[20:30]
    if len(head) < 10:
        raise ValueError("the file is cut off in its header")
    match kind:
        case b"VP8X":
            return 1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")
        case b"VP8L":
            bits = int.from_bytes(head[1:5], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case b"VP8 ":
            return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF
    raise ValueError(f"unknown kind of WebP {kind!r}")


def square_pixels(picture: "Image.Image", box: Box, size: int, *, place: str) -> "Image.Image":
    """The part `box` of an opened picture as size x size RGB pixels, turned upright. Raises BadValueError where it cannot be decoded."""
    from PIL import Image

    try:
        picture.draft("RGB", (2 * size, 2 * size))  # a JPEG is decoded at a fraction of its size where that is enough
        picture.load()
        plain = _resizable(picture)
        width, height = plain.size
        edges = box[0] * width, box[1] * height, min(box[2] * width, width), min(box[3] * height, height)
        small = _over_white(plain.resize((size, size), Image.Resampling.BILINEAR, box=edges))
        turn = TURNS.get(_orientation(picture))
        return small if turn is None else small.transpose(Image.Transpose[turn])
    except (OSError, SyntaxError, ValueError, IndexError, EOFError, MemoryError) as error:
        raise BadValueError("picture is damaged", f"{place}: {error}") from None


def _resizable(picture: "Image.Image") -> "Image.Image":
    """The same in a mode that can be resized smoothly: palettes as colours, 16-bit greys as 8-bit ones."""
    from PIL import Image

    if picture.mode.startswith("I"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if "transparency" in picture.info or picture.mode == "PA":
        return picture.convert("RGBA")
    return picture.convert("RGB") if picture.mode in ("P", "1") else picture


def _over_white(picture: "Image.Image") -> "Image.Image":
    """RGB; transparent pixels show white."""
    from PIL import Image

    if "A" not in picture.mode:
        return picture.convert("RGB")
    ground = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")


def _orientation(picture: "Image.Image") -> int:
    """1 to 8; 1 = upright, also where the EXIF data are damaged."""
    try:
        return int(picture.getexif().get(ORIENTATION, 1))
    except (OSError, SyntaxError, ValueError, TypeError, EOFError):
        return 1
