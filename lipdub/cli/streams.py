"""`-` as a file: audio from stdin, video to stdout."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import typer

from lipdub.config import MediaConfig
from lipdub.errors import InputError

DASH = Path("-")


@contextmanager
def sound_from(audio: Path) -> Iterator[Path]:
    """A file to read the sound from; `-` is kept in one while the block runs, since it is read more than once.

    Raises:
        InputError: stdin is empty or a terminal.
    """
    if audio != DASH:
        yield audio
        return
    if sys.stdin.isatty():
        raise typer.BadParameter("- reads the sound from a pipe, and stdin is a terminal", param_hint="AUDIO")
    with TemporaryDirectory(prefix="lipdub-") as folder:
        path = Path(folder) / "stdin"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        if path.stat().st_size == 0:
            raise InputError("stdin held no audio", "pipe a file of any audio format into lipdub")
        yield path


@contextmanager
def film_to(output: Path, config: MediaConfig) -> Iterator[Path]:
    """A path to write the film to; for `-` it is poured into stdout when the block ends well.

    Raises:
        OutputError: FFmpeg failed.
    """
    if output != DASH:
        yield output
        return
    if sys.stdout.isatty():
        raise typer.BadParameter("- writes a film, and stdout is a terminal", param_hint="--output")
    from lipdub.media.excerpt import pour

    with TemporaryDirectory(prefix="lipdub-") as folder:
        path = Path(folder) / "film.mp4"
        yield path
        try:
            pour(path, sys.stdout.buffer, config)
        except BrokenPipeError as error:  # as if SIGPIPE had ended it, see console.py
            raise SystemExit(128 + 13) from error
