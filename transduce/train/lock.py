"""One process per run folder.

In: a run folder. Out: an exclusive lock for as long as the object is open. The system holds the lock (fcntl.flock), so a
killed process never leaves a run locked; the process number in the file only serves the message.
"""

import fcntl
import os
from pathlib import Path
from types import TracebackType

from transduce.errors import CheckpointError
from transduce.train.storage import storage_errors

LOCK_FILE = "lock"


class RunLock:
    """Held between `with` and its end. Raises CheckpointError with the holder's process number when the run is taken."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / LOCK_FILE
        self._descriptor: int | None = None

    def __enter__(self) -> "RunLock":
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise CheckpointError(
                f"{self.path.parent} is in use by process {holder}: wait for it, stop it, or choose another run_dir"
            ) from error
        with storage_errors(self.path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        self._descriptor = descriptor
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
