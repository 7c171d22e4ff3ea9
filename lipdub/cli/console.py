"""Output of a running job, for people and as JSON lines. With train.py the only home of rich.

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
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import PurePath
from typing import Any, TextIO

from lipdub.errors import LipdubError
from lipdub.events import Done, Event, Job, OnEvent, Plan, Progress, Stage, Warning_, duration

PLAIN_EVERY_S = 5.0  # between two lines of a log
JSON_EVERY_S = 0.5  # between two progress events of a stage
SCHEMA = 1  # of the JSON lines; readers ignore types and keys that they do not know

Clock = Callable[[], float]
log = logging.getLogger("lipdub")


def say(text: str) -> None:
    """Write a line for a person, on stderr."""
    _print(text, sys.stderr)


def data(text: str) -> None:
    """Write a line of data, on stdout."""
    _print(text, sys.stdout)


def _print(text: str, stream: TextIO) -> None:
    """Write a line; where the reader of the stream has gone, end as SIGPIPE would."""
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError as error:  # `lipdub ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # nothing is left for the flush at exit
        raise SystemExit(128 + 13) from error


def warn(message: str) -> None:
    """Write a warning, on stderr."""
    say(f"warning: {message}")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write columns on stdout, each as wide as its widest cell."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    for line in lines:
        data("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def grid(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table with a title on stdout: with borders in a terminal, as plain columns in a pipe or file.

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
    drawing = Table()
    for number, name in enumerate(header):
        drawing.add_column(Text(name), justify="right" if number else "left")
    for first, *cells in lines:
        drawing.add_row(Text(first), *(Text(cell.replace(" [", "\n[") if narrow else cell) for cell in cells))
    console.print(drawing)


def report_error(error: LipdubError) -> None:
    """Write what happened, and what to do next: two lines on stderr."""
    say(f"error: {_one_line(error.what)}")
    say(f"  {_one_line(error.remedy)}")


@contextmanager
def progress(*, json_lines: bool = False, quiet: bool = False, clock: Clock = time.monotonic) -> Iterator[OnEvent]:
    """Show the events of one job, which it gives to the yielded `on_event`.

    Args:
        json_lines: as NDJSON on stdout; a `LipdubError` that ends the job becomes an event of type "error".
        quiet: warnings only.
        clock: seconds, for tests.
    """
    with ExitStack() as stack:
        show: OnEvent = _show_warning
        if json_lines:
            show = _JsonLines(clock)
        elif not quiet:
            show = stack.enter_context(_bars(clock)) if is_fancy(sys.stderr) else _LogLines(clock)

        def on_event(event: Event) -> None:
            if not isinstance(event, Progress):
                log.debug("%s", json_line(event, type=_type_of(event)))
            show(event)

        try:
            yield on_event
        except LipdubError as error:
            if isinstance(show, _JsonLines):
                show.write("error", {"code": error.exit_code, "what": error.what, "remedy": error.remedy})
            raise


def _type_of(event: Event) -> str:
    """The `type` of an event in JSON."""
    return type(event).__name__.strip("_").lower()


def is_fancy(stream: TextIO) -> bool:
    """Whether bars, tables and colours may be drawn: in a terminal that can, unless NO_COLOR is set."""
    return stream.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


class _StageProgress:
    """How far the current stage is, how fast, and how long it still takes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.stage: Stage | None = None
        self.done = 0  # units
        self.total: int | None = None
        self._started = 0.0

    def update(self, event: Stage | Progress) -> None:
        """Begin a stage, or go on in it."""
        if isinstance(event, Stage):
            self.stage, self.done, self.total, self._started = event, event.before, event.total, self._clock()
        else:
            self.done, self.total = event.done, event.total if event.total is not None else self.total

    @property
    def seconds(self) -> float:
        """Since the stage began."""
        return self._clock() - self._started

    @property
    def rate(self) -> float:
        """Units per second since the stage began."""
        done = self.done - (self.stage.before if self.stage else 0)
        return done / self.seconds if self.seconds > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds until the stage ends; None where its length or rate is unknown."""
        return (self.total - self.done) / self.rate if self.total is not None and self.rate > 0 else None

    @property
    def title(self) -> str:
        """Number and name of the stage."""
        return f"[{self.stage.index}/{self.stage.count}] {self.stage.name}" if self.stage else ""

    @property
    def speed(self) -> str:
        """The rate with its unit."""
        unit = self.stage.unit if self.stage else ""
        if unit == "frames":
            return f"{self.rate:.1f} fps"
        slow = self.rate < 0.5
        return f"{60 * self.rate:.2g} {unit}/min" if slow else f"{self.rate:.2g} {unit}/s"

    def __str__(self) -> str:
        text = f"{self.done}" + (f"/{self.total}" if self.total is not None else "")
        text += f"  {self.speed}" if self.rate else ""
        return text + (f"  {duration(self.left_s)} left" if self.left_s is not None else "")


def _show_warning(event: Event) -> None:
    """The display of --quiet."""
    if isinstance(event, Warning_):
        warn(_one_line(event.message))


class _LogLines:
    """A line when a stage begins and ends, and every 5 s in between."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._progress = clock, _StageProgress(clock)
        self._last_line = -math.inf  # when it was written

    def __call__(self, event: Event) -> None:
        _show_warning(event)
        if isinstance(event, Stage | Done | Plan):
            self._end_stage()
        if isinstance(event, Stage):
            self._progress.update(event)
            self._write(self._progress.title)
        elif isinstance(event, Progress):
            self._progress.update(event)
            if self._clock() - self._last_line >= PLAIN_EVERY_S:
                self._write(f"{self._progress.title}  {self._progress}")
        elif isinstance(event, Job) and event.state == "done":
            rate = f", {event.frames / event.seconds:.1f} fps" if event.seconds > 0 else ""
            self._write(f"{event.name}: {event.frames} frames, {duration(event.seconds)}{rate}")

    def _end_stage(self) -> None:
        """Write what the current stage did, if there is one."""
        progress = self._progress
        if progress.stage is not None:
            done = f"{progress.done} {progress.stage.unit}, " if progress.done else ""
            done += f"{progress.speed}, " if progress.rate else ""
            self._write(f"{progress.title}  {done}{duration(progress.seconds)}")
            progress.stage = None

    def _write(self, text: str) -> None:
        self._last_line = self._clock()
        say(text)


class _JsonLines:
    """One JSON object a line. Progress is thinned out; the last of a stage is always there."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._unwritten: Progress | None = None
        self._last_progress = -math.inf  # when it was written
        self.write("start", {"schema": SCHEMA})

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._unwritten = event
            if self._clock() - self._last_progress < JSON_EVERY_S:
                return
        if self._unwritten is not None:
            self.write("progress", self._unwritten)
            self._unwritten, self._last_progress = None, self._clock()
        if not isinstance(event, Progress):
            self.write(_type_of(event), event)

    def write(self, kind: str, record: Any) -> None:
        """A record as a line of this type."""
        data(json_line(record, type=kind))


@contextmanager
def _bars(clock: Clock) -> Iterator[OnEvent]:
    """The display of a terminal: a bar of the current stage, below a table of the jobs of a batch."""
    from rich.console import Console, RenderableType
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    stage, jobs = _StageProgress(clock), _JobTable(clock)
    console = Console(stderr=True, highlight=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[numbers]}", markup=False),
    )

    class JobsAndBars(Bars):
        def get_renderables(self) -> Iterator[RenderableType]:
            if jobs.known:
                yield jobs.render(max(3, console.height - 6))
            yield self.make_tasks_table(self.tasks)

    with JobsAndBars(*columns, console=console, redirect_stdout=False) as bars:
        task = bars.add_task("", total=None, numbers="")

        def on_event(event: Event) -> None:
            if isinstance(event, Warning_):
                bars.console.print(f"warning: {_one_line(event.message)}", markup=False)
            if isinstance(event, Stage):
                stage.update(event)
                bars.reset(task, total=stage.total, description=stage.title, numbers="")
            elif isinstance(event, Progress):
                stage.update(event)
                bars.update(task, completed=stage.done, total=stage.total, numbers=str(stage))
            elif isinstance(event, Job):
                jobs.update(event)
            elif isinstance(event, Done | Plan) and stage.stage is not None:
                bars.update(task, completed=1, total=1)

        yield on_event


class _JobTable:
    """A table of the jobs of a batch: those that run, then those that ended last."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.known: dict[str, tuple[Job, float]] = {}  # by name: last event and its time, in the order of times

    def update(self, job: Job) -> None:
        """Note that a job began or ended."""
        self.known.pop(job.name, None)
        self.known[job.name] = job, self._clock()

    def render(self, max_rows: int) -> Any:
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
    """A text without line breaks, which would look like other messages."""
    return " ".join(text.split())
