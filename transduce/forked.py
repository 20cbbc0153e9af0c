"""Work in copies of this process, one thread each: how several cores search without waiting for one another.

In: a function, then arguments, as often as there is something to do. Out: its results, as they come. The decision a reader would
question: processes, because half of a step of search is Python, which runs in one thread at a time; and copies
made by `fork`, because they have the model in memory already. They stay, as a new copy is slow for its first second. A copy may not use
threads of its own (those of its parent are gone), so it computes with one. It takes arguments itself, when it can use them: none waits for
another process.
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Generic, TypeVar

import torch

from transduce.allocator import tune_allocator, widen_pages
from transduce.errors import WorkerError

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")
Work = Callable[[Iterator[tuple[int, ArgumentT]]], Iterator[tuple[int, ResultT]]]
"""Takes numbered arguments as it goes on, and gives the number and the result of each."""

_PLACE_BYTES = 8


def can_fork() -> bool:
    """Whether this process may be copied: on Linux, and while no other Python thread could hold a lock that the copy waits for."""
    return sys.platform == "linux" and threading.active_count() == 1


def start_copy(target: Callable[[], None]) -> ForkProcess:
    """A copy of this process that runs `target`, started."""
    process = ForkProcess(target=target, daemon=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)  # torch's threads, unused there
        process.start()
    return process


class Copies(Generic[ArgumentT, ResultT]):
    """`count` copies of this process that answer numbered arguments: work takes the next when it can do something with it, and gives number
    and result of each in any order. What `work` refers to they have as it was when they were made. They end when nobody refers
    to this object any more, and when this process ends.

    work is done here first for a rehearsal, which is forgotten: what is loaded or compiled for it the copies have from the beginning (loops
    of numba: 0.4 s in each of them).
    """

    def __init__(self, work: Work[ArgumentT, ResultT], count: int, *, rehearsal: ArgumentT) -> None:
        _rehearse(work, rehearsal)
        self._places = _Places()
        self._workers: list[_Worker[ArgumentT, ResultT]] = []
        self._stop = weakref.finalize(self, _stop, self._workers, self._places)
        self._asked = False
        for _ in range(count):
            self._workers.append(_Worker(work, self._places, others=[worker.connection for worker in self._workers]))

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def ready(self) -> bool:
        """Whether all of them wait for something to do."""
        return not self._asked and all(worker.alive() for worker in self._workers)

    def answers(self, arguments: Sequence[ArgumentT]) -> Iterator[tuple[int, ResultT]]:
        """The place of each argument with its result, in the order in which they get done.

        An error of `work` is raised here. Raises WorkerError where a copy ended without an answer. After an error, and where nobody asks
        for the rest, the copies are gone.
        """
        self._asked = True
        try:
            self._places.begin()
            for worker in self._workers:
                worker.tell(arguments)
            yield from _sent(list(self._workers))
            self._asked = False
        finally:
            if self._asked:
                self._stop()


def _rehearse(work: Work[ArgumentT, ResultT], argument: ArgumentT) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        list(work(iter([(0, argument)])))
    finally:
        torch.set_num_threads(threads)


class _Places:
    """The place of the argument that nobody has taken: a number in a pipe. Who reads it, has it alone until the next one is written."""

    def __init__(self) -> None:
        reading, writing = os.pipe()
        self._reading, self._writing = os.fdopen(reading, "rb", buffering=0), os.fdopen(writing, "wb", buffering=0)
        self._write(0)

    def begin(self) -> None:
        """Start again with the first, while nobody takes any."""
        self._read()
        self._write(0)

    def take(self) -> int:
        """The next place."""
        place = self._read()
        self._write(place + 1)
        return place

    def close(self) -> None:
        """Forget the pipe."""
        self._reading.close()
        self._writing.close()

    def _read(self) -> int:
        return int.from_bytes(self._reading.read(_PLACE_BYTES), sys.byteorder)

    def _write(self, place: int) -> None:
        self._writing.write(place.to_bytes(_PLACE_BYTES, sys.byteorder))


def _sent(working: "list[_Worker[ArgumentT, ResultT]]") -> Iterator[tuple[int, ResultT]]:
    """What copies answer, until none has anything to do."""
    while working:
        ready = wait([worker.connection for worker in working])
        for worker in [worker for worker in working if worker.connection in ready]:
            answer = worker.receive()
            if answer is None:
                working.remove(worker)
            else:
                yield answer


def _stop(workers: "Sequence[_Worker[ArgumentT, ResultT]]", places: _Places) -> None:
    for worker in workers:
        worker.stop()
    places.close()


class _Worker(Generic[ArgumentT, ResultT]):
    """One copy of this process."""

    def __init__(self, work: Work[ArgumentT, ResultT], places: _Places, *, others: Sequence[Connection]) -> None:
        self.connection, its = multiprocessing.Pipe()
        self._owner = os.getpid()
        self._process = start_copy(partial(_answer, work, places, connection=its, foreign=(*others, self.connection)))
        its.close()

    def alive(self) -> bool:
        """Whether the process is still there."""
        return self._process.is_alive()

    def tell(self, arguments: Sequence[ArgumentT]) -> None:
        """What there is to do, for all copies together. Raises WorkerError."""
        try:
            self.connection.send(arguments)
        except OSError:
            raise self._ended() from None

    def receive(self) -> tuple[int, ResultT] | None:
        """The place of an argument and its result; None = it does nothing any more. Raises WorkerError, or what `work` raised."""
        try:
            answer, error = self.connection.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if error is not None:
            raise error
        return answer  # type: ignore[no-any-return]

    def stop(self) -> None:
        """End the process, whether or not it is done."""
        if os.getpid() == self._owner:  # a copy knows those that were there before it
            self.connection.close()
            self._process.terminate()
            self._process.join()

    def _ended(self) -> WorkerError:
        self._process.join()
        return WorkerError(
            f"a worker process ended with {_ending(self._process.exitcode)} before it had answered: is there enough memory? "
            "--threads 1 works without such processes"
        )


def _answer(work: Work[ArgumentT, ResultT], places: _Places, *, connection: Connection, foreign: Sequence[Connection]) -> None:
    """What a copy does: wait, work, send. It ends when nobody asks or reads any more, because its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C as well, and stops this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in foreign:
        other.close()
    torch.set_num_threads(1)
    gc.freeze()  # else a collection would write to every page with an object on it, and so copy it
    tune_allocator()
    widen_pages()
    try:
        while True:
            arguments = connection.recv()
            for message in _messages(work, _taken(arguments, places)):
                connection.send(message)
    except (EOFError, OSError):
        os._exit(1)


def _taken(arguments: Sequence[ArgumentT], places: _Places) -> Iterator[tuple[int, ArgumentT]]:
    """Those that no other copy has taken before, with their places."""
    while (place := places.take()) < len(arguments):
        yield place, arguments[place]


def _messages(
    work: Work[ArgumentT, ResultT], arguments: Iterator[tuple[int, ArgumentT]]
) -> Iterator[tuple[tuple[int, ResultT] | None, Exception | None]]:
    """Each place with its result, and None at the end; or the error, which is raised again where the answer is awaited."""
    try:
        yield from ((answer, None) for answer in work(arguments))
    except Exception as error:
        yield None, error
    else:
        yield None, None


def _ending(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
