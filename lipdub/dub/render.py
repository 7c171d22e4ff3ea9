"""Pass 2: crop, generate in batches, blend into the picture's own planes, encode.

Few frames wait at any time: `batch_size` faces, and never more than twice as many frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.config import Config
from lipdub.dub.analyze import Analysis, FaceJob
from lipdub.dub.cores import shared_cores
from lipdub.dub.inference import FaceCrop, GeneratedFace, Runner
from lipdub.errors import WeightsError
from lipdub.faces.blend import extent, match_colour, paste_alpha
from lipdub.faces.crop import finer
from lipdub.media.caption import Caption
from lipdub.media.damage import Damage
from lipdub.media.probe import VideoInfo
from lipdub.media.video import SourceFrame, VideoReader, paste_patch, read_patch
from lipdub.media.writer import VideoWriter
from lipdub.threads import BackgroundWorker


@dataclass(frozen=True)
class Rendered:
    """Counts of pass 2."""

    frames: int  # written
    dubbed: int  # frames with at least one new mouth
    lost: int  # faces left as they were, because the generator's picture of them held NaN or infinity
    added: int = 0  # frames behind the source's own end
    damage: tuple[Damage, ...] = ()  # of the source, that was gone over


@dataclass(frozen=True)
class Pasted:
    """A generated mouth, blended into a frame."""

    track: int
    alpha: NDArray[np.float32]  # (H, W) its opacity
    matrix: NDArray[np.float64]  # (2, 3) display pixel -> pixel of alpha


Watch = Callable[[SourceFrame, Sequence[Pasted]], None]  # told of every frame before it is encoded


@dataclass
class _Waiting:
    """A frame that is decoded, with the faces that still have to be painted into it."""

    frame: SourceFrame
    targets: list[FaceCrop] = field(default_factory=list)


def render(
    video: Path,
    info: VideoInfo,
    writer: VideoWriter,
    analysis: Analysis,
    runner: Runner,
    config: Config,
    *,
    on_frame: Callable[[int], None] = lambda done: None,
    watch: Watch | None = None,
    label: Caption | None = None,
) -> Rendered:
    """Write every frame of the video, with new mouths where there is a job.

    Raises:
        InputError: damaged video.
        OutputError, ResourceError: see VideoWriter and Runner.
        WeightsError: not one picture that the generator made was finite.
    """
    faces = _FacesByFrame(analysis.jobs)
    with shared_cores(), VideoReader(video, info, config=config.media) as reader, BackgroundWorker(1) as behind:
        queue = _Queue(info, writer, analysis.jobs, runner, config, behind, watch, label)
        for frame in reader:
            queue.push(frame, faces.of(frame.index))
            on_frame(queue.frames)
        queue.flush()
    on_frame(queue.frames)
    if queue.lost and not queue.dubbed:
        raise WeightsError(f"the generator returned NaN or infinity for all {queue.lost} faces", "use other weights")
    return Rendered(queue.frames, queue.dubbed, queue.lost, queue.added, reader.damage)


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


class _Queue:
    """Frames on their way to the encoder; counts what became of them.

    While one batch of faces is painted, the one before is pasted `behind`.
    """

    def __init__(
        self,
        info: VideoInfo,
        writer: VideoWriter,
        jobs: Sequence[FaceJob],
        runner: Runner,
        config: Config,
        behind: BackgroundWorker,
        watch: Watch | None,
        label: Caption | None,
    ) -> None:
        self._info, self._writer, self._jobs, self._behind = info, writer, jobs, behind
        self._runner, self._config, self._watch, self._label = runner, config, watch, label
        self._waiting: list[_Waiting] = []
        self.frames = self.dubbed = self.lost = self.added = 0  # as in Rendered

    def push(self, frame: SourceFrame, rows: Sequence[tuple[int, int]]) -> None:
        """Take the next frame, whose faces are given as (job, row)."""
        held = _Waiting(frame)
        for job, row in rows:
            side = self._config.generator.size * self._jobs[job].detail
            held.targets.append(
                FaceCrop(frame.index, job, row, read_patch(frame.picture, self._info, self._matrix(job, row), side))
            )
        self._waiting.append(held)
        most = self._config.sync.batch_size
        n_targets = sum(len(each.targets) for each in self._waiting)
        if n_targets == 0 or n_targets >= most or len(self._waiting) >= 2 * most:
            self.flush()

    def flush(self) -> None:
        """Paint what waits, and have it pasted and encoded."""
        waiting, self._waiting = self._waiting, []
        painted = self._runner.run([target for held in waiting for target in held.targets])
        self._behind.do(lambda: self._finish(waiting, iter(painted)))

    def _finish(self, waiting: Sequence[_Waiting], painted: Iterator[GeneratedFace | None]) -> None:
        for held in waiting:
            made = [(target, next(painted)) for target in held.targets]
            pasted = [self._paste(held.frame, target, mouth) for target, mouth in made if mouth is not None]
            self.lost += sum(mouth is None for _, mouth in made)
            self.dubbed += bool(pasted)
            if self._label is not None:
                self._label.burn(held.frame.picture)
            if self._watch is not None:
                self._watch(held.frame, pasted)
            self._writer.write(held.frame.picture, held.frame.pts)
            self.frames += 1
            self.added += held.frame.added

    def _paste(self, frame: SourceFrame, target: FaceCrop, mouth: GeneratedFace) -> Pasted:
        sync, margin = self._config.sync, self._config.generator.margin
        alpha = paste_alpha(mouth.mask, sync.feather / margin, 0.5 + (sync.top - 0.5) / margin)
        side = len(mouth.face)
        if side != len(alpha):
            alpha = np.asarray(cv2.resize(alpha, (side, side), interpolation=cv2.INTER_LINEAR), np.float32)
        if mouth.letters is not None:
            alpha = np.where(mouth.letters, np.float32(0), alpha)
        seen = extent(alpha)
        alpha = alpha[seen]
        matched = match_colour(mouth.face[seen], target.picture[seen].astype(np.float32), alpha, side)
        matrix = self._matrix(target.job, target.row)
        matrix[:, 2] -= seen[1].start, seen[0].start
        weight = self._jobs[target.job].weight[target.row]
        paste_patch(frame.picture, self._info, matrix, matched, alpha * weight)
        return Pasted(self._jobs[target.job].track.id, alpha, matrix)

    def _matrix(self, job: int, row: int) -> NDArray[np.float64]:
        """Display pixel -> pixel of the job's fine crop."""
        return finer(self._jobs[job].matrices[row], self._jobs[job].detail)
