"""`lipdub cache`: stored face tracks of earlier runs."""

from __future__ import annotations

import typer

from lipdub.cli import console
from lipdub.cli.command import Command

app = typer.Typer(
    name="cache",
    help="What earlier runs found in videos: show it, remove it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(cls=Command)
def show() -> None:
    """How many videos' analyses are kept, and how large they are together."""
    from lipdub.dub.cache import AnalysisCache

    cache = AnalysisCache()
    entries = cache.entries()
    console.data(f"{len(entries)} analyses, {sum(entries.values()) / 1e6:.1f} MB in {cache.folder}")


@app.command(cls=Command)
def path() -> None:
    """The folder that holds them."""
    from lipdub.dub.cache import AnalysisCache

    console.data(str(AnalysisCache().folder))


@app.command(cls=Command)
def clear() -> None:
    """Remove all of them; the next run of each video looks again."""
    from lipdub.dub.cache import AnalysisCache

    console.data(f"{AnalysisCache().clear() / 1e6:.1f} MB freed")
