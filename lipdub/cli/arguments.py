"""Parameters of commands: options made from a class' fields, values that several commands parse, `-` as a file."""

from __future__ import annotations

import inspect
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, TypeVar

import typer
from typer.models import ArgumentInfo

from lipdub.config import MediaConfig
from lipdub.dub.options import SyncOptions, options_from
from lipdub.errors import InputError
from lipdub.faces.selection import parse_time as time_of
from lipdub.options import Option, OptionError

DASH = Path("-")

# Options that several commands have.
Device = Annotated[str, typer.Option(help="auto (the fastest available), cpu, cuda, cuda:N or mps.")]
Weights = Annotated[str, typer.Option(help="Generator weights: a name from `lipdub weights list` or a file.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="section.key=value", help="Change any setting of config.py; may be repeated."),
]
Overwrite = Annotated[bool, typer.Option("-y", "--overwrite", help="Replace existing outputs.")]
Json = Annotated[bool, typer.Option("--json", help="Events as JSON lines on stdout.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only warnings and errors.")]

Function = TypeVar("Function", bound=Callable[..., None])


def with_options(options: Iterable[Option]) -> Callable[[Function], Function]:
    """Decorator of a command whose `**written` stands for `options`: each becomes a parameter with its own help.

    They come behind the arguments and required options of the command, and before its other options.
    """

    def add_parameters(command: Function) -> Function:
        signature = inspect.signature(command, eval_str=True)
        declared = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        leading = [each for each in declared if _is_leading(each)]
        trailing = [each for each in declared if not _is_leading(each)]
        parameters = [
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for each in (*leading, *map(_parameter_of, options), *trailing)
        ]
        # Typer reads a command's parameters from these two.
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": None}
        return command

    return add_parameters


def options_of(written: Mapping[str, Any]) -> SyncOptions:
    """Options from the parameters of a command; usage error where a value is not taken."""
    values = {key: value.value if isinstance(value, StrEnum) else value for key, value in written.items()}
    try:
        return options_from(values)
    except OptionError as error:
        raise typer.BadParameter(error.message, param_hint=f"--{error.option}") from error


def _is_leading(parameter: inspect.Parameter) -> bool:
    """Whether a parameter is an argument or required."""
    infos = getattr(parameter.annotation, "__metadata__", ())
    return parameter.default is inspect.Parameter.empty or any(isinstance(info, ArgumentInfo) for info in infos)


def _parameter_of(option: Option) -> inspect.Parameter:
    """The parameter of a command that takes an option's written value."""
    kind: Any = StrEnum(option.key, {word: word for word in option.choices}) if option.choices else option.kind
    names = [f"--{option.name}", *([f"-{option.short}"] if option.short else [])]
    default = (False if option.kind is bool else None) if option.default in (None, "") else option.default
    if default is None:
        kind = kind | None
    elif option.choices:
        default = kind(default)
    info = typer.Option(*names, help=option.help, min=option.minimum, max=option.maximum, rich_help_panel=option.panel)
    return inspect.Parameter(
        option.key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
    )


def option(*names: str, panel: str, help: str, metavar: str | None = None) -> Any:
    """An option below a heading of the help."""
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=metavar)


def parse_time(text: str | None, option: str) -> float | None:
    """Seconds from `12.5`, `1:02.5` or `1:00:02`; usage error otherwise."""
    try:
        return None if text is None else time_of(text)
    except InputError as error:
        raise typer.BadParameter(f"{error.what}; {error.remedy}", param_hint=option) from error


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


@contextmanager
def audio_path(audio: Path) -> Iterator[Path]:
    """The file of a speech track; for `-` a temporary copy of stdin, since it is read more than once.

    Raises:
        InputError: stdin is empty or a terminal.
    """
    if audio != DASH:
        yield audio
        return
    if sys.stdin.isatty():
        raise typer.BadParameter("- reads the audio from a pipe, and stdin is a terminal", param_hint="AUDIO")
    with TemporaryDirectory(prefix="lipdub-") as folder:
        path = Path(folder) / "stdin"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        if path.stat().st_size == 0:
            raise InputError("stdin held no audio", "pipe a file of any audio format into lipdub")
        yield path


@contextmanager
def output_path(output: Path, config: MediaConfig) -> Iterator[Path]:
    """The path to write a video to; for `-` a temporary file, which is copied to stdout when the block ends well.

    Raises:
        OutputError: FFmpeg failed.
    """
    if output != DASH:
        yield output
        return
    if sys.stdout.isatty():
        raise typer.BadParameter("- writes a video, and stdout is a terminal", param_hint="--output")
    from lipdub.media.excerpt import pour

    with TemporaryDirectory(prefix="lipdub-") as folder:
        path = Path(folder) / "video.mp4"
        yield path
        try:
            pour(path, sys.stdout.buffer, config)
        except BrokenPipeError as error:  # as if SIGPIPE had ended it, see console.py
            raise SystemExit(128 + 13) from error
