"""Scores of predicted tracks against what came: displacement, overlap of boxes, the best of several guesses.

In: arrays in the user's units; lists where tracks differ in length. Out: one number each. Positions are the first two numbers
of a frame; of boxes (x, y, w, h: left, top, width, height) the centre.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from transduce.errors import ConfigError

Frames = NDArray[np.float32]
TrackMetric = Literal["ade", "fde", "min_ade", "min_fde", "miss_rate", "iou", "final_iou"]
TRACK_METRICS: dict[TrackMetric, Literal["higher", "lower"]] = {
    "ade": "lower",
    "fde": "lower",
    "min_ade": "lower",
    "min_fde": "lower",
    "miss_rate": "lower",
    "iou": "higher",
    "final_iou": "higher",
}
SAMPLED = ("min_ade", "min_fde", "miss_rate")
MISS_DISTANCE = 2.0


def track_scores(
    names: Sequence[str],
    predictions: Sequence[Frames],
    truths: Sequence[Frames],
    *,
    samples: Sequence[Frames] | None = None,
    miss_distance: float = MISS_DISTANCE,
) -> dict[str, float]:
    """Mean over all tracks of each metric.

    predictions, truths: (T, C) per track; where the predicted one is shorter its last frame is repeated, where it is longer it is cut.
    samples: (K, T, C) per track for min_ade, min_fde and miss_rate; None = the prediction is the only guess.
    Raises ConfigError for an unknown name.
    """
    for name in names:
        better_track_metric(name)
    boxes = len(truths) > 0 and truths[0].shape[1] == 4
    whole = [fitted(prediction, len(truth)) for prediction, truth in zip(predictions, truths, strict=True)]
    errors = [displacements(prediction, truth, boxes=boxes) for prediction, truth in zip(whole, truths, strict=True)]
    tries = [guess[None] for guess in whole] if samples is None else samples
    guesses = [fitted(guess, len(truth)) for guess, truth in zip(tries, truths, strict=True)]
    several = [displacements(guess, truth[None], boxes=boxes) for guess, truth in zip(guesses, truths, strict=True)]
    found: Mapping[str, list[float]] = {
        "ade": [float(error.mean()) for error in errors],
        "fde": [float(error[-1]) for error in errors],
        "min_ade": [float(error.mean(1).min()) for error in several],
        "min_fde": [float(error[:, -1].min()) for error in several],
        "miss_rate": [float(error[:, -1].min() > miss_distance) for error in several],
    }
    if {"iou", "final_iou"} & set(names):
        if not boxes:
            raise ConfigError("iou needs frames of four numbers: x, y, w, h")
        overlaps = [box_iou(prediction, truth) for prediction, truth in zip(whole, truths, strict=True)]
        found = {**found, "iou": [float(o.mean()) for o in overlaps], "final_iou": [float(o[-1]) for o in overlaps]}
    return {name: float(np.mean(found[name])) for name in names}


def better_track_metric(name: str) -> Literal["higher", "lower"]:
    """Which direction of a metric is better. Raises ConfigError for an unknown name."""
    for known, better in TRACK_METRICS.items():
        if known == name:
            return better
    raise ConfigError(f"unknown metric {name!r} of tracks. Allowed: {', '.join(TRACK_METRICS)}")


def padded_samples(samples: Sequence[Frames]) -> Frames:
    """K tracks (T_k, C) as one array (K, T, C); a shorter one repeats its last frame."""
    length = max(len(sample) for sample in samples)
    return np.stack([fitted(sample, length) for sample in samples])


def displacements(prediction: Frames, truth: Frames, *, boxes: bool) -> Frames:
    """(..., T, C) each -> (..., T): Euclidean distance of the positions, or of the centres of boxes."""
    difference = prediction - truth
    positions = difference[..., :2] + difference[..., 2:4] / 2 if boxes else difference[..., :2]
    return np.asarray(np.sqrt((positions**2).sum(-1)))


def box_iou(first: Frames, second: Frames) -> Frames:
    """(..., 4) boxes x, y, w, h -> (...): area of the intersection over that of the union; a box of negative size is empty."""
    corner, other = first[..., :2], second[..., :2]
    size, other_size = np.maximum(first[..., 2:4], 0), np.maximum(second[..., 2:4], 0)
    overlap = np.minimum(corner + size, other + other_size) - np.maximum(corner, other)
    shared = np.maximum(overlap, 0).prod(-1)
    union = size.prod(-1) + other_size.prod(-1) - shared
    return np.asarray(np.where(union > 0, shared / np.maximum(union, 1e-12), 0.0))


def fitted(frames: Frames, length: int) -> Frames:
    """(..., T, C) -> (..., length, C): the last frame repeated, or the end cut."""
    places = np.minimum(np.arange(length), frames.shape[-2] - 1)
    return frames[..., places, :]
