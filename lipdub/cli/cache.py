"""`lipdub cache`: stored face tracks of earlier runs."""

from __future__ import annotations

import typer

from lipdub.cli import console
from lipdub.cli.command import Command

app = typer.Typer(
    name="cache",
    help="Show or remove the cached face tracks of earlier runs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command(cls=Command)
def show() -> None:
    """Print the number of cached videos, and the size of the cache."""
    from lipdub.dub.cache import AnalysisCache

    cache = AnalysisCache()
    entries = cache.entries()
    console.data(f"{len(entries)} analyses, {sum(entries.values()) / 1e6:.1f} MB in {cache.folder}")


@app.command(cls=Command)
def path() -> None:
    """Print the folder of the cache."""
    from lipdub.dub.cache import AnalysisCache

    console.data(str(AnalysisCache().folder))


@app.command(cls=Command)
def clear() -> None:
    """Empty the cache; the next run of each video finds its faces again."""
    from lipdub.dub.cache import AnalysisCache

    console.data(f"{AnalysisCache().clear() / 1e6:.1f} MB freed")
