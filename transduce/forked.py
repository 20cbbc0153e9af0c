"""Work in copies of this process, one thread each: how several cores search without waiting for one another.

In: a function, then arguments, as often as there is something to do. Out: its results, as they come. The decision a reader would
question: processes, because half of a step of search is Python, which runs in one thread at a time; and copies
made by `fork`, because they have the model in memory already. They stay, as a new copy is slow for its first second. A copy may not use
threads of its own (those of its parent are gone), so it computes with one.
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Generic, TypeVar

import torch

from transduce.allocator import tune_allocator, widen_pages
from transduce.errors import WorkerError

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")

AHEAD = 2
"""Arguments that a copy knows of, the one that it works on included: it need not wait for its parent between two."""


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
    """`count` copies of this process that do work(argument). What `work` refers to they have as it was when they were made. They end when
    nobody refers to this object any more, and when this process ends.

    work(rehearsal) is done here first and forgotten: what is loaded or compiled for it the copies have from the beginning (loops of numba:
    0.4 s in each of them).
    """

    def __init__(self, work: Callable[[ArgumentT], ResultT], count: int, *, rehearsal: ArgumentT) -> None:
        _rehearse(work, rehearsal)
        self._workers: list[_Worker[ArgumentT, ResultT]] = []
        self._stop = weakref.finalize(self, _stop, self._workers)
        self._asked = False
        for _ in range(count):
            self._workers.append(_Worker(work, others=[worker.connection for worker in self._workers]))

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def ready(self) -> bool:
        """Whether all of them wait for something to do."""
        return not self._asked and all(worker.alive() for worker in self._workers)

    def answers(self, arguments: Sequence[ArgumentT]) -> Iterator[tuple[ArgumentT, ResultT]]:
        """Each argument with work(argument), in the order in which they get done: whoever has nothing to do takes the next.

        An error of `work` is raised here. Raises WorkerError where a copy ended without an answer. After an error, and where nobody asks
        for the rest, the copies are gone.
        """
        self._asked = True
        try:
            for worker in self._workers:
                worker.tell(arguments)
            places = iter(range(len(arguments)))
            for worker, place in zip(self._workers * AHEAD, places, strict=False):
                worker.give(place)
            for worker in _answering(self._workers):
                place, result = worker.receive()
                for following in islice(places, 1):
                    worker.give(following)
                yield arguments[place], result
            for worker in self._workers:
                worker.tell(())
            self._asked = False
        finally:
            if self._asked:
                self._stop()


def _rehearse(work: Callable[[ArgumentT], ResultT], argument: ArgumentT) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        work(argument)
    finally:
        torch.set_num_threads(threads)


def _answering(workers: "Sequence[_Worker[ArgumentT, ResultT]]") -> "Iterator[_Worker[ArgumentT, ResultT]]":
    """Those that have sent something, until none has anything to do."""
    while busy := [worker for worker in workers if worker.given]:
        ready = wait([worker.connection for worker in busy])
        yield from (worker for worker in busy if worker.connection in ready)


def _stop(workers: "Sequence[_Worker[ArgumentT, ResultT]]") -> None:
    for worker in workers:
        worker.stop()


class _Worker(Generic[ArgumentT, ResultT]):
    """One copy of this process."""

    def __init__(self, work: Callable[[ArgumentT], ResultT], *, others: Sequence[Connection]) -> None:
        self.connection, its = multiprocessing.Pipe()
        self.given: deque[int] = deque()
        self._owner = os.getpid()
        self._process = start_copy(partial(_answer, work, connection=its, foreign=(*others, self.connection)))
        its.close()

    def alive(self) -> bool:
        """Whether the process is still there."""
        return self._process.is_alive()

    def tell(self, arguments: Sequence[ArgumentT]) -> None:
        """What there is to do. Raises WorkerError."""
        self._send(arguments)

    def give(self, place: int) -> None:
        """The argument to do after those given before. Raises WorkerError."""
        self.given.append(place)
        self._send(place)

    def receive(self) -> tuple[int, ResultT]:
        """The place of an argument, in the order given, and its result. Raises WorkerError, or what `work` raised."""
        try:
            result, error = self.connection.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if error is not None:
            raise error
        return self.given.popleft(), result

    def _send(self, message: object) -> None:
        try:
            self.connection.send(message)
        except OSError:
            raise self._ended() from None

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


def _answer(work: Callable[[ArgumentT], ResultT], *, connection: Connection, foreign: Sequence[Connection]) -> None:
    """What a copy does: wait, work, send. It ends when nobody asks or reads any more, because its parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C as well, and stops this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other in foreign:
        other.close()
    torch.set_num_threads(1)
    gc.freeze()  # else a collection would write to every page with an object on it, and so copy it
    tune_allocator()
    widen_pages()
    arguments: Sequence[ArgumentT] = ()
    try:
        while True:
            match connection.recv():
                case int(place):  # small messages only: while this process sends a result, nobody waits for it to read
                    connection.send(_tried(work, arguments[place]))
                case told:
                    arguments = told
    except (EOFError, OSError):
        os._exit(1)


def _tried(work: Callable[[ArgumentT], ResultT], argument: ArgumentT) -> tuple[ResultT | None, Exception | None]:
    """The result, or the error, which is raised again where the answer is awaited."""
    try:
        return work(argument), None
    except Exception as error:
        return None, error


def _ending(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
