"""`lipdub sync`: the main job."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lipdub.cli import settings
from lipdub.cli.arguments import check_language, parse_face, parse_length, parse_range
from lipdub.cli.command import files_of, imports
from lipdub.cli.dubbing import Show, dub, plan
from lipdub.cli.streams import DASH, film_to, sound_from


class OriginalAudio(StrEnum):
    """What becomes of the sound that the video had."""

    keep = "keep"
    drop = "drop"


class Length(StrEnum):
    """How long the film is."""

    video = "video"
    audio = "audio"
    shortest = "shortest"


class Extend(StrEnum):
    """What is seen behind the video's last picture."""

    freeze = "freeze"
    bounce = "bounce"
    loop = "loop"


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


WHOM, HOW, FILE, LOOK, RUN = "Whom and when", "How the mouth is made", "The file", "See and check", "This run"
WEIGHTS = {Model.lipdub: "generator", Model.wav2lip: "wav2lip-gan"}  # weights of each; their kind decides what runs


def sync(
    ctx: typer.Context,
    video: Annotated[Path, typer.Argument(help="The video whose speaker gets new lips.")],
    audio: Annotated[Path, typer.Argument(help="The new speech track, any format; - reads it from stdin.")],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="Where the dubbed video goes; its ending chooses the container; - pours MP4 into stdout.",
            rich_help_panel=FILE,
        ),
    ],
    drive_audio: Annotated[
        Path | None,
        typer.Option(
            help="A clean voice that moves the lips; AUDIO, a mix with music or noise, is what is heard.",
            rich_help_panel=WHOM,
        ),
    ] = None,
    face: Annotated[
        str,
        typer.Option(
            help="Whom to dub: largest (in each shot), all, speaking (whose mouth fits the video's own sound), x,y (a "
            "point on the face, in pixels), x,y@t (who is there at that time), or id:N or id:N,M (as `lipdub faces` "
            "lists them).",
            rich_help_panel=WHOM,
        ),
    ] = "largest",
    speakers: Annotated[
        Path | None,
        typer.Option(
            help="Several voices: a TOML file that says which sound drives whom and when, or an RTTM diarization of "
            "AUDIO. AUDIO is what is heard.",
            rich_help_panel=WHOM,
        ),
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Dub only from here, seconds or [h:]mm:ss.", rich_help_panel=WHOM)
    ] = None,
    end: Annotated[
        str | None, typer.Option(help="Dub only to here; the rest passes through untouched.", rich_help_panel=WHOM)
    ] = None,
    quality: Annotated[
        settings.Quality | None,
        typer.Option(
            help="Time against picture, several numbers at once (default balanced); `lipdub config show --quality "
            "best` lists them. Where --set or another option says otherwise, that counts.",
            rich_help_panel=HOW,
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=3.0,
            help="How far the mouth moves: 1, the default, is as far as the person's own in the video.",
            rich_help_panel=HOW,
        ),
    ] = None,
    mask_feather: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=0.3,
            help="Softness of the new mouth's edge, as a share of the face (default 0.06).",
            rich_help_panel=HOW,
        ),
    ] = None,
    detector: Annotated[
        str,
        typer.Option(
            help="Face detector: builtin, face-alignment, or face-alignment:DETECTOR.",
            rich_help_panel=HOW,
        ),
    ] = "builtin",
    model: Annotated[
        Model,
        typer.Option(
            help="lipdub, or wav2lip: to compare with; its weights prohibit commercial use.", rich_help_panel=HOW
        ),
    ] = Model.lipdub,
    weights: Annotated[
        str | None,
        typer.Option(
            help="The model's weights: a name of `lipdub weights list` or a file (default: generator).",
            rich_help_panel=HOW,
        ),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=51,
            help="Quality on the encoder's own scale; lower is better (default 18 for h264, 20 hevc, 24 vp9 and av1).",
            rich_help_panel=FILE,
        ),
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option(
            help="h264, hevc, vp9, av1 or prores, or a hardware encoder's own name, as h264_nvenc; the default follows "
            "the source.",
            rich_help_panel=FILE,
        ),
    ] = None,
    lossless: Annotated[
        bool,
        typer.Option(
            "--lossless",
            help="Encode without any loss (h264, hevc, vp9): large, for further editing.",
            rich_help_panel=FILE,
        ),
    ] = False,
    preset: Annotated[
        Preset | None,
        typer.Option(
            help="Speed of x264 and x265; slower makes smaller files (default medium).",
            rich_help_panel=FILE,
        ),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            help="Language tag of the new track: uk, uk-UA, ukr; the default is the dub's own.", rich_help_panel=FILE
        ),
    ] = None,
    original_audio: Annotated[
        OriginalAudio,
        typer.Option(
            help="Keep the old sound as further tracks, or drop it.",
            rich_help_panel=FILE,
        ),
    ] = OriginalAudio.keep,
    drop_original_audio: Annotated[bool, typer.Option("--drop-original-audio", hidden=True)] = False,
    length: Annotated[
        Length,
        typer.Option(
            help="How long the film is: as the video (a longer dub is cut), as the dub (the picture goes on, or ends "
            "with it), or as the shorter of both.",
            rich_help_panel=FILE,
        ),
    ] = Length.video,
    extend: Annotated[
        Extend,
        typer.Option(
            help="With --length audio, what is seen behind the video's end: its last picture, the film to and fro, or "
            "the film again; the mouth speaks on.",
            rich_help_panel=FILE,
        ),
    ] = Extend.freeze,
    label: Annotated[
        bool,
        typer.Option(
            "--label",
            help="Write a caption into a corner of every picture: AI-dubbed.",
            rich_help_panel=FILE,
        ),
    ] = False,
    label_text: Annotated[
        str | None,
        typer.Option(help="The same with these words, in your viewers' language.", rich_help_panel=FILE),
    ] = None,
    c2pa_cert: Annotated[
        Path | None,
        typer.Option(
            help="Sign the output with Content Credentials (C2PA): the certificate chain, PEM. Needs the extra c2pa.",
            rich_help_panel=FILE,
        ),
    ] = None,
    c2pa_key: Annotated[
        Path | None, typer.Option(help="The private key of --c2pa-cert, PEM.", rich_help_panel=FILE)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="section.key=value",
            help="Change any number of config.py; may be repeated.",
            rich_help_panel=HOW,
        ),
    ] = None,
    preview: Annotated[
        str | None,
        typer.Option(
            metavar="SECONDS",
            help="Dub only so much, from --start or the middle, as a short film: 5s.",
            rich_help_panel=LOOK,
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            help="Write source and dub side by side, over the sound, to this .mp4.",
            rich_help_panel=LOOK,
        ),
    ] = None,
    debug_overlay: Annotated[
        Path | None,
        typer.Option(
            help="Write the dub with faces, landmarks, masks and reasons drawn in to this .mp4.", rich_help_panel=LOOK
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Judge the result and write an HTML page: per shot and face what was done and how it fits.",
            rich_help_panel=LOOK,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Find faces and say what would be done, how long it takes, how large it gets.",
            rich_help_panel=LOOK,
        ),
    ] = False,
    device: Annotated[
        str, typer.Option(help="auto (the fastest there is), cpu, cuda, cuda:N or mps.", rich_help_panel=RUN)
    ] = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Faces per call of the network (default 16); it is halved where memory does not do.",
            rich_help_panel=RUN,
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit code 10 where there were warnings.",
            rich_help_panel=RUN,
        ),
    ] = False,
    no_cache: Annotated[
        bool,
        typer.Option(
            "--no-cache", help="Look for faces anew, and keep nothing; see `lipdub cache`.", rich_help_panel=RUN
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("-y", "--overwrite", help="Replace an existing output.", rich_help_panel=FILE)
    ] = False,
    json_: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Events as JSON lines on stdout.",
            rich_help_panel=RUN,
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Only warnings and errors.", rich_help_panel=RUN)
    ] = False,
) -> None:
    """Dub VIDEO with AUDIO: same frames, same file, new lips.

    Frames without a usable face pass through untouched; nothing is shortened or shifted.
    """
    start_s, end_s = parse_range(start, end)
    check_language(language)
    preview_s = parse_length(preview, "--preview")
    if lossless and crf is not None:
        raise typer.BadParameter("--lossless has no quality to choose", param_hint="--crf")
    if output == DASH:
        _check_pipe(room=not (json_ or dry_run or report is not None), signed=bool(c2pa_cert or c2pa_key))
    if dry_run and preview_s is not None:
        raise typer.BadParameter("a preview is made, not planned", param_hint="--dry-run")
    where = parse_face(face)
    with imports():
        from lipdub.dub import SyncOptions
        from lipdub.faces.selection import read_speakers
        from lipdub.media.caption import CAPTION

    config = settings.config_of(files_of(ctx), set_ or (), quality)
    options = SyncOptions(
        device=device,
        batch_size=batch_size,
        drive_audio=drive_audio,
        face=where,
        speakers=read_speakers(speakers) if speakers is not None else (),
        start_s=start_s,
        end_s=end_s,
        overwrite=overwrite,
        detector=detector,
        generator=weights or WEIGHTS[model],
        strength=strength,
        keep_original_audio=original_audio is OriginalAudio.keep and not drop_original_audio,
        language=language,
        length=length.value,
        extend=extend.value,
        c2pa_cert=c2pa_cert,
        c2pa_key=c2pa_key,
        label=CAPTION if label and label_text is None else label_text,
        crf=crf,
        codec=codec,
        lossless=lossless,
        preset=None if preset is None else preset.value,
        cache=not no_cache,
        feather=mask_feather,
        compare=compare,
        overlay=debug_overlay,
    )
    show = Show(json_=json_, quiet=quiet, strict=strict, piped=output == DASH, quality=quality)
    with sound_from(audio) as sound, film_to(output) as film:
        if dry_run:
            plan(video, sound, film, options, config, show)
        else:
            dub(video, sound, film, options, config, show, preview_s=preview_s, page=report)


def _check_pipe(*, room: bool, signed: bool) -> None:
    """Usage error where stdout is to hold more than the film, or a film that piping would change."""
    if not room:
        raise typer.BadParameter("- leaves no room for --json, --dry-run or --report", param_hint="--output")
    if signed:
        raise typer.BadParameter("what is poured into a pipe cannot be signed", param_hint="--output")
