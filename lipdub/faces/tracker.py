"""Face tracking in one pass: periodic detection, landmarks in between.

Each frame costs one small patch and one landmark call per face; the detector runs on every k-th frame, after a cut and
while a face is missing. In a picture that stands still faces stay where they are. Only landmarks are kept: 550 bytes
per face and frame.

Landmarks take as long as the rest, and are found from those of the frame before. What does not depend on these is done
ahead in another thread by `follow`: thumbnails, cuts, and the next periodic detection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from threading import Lock
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from lipdub.config import FaceConfig
from lipdub.faces.backend import Detections, FaceBackend, Frame
from lipdub.faces.builtin import box_of_landmarks
from lipdub.faces.crop import crop_matrix
from lipdub.faces.reid import OTHER_PERSON, SIDE, SMALLEST, Pattern, People, likeness, pattern, should_sample
from lipdub.faces.shots import ShotDetector
from lipdub.faces.track import overlap

PATCH = 192  # side in pixels of the patch given to the landmark network
MAX_UNCONFIRMED = 3  # periodic detections in a row; detections after a cut or for another missing face do not count
PATCH_OVER_BOX = 1.7  # side of that patch over the larger side of the box
LOOKAHEAD = 4  # frames that `follow` holds behind the one being tracked; a detection takes as long as about two

UPRIGHT_SCORE = 0.8  # of the detector: clear, upright faces reach it; foreheads of inverted faces do not
TURNED_MARGIN = 0.03  # by which the score in a rotated picture must be higher
TURNED_SCORE = 0.7  # from which a face that is found only in a rotated picture is reported


class View(Protocol):
    """One upright frame, of which parts can be read without converting all of it."""

    def thumbnail(self, max_side: int) -> tuple[Frame, float]:
        """The frame shrunk to `max_side`, and its scale: pixels of it per display pixel."""
        ...

    def patch(self, matrix: NDArray[np.float64], size: int) -> Frame:
        """The frame warped by the 2x3 affine display -> patch, (size, size, 3)."""
        ...


class NumberedView(View, Protocol):
    """A frame that knows its number."""

    @property
    def index(self) -> int:
        """Number of the frame."""
        ...


AnyView = TypeVar("AnyView", bound=NumberedView)


@dataclass(frozen=True)
class _Overview:
    """What a frame shows without any tracked face."""

    small: Frame  # thumbnail
    scale: float  # its pixels per display pixel
    still: bool  # it is the thumbnail before
    cut: bool  # a shot begins
    in_doubt: bool  # one may begin; the faces decide


@dataclass(eq=False)
class _Coming(Generic[AnyView]):
    """A frame whose turn is about to come."""

    view: AnyView
    overview: Future[_Overview]
    detections: Future[list[Detections]] | None = None  # of the frame; empty if it stands still


@dataclass(frozen=True)
class TrackedFace:
    """One face in the current frame."""

    track: int
    landmarks: NDArray[np.float32]  # (68, 2) display pixels
    confidence: float


@dataclass(frozen=True)
class Track:
    """One person through one shot, a row for every frame from `first` on; gaps are interpolated, confidence 0."""

    id: int
    shot: int
    first: int
    landmarks: NDArray[np.float32]  # (T, 68, 2)
    confidence: NDArray[np.float32]  # (T,)
    opens_shot: bool = False  # its first frame is the shot's first: the face does not come into view
    closes_shot: bool = False  # its last frame is the shot's last
    returns: int | None = None  # number of the person's first track, if this is a later one

    @property
    def person(self) -> int:
        """Number of the person, which is that of their first track."""
        return self.id if self.returns is None else self.returns

    @property
    def frames(self) -> range:
        """Frame numbers of the rows."""
        return range(self.first, self.first + len(self.landmarks))

    @property
    def boxes(self) -> NDArray[np.float32]:
        """(T, 4) boxes round the landmarks."""
        return np.concatenate([self.landmarks.min(1), self.landmarks.max(1)], 1)


@dataclass(eq=False)  # compared by identity: comparing arrays gives no answer
class _Active:
    id: int
    first: int
    box: NDArray[np.float32]
    landmarks: list[NDArray[np.float32] | None] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    missing: int = 0  # rows at the end without landmarks
    confirmed: int = 1  # rows up to the last detection of the face
    seen: int = 0  # rows with landmarks
    patterns: dict[int, Pattern] = field(default_factory=dict)  # row -> texture, for re-identification

    def forget_unconfirmed(self) -> None:
        """Drop the rows since the last detection."""
        del self.landmarks[self.confirmed :], self.confidence[self.confirmed :]
        self.patterns = {row: pattern for row, pattern in self.patterns.items() if row < self.confirmed}
        known = [row is not None for row in self.landmarks]
        self.missing = len(known) if not any(known) else known[::-1].index(True)


class FaceTracker:
    """Push frames in order, or `follow` all of them; then `finish()`.

    Args:
        backend: finds boxes and landmarks.
        config: thresholds.
        rate: frames a second, for the gap and length limits.
    """

    def __init__(self, backend: FaceBackend, config: FaceConfig, rate: float) -> None:
        self._backend, self._config = backend, config
        self._detecting = Lock()
        self._max_gap = max(1, round(config.max_gap_s * rate))
        self._min_rows = max(1, round(config.min_track_s * rate))
        self._shots = ShotDetector(config.shot_threshold)
        self._seen: Frame | None = None  # the last thumbnail
        self._active: list[_Active] = []
        self._shot, self._shot_start = 0, 0
        self._people = People()
        self._next_id = 0
        self._since_detection = config.detect_every
        self.n_detections, self._frames = 0, 0
        self._turned: list[tuple[int, NDArray[np.float32]]] = []  # frames and boxes of faces that are not upright
        self.shots: list[int] = []  # first frame of each shot
        self.tracks: list[Track] = []  # finished ones that were long enough

    @property
    def turned(self) -> list[int]:
        """Frames with a face that is not upright, and is not tracked later in the shot either."""
        return [index for index, _ in self._turned]

    @property
    def following(self) -> set[int]:
        """Numbers of the faces tracked at the moment."""
        return {face.id for face in self._active}

    def push(self, index: int, view: View) -> list[TrackedFace]:
        """Track the faces of frame `index`; returns them."""
        return self._track(index, view, self._look(view))

    def follow(self, views: Iterable[AnyView]) -> Generator[tuple[AnyView, list[TrackedFace]]]:
        """Each view with the faces that `push` would return; LOOKAHEAD views are taken before they are asked for."""
        source, coming = iter(views), deque[_Coming[AnyView]]()
        thread = ThreadPoolExecutor(1)
        try:
            while True:
                for view in islice(source, LOOKAHEAD + 1 - len(coming)):
                    coming.append(_Coming(view, thread.submit(self._look, view)))
                if not coming:
                    return
                due = self._config.detect_every - self._since_detection  # unless a cut or a missing face comes first
                if due < len(coming) and coming[due].detections is None:
                    coming[due].detections = thread.submit(self._search_early, coming[due].overview)
                now = coming.popleft()
                yield now.view, self._track(now.view.index, now.view, now.overview.result(), now.detections)
        finally:
            thread.shutdown(cancel_futures=True)

    def _look(self, view: View) -> _Overview:
        """Look at the next frame."""
        small, scale = view.thumbnail(self._config.detect_side)
        still, self._seen = self._seen is not None and np.array_equal(small, self._seen), small
        return _Overview(small, scale, still, self._shots.push(small), self._shots.in_doubt)

    def _search_early(self, overview: Future[_Overview]) -> list[Detections]:
        seen = overview.result()
        return [] if seen.still else self._search([seen.small])

    def _search(self, pictures: list[Frame]) -> list[Detections]:
        """Faces of pictures; detectors need not be safe to use in two threads at once."""
        with self._detecting:
            return self._backend.detect(pictures)

    def _track(
        self, index: int, view: View, overview: _Overview, detections: Future[list[Detections]] | None = None
    ) -> list[TrackedFace]:
        """Track the faces of a frame; `detections` are those of its thumbnail, if they were begun."""
        self._frames += 1
        if overview.still:
            return self._keep_faces()
        if overview.cut or (overview.in_doubt and self._shows_other_person(view)):
            self._end_tracks(self._active, shot_over=True)
            self._shot, self._shot_start = self._shot + 1, index
            self._since_detection = self._config.detect_every
            self.shots.append(index)
        elif not self.shots:
            self.shots.append(index)
        self._since_detection += 1
        if self._since_detection > self._config.detect_every or any(face.missing for face in self._active):
            (boxes,) = self._search([overview.small]) if detections is None else detections.result()
            self._detect(index, overview, boxes)
        return self._locate_faces(view)

    def finish(self, *, shot_over: bool = True) -> list[Track]:
        """All tracks long enough, in order of appearance.

        Args:
            shot_over: whether the last frame pushed ends its shot; False if the video continues.
        """
        self._min_rows = min(self._min_rows, max(1, self._frames))  # of a video that is shorter than that
        self._end_tracks(self._active, shot_over=shot_over)
        return sorted(self.tracks, key=lambda track: (track.first, track.id))

    def _shows_other_person(self, view: View) -> bool:
        """Whether a tracked face is now another person's: a cut between two people in the same framing."""
        known = [face for face in self._active if face.patterns and not face.missing]
        for face, (landmarks, confidence) in zip(known, self._landmarks(known, view), strict=True):
            now = pattern(view.patch(crop_matrix(landmarks, SIDE), SIDE)) if confidence else None
            if now is not None and likeness(list(face.patterns.values()), [now]) < OTHER_PERSON:
                return True
        return False

    def _detect(self, index: int, overview: _Overview, detections: Detections) -> None:
        self._since_detection = 1
        self.n_detections += 1
        boxes = detections.boxes / np.float32(overview.scale)
        large = (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0) >= self._config.min_face
        usable = large & (detections.scores >= self._config.min_score)
        boxes, scores = boxes[usable], detections.scores[usable]
        shared = overlap(np.array([face.box for face in self._active]).reshape(-1, 4), boxes)
        rows, columns = linear_sum_assignment(-shared)
        taken, confirmed = set(), set()
        for row, column in zip(rows, columns, strict=True):
            if shared[row, column] >= self._config.link_iou:
                taken.add(column)
                confirmed.add(row)
                if self._active[row].missing:
                    self._active[row].box = boxes[column]
        lost = self._lost_faces(confirmed)
        new = [c for c in range(len(boxes)) if c not in taken and not np.any(shared[:, c] >= self._config.link_iou)]
        wrong = self._not_upright(index, overview, boxes[new], scores[new])
        for column, turned in zip(new, wrong, strict=True):
            if not turned:
                self._active.append(_Active(self._next_id, index, boxes[column]))
                self._next_id += 1
                self._turned = [
                    (frame, box)
                    for frame, box in self._turned
                    if frame < self._shot_start or not _near_boxes(boxes[column], box[None])[0]
                ]
        self._end_tracks(lost)

    def _not_upright(
        self, index: int, overview: _Overview, boxes: NDArray[np.float32], scores: NDArray[np.float32]
    ) -> list[bool]:
        """Whether each new box is of a face that is not upright: its score is higher in a rotated picture.

        On an inverted face the detector finds the forehead, which the landmark network takes for a face.
        """
        doubtful = scores < UPRIGHT_SCORE
        first = (
            index == self._shot_start and not self._active and not len(boxes)
        )  # the detector may miss an inverted face
        wrong = [False] * len(boxes)
        if not (doubtful.any() or first):
            return wrong
        small = overview.small
        pictures = [np.ascontiguousarray(np.rot90(small, turns)) for turns in (1, 2, 3)]
        for turns, detections in zip((1, 2, 3), self._search(pictures), strict=True):
            back = _rotate_back(detections.boxes, small.shape[:2], turns) / np.float32(overview.scale)
            large = (back[:, 2:] - back[:, :2]).max(1, initial=0) >= self._config.min_face
            if first:
                self._turned += [(index, box) for box in back[large & (detections.scores >= TURNED_SCORE)]]
            for number in np.flatnonzero(doubtful):
                near = large & _near_boxes(boxes[number], back)
                if np.any(detections.scores[near] > scores[number] + TURNED_MARGIN):
                    wrong[number] = True
                    self._turned.append((index, boxes[number]))
        return wrong

    def _lost_faces(self, confirmed: set[int]) -> list[_Active]:
        """Faces that MAX_UNCONFIRMED periodic detections did not find, though the landmark network still does."""
        lost = []
        for row, face in enumerate(self._active):
            rows = len(face.landmarks) + 1  # with this frame
            if row in confirmed:
                face.confirmed = rows
            elif not face.missing and rows - face.confirmed >= MAX_UNCONFIRMED * self._config.detect_every:
                face.forget_unconfirmed()
                lost.append(face)
        return lost

    def _keep_faces(self) -> list[TrackedFace]:
        """The faces of a picture that is shown on; it counts as confirmed if the one before did."""
        for face in self._active:
            face.landmarks.append(face.landmarks[-1])
            face.confidence.append(face.confidence[-1])
            face.missing += bool(face.missing)
            face.confirmed += 1
        self._end_tracks([face for face in self._active if face.missing > self._max_gap])
        return [
            TrackedFace(face.id, landmarks, face.confidence[-1])
            for face in self._active
            if (landmarks := face.landmarks[-1]) is not None
        ]

    def _locate_faces(self, view: View) -> list[TrackedFace]:
        seen = []
        for face, (moved, confidence) in zip(self._active, self._landmarks(self._active, view), strict=True):
            if confidence:
                face.landmarks.append(moved)
                face.confidence.append(confidence)
                face.missing, face.box = 0, box_of_landmarks(moved)
                _sample_pattern(face, moved, view)
                seen.append(TrackedFace(face.id, moved, confidence))
            else:
                face.landmarks.append(None)
                face.confidence.append(0.0)
                face.missing += 1
        never_seen = [face for face in self._active if face.missing == len(face.landmarks)]
        self._end_tracks(never_seen)
        self._end_tracks([face for face in self._active if face.missing > self._max_gap])
        self._end_tracks(self._duplicates())
        return [tracked_face for tracked_face in seen if tracked_face.track in self.following]

    def _landmarks(self, faces: list[_Active], view: View) -> list[tuple[NDArray[np.float32], float]]:
        """Landmarks (68, 2) of each face near its last position, display pixels, and confidence; 0 if not seen."""
        if not faces:
            return []
        matrices = [_patch_matrix(face.box) for face in faces]
        patches = [view.patch(matrix, PATCH) for matrix in matrices]
        boxes = np.array([_transform_box(m, face.box) for m, face in zip(matrices, faces, strict=True)], np.float32)
        results = []
        for matrix, landmarks, confidence in zip(matrices, *self._backend.landmarks(patches, boxes), strict=True):
            moved = ((landmarks - matrix[:, 2]) / matrix[0, 0]).astype(np.float32)
            clear = confidence >= self._config.min_confidence and np.isfinite(moved).all()
            results.append((moved, float(confidence) if clear else 0.0))
        return results

    def _duplicates(self) -> list[_Active]:
        """Tracks that now follow the same face as an older track."""
        boxes = np.array([face.box for face in self._active]).reshape(-1, 4)
        shared = np.triu(overlap(boxes, boxes), 1)
        return [self._active[column] for column in np.flatnonzero((shared > 0.6).any(0))]

    def _end_tracks(self, faces: list[_Active], *, shot_over: bool = False) -> None:
        for face in list(faces):
            self._active.remove(face)
            rows = len(face.landmarks) - face.missing
            if rows >= self._min_rows:
                landmarks = _interpolate_gaps(face.landmarks[:rows])
                confidence = np.array(face.confidence[:rows], np.float32)
                opens, closes = face.first == self._shot_start, shot_over and not face.missing
                frames = range(face.first, face.first + rows)
                person = self._people.number(face.id, frames, list(face.patterns.values()))
                returns = None if person == face.id else person
                track = Track(face.id, self._shot, face.first, landmarks, confidence, opens, closes, returns)
                self.tracks.append(track)


def _sample_pattern(face: _Active, landmarks: NDArray[np.float32], view: View) -> None:
    """Keep a texture pattern of some rows, if the face is large enough for re-identification."""
    face.seen += 1
    if should_sample(face.seen) and float(np.ptp(landmarks, 0).max()) >= SMALLEST:
        known_by = pattern(view.patch(crop_matrix(landmarks, SIDE), SIDE))
        if known_by is not None:
            face.patterns[len(face.landmarks) - 1] = known_by


def _rotate_back(boxes: NDArray[np.float32], size: tuple[int, ...], turns: int) -> NDArray[np.float32]:
    """Boxes of a picture (H, W) rotated left by quarter turns, in the pixels of the unrotated picture."""
    high, wide = size[0], size[1]
    x1, y1, x2, y2 = boxes.T
    corners = {
        1: (wide - y2, x1, wide - y1, x2),
        2: (wide - x2, high - y2, wide - x1, high - y1),
        3: (y1, high - x2, y2, high - x1),
    }
    return np.stack(corners[turns], 1).astype(np.float32)


def _near_boxes(box: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(N,) whether the centre of each of `others` is inside `box` at twice its size, or the reverse."""
    middle, side = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    middles, sides = (others[:, :2] + others[:, 2:]) / 2, others[:, 2:] - others[:, :2]
    return (np.abs(middles - middle) <= np.maximum(side, sides)).all(1)


def _patch_matrix(box: NDArray[np.float32]) -> NDArray[np.float64]:
    side = PATCH_OVER_BOX * float(max(box[2] - box[0], box[3] - box[1]))
    scale = PATCH / max(side, 1.0)
    centre = (box[:2] + box[2:]) / 2
    return np.array([[scale, 0, PATCH / 2 - scale * centre[0]], [0, scale, PATCH / 2 - scale * centre[1]]])


def _transform_box(matrix: NDArray[np.float64], box: NDArray[np.float32]) -> NDArray[np.float64]:
    return (box.reshape(2, 2) * matrix[0, 0] + matrix[:, 2]).ravel()


def _interpolate_gaps(rows: list[NDArray[np.float32] | None]) -> NDArray[np.float32]:
    """Landmarks (T, 68, 2) with missing rows interpolated between their neighbours."""
    known = [i for i, row in enumerate(rows) if row is not None]
    values = np.stack([row for row in rows if row is not None]).reshape(len(known), -1)
    at = np.arange(len(rows))
    filled = np.stack([np.interp(at, known, column) for column in values.T], 1)
    return filled.reshape(len(rows), 68, 2).astype(np.float32)
