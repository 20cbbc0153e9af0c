"""Tracks of numbers as a model sees them: relative to where they are, turned into their heading, scaled, and back.

In: `Track`s in the user's units. Out: rows and batches of normalised frames, and predictions in the user's units. The decision
a reader would question: a source is read relative to its own last step and a target relative to the last step of its source (its
anchor), by the same arithmetic, so a model that predicts zeros predicts "stays where it is" (`last`) or "stops" (`velocity`).
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from transduce.data.batch import Padded, real_places
from transduce.data.report import Lossless
from transduce.data.symbols import digest_of, write_codec
from transduce.data.values import BadValueError, Row, Track, attempt
from transduce.data.windows import anchor_of
from transduce.draws import uniforms
from transduce.errors import ConfigError, DataError
from transduce.model.frontends import Steps
from transduce.settings import Settings

SMALLEST_MOTION = 1e-6  # below it there is no heading to turn to
CLOSE = 1e-3  # of the scale: how far a value may move on its way through the codec

Frames = NDArray[np.float32]


class FramesConfig(Settings):
    """Frames of numbers: positions, boxes, joints, sensor values."""

    kind: Literal["frames"] = "frames"
    relative: Literal["absolute", "last", "velocity", "residual"] = "absolute"
    """absolute: numbers as they are. last: differences from the last observed step. velocity: differences from step to step. residual: for
    targets, what is left after going on with the last observed velocity."""
    rotate: bool = False
    """Turn the first two numbers (x, y) so that the last observed motion points along x."""
    random_rotation: bool = False
    """In training, turn the first two numbers of each example by a random angle."""
    random_mirror: bool = False
    """In training, mirror the second number (y) of every other example."""
    random_scale: float = Field(default=0.0, ge=0, lt=1)
    """In training, multiply each example by a random factor between 1 - this and 1 + this."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        turned = self.rotate or self.random_rotation or self.random_mirror or self.random_scale > 0
        if self.relative == "absolute" and turned:
            raise ConfigError("rotate and the random changes of a frames codec need a relative other than absolute")
        return self


class FramesCodec:
    """Tracks to normalised frames and back.

    scale: (C,) what one unit of the model is in the user's units. offset: (C,) what absolute numbers are counted from.
    """

    kind = "frames"
    row_type: np.dtype[Any] = np.dtype(np.float32)

    def __init__(self, config: FramesConfig, scale: Sequence[float], offset: Sequence[float]) -> None:
        self.config = config
        self.scale = np.asarray(scale, dtype=np.float32)
        self.offset = np.asarray(offset, dtype=np.float32)
        self.digest = digest_of(self._tree())

    @classmethod
    def fit(cls, config: FramesConfig, tracks: Iterable[Track]) -> "FramesCodec":
        """Scale and offset so that training frames have unit size. Raises DataError where there is nothing to learn from."""
        total = squares = count = np.zeros(0)
        plain: FramesCodec | None = None
        for track in tracks:
            if plain is None:
                size = track.values.shape[1]
                plain = cls(config, [1.0] * size, [0.0] * size)
                total, squares, count = np.zeros(size), np.zeros(size), np.zeros(1)
            values = plain.encode(track).astype(np.float64)
            total, squares, count = total + values.sum(0), squares + (values**2).sum(0), count + len(values)
        if plain is None:
            raise DataError("there is no track to learn a scale from")
        offset = total / count if config.relative == "absolute" else np.zeros_like(total)
        scale = np.sqrt(np.maximum(squares / count - offset**2, 0))
        if config.rotate or config.random_rotation:  # turning mixes x and y, so they must share a scale
            scale[:2] = np.sqrt((scale[:2] ** 2).mean())
        return cls(config, np.where(scale > 0, scale, 1.0).tolist(), offset.tolist())

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> "FramesCodec":
        """From codec.json."""
        return cls(FramesConfig.model_validate(tree["config"]), tree["scale"], tree["offset"])

    @property
    def shape(self) -> Steps:
        """C numbers a frame."""
        return Steps(len(self.scale))

    def encode(self, track: Track) -> Frames:
        """(T, C) normalised; one step fewer for the velocities of a source. Raises BadValueError."""
        values = track.values
        if values.ndim != 2 or values.shape[1] != len(self.scale):
            raise BadValueError("wrong number of values in a frame", f"{values.shape[-1]} instead of {len(self.scale)}")
        if not np.isfinite(values).all():
            raise BadValueError("number is not finite", "a track holds NaN or infinity")
        if self.config.relative == "absolute":
            return (values - self.offset) / self.scale
        anchor = _anchor(track)
        if self.config.relative == "last":
            values = values - anchor[-1]
        elif self.config.relative == "residual":
            values = values - _going_on(anchor, len(values), ahead=track.anchor is not None)
        elif track.anchor is None:
            values = np.diff(values, axis=0) if len(values) > 1 else np.zeros_like(values)
        else:
            values = np.diff(values, axis=0, prepend=anchor[-1:])
        return self._turned(values, anchor, back=False) / self.scale

    def decode(self, frames: Frames, anchor: Frames | None) -> Frames:
        """(..., T, C) normalised -> the same in the user's units. anchor: (2, C), the last observed steps. Raises DataError without one."""
        values = np.asarray(frames, dtype=np.float32) * self.scale
        if self.config.relative == "absolute":
            return values + self.offset
        if anchor is None:
            raise DataError(f"numbers with relative = {self.config.relative} continue a source of numbers, and there is none: use absolute")
        anchor = np.atleast_2d(anchor)
        values = self._turned(values, anchor, back=True)
        if self.config.relative == "residual":
            return np.asarray(values + _going_on(anchor, values.shape[-2], ahead=True), dtype=np.float32)
        if self.config.relative == "velocity":
            values = values.cumsum(-2, dtype=np.float32)
        return np.asarray(values + anchor[-1], dtype=np.float32)

    def _turned(self, values: Frames, anchor: Frames, *, back: bool) -> Frames:
        """The first two numbers turned into the heading of the last observed motion, or back."""
        motion = anchor[-1, :2] - anchor[0, :2]
        length = float(np.hypot(*motion)) if len(motion) == 2 else 0.0
        if not self.config.rotate or length < SMALLEST_MOTION:
            return values
        cos, sin = motion / length
        turn = np.array([[cos, -sin], [sin, cos]], dtype=np.float32)  # rows times this: from the world into the heading
        turned = values.copy()
        turned[..., :2] = values[..., :2] @ (turn.T if back else turn)
        return turned

    def row(self, value: Track) -> Row:
        """The normalised frames, flattened; the width is their number."""
        frames = self.encode(value)
        return Row(frames.astype(np.float32).ravel(), len(frames))

    def rows(self, values: Sequence[Track], *, thorough: bool = False) -> list[Row]:  # noqa: ARG002
        """A row for each track."""
        return list(self.contents(values))

    def contents(self, values: Sequence[Track]) -> Iterator[Row]:
        """The same rows, one by one."""
        return attempt(self.row, values)

    def collate(self, rows: Sequence[NDArray[Any]], keys: NDArray[np.uint64] | None) -> Padded:
        """(B, T, C) zeros behind each track's end; with keys each example is turned, mirrored and scaled as the settings say."""
        size = len(self.scale)
        lengths = np.array([len(row) for row in rows], dtype=np.int64) // size
        longest, together = int(lengths.max(initial=1)), np.concatenate(rows, dtype=np.float32)
        if (lengths == longest).all():  # windows of one size, as they mostly are
            data = together.reshape(len(rows), longest, size)
        else:
            data = np.zeros((len(rows), longest, size), dtype=np.float32)
            data[real_places(lengths, longest)] = together.reshape(-1, size)
        if keys is not None:
            self._vary(data, keys)
        return Padded(torch.from_numpy(data), torch.from_numpy(lengths), None if keys is None else torch.from_numpy(keys.view(np.int64)))

    def _vary(self, data: Frames, keys: NDArray[np.uint64]) -> None:
        """Random changes in place. Both ends of an example have the same key, so they are changed alike."""
        angle, side, size = uniforms(torch.from_numpy(keys.view(np.int64)), range(3)).numpy()
        if self.config.random_rotation:
            cos, sin = np.cos(2 * np.pi * angle)[:, None], np.sin(2 * np.pi * angle)[:, None]
            x, y = data[:, :, 0].copy(), data[:, :, 1].copy()
            data[:, :, 0], data[:, :, 1] = cos * x - sin * y, sin * x + cos * y
        if self.config.random_mirror:
            data[side < 0.5, :, 1] *= -1
        if self.config.random_scale:
            data *= (1 + self.config.random_scale * (2 * size - 1))[:, None, None].astype(np.float32)

    def flags(self, value: Track, row: NDArray[Any]) -> tuple[str, ...]:  # noqa: ARG002
        """Nothing: what is wrong with a track keeps it from being read."""
        return ()

    def num_unknown(self, row: NDArray[Any]) -> int:  # noqa: ARG002
        """Numbers are never unknown."""
        return 0

    def labels(self, row: NDArray[Any]) -> list[str]:
        """`-3`, `-2`, `-1`, `0`: steps before the last one."""
        count = len(row) // len(self.scale)
        return [str(step - count + 1) for step in range(count)]

    def describe(self) -> str:
        """For people: `frames, 2 numbers, velocity`."""
        return f"frames, {len(self.scale)} numbers, {self.config.relative}"

    def check(self, values: Iterable[Track]) -> Lossless | None:
        """How many tracks move on the way through the codec, of those that can be turned back."""
        checked = lossy = 0
        for track in values:
            if track.anchor is None and self.config.relative in ("velocity", "residual"):
                continue
            checked += 1
            back = self.decode(self.encode(track), _anchor(track))
            lossy += int(np.abs(back - track.values).max() > CLOSE * max(float(np.abs(track.values).max()), float(self.scale.max())))
        return Lossless(checked, lossy) if checked else None

    def save(self, directory: Path) -> None:
        """Writes codec.json."""
        write_codec(directory, self._tree())

    def _tree(self) -> dict[str, Any]:
        numbers = {"scale": self.scale.tolist(), "offset": self.offset.tolist()}
        return {"kind": self.kind, "config": self.config.model_dump(mode="json"), **numbers}


def row_keys(rows: Sequence[NDArray[Any]]) -> NDArray[np.uint64]:
    """(B,) what the random draws of each source depend on: a hash of its row."""
    return np.array([int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little") for row in rows], dtype=np.uint64)


def _anchor(track: Track) -> Frames:
    return anchor_of(track.values) if track.anchor is None else np.atleast_2d(track.anchor)


def _going_on(anchor: Frames, steps: int, *, ahead: bool) -> Frames:
    """(steps, C): constant velocity from the anchor (2, C) on, or (not ahead) up to it."""
    times = np.arange(1, steps + 1) if ahead else np.arange(1 - steps, 1)
    return np.asarray(anchor[-1] + times[:, None] * (anchor[-1] - anchor[0]), dtype=np.float32)
