"""TensorBoard files, if it is installed.

In: a step and numbers by name. Out: event files in `tensorboard/` of the run folder, or a line that says how to get them.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transduce.train.journal import writing

MISSING = 'TensorBoard files are not written: pip install "transduce[track]"'


class Board:
    """Scalars over steps."""

    def __init__(self, writer: Any, path: Path) -> None:
        self._writer = writer
        self._path = path

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """One point for each name."""
        with writing(self._path):
            for name, value in values.items():
                if math.isfinite(value):
                    self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Writes what is still waiting."""
        with writing(self._path):
            self._writer.close()


def open_board(run_dir: Path) -> tuple[Board | None, str]:
    """A board, or None and the line that says why not."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None, MISSING
    path = run_dir / "tensorboard"
    with writing(path):
        return Board(SummaryWriter(logdir=str(path)), path), ""
