"""Data that the training tests share."""

from pathlib import Path

import pytest
from tiny_runs import final_bytes, tiny_config, write_pairs

from transduce.train.events import SilentProgress
from transduce.train.loop import train


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny training data; runs go into it too."""
    folder = tmp_path_factory.mktemp("pairs")
    write_pairs(folder)
    return folder


@pytest.fixture(scope="session")
def uninterrupted(pairs: Path) -> dict[str, bytes]:
    """The tensors at the end of a run of 20 steps that nothing stopped."""
    train(tiny_config(pairs, "uninterrupted"), SilentProgress())
    return final_bytes(pairs / "uninterrupted")
