"""`lipdub inspect`: disclosure tags, signature and streams of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lipdub.cli import console

if TYPE_CHECKING:
    from lipdub.media.c2pa import Credentials


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Any video or audio file.")],
    json_: Annotated[bool, typer.Option("--json", help="The same as one JSON object.")] = False,
) -> None:
    """Print whether lipdub altered FILE, its disclosure tags, and its streams.

    The tags: a comment, the IPTC digital source type, the version of lipdub and the checksum of the weights. Their
    absence proves nothing: encoding a file again may drop them. With pip install "lipdub[c2pa]", Content Credentials
    (C2PA) are read, too, and their signature is checked.
    """
    from lipdub.media.c2pa import readable
    from lipdub.media.disclosure import KEYS, verdict
    from lipdub.media.inspect import inspect_file
    from lipdub.weights import manifest

    report = inspect_file(file)
    sentence, marks = verdict(report.marks), report.marks
    known = {entry.sha256: entry.name for entry in manifest().values()}
    name = known.get(marks.get("lipdub_weights", ""))
    if json_:
        more = {
            "credentials_read": readable(),
            "altered": "lipdub_version" in marks,
            "verdict": sentence,
            "weights": name,
        }
        console.data(console.json_line(report, type="file", **more))
        return
    console.data(f"{report.path}: {sentence}")
    for key in KEYS:
        if key in marks:
            console.data(f"  {key:20} {marks[key]}")
        if key == "lipdub_weights" and key in marks:
            console.data(f"  {'':20} {f'the weights {name!r} of this version' if name else 'weights unknown here'}")
    _show_credentials(report.credentials, readable())
    chapters = f", {report.chapters} chapters" if report.chapters else ""
    console.data(f"  {'container':20} {report.format}, {report.duration_s:.2f} s{chapters}")
    rows = [(f"  {stream.index}", stream.kind, stream.codec, str(stream)) for stream in report.streams]
    console.table(("  STREAM", "KIND", "CODEC", ""), rows)


def _show_credentials(credentials: Credentials | None, readable: bool) -> None:
    """What the signed manifest says."""
    if credentials is None:
        absent = "none" if readable else 'not looked for: pip install "lipdub[c2pa]"'
        console.data(f"  {'credentials':20} {absent}")
        return
    console.data(f"  {'credentials':20} {credentials.verdict}")
    for line in (
        f"by {credentials.generator}",
        *credentials.actions,
        *(f"made from {title}" for title in credentials.parents),
    ):
        console.data(f"  {'':20} {line}")
