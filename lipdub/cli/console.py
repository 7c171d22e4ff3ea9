"""Output of a running job, for people and as JSON lines. With watch.py the only home of rich.

    terminal            bars on stderr: stage i/n, units done, rate, time left
    pipe, log, dumb     one line on stderr per stage and every 5 s
    --quiet             warnings only
    --json              events as JSON lines on stdout (`"type"` in each), nothing else

stdout carries data only; everything for the eye goes to stderr.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import PurePath
from typing import Any, TextIO

from lipdub.errors import LipdubError
from lipdub.events import Done, Event, Job, OnEvent, Plan, Progress, Stage, Warning_

PLAIN_EVERY_S = 5.0  # between two lines of a log
JSON_EVERY_S = 0.5  # between two progress events of a stage
SCHEMA = 1  # of the JSON lines; readers ignore types and keys that they do not know

Clock = Callable[[], float]
log = logging.getLogger("lipdub")


def say(text: str) -> None:
    """A line for the person, on stderr."""
    _print(text, sys.stderr)


def data(text: str) -> None:
    """A line of data, on stdout."""
    _print(text, sys.stdout)


def _print(text: str, stream: TextIO) -> None:
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError as error:  # `lipdub ... | head`: whoever read this has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # nothing is left for the flush at exit
        raise SystemExit(128 + 13) from error  # as if SIGPIPE had ended it


def warn(message: str) -> None:
    """A warning, on stderr."""
    say(f"warning: {message}")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns on stdout, each as wide as its widest cell."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        data("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def grid(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table with a title on stdout: drawn in a terminal, plain columns in a pipe or file.

    Where the terminal is too narrow, what a cell has in brackets goes to a second line.
    """
    lines = [tuple(row) for row in rows]
    data(title)
    if not is_fancy(sys.stdout):
        table(header, lines)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    widths = [max(len(line[i]) for line in [tuple(header), *lines]) for i in range(len(header))]
    narrow = sum(width + 3 for width in widths) + 1 > console.width
    drawn = Table()
    for number, name in enumerate(header):
        drawn.add_column(Text(name), justify="right" if number else "left")
    for first, *cells in lines:
        drawn.add_row(Text(first), *(Text(cell.replace(" [", "\n[") if narrow else cell) for cell in cells))
    console.print(drawn)


def report_error(error: LipdubError) -> None:
    """What happened, and what to do next: two lines on stderr."""
    say(f"error: {_one_line(error.what)}")
    say(f"  {_one_line(error.remedy)}")


@contextmanager
def progress(*, json_lines: bool = False, quiet: bool = False, clock: Clock = time.monotonic) -> Iterator[OnEvent]:
    """Show the events of one job.

    Args:
        json_lines: as NDJSON on stdout; a `LipdubError` that ends the job becomes an event of type "error".
        quiet: warnings only.
        clock: seconds, for tests.

    Yields:
        The job's `on_event`.
    """
    with _shown(json_lines=json_lines, quiet=quiet, clock=clock) as show:

        def on_event(event: Event) -> None:
            if not isinstance(event, Progress):
                log.debug("%s", json_line(event, type=type(event).__name__.strip("_").lower()))
            show(event)

        yield on_event


@contextmanager
def _shown(*, json_lines: bool, quiet: bool, clock: Clock) -> Iterator[OnEvent]:
    if json_lines:
        lines = _JsonLines(clock)
        try:
            yield lines
        except LipdubError as error:
            lines.write("error", {"code": error.exit_code, "what": error.what, "remedy": error.remedy})
            raise
    elif quiet:
        yield _Quiet()
    elif is_fancy(sys.stderr):
        with _bars(clock) as on_event:
            yield on_event
    else:
        yield _Plain(clock)


def is_fancy(stream: TextIO) -> bool:
    """Whether moving bars may be drawn: a terminal that can, and a user who did not object."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def duration(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class _Pace:
    """Where the current stage is, how fast, and how long it still takes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.stage: Stage | None = None
        self.done = 0
        self.total: int | None = None
        self._started = 0.0

    def take(self, event: Stage | Progress) -> None:
        if isinstance(event, Stage):
            self.stage, self.done, self.total, self._started = event, 0, event.total, self._clock()
        else:
            self.done, self.total = event.done, event.total if event.total is not None else self.total

    @property
    def seconds(self) -> float:
        return self._clock() - self._started

    @property
    def rate(self) -> float:
        """Units per second since the stage began."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        return (self.total - self.done) / self.rate if self.total is not None and self.rate > 0 else None

    @property
    def title(self) -> str:
        return f"[{self.stage.index}/{self.stage.count}] {self.stage.name}" if self.stage else ""

    @property
    def speed(self) -> str:
        unit = self.stage.unit if self.stage else ""
        if unit == "frames":
            return f"{self.rate:.1f} fps"
        slow = self.rate < 0.5
        return f"{60 * self.rate:.2g} {unit}/min" if slow else f"{self.rate:.2g} {unit}/s"

    def __str__(self) -> str:
        text = f"{self.done}" + (f"/{self.total}" if self.total is not None else "")
        text += f"  {self.speed}" if self.rate else ""
        return text + (f"  {duration(self.left_s)} left" if self.left_s is not None else "")


def pace_of(job: Job) -> str:
    """What a job that has ended did: frames, time and rate."""
    rate = f", {job.frames / job.seconds:.1f} fps" if job.seconds > 0 else ""
    return f"{job.frames} frames, {duration(job.seconds)}{rate}"


class _Quiet:
    def __call__(self, event: Event) -> None:
        if isinstance(event, Warning_):
            warn(_one_line(event.message))


class _Plain:
    """A line when a stage begins and ends, and every 5 s in between."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._pace = clock, _Pace(clock)
        self._last = -math.inf

    def __call__(self, event: Event) -> None:
        if isinstance(event, Stage | Done | Plan):
            self._finish()
        if isinstance(event, Stage):
            self._pace.take(event)
            self._line(self._pace.title)
        elif isinstance(event, Progress):
            self._pace.take(event)
            if self._clock() - self._last >= PLAIN_EVERY_S:
                self._line(f"{self._pace.title}  {self._pace}")
        elif isinstance(event, Warning_):
            warn(_one_line(event.message))
        elif isinstance(event, Job) and event.state == "done":
            self._line(f"{event.name}: {pace_of(event)}")

    def _finish(self) -> None:
        pace = self._pace
        if pace.stage is not None:
            done = f"{pace.done} {pace.stage.unit}, {pace.speed}, " if pace.done else ""
            self._line(f"{pace.title}  {done}{duration(pace.seconds)}")
            pace.stage = None

    def _line(self, text: str) -> None:
        self._last = self._clock()
        say(text)


class _JsonLines:
    """One JSON object a line. Progress is thinned out; the last of a stage is always there."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: Progress | None = None
        self._last = -math.inf
        self.write("start", {"schema": SCHEMA})

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._held = event
            if self._clock() - self._last < JSON_EVERY_S:
                return
        self._flush()
        match event:
            case Stage():
                self.write("stage", dataclasses.asdict(event))
            case Warning_():
                self.write("warning", dataclasses.asdict(event))
            case Job():
                self.write("job", dataclasses.asdict(event))
            case Done():
                self.write("done", {"report": event.report})
            case Plan():
                self.write("plan", {"plan": event.plan})

    def _flush(self) -> None:
        if self._held is not None:
            self.write("progress", dataclasses.asdict(self._held))
            self._held, self._last = None, self._clock()

    def write(self, kind: str, values: dict[str, Any]) -> None:
        data(json_line(values, type=kind))


@contextmanager
def _bars(clock: Clock) -> Iterator[OnEvent]:
    from rich.console import Console, RenderableType
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    pace, jobs = _Pace(clock), _Jobs(clock)
    console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
    )

    class Live(Bars):
        def get_renderables(self) -> Iterator[RenderableType]:
            if jobs.known:
                yield jobs.drawn(max(3, console.height - 6))
            yield self.make_tasks_table(self.tasks)

    with Live(*columns, console=console, redirect_stdout=False) as bars:
        task = bars.add_task("", total=None, pace="")

        def on_event(event: Event) -> None:
            if isinstance(event, Warning_):
                bars.console.print(f"warning: {_one_line(event.message)}", markup=False)
            if isinstance(event, Stage):
                pace.take(event)
                bars.reset(task, total=pace.total, description=pace.title, pace="")
            elif isinstance(event, Progress):
                pace.take(event)
                bars.update(task, completed=pace.done, total=pace.total, pace=str(pace))
            elif isinstance(event, Job):
                jobs.take(event)
            elif isinstance(event, Done | Plan) and pace.stage is not None:
                bars.update(task, completed=1, total=1)

        yield on_event


class _Jobs:
    """A table of the jobs of a batch: those that run, then those that ended last."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.known: dict[str, tuple[Job, float]] = {}  # and the time of its last event; the latest is last

    def take(self, job: Job) -> None:
        self.known.pop(job.name, None)
        self.known[job.name] = job, self._clock()

    def drawn(self, max_rows: int) -> Any:
        """A rich table of at most so many rows."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        running = [row for row in self.known.values() if row[0].state == "running"]
        ended = [row for row in reversed(self.known.values()) if row[0].state != "running"]
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("output", overflow="ellipsis", no_wrap=True)
        table.add_column("state")
        for name in ("frames", "time", "fps"):
            table.add_column(name, justify="right")
        for job, since in (running + ended)[:max_rows]:
            seconds = self._clock() - since if job.state == "running" else job.seconds
            rate = f"{job.frames / job.seconds:.1f}" if job.frames and job.seconds else ""
            style = {"failed": "red", "done": "green"}.get(job.state, "")
            cells = (str(job.frames or ""), duration(seconds) if seconds else "", rate)
            table.add_row(Text(PurePath(job.name).name), Text(job.state, style), *cells)
        return table


def plain(value: Any) -> Any:
    """Records, paths, fractions, NumPy and torch values as what JSON knows; NaN and infinity as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    if hasattr(value, "tolist"):  # NumPy and torch, scalars and arrays; neither is imported here
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def json_line(record: Any, **more: Any) -> str:
    """A record and further keys as one line of JSON. ASCII only, so that any locale can print it."""
    return json.dumps(plain(more) | plain(record), ensure_ascii=True, allow_nan=False)


def _one_line(text: str) -> str:
    return " ".join(text.split())
