"""`lipdub weights`: listing, download, import and export of weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lipdub.cli import console
from lipdub.cli.arguments import Overwrite
from lipdub.cli.command import Command
from lipdub.errors import WeightsError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, download, verify and import weights. Only `pull` uses the network.",
)

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="As `lipdub weights list` prints them.")]


@app.command("list", cls=Command)
def list_(json_: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False) -> None:
    """Print every entry of weights.toml: kind, whether it is on this machine, size, licence."""
    from lipdub.weights import find, manifest

    rows = []
    for entry in manifest().values():
        path = find(entry)
        if json_:
            console.data(console.json_line(entry, path=path))
            continue
        size = path.stat().st_size if path else entry.bytes
        here = "bundled" if path and entry.bundled else "here" if path else "-"
        commercial = "yes" if entry.commercial else "no"
        rows.append((entry.name, entry.kind, here, f"{size / 1e6:.1f} MB" if size else "?", commercial, entry.license))
    if not json_:
        console.table(("NAME", "KIND", "HERE", "SIZE", "COMMERCIAL", "LICENCE"), rows)


@app.command(cls=Command)
def pull(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="As `lipdub weights list` prints them.")],
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress bar.")] = False,
) -> None:
    """Download weights, verify their checksums and print their paths."""
    from lipdub.weights import entry_of
    from lipdub.weights import pull as fetch

    for entry in [entry_of(name) for name in names]:  # a wrong name stops before anything is fetched
        path = fetch(entry.name, progress=not quiet and console.is_fancy(sys.stderr))
        console.data(str(path))
        if not entry.commercial:
            console.say(f"{entry.name}: not for commercial use ({entry.license}; trained on {entry.trained_on})")


@app.command(cls=Command)
def verify(names: Names = None) -> None:
    """Verify the checksums of weights; without names, of all that are on this machine."""
    from lipdub.weights import find, locate, manifest

    wrong = []
    for name in names or [entry.name for entry in manifest().values() if find(entry)]:
        try:
            console.data(f"{name}: ok, {locate(name)}")
        except WeightsError as error:
            if names and len(names) == 1:
                raise
            console.report_error(error)
            wrong.append(name)
    if wrong:
        raise WeightsError(
            f"{len(wrong)} not as in weights.toml: {', '.join(wrong)}", "each line above names its remedy"
        )


@app.command(cls=Command)
def path(name: Annotated[str, typer.Argument(help="As `lipdub weights list` prints it.")]) -> None:
    """Print the path of a file, after verifying its checksum."""
    from lipdub.weights import locate

    console.data(str(locate(name)))


@app.command(cls=Command)
def export(
    run: Annotated[Path, typer.Argument(help="The folder of a run of `lipdub train`.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: weights.safetensors in RUN.")] = None,
    name: Annotated[str, typer.Option(help="Name in the printed entry.")] = "mine",
) -> None:
    """Write the averaged weights of a run, and print their entry for weights.toml.

    `lipdub sync --weights RUN` reads the folder of a finished run directly; this command is for a run that continues,
    for one of an earlier version, or for a file to share.
    """
    from lipdub.weights_export import export_run, manifest_entry

    console.data(manifest_entry(export_run(run, output), name))


@app.command("import", cls=Command)
def import_(
    source: Annotated[Path, typer.Argument(help="A .pth, .pt or .ckpt file of tensors.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: beside SOURCE.")] = None,
    kind: Annotated[str, typer.Option(help="Kind of the network, for the metadata.")] = "",
    overwrite: Overwrite = False,
) -> None:
    """Convert a checkpoint of another program to .safetensors.

    The file is read in a separate process that runs no code from it; a file that needs code is refused.
    """
    from lipdub.weights_import import import_weights

    bare = source.name.removesuffix(".tar")
    target = output or source.with_name(bare).with_suffix(".safetensors")
    done = import_weights(source, target, kind=kind, overwrite=overwrite)
    console.data(str(done.target))
    console.say(f"{done.tensors} tensors, {done.parameters} numbers, kind {done.kind!r}")
