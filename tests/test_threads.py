from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest

from lipdub.threads import BackgroundWorker, prefetch


def until(condition, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    return bool(condition())


def counted(made: list[int], count: int = 100) -> Generator[int]:
    for number in range(count):
        made.append(number)
        yield number


@pytest.mark.parametrize("most", [1, 3])
def test_a_few_items_are_made_before_they_are_asked_for(most: int) -> None:
    made: list[int] = []
    items = prefetch(counted(made), most)
    assert next(items) == 0
    assert until(lambda: len(made) == most + 1)
    time.sleep(0.02)
    assert len(made) == most + 1  # and no more
    assert list(items) == list(range(1, 100))


def test_they_are_made_in_another_thread_and_come_in_order_to_the_end() -> None:
    threads = set()

    def items() -> Generator[int]:
        for number in range(20):
            threads.add(threading.get_ident())
            yield number

    assert list(prefetch(items(), 4)) == list(range(20))
    assert len(threads) == 1 and threading.get_ident() not in threads
    assert list(prefetch(counted([], 0), 4)) == []


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Generator[int]:
        yield 1
        raise OSError("gone")

    got = prefetch(items(), 4)
    assert next(got) == 1
    with pytest.raises(OSError, match="gone"):
        next(got)


def test_whoever_stops_early_closes_the_source() -> None:
    closed = []

    def items() -> Generator[int]:
        try:
            yield from range(100)
        finally:
            closed.append(True)

    got = prefetch(items(), 2)
    next(got)
    got.close()
    assert closed and threading.active_count() == 1


def test_work_is_done_in_order_and_few_pieces_wait() -> None:
    done: list[int] = []
    gate = threading.Event()
    behind = BackgroundWorker(2)
    behind.do(gate.wait)
    behind.do(lambda: done.append(1))
    third = threading.Thread(target=lambda: behind.do(lambda: done.append(2)))
    third.start()
    third.join(0.05)
    assert third.is_alive() and not done  # two pieces wait: the third one has to
    gate.set()
    third.join(5)
    behind.close()
    assert done == [1, 2]


def test_what_failed_is_raised_at_the_next_piece_or_at_the_end() -> None:
    def fail() -> None:
        raise OSError("full")

    behind = BackgroundWorker(1)
    behind.do(fail)
    with pytest.raises(OSError, match="full"):
        behind.do(lambda: None)
    behind.cancel()
    behind, done = BackgroundWorker(4), []
    behind.do(fail)
    behind._waiting.extend([behind._thread.submit(time.sleep, 0.05), behind._thread.submit(done.append, 1)])
    with pytest.raises(OSError, match="full"):
        behind.close()
    assert threading.active_count() == 1 and not done  # what came after it was left
