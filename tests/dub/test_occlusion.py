from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lipdub.affine import transform
from lipdub.dub.analyze import FaceJob
from lipdub.dub.inference import FaceCrop
from lipdub.dub.occlusion import AHEAD, TOGETHER, OcclusionTracker
from lipdub.faces.crop import TEMPLATE, crop_matrix
from lipdub.faces.tracker import Track

SIDE, CELLS = 96, 64
GREY = np.full((SIDE, SIDE, 3), 120, np.uint8)


def job(rows: int) -> FaceJob:
    landmarks = np.repeat((TEMPLATE * 60 + 20)[None], rows, 0).astype(np.float32)
    track = Track(0, 0, 0, landmarks, np.full(rows, 0.9, np.float32))
    matrices = np.stack([crop_matrix(points, SIDE, margin=4 / 3) for points in landmarks])
    references = SimpleNamespace(crops=GREY[None])
    return FaceJob(
        track, matrices, np.ones(rows, np.float32), {0: references}, np.zeros((rows, 8)), np.zeros((rows, 1))
    )  # type: ignore[dict-item,arg-type]


class Told:
    """A detector that says what it was told: for each frame the chance in a rectangle (rows, columns) of the crop."""

    def __init__(self, chances: list[float], where: tuple[slice, slice]) -> None:
        self.chances, self.where = iter(chances), where

    def usual(self, crops: list[np.ndarray]) -> np.ndarray:
        assert all(crop.shape == GREY.shape for crop in crops)
        return crops[0]

    def probabilities(self, crops: list[np.ndarray], usual: np.ndarray) -> np.ndarray:
        found = np.zeros((len(crops), CELLS, CELLS), np.float32)
        for each in found:
            each[self.where] = next(self.chances)
        return found


def marked(chances: list[float], where: tuple[slice, slice]) -> tuple[list[list[FaceCrop]], OcclusionTracker]:
    """The crops of each frame."""
    tracker = OcclusionTracker(Told(chances, where), [job(len(chances))])  # type: ignore[arg-type]
    frames = [(SimpleNamespace(index=n), [FaceCrop(n, 0, n, GREY)]) for n in range(len(chances))]
    done = list(tracker.mark(iter(frames)))  # type: ignore[arg-type]
    assert [frame.index for frame, _ in done] == list(range(len(chances)))
    return [crops for _, crops in done], tracker


def chin() -> tuple[slice, slice]:
    """A patch of the crop before the chin, away from the lips."""
    points = transform(job(1).track.landmarks[0], job(1).matrices[0]) * CELLS / SIDE
    x, y = points[8]
    return slice(round(y) - 5, round(y) + 3), slice(round(x) - 5, round(x) + 5)


@pytest.mark.parametrize(
    ("chances", "found"),
    [
        ([0, 0.9, 0.9, 0.9, 0, 0], [0, 1, 1, 1, 0, 0]),
        ([0, 0.9, 0.9, 0, 0.9, 0.9], [0, 0, 0, 0, 0, 0]),  # two in a row are chance
        ([0.5, 0.9, 0.9, 0.9, 0.5, 0.5, 0], [1, 1, 1, 1, 1, 1, 0]),  # less is enough beside them
        ([0.5, 0.5, 0.5, 0.5, 0.9, 0.9, 0.9], [1, 1, 1, 1, 1, 1, 1]),
        ([0.5, 0, 0.5, 0.9, 0.9, 0.9, 0, 0.5], [0, 0, 1, 1, 1, 1, 0, 0]),
        ([0.5, 0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0, 0]),
        ([0.9, 0.9], [0, 0]),
    ],
)
def test_an_object_counts_from_three_frames_in_a_row_on(chances: list[float], found: list[int]) -> None:
    crops, tracker = marked(chances, chin())
    assert [one.occlusion is not None for (one,) in crops] == [bool(each) for each in found]
    assert tracker.hidden == 0
    for (one,) in crops:
        assert one.share == 1


@pytest.mark.parametrize(("beside", "found"), [(0, True), (16, False)])
def test_on_skin_less_is_enough(beside: int, found: bool) -> None:
    rows, columns = chin()
    crops, _ = marked([0.6] * 4, (rows, slice(columns.start - beside, columns.stop - beside)))  # 16 cells: background
    assert [one.occlusion is not None for (one,) in crops] == [found] * 4


def test_on_lips_it_is_not() -> None:
    points = transform(job(1).track.landmarks[0], job(1).matrices[0]) * CELLS / SIDE
    (left, top), (right, bottom) = points[48:68].min(0), points[48:68].max(0)
    lips = slice(round(top), round(bottom) + 1), slice(round(left), round(right) + 1)
    crops, _ = marked([0.6] * 4, lips)
    assert all(one.occlusion is None for (one,) in crops)


def test_the_mask_covers_the_object_and_little_more() -> None:
    rows, columns = chin()
    crops, _ = marked([0.9] * 4, (rows, columns))
    mask = crops[1][0].occlusion
    assert mask is not None and mask.shape == (SIDE, SIDE)
    object_ = np.zeros((CELLS, CELLS), bool)
    object_[rows, columns] = True
    fine = np.kron(object_, np.ones((3, 3), bool))[::2, ::2]  # 96 of 64
    assert mask[fine].all()
    assert mask.sum() < 1.8 * fine.sum()


def test_a_face_whose_lips_are_hidden_is_left_alone() -> None:
    everything = slice(0, CELLS), slice(0, CELLS)
    crops, tracker = marked([0, 0, 0.9, 0.9, 0.9, 0.9, 0.9, 0, 0], everything)
    assert [len(each) for each in crops] == [1, 1, 1, 0, 0, 0, 1, 1, 1]
    assert tracker.hidden == 3
    assert 0 < crops[2][0].share < 1 and 0 < crops[6][0].share < 1  # it fades
    assert crops[0][0].share == crops[8][0].share == 1


def test_an_object_beside_the_mouth_is_none_of_its_business() -> None:
    crops, _ = marked([0.95] * 6, (slice(0, 20), slice(0, CELLS)))
    assert all(one.occlusion is None for (one,) in crops)


def test_one_missed_frame_is_bridged() -> None:
    rows, columns = chin()
    tracker = OcclusionTracker(Told([], (rows, columns)), [job(8)])  # type: ignore[arg-type]
    left, right = (rows, slice(columns.start, columns.start + 5)), (rows, slice(columns.start + 5, columns.stop))
    told = tracker._detector
    frames = []
    for n in range(8):
        frames.append((SimpleNamespace(index=n), [FaceCrop(n, 0, n, GREY)]))

    def probabilities(crops: list[np.ndarray], usual: np.ndarray) -> np.ndarray:
        found = np.zeros((len(crops), CELLS, CELLS), np.float32)
        found[:, left[0], left[1]] = found[:, right[0], right[1]] = 0.9
        found[4][right] = 0.0
        return found

    told.probabilities = probabilities  # type: ignore[union-attr,method-assign,assignment]
    masks = [crops[0].occlusion for _, crops in tracker.mark(iter(frames))]  # type: ignore[arg-type]
    assert all(mask is not None for mask in masks)
    assert masks[4].sum() == masks[3].sum()


def test_faces_that_left_are_forgotten() -> None:
    first, second = job(10), job(10)
    second = replace(second, track=replace(second.track, first=10))
    tracker = OcclusionTracker(Told([0.9] * 20, chin()), [first, second])  # type: ignore[arg-type]
    frames = [(SimpleNamespace(index=n), [FaceCrop(n, n // 10, n % 10, GREY)]) for n in range(20)]
    frames.append((SimpleNamespace(index=20), []))
    for frame, crops in tracker.mark(iter(frames)):  # type: ignore[arg-type]
        assert [crop.occlusion is not None for crop in crops] == [True] * (frame.index < 20)
        assert 0 not in {*tracker._detections, *tracker._usual} or frame.index < 10
    assert not tracker._detections and not tracker._usual


def test_frames_without_a_face_do_not_wait() -> None:
    tracker = OcclusionTracker(Told([], chin()), [])  # type: ignore[arg-type]
    read: list[int] = []

    def frames():
        for n in range(6):
            read.append(n)
            yield SimpleNamespace(index=n), []

    for frame, _ in tracker.mark(frames()):
        assert len(read) == frame.index + 1


def test_frames_with_faces_wait_for_a_few_more() -> None:
    tracker = OcclusionTracker(Told([0.0] * 30, chin()), [job(30)])  # type: ignore[arg-type]
    read: list[int] = []

    def frames():
        for n in range(30):
            read.append(n)
            yield SimpleNamespace(index=n), [FaceCrop(n, 0, n, GREY)]

    for frame, _ in tracker.mark(frames()):
        assert min(30, frame.index + 1 + AHEAD) <= len(read) <= frame.index + AHEAD + TOGETHER
