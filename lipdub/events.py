"""Events of a running job, as plain records.

A job calls `on_event(event)` in the order of time: `Stage` when a stage begins, `Progress` within it, `Warning_`
at any moment, `Job` where there are several, one `Done` at the end, or one `Plan` where a dry run was asked for. A job
that fails raises; there is no event for that.
"""

from __future__ import annotations

from collections.abc import Callable
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


def ignore(event: Event) -> None:
    """The `OnEvent` of a caller that does not listen."""
