"""`lipdub eval`: evaluation of weights on real clips, and of single finished videos."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lipdub.cli import console
from lipdub.cli.arguments import option, with_options
from lipdub.cli.results import show_quality
from lipdub.errors import InputError, OutputError, StrictError
from lipdub.evaluation.options import CLIPS, DUBS, MEASURES, OPTIONS, OUTPUT, RUNTIME, EvalOptions
from lipdub.options import values_of

if TYPE_CHECKING:
    from lipdub.evaluation.quality import Quality
    from lipdub.evaluation.report import EvalReport


class Pairing(StrEnum):
    """Which audio a picture gets."""

    own = "own"
    other = "other"
    speaker = "speaker"


class Table(StrEnum):
    """Tables of the thesis."""

    ablation = "4.1"


SOURCE = typer.Argument(
    help="Folder of real talking-face videos with their own audio, or one finished video to check, or with --audio the "
    "video that was dubbed; by default the footage that --dataset was prepared from."
)
AUDIO = option(panel=CLIPS, help="The speech track, to judge dubs of one video: those of --videos and of --weights.")
PAIRING = option(
    panel=CLIPS,
    help="Which audio: own, other (of the same speaker), speaker (another's); may be repeated (default: all).",
)
WEIGHTS = option(
    panel=DUBS,
    help="Generator weights to judge, one row each; may be repeated (default: generator). Those of Wav2Lip are "
    "untested: their real file was not available.",
)
VIDEOS = option(
    panel=DUBS,
    metavar="[NAME=]PATH",
    help="Finished videos of another tool, one more row: a folder of files with the names in OUTPUT/pairs.tsv, or with "
    "--audio the file; may be repeated.",
)
PAIRS_ONLY = option("--pairs-only", panel=DUBS, help="Only write OUTPUT/pairs.tsv: what another tool has to dub.")
TABLE = option(panel=DUBS, help="4.1: the thesis' table, from the runs in --runs that are rows of it.")
RUNS = option(panel=DUBS, help="Folder of runs of `lipdub train`; with --table.")
TARGET = option(
    "-o", "--output", panel=OUTPUT, help="Folder for the results of each clip, clips.jsonl (without CLIPS: judged)."
)
CSV = option(panel=OUTPUT, help="Write means, intervals and differences here.")
MARKDOWN = option(panel=OUTPUT, help="Write the table and its protocol here.")
SET = option(
    "--set", panel=MEASURES, help="Change any setting of config.py; may be repeated.", metavar="section.key=value"
)
STRICT = option("--strict", panel=RUNTIME, help="Exit code 10 if a clip failed, or a finished video has a fault.")
JSON = option("--json", panel=RUNTIME, help="Events as JSON lines on stdout, the last with the table.")
QUIET = option("-q", "--quiet", panel=RUNTIME, help="No progress.")


@with_options(OPTIONS.values())
def eval_(
    clips: Annotated[Path | None, SOURCE] = None,
    audio: Annotated[Path | None, AUDIO] = None,
    pairing: Annotated[list[Pairing] | None, PAIRING] = None,
    weights: Annotated[list[str] | None, WEIGHTS] = None,
    videos: Annotated[list[str] | None, VIDEOS] = None,
    pairs_only: Annotated[bool, PAIRS_ONLY] = False,
    table: Annotated[Table | None, TABLE] = None,
    runs: Annotated[Path | None, RUNS] = None,
    output: Annotated[Path | None, TARGET] = None,
    csv: Annotated[Path | None, CSV] = None,
    markdown: Annotated[Path | None, MARKDOWN] = None,
    set_: Annotated[list[str] | None, SET] = None,
    strict: Annotated[bool, STRICT] = False,
    json_: Annotated[bool, JSON] = False,
    quiet: Annotated[bool, QUIET] = False,
    **written: Any,
) -> None:
    """Judge dubs of real CLIPS, dubs of one video, or one finished video.

    CLIPS are dubbed, and the dubs judged by picture, sync and pauses, beside the real and the untouched videos. One
    file is checked by itself: offset, agreement, pauses, flicker and seam of each of its segments. A file with --audio
    is the source of dubs by several tools, which are judged beside each other.

    The judge of clips should be MediaPipe's face mesh, not a network that dubs: pip install "lipdub[teachers]", then
    lipdub weights pull yunet face-landmarker. Without these our own landmarks judge, and the table says so. A clip
    that cannot be dubbed or judged is counted as failed, with its reason.
    """
    from lipdub.config import load_config
    from lipdub.evaluation.evaluate import evaluate, list_pairs
    from lipdub.evaluation.pairs import footage_of
    from lipdub.evaluation.quality import check

    values = values_of(OPTIONS, written)
    html, overwrite = values.get("html"), written["overwrite"]
    _check_targets((csv, markdown, html), output, overwrite)
    config = load_config(None, set_ or ())
    if clips is None:
        dataset = values.setdefault("dataset", Path("dataset"))
        clips, output = footage_of(dataset), output or Path("judged")
    if not clips.exists():
        raise InputError(f"cannot open {clips}: no such file or folder", "check the path")
    if clips.is_file() and audio is None:
        if videos:
            reason = "dubs of one video are judged with --audio, their speech track"
            raise typer.BadParameter(reason, param_hint="--videos")
        with console.progress(json_lines=json_, quiet=quiet) as on_event:
            quality = check(clips, config, expert=values.get("expert"), device=written["device"], on_event=on_event)
        _show_check(quality, html, overwrite=overwrite, json_=json_, strict=strict)
        return
    if audio is not None and not clips.is_file():
        raise typer.BadParameter(f"it belongs to one video, and {clips} is not a file", param_hint="--audio")
    if (table is None) != (runs is None):
        raise typer.BadParameter("--table and --runs belong together", param_hint="--table")
    if output is None:
        raise typer.BadParameter("give a folder for the results: -o judged", param_hint="--output")
    options = EvalOptions(
        clips=clips,
        output=output,
        audio=audio,
        weights=tuple(weights or ([] if videos or runs else ["generator"])),
        videos=parse_videos(videos or [], files=audio is not None),
        runs=runs,
        pairings=tuple(one.value for one in dict.fromkeys(pairing or Pairing)),
        **values,
    )
    if pairs_only:
        console.data(str(list_pairs(options)))
        return
    with console.progress(json_lines=json_, quiet=quiet) as on_event:
        report = evaluate(options, config, on_event=on_event)
    if not json_:
        _show(report)
    _write(report, csv, markdown)
    if strict and report.failures:
        raise StrictError(f"{len(report.failures)} results failed", f"each with its reason in {report.verdicts}")


def _show_check(quality: Quality, html: Path | None, *, overwrite: bool, json_: bool, strict: bool) -> None:
    """Show and write what was found in one finished video."""
    from lipdub.html.page import quality_page, write_page

    if html is not None:
        write_page(html, quality_page(quality), overwrite=overwrite)
    if not json_:
        show_quality(quality.report)
    if strict and (n := quality.report.faults):
        what = f"{n} segment{'s' if n > 1 else ''} of {quality.report.video} with a fault"
        raise StrictError(what, "without --strict they are only reported")


def parse_videos(words: Sequence[str], *, files: bool = False) -> dict[str, Path]:
    """Rows by name of `NAME=PATH`, or of a path to a folder (of `files`: a file) that gives its row its own name.

    Raises:
        InputError: no such file or folder; a name given twice is a usage error.
    """
    videos: dict[str, Path] = {}
    for word in words:
        name, equals, rest = word.partition("=")
        path = Path(rest if equals else word)
        name = name if equals else (path.stem if files else path.resolve().name)
        if not name or name in videos:
            raise typer.BadParameter(f"{word!r}: every row needs a name of its own", param_hint="--videos")
        if not (path.is_file() if files else path.is_dir()):
            kind = "file" if files else "folder"
            raise InputError(f"no {kind} {path}", f"--videos NAME={kind.upper()}")
        videos[name] = path
    return videos


def _check_targets(paths: Iterable[Path | None], output: Path | None, overwrite: bool) -> None:
    """Before the long work: nothing is replaced unasked, and folders are there, or are the one that will be made."""
    for path in paths:
        if path is not None and path.exists() and not overwrite:
            raise OutputError(f"{path} exists", "choose another name, or -y to replace it")
        if path is not None and not path.parent.is_dir() and path.parent != output:
            raise OutputError(f"the folder {path.parent} does not exist", "create it first")


def _show(report: EvalReport) -> None:
    from lipdub.evaluation.report import blocks, failures, order_of

    for block in blocks(report):
        console.grid(block.title, block.header, block.rows)
        console.data("")
    for line in (*order_of(report), *report.protocol):
        console.data(line)
    for line in failures(report):
        console.warn(line)


def _write(report: EvalReport, csv: Path | None, markdown: Path | None) -> None:
    from lipdub.evaluation.report import as_csv
    from lipdub.evaluation.report import markdown as as_markdown

    for path, text in ((csv, as_csv), (markdown, as_markdown)):
        if path is None:
            continue
        try:
            path.write_text(text(report), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}", "choose another name") from error
