"""One thread per test process, so that runs are alike and two processes share two cores fairly."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import torch

torch.set_num_threads(1)

# A shell that starts the tests in the background makes them ignore Ctrl-C, and their children inherit that. A handler of our
# own undoes it: a program started from here gets the default again, so that the tests of SIGINT test SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def results_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """scripts/results_run.py in an empty repository; its neighbours are imported by plain name, as when they run."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parent.parent / "scripts"))
    import results_run

    monkeypatch.setattr(results_run, "ROOT", tmp_path)
    yield results_run
    for name in [name for name in sys.modules if name.startswith("results_")]:
        del sys.modules[name]
