"""Base class of all commands: option groups, settings files, environment variables, log."""

from __future__ import annotations

import gc
import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from lipdub import __version__
from lipdub.cli import console, settings

GENERAL = "For every command"
FILES_KEY, VALUES_KEY = "lipdub.files", "lipdub.values"  # of the context's meta

log = logging.getLogger("lipdub")


class Command(TyperCommand):
    """A command with the general options; its help has a heading for each group of options."""

    def __init__(self, name: str | None, **attributes: Any) -> None:
        super().__init__(name, **attributes)
        self.params = [*self.params, *_general_options()]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments first, then the groups in the order in which they first come; those of no group lead."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                group = "Arguments" if param.param_type_name == "argument" else "Options"
                group = GENERAL if param.name == "help" else getattr(param, "rich_help_panel", None) or group
                groups.setdefault(group, []).append(record)
        general = groups.pop(GENERAL)
        for heading, records in {**groups, GENERAL: general}.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def commands_of(root: Any) -> dict[str, Any]:
    """All commands by name, those of a sub-application as "weights list"."""
    commands: dict[str, Any] = {}
    for name, command in root.commands.items():
        inner = commands_of(command) if hasattr(command, "commands") else {"": command}
        commands.update({f"{name} {word}".strip(): each for word, each in inner.items()})
    return commands


def long_options(command: Any) -> dict[str, Any]:
    """The options of a command that files and environment may set: by name, without the dashes."""
    return {
        word[2:]: param
        for param in command.params
        if isinstance(param, TyperOption) and param.expose_value
        for word in param.opts
        if word.startswith("--")
    }


def values_of(ctx: typer.Context) -> dict[str, settings.OptionValue]:
    """The running command's options in files and environment."""
    return ctx.meta.get(VALUES_KEY, {})


def files_of(ctx: typer.Context) -> list[settings.SettingsFile]:
    """The settings files that were read."""
    return ctx.meta.get(FILES_KEY, [])


@contextmanager
def imports() -> Iterator[None]:
    """Slow imports, a seventh quicker: what libraries are made of is not searched for garbage, now or later."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _load(ctx: typer.Context, param: typer.CallbackParam, value: Path | None) -> None:
    """Give the command the options of files and environment as its defaults."""
    if ctx.resilient_parsing:  # the shell completes a line
        return
    commands = commands_of(ctx.find_root().command)
    name = ctx.command_path.partition(" ")[2]
    options = long_options(ctx.command)
    files = settings.read_files(value, {each: [*long_options(command)] for each, command in commands.items()})
    values = settings.options_of(name, options, files)
    ctx.meta[FILES_KEY], ctx.meta[VALUES_KEY] = files, values
    ctx.default_map = {options[word].name: _as_typed(one.value, options[word]) for word, one in values.items()}


def _as_typed(value: Any, param: Any) -> Any:
    """A value as if it had been typed, which is what the parser checks."""
    if param.multiple:
        return [str(item) for item in (value.split() if isinstance(value, str) else value)]
    return value if isinstance(value, bool) else str(value)


def _verbose(ctx: typer.Context, param: typer.CallbackParam, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        _attach(ctx, _OnStderr(), "%(message)s")


def _log_file(ctx: typer.Context, param: typer.CallbackParam, value: Path | None) -> None:
    if value is None or ctx.resilient_parsing:
        return
    try:
        handler = logging.FileHandler(value, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise typer.BadParameter(f"cannot write {value}: {error.strerror}", param_hint="--log-file") from error
    _attach(ctx, handler, "%(asctime)s %(levelname)s %(message)s")


class _OnStderr(logging.Handler):
    """Lines for the person, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is None:  # errors are reported by `report_error`
            console.say(self.format(record))


def _attach(ctx: typer.Context, handler: logging.Handler, form: str) -> None:
    """Let a handler hear the log until the command ends."""
    handler.setFormatter(logging.Formatter(form))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)

    def detach() -> None:
        log.removeHandler(handler)
        handler.close()
        if not log.handlers:
            log.setLevel(logging.NOTSET)

    ctx.find_root().call_on_close(detach)  # which has heard of errors by then
    log.debug("lipdub %s, Python %s on %s: %s", __version__, sys.version.split()[0], sys.platform, shlex.join(sys.argv))
    for name, option in values_of(ctx).items():
        log.debug("--%s = %s, from %s", name, option.value, option.origin)


def _option(callback: Any, *names: str, help: str, is_eager: bool = False) -> Any:
    return typer.Option(
        *names, help=help, callback=callback, is_eager=is_eager, expose_value=False, rich_help_panel=GENERAL
    )


CONFIG = _option(
    _load,
    help="Settings file; has priority over ./lipdub.toml and the user's file, see `lipdub config show`.",
    is_eager=True,
)
VERBOSE = _option(_verbose, "-v", "--verbose", help="Log details to stderr.")
LOG_FILE = _option(_log_file, help="Append the log, with times and tracebacks, to this file.")


def _general(
    config: Annotated[Path | None, CONFIG] = None,
    verbose: Annotated[bool, VERBOSE] = False,
    log_file: Annotated[Path | None, LOG_FILE] = None,
) -> None:
    """Never run: it describes the general options."""


@cache
def _general_options() -> list[Any]:
    application = typer.Typer(add_completion=False)
    application.command()(_general)
    return [param for param in typer.main.get_command(application).params if param.name != "help"]
