"""Events of a running job, as plain records.

A job calls `on_event(event)` in the order of time: `Stage` when a stage begins, `Progress` within it, `Warning_`
at any moment, `Job` where there are several, one `Done` at the end, or one `Plan` where a dry run was asked for. A job
that fails raises; there is no event for that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage begins, and with it the count of its `Progress` events."""

    name: str
    index: int  # from 1
    count: int  # stages of this job
    total: int | None  # units of this stage; None: unknown
    unit: str = "frames"  # what is counted
    before: int = 0  # units finished by an earlier run, with which the count begins


@dataclass(frozen=True, slots=True)
class Progress:
    """Units of the current stage that are finished."""

    done: int
    total: int | None = None  # None: as the stage said


@dataclass(frozen=True, slots=True)
class Warning_:  # the built-in owns the name without the underscore
    """Something the user should know; the job goes on."""

    code: str  # stable, fit for scripts: "length", "stream", ...
    message: str  # one sentence


@dataclass(frozen=True, slots=True)
class Job:
    """One of several jobs, as of a batch, begins or has ended."""

    name: str  # its output
    state: str  # running | done | failed | skipped
    frames: int = 0
    seconds: float = 0.0  # that it took


@dataclass(frozen=True, slots=True)
class Done:
    """The job has finished and its output is in place."""

    report: Any  # a dataclass, for example dub.SyncReport


@dataclass(frozen=True, slots=True)
class Plan:
    """A dry run has finished; nothing was written."""

    plan: Any  # a dataclass, for example dub.SyncPlan


Event: TypeAlias = Stage | Progress | Warning_ | Job | Done | Plan
OnEvent: TypeAlias = Callable[[Event], None]


def duration(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, whole_seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole_seconds:02}" if hours else f"{minutes}:{whole_seconds:02}"


def clock(seconds: float) -> str:
    """Seconds as m:ss.cc or h:mm:ss.cc, which --start and --end take."""
    minutes, hundredths = divmod(round(100 * seconds), 6000)
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes:02}:" if hours else f"{minutes}:"
    return (f"{hours}:" if hours else "") + f"{text}{hundredths // 100:02}.{hundredths % 100:02}"


def ignore(event: Event) -> None:
    """The `OnEvent` of a caller that does not listen."""


class Reporter:
    """Tells `on_event` the events of a job of these stages, and keeps its warnings and the seconds that stages took."""

    def __init__(self, on_event: OnEvent, stages: Sequence[str]) -> None:
        self._on_event, self._stages = on_event, stages
        self._started = time.monotonic()
        self._total: int | None = None
        self.warnings: list[str] = []
        self.stage_seconds: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """Since the job began."""
        return time.monotonic() - self._started

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        """One stage; `total` is the number of its frames, None where that is unknown."""
        self._total = total
        self._on_event(Stage(name, self._stages.index(name) + 1, len(self._stages), total))
        started = time.monotonic()
        yield
        self.stage_seconds[name] = round(time.monotonic() - started, 3)

    def progress(self, done: int) -> None:
        """Frames of the stage that are finished."""
        self._on_event(Progress(done, self._total))

    def warn(self, code: str, message: str) -> None:
        """Something that the user should know."""
        self.warnings.append(message)
        self._on_event(Warning_(code, message))
