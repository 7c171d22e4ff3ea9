"""Estimate of the time and size of a dub from a few rendered frames, and the report of `lipdub sync --dry-run`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lipdub.dub.analyze import DubPlan, FaceJob, FaceTracks
from lipdub.dub.face_list import summarize
from lipdub.dub.inference import FaceCrop
from lipdub.dub.job import Job
from lipdub.dub.render import render
from lipdub.dub.report import Estimate, SyncPlan
from lipdub.events import Reporter
from lipdub.media.containers import container_of
from lipdub.media.encoders import ENCODERS
from lipdub.media.language import language_code
from lipdub.media.mux import dub_encoder
from lipdub.media.probe import MediaInfo, probe
from lipdub.media.writer import VideoWriter
from lipdub.process import shared_cores

FRAMES = 32  # of each of the two runs: two batches
KEY_EVERY = 250  # frames between two key frames, the default of all our encoders; cuts make further ones
BIT_RATE = 192_000  # of audio whose bit rate is unknown


class _StopRender(Exception):
    """Raised to end a trial after enough frames."""


@dataclass(frozen=True)
class Costs:
    """Costs measured in a trial."""

    frame_s: float  # read, write and encode a frame
    face_s: float  # generate a mouth and paste it
    track_s: float  # prepare another track
    key_bytes: float  # of a key frame, mean
    frame_bytes: float  # of another frame, mean

    def seconds(self, plan: DubPlan) -> float:
        """Duration of pass 2."""
        n_faces = sum(int((job.weight > 0).sum()) for job in plan.jobs)
        return self.frame_s * len(plan.times_s) + self.face_s * n_faces + self.track_s * len(plan.jobs)

    def picture_bytes(self, n_frames: int, n_shots: int) -> int:
        """Size of the whole encoded picture."""
        n_keys = min(n_frames, n_frames // KEY_EVERY + n_shots)
        return round(self.key_bytes * n_keys + self.frame_bytes * (n_frames - n_keys))


def measure_costs(job: Job, plan: DubPlan, writers: tuple[VideoWriter, VideoWriter]) -> Costs:
    """Render the first frames of the video twice, without and with a mouth of the plan's longest track in each.

    The two writers are new, and write to memory; they are closed here.

    Raises:
        LipdubError: what `render` raises.
    """
    face = _at_first_frame(max(plan.jobs, key=lambda each: int((each.weight > 0).sum())))
    n_frames = min(FRAMES, len(plan.times_s))
    trial = DubPlan(plan.times_s[: max(n_frames, len(face.weight))], [face], {})
    runner = job.runner(trial)
    crop = [FaceCrop(0, 0, 0, face.references.crops[0])]
    runner.run(crop)  # the first call of a device is slower than all others
    with shared_cores():
        _, first_s = _measure_time(lambda: runner.run(crop))
        runner = job.runner(trial)
        _, track_s = _measure_time(lambda: runner.run(crop))

    occlusions = job.networks.occlusions

    def run(writer: VideoWriter, jobs: list[FaceJob]) -> int:
        def stop(done: int) -> None:
            if done >= n_frames:
                raise _StopRender

        with writer, suppress(_StopRender):
            render(
                job.source, replace(trial, jobs=jobs), runner, writer, job.config, on_frame=stop, occlusions=occlusions
            )
        return writer.n_frames

    n_plain, plain_s = _measure_time(lambda: run(writers[0], []))
    n_dubbed, dubbed_s = _measure_time(lambda: run(writers[1], [face]))
    frame_s = plain_s / n_plain
    n_faces = min(n_dubbed, len(face.weight))
    key, other = (np.array(writers[0].sizes[kind], float) for kind in (True, False))
    return Costs(
        frame_s=frame_s,
        face_s=max(0.0, dubbed_s - frame_s * n_dubbed) / n_faces,
        track_s=max(0.0, track_s - first_s),
        key_bytes=float(key.mean()) if key.size else float(other.mean()),
        frame_bytes=float(other.mean()) if other.size else float(key.mean()),
    )


def _at_first_frame(job: FaceJob) -> FaceJob:
    """The first dubbed rows of a job, moved to the video's first frames.

    The result is discarded, so that they may be pasted into any picture: the work is the same.
    """
    rows = np.flatnonzero(job.weight > 0)[:FRAMES]
    track = replace(job.track, first=0, landmarks=job.track.landmarks[rows], confidence=job.track.confidence[rows])
    return replace(job, track=track, matrices=job.matrices[rows], weight=job.weight[rows], shapes=job.shapes[rows])


def _measure_time(work: Callable[[], Any]) -> tuple[Any, float]:
    """Result of a call, and its duration in seconds."""
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def estimate(
    job: Job, faces: FaceTracks, plan: DubPlan, writer: VideoWriter, costs: Costs, reporter: Reporter
) -> SyncPlan:
    """Plan of the dub, with its estimated time and size, from the costs and the seconds of the stages so far."""
    info, encoding, options = job.source.video, writer.encoding, job.options
    speech = probe(job.audio)
    encoder = dub_encoder(job.streams, job.streams.dub.end_s - info.start_s - job.source.duration_s)
    audio_bytes = _audio_bytes(speech, encoder, job.source.duration_s)
    cost = _cost(job, plan, len(faces.shots), writer, costs, audio_bytes, reporter)
    if cost.output_bytes + cost.needed_bytes > cost.free_bytes:
        reporter.warn("disc", f"there is hardly room for the output in {job.output.absolute().parent}")
    sound = speech.audio[0]
    return SyncPlan(
        output=str(job.output),
        frames=len(plan.times_s),
        video_s=round(info.duration_s if job.retiming is None else job.retiming.source_s - info.start_s, 3),
        output_s=round(job.source.duration_s, 3),
        audio_s=round(job.audio_s, 3),
        source=f"{info.codec} {info.width}x{info.height} {info.pix_fmt}, {job.source.rate:.6g} fps",
        encoder=encoding.encoder,
        pix_fmt=encoding.pix_fmt,
        container=container_of(job.output).muxer,
        dub=f"{sound.codec} {sound.sample_rate} Hz {sound.layout}",
        dub_encoder=encoder,
        language=None if options.language is None else language_code(options.language),
        kept=tuple(f"{item.kind} stream {item.index} ({item.codec}): {item.encoder}" for item in job.streams.items),
        shots=tuple(round(float(faces.starts_s[first]), 3) for first in faces.shots),
        faces=tuple(summarize(faces, job.config.face, job.source.rate, plan.jobs)),
        dubbed=len(plan.times_s) - sum(plan.passed.values()),
        passed=plan.passed,
        device=str(job.networks.device),
        generator=options.generator,
        estimate=cost,
        warnings=tuple(reporter.warnings),
        retiming=job.retiming,
    )


def _cost(
    job: Job, plan: DubPlan, n_shots: int, writer: VideoWriter, costs: Costs, audio_bytes: int, reporter: Reporter
) -> Estimate:
    """From the bytes of the new picture and audio, and the seconds of pass 2."""
    info, lasts_s = job.source.video, job.source.duration_s
    picture = costs.picture_bytes(len(plan.times_s), n_shots)
    old_picture = (info.bit_rate or 0) * info.duration_s / 8
    if writer.encoding.encoder in ENCODERS.get(info.codec, ()):  # a video may begin more plainly than it goes on
        picture = max(picture, round(old_picture * lasts_s / max(info.duration_s, 1e-3)))
    others = 0.0
    if job.options.keep_original_audio:
        guess = BIT_RATE / 8 * info.duration_s * len(job.source.media.audio)
        others = job.source.path.stat().st_size - old_picture if info.bit_rate else guess
    known = {name: seconds for name, seconds in reporter.stage_seconds.items() if name != "trial"}  # a dub has none
    return Estimate(
        seconds={**known, "dub": round(costs.seconds(plan), 3)},
        output_bytes=picture + audio_bytes + max(0, round(others)),
        needed_bytes=picture,
        free_bytes=shutil.disk_usage(job.output.absolute().parent).free,
    )


def _audio_bytes(file: MediaInfo, encoder: str, video_s: float) -> int:
    """About how large the new audio becomes: as it is, as many samples, or at the rate of a lossy encoder."""
    audio = file.audio[0]
    if encoder == "copy" and file.video is None:
        return round(file.path.stat().st_size * min(1.0, video_s / max(audio.duration_s, 1e-3)))
    if encoder.startswith("pcm_"):
        sample_bytes = 4 if "32" in encoder else 3 if "24" in encoder else 2
        return round(audio.sample_rate * audio.channels * video_s * sample_bytes)
    return round(BIT_RATE / 8 * video_s)
