"""`lipdub inspect`: did lipdub alter this file, and what is in it?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lipdub.cli import console


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Any video or audio file.")],
    json_: Annotated[bool, typer.Option("--json", help="The same as one JSON object.")] = False,
) -> None:
    """Say whether lipdub altered FILE, read back its marks, and list its streams.

    The marks: a comment, the IPTC digital source type, the version of lipdub and the sum of the weights. They prove
    nothing by their absence: whoever encodes a file again may drop them.
    """
    from lipdub.media.listing import list_file
    from lipdub.media.marks import KEYS, verdict
    from lipdub.weights import manifest

    found = list_file(file)
    sentence, marks = verdict(found.marks), found.marks
    known = {entry.sha256: entry.name for entry in manifest().values()}
    name = known.get(marks.get("lipdub_weights", ""))
    if json_:
        more = {"altered": "lipdub_version" in marks, "verdict": sentence, "weights": name}
        console.data(console.json_line(found, type="file", **more))
        return
    console.data(f"{found.path}: {sentence}")
    for key in KEYS:
        if key in marks:
            console.data(f"  {key:20} {marks[key]}")
    if "lipdub_weights" in marks:
        console.data(f"  {'':20} {f'the weights {name!r} of this version' if name else 'weights unknown here'}")
    chapters = f", {found.chapters} chapters" if found.chapters else ""
    console.data(f"  {'container':20} {found.format}, {found.duration_s:.2f} s{chapters}")
    rows = [(f"  {stream.index}", stream.kind, stream.codec, str(stream)) for stream in found.streams]
    console.table(("  STREAM", "KIND", "CODEC", ""), rows)
