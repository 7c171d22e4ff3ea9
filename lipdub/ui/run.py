"""A job in a thread: what it is doing, and a way to end it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from lipdub.errors import LipdubError, ResourceError, out_of_memory
from lipdub.events import Event, OnEvent, Progress, Stage, Warning_


class _Cancelled(BaseException):
    """Unwinds a job, so that every context manager on the way out removes what it made."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """What a job is doing, or how it ended."""

    state: str = "running"  # running | done | failed | cancelled
    stage: str = ""
    index: int = 0  # of the stage, from 1
    count: int = 0  # stages
    done: int = 0  # units of the stage
    total: int | None = None
    unit: str = "frames"
    seconds: float = 0.0  # since the job began
    left_s: float | None = None  # of this stage, at its present speed
    warnings: tuple[str, ...] = ()
    report: Any = None  # of a job that is done
    error: LipdubError | None = None  # of one that failed


class Run:
    """One job. `status` may be read from any thread.

    Args:
        work: the job; it is given an `OnEvent`, and returns its report.
    """

    def __init__(self, work: Callable[[OnEvent], Any]) -> None:
        self._work, self._cancel = work, threading.Event()
        self._started = self._stage_started = time.monotonic()
        self._status = Status()
        self._thread = threading.Thread(target=self._run, name="lipdub-job", daemon=True)
        self._thread.start()

    @property
    def status(self) -> Status:
        """What it is doing now."""
        status, now = self._status, time.monotonic()
        if status.state != "running":
            return status
        left_s = None
        if status.total and status.done:
            left_s = (now - self._stage_started) / status.done * max(0, status.total - status.done)
        return replace(status, seconds=now - self._started, left_s=left_s)

    def cancel(self) -> None:
        """End the job at its next event; what it made is removed. Nothing happens to one that has ended."""
        self._cancel.set()

    def wait(self, timeout_s: float | None = None) -> Status:
        """The status once the job has ended, or `timeout_s` are over."""
        self._thread.join(timeout_s)
        return self.status

    def _run(self) -> None:
        try:
            self._end(state="done", report=self._work(self._on_event))
        except _Cancelled:
            self._end(state="cancelled")
        except LipdubError as error:
            self._end(state="failed", error=error)
        except BaseException as error:
            self._end(state="failed", error=_unexpected(error))
            if not out_of_memory(error):
                raise  # its traceback goes to the terminal

    def _end(self, **changes: Any) -> None:
        self._status = replace(self._status, seconds=time.monotonic() - self._started, **changes)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Stage):
            self._stage_started = time.monotonic()
            self._status = replace(
                self._status,
                stage=event.name,
                index=event.index,
                count=event.count,
                done=0,
                total=event.total,
                unit=event.unit,
            )
        elif isinstance(event, Progress):
            total = self._status.total if event.total is None else event.total
            self._status = replace(self._status, done=event.done, total=total)
        elif isinstance(event, Warning_):
            self._status = replace(self._status, warnings=(*self._status.warnings, event.message))
        else:
            return  # it is done: its output is in place, and stays
        if self._cancel.is_set():
            raise _Cancelled


def _unexpected(error: BaseException) -> LipdubError:
    if out_of_memory(error):
        return ResourceError("out of memory", "close other programs, or choose the device cpu")
    what = f"unexpected {type(error).__name__}: {error}"
    return LipdubError(what, "this is a bug in lipdub; please report it with what `lipdub doctor` prints")
