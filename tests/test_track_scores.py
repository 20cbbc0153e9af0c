"""Scores of tracks and the baselines beside them, on cases counted by hand."""

import numpy as np
import pytest

from transduce.baselines import Kalman, constant_velocity, fit_kalman
from transduce.errors import ConfigError
from transduce.metrics.tracks import box_iou, padded_samples, track_scores


def straight(steps: int, *, speed: float = 1.0, start: float = 0.0) -> np.ndarray:
    return np.stack([start + speed * np.arange(steps), np.zeros(steps)], axis=1).astype(np.float32)


def test_displacements():
    truth, guess = straight(3), straight(3) + np.array([[3, 4], [0, 0], [6, 8]], dtype=np.float32)
    assert track_scores(["ade", "fde"], [guess, truth], [truth, truth]) == {"ade": 2.5, "fde": 5.0}


def test_the_best_of_several():
    truth = straight(2)
    samples = np.stack([truth + 3, truth + np.array([[0, 1], [0, 5]]), truth + np.array([[0, 4], [0, 1]])]).astype(np.float32)
    scores = track_scores(["min_ade", "min_fde", "miss_rate"], [truth + 9], [truth], samples=[samples])
    assert scores == {"min_ade": 2.5, "min_fde": 1.0, "miss_rate": 0.0}
    assert track_scores(["miss_rate"], [truth + 9], [truth]) == {"miss_rate": 1.0}


def test_lengths_that_differ():
    assert track_scores(["fde"], [straight(2)], [straight(4)]) == {"fde": 2.0}
    assert track_scores(["ade"], [straight(9)], [straight(4)]) == {"ade": 0.0}
    assert padded_samples([straight(1), straight(3)]).shape == (2, 3, 2)


def test_boxes_are_compared_by_centre_and_overlap():
    box = np.array([[0, 0, 2, 2]], dtype=np.float32)
    grown = np.array([[-1, -1, 4, 4]], dtype=np.float32)
    assert track_scores(["ade", "iou", "final_iou"], [grown], [box]) == {"ade": 0.0, "iou": 0.25, "final_iou": 0.25}
    assert box_iou(box, box + np.array([1, 0, 0, 0])).tolist() == [pytest.approx(1 / 3)]
    assert box_iou(box, np.array([[0, 0, -2, 2]])).tolist() == [0]
    with pytest.raises(ConfigError, match="four numbers"):
        track_scores(["iou"], [straight(2)], [straight(2)])


def test_unknown_names():
    with pytest.raises(ConfigError, match=r"'adf'.*Allowed: ade, fde"):
        track_scores(["adf"], [], [])


def test_baselines_go_straight_on():
    observed = straight(5, speed=2)
    for guess in (constant_velocity, lambda seen, steps: constant_velocity(seen, steps, over=3), Kalman(1.0)):
        np.testing.assert_allclose(guess(observed, 3), straight(3, speed=2, start=10), atol=0.02)
    assert constant_velocity(straight(1), 2).tolist() == [[0, 0], [0, 0]]


def test_the_filter_is_steadier_where_measurements_are_noisy():
    draw = np.random.default_rng(0)
    truths = [straight(20, speed=float(speed)) for speed in draw.normal(1, 0.3, 60)]
    sources = [(truth[:12] + draw.normal(0, 0.3, (12, 2))).astype(np.float32) for truth in truths]
    targets = [truth[12:] for truth in truths]
    fitted = fit_kalman(sources, targets)
    errors = {
        name: track_scores(["ade"], [guess(source, 8) for source in sources], targets)["ade"]
        for name, guess in (("velocity", constant_velocity), ("filter", fitted))
    }
    assert fitted.ratio < 0.1 and errors["filter"] < errors["velocity"] / 2
