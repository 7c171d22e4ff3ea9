"""What several commands read from their words: times, faces, languages; wrong ones are usage errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import typer

from lipdub.errors import InputError
from lipdub.faces.selection import Face
from lipdub.faces.selection import parse_face as face_of
from lipdub.faces.selection import parse_time as time_of

Value = TypeVar("Value")


def checked(option: str, read: Callable[[str], Value], text: str) -> Value:
    """What `read` makes of a text; usage error where it refuses."""
    try:
        return read(text)
    except InputError as error:
        raise typer.BadParameter(f"{error.what}; {error.remedy}", param_hint=option) from error


def parse_face(text: str) -> Face:
    """A face as `lipdub.faces.selection` reads it."""
    return checked("--face", face_of, text)


def parse_time(text: str | None, option: str) -> float | None:
    """Seconds from `12.5`, `1:02.5` or `1:00:02`."""
    return None if text is None else checked(option, time_of, text)


def parse_range(start: str | None, end: str | None) -> tuple[float | None, float | None]:
    """Seconds of `--start` and `--end`."""
    start_s, end_s = parse_time(start, "--start"), parse_time(end, "--end")
    if end_s is not None and end_s <= (start_s or 0.0):
        raise typer.BadParameter(f"{end!r} does not come after the start", param_hint="--end")
    return start_s, end_s


def parse_length(text: str | None, option: str) -> float | None:
    """Seconds from `5`, `5s` or `0:05`, more than none."""
    seconds = None if text is None else parse_time(text.removesuffix("s"), option)
    if seconds == 0:
        raise typer.BadParameter(f"{text!r} is no length", param_hint=option)
    return seconds


def check_language(tag: str | None) -> None:
    """Usage error where a tag is no language."""
    if tag is not None:
        from lipdub.media.language import language_code

        checked("--language", language_code, tag)
