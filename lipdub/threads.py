"""Background threads: a prefetching iterator, and a worker with a bounded queue.

FFmpeg, PyTorch and OpenCV let go of the interpreter while they work.

At most so many pictures lie between two threads; an error in a thread is raised where its work is asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from types import TracebackType
from typing import Self, TypeVar

Item = TypeVar("Item")


def prefetch(items: Generator[Item], most: int) -> Generator[Item]:
    """The same items, of which up to `most` are made in another thread before they are asked for.

    Close it before what `items` reads from is closed; `items` is closed with it.
    """
    end = object()
    with closing(items), ThreadPoolExecutor(1) as thread:
        waiting = deque(thread.submit(next, items, end) for _ in range(most))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, items, end))
            yield item  # type: ignore[misc]  # `end` is no item


class BackgroundWorker:
    """Does work in order in one other thread, until `finish` or `cancel`; a context manager that calls one of them.

    Args:
        most: pieces of work that may wait; who gives another one waits, too.
    """

    def __init__(self, most: int) -> None:
        self._thread, self._most = ThreadPoolExecutor(1), most
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.cancel()

    def do(self, work: Callable[[], None]) -> None:
        """Have something done after all that was given before.

        Raises:
            Exception: what an earlier piece of work raised.
        """
        while len(self._waiting) >= self._most or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(work))

    def finish(self) -> None:
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
