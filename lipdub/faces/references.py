"""Reference crops of a person, selected by KMeans (only home of sklearn).

Thesis 3.5: KMeans on the landmarks of lips and chin finds K groups of mouths, and one frame represents each. Here
several frames may represent a group, in different head poses; of each group a dubbed frame uses the one whose pose is
nearest to its own. MuseTalk 1.5 found references in the same pose best for training (arXiv:2410.10122).
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from threading import Thread

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from lipdub.affine import transform
from lipdub.config import ReferenceConfig
from lipdub.errors import ResourceError
from lipdub.faces.backend import Frame
from lipdub.faces.crop import CHIN, to_unit_crop
from lipdub.faces.mouth_shape import OPENINGS, closed_rest, mouth_shape, rest_shape
from lipdub.faces.open_mouth import never_opens, opened

LIPS = slice(48, 68)
MOUTH_ROWS, MOUTH_COLUMNS = (0.5, 0.9), (0.25, 0.75)  # of the crop side; holds the mouth with a margin of 1 or 1.25
# Affine copies that fill free places: about the head motion inside one cluster.
COPY_ANGLE, COPY_SCALE, COPY_SHIFT = 5.0, 0.05, 0.03  # degrees, log scale, crop sides; uniform in +-
POSE_POINTS = [*range(27, 36), 36, 39, 42, 45]  # nose and eye corners: in the unit crop they move as the head turns
DRAWN_OPEN = (0.08, 0.2, 0.4)  # by how much mouths that never open are drawn open, in mouth widths
NEARER = 0.005  # crop sides, root mean square: by how much nearer in pose another view must be to replace the current


@dataclass(frozen=True)
class Selection:
    """The reference faces of one identity: R, of K groups of mouths."""

    crops: NDArray[np.uint8]  # (R, S, S, 3) RGB
    landmarks: NDArray[np.float32]  # (R, 68, 2) crop pixels
    shapes: NDArray[np.float32]  # (R, 8) mouth-shape code of each
    frames: NDArray[np.int64]  # (R,) number of each face in the order of `push`; a copy has its original's
    group: NDArray[np.int64]  # (R,) ascending
    rest: NDArray[np.float32]  # (8,) mouth at rest over the whole pool; see `closed_rest`
    drawn: NDArray[np.bool_]  # (R,) whether a closed mouth was drawn open

    def only(self, which: NDArray[np.bool_]) -> Selection:
        """The references at which `which` (R,) is True; at least one."""
        kept = {each.name: getattr(self, each.name)[which] for each in fields(self) if each.name != "rest"}
        return Selection(**kept, rest=self.rest)


@dataclass(frozen=True)
class _Candidate:
    crop: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    frame: int
    sharpness: float
    opening: float
    drawn: bool = False


class ReferencePool:
    """Candidate crops of one identity, collected while a video is read.

    At most `config.pool` crops are kept, spread evenly over all faces that were offered: every n-th face is kept. When
    the pool is full, the less sharp of each two neighbours is dropped (never the most closed mouth), and n doubles.

    Args:
        config: all but `exclude` is used.
    """

    def __init__(self, config: ReferenceConfig) -> None:
        self._config = config
        self._kept: list[_Candidate] = []
        self._offered = 0
        self._every = 1
        if config.sampling == "kmeans":  # `cluster` would have to wait a second for the import
            Thread(target=import_module, args=("sklearn.cluster",)).start()

    def __len__(self) -> int:
        return len(self._kept)

    def wants(self) -> bool:
        """Whether `push` would keep the next face. If False, that face is counted as offered and must not be pushed."""
        is_due = self._offered % self._every == 0
        self._offered += not is_due
        return is_due

    def push(self, crop: Frame, landmarks: NDArray[np.floating], sharpness: float | None = None) -> None:
        """Offer the next face to the pool.

        Args:
            crop: (S, S, 3) RGB, S the same for all.
            landmarks: (68, 2) crop pixels.
            sharpness: measured here if absent, and only for a face that is kept.
        """
        number, self._offered = self._offered, self._offered + 1
        if number % self._every:
            return
        sharp = _sharpness(crop) if sharpness is None else sharpness
        points = np.array(landmarks, np.float32)
        self._kept.append(
            _Candidate(crop.copy(), points, number, sharp, float(mouth_shape(points[None])[0, OPENINGS].mean()))
        )
        if len(self._kept) > max(1, self._config.pool):
            self._thin()

    def _thin(self) -> None:
        closed = min(self._kept, key=lambda face: face.opening)
        pairs = [self._kept[i : i + 2] for i in range(0, len(self._kept), 2)]
        self._kept = [max(pair, key=lambda face: (face is closed, face.sharpness)) for pair in pairs]
        self._every *= 2

    def select(
        self,
        seed: int = 0,
        views: int = 1,
        covered: Callable[[Sequence[Frame], Sequence[NDArray[np.float32]]], NDArray[np.bool_]] | None = None,
    ) -> Selection:
        """References of K = config.count groups; with `config.closed_mouth` the most closed mouth's group is first.

        Where a mouth never opens, those of the first group drawn open take the last places, with `draw_open`. Fewer
        candidates or clusters than K leave groups free; with `augment` affine copies fill them (Table 4.1,
        "KMeans + Aug"), else there are fewer.

        Args:
            seed: of KMeans, of random sampling and of the copies.
            views: most references of a group, in poses as different as the group has.
            covered: which of some crops with their landmarks show something before the mouth, (N,). Those are left out,
                as long as there are others.

        Raises:
            ValueError: nothing was pushed, or an unknown `sampling`.
        """
        if not self._kept:
            raise ValueError("no face to choose references from")
        if covered is not None:
            hidden = covered([face.crop for face in self._kept], [face.landmarks for face in self._kept])
            self._kept = [face for face, no in zip(self._kept, hidden, strict=True) if not no] or self._kept
        rng = np.random.default_rng(seed)
        groups = [[self._kept[i] for i in group] for group in self._choose_groups(rng, seed, max(1, views))]
        landmarks = np.stack([face.landmarks for group in groups for face in group])
        if self._config.draw_open and never_opens(mouth_shape(landmarks)):
            openings = DRAWN_OPEN[max(0, len(DRAWN_OPEN) + 1 - self._config.count) :]
            groups = groups[: max(1, self._config.count - len(openings))]
            groups += [[*drawn] for drawn in zip(*(_drawn_open(face, openings) for face in groups[0]), strict=True)]
        if self._config.augment:
            originals = [face for group in groups for face in group]
            for number in range(self._config.count - len(groups)):
                groups.append([_affine_copy(originals[number % len(originals)], rng)])
        chosen = [face for group in groups for face in group]
        points = np.stack([face.landmarks for face in chosen])
        return Selection(
            crops=np.stack([face.crop for face in chosen]),
            landmarks=points,
            shapes=mouth_shape(points),
            frames=np.array([face.frame for face in chosen]),
            group=np.repeat(np.arange(len(groups)), [len(group) for group in groups]),
            rest=closed_rest(rest_shape(mouth_shape(np.stack([face.landmarks for face in self._kept])))),
            drawn=np.array([face.drawn for face in chosen]),
        )

    def _choose_groups(self, rng: np.random.Generator, seed: int, views: int) -> list[list[int]]:
        """Distinct places in the pool: at most K groups of at most `views`."""
        frames = np.array([face.frame for face in self._kept])
        landmarks = np.stack([face.landmarks for face in self._kept])
        sharpnesses = np.array([face.sharpness for face in self._kept])
        openings = np.array([face.opening for face in self._kept])
        places = np.arange(len(self._kept))
        match self._config.sampling:
            case "kmeans":
                labels = cluster(landmarks, self._config.count, seed)
            case "random" | "neighbourhood":
                if self._config.sampling == "neighbourhood":  # a whole track has no target: around its middle
                    away = np.abs(frames - (frames[0] + frames[-1]) / 2)
                    places = places[away <= max(self._config.neighbourhood, away.min())]
                places = np.sort(rng.choice(places, min(self._config.count, len(places)), replace=False))
                labels = np.full(len(self._kept), -1)
                labels[places] = np.arange(len(places))
            case other:
                raise ValueError(f"reference.sampling is random, neighbourhood or kmeans, not {other!r}")
        poses = _poses(landmarks)

        def best(members: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.int64]:
            return members[best_of_each(_assign_views(poses[members], views), scores[members])]

        groups = [best(np.flatnonzero(labels == label), sharpnesses) for label in range(labels.max() + 1)]
        if self._config.closed_mouth:
            closed = int(openings.argmin())
            own = int(labels[closed])  # it represents its own cluster; if it was not drawn, it replaces the last
            groups.pop(own if own >= 0 else -1)
            members = np.flatnonzero(labels == own) if own >= 0 else np.array([closed])
            groups.insert(0, best(members, -openings))
        return [group.tolist() for group in groups]


class ReferenceStore(Mapping[int, Selection]):
    """References of every track of a video, in an unnamed temporary file: each takes megabytes.

    `keep` writes those of a track; a lookup reads them from the file.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="lipdub-")  # noqa: SIM115  # lives as long as the store
        weakref.finalize(self, self._file.close)
        self._places: dict[int, int] = {}

    def __getitem__(self, track: int) -> Selection:
        self._file.seek(self._places[track])
        return Selection(*(np.load(self._file, allow_pickle=False) for _ in fields(Selection)))

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def keep(self, track: int, references: Selection) -> None:
        """Add the references of a track.

        Raises:
            ResourceError: the disk of temporary files is full.
        """
        self._places[track] = self._file.seek(0, 2)
        try:
            for each in fields(Selection):
                np.save(self._file, getattr(references, each.name), allow_pickle=False)
            self._file.flush()
        except OSError as error:
            where = f"cannot keep reference faces in {tempfile.gettempdir()}: {error}"
            raise ResourceError(where, "make room there, or name another folder in TMPDIR") from error


def cluster(landmarks: NDArray[np.floating], count: int, seed: int = 0) -> NDArray[np.int64]:
    """KMeans groups of faces by lips (48-67) and chin (3-13), each seen in its own unit crop [3.5].

    Args:
        landmarks: (T, 68, 2) pixels of any crop or frame.
        count: most groups; fewer if there are fewer different faces.
        seed: same seed, same groups.

    Returns:
        (T,) group numbers 0, 1, ..., none without a face.
    """
    from sklearn.cluster import KMeans  # slow to import; see `ReferencePool`

    unit = to_unit_crop(landmarks)
    features = np.concatenate([unit[:, LIPS], unit[:, CHIN]], 1).reshape(len(unit), -1)
    different = len(np.unique(features.round(4), axis=0))
    labels = KMeans(min(count, different), n_init=1, random_state=seed).fit_predict(features.round(4))
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def best_of_each(labels: NDArray[np.integer], scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Index of the highest score of each label, ascending by label; of equal scores the first.

    Args:
        labels: (T,) of `cluster`, for example.
        scores: (T,), such as the sharpness.
    """
    best_first = np.argsort(-scores, kind="stable")
    return best_first[np.unique(labels[best_first], return_index=True)[1]]


def nearest_poses(landmarks: NDArray[np.floating], references: Selection) -> NDArray[np.int64]:
    """The reference of each group whose head pose is nearest to that of each frame.

    Args:
        landmarks: (T, 68, 2) of the frames, in order; any pixels.
        references: R of K groups.

    Returns:
        (T, K) indices in [0, R), ascending. A reference is replaced only when another is nearer by NEARER, so that
        jitter of the landmarks changes nothing.
    """
    away = _pose_distances(_poses(landmarks), _poses(references.landmarks))
    chosen = []
    for group in np.unique(references.group):
        members = np.flatnonzero(references.group == group)
        here, now = away[:, members], int(away[0, members].argmin())
        best, steps = here.argmin(1), []
        for row, nearest in zip(here, best.tolist(), strict=True):
            if row[nearest] < row[now] - NEARER:
                now = nearest
            steps.append(now)
        chosen.append(members[steps])
    return np.stack(chosen, 1)


def _poses(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Head poses (N, 26): positions of nose and eye corners in the unit crop."""
    return to_unit_crop(landmarks)[:, POSE_POINTS].reshape(len(landmarks), -1).astype(np.float64)


def _pose_distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, M) root mean square distance in crop sides of poses (N, 26) and (M, 26)."""
    return cdist(a, b) / np.sqrt(len(POSE_POINTS))


def _assign_views(poses: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Which of at most `count` views each pose (N, 26) of a group belongs to, (N,).

    The first view is around the pose nearest to the mean, each further one around the pose farthest from those before.
    """
    leaders = [int(_pose_distances(poses, poses.mean(0, keepdims=True))[:, 0].argmin())]
    away = _pose_distances(poses, poses[leaders])[:, 0]
    while len(leaders) < min(count, len(poses)) and away.max() > NEARER:
        leaders.append(int(away.argmax()))
        away = np.minimum(away, _pose_distances(poses, poses[leaders[-1:]])[:, 0])
    return _pose_distances(poses, poses[leaders]).argmin(1)


def sharpness(frame: Frame) -> float:
    """Variance of the Laplacian over the mouth region of a face crop (S, S, 3), in grey levels squared."""
    size = frame.shape[0]
    rows, columns = (slice(round(a * size), round(b * size)) for a, b in (MOUTH_ROWS, MOUTH_COLUMNS))
    grey = cv2.cvtColor(np.ascontiguousarray(frame[rows, columns]), cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


_sharpness = sharpness  # `push` has a parameter of that name


def _affine_copy(face: _Candidate, rng: np.random.Generator) -> _Candidate:
    """A face slightly rotated, scaled and shifted."""
    size = face.crop.shape[0]
    angle, scale = rng.uniform(-COPY_ANGLE, COPY_ANGLE), np.exp(rng.uniform(-COPY_SCALE, COPY_SCALE))
    matrix = np.array(cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), angle, scale), np.float64)
    matrix[:, 2] += rng.uniform(-COPY_SHIFT, COPY_SHIFT, 2) * size
    copy = cv2.warpAffine(face.crop, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return replace(face, crop=np.asarray(copy, np.uint8), landmarks=transform(face.landmarks, matrix))


def _drawn_open(face: _Candidate, openings: Sequence[float]) -> list[_Candidate]:
    """A face with closed or parted lips, its mouth drawn open by each amount."""
    return [
        replace(face, crop=crop, landmarks=landmarks, drawn=True)
        for crop, landmarks in opened(face.crop, face.landmarks, openings)
    ]
