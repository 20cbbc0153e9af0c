import gc
import os
import signal
import time

import pytest
import torch

from transduce.errors import EXIT_IO, DataError, WorkerError
from transduce.forked import Copies


def each(function):
    """Work that answers one argument after the other."""
    return lambda arguments: ((place, function(argument)) for place, argument in arguments)


def test_answers_come_from_processes_with_one_thread_each():
    def work(number):
        time.sleep(0.01)  # or one process might answer all before the other one begins
        return number * number, os.getpid(), torch.get_num_threads()

    copies = Copies(each(work), 2, rehearsal=0)
    found = list(copies.answers([1, 2, 3, 10, 20]))
    assert sorted((place, result[0]) for place, result in found) == [(0, 1), (1, 4), (2, 9), (3, 100), (4, 400)]
    processes = {result[1] for _, result in found}
    assert len(processes) == len(copies) == 2
    assert os.getpid() not in processes
    assert {result[2] for _, result in found} == {1}
    assert {result[1] for _, result in copies.answers([5, 6])} == processes  # the same ones answer again
    assert [result[0] for _, result in copies.answers([7])] == [49]
    assert list(copies.answers([])) == [] and copies.ready


def test_who_is_done_takes_the_next():
    def work(seconds):
        time.sleep(seconds)
        return os.getpid()

    found = list(Copies(each(work), 2, rehearsal=0).answers([0.5] + 8 * [0.0]))
    assert found[-1][0] == 0  # the long one is the last
    assert [process for _, process in found].count(found[-1][1]) == 1


def test_work_takes_the_next_argument_before_it_has_answered_the_last():
    def work(arguments):
        taken = []
        for place, number in arguments:
            taken.append(place)
            if len(taken) == 2:
                yield taken.pop(0), number
        yield from ((place, None) for place in taken)

    assert list(Copies(work, 1, rehearsal=0).answers([5, 6, 7])) == [(0, 6), (1, 7), (2, None)]


def test_large_arguments_and_answers_do_not_wait_for_each_other():
    copies = Copies(each(lambda text: text + text), 2, rehearsal="")
    assert sum(len(answer) for _, answer in copies.answers(20 * ["x" * (1 << 20)])) == 40 << 20


def test_what_a_rehearsal_loads_the_copies_have():
    loaded, before = [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        copies = Copies(each(lambda number: loaded.append((number, torch.get_num_threads())) or list(loaded)), 1, rehearsal=0)
        assert list(copies.answers([1])) == [(0, [(0, 1), (1, 1)])] and loaded == [(0, 1)]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_error_is_raised_with_what_it_knows():
    def work(number):
        if number:
            raise DataError(f"cannot read {number}", "here.txt", 7)

    copies = Copies(each(work), 2, rehearsal=0)
    with pytest.raises(DataError, match=r"here\.txt:7: cannot read 1"):
        list(copies.answers([1]))
    assert not copies.ready


def test_a_worker_that_is_killed_is_told_with_what_to_do():
    def work(number):
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    copies = Copies(each(work), 2, rehearsal=0)
    with pytest.raises(WorkerError, match=r"signal 9 before it had answered: is there enough memory\? --threads 1") as caught:
        list(copies.answers([1, 2, 3, 4]))
    assert caught.value.exit_code == EXIT_IO


def test_a_worker_that_is_killed_while_it_waits_is_noticed():
    copies = Copies(each(lambda _number: os.getpid()), 1, rehearsal=0)
    ((_, process),) = copies.answers([1])
    assert copies.ready
    os.kill(process, signal.SIGKILL)
    with pytest.raises(WorkerError, match="signal 9"):
        list(copies.answers([1]))
    assert not copies.ready


def test_copies_are_not_ready_while_they_answer():
    copies = Copies(each(lambda number: number), 1, rehearsal=0)
    answers = copies.answers([1, 2])
    next(answers)
    assert not copies.ready
    assert list(answers) == [(1, 2)] and copies.ready


def big_answer(_number):
    return os.getpid(), b"x" * (1 << 20)


def gone(process):
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    return True


def test_workers_end_when_nobody_asks_for_the_rest():
    answers = Copies(each(big_answer), 2, rehearsal=0).answers(list(range(200)))
    process = next(answers)[1][0]
    answers.close()
    assert gone(process)


def test_workers_end_with_the_object():
    copies = Copies(each(big_answer), 1, rehearsal=0)
    ((_, (process, _)),) = copies.answers([1])
    del copies
    gc.collect()
    assert gone(process)


@pytest.mark.parametrize("busy", [True, False], ids=["answering", "waiting"])
def test_workers_end_when_their_parent_was_killed(busy):
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:  # a process that starts two workers and is killed before it has read all of their answers, or afterwards
        os.close(reading)
        os.set_inheritable(writing, True)
        copies = Copies(each(big_answer), 2, rehearsal=0)
        answers = copies.answers(list(range(200)) if busy else [1, 2])
        next(answers) if busy else list(answers)
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(writing)
    os.waitpid(parent, 0)
    assert os.read(reading, 1) == b""  # the end of a pipe that the workers had open too: they are gone
    os.close(reading)
