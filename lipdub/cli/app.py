"""`lipdub`: its commands, and how errors and signals become exit codes.

    LipdubError -> two lines on stderr, its own code        SIGINT -> 130    SIGTERM, SIGHUP -> 128 + number
    a bug of ours -> 1, asks for a report                   usage -> 2 (Typer)    reader of stdout gone -> 141

Signals are turned into exceptions, so that every context manager on the way out removes what it made.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
import traceback
from collections.abc import Sequence
from functools import cache as memoize
from types import TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lipdub import __version__, process
from lipdub.cli import cache, config, console, weights
from lipdub.cli.batch import batch
from lipdub.cli.command import Command, log
from lipdub.cli.demo import demo
from lipdub.cli.doctor import doctor
from lipdub.cli.eval import eval_
from lipdub.cli.faces import faces
from lipdub.cli.inspect import inspect
from lipdub.cli.prepare import prepare
from lipdub.cli.sync import sync
from lipdub.cli.train import train
from lipdub.cli.ui import ui
from lipdub.errors import LipdubError, ResourceError, out_of_memory

DEBUG_VARIABLE = "LIPDUB_DEBUG"


class _Commands(TyperGroup):
    """The top level, where the exceptions of any command become messages and exit codes."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except typer.Exit:
            raise
        except KeyboardInterrupt as error:
            console.say("interrupted")
            raise typer.Exit(130) from error
        except BrokenPipeError as error:  # not stdout's, see console.py; Typer would leave without a word
            raise RuntimeError("the other end of a pipe is gone") from error
        except Exception as error:
            known = _known_error(error)
            if known is None:
                log.debug("exit code 1 or 2", exc_info=error)
                raise
            if ctx.params.get("debug"):
                traceback.print_exception(known)
            log.debug("exit code %d", known.exit_code, exc_info=known)
            console.report_error(known)
            raise typer.Exit(known.exit_code) from error


def _known_error(error: Exception) -> LipdubError | None:
    """The error to report to the user; None for a bug, or for a usage error, which Typer reports."""
    if isinstance(error, LipdubError):
        return error
    if not out_of_memory(error):
        return None
    known = ResourceError("out of memory", "close other programs, try --device cpu, or a smaller video")
    known.__cause__ = error
    return known


app = typer.Typer(
    name="lipdub",
    cls=_Commands,
    help="Lip-sync and visual dubbing: the same video, with lips that match a new speech track.",
    epilog="First: lipdub demo. Then: lipdub sync video.mp4 dubbed.wav -o out.mp4. Dub people only with their consent; "
    "every output is marked as altered.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain text: fast, the same in any terminal
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (sync, batch, demo, doctor, faces, inspect, prepare, train, ui):
    app.command(cls=Command)(command)
app.command("eval", cls=Command)(eval_)
for name, commands in (("weights", weights.app), ("cache", cache.app), ("config", config.app)):
    app.add_typer(commands, name=name)


def _print_version(requested: bool) -> None:
    if requested:
        console.data(f"lipdub {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", envvar=DEBUG_VARIABLE, help="Tracebacks with errors.")] = False,
) -> None:
    """Options of every command; `main` and `_Commands` read them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the console script.

    Args:
        argv: without the program's name; by default sys.argv.

    Returns:
        0. Every other outcome leaves by SystemExit, or as an exception that Python turns into exit code 1.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--debug" not in arguments and os.environ.get(DEBUG_VARIABLE, "0") in {"", "0"}:
        sys.excepthook = _report_bug
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name must not break an ASCII terminal
    os.environ.setdefault("SVT_LOG", "1")  # errors alone: SVT-AV1 otherwise writes its settings to stderr
    process.own()
    atexit.register(gc.freeze)  # what PyTorch is made of need not be searched for garbage: half a second
    try:
        _commands().main(args=arguments, prog_name="lipdub")
    except KeyboardInterrupt:  # outside of a command
        return 130
    return 0


@memoize
def _commands() -> Any:
    """All commands: a tree that takes longer to build than most commands to parse."""
    return typer.main.get_command(app)


def _report_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Stands in for Python's traceback; the exit code stays 1."""
    console.say(f"error: unexpected {kind.__name__}: {error}")
    console.say("  this is a bug in lipdub; please report it with what `lipdub --debug ...` and `lipdub doctor` print")
