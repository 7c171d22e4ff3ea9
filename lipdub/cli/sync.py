"""`lipdub sync`: the main job."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from lipdub.cli import settings
from lipdub.cli.arguments import parse_length
from lipdub.cli.command import files_of, imports
from lipdub.cli.dubbing import Show, dub, plan
from lipdub.cli.generated import options_of, with_sync_options
from lipdub.cli.streams import DASH, film_to, sound_from
from lipdub.dub.options import GENERATION, INSPECTION, OUTPUT, RUNTIME


class Model(StrEnum):
    """Which network generates the mouths."""

    lipdub = "lipdub"
    wav2lip = "wav2lip"


WEIGHTS = {Model.lipdub: "generator", Model.wav2lip: "wav2lip-gan"}  # default weights of each; their kind decides


@with_sync_options
def sync(
    ctx: typer.Context,
    video: Annotated[Path, typer.Argument(help="The video to dub, or a picture of a face.")],
    audio: Annotated[Path, typer.Argument(help="The new speech track, any format; - reads it from stdin.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="The dubbed video; its suffix chooses the container; - writes MP4 to stdout.",
            rich_help_panel=OUTPUT,
        ),
    ],
    quality: Annotated[
        settings.Quality | None,
        typer.Option(
            help="Speed against quality, several settings at once (default balanced); `lipdub config show --quality "
            "best` lists them. --set and other options have priority.",
            rich_help_panel=GENERATION,
        ),
    ] = None,
    model: Annotated[
        Model,
        typer.Option(
            help="lipdub, or wav2lip for comparison; its weights prohibit commercial use.", rich_help_panel=GENERATION
        ),
    ] = Model.lipdub,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="section.key=value",
            help="Change any setting of config.py; may be repeated.",
            rich_help_panel=GENERATION,
        ),
    ] = None,
    drop_original_audio: Annotated[bool, typer.Option("--drop-original-audio", hidden=True)] = False,
    label: Annotated[
        bool,
        typer.Option("--label", help="Caption in a corner of every frame: AI-dubbed.", rich_help_panel=OUTPUT),
    ] = False,
    preview: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS",
            help="Dub only this much, from --start or the middle, as a short video: 5s.",
            rich_help_panel=INSPECTION,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Check the result and write an HTML page: what was done per shot and face, and how well it fits.",
            rich_help_panel=INSPECTION,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Find the faces and print what would be done, with estimates of time and size.",
            rich_help_panel=INSPECTION,
        ),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 10 if there were warnings.", rich_help_panel=RUNTIME)
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Events as JSON lines on stdout.", rich_help_panel=RUNTIME)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Only warnings and errors.", rich_help_panel=RUNTIME)
    ] = False,
    **written: Any,
) -> None:
    """Dub VIDEO with AUDIO: the same frames and streams, with new lips.

    Frames without a usable face stay unchanged; nothing is shortened or shifted.
    """
    preview_s = parse_length(preview, "--preview")
    if output == DASH:
        signed = written["c2pa_cert"] or written["c2pa_key"]
        _check_pipe(room=not (json_ or dry_run or report is not None), signed=bool(signed))
    if dry_run and preview_s is not None:
        raise typer.BadParameter("--preview and --dry-run exclude each other", param_hint="--dry-run")
    if drop_original_audio:
        written["original_audio"] = "drop"
    with imports():
        from lipdub.media.caption import CAPTION

    written["label_text"] = written["label_text"] or (CAPTION if label else None)
    written["weights"] = written["weights"] or WEIGHTS[model]
    options = options_of(written)
    config = settings.config_of(files_of(ctx), set_ or (), quality)
    show = Show(json_=json_, quiet=quiet, strict=strict, piped=output == DASH, quality=quality)
    with sound_from(audio) as sound, film_to(output, config.media) as film:
        if dry_run:
            plan(video, sound, film, options, config, show)
        else:
            dub(video, sound, film, options, config, show, preview_s=preview_s, page=report)


def _check_pipe(*, room: bool, signed: bool) -> None:
    """Usage error where stdout is to hold more than the video, or a video that cannot be signed."""
    if not room:
        raise typer.BadParameter("- cannot be combined with --json, --dry-run or --report", param_hint="--output")
    if signed:
        raise typer.BadParameter("output written to a pipe cannot be signed", param_hint="--output")
