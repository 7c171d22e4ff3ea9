"""Pass 2: crop, generate in batches, blend into the frame's own planes, encode.

Few frames wait at any time: `batch_size` faces, and never more than twice as many frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.config import Config
from lipdub.dub.analyze import DubPlan, FaceJob
from lipdub.dub.inference import FaceCrop, GeneratedFace, Runner
from lipdub.dub.occlusion import OcclusionTracker
from lipdub.errors import WeightsError
from lipdub.faces.blend import extent, match_colour
from lipdub.faces.occlusion import OcclusionDetector, bare
from lipdub.media.caption import Caption
from lipdub.media.damage import Damage
from lipdub.media.source import Source
from lipdub.media.video import SourceFrame
from lipdub.media.writer import VideoWriter
from lipdub.process import shared_cores
from lipdub.threads import BackgroundWorker


@dataclass(frozen=True)
class Rendered:
    """Counts of pass 2."""

    frames: int  # written
    dubbed: int  # frames with at least one new mouth
    lost: int  # faces left as they were, because the generator's picture of them held NaN or infinity
    added: int = 0  # frames behind the source's own end
    occluded: int = 0  # of `dubbed`: with something in front of a mouth, which stays as it is
    hidden: int = 0  # not dubbed, because something covers the lips
    damage: tuple[Damage, ...] = ()  # of the source, that was gone over
    shape_change: str | None = None  # sentence about pixels that change their shape


@dataclass(frozen=True)
class Pasted:
    """A generated mouth, blended into a frame."""

    track: int
    alpha: NDArray[np.float32]  # (H, W) its opacity
    matrix: NDArray[np.float64]  # (2, 3) display pixel -> pixel of alpha


Watch = Callable[[SourceFrame, Sequence[Pasted]], None]  # called with every frame before it is encoded
Batch = list[tuple[SourceFrame, list[FaceCrop]]]  # frames in order, each with the faces to generate in it


def render(
    source: Source,
    plan: DubPlan,
    runner: Runner,
    writer: VideoWriter,
    config: Config,
    *,
    on_frame: Callable[[int], None] = lambda done: None,
    watch: Watch | None = None,
    caption: Caption | None = None,
    occlusions: OcclusionDetector | None = None,
) -> Rendered:
    """Write every frame of the video, with new mouths where the plan has a job.

    While one batch of faces is generated, the one before is blended and encoded in another thread.

    Raises:
        InputError: damaged video.
        OutputError, ResourceError: see VideoWriter and Runner.
        WeightsError: the generator returned not one finite face.
    """
    finisher, tracker = _Finisher(writer, plan.jobs, watch, caption), OcclusionTracker(occlusions, plan.jobs)
    with shared_cores(), source.frames() as frames, BackgroundWorker(1) as worker:
        for batch in _batches(tracker.mark(_crops(frames, plan.jobs, config)), config):
            generated = runner.run([crop for _, crops in batch for crop in crops])
            worker.do(partial(finisher.finish, batch, iter(generated)))
            del batch, generated  # written ones are let go while the next are collected
            on_frame(finisher.frames)
    on_frame(finisher.frames)
    if finisher.lost and not finisher.dubbed:
        raise WeightsError(f"the generator returned NaN or infinity for all {finisher.lost} faces", "use other weights")
    return Rendered(
        frames=finisher.frames,
        dubbed=finisher.dubbed,
        lost=finisher.lost,
        added=finisher.added,
        occluded=finisher.occluded,
        hidden=tracker.hidden,
        damage=frames.damage,
        shape_change=frames.shape_change,
    )


def _crops(
    frames: Iterable[SourceFrame], jobs: Sequence[FaceJob], config: Config
) -> Iterator[tuple[SourceFrame, list[FaceCrop]]]:
    """Frames with the crops of their faces."""
    size, faces = config.generator.size, _FacesByFrame(jobs)
    for frame in frames:
        yield (
            frame,
            [
                FaceCrop(frame.index, job, row, frame.patch(jobs[job].crop_matrix(row), size * jobs[job].detail))
                for job, row in faces.of(frame.index)
            ],
        )


def _batches(cropped: Iterable[tuple[SourceFrame, list[FaceCrop]]], config: Config) -> Iterator[Batch]:
    """Frames to be worked on together; a frame without a face waits only for those before it."""
    batch_size = config.sync.batch_size
    batch: Batch = []
    for frame, crops in cropped:
        batch.append((frame, crops))
        n_crops = sum(len(each) for _, each in batch)
        if n_crops == 0 or n_crops >= batch_size or len(batch) >= 2 * batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


class _FacesByFrame:
    """Which faces are dubbed in a frame; asked for one frame after another."""

    def __init__(self, jobs: Sequence[FaceJob]) -> None:
        self._coming = sorted(enumerate(jobs), key=lambda item: item[1].track.first, reverse=True)
        self._present: list[tuple[int, FaceJob]] = []

    def of(self, frame: int) -> list[tuple[int, int]]:
        """(job, row) of each."""
        while self._coming and self._coming[-1][1].track.first <= frame:
            self._present.append(self._coming.pop())
        self._present = [(number, job) for number, job in self._present if frame < job.track.frames.stop]
        rows = [(number, job, frame - job.track.first) for number, job in self._present]
        return sorted((number, row) for number, job, row in rows if job.weight[row] > 0)


class _Finisher:
    """Blends generated faces into their frames and encodes those; counts as `Rendered` does."""

    def __init__(
        self,
        writer: VideoWriter,
        jobs: Sequence[FaceJob],
        watch: Watch | None,
        caption: Caption | None,
    ) -> None:
        self._writer, self._jobs = writer, jobs
        self._watch, self._caption = watch, caption
        self.frames = self.dubbed = self.lost = self.added = self.occluded = 0

    def finish(self, batch: Batch, generated: Iterator[GeneratedFace | None]) -> None:
        """Write the frames of a batch; `generated` has a face, or None, for each of its crops."""
        for frame, crops in batch:
            faces = [(crop, next(generated)) for crop in crops]
            pasted = [self._paste(frame, crop, face) for crop, face in faces if face is not None]
            self.lost += len(faces) - len(pasted)
            self.dubbed += bool(pasted)
            self.occluded += any(face is not None and crop.occlusion is not None for crop, face in faces)
            if self._caption is not None:
                self._caption.burn(frame.picture)
            if self._watch is not None:
                self._watch(frame, pasted)
            self._writer.write(frame.picture, frame.pts)
            self.frames += 1
            self.added += frame.added

    def _paste(self, frame: SourceFrame, crop: FaceCrop, generated: GeneratedFace) -> Pasted:
        job, alpha = self._jobs[crop.job], generated.alpha
        side = len(generated.face)
        if side != len(alpha):
            alpha = np.asarray(cv2.resize(alpha, (side, side), interpolation=cv2.INTER_LINEAR), np.float32)
        seen = alpha
        if crop.occlusion is not None:
            seen = np.where(crop.occlusion, np.float32(0), alpha)  # colours are compared beside it
            alpha = alpha * bare(crop.occlusion)
        part = extent(seen)
        alpha = alpha[part]
        matched = match_colour(generated.face[part], crop.picture[part].astype(np.float32), seen[part], side)
        matrix = job.crop_matrix(crop.row)
        matrix[:, 2] -= part[1].start, part[0].start
        frame.paste(matrix, matched, alpha * (crop.share * job.weight[crop.row]))
        return Pasted(job.track.id, alpha, matrix)
