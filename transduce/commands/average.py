"""`transduce average`: checkpoints in, one model with the mean of their weights out (Vaswani 2017, 6.1)."""

from collections.abc import Sequence
from pathlib import Path

from transduce.errors import CheckpointError
from transduce.train.checkpoint import RunFolder, average_models, resolve_model


def average_checkpoints(paths: Sequence[Path], *, output: Path, last: int) -> None:
    """Write the mean of model directories, or of the newest `last` checkpoints of a run, to `output`. Raises CheckpointError."""
    directories = [folder for path in paths for folder in _directories(path, last)]
    if len(directories) < 2:
        raise CheckpointError(f"{paths[0]} gives one model only, and a mean needs two: name more, or train with train.keep_last=5")
    if output.exists():
        raise CheckpointError(f"{output} exists; an averaged model is written to a new folder")
    average_models(directories, output, metrics={"averaged": [str(folder) for folder in directories]})
    print(f"{output}: mean of {', '.join(str(folder) for folder in directories)}; its scores are not known yet")


def _directories(path: Path, last: int) -> list[Path]:
    """The checkpoints of a run folder, newest last; any other path is a model directory."""
    run = RunFolder(path)
    steps = run.steps()[-last:]
    return [run.folder(step) for step in steps] if steps else [resolve_model(path)]
