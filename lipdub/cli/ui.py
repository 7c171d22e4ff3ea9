"""`lipdub ui`: the main job as a page in the browser."""

from __future__ import annotations

import threading
from typing import Annotated

import typer

from lipdub.cli import console, settings
from lipdub.cli.command import files_of, imports
from lipdub.errors import SetupError


def ui(
    ctx: typer.Context,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the page (default: a free one from 7860 on).")
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Dub from a page in the browser, on this computer only. Needs the extra ui.

    The page has files, faces as pictures, range, quality, progress and the result beside the source. It listens on
    127.0.0.1, loads nothing from the network and sends nothing. Ctrl-C ends it and a running job.
    """
    with imports():
        try:
            from lipdub.ui.page import served
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] not in {"gradio", "starlette"}:
                raise
            raise SetupError("lipdub ui needs Gradio", 'pip install "lipdub[ui]"') from error
    files = files_of(ctx)
    with served(
        lambda quality: settings.config_of(files, (), settings.Quality(quality)), port=port, browser=browser
    ) as address:
        console.data(address)
        console.say("Ctrl-C ends it")
        threading.Event().wait()
