"""Made-up traffic: vehicles that come to a roundabout and leave it by one of its four arms, seen from above.

In: a seed and sizes. Out: CSV tables (frame, id, x, y) in metres, five frames a second. A vehicle comes in along one arm, slows down,
turns round the island in the driving direction, and leaves by an arm of its choice; where it will leave cannot be known
when it enters, so one best guess is not enough and several are. Positions carry a little measurement noise.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ARM_LENGTH, ISLAND_RADIUS, LANE = 45.0, 14.0, 2.5
SECONDS_PER_FRAME = 0.2
NOISE = 0.05


def route(entry: int, leaving: int) -> NDArray[np.float64]:
    """The way from arm `entry` to arm `leaving` (0 to 3, counted counter-clockwise) as points (P, 2) half a metre apart."""
    turns = (leaving - entry) % 4 or 4  # back where it came from = the whole way round
    inward, outward = _arm(entry, side=1.0)[::-1], _arm(leaving, side=-1.0)
    begin, end = np.arctan2(*inward[-1][::-1]), np.arctan2(*outward[0][::-1])
    sweep = (end - begin) % (2 * np.pi)
    if turns == 4 and sweep < np.pi:
        sweep += 2 * np.pi
    angles = begin + np.linspace(0, sweep, max(int(sweep * ISLAND_RADIUS / 0.5), 2))
    circle = ISLAND_RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return _smooth(np.concatenate([inward, circle[1:-1], outward]))


def vehicle(draw: np.random.Generator) -> NDArray[np.float32]:
    """Positions (T, 2) of one vehicle, frame by frame."""
    points = route(int(draw.integers(4)), int(draw.integers(4)))
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    along = np.concatenate([[0.0], lengths.cumsum()])
    fast, slow = draw.uniform(9, 13), draw.uniform(5.5, 7.5)  # metres a second
    place, places = draw.uniform(0, 3), []
    while place < along[-1]:
        places.append(place)
        radius = np.hypot(*(np.interp(place, along, points[:, axis]) for axis in (0, 1)))
        share = np.clip((radius - ISLAND_RADIUS) / 20, 0, 1)
        place += SECONDS_PER_FRAME * (slow + share * (fast - slow))
    track = np.stack([np.interp(places, along, points[:, axis]) for axis in (0, 1)], axis=1)
    return (track + draw.normal(0, NOISE, track.shape)).astype(np.float32)


def generate(folder: Path, *, seed: int, sizes: dict[str, int]) -> dict[str, Path]:
    """Write one table per split. -> their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for number, (split, count) in enumerate(sizes.items()):
        draw = np.random.default_rng([seed, number])
        rows = ["frame,id,x,y"]
        for name in range(count):
            rows += [f"{frame},{name},{x:.3f},{y:.3f}" for frame, (x, y) in enumerate(vehicle(draw))]
        paths[split] = folder / f"{split}.csv"
        paths[split].write_text("\n".join(rows) + "\n", encoding="utf-8")
    return paths


def _arm(number: int, *, side: float) -> NDArray[np.float64]:
    """An arm's lane from the island outwards; side 1 = towards the island, -1 = away from it (driving on the right)."""
    along = np.arange(ISLAND_RADIUS + 1, ARM_LENGTH, 0.5)
    angle = number * np.pi / 2
    ahead, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    return along[:, None] * ahead + side * LANE * across


def _smooth(points: NDArray[np.float64], width: int = 15) -> NDArray[np.float64]:
    """A moving mean, so that nobody turns on the spot."""
    half = width // 2
    padded = np.concatenate([np.repeat(points[:1], half, 0), points, np.repeat(points[-1:], half, 0)])
    window = np.lib.stride_tricks.sliding_window_view(padded, width, axis=0)
    return np.asarray(window.mean(-1))
