"""`lipdub sync` as a function: probe, analyze, render, remux, verify, publish."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path

import torch

from lipdub import __version__
from lipdub.config import Config
from lipdub.dub.active_speaker import SpeakerScores, score_speakers
from lipdub.dub.analyze import Analysis, FaceTracks, choose, track_faces
from lipdub.dub.cache import AnalysisCache, FaceTracksRequest, cached_tracks
from lipdub.dub.debug_overlay import Overlay
from lipdub.dub.driving_audio import predict_mouth_shapes
from lipdub.dub.fit import on_new_times
from lipdub.dub.inputs import Inputs, read_inputs
from lipdub.dub.options import SyncOptions, adjusted
from lipdub.dub.render import Rendered, Watch, render
from lipdub.dub.report import Retiming, SyncReport
from lipdub.dub.side_by_side import write_comparison
from lipdub.dub.speaking_style import UNKNOWN_STYLE
from lipdub.dub.still import filmed
from lipdub.errors import SetupError, WeightsError
from lipdub.events import Done, Event, Progress, Stage, Warning_
from lipdub.faces.choose import detector_identity
from lipdub.media.atomic import AtomicOutput, verify
from lipdub.media.c2pa import Signing
from lipdub.media.damage import told_of
from lipdub.media.disclosure import disclosure_tags
from lipdub.media.kept import changes
from lipdub.media.mend import on_one_clock
from lipdub.media.mux import RemuxPlan, remux
from lipdub.media.probe import Ending, MediaInfo, VideoInfo, require_video
from lipdub.media.streams import StreamPlan, plan_streams
from lipdub.media.writer import VideoWriter
from lipdub.models.generator import Generator
from lipdub.weights import locate, sha256_of

UNSURE = (  # code and message of a warning
    "speaking",
    "the active speaker is uncertain: the audio matches the mouths no better than at other offsets; check it, or "
    "name the faces with --face id:N",
)
TURNED = "a face at {:.2f} s lies or stands on its head and is left alone; turn the picture for it to be dubbed"
STAGES = ("read", "faces", "dub", "write")


def speaking(found: FaceTracks, given: Inputs) -> SpeakerScores:
    """How well each mouth that was seen fits the video's own sound.

    Raises:
        InputError: the video has no sound.
        WeightsError: the generator's weights do not tell mouths from sound.
    """
    config, generator, heard = given.config, given.generator, None
    if isinstance(generator, Generator):
        own = given.ear.load_driving_audio(given.source.path)
        heard = predict_mouth_shapes(generator, own, found.times_s, config.mel, config.sync, given.device)
    if heard is None:
        what = "--face speaking: these weights have no mouth shapes to compare mouths with"
        raise WeightsError(what, "use the bundled weights, or give --face id:N or a point")
    wanted = heard.retargeted(UNKNOWN_STYLE, slice(None), 1.0)
    return score_speakers(found.tracks, wanted, float(given.video.average_rate))


def find_faces(
    video: Path,
    given: Inputs,
    options: SyncOptions,
    *,
    numbered: bool = False,
    on_frame: Callable[[int], None] = lambda done: None,
    on_warning: Callable[[str, str], None] = lambda code, message: None,
) -> tuple[FaceTracks, bool]:
    """Everybody in the range, from the cache if an earlier run kept them; and whether one had.

    Raises:
        InputError: see `survey`.
    """
    numbered = numbered or options.numbered
    request = FaceTracksRequest(
        video=video,
        detector=detector_identity(options.detector),
        device=given.device.type,
        ending=given.video.ending,
        start_s=options.start_s,
        end_s=options.end_s,
        numbered=numbered,
    )

    def look() -> FaceTracks:
        return track_faces(
            video,
            given.video,
            given.backend,
            given.config,
            start_s=options.start_s,
            end_s=options.end_s,
            numbered=numbered,
            on_frame=on_frame,
        )

    cache = AnalysisCache(max_mib=given.config.cache.max_mib) if options.cache else None
    found, cached = cached_tracks(
        cache,
        request,
        given.config,
        look,
        lambda path: on_warning("cache", f"removed a damaged cache entry: {path}"),
    )
    if cached:
        on_frame(len(found.times_s))
    return found, cached


def chosen(found: FaceTracks, video: Path, given: Inputs, options: SyncOptions) -> Analysis:
    """Whom the options name among those that were seen.

    Raises:
        LipdubError: see `choose` and `speaking`.
    """
    return choose(
        found,
        video,
        given.video,
        given.config,
        face=options.face,
        speakers=options.speakers,
        speaking=lambda found: speaking(found, given),
        silent=[voice.gate_at(found.times_s) == 0 for voice in given.voices] if options.only_speaking else None,
    )


def sync_video(
    video: str | Path,
    audio: str | Path,
    output: str | Path,
    options: SyncOptions | None = None,
    *,
    config: Config | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> SyncReport:
    """Write `output`: `video` with lips that speak `audio`, and `audio` as its sound.

    Args:
        video: any file with a picture that FFmpeg reads, or a picture: see `still.filmed`.
        audio: any file with sound.
        output: must not exist, unless options.overwrite.
        options: what to do.
        config: numbers behind it; sizes come from the generator's weights.
        on_event: told about stages, progress and warnings.

    Raises:
        LipdubError: one of its kinds, see errors.py; the output is then as it was before.
    """
    options, config = options or SyncOptions(), config or Config()
    video, audio, output = Path(video), Path(audio), Path(output)
    inputs = (video, audio, *options.audio_files)
    with ExitStack() as stack:
        target, *others = (
            None
            if path is None
            else stack.enter_context(AtomicOutput(path, overwrite=options.overwrite, inputs=inputs))
            for path in (output, options.compare, options.overlay)
        )
        assert target is not None
        compare, overlay = (None if each is None else each.temporary for each in others)
        video, options = stack.enter_context(filmed(video, audio, options, config))
        job = _Job(options, config, on_event, overlay)
        report = job.run(video, audio, target)
        if compare is not None:
            job.compare(job.film, target.temporary, compare, report.frames)
    on_event(Done(report))
    return report


class _Job:
    """One run: times its stages, collects its warnings."""

    def __init__(
        self, options: SyncOptions, config: Config, on_event: Callable[[Event], None], overlay: Path | None
    ) -> None:
        self._options, self._on_event, self._overlay = options, on_event, overlay
        self._names = (*STAGES, "compare") if options.compare is not None else STAGES
        self._started = time.monotonic()
        self._stages: dict[str, float] = {}
        self._warnings: list[str] = []
        self._cached = False
        self._changes: list[str] = []
        self._ending: Ending | None = None
        self._retiming: Retiming | None = None
        self.film = Path()  # what is read: the video, or a copy of it on one clock
        self._config = adjusted(config, options)

    def run(self, video: Path, audio: Path, target: AtomicOutput) -> SyncReport:
        with self._stage("read", None):
            film, clocks, mended = on_one_clock(video, target.scratch, self._config.media)
            timed = on_new_times(film, clocks, audio, target.path, self._options, self._config.media, target.scratch)
            film, clocks, self._options, self._retiming = timed.film, timed.clocks, timed.options, timed.retiming
            streams = plan_streams(
                film,
                audio,
                target.path,
                keep_audio=self._options.keep_original_audio,
                config=self._config.media,
                clocks=clocks,
            )
            self.film = film
            given = read_inputs(film, audio, self._options, self._config, clocks)
            signing = signing_of(self._options, target.path)
            self._config, source, info = given.config, given.source, given.video
            self._ending = info.ending
            picture = target.scratch("picture.mov")
            # Opened before the long work, since it refuses what this machine or the container cannot do.
            writer = picture_writer(picture, info, target.path, self._options, self._config)
        with writer:
            for code, message in (*timed.warnings, *given.warnings()):
                self._warn(code, message)
            for loss in writer.encoding.losses:
                self._warn("quality", loss)
            for told in (*mended, *streams.losses):
                self._warn("stream", told)
            with self._stage("faces", info.frames):
                analysis = self._analyze(film, given)
            with self._stage("dub", len(analysis.times_s)):
                rendered = self._render(film, given, writer, analysis)
        with self._stage("write", None):
            self._publish(video, source, audio, target, writer, signing, streams)
        return self._report(target.path, analysis, rendered, given.device)

    def _analyze(self, video: Path, given: Inputs) -> Analysis:
        options, frames = self._options, given.video.frames
        found, self._cached = find_faces(
            video,
            given,
            options,
            on_frame=lambda done: self._on_event(Progress(done, frames)),
            on_warning=self._warn,
        )
        analysis = chosen(found, video, given, options)
        if not analysis.sure:
            self._warn(*UNSURE)
        if found.turned_s is not None:
            self._warn("turned", TURNED.format(found.turned_s))
        return analysis

    def _render(self, video: Path, given: Inputs, writer: VideoWriter, analysis: Analysis) -> Rendered:
        info, config = given.video, self._config
        runner = given.runner(analysis)
        total = len(analysis.times_s)

        def on_frame(done: int) -> None:
            self._on_event(Progress(done, total))

        with ExitStack() as stack:
            watch: Watch | None = None
            if self._overlay is not None:
                drawn = Overlay(self._overlay, info, analysis.tracks, config.face)
                stack.enter_context(drawn.writer)
                watch = drawn.draw
            rendered = render(
                video, info, writer, analysis, runner, config, on_frame=on_frame, watch=watch, label=given.label
            )
        if rendered.lost:
            self._warn("generator", f"{rendered.lost} faces stay unchanged: the generator returned NaN or infinity")
        for damage in rendered.damage:
            self._warn("damage", told_of(damage))
        return rendered

    def compare(self, video: Path, dubbed: Path, output: Path, total: int) -> None:
        """Write both side by side; after `run`."""
        with self._stage("compare", total):
            write_comparison(
                video,
                dubbed,
                output,
                self._config.media,
                self._ending,
                on_frame=lambda n: self._on_event(Progress(n, total)),
            )

    def _publish(
        self,
        video: Path,
        source: MediaInfo,
        audio: Path,
        target: AtomicOutput,
        writer: VideoWriter,
        signing: Signing | None,
        streams: StreamPlan,
    ) -> None:
        tags = disclosure_tags(__version__, sha256_of(locate(self._options.generator)), self._options.label)
        made = target.temporary if signing is None else target.scratch(f"unsigned{target.temporary.suffix}")
        plan = RemuxPlan(
            picture=writer.path,
            source=source.path,
            source_info=source,
            streams=streams,
            dub=audio,
            output=made,
            keep_original_audio=self._options.keep_original_audio,
            language=self._options.language,
            metadata=tags,
            video_duration_s=writer.length_s if self._ending is not None else require_video(source).duration_s,
        )
        for warning in remux(plan, self._config.media):
            self._warn("stream", warning)
        if signing is not None:
            signing.sign(made, target.temporary, video, __version__, target.path.name)
        verify(target.temporary, source, writer.n_frames)
        self._changes = changes(source.path, target.temporary, require_video(source).index, streams.items)

    def _warn(self, code: str, message: str) -> None:
        self._warnings.append(message)
        self._on_event(Warning_(code, message))

    @contextmanager
    def _stage(self, name: str, total: int | None) -> Iterator[None]:
        self._on_event(Stage(name, self._names.index(name) + 1, len(self._names), total))
        started = time.monotonic()
        yield
        self._stages[name] = round(time.monotonic() - started, 3)

    def _report(self, output: Path, analysis: Analysis, rendered: Rendered, device: torch.device) -> SyncReport:
        seconds, frames = time.monotonic() - self._started, rendered.frames
        lost = frames - rendered.dubbed - sum(analysis.passed.values())
        return SyncReport(
            output=str(output),
            frames=frames,
            added=rendered.added,
            dubbed=rendered.dubbed,
            passed=analysis.passed | ({"no picture from the generator": lost} if lost else {}),
            faces=len({job.track.person for job in analysis.jobs}),
            seconds=round(seconds, 2),
            fps=round(frames / seconds, 2),
            stages=self._stages,
            cached=self._cached,
            device=str(device),
            generator=self._options.generator,
            shots=analysis.shots,
            segments=analysis.segments,
            rests=analysis.rests,
            damage=rendered.damage,
            retiming=self._retiming,
            changes=tuple(self._changes),
            warnings=tuple(self._warnings),
        )


def signing_of(options: SyncOptions, output: Path) -> Signing | None:
    """What signs the output, if anything does.

    Raises:
        SetupError, OutputError: see `Signing`; or one of key and certificate is missing.
    """
    if options.c2pa_cert is None and options.c2pa_key is None:
        return None
    if options.c2pa_cert is None or options.c2pa_key is None:
        raise SetupError("signing needs a key and its certificate", "give both --c2pa-cert and --c2pa-key")
    return Signing(options.c2pa_cert, options.c2pa_key, output)


def picture_writer(
    path: Path | BytesIO, info: VideoInfo, output: Path, options: SyncOptions, config: Config
) -> VideoWriter:
    """The encoder of a job."""
    return VideoWriter(
        path,
        info,
        crf=options.crf,
        codec=options.codec,
        lossless=options.lossless,
        output=output,
        config=config.media,
    )
