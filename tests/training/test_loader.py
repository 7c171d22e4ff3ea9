from __future__ import annotations

import threading
import time

import pytest

from lipdub.training.loader import Loader


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_samples_come_in_order_whatever_the_threads(workers: int) -> None:
    loader = Loader(lambda step, part: (step, part), parts=2, workers=workers)
    assert [loader.take(step, part) for step in range(5) for part in range(2)] == [
        (step, part) for step in range(5) for part in range(2)
    ]
    assert loader.take(40, 1) == (40, 1)  # a run that continues
    loader.restart(3)
    assert [loader.take(7, part) for part in range(3)] == [(7, 0), (7, 1), (7, 2)]
    loader.close()


def test_processes_share_the_parts_of_a_step() -> None:
    loaders = [Loader(lambda step, part: part, 2, 0, rank=rank, n_processes=3) for rank in range(3)]
    assert sorted(loader.take(0, part) for loader in loaders for part in range(2)) == list(range(6))


def test_samples_are_made_while_the_step_is_computed() -> None:
    made = threading.Semaphore(0)

    def make(step: int, part: int) -> int:
        made.release()
        return step

    loader = Loader(make, 1, 2)
    assert loader.take(0, 0) == 0
    assert all(made.acquire(timeout=10) for _ in range(4))  # the first and three ahead, though nobody asked for them
    assert not made.acquire(timeout=0.05)  # and no more
    loader.close()


def test_waiting_is_counted() -> None:
    loader = Loader(lambda step, part: time.sleep(0.05), 1, 0)
    loader.take(0, 0)
    assert 0.05 <= loader.waited_s < 2


def test_what_goes_wrong_in_a_thread_is_raised_where_the_sample_is_taken() -> None:
    loader = Loader(lambda step, part: [][0], 1, 1)
    with pytest.raises(IndexError):
        loader.take(0, 0)
    loader.close()
