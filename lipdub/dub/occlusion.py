"""What lies in front of the mouths of a dub, over time: found in each frame's crops, a few frames ahead.

An object counts from three frames in a row on, and in the frames around them in which it is likely. Where it covers
the lips the face is left alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lipdub.affine import finer, transform
from lipdub.dub.analyze import FaceJob
from lipdub.dub.inference import FaceCrop
from lipdub.faces.backend import Frame
from lipdub.faces.letters import find_letters
from lipdub.faces.occlusion import (
    HIGH,
    LIKELY,
    LOW,
    MIN_SHARE,
    OcclusionDetector,
    lip_region,
    mask_of,
    mouth_region,
    share_of,
    skin_region,
)
from lipdub.media.video import SourceFrame

IN_A_ROW = 3  # frames that an object has to be seen in
AHEAD = 6  # frames that are looked at before one is decided
TOGETHER = 8  # frames that the network sees in one call
COVERED = (0.5, 0.8)  # share of the lips behind an object from which the dub fades, and from which it is left out


@dataclass(frozen=True)
class _Detection:
    """What the network says of one crop."""

    probability: NDArray[np.float32]  # (P, P)
    certain: bool
    likely: bool
    lips: float  # share of them that is covered


class OcclusionTracker:
    """Adds to the face crops of a video what lies in front of them; without a detector only letters are looked for."""

    def __init__(self, detector: OcclusionDetector | None, jobs: Sequence[FaceJob]) -> None:
        self._detector, self._jobs = detector, jobs
        self._usual: dict[int, Frame] = {}  # by job
        self._detections: dict[int, dict[int, _Detection]] = {}  # by job and row
        self._last: dict[int, int] = {}  # by job: the last row with an object
        self.hidden = 0  # frames left as they were, because objects cover the lips

    def mark(
        self, frames: Iterable[tuple[SourceFrame, list[FaceCrop]]]
    ) -> Iterator[tuple[SourceFrame, list[FaceCrop]]]:
        """The same frames, each at most AHEAD + TOGETHER later, with the crops that are to be dubbed."""
        waiting: deque[tuple[SourceFrame, list[FaceCrop]]] = deque()
        unseen: list[FaceCrop] = []
        for frame, crops in frames:
            waiting.append((frame, crops))
            unseen += crops
            if len(waiting) >= AHEAD + TOGETHER:
                self._detect(unseen)
                unseen = []
                while len(waiting) > AHEAD:
                    yield self._marked(*waiting.popleft())
            while waiting and (not waiting[0][1] or self._detector is None):
                yield self._marked(*waiting.popleft())
        self._detect(unseen)
        while waiting:
            yield self._marked(*waiting.popleft())

    def _marked(self, frame: SourceFrame, crops: list[FaceCrop]) -> tuple[SourceFrame, list[FaceCrop]]:
        for job in [job for job in self._usual if self._jobs[job].track.frames.stop <= frame.index]:
            del self._usual[job], self._detections[job]
        marked = [self._with_occlusion(crop) for crop in crops]
        shown = [crop for crop in marked if crop.share > 0]
        self.hidden += bool(marked) and not shown
        return frame, shown

    def _detect(self, crops: Sequence[FaceCrop]) -> None:
        """Run the network on crops."""
        if self._detector is None:
            return
        for job in sorted({crop.job for crop in crops}):
            if job not in self._usual:
                self._usual[job] = self._detector.usual([*self._jobs[job].references.crops])
                self._detections[job] = {}
            own = [crop for crop in crops if crop.job == job]
            probabilities = self._detector.probabilities([crop.picture for crop in own], self._usual[job])
            for crop, probability in zip(own, probabilities, strict=True):
                self._detections[job][crop.row] = self._judged(crop, probability)

    def _judged(self, crop: FaceCrop, probability: NDArray[np.float32]) -> _Detection:
        if not (probability > LOW).any():  # as in nearly every crop: all shares are 0
            return _Detection(probability, certain=False, likely=False, lips=0.0)
        points, side = self._landmarks(crop), len(crop.picture)
        region, lips, skin = (of(points, side, len(probability)) for of in (mouth_region, lip_region, skin_region))
        covered = max(share_of(probability > HIGH, region), share_of(probability > LIKELY, skin))
        return _Detection(
            probability,
            certain=covered >= MIN_SHARE,
            likely=share_of(probability > LOW, region) >= MIN_SHARE / 2,
            lips=share_of(probability > LOW, lips),
        )

    def _landmarks(self, crop: FaceCrop) -> NDArray[np.floating]:
        """(68, 2) in pixels of the crop."""
        job = self._jobs[crop.job]
        return transform(job.track.landmarks[crop.row], finer(job.matrices[crop.row], job.detail))

    def _with_occlusion(self, crop: FaceCrop) -> FaceCrop:
        occlusion, share = find_letters(crop.picture, self._landmarks(crop)), 1.0
        detected = self._detections.get(crop.job, {})
        if self._occluded(crop.job, crop.row):
            self._last[crop.job] = crop.row
            near = [detected[row] for row in (crop.row - 1, crop.row + 1) if row in detected]
            probability = detected[crop.row].probability
            if len(near) == 2:
                probability = np.maximum(probability, np.minimum(near[0].probability, near[1].probability))
            objects = mask_of(probability, len(crop.picture))
            occlusion = objects if occlusion is None else occlusion | objects
            lips = np.mean([each.lips for each in (detected[crop.row], *near)])
            share = float(np.clip((COVERED[1] - lips) / (COVERED[1] - COVERED[0]), 0, 1))
        for row in [row for row in detected if row < crop.row - IN_A_ROW + 1]:
            del detected[row]
        return replace(crop, occlusion=occlusion, share=share)

    def _occluded(self, job: int, row: int) -> bool:
        """Whether an object is before the mouth: seen for certain in a row, or likely from here to such a row."""
        detected = self._detections.get(job, {})
        if row not in detected or not detected[row].likely:
            return False
        if self._last.get(job) == row - 1:
            return True
        for first in range(row - IN_A_ROW + 1, row + AHEAD - IN_A_ROW + 2):
            if all(each in detected and detected[each].certain for each in range(first, first + IN_A_ROW)):
                return True
            if first >= row and (first not in detected or not detected[first].likely):
                return False
        return False
