"""Values that several commands parse: times, ranges, durations; an invalid one is a usage error."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import typer

from lipdub.errors import InputError
from lipdub.faces.selection import parse_time as time_of

Value = TypeVar("Value")


def checked(option: str, read: Callable[[str], Value], text: str) -> Value:
    """What `read` makes of a text; usage error where it refuses."""
    try:
        return read(text)
    except InputError as error:
        raise typer.BadParameter(f"{error.what}; {error.remedy}", param_hint=option) from error


def parse_time(text: str | None, option: str) -> float | None:
    """Seconds from `12.5`, `1:02.5` or `1:00:02`."""
    return None if text is None else checked(option, time_of, text)


def parse_range(start: str | None, end: str | None) -> tuple[float | None, float | None]:
    """Seconds of `--start` and `--end`."""
    start_s, end_s = parse_time(start, "--start"), parse_time(end, "--end")
    if end_s is not None and end_s <= (start_s or 0.0):
        raise typer.BadParameter(f"{end!r} is not after the start", param_hint="--end")
    return start_s, end_s


def parse_length(text: str | None, option: str) -> float | None:
    """Seconds from `5`, `5s` or `0:05`, more than none."""
    seconds = None if text is None else parse_time(text.removesuffix("s"), option)
    if seconds == 0:
        raise typer.BadParameter(f"invalid duration {text!r}: give seconds above 0, as 5s", param_hint=option)
    return seconds
