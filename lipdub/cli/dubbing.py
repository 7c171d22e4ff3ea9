"""Dry run, dub and report of `lipdub sync`, after its options are parsed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lipdub.cli import console
from lipdub.cli.results import clock, show_plan, show_report
from lipdub.cli.settings import Quality
from lipdub.errors import NoFaceError, StrictError

if TYPE_CHECKING:
    from lipdub.config import Config
    from lipdub.dub import SyncOptions, SyncReport


@dataclass(frozen=True, kw_only=True)
class Show:
    """Output mode of a job, and what counts as a failure."""

    json_: bool
    quiet: bool
    strict: bool
    piped: bool  # the film goes on to stdout
    quality: Quality | None = None  # whose numbers a plan spells out

    def judge(self, warnings: Sequence[str]) -> None:
        """An error where warnings count as one."""
        if self.strict and warnings:
            raise StrictError(f"finished, but with {len(warnings)} warnings", f"the first: {warnings[0]}")


def plan(video: Path, audio: Path, output: Path, options: SyncOptions, config: Config, show: Show) -> None:
    """Print the dry run."""
    from lipdub.dub import plan_sync

    with console.progress(json_lines=show.json_, quiet=show.quiet) as on_event:
        found = plan_sync(video, audio, output, options, config=config, on_event=on_event)
        show.judge(found.warnings)
    if not show.json_:
        show_plan(found)
        if show.quality is not None:
            console.data(f"{'quality':8} {show.quality}: {show.quality.told}")


def dub(
    video: Path,
    audio: Path,
    output: Path,
    options: SyncOptions,
    config: Config,
    show: Show,
    *,
    preview_s: float | None,
    page: Path | None,
) -> None:
    """Dub, or make a preview, and print the report.

    Args:
        video: the source.
        audio: the dub.
        output: the finished film.
        options: what to do.
        config: numbers behind it.
        show: how it is told of.
        preview_s: only so many seconds of it.
        page: where the page of --report goes.

    Raises:
        StrictError: there were warnings, and they count.
        LipdubError: see `sync_video`.
    """
    from lipdub.dub import excerpt, filmed, sync_video
    from lipdub.media.atomic import AtomicOutput

    if page is not None:
        AtomicOutput(page, overwrite=options.overwrite, inputs=(video, audio, output)).check()
    with ExitStack() as stack:
        if preview_s is not None:
            video, options = stack.enter_context(filmed(video, audio, options, config))
            video, audio, options = stack.enter_context(excerpt(video, audio, options, preview_s, config.media))
        on_event = stack.enter_context(console.progress(json_lines=show.json_, quiet=show.quiet))
        done = sync_video(video, audio, output, options, config=config, on_event=on_event)
        show.judge(done.warnings)
    if not show.json_ and not show.quiet:
        show_report(replace(done, output="stdout") if show.piped else done)
    if page is not None:
        _judge(page, done, options, config, quiet=show.quiet or show.json_)


def _judge(page: Path, done: SyncReport, options: SyncOptions, config: Config, *, quiet: bool) -> None:
    """Look at the finished dub and write the page of --report."""
    from lipdub.evaluation.quality import check
    from lipdub.html.page import quality_page, write_page

    try:
        with console.progress(quiet=quiet) as on_event:
            quality = check(
                Path(done.output),
                config,
                segments=done.segments,
                device=options.device,
                on_event=on_event,
            )
    except NoFaceError as error:  # found in the source, not in the dub: the dub is there all the same
        console.warn(f"{page} was not written: {error.what}")
        return
    write_page(page, quality_page(quality, done), overwrite=options.overwrite)
    if quality.report.lost:
        console.warn(f"{quality.report.lost} segments were dubbed in which no face is found any more")
    for segment in quality.report.segments:
        for fault in segment.faults:
            console.warn(f"{clock(segment.first_s)} to {clock(segment.last_s)}, face {segment.face}: {fault}")
