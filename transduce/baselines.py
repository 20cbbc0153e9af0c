"""What a learned model of tracks must beat: constant velocity and a Kalman filter.

In: observed tracks (T, C) and a number of steps. Out: predicted tracks (steps, C). Both treat each number of a frame by itself. The
decision a reader would question: the filter's two noise levels are chosen on training windows by the error of its
predictions, because that is what it is used for, not by likelihood.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from transduce.metrics.tracks import track_scores

Frames = NDArray[np.float32]
RATIOS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # process over measurement noise, tried by `fit_kalman`


def constant_velocity(observed: Frames, steps: int, *, over: int = 1) -> Frames:
    """The mean velocity of the last `over` steps goes on (as many as there are). observed: (T, C) -> (steps, C)."""
    back = min(over, len(observed) - 1)
    velocity = (observed[-1] - observed[-1 - back]) / max(back, 1)
    return np.asarray(observed[-1] + np.arange(1, steps + 1)[:, None] * velocity, dtype=np.float32)


@dataclass(frozen=True)
class Kalman:
    """Kalman filter with the state (place, velocity) of each number (Kalman 1960; white noise acceleration, Bar-Shalom 2001, 6.3.2).

    ratio: variance of the acceleration over that of a measurement, per step.
    """

    ratio: float = 1.0

    def __call__(self, observed: Frames, steps: int) -> Frames:
        """(T, C) -> (steps, C)."""
        move = np.array([[1.0, 1.0], [0.0, 1.0]])
        noise = self.ratio * np.array([[0.25, 0.5], [0.5, 1.0]])
        place = np.array([[1.0, 0.0]])
        first = observed[0].astype(np.float64)
        state = np.stack([first, np.zeros_like(first)])  # (2, C)
        covariance = np.diag([1.0, 1e3])
        for measured in observed[1:].astype(np.float64):
            state, covariance = move @ state, move @ covariance @ move.T + noise
            gain = covariance @ place.T / (place @ covariance @ place.T + 1.0)  # (2, 1)
            state = state + gain @ (measured[None] - place @ state)
            covariance = (np.eye(2) - gain @ place) @ covariance
        times = np.arange(1, steps + 1)[:, None]
        return np.asarray(state[0] + times * state[1], dtype=np.float32)


def fit_kalman(sources: Sequence[Frames], targets: Sequence[Frames], *, most: int = 500) -> Kalman:
    """The filter whose predictions of (an even sample of) training windows are nearest."""
    chosen = np.unique(np.linspace(0, len(sources) - 1, min(most, len(sources))).astype(int))
    errors = {}
    for (ratio,) in product(RATIOS):
        guesses = [Kalman(ratio)(sources[index], len(targets[index])) for index in chosen]
        errors[ratio] = track_scores(["ade"], guesses, [targets[index] for index in chosen])["ade"]
    return Kalman(min(errors, key=lambda ratio: errors[ratio]))
