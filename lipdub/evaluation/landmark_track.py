"""The judge of an evaluation, which finds landmarks in videos, and the landmarks that it found in a file.

MediaPipe's mesh is independent of the networks that dub. Where its files are not available, our own landmark network is
the judge, and reports say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lipdub.affine import transform
from lipdub.config import FaceConfig, MediaConfig
from lipdub.errors import InputError, NoFaceError, SetupError, WeightsError
from lipdub.evaluation.teachers import MESH_TO_IBUG, TEACHERS, FaceMesh, YuNet
from lipdub.faces.backend import FaceBackend, Frame, Landmarks
from lipdub.faces.builtin import box_of_landmarks
from lipdub.faces.choose import builtin_backend
from lipdub.faces.crop import crop_matrices, mouth_mask, parted_lips
from lipdub.media.probe import VideoInfo, probe, require_video
from lipdub.media.video import SourceFrame, VideoReader
from lipdub.metrics import mouth_opening
from lipdub.weights import entry_of, find, locate

PRESENT = 0.5  # presence score below which the mesh has lost the face
MIN_SEEN = 0.5  # share of a video's frames in which the judge must see a face
LIPS = slice(48, 60)  # outer lips
TEACHER_COMMANDS = f"{TEACHERS} && lipdub weights pull yunet face-landmarker"


class LandmarkTracker(Protocol):
    """Interface of a judge: landmarks of one person in the successive frames of a video."""

    name: str
    caveat: str  # what readers of its figures must know
    ours: bool  # whether `lipdub sync` uses the same network

    def begin(self) -> None:
        """Start a new video."""

    def look(self, frame: Frame) -> Landmarks | None:
        """Landmarks (68, 2) in pixels of `frame` (H, W, 3) RGB, iBUG order; None without a face."""


class MeshLandmarkTracker:
    """Judge: YuNet's largest face, then MediaPipe's mesh from frame to frame; detected again after a loss.

    Made of the files face_detection_yunet_2023mar.onnx and face_landmarker.task.

    Raises:
        WeightsError: a file that is none of these.
        SetupError: the extra `teachers` is not installed.
    """

    name = "MediaPipe Face Landmarker (478 points, 68 used) in YuNet's box"
    caveat = "It runs in none of our networks, but labelled the footage that they learnt from."
    ours = False

    def __init__(self, yunet: Path, mesh: Path) -> None:
        try:
            self._detector = YuNet(yunet)
        except cv2.error as error:
            raise WeightsError(f"{yunet} is not a YuNet detector", "lipdub weights pull yunet") from error
        self._mesh = FaceMesh(mesh)
        self._points: NDArray[np.float32] | None = None

    def begin(self) -> None:
        """Forget the last video's face."""
        self._points = None

    def look(self, frame: Frame) -> Landmarks | None:
        """Landmarks (68, 2); see `LandmarkTracker`."""
        points, presence = self._points, 0.0
        if points is not None:
            points, presence = self._mesh.follow(frame, points)
        if presence < PRESENT and len(boxes := self._detector.detect(frame)):
            points, presence = self._mesh.from_box(frame, boxes[int(np.argmax(boxes[:, 2] * boxes[:, 3]))])
        self._points = points if presence >= PRESENT else None
        return None if self._points is None else np.asarray(self._points[MESH_TO_IBUG], np.float32)


class BuiltinJudge:
    """Judge: our detector's largest face, then our landmarks from frame to frame; detected again after a loss."""

    name = "OUR OWN landmark network (68 points) in our own detector's box"
    caveat = (
        "It also tells `lipdub sync` where a mouth is, so it is no independent judge: what it misreads in a source, it "
        "misreads in the dub. MediaPipe's mesh judges after: " + TEACHER_COMMANDS + "."
    )
    ours = True

    def __init__(self, backend: FaceBackend) -> None:
        self._backend = backend
        self._box: NDArray[np.float32] | None = None

    def begin(self) -> None:
        """Forget the last video's face."""
        self._box = None

    def look(self, frame: Frame) -> Landmarks | None:
        """Landmarks (68, 2); see `LandmarkTracker`."""
        points = None if self._box is None else self._landmarks(frame, self._box)
        if points is None and len(boxes := self._backend.detect([frame])[0].boxes):
            points = self._landmarks(frame, boxes[int(np.argmax((boxes[:, 2:] - boxes[:, :2]).prod(1)))])
        self._box = None if points is None else box_of_landmarks(points)
        return points

    def _landmarks(self, frame: Frame, box: NDArray[np.float32]) -> Landmarks | None:
        points, confidence = self._backend.landmarks([frame], box[None])
        return points[0] if confidence[0] >= PRESENT else None


def find_judge(yunet: str | None, mesh: str | None, config: FaceConfig, device: torch.device) -> LandmarkTracker:
    """MediaPipe's mesh, if its files and its package are here or were asked for; our own landmarks otherwise.

    `yunet` and `mesh` are names in weights.toml or files; None: those of weights.toml, if they are here.

    Raises:
        SetupError: a file was named, and the extra `teachers` is not installed.
        WeightsError: a file that was named is not here, or is none of these.
    """
    asked = yunet is not None or mesh is not None
    detector, landmarks = yunet or "yunet", mesh or "face-landmarker"
    if asked or all(find(entry_of(name)) is not None for name in (detector, landmarks)):
        try:
            return MeshLandmarkTracker(locate(detector), locate(landmarks))
        except SetupError:
            if asked:
                raise
    return BuiltinJudge(builtin_backend(config, device))


@dataclass(frozen=True)
class LandmarkTrack:
    """Landmarks that the judge found in a video."""

    path: Path
    info: VideoInfo
    times_s: NDArray[np.float64]  # (T,)
    landmarks: NDArray[np.float32]  # (T, 68, 2) display pixels; interpolated where no face was seen
    seen: NDArray[np.bool_]  # (T,)
    rows: NDArray[np.int64]  # (T,) frame numbers in the file, ascending
    scale: float = 1.0  # pixels here over pixels of the file

    @property
    def openings(self) -> NDArray[np.float64]:
        """Mouth opening (T,)."""
        return mouth_opening(self.landmarks)

    def frames(self, config: MediaConfig) -> Iterator[tuple[SourceFrame, list[int]]]:
        """The frames of the file that are here, each with its rows: several where frames were lost."""
        with VideoReader(self.path, self.info, config=config) as reader:
            for frame in reader:
                if places := np.flatnonzero(self.rows == frame.index).tolist():
                    yield frame, places
                if frame.index >= self.rows[-1]:
                    break

    def like(self, real: LandmarkTrack) -> LandmarkTrack:
        """The track resampled to the times and pixels of the real video that this one was made from.

        The nearest frames in time are taken, so that tools that change frame rate or size can be judged.
        """
        end_s = self.times_s[-1] + 0.5 / float(self.info.average_rate)
        times = real.times_s[: int(np.searchsorted(real.times_s, end_s, side="right"))]
        if not len(times):
            raise InputError(
                f"{self.path} begins after {real.path} has ended", "give a dub of that video, with its times"
            )
        nearest = np.abs(self.times_s[:, None] - times).argmin(0)
        scale = real.info.display_width / self.info.display_width
        landmarks = (self.landmarks[nearest] * scale).astype(np.float32)
        return replace(
            self,
            times_s=times,
            landmarks=landmarks,
            seen=self.seen[nearest],
            rows=self.rows[nearest],
            scale=self.scale * scale,
        )


def track_landmarks(path: Path, judge: LandmarkTracker, end_s: float, config: MediaConfig) -> LandmarkTrack:
    """Landmarks of every frame before `end_s`.

    Raises:
        InputError: a file that cannot be read, or that has no frames there.
        NoFaceError: the judge sees a face in less than MIN_SEEN of the frames.
    """
    info = require_video(probe(path, config))
    times: list[float] = []
    landmarks: list[Landmarks | None] = []
    judge.begin()
    with VideoReader(path, info, config=config) as reader:
        for frame in reader:
            if frame.time_s >= end_s:
                break
            times.append(frame.time_s)
            landmarks.append(judge.look(frame.upright()))
    if not times:
        raise InputError(f"{path} has no frame before {end_s:g} s", "give a longer clip")
    seen = np.array([points is not None for points in landmarks])
    if seen.mean() < MIN_SEEN:
        what = f"{path}: the judge sees a face in {seen.sum()} of {len(seen)} frames"
        raise NoFaceError(what, "give a clip of one larger face, seen from the front")
    known = np.stack([points for points in landmarks if points is not None]).reshape(-1, 136)
    at = np.array(times)
    filled = np.stack([np.interp(at, at[seen], column) for column in known.T], 1).reshape(-1, 68, 2)
    return LandmarkTrack(path, info, at, filled.astype(np.float32), seen, np.arange(len(at)))


@dataclass(frozen=True)
class Geometry:
    """Crops of the real video's face; dubs of it are measured in the same crops."""

    matrices: NDArray[np.float64]  # (T, 2, 3) display pixels -> crop
    size: int

    @classmethod
    def of(cls, real: LandmarkTrack, config: FaceConfig, size: int, margin: float = 1.0) -> Geometry:
        """Crops placed by the judge's landmarks as in training and `lipdub sync`."""
        return cls(crop_matrices(real.landmarks, real.times_s, config, size, margin=margin), size)

    def masks(self, real: LandmarkTrack, video: LandmarkTrack) -> tuple[Tensor, Tensor]:
        """Mouth mask of the real video, and the skin in it, (N, 1, S, S) each, in {0, 1}.

        Skin is the part of the mask that is outside the lips of both videos.
        """
        count = min(len(real.times_s), len(video.times_s))
        mouth, skin = np.zeros((2, count, self.size, self.size), np.float32)
        for i, matrix in enumerate(self.matrices[:count]):
            before, after = (transform(tracked.landmarks[i], matrix) for tracked in (real, video))
            mouth[i] = mouth_mask(before, self.size)
            skin[i] = mouth[i] * (1 - lips_mask(before, self.size)) * (1 - lips_mask(after, self.size))
        return torch.from_numpy(mouth)[:, None], torch.from_numpy(skin)[:, None]

    def faces(self, video: LandmarkTrack, config: MediaConfig) -> Tensor:
        """Crops (N, 3, S, S) in [0, 1] of the frames of a video: N <= T, fewer only if it has fewer."""
        shown = replace(video, rows=video.rows[: len(self.matrices)])
        scale = np.array([video.scale, video.scale, 1.0])
        crops = [
            frame.patch(self.matrices[place] * scale, self.size)
            for frame, places in shown.frames(config)
            for place in places
        ]
        return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255


def lips_mask(points: NDArray[np.floating], size: int) -> NDArray[np.float32]:
    """Mask (S, S) of the lips and the mouth's interior, 1 inside; `points` (68, 2) in crop pixels."""
    mask = np.zeros((size, size), np.uint8)
    corners = np.rint(np.clip(points[LIPS], -2 * size, 3 * size)).astype(np.int32)
    cv2.fillConvexPoly(mask, cv2.convexHull(corners), 1)
    return np.maximum(mask.astype(np.float32), parted_lips(points, size))
