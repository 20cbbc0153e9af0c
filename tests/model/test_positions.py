"""Positions: the formulas, relativity, the same answer from any starting point."""

import math

import pytest
import torch

from transduce.errors import ConfigError
from transduce.model.positions import (
    TABLE_LENGTH,
    LearnedPositions,
    RelativePositions,
    RotaryPositions,
    SinusoidalPositions,
    rotate,
)


@pytest.mark.parametrize("width", [8, 7])
def test_sinusoids_follow_the_formula(width: int) -> None:
    table = SinusoidalPositions(width)(torch.zeros(1, 50, width), 0)[0]
    for position in (0, 1, 49):
        for feature in range(width):
            angle = position / 10000 ** (2 * (feature // 2) / width)
            expected = math.sin(angle) if feature % 2 == 0 else math.cos(angle)
            assert table[position, feature].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("start", [0, 3, TABLE_LENGTH - 2, TABLE_LENGTH + 5])
def test_a_window_of_sinusoids_is_cut_from_the_same_table(start: int) -> None:
    positions = SinusoidalPositions(6)
    whole = positions(torch.zeros(1, TABLE_LENGTH + 20, 6), 0)
    torch.testing.assert_close(positions(torch.zeros(1, 4, 6), start), whole[:, start : start + 4])


def test_learned_positions_say_when_they_end() -> None:
    positions = LearnedPositions(4, 6)
    torch.testing.assert_close(positions(torch.zeros(2, 2, 4), 4)[0], positions.weight[4:6])
    with pytest.raises(ConfigError, match="learned positions for 6; raise max_positions"):
        positions(torch.zeros(2, 3, 4), 4)


@pytest.mark.parametrize("shift", [1, 17, TABLE_LENGTH])
def test_rope_products_know_the_distance_only(shift: int) -> None:
    torch.manual_seed(1)
    positions = RotaryPositions(8)
    queries, keys = torch.randn(2, 1, 5, 2, 8)
    products = []
    for start in (0, shift):
        rotation = positions(torch.zeros(1, 5, 16), start)
        products.append(torch.einsum("bthk,bshk->bhts", rotate(queries, rotation), rotate(keys, rotation)))
    torch.testing.assert_close(products[0], products[1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(products[0], torch.einsum("bthk,bshk->bhts", queries, keys), atol=1e-2)


def test_rope_turns_pairs_by_their_angle_and_keeps_lengths() -> None:
    positions = RotaryPositions(4)
    vectors = torch.tensor([1.0, 2.0, 0.0, 0.0]).expand(1, 3, 1, 4)
    turned = rotate(vectors, positions(torch.zeros(1, 3, 4), 0))
    for position in range(3):
        slow = position / 100
        expected = [math.cos(position), 2 * math.cos(slow), math.sin(position), 2 * math.sin(slow)]
        assert turned[0, position, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_relative_buckets_are_exact_near_and_logarithmic_far() -> None:
    positions = RelativePositions(1, buckets=16, max_distance=32, both_ways=True)
    buckets = positions.bucket(torch.tensor([0, 1, 3, 4, 8, 31, 32, 500, -1, -3, -500])).tolist()
    assert buckets == [0, 1, 3, 4, 5, 7, 7, 7, 9, 11, 15]
    past = RelativePositions(1, buckets=8, max_distance=32, both_ways=False)
    assert past.bucket(torch.tensor([0, 3, 4, 100, -5])).tolist() == [0, 3, 4, 7, 0]


@pytest.mark.parametrize("both_ways", [True, False])
def test_relative_bias_depends_on_distance_only_and_a_window_is_cut_from_the_whole(both_ways: bool) -> None:
    positions = RelativePositions(3, buckets=8, max_distance=20, both_ways=both_ways)
    torch.nn.init.normal_(positions.weight)
    bias = positions(0, 30)
    assert bias.shape == (1, 3, 30, 30)
    torch.testing.assert_close(bias[:, :, 1:, 1:], bias[:, :, :-1, :-1])
    torch.testing.assert_close(positions(12, 1), bias[:, :, 12:13, :13])
    after, before = bias[0, :, 0, 5], bias[0, :, 5, 0]
    assert not torch.allclose(after, before)
