"""The main job and its dry run: open the job, track faces, plan the dub; then render and publish it, or estimate it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lipdub import __version__
from lipdub.config import Config
from lipdub.dub.analyze import DubPlan, FaceTracks, plan_faces, track_faces
from lipdub.dub.cache import AnalysisCache, FaceTracksRequest
from lipdub.dub.debug_overlay import Overlay
from lipdub.dub.estimate import estimate, measure_costs
from lipdub.dub.job import Job, open_job
from lipdub.dub.options import SyncOptions
from lipdub.dub.render import Rendered, Watch, render
from lipdub.dub.report import SyncPlan, SyncReport
from lipdub.dub.side_by_side import write_comparison
from lipdub.dub.still import filmed
from lipdub.events import Done, OnEvent, Plan, Reporter, ignore
from lipdub.faces.choose import detector_identity
from lipdub.media.atomic import AtomicOutput, verify
from lipdub.media.damage import damage_text
from lipdub.media.disclosure import disclosure_tags
from lipdub.media.kept import changes
from lipdub.media.mux import RemuxPlan, remux
from lipdub.media.writer import VideoWriter
from lipdub.weights import locate, sha256_of

UNCERTAIN = (
    "the active speaker is uncertain: the audio matches the mouths no better than at other offsets; check it, or "
    "name the faces with --face id:N"
)
TURNED = "a face at {:.2f} s lies or stands on its head and is left alone; turn the picture for it to be dubbed"


def sync_video(
    video: str | Path,
    audio: str | Path,
    output: str | Path,
    options: SyncOptions | None = None,
    *,
    config: Config | None = None,
    on_event: OnEvent = ignore,
) -> SyncReport:
    """Write `output`: `video` with lips that speak `audio`, and `audio` as its first audio track.

    Args:
        video: any file with a picture that FFmpeg reads, or a picture: see `still.filmed`.
        audio: any file with audio.
        output: must not exist, unless options.overwrite.
        options: None: the defaults.
        config: settings; sizes come from the generator's weights.
        on_event: receives stages, progress and warnings.

    Raises:
        LipdubError: one of its kinds, see errors.py; the output is then as it was before.
    """
    video, audio, output = Path(video), Path(audio), Path(output)
    options, config = options or SyncOptions(), config or Config()
    compared = ("compare",) if options.compare is not None else ()
    reporter = Reporter(on_event, ("read", "faces", "dub", "write", *compared))
    with ExitStack() as stack:
        outputs = _outputs(video, audio, output, options)
        target = stack.enter_context(outputs[output])
        compare, overlay = (
            path and stack.enter_context(outputs[path]).temporary for path in (options.compare, options.overlay)
        )
        video, options = stack.enter_context(filmed(video, audio, options, config, reporter.warn))
        with reporter.stage("read"):
            job = open_job(video, audio, target.path, options, config, target.scratch)
            writer = job.writer(target.scratch("picture.mov"))
        with writer:
            _, plan, cached = _plan(job, writer, reporter)
            with reporter.stage("dub", len(plan.times_s)), _debug_overlay(overlay, job, plan) as watch:
                rendered = render(
                    job.source,
                    plan,
                    job.runner(plan),
                    writer,
                    job.config,
                    on_frame=reporter.progress,
                    watch=watch,
                    caption=job.caption,
                    occlusions=job.networks.occlusions,
                )
        if rendered.lost:
            reporter.warn("generator", f"{rendered.lost} faces stay unchanged: the generator returned NaN or infinity")
        for damage in rendered.damage:
            reporter.warn("damage", damage_text(damage))
        if rendered.shape_change is not None:
            reporter.warn("stream", rendered.shape_change)
        with reporter.stage("write"):
            changed = publish(job, writer, target, reporter)
        if compare is not None:
            with reporter.stage("compare", rendered.frames):
                write_comparison(job.source, target.temporary, compare, on_frame=reporter.progress)
    report = _report(job, plan, rendered, reporter, cached=cached, changes=changed)
    on_event(Done(report))
    return report


def plan_sync(
    video: str | Path,
    audio: str | Path,
    output: str | Path,
    options: SyncOptions | None = None,
    *,
    config: Config | None = None,
    on_event: OnEvent = ignore,
) -> SyncPlan:
    """Plan and estimate of `sync_video` with the same arguments: faces are tracked, nothing is written.

    Raises:
        LipdubError: as `sync_video` would, as far as it can be known without the dub.
    """
    video, audio, output = Path(video), Path(audio), Path(output)
    options, config = options or SyncOptions(), config or Config()
    reporter = Reporter(on_event, ("read", "faces", "trial"))
    _outputs(video, audio, output, options)[output].check()
    with (
        TemporaryDirectory(prefix="lipdub-") as folder,
        filmed(video, audio, options, config, reporter.warn) as (video, options),
    ):
        with reporter.stage("read"):
            job = open_job(video, audio, output, options, config, Path(folder).joinpath)
            writers = job.writer(BytesIO()), job.writer(BytesIO())  # made now: they may refuse
        faces, plan, _ = _plan(job, writers[0], reporter, numbered=True)  # ids in the report may be given to --face
        with reporter.stage("trial"):
            costs = measure_costs(job, plan, writers)
        report = estimate(job, faces, plan, writers[0], costs, reporter)
    on_event(Plan(report))
    return report


def _outputs(video: Path, audio: Path, output: Path, options: SyncOptions) -> dict[Path, AtomicOutput]:
    """The files to write, by path: the dub, and what the options ask for beside it."""
    inputs = (video, audio, *options.audio_files)
    paths = [each for each in (output, options.compare, options.overlay) if each is not None]
    return {
        path: AtomicOutput(
            path, overwrite=options.overwrite, inputs=inputs, others=[*paths[:place], *paths[place + 1 :]]
        )
        for place, path in enumerate(paths)
    }


def _plan(
    job: Job, writer: VideoWriter, reporter: Reporter, *, numbered: bool = False
) -> tuple[FaceTracks, DubPlan, bool]:
    """The faces of the video, the plan of the dub, and whether the faces were in the cache.

    Raises:
        LipdubError: see `track_faces`, `plan_faces` and `Job.speaker_scores`.
    """
    for code, message in job.warnings(writer):
        reporter.warn(code, message)
    with reporter.stage("faces", job.source.n_frames):
        faces, cached = _tracks_of_job(job, reporter, numbered=numbered or job.options.numbered)
        plan = plan_faces(
            job.source,
            faces,
            job.config,
            face=job.options.face,
            speakers=job.options.speakers,
            score_speakers=job.speaker_scores,
            silent=[voice.gate_at(faces.times_s) == 0 for voice in job.voices] if job.options.only_speaking else None,
        )
        if not plan.speakers_certain:
            reporter.warn("speaking", UNCERTAIN)
        if faces.turned_s is not None:
            reporter.warn("turned", TURNED.format(faces.turned_s))
    return faces, plan, cached


def _tracks_of_job(job: Job, reporter: Reporter, *, numbered: bool) -> tuple[FaceTracks, bool]:
    """Tracks of all faces in the range, from the cache if they are there; and whether they were."""
    options = job.options
    span: dict[str, Any] = {"start_s": options.start_s, "end_s": options.end_s, "numbered": numbered}

    def track() -> FaceTracks:
        detector, occlusions = job.networks.detector, job.networks.occlusions
        return track_faces(job.source, detector, job.config, occlusions=occlusions, on_frame=reporter.progress, **span)

    if not options.cache:
        return track(), False
    request = FaceTracksRequest(
        video=job.source.path,
        detector=detector_identity(options.detector),
        device=job.networks.device.type,
        ending=job.source.ending,
        **span,
    )
    cache, key = AnalysisCache(max_mib=job.config.cache.max_mib), request.key(job.config)
    kept = cache.recall(key, lambda path: reporter.warn("cache", f"removed a damaged cache entry: {path}"))
    if kept is not None:
        reporter.progress(len(kept.times_s))
        return kept, True
    faces = track()
    cache.keep(key, faces)
    return faces, False


@contextmanager
def _debug_overlay(path: Path | None, job: Job, plan: DubPlan) -> Iterator[Watch | None]:
    """Callback that draws the debug overlay to `path`, if one is wanted."""
    if path is None:
        yield None
        return
    overlay = Overlay(path, job.source.video, plan.tracks, job.config.face)
    with overlay.writer:
        yield overlay.draw


def publish(job: Job, writer: VideoWriter, target: AtomicOutput, reporter: Reporter) -> list[str]:
    """Join the new picture, the speech track and the video's other streams, sign the file and read it back.

    Returns:
        Differences from the source, beside the mouths.

    Raises:
        OutputError, ResourceError, InputError, SetupError: see `remux`, `Signing` and `verify`.
    """
    source, options = job.source, job.options
    unsigned = target.temporary if job.signing is None else target.scratch(f"unsigned{target.temporary.suffix}")
    remux_plan = RemuxPlan(
        picture=writer.path,
        source=source.media,
        streams=job.streams,
        dub=job.audio,
        output=unsigned,
        language=options.language,
        metadata=disclosure_tags(__version__, sha256_of(locate(options.generator)), options.label),
        video_duration_s=writer.length_s if source.ending is not None else source.duration_s,
        cut=source.ending is not None,
    )
    for warning in remux(remux_plan, source.config):
        reporter.warn("stream", warning)
    if job.signing is not None:
        job.signing.sign(unsigned, target.temporary, job.video, __version__, target.path.name)
    verify(target.temporary, source.media, writer.n_frames, source.ending)
    return changes(source.path, target.temporary, source.video.index, job.streams.items, source.config)


def _report(
    job: Job, plan: DubPlan, rendered: Rendered, reporter: Reporter, *, cached: bool, changes: list[str]
) -> SyncReport:
    seconds, frames = reporter.seconds, rendered.frames
    lost = frames - rendered.dubbed - rendered.hidden - sum(plan.passed.values())
    left = {"something covers the mouth": rendered.hidden, "no picture from the generator": lost}
    return SyncReport(
        output=str(job.output),
        frames=frames,
        added=rendered.added,
        occluded=rendered.occluded,
        dubbed=rendered.dubbed,
        passed=plan.passed | {reason: count for reason, count in left.items() if count},
        faces=len({each.track.person for each in plan.jobs}),
        drawn_open=len({each.track.person for each in plan.jobs if each.drawn_open}),
        seconds=round(seconds, 2),
        fps=round(frames / seconds, 2),
        stages=reporter.stage_seconds,
        cached=cached,
        device=str(job.networks.device),
        generator=job.options.generator,
        shots=plan.shots,
        segments=plan.segments,
        rests=plan.rests,
        damage=rendered.damage,
        retiming=job.retiming,
        changes=tuple(changes),
        warnings=tuple(reporter.warnings),
    )
