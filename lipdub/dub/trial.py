"""Estimate of the time and size of pass 2, from a few rendered frames."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lipdub.dub.analyze import Analysis, FaceJob
from lipdub.dub.cores import shared_cores
from lipdub.dub.inference import FaceCrop
from lipdub.dub.inputs import Inputs
from lipdub.dub.render import render
from lipdub.media.writer import VideoWriter

FRAMES = 32  # of each of the two runs: two batches
KEY_EVERY = 250  # frames between two key frames, the habit of all our encoders; a cut makes one too


class _Enough(Exception):
    """Ends a run early."""


@dataclass(frozen=True)
class Costs:
    """What a trial measured."""

    frame_s: float  # read, write and encode a frame
    face_s: float  # paint a mouth into it
    track_s: float  # get ready for another track
    key_bytes: float  # of a frame that stands alone, mean
    frame_bytes: float  # of another frame, mean

    def seconds(self, analysis: Analysis) -> float:
        """Of pass 2."""
        n_faces = sum(int((job.weight > 0).sum()) for job in analysis.jobs)
        return self.frame_s * len(analysis.times_s) + self.face_s * n_faces + self.track_s * len(analysis.jobs)

    def picture_bytes(self, n_frames: int, n_shots: int) -> int:
        """Of the whole encoded picture."""
        n_keys = min(n_frames, n_frames // KEY_EVERY + n_shots)
        return round(self.key_bytes * n_keys + self.frame_bytes * (n_frames - n_keys))


def try_out(video: Path, given: Inputs, analysis: Analysis, writers: tuple[VideoWriter, VideoWriter]) -> Costs:
    """Render the first frames of the video twice, without and with a mouth in each.

    Args:
        video: the source.
        given: what was read of it.
        analysis: of the whole video; its longest job is tried.
        writers: fresh ones, that write into memory; they are closed here.

    Raises:
        LipdubError: what `render` raises.
    """
    longest = max(analysis.jobs, key=lambda job: int((job.weight > 0).sum()))
    job = _moved(longest)
    n_frames = min(FRAMES, len(analysis.times_s))
    trial = Analysis(analysis.times_s[: max(n_frames, len(job.weight))], [job], {})
    runner = given.runner(trial)
    face = [FaceCrop(0, 0, 0, job.references.crops[0])]
    runner.run(face)  # the first call of a device is slower than all others
    with shared_cores():
        _, first_s = _timed(lambda: runner.run(face))
        runner = given.runner(trial)
        _, track_s = _timed(lambda: runner.run(face))

    def run(writer: VideoWriter, jobs: list[FaceJob]) -> int:
        def stop(done: int) -> None:
            if done >= n_frames:
                raise _Enough

        with writer, suppress(_Enough):
            render(video, given.video, writer, replace(trial, jobs=jobs), runner, given.config, on_frame=stop)
        return writer.n_frames

    n_plain, plain_s = _timed(lambda: run(writers[0], []))
    n_dubbed, dubbed_s = _timed(lambda: run(writers[1], [job]))
    frame_s = plain_s / n_plain
    n_faces = min(n_dubbed, len(job.weight))
    key, other = (np.array(writers[0].sizes[kind], float) for kind in (True, False))
    return Costs(
        frame_s=frame_s,
        face_s=max(0.0, dubbed_s - frame_s * n_dubbed) / n_faces,
        track_s=max(0.0, track_s - first_s),
        key_bytes=float(key.mean()) if key.size else float(other.mean()),
        frame_bytes=float(other.mean()) if other.size else float(key.mean()),
    )


def _moved(job: FaceJob) -> FaceJob:
    """The first rows of a job that are dubbed, as if they were the video's first frames.

    What is painted is thrown away, so it may be painted into any picture: the work is the same.
    """
    rows = np.flatnonzero(job.weight > 0)[:FRAMES]
    track = replace(job.track, first=0, landmarks=job.track.landmarks[rows], confidence=job.track.confidence[rows])
    return replace(job, track=track, matrices=job.matrices[rows], weight=job.weight[rows], shapes=job.shapes[rows])


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and how many seconds it took."""
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started
