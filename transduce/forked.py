"""Work in copies of this process, one thread each: how several cores search without waiting for one another.

In: a function and shares of arguments, one share for each worker. Out: its results, in turns. The decision a reader would question:
processes, because half of a step of search is Python, which runs in one thread at a time; and copies made by `fork`, because they have
the model in memory already. A copy may not use threads of its own (those of its parent are gone), so it computes with one.
"""

import gc
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from typing import Generic, TypeVar

import torch

from transduce.allocator import tune_allocator, widen_pages
from transduce.errors import WorkerError

ArgumentT = TypeVar("ArgumentT")
ResultT = TypeVar("ResultT")


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


def forked(
    work: Callable[[ArgumentT], ResultT], shares: Sequence[Sequence[ArgumentT]], *, rehearsal: ArgumentT | None
) -> Iterator[tuple[ArgumentT, ResultT]]:
    """Each argument with work(argument): the first of every share, then the second, and so on; a share is worked off by one process.

    work(rehearsal), unless that is None, is done here first and forgotten: what is loaded or compiled for it the copies have from the
    beginning (loops of numba: 0.4 s in each of them). An error of `work` is raised here. Raises WorkerError where a process ended without
    an answer.
    """
    workers: list[_Worker[ArgumentT, ResultT]] = []
    if rehearsal is not None:
        _rehearse(work, rehearsal)
    try:
        for share in shares:
            workers.append(_Worker(work, share, others=[worker.answers for worker in workers]))
        for turn in zip_longest(*([(worker, argument) for argument in worker.share] for worker in workers)):
            for worker, argument in filter(None, turn):
                yield argument, worker.receive()
    finally:
        for worker in workers:
            worker.stop()


def _rehearse(work: Callable[[ArgumentT], ResultT], argument: ArgumentT) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        work(argument)
    finally:
        torch.set_num_threads(threads)


class _Worker(Generic[ArgumentT, ResultT]):
    """One copy of this process."""

    def __init__(self, work: Callable[[ArgumentT], ResultT], share: Sequence[ArgumentT], *, others: Sequence[Connection]) -> None:
        self.share = share
        self.answers, sending = multiprocessing.Pipe(duplex=False)
        self._process = start_copy(partial(_answer, work, share, sending=sending, foreign=(*others, self.answers)))
        sending.close()

    def receive(self) -> ResultT:
        """The next answer, in the order of the share."""
        try:
            result, error = self.answers.recv()
        except EOFError:
            self._process.join()
            raise WorkerError(
                f"a worker process ended with {_ending(self._process.exitcode)} before it had answered: is there enough memory? "
                "--threads 1 works without such processes"
            ) from None
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def stop(self) -> None:
        """End the process, whether or not it is done."""
        self.answers.close()
        self._process.terminate()
        self._process.join()


def _answer(
    work: Callable[[ArgumentT], ResultT], share: Sequence[ArgumentT], *, sending: Connection, foreign: Sequence[Connection]
) -> None:
    """What a copy does: work, send, end. It ends too when nobody reads any more, because its parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C as well, and stops this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for connection in foreign:
        connection.close()
    torch.set_num_threads(1)
    gc.freeze()  # else a collection would write to every page with an object on it, and so copy it
    tune_allocator()
    widen_pages()
    try:
        for argument in share:
            sending.send((work(argument), None))
    except BrokenPipeError:
        os._exit(1)
    except Exception as error:  # raised again where the answer is awaited
        sending.send((None, error))


def _ending(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
