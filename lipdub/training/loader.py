"""Background threads that make the samples of coming steps.

Sample `part` of `step` depends on the seed and these two numbers only. A continued run, one with other threads, and
several processes that share a step's parts therefore see the same samples, and a checkpoint needs no more than a step.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
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
        self._ahead = workers + 1  # one is ready while all threads are at work
        self._coming: deque[tuple[tuple[int, int], Future[Sample]]] = deque()
        self.waited_s = 0.0  # time that steps have waited for samples

    def take(self, step: int, part: int) -> Sample:
        """The sample of a step's part; those after it are begun.

        Args:
            step: from 0.
            part: of this process, from 0.
        """
        started = time.monotonic()
        try:
            if self._pool is None:
                return self._make(step, self._index(part))
            if not self._coming or self._coming[0][0] != (step, part):
                self._drop()
            self._fill(step, part)
            _, sample = self._coming.popleft()
            made = sample.result()
            self._fill(*self._after(step, part))
            return made
        finally:
            self.waited_s += time.monotonic() - started

    def restart(self, parts: int) -> None:
        """Forget what was begun; steps have another number of parts now."""
        self._parts = parts
        self._drop()

    def close(self) -> None:
        """Stop the threads."""
        self._drop()
        if self._pool is not None:
            self._pool.shutdown()

    def _drop(self) -> None:
        for _, sample in self._coming:
            sample.cancel()
        self._coming.clear()

    def _fill(self, step: int, part: int) -> None:
        """Begin samples until enough are under way; (step, part) is the first that is wanted."""
        assert self._pool is not None
        at = self._after(*self._coming[-1][0]) if self._coming else (step, part)
        while len(self._coming) < self._ahead:
            self._coming.append((at, self._pool.submit(self._make, at[0], self._index(at[1]))))
            at = self._after(*at)

    def _after(self, step: int, part: int) -> tuple[int, int]:
        return (step, part + 1) if part + 1 < self._parts else (step + 1, 0)

    def _index(self, part: int) -> int:
        return part * self._n_processes + self._rank
