"""`lipdub sync`: the main job."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lipdub.cli import console
from lipdub.cli.results import clock, show_plan, show_report
from lipdub.errors import InputError, NoFaceError

if TYPE_CHECKING:
    from lipdub.config import Config
    from lipdub.pipeline import SyncOptions, SyncReport


class OriginalAudio(StrEnum):
    """What becomes of the sound that the video had."""

    keep = "keep"
    drop = "drop"


class Preset(StrEnum):
    """Speed of x264 and x265."""

    ultrafast = "ultrafast"
    superfast = "superfast"
    veryfast = "veryfast"
    faster = "faster"
    fast = "fast"
    medium = "medium"
    slow = "slow"
    slower = "slower"
    veryslow = "veryslow"


class Model(StrEnum):
    """Which network paints the mouths."""

    lipdub = "lipdub"
    wav2lip = "wav2lip"


WEIGHTS = {Model.lipdub: "generator", Model.wav2lip: "wav2lip-gan"}  # weights of each; their kind decides what runs


def sync(
    video: Annotated[Path, typer.Argument(help="The video whose speaker gets new lips.")],
    audio: Annotated[Path, typer.Argument(help="The new speech track, any format.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Where the dubbed video goes; its ending chooses the container.")
    ],
    face: Annotated[
        str,
        typer.Option(
            help="Whom to dub: largest (in each shot), all, x,y (a point on the face, in pixels), or id:N or id:N,M "
            "(as `lipdub faces` lists them)."
        ),
    ] = "largest",
    start: Annotated[str | None, typer.Option(help="Dub only from here, seconds or [h:]mm:ss.")] = None,
    end: Annotated[str | None, typer.Option(help="Dub only to here; the rest passes through untouched.")] = None,
    device: Annotated[str, typer.Option(help="auto (the fastest there is), cpu, cuda, cuda:N or mps.")] = "auto",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Faces per generator call.")] = None,
    strength: Annotated[
        float | None, typer.Option(min=0.0, max=3.0, help="How far the mouth moves (default 2.5).")
    ] = None,
    faces: Annotated[
        str, typer.Option(help="Face finder: builtin, face-alignment, or face-alignment:DETECTOR.")
    ] = "builtin",
    model: Annotated[
        Model, typer.Option(help="lipdub, or wav2lip: to compare with; its weights prohibit commercial use.")
    ] = Model.lipdub,
    weights: Annotated[
        str | None,
        typer.Option(help="The model's weights: a name of `lipdub weights list` or a file (default: generator)."),
    ] = None,
    crf: Annotated[
        int | None, typer.Option(min=0, max=51, help="Quality on the encoder's own scale; lower is better.")
    ] = None,
    codec: Annotated[
        str | None, typer.Option(help="h264, hevc, vp9, av1 or prores; the default follows the source.")
    ] = None,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Encode without any loss (h264, hevc, vp9): large, for further editing.")
    ] = False,
    preset: Annotated[Preset | None, typer.Option(help="Speed of x264 and x265; slower makes smaller files.")] = None,
    language: Annotated[
        str | None, typer.Option(help="Language tag of the new track: uk, uk-UA, ukr; the default is the dub's own.")
    ] = None,
    original_audio: Annotated[
        OriginalAudio, typer.Option(help="keep the old sound as further tracks, or drop it.")
    ] = OriginalAudio.keep,
    drop_original_audio: Annotated[bool, typer.Option("--drop-original-audio", hidden=True)] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="section.key=value", help="Change any number of config.py; may be repeated."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Judge the result and write an HTML page: per shot and face what was done and how it fits."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Find faces and say what would be done, how long it takes, how large it gets."),
    ] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Look for faces anew, and keep nothing; see `lipdub cache`.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("-y", "--overwrite", help="Replace an existing output.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Events as JSON lines on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only warnings and errors.")] = False,
) -> None:
    """Dub VIDEO with AUDIO: same frames, same file, new lips.

    Frames without a usable face pass through untouched; nothing is shortened or shifted.
    """
    where = parse_face(face)
    start_s, end_s = parse_range(start, end)
    check_language(language)

    from lipdub.config import load_config
    from lipdub.media.output import AtomicOutput
    from lipdub.pipeline import SyncOptions, plan_sync, sync_video

    if lossless and crf is not None:
        raise typer.BadParameter("--lossless has no quality to choose", param_hint="--crf")
    config = load_config(None, set_ or ())
    options = SyncOptions(
        device=device,
        batch_size=batch_size,
        face=where,
        start_s=start_s,
        end_s=end_s,
        overwrite=overwrite,
        backend=faces,
        generator=weights or WEIGHTS[model],
        strength=strength,
        keep_original_audio=original_audio is OriginalAudio.keep and not drop_original_audio,
        language=language,
        crf=crf,
        codec=codec,
        lossless=lossless,
        preset=None if preset is None else preset.value,
        cache=not no_cache,
    )
    if report is not None:
        AtomicOutput(report, overwrite=overwrite, inputs=(video, audio, output)).check()
    with console.progress(json_lines=json_, quiet=quiet) as on_event:
        if dry_run:
            plan = plan_sync(video, audio, output, options, config=config, on_event=on_event)
        else:
            done = sync_video(video, audio, output, options, config=config, on_event=on_event)
    if dry_run and not json_:
        show_plan(plan)
    elif not dry_run and not json_ and not quiet:
        show_report(done)
    if report is not None and not dry_run:
        _judge(report, done, options, config, quiet=quiet or json_)


def _judge(page: Path, done: SyncReport, options: SyncOptions, config: Config, *, quiet: bool) -> None:
    """Look at the finished dub and write the page of --report."""
    from lipdub.evaluation.page import quality_page, write_page
    from lipdub.evaluation.quality import check

    try:
        with console.progress(quiet=quiet) as on_event:
            quality = check(
                Path(done.output),
                config,
                face=options.face,
                start_s=options.start_s,
                end_s=options.end_s,
                device=options.device,
                on_event=on_event,
            )
    except NoFaceError as error:  # found in the source, not in the dub: the dub is there all the same
        console.warn(f"{page} was not written: {error.what}")
        return
    write_page(page, quality_page(quality, done), overwrite=options.overwrite)
    for segment in quality.report.segments:
        for fault in segment.faults:
            console.warn(f"{clock(segment.first_s)} to {clock(segment.last_s)}, face {segment.face}: {fault}")


def parse_face(text: str) -> str | tuple[float, float]:
    """`largest`, `all`, `id:N,...` (a plain number is an id, too), or a point; usage error otherwise."""
    if text in ("largest", "all") or re.fullmatch(r"id:\d+(,\d+)*", text):
        return text
    if re.fullmatch(r"\d+", text):
        return f"id:{text}"
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*,\s*(\d+(?:\.\d+)?)\s*", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is none of largest, all, x,y, id:N", param_hint="--face")
    return float(match[1]), float(match[2])


def check_language(tag: str | None) -> None:
    """Usage error where `--language` is no language."""
    if tag is None:
        return
    from lipdub.media.language import language_code

    try:
        language_code(tag)
    except InputError as error:
        raise typer.BadParameter(f"{error.what}; {error.remedy}", param_hint="--language") from error


def parse_range(start: str | None, end: str | None) -> tuple[float | None, float | None]:
    """Seconds of `--start` and `--end`; usage error where they make no range."""
    start_s, end_s = parse_time(start, "--start"), parse_time(end, "--end")
    if end_s is not None and end_s <= (start_s or 0.0):
        raise typer.BadParameter(f"{end!r} does not come after the start", param_hint="--end")
    return start_s, end_s


def parse_time(text: str | None, option: str) -> float | None:
    """Seconds from `12.5`, `1:02.5` or `1:00:02`; usage error otherwise."""
    if text is None:
        return None
    match = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d+)?)", text.strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no time; use seconds, mm:ss or h:mm:ss", param_hint=option)
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds
