"""Reading ahead: the results, their order and their errors are those of plain calls, whatever the threads do."""

import threading
import time

import pytest

from transduce.data.ahead import ahead


def slow(number: int) -> int:
    time.sleep(0.002 * (number % 3))
    return number * number


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order(workers):
    assert list(ahead(slow, range(25), workers=workers)) == [number * number for number in range(25)]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_where_its_result_would_have_come(workers):
    def work(number: int) -> int:
        if number == 4:
            raise ValueError("bad")
        return number

    results = ahead(work, range(9), workers=workers)
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="bad"):
        next(results)


def test_no_more_is_made_than_a_little_ahead():
    made = []
    results = ahead(lambda number: made.append(number) or number, range(1000), workers=2)
    next(results)
    results.close()
    assert 1 <= len(made) <= 6
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("transduce-data")]
