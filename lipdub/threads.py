"""Background threads: a prefetching iterator, and a worker with a bounded queue; how what they work on is closed.

FFmpeg, PyTorch and OpenCV let go of the interpreter while they work.

At most so many pictures lie between two threads; an error in a thread is raised where its work is asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from types import TracebackType
from typing import Self, TypeVar

Item = TypeVar("Item")


class ClosedOrCancelled(ABC):
    """A context manager that is closed where its block ends well, and cancelled where it ends with an exception."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.cancel()

    @abstractmethod
    def close(self) -> None:
        """Finish the work."""

    @abstractmethod
    def cancel(self) -> None:
        """Give the work up."""


def prefetch(items: Generator[Item], size: int) -> Generator[Item]:
    """The same items, of which up to `size` are made in another thread before they are asked for.

    Close it before what `items` reads from is closed; `items` is closed with it.
    """
    end = object()
    with closing(items), ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, items, end) for _ in range(size))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, items, end))
            yield item  # type: ignore[misc]  # `end` is no item


class BackgroundWorker(ClosedOrCancelled):
    """Does work in order in one other thread, until `close` or `cancel`.

    At most `size` pieces of work wait; who gives another one waits, too.
    """

    def __init__(self, size: int) -> None:
        self._thread, self._size = ThreadPoolExecutor(1), size
        self._waiting: deque[Future[None]] = deque()

    def do(self, work: Callable[[], None]) -> None:
        """Have something done after all that was given before.

        Raises:
            Exception: what an earlier piece of work raised.
        """
        while len(self._waiting) >= self._size or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(work))

    def close(self) -> None:
        """Wait until all is done.

        Raises:
            Exception: what a piece of work raised; those after it are not done.
        """
        try:
            while self._waiting:
                self._waiting.popleft().result()
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Leave undone what was not begun."""
        self._thread.shutdown(cancel_futures=True)
