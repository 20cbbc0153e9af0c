"""SIGTERM and SIGINT become `Interrupted` (75 and 130), at a moment when the state of the run is whole.

In: the system's signals. Out: an exception in the main thread. Where nothing can be torn (reading data, a forward pass,
validation) the exception comes at once, inside `at_once`; elsewhere the signal is noted, and `check` raises it. A second
Ctrl-C does not wait: checkpoints are replaced by rename, so nothing is lost but the steps since the last one.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from transduce.errors import EXIT_CTRL_C, EXIT_INTERRUPTED, Interrupted


class SignalGuard:
    """Between `with` and its end the two signals are handled here. Outside the main thread it does nothing."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._immediate = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "SignalGuard":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def check(self) -> None:
        """Raises Interrupted when a signal has come."""
        if self._received is not None:  # kept: an exception that Python swallows (in a destructor) comes again at the next check
            self._immediate = False
            raise _interrupted(self._received)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Work that may be dropped in the middle: a signal raises Interrupted without waiting."""
        self._immediate = True
        try:
            self.check()
            yield
        finally:
            self._immediate = False
        self.check()

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._received == signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = number
        if self._immediate:
            self.check()


def _interrupted(number: int) -> Interrupted:
    error = Interrupted(f"stopped by {signal.Signals(number).name}")
    error.exit_code = EXIT_CTRL_C if number == signal.SIGINT else EXIT_INTERRUPTED
    return error
