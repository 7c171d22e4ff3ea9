"""`lipdub sync --dry-run` as a function: pass 1 and an estimate, nothing written."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from lipdub.config import Config
from lipdub.dub.analyze import Analysis, FaceTracks
from lipdub.dub.face_list import summarize
from lipdub.dub.fit import on_new_times
from lipdub.dub.inputs import Inputs, read_inputs
from lipdub.dub.options import SyncOptions, adjusted
from lipdub.dub.report import Estimate, Retiming, SyncPlan
from lipdub.dub.still import filmed
from lipdub.dub.sync import TURNED, UNSURE, chosen, find_faces, picture_writer, signing_of
from lipdub.dub.trial import try_out
from lipdub.events import Event, Plan, Progress, Stage, Warning_
from lipdub.media.atomic import AtomicOutput
from lipdub.media.containers import Item, container_of
from lipdub.media.encoders import ENCODERS
from lipdub.media.language import language_code
from lipdub.media.mend import on_one_clock
from lipdub.media.mux import dub_encoder
from lipdub.media.probe import AudioInfo, MediaInfo, probe
from lipdub.media.streams import plan_streams
from lipdub.media.writer import VideoWriter

STAGES = ("read", "faces", "trial")
BIT_RATE = 192_000  # of sound of which no better is known


def plan_sync(
    video: str | Path,
    audio: str | Path,
    output: str | Path,
    options: SyncOptions | None = None,
    *,
    config: Config | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> SyncPlan:
    """What `sync_video` with the same arguments would do. Pass 1 runs on the range; nothing is written.

    Raises:
        LipdubError: as `sync_video` would, as far as it can be known now.
    """
    options = options or SyncOptions()
    config = config or Config()
    AtomicOutput(
        Path(output), overwrite=options.overwrite, inputs=(Path(video), Path(audio), *options.audio_files)
    ).check()
    with filmed(Path(video), Path(audio), options, config) as (film, options):
        run = _DryRun(film, Path(audio), Path(output), options, on_event)
        plan = run.plan(adjusted(config, options))
    on_event(Plan(plan))
    return plan


class _DryRun:
    """One dry run: times its stages, collects its warnings."""

    def __init__(
        self, video: Path, audio: Path, output: Path, options: SyncOptions, on_event: Callable[[Event], None]
    ) -> None:
        self._video, self._audio, self._output, self._options = video, audio, output, options
        self._on_event = on_event
        self._seconds: dict[str, float] = {}
        self._warnings: list[str] = []
        self._retiming: Retiming | None = None

    def plan(self, config: Config) -> SyncPlan:
        with tempfile.TemporaryDirectory(prefix="lipdub-") as folder:
            return self._planned(config, Path(folder))

    def _planned(self, config: Config, folder: Path) -> SyncPlan:
        with self._stage("read", None):
            self._video, clocks, mended = on_one_clock(self._video, folder.joinpath, config.media)
            timed = on_new_times(
                self._video, clocks, self._audio, self._output, self._options, config.media, folder.joinpath
            )
            self._video, clocks, self._retiming = timed.film, timed.clocks, timed.retiming
            options = self._options = timed.options
            keep = options.keep_original_audio
            streams = plan_streams(
                self._video, self._audio, self._output, keep_audio=keep, config=config.media, clocks=clocks
            )
            given = read_inputs(self._video, self._audio, options, config, clocks)
            signing_of(options, self._output)
            writers = self._writer(given), self._writer(given)  # made now: they may refuse
            dub = probe(self._audio)
        for code, message in (*timed.warnings, *given.warnings()):
            self._warn(code, message)
        for loss in writers[0].encoding.losses:
            self._warn("quality", loss)
        for loss in (*mended, *streams.losses):
            self._warn("stream", loss)
        with self._stage("faces", given.video.frames):
            frames = given.video.frames
            found, _ = find_faces(  # ids in the plan may be given to --face
                self._video,
                given,
                options,
                numbered=True,
                on_frame=lambda n: self._on_event(Progress(n, frames)),
                on_warning=self._warn,
            )
            analysis = chosen(found, self._video, given, options)
            if not analysis.sure:
                self._warn(*UNSURE)
            if found.turned_s is not None:
                self._warn("turned", TURNED.format(found.turned_s))
        with self._stage("trial", None):
            costs = try_out(self._video, given, analysis, writers)
        output_s = given.video.lasts_s
        how = dub_encoder(streams, streams.dub.end_s - given.video.start_s - output_s)
        picture = costs.picture_bytes(len(analysis.times_s), len(found.shots))
        estimate = self._estimate(given, writers[0], picture, _sound_bytes(dub, how, output_s), costs.seconds(analysis))
        if estimate.output_bytes + estimate.needed_bytes > estimate.free_bytes:
            self._warn("disc", f"there is hardly room for the output in {self._output.absolute().parent}")
        return self._plan(given, found, analysis, writers[0], dub.audio[0], how, streams.items, estimate)

    def _writer(self, given: Inputs) -> VideoWriter:
        """The encoder that the job would use, into memory."""
        return picture_writer(BytesIO(), given.video, self._output, self._options, given.config)

    def _plan(
        self,
        given: Inputs,
        found: FaceTracks,
        analysis: Analysis,
        writer: VideoWriter,
        sound: AudioInfo,
        how: str,
        items: Sequence[Item],
        estimate: Estimate,
    ) -> SyncPlan:
        info = given.video
        return SyncPlan(
            output=str(self._output),
            frames=len(analysis.times_s),
            video_s=round(info.duration_s if self._retiming is None else self._retiming.source_s - info.start_s, 3),
            output_s=round(info.lasts_s, 3),
            audio_s=round(given.dub_s, 3),
            source=f"{info.codec} {info.width}x{info.height} {info.pix_fmt}, {float(info.average_rate):.6g} fps",
            encoder=writer.encoding.encoder,
            pix_fmt=writer.encoding.pix_fmt,
            container=container_of(self._output).muxer,
            dub=f"{sound.codec} {sound.sample_rate} Hz {sound.layout}",
            dub_encoder=how,
            language=None if self._options.language is None else language_code(self._options.language),
            kept=tuple(f"{item.kind} stream {item.index} ({item.codec}): {item.encoder}" for item in items),
            shots=tuple(round(float(found.starts_s[first]), 3) for first in found.shots),
            faces=tuple(summarize(found, given.config.face, float(info.average_rate), analysis.jobs)),
            dubbed=len(analysis.times_s) - sum(analysis.passed.values()),
            passed=analysis.passed,
            device=str(given.device),
            generator=self._options.generator,
            estimate=estimate,
            warnings=tuple(self._warnings),
            retiming=self._retiming,
        )

    def _estimate(self, given: Inputs, writer: VideoWriter, picture: int, dub: int, dub_s: float) -> Estimate:
        """From the bytes of the new picture and of the dub, and the seconds of pass 2."""
        info = given.video
        old_picture = (info.bit_rate or 0) * info.duration_s / 8
        if writer.encoding.encoder in ENCODERS.get(info.codec, ()):  # a film may begin more plainly than it goes on
            picture = max(picture, round(old_picture * info.lasts_s / max(info.duration_s, 1e-3)))
        others = 0.0
        if self._options.keep_original_audio:
            guess = BIT_RATE / 8 * info.duration_s * len(given.source.audio)
            others = self._video.stat().st_size - old_picture if info.bit_rate else guess
        return Estimate(
            seconds={**self._seconds, "dub": round(dub_s, 3)},
            output_bytes=picture + dub + max(0, round(others)),
            needed_bytes=picture,
            free_bytes=shutil.disk_usage(self._output.absolute().parent).free,
        )

    def _warn(self, code: str, message: str) -> None:
        self._warnings.append(message)
        self._on_event(Warning_(code, message))

    @contextmanager
    def _stage(self, name: str, total: int | None) -> Iterator[None]:
        self._on_event(Stage(name, STAGES.index(name) + 1, len(STAGES), total))
        started = time.monotonic()
        yield
        if name != "trial":  # which a real run has not
            self._seconds[name] = round(time.monotonic() - started, 3)


def _sound_bytes(dub: MediaInfo, encoder: str, video_s: float) -> int:
    """About how large the new sound becomes: as it is, as many samples, or at the rate of a lossy encoder."""
    sound = dub.audio[0]
    if encoder == "copy" and dub.video is None:
        return round(dub.path.stat().st_size * min(1.0, video_s / max(sound.duration_s, 1e-3)))
    if encoder.startswith("pcm_"):
        return round(
            sound.sample_rate * sound.channels * video_s * (4 if "32" in encoder else 3 if "24" in encoder else 2)
        )
    return round(BIT_RATE / 8 * video_s)
