"""Pictures: files to square pixels of one size, and how they vary in training.

In: references to JPEG, PNG and WebP files. Out: rows that hold the references, and batches of pixels (B, 3, H, W) uint8, decoded when
they are needed. The decision a reader would question: what a picture costs is bounded before anything is decoded: the format is one
of three, whatever the name says, and the header's size is checked first; a picture that is broken further on is a bad value.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from transduce.data.batch import Padded
from transduce.data.media import media_of, media_row, read_media
from transduce.data.picture_files import Box, Limits, check_pillow, open_picture, square_pixels
from transduce.data.report import Lossless
from transduce.data.sampling import EvenSample
from transduce.data.symbols import digest_of, write_codec
from transduce.data.values import BadValueError, Media, Row, attempt
from transduce.draws import uniform
from transduce.errors import DataError
from transduce.model.frontends import Pixels
from transduce.settings import Settings

LARGEST_FILE = 64 << 20  # bytes
HEADER = 1 << 16  # bytes in which a header is looked for first
# Mean and standard deviation of red, green, blue (0 to 1) that published weights were trained with.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
FITTED_ON = 1000  # pictures
SHARPEST = 0.05  # smallest standard deviation of a colour, so that a set of black pictures can be normalised

Bytes = NDArray[np.uint8]


class ImageConfig(Settings):
    """Pictures: JPEG, PNG or WebP files, upright as their EXIF data says, in colour."""

    kind: Literal["image"] = "image"
    size: int = Field(default=128, ge=4, le=2048)
    """Width and height in pixels that every picture is brought to."""
    patch: int = Field(default=16, ge=1)
    """Width and height in pixels of what becomes one vector: (size / patch)^2 positions. 4, 8, 16 or 32 for a cnn."""
    fit: Literal["crop", "squash"] = "crop"
    """How a picture becomes square: crop = its middle, squash = all of it, out of shape."""
    normalise: Literal["imagenet", "half", "fitted"] = "imagenet"
    """Mean and deviation of the colours. For stored weights those that they were trained with: imagenet's (torchvision's ResNets), or half
    for both (the ViTs of Dosovitskiy 2021). fitted: on up to 1,000 training pictures."""
    max_pixels: int = Field(default=24_000_000, ge=1)
    """A file whose header promises more pixels is refused. Decoding takes up to 8 bytes for each."""
    smallest_crop: float = Field(default=1.0, gt=0, le=1)
    """In training, cut out a random part of at least this share of the area, up to a third out of shape (Szegedy 2015); 1 = no cut."""
    random_flip: bool = False
    """In training, mirror every other picture left to right. Wrong where captions say "left" or hold writing."""
    jitter: float = Field(default=0.0, ge=0, lt=1)
    """In training, multiply brightness, contrast and saturation each by a random factor between 1 - this and 1 + this."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.size % self.patch:
            raise ValueError(f"size {self.size} must be a multiple of patch {self.patch}")
        return self


class ImageCodec:
    """Names of pictures to rows, rows to pixels. mean, std: of red, green and blue, 0 to 1, for the model's front-end."""

    kind = "image"
    row_type: np.dtype[Any] = np.dtype(np.uint8)

    def __init__(self, config: ImageConfig, mean: Sequence[float], std: Sequence[float]) -> None:
        check_pillow()
        self.config = config
        self.mean, self.std = (tuple(round(float(value), 4) for value in values) for values in (mean, std))
        self.digest = digest_of(self._tree())

    @classmethod
    def fit(cls, config: ImageConfig, values: Iterable[Media]) -> "ImageCodec":
        """The colours' mean and deviation, where they are asked for. Raises DataError where no picture can be read."""
        plain = cls(config, *(HALF if config.normalise == "half" else IMAGENET))
        if config.normalise != "fitted":
            return plain
        sample: EvenSample[Media] = EvenSample(FITTED_ON, seed=0)
        sample.add(values)
        moments = [moment for media in sample.items() if (moment := plain._moments(media)) is not None]
        if not moments:
            raise DataError("there is no readable picture to learn the colours from")
        mean, squares = np.mean(moments, axis=0)
        return cls(config, mean.tolist(), np.maximum(np.sqrt(np.maximum(squares - mean**2, 0)), SHARPEST).tolist())

    def _moments(self, media: Media) -> NDArray[np.float64] | None:
        """(2, 3): mean and mean square of each colour; None for a picture that cannot be read (it is counted where rows are made)."""
        try:
            pixels = self.pixels(media).astype(np.float64) / 255
        except BadValueError:
            return None
        return np.stack([pixels.mean((1, 2)), (pixels**2).mean((1, 2))])

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> "ImageCodec":
        """From codec.json."""
        return cls(ImageConfig.model_validate(tree["config"]), tree["mean"], tree["std"])

    @property
    def shape(self) -> Pixels:
        """Size, cells and colours."""
        mean, std = (cast(tuple[float, float, float], values) for values in (self.mean, self.std))
        return Pixels(self.config.size, self.config.patch, mean, std)

    @property
    def num_positions(self) -> int:
        """Cells of a picture."""
        return self.shape.grid**2

    def rows(self, values: Sequence[Media], *, thorough: bool = False) -> list[Row]:
        """A row for each reference; only headers are read, unless `thorough`."""

        def row(media: Media) -> Row:
            if thorough:
                self.pixels(media)
            else:
                self._check_header(media)
            return media_row(media, self.num_positions)

        return list(attempt(row, values))

    def contents(self, values: Sequence[Media]) -> Iterator[Row]:
        """The pixels of each picture, decoded one by one."""
        return attempt(lambda media: Row(self.pixels(media), self.num_positions), values)

    def collate(self, rows: Sequence[NDArray[Any]], keys: NDArray[np.uint64] | None) -> Padded:
        """(B, 3, H, W) uint8, lengths in cells; contents stay as they are. Raises BadValueError for a picture that cannot be decoded."""
        drawn = None if keys is None else torch.from_numpy(keys.view(np.int64))  # (B,)
        draws = None if drawn is None else torch.stack([uniform(drawn, stream) for stream in range(8)], dim=1).numpy()  # (B, 8)
        pictures = [
            row if row.ndim == 3 else self.pixels(media_of(row), None if draws is None else draws[number])
            for number, row in enumerate(rows)
        ]
        data = torch.from_numpy(np.stack(pictures))
        lengths = torch.full((len(rows),), self.num_positions)
        return Padded(data, lengths, drawn)

    def pixels(self, media: Media, draws: NDArray[np.float64] | None = None) -> Bytes:
        """(3, H, W). draws: (8,) in [0, 1), what varies in training; None = nothing. Raises BadValueError."""
        picture = open_picture(read_media(media, largest=LARGEST_FILE), self._limits(media))
        square = square_pixels(picture, _box(picture.size, self.config, draws), self.config.size, place=media.place())
        flip = self.config.random_flip and draws is not None and draws[4] < 0.5
        pixels = np.asarray(square, dtype=np.uint8).transpose(2, 0, 1)
        pixels = pixels[:, :, ::-1] if flip else pixels
        if draws is not None and self.config.jitter:
            pixels = _jittered(pixels, 1 + self.config.jitter * (2 * draws[5:8] - 1))
        return np.ascontiguousarray(pixels)

    def _check_header(self, media: Media) -> None:
        """Whether a picture of an allowed format and size begins here; most headers are within the first 64 KiB."""
        limits = self._limits(media)
        try:
            open_picture(read_media(media, first=HEADER, largest=LARGEST_FILE), limits)
        except BadValueError:
            open_picture(read_media(media, largest=LARGEST_FILE), limits)

    def _limits(self, media: Media) -> Limits:
        """Raises BadValueError for a reference to a stretch of time."""
        if media.start is not None or media.end is not None:
            raise BadValueError("a picture has no time", f"{media.place()}: start and end are for recordings")
        return Limits(self.config.max_pixels, media.place())

    def flags(self, value: Media, row: NDArray[Any]) -> tuple[str, ...]:  # noqa: ARG002
        """Nothing: what is wrong with a picture keeps it from being read."""
        return ()

    def num_unknown(self, row: NDArray[Any]) -> int:  # noqa: ARG002
        """Pixels are never unknown."""
        return 0

    def labels(self, row: NDArray[Any]) -> list[str]:  # noqa: ARG002
        """`1.1`, `1.2`, ...: row and column of each cell."""
        grid = range(1, self.shape.grid + 1)
        return [f"{down}.{across}" for down in grid for across in grid]

    def check(self, values: Iterable[Media]) -> Lossless | None:  # noqa: ARG002
        """Pictures are never turned back."""
        return None

    def describe(self) -> str:
        """For people: `image, 128 x 128 pixels in 64 cells`."""
        return f"image, {self.config.size} x {self.config.size} pixels in {self.num_positions} cells"

    def save(self, directory: Path) -> None:
        """Writes codec.json."""
        write_codec(directory, self._tree())

    def _tree(self) -> dict[str, Any]:
        return {"kind": self.kind, "config": self.config.model_dump(mode="json"), "mean": list(self.mean), "std": list(self.std)}


def _box(size: tuple[int, int], config: ImageConfig, draws: NDArray[np.float64] | None) -> Box:
    """What is kept of a picture of that size. In training a random part, of an area relative to what evaluation keeps."""
    width, height = size
    across, down = (min(size) / width, min(size) / height) if config.fit == "crop" else (1.0, 1.0)
    left, top = (1 - across) / 2, (1 - down) / 2
    if draws is not None and config.smallest_crop < 1:
        side = (config.smallest_crop + (1 - config.smallest_crop) * draws[0]) ** 0.5
        shape = (4 / 3) ** (draws[1] - 0.5)  # the square root of width over height, which is 3/4 to 4/3
        across, down = min(across * side * shape, 1.0), min(down * side / shape, 1.0)
        left, top = draws[2] * (1 - across), draws[3] * (1 - down)
    return left, top, left + across, top + down


def _jittered(pixels: Bytes, factors: NDArray[np.float64]) -> Bytes:
    """(3, H, W) with brightness, contrast and saturation multiplied."""
    brightness, contrast, saturation = factors.astype(np.float32)
    values = pixels.astype(np.float32) * brightness
    values = values.mean() + (values - values.mean()) * contrast
    grey = values.mean(0, keepdims=True)
    return np.asarray(np.clip(grey + (values - grey) * saturation, 0, 255).round(), dtype=np.uint8)
