"""A step by several processes, each from some rows of every batch: data parallelism on one machine.

In: the trainable parameters and a function from shares of batches to sums. Out: `Helpers`, whose gradients are added to this process's own.
The decision a reader would question: processes instead of threads of each operation. An operation on a few thousand rows is too short to
be worth sharing, and half of a step is Python and memory traffic: on two cores two threads were measured 1.15 times as fast as one. Weights
lie in memory that all processes see, so nothing is sent but token ids there and a sum back.
"""

import atexit
import ctypes
import mmap
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn

from transduce.allocator import Heap
from transduce.data.batch import Batch, Padded
from transduce.errors import WorkerError
from transduce.forked import can_fork, start_copy

MOST_PROCESSES = 4
"""Of the default: with more, a share of a usual batch is too small, and threads are the better use of the cores."""
_PR_SET_PDEATHSIG = 1  # prctl.h
_ALIGNMENT = 64
_MOST_DESCRIPTORS = 1 << 16


@dataclass(frozen=True)
class Job:
    """A share of the batches of a step. share: its number, 0 = the main process's; count: target tokens of the whole step."""

    step: int
    count: int
    share: int
    batches: list[Batch]


@dataclass(frozen=True)
class StepSums:
    """loss: sum over target tokens, nats; unaligned: pairs without a CTC path."""

    loss: float
    unaligned: int


Compute = Callable[[Job], StepSums]
"""Adds the gradients of a job to the parameters' `grad`."""


def choose_processes(wanted: int | None, *, threads: int, device: torch.device) -> tuple[int, str]:
    """How many processes compute a step, and why: as asked, else one for each of two to four threads, where processes can be copied."""
    if wanted is None and not 2 <= threads <= MOST_PROCESSES:
        return 1, "one thread" if threads == 1 else f"more than {MOST_PROCESSES} threads"
    if device.type != "cpu" or not can_fork():
        return 1, f"on {device.type}" if device.type != "cpu" else "this process cannot be copied: not Linux, or other threads are running"
    return wanted or threads, "one thread each"


class Helpers:
    """Copies of this process that wait for their share of a step."""

    def __init__(self, parameters: Sequence[nn.Parameter], compute: Compute, *, count: int) -> None:
        """Moves the parameters into memory that is shared with `count` copies."""
        self.parameters = parameters
        self._threads = torch.get_num_threads()
        if count:
            for parameter, shared in zip(parameters, shared_tensors(parameters), strict=True):
                parameter.data = shared.copy_(parameter.data)
        self._helpers = [_Helper(parameters, compute) for _ in range(count)]

    def start(self, step: int, count: int, batches: list[Batch]) -> Job:
        """Send every helper its share of the batches -> the share that is left for this process, to be computed on one thread."""
        if not self._helpers:
            return Job(step, count, 0, batches)
        shares = 1 + len(self._helpers)
        for number, helper in enumerate(self._helpers, 1):
            helper.send(Job(step, count, number, [batch.share(number, shares) for batch in batches]))
        torch.set_num_threads(1)
        return Job(step, count, 0, [batch.share(0, shares) for batch in batches])

    def finish(self, own: StepSums) -> StepSums:
        """Wait for the helpers and add their gradients and sums. Raises WorkerError where one has ended, and what went wrong in one."""
        if self._helpers:
            torch.set_num_threads(self._threads)
        for helper in self._helpers:
            sums = helper.receive()
            own = StepSums(own.loss + sums.loss, own.unaligned + sums.unaligned)
        return own

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self._helpers)

    def stop(self) -> None:
        """End the helpers; steps are this process's alone from now on."""
        for helper in self._helpers:
            helper.stop()
        self._helpers = []


def shared_tensors(like: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of the same shapes and types in one piece of memory that copies of this process share with it."""
    sizes = [-(-tensor.numel() * tensor.element_size() // _ALIGNMENT) * _ALIGNMENT for tensor in like]
    memory, place, made = mmap.mmap(-1, max(sum(sizes), _ALIGNMENT)), 0, []
    for tensor, size in zip(like, sizes, strict=True):
        made.append(torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=place).view(tensor.shape))
        place += size
    return made


class _Helper:
    """One copy of this process, and the gradients that it writes."""

    def __init__(self, parameters: Sequence[nn.Parameter], compute: Compute) -> None:
        self.parameters = parameters
        self.gradients = shared_tensors(parameters)
        self._sent = 0
        self._connection, theirs = Pipe()
        self._process = start_copy(partial(self._serve, compute, theirs))
        atexit.register(self._process.kill)  # else this process, whatever ends it, waits for a copy that hears no signal
        theirs.close()

    def send(self, job: Job) -> None:
        """Give it work; what it may still be doing for a step that was given up is forgotten."""
        self._sent += 1
        try:
            self._connection.send((self._sent, replace(job, batches=[]), [_arrays(batch) for batch in job.batches]))
        except BrokenPipeError:
            raise self._ended() from None

    def receive(self) -> StepSums:
        """Its answer to the last job; its gradients are added to the parameters' own."""
        number = -1
        while number != self._sent:
            try:
                number, sums, written, error = self._connection.recv()
            except (EOFError, ConnectionResetError):
                raise self._ended() from None
        if error is not None:
            raise error
        for place in written:
            parameter, gradient = self.parameters[place], self.gradients[place]
            parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad.add_(gradient)
        return sums  # type: ignore[no-any-return]

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        atexit.unregister(self._process.kill)
        self._connection.close()
        self._process.kill()
        self._process.join()

    def _serve(self, compute: Compute, connection: Connection) -> None:
        """What the copy does: wait, compute, answer, until the main process has gone."""
        _leave_alone(connection)
        torch.set_num_threads(1)
        heap = Heap()
        while True:
            try:
                number, job, batches = connection.recv()
                connection.send((number, *self._answer(compute, replace(job, batches=[_batch(arrays) for arrays in batches]))))
            except (EOFError, ConnectionError):
                os._exit(0)
            heap.check()

    def _answer(self, compute: Compute, job: Job) -> tuple[StepSums | None, list[int], Exception | None]:
        """Sums, the places of the gradients that were written, and what went wrong, to be raised where the answer is awaited."""
        for parameter in self.parameters:
            parameter.grad = None
        try:
            sums = compute(job)
        except Exception as problem:
            return None, [], problem
        written = []
        for place, (parameter, gradient) in enumerate(zip(self.parameters, self.gradients, strict=True)):
            if parameter.grad is not None:
                gradient.copy_(parameter.grad)
                written.append(place)
        return sums, written, None

    def _ended(self) -> WorkerError:
        self._process.join()
        return WorkerError(
            f"a process that computes a share of each step ended with exit code {self._process.exitcode}: is there enough memory? Continue "
            "with `transduce resume`; train.processes=1 works without such processes"
        )


def _leave_alone(connection: Connection) -> None:
    """Make a copy depend on its connection alone: it ends with the main process, which hears the signals, and holds no file of it, neither
    its logs nor the lock of the run folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    own = connection.fileno()
    os.closerange(3, own)
    os.closerange(own + 1, _MOST_DESCRIPTORS)


def _arrays(batch: Batch) -> list[Any]:
    """A batch as arrays, which are sent by their bytes (tensors would each be put into a file of shared memory)."""
    tensors = (batch.ids, batch.owners, *(part for end in (batch.source, batch.target) for part in (end.data, end.lengths, end.keys)))
    return [None if tensor is None else tensor.numpy() for tensor in tensors]


def _batch(arrays: list[Any]) -> Batch:
    """The inverse of `_arrays`."""
    tensors: list[Any] = [None if array is None else torch.from_numpy(array) for array in arrays]
    return Batch(tensors[0], Padded(*tensors[2:5]), Padded(*tensors[5:]), tensors[1])
