"""Every error that a user can cause, and the exit code that the command line gives it.

A message says what is wrong, where (key, or file and line) and what is allowed. Anything that is
not a TransduceError is a bug in transduce and exits with 70.
"""

from pathlib import Path

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_DATA = 65
EXIT_INTERNAL = 70
EXIT_IO = 74
EXIT_INTERRUPTED = 75
EXIT_DIVERGED = 76
EXIT_CTRL_C = 130


class TransduceError(Exception):
    """Base of all errors a user can cause; `exit_code` is what the command line returns."""

    exit_code = EXIT_USAGE


class ConfigError(TransduceError):
    """A setting, a command-line word or a combination of them is not allowed."""

    exit_code = EXIT_USAGE


class DataError(TransduceError):
    """An input file or record is not what its format says. Names the file and, where known, the line."""

    exit_code = EXIT_DATA

    def __init__(self, message: str, path: Path | str | None = None, line: int | None = None) -> None:
        place = "" if path is None else f"{path}:{line}: " if line is not None else f"{path}: "
        super().__init__(place + message)
        self.path, self.line = path, line


class CheckpointError(TransduceError):
    """A run folder or model directory is missing, damaged, locked or of another format version."""

    exit_code = EXIT_IO


class StorageError(TransduceError):
    """The disk is full, a folder is read-only, or a file cannot be opened."""

    exit_code = EXIT_IO


class DivergedError(TransduceError):
    """The loss is no longer a finite number."""

    exit_code = EXIT_DIVERGED


class Interrupted(TransduceError):
    """A signal stopped the run after a checkpoint was saved; `transduce resume` continues it."""

    exit_code = EXIT_INTERRUPTED


class ExportError(TransduceError):
    """A model cannot be written for another engine, or an export is missing, damaged or of another model."""

    exit_code = EXIT_USAGE


class WorkerError(TransduceError):
    """A process that searched for this one was ended from outside, as the system does when memory runs out."""

    exit_code = EXIT_IO
