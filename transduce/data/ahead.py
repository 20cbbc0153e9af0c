"""Results of slow work in order, some of them made ahead in threads.

In: a function and its arguments. Out: its results, in order. Errors come where the result would have come. The decision a
reader would question: threads, not processes. What is slow here (decoding sound and pictures) releases the interpreter's lock.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

ResultT = TypeVar("ResultT")
PER_WORKER = 2  # results that each thread may be ahead


def ahead(work: Callable[[int], ResultT], numbers: Iterable[int], *, workers: int) -> Iterator[ResultT]:
    """work(n) for each of `numbers`, in order. With no workers each is made when it is asked for."""
    if not workers:
        yield from map(work, numbers)
        return
    left = iter(numbers)
    with ThreadPoolExecutor(workers, thread_name_prefix="transduce-data") as pool:
        waiting: deque[Future[ResultT]] = deque(pool.submit(work, number) for number in islice(left, workers * PER_WORKER))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(work, number) for number in islice(left, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()
