"""The plan: exact mixing, even coverage, the budget, and that it is a function of seed, epoch and index alone."""

from collections import Counter

import numpy as np
import pytest

from transduce.data.plan import corpus_counts, epoch_rows, generator, plan_batches, stream


def widths(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    source = rng.gamma(4.0, 4.0, count).astype(np.int32) + 2
    return source, np.maximum(source + rng.integers(-3, 4, count), 2).astype(np.int32)


def test_counts_follow_weights_and_add_up():
    assert corpus_counts([100, 300], weights=[3.0, 1.0], temperature=1.0) == [300, 100]
    assert corpus_counts([10, 10, 11], weights=[1.0, 1.0, 1.0], temperature=1.0) == [11, 10, 10]
    assert corpus_counts([5, 0], weights=[1.0, 9.0], temperature=1.0) == [5, 0]


def test_counts_follow_temperature():
    assert corpus_counts([100, 10_000], weights=None, temperature=1.0) == [100, 10_000]
    assert corpus_counts([100, 10_000], weights=None, temperature=2.0) == [918, 9182]
    assert corpus_counts([100, 10_000], weights=None, temperature=1e9) == [5050, 5050]


def test_a_stream_covers_every_pair_evenly_however_it_is_cut():
    whole = stream(7, 0, 70, seed=1, corpus=0)
    parts = np.concatenate([stream(7, start, start + 5, seed=1, corpus=0) for start in range(0, 70, 5)])
    assert whole.tolist() == parts.tolist()
    assert set(Counter(whole.tolist()).values()) == {10}
    assert all(sorted(whole[start : start + 7]) == list(range(7)) for start in range(0, 70, 7))
    assert whole.tolist() != stream(7, 0, 70, seed=1, corpus=1).tolist()
    assert whole.tolist() != stream(7, 0, 70, seed=2, corpus=0).tolist()


def test_mixed_epochs_have_exact_shares_and_even_coverage():
    sizes, counts = [10, 100], corpus_counts([10, 100], weights=[1.0, 1.0], temperature=1.0)
    epochs = [epoch_rows(sizes, counts, seed=5, epoch=epoch) for epoch in range(6)]
    assert [int((rows < 10).sum()) for rows in epochs] == [55] * 6
    met = Counter(np.concatenate(epochs).tolist())
    small, large = [met[row] for row in range(10)], [met[row] for row in range(10, 110)]
    assert max(small) - min(small) <= 1
    assert max(large) - min(large) <= 1
    assert epochs[3].tolist() == epoch_rows(sizes, counts, seed=5, epoch=3).tolist()
    assert epochs[3].tolist() != epochs[4].tolist()
    assert epochs[0].tolist() != sorted(epochs[0].tolist(), key=lambda row: row >= 10)


@pytest.mark.parametrize("budget", [64, 700, 4096])
@pytest.mark.parametrize("shuffled", [True, False])
def test_every_row_once_within_the_budget(budget, shuffled):
    source, target = widths(3000)
    source[5], target[5] = 60, 64
    rows = np.random.default_rng(1).permutation(3000)
    plan = plan_batches(rows, source, target, budget=budget, shuffle=generator(1, 3, 0) if shuffled else None)
    batches = [plan.batch(index) for index in range(len(plan))]
    assert sorted(np.concatenate(batches).tolist()) == list(range(3000))
    cells = pads = 0
    for batch in batches:
        width = max(source[batch].max(), target[batch].max())
        assert width * len(batch) <= budget or len(batch) == 1
        area = len(batch) * (source[batch].max() + target[batch].max())
        cells, pads = cells + area, pads + area - source[batch].sum() - target[batch].sum()
    assert (plan.cells, plan.pads) == (cells, pads)
    assert plan.padding_share == pytest.approx(pads / cells)


def test_little_padding_and_few_batches():
    source, target = widths(30_000)
    plan = plan_batches(np.arange(30_000), source, target, budget=4096, shuffle=generator(1, 3, 0))
    assert plan.padding_share < 0.03
    assert len(plan) < 1.12 * np.maximum(source, target).sum() / 4096


def test_large_epochs_are_sorted_in_blocks_whose_members_change():
    source, target = widths(30_000)
    plans = [
        plan_batches(np.random.default_rng(e).permutation(30_000), source, target, budget=512, shuffle=generator(1, 3, e)) for e in (0, 1)
    ]
    first = [frozenset(plans[0].batch(index).tolist()) for index in range(len(plans[0]))]
    second = {frozenset(plans[1].batch(index).tolist()) for index in range(len(plans[1]))}
    assert sum(batch in second for batch in first) < 0.02 * len(first)
    assert plans[0].padding_share < 0.05


def test_nothing_to_plan():
    plan = plan_batches(np.zeros(0, dtype=np.int64), *widths(0), budget=10, shuffle=None)
    assert (len(plan), plan.padding_share) == (0, 0.0)
