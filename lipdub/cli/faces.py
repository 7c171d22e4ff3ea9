"""`lipdub faces`: the faces in a video."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lipdub.cli import console
from lipdub.cli.arguments import Device, Json, Overwrite, Set, parse_range
from lipdub.cli.command import imports
from lipdub.cli.results import show_faces

if TYPE_CHECKING:
    from lipdub.faces.backend import Frame


def faces(
    video: Annotated[Path, typer.Argument(help="The video to search, or a picture.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Contact sheet with a picture of each face, .png or .jpg.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="The same as a self-contained HTML page with ids and a timeline.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="Start of the searched range, in seconds or [h:]mm:ss.")] = None,
    end: Annotated[str | None, typer.Option(help="End of the searched range.")] = None,
    device: Device = "auto",
    detector: Annotated[
        str,
        typer.Option(
            help="Face detector: builtin, face-alignment (untested with its real landmark weights), or "
            "face-alignment:DETECTOR."
        ),
    ] = "builtin",
    set_: Set = None,
    overwrite: Overwrite = False,
    json_: Json = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="The table only.")] = False,
) -> None:
    """List the people in VIDEO, for `lipdub sync --face id:N`.

    A row is one person in one shot. A person who returns in a later shot, seen from the same side and in the same
    light, keeps the id; otherwise they get a new one, and id:N,M dubs both. Rarely two people share an id by mistake:
    x,y@t tells them apart. SIZE is the mean of the larger side of the face, USABLE the share of the frames in which it
    is clear and large enough to be dubbed. Ids are the same for any --start and --end, but may differ with another
    --detector or --set.
    """
    start_s, end_s = parse_range(start, end)

    with imports():
        from lipdub.config import load_config
        from lipdub.dub.face_list import list_faces
        from lipdub.media.atomic import AtomicOutput

    config = load_config(None, set_ or ())
    if html is not None:
        AtomicOutput(html, overwrite=overwrite, inputs=(video,)).check()  # refuses before the long work
    pictures: list[Frame] = []
    with console.progress(json_lines=json_, quiet=quiet) as on_event:
        report = list_faces(
            video,
            output,
            detector=detector,
            device=device,
            start_s=start_s,
            end_s=end_s,
            overwrite=overwrite,
            config=config,
            on_event=on_event,
            on_pictures=pictures.extend,
        )
    if html is not None:
        from lipdub.html.page import faces_page, write_page

        write_page(html, faces_page(report, pictures), overwrite=overwrite)
    if not json_:
        show_faces(report.faces)
        if not quiet:
            console.say("dub one of them with: lipdub sync ... --face id:N")
