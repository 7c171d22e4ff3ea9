"""Live display of a training run.

    terminal            a table that is kept up to date; lines of what happens above it
    pipe, log, dumb     a line for each interval of the log

Everything on stderr.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lipdub.cli import console
from lipdub.events import duration

if TYPE_CHECKING:
    from rich.table import Table

    from lipdub.training.run import TrainProgress


@dataclass(frozen=True)
class Watch:
    """Where a run tells its lines and its progress."""

    say: Callable[[str], None]
    show: Callable[[TrainProgress], None]


@contextmanager
def watching() -> Iterator[Watch]:
    """A table in a terminal, lines elsewhere."""
    if not console.is_fancy(sys.stderr):
        yield Watch(console.say, lambda progress: console.say(line(progress)))
        return
    from rich.console import Console
    from rich.live import Live

    live = Live(console=Console(stderr=True, highlight=False), redirect_stdout=False, auto_refresh=False)

    def show(progress: TrainProgress) -> None:
        live.start()  # with the first progress: of several processes only one has any
        live.update(table(progress), refresh=True)

    try:
        yield Watch(lambda text: live.console.print(text, markup=False), show)
    finally:
        live.stop()


def line(progress: TrainProgress) -> str:
    """Progress as one line."""
    losses = "  ".join(f"{name} {value:.4g}" for name, value in progress.losses.items())
    return f"step {_count(progress)}: {losses}  {', '.join(_pace(progress).values())}"


def table(progress: TrainProgress) -> Table:
    """Progress as a table of names and values."""
    from rich.table import Table

    drawn = Table(show_header=False)
    drawn.add_column(justify="right", style="bold")
    drawn.add_column(min_width=24)
    drawn.add_row("step", _count(progress))
    for name, text in _pace(progress).items():
        drawn.add_row(name, text)
    drawn.add_section()
    for name, value in progress.losses.items():
        drawn.add_row(name, f"{value:.4g}")
    return drawn


def _count(progress: TrainProgress) -> str:
    done = max(progress.share, progress.step / progress.steps)  # the share is that of before the last step
    return f"{progress.step:,} of {progress.steps:,} ({100 * done:.1f} %)"


def _pace(progress: TrainProgress) -> dict[str, str]:
    pace = {"speed": f"{progress.clips_per_s:.1f} clips/s", "data": f"{100 * progress.wait:.1f} % waited"}
    if progress.left_s is not None:
        pace["time"] = f"{duration(progress.left_s)} left"
    if progress.skipped:
        pace["skipped"] = f"{progress.skipped:,} steps skipped"
    return pace
