"""Background threads that make the samples of coming steps.

Sample `part` of `step` depends on the seed and these two numbers only. A continued run, one with other threads, and
several processes that share a step's parts therefore see the same samples, and a checkpoint needs no more than a step.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

Sample = TypeVar("Sample")


class Loader(Generic[Sample]):
    """The samples of one process, in order.

    Args:
        make: (step, part) -> sample; called from several threads at once.
        parts: of a step, in this process.
        workers: threads; 0 = each sample is made when it is asked for.
        rank: of this process.
        n_processes: that share the parts of a step: this one takes every n-th of them.
    """

    def __init__(
        self, make: Callable[[int, int], Sample], parts: int, workers: int, *, rank: int = 0, n_processes: int = 1
    ) -> None:
        self._make, self._parts, self._rank, self._n_processes = make, parts, rank, n_processes
        self._pool = ThreadPoolExecutor(workers) if workers else None
        self._n_prefetched = workers + 1  # one is ready while all threads are at work
        self._pending: dict[tuple[int, int], Future[Sample]] = {}  # by step and part
        self.waited_s = 0.0  # time that steps have waited for samples

    def take(self, step: int, part: int) -> Sample:
        """The sample of a step's part, both from 0; those after it are begun."""
        started = time.monotonic()
        try:
            if self._pool is None:
                return self._make(step, self._part_of_all(part))
            self._begin(self._pool, step, part)
            return self._pending.pop((step, part)).result()
        finally:
            self.waited_s += time.monotonic() - started

    def restart(self, parts: int) -> None:
        """Forget what was begun; steps have another number of parts now."""
        self._parts = parts
        self._cancel(list(self._pending))

    def close(self) -> None:
        """Stop the threads."""
        self._cancel(list(self._pending))
        if self._pool is not None:
            self._pool.shutdown()

    def _begin(self, pool: ThreadPoolExecutor, step: int, part: int) -> None:
        """Have threads make the sample of a step's part and those after it, and no others."""
        places = list(islice(self._places_from(step, part), 1 + self._n_prefetched))
        self._cancel([place for place in self._pending if place not in places])
        for place in places:
            if place not in self._pending:
                self._pending[place] = pool.submit(self._make, place[0], self._part_of_all(place[1]))

    def _cancel(self, places: list[tuple[int, int]]) -> None:
        """Forget samples that are under way; a thread that is at work on one finishes it."""
        for place in places:
            self._pending.pop(place).cancel()

    def _places_from(self, step: int, part: int) -> Iterator[tuple[int, int]]:
        """Steps and parts in the order in which they are taken, without end."""
        while True:
            yield step, part
            step, part = (step, part + 1) if part + 1 < self._parts else (step + 1, 0)

    def _part_of_all(self, part: int) -> int:
        """The number of a part of this process among those of all processes."""
        return part * self._n_processes + self._rank
