import os
import signal

import pytest
import torch

from transduce.errors import EXIT_IO, DataError, WorkerError
from transduce.forked import forked


def test_answers_come_in_turns_from_processes_with_one_thread_each():
    found = list(forked(lambda number: (number * number, os.getpid(), torch.get_num_threads()), [[1, 2, 3], [10, 20]], rehearsal=0))
    assert [(argument, result[0]) for argument, result in found] == [(1, 1), (10, 100), (2, 4), (20, 400), (3, 9)]
    processes = [result[1] for _, result in found]
    assert len(set(processes)) == 2
    assert os.getpid() not in processes
    assert {result[2] for _, result in found} == {1}


def test_what_a_rehearsal_loads_the_copies_have():
    loaded, before = [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = list(forked(lambda number: loaded.append((number, torch.get_num_threads())) or list(loaded), [[1], [2]], rehearsal=0))
        assert [result for _, result in found] == [[(0, 1), (1, 1)], [(0, 1), (2, 1)]] and loaded == [(0, 1)]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_error_is_raised_with_what_it_knows():
    def work(number):
        if number:
            raise DataError(f"cannot read {number}", "here.txt", 7)

    with pytest.raises(DataError, match=r"here\.txt:7: cannot read 1"):
        list(forked(work, [[1], [2]], rehearsal=0))


def test_a_worker_that_is_killed_is_told_with_what_to_do():
    def work(number):
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(WorkerError, match=r"signal 9 before it had answered: is there enough memory\? --threads 1") as caught:
        list(forked(work, [[1, 2], [3, 4]], rehearsal=0))
    assert caught.value.exit_code == EXIT_IO


def test_workers_end_when_nobody_asks_for_the_rest():
    answers = forked(lambda _number: (os.getpid(), b"x" * (1 << 20)), [list(range(100)), list(range(100))], rehearsal=0)
    process = next(answers)[1][0]
    answers.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_workers_end_when_their_parent_was_killed():
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:  # a process that starts two workers and is killed before it has read all of their answers
        os.close(reading)
        os.set_inheritable(writing, True)
        answers = forked(lambda _number: b"x" * (1 << 20), [list(range(100)), list(range(100))], rehearsal=0)
        next(answers)
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(writing)
    os.waitpid(parent, 0)
    assert os.read(reading, 1) == b""  # the end of a pipe that the workers had open too: they are gone
    os.close(reading)
