"""The most probable path of an output against every path that spells it."""

import itertools

import numpy as np
import pytest

from transduce.decode.alignment import align

OUTPUTS = [(1, 2), (1, 1), (), (2,), (3, 3, 3)]
LENGTHS = [4, 3, 3, 4, 4]


def logs_of(seed: int) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(len(OUTPUTS), 4, 4)) * 2
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_best_path(seed: int) -> None:
    logs = logs_of(seed)
    for row, found in enumerate(align(logs, LENGTHS, OUTPUTS, blank_id=0)):
        length, output = LENGTHS[row], OUTPUTS[row]
        paths = [
            path for path in itertools.product(range(4), repeat=length) if tuple(key for key, _ in itertools.groupby(path) if key) == output
        ]
        if not paths:
            assert found is None
            continue
        best = max(paths, key=lambda path: logs[row, range(length), path].sum())
        spans, position = [], 0
        for token, group in itertools.groupby(best):
            size = len(list(group))
            spans += [(position, position + size)] if token else []
            position += size
        assert found is not None
        assert list(zip(found.starts, found.ends, strict=True)) == spans
        sure = [np.exp(logs[row, start:end, token]).mean() for (start, end), token in zip(spans, output, strict=True)]
        assert found.confidences == pytest.approx(sure)
        assert found.confidence == pytest.approx(np.mean(sure)) if output else np.isnan(found.confidence)


def test_an_output_that_does_not_fit_has_none() -> None:
    assert align(logs_of(1), LENGTHS, OUTPUTS, blank_id=0)[4] is None
    assert align(np.zeros((0, 4, 4)), [], [], blank_id=0) == []
