"""`lipdub sync`: the main job, its dry run, preview and page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lipdub.cli import console, settings
from lipdub.cli.arguments import DASH, audio_path, option, options_of, output_path, parse_length, with_options
from lipdub.cli.command import files_of, imports
from lipdub.cli.results import show_plan, show_report
from lipdub.dub.options import GENERATION, INSPECTION, OPTIONS, OUTPUT, RUNTIME
from lipdub.errors import NoFaceError, StrictError
from lipdub.events import clock

if TYPE_CHECKING:
    from lipdub.config import Config
    from lipdub.dub.options import SyncOptions
    from lipdub.dub.report import SyncReport


class Model(StrEnum):
    """Which network generates the mouths."""

    lipdub = "lipdub"
    wav2lip = "wav2lip"


WEIGHTS = {Model.lipdub: "generator", Model.wav2lip: "wav2lip-gan"}  # default weights of each; their kind decides


VIDEO = typer.Argument(help="The video to dub, or a picture of a face.")
AUDIO = typer.Argument(help="The new speech track, any format; - reads it from stdin.")
TARGET = option(
    "-o",
    "--output",
    panel=OUTPUT,
    help="The dubbed video; its suffix chooses the container; - writes MP4 to stdout.",
)
QUALITY = option(
    panel=GENERATION,
    help="Speed against quality, several settings at once (default balanced); `lipdub config show --quality best` "
    "lists them. --set and other options have priority.",
)
MODEL = option(
    panel=GENERATION,
    help="lipdub, or wav2lip to compare with: untested with its real weights, which prohibit commercial use.",
)
SET = option(
    "--set",
    panel=GENERATION,
    help="Change any setting of config.py; may be repeated.",
    metavar="section.key=value",
)
LABEL = option("--label", panel=OUTPUT, help="Caption in a corner of every frame: AI-dubbed.")
PREVIEW = option(
    panel=INSPECTION,
    help="Dub only this much, from --start or the middle, as a short video: 5s.",
    metavar="SECONDS",
)
REPORT = option(
    panel=INSPECTION,
    help="Check the result and write an HTML page: what was done per shot and face, and how well it fits.",
)
DRY_RUN = option(
    "--dry-run",
    panel=INSPECTION,
    help="Find the faces and print what would be done, with estimates of time and size.",
)
STRICT = option("--strict", panel=RUNTIME, help="Exit code 10 if there were warnings.")
JSON = option("--json", panel=RUNTIME, help="Events as JSON lines on stdout.")
QUIET = option("-q", "--quiet", panel=RUNTIME, help="Only warnings and errors.")


@with_options(OPTIONS.values())
def sync(
    ctx: typer.Context,
    video: Annotated[Path, VIDEO],
    audio: Annotated[Path, AUDIO],
    output: Annotated[Path, TARGET],
    quality: Annotated[settings.Quality | None, QUALITY] = None,
    model: Annotated[Model, MODEL] = Model.lipdub,
    set_: Annotated[list[str] | None, SET] = None,
    label: Annotated[bool, LABEL] = False,
    preview: Annotated[str | None, PREVIEW] = None,
    report: Annotated[Path | None, REPORT] = None,
    dry_run: Annotated[bool, DRY_RUN] = False,
    strict: Annotated[bool, STRICT] = False,
    json_: Annotated[bool, JSON] = False,
    quiet: Annotated[bool, QUIET] = False,
    **written: Any,
) -> None:
    """Dub VIDEO with AUDIO: the same frames and streams, with lips that match the new speech.

    Frames without a usable face stay unchanged; unless you ask for it, nothing is shortened or shifted.
    """
    preview_s = parse_length(preview, "--preview")
    if output == DASH:
        signed = written["c2pa_cert"] or written["c2pa_key"]
        _check_pipe(room=not (json_ or dry_run or report is not None), signed=bool(signed))
    if dry_run and preview_s is not None:
        raise typer.BadParameter("--preview and --dry-run exclude each other", param_hint="--dry-run")
    with imports():
        from lipdub.dub.report import SyncPlan
        from lipdub.dub.sync import plan_sync, sync_video
        from lipdub.media.atomic import AtomicOutput
        from lipdub.media.caption import CAPTION

    written["label_text"] = written["label_text"] or (CAPTION if label else None)
    written["weights"] = written["weights"] or WEIGHTS[model]
    options = options_of(written)
    config = settings.config_of(files_of(ctx), set_ or (), quality)
    with audio_path(audio) as speech, output_path(output, config.media) as target:
        if report is not None:
            others = [each for each in (target, options.compare, options.overlay) if each is not None]
            AtomicOutput(report, overwrite=options.overwrite, inputs=(video, speech), others=others).check()
        with (
            _excerpt(video, speech, options, config, preview_s) as (source, speech, options),
            console.progress(json_lines=json_, quiet=quiet) as on_event,
        ):
            job = plan_sync if dry_run else sync_video
            outcome = job(source, speech, target, options, config=config, on_event=on_event)
            if strict and outcome.warnings:
                what = f"finished, but with {len(outcome.warnings)} warning{'s' * (len(outcome.warnings) > 1)}"
                raise StrictError(what, f"the first: {outcome.warnings[0]}")
    if isinstance(outcome, SyncPlan):
        if not json_:
            show_plan(outcome)
            if quality is not None:
                console.data(f"{'quality':8} {quality}: {quality.overrides}")
        return
    if not json_ and not quiet:
        show_report(replace(outcome, output="stdout") if output == DASH else outcome)
    if report is not None:
        _write_page(report, outcome, options, config, quiet=quiet or json_)


def _check_pipe(*, room: bool, signed: bool) -> None:
    """Usage error where stdout is to hold more than the video, or a video that cannot be signed."""
    if not room:
        raise typer.BadParameter("- cannot be combined with --json, --dry-run or --report", param_hint="--output")
    if signed:
        raise typer.BadParameter("output written to a pipe cannot be signed", param_hint="--output")


@contextmanager
def _excerpt(
    video: Path, audio: Path, options: SyncOptions, config: Config, seconds: float | None
) -> Iterator[tuple[Path, Path, SyncOptions]]:
    """Video, speech track and options of the whole job, or of a few seconds of it."""
    if seconds is None:
        yield video, audio, options
        return
    from lipdub.dub.preview import excerpt
    from lipdub.dub.still import filmed

    with (
        filmed(video, audio, options, config, lambda _, text: console.warn(text)) as (film, options),
        excerpt(film, audio, options, seconds, config.media) as piece,
    ):
        yield piece


def _write_page(page: Path, report: SyncReport, options: SyncOptions, config: Config, *, quiet: bool) -> None:
    """Check the finished dub and write the page of --report."""
    from lipdub.evaluation.quality import check
    from lipdub.html.page import quality_page, write_page

    try:
        with console.progress(quiet=quiet) as on_event:
            quality = check(
                Path(report.output), config, segments=report.segments, device=options.device, on_event=on_event
            )
    except NoFaceError as error:  # there was one in the source; the dub is there all the same
        console.warn(f"{page} was not written: {error.what}")
        return
    write_page(page, quality_page(quality, report), overwrite=options.overwrite)
    if quality.report.lost:
        console.warn(f"{quality.report.lost} segments were dubbed in which no face is found any more")
    for segment in quality.report.segments:
        for fault in segment.faults:
            console.warn(f"{clock(segment.first_s)} to {clock(segment.last_s)}, face {segment.face}: {fault}")
