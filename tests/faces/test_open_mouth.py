"""Closed mouths drawn open: a drawn face with pink lips whose seam, teeth and gap can be told by their colours."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lipdub.affine import transform
from lipdub.faces.crop import TEMPLATE
from lipdub.faces.mouth_shape import WITH_OPENING, mouth_shape
from lipdub.faces.open_mouth import blur_of, is_closed, never_opens, opened

S = 192
SKIN, LIPS, SEAM = (200, 160, 140), (180, 90, 90), (110, 50, 50)


def closed_landmarks(turn: float = 0.0, size: int = S) -> np.ndarray:
    """(68, 2) of a face whose lips touch, turned in the picture by `turn` degrees."""
    points = ((TEMPLATE - 0.5) / 1.25 + 0.5) * size
    points[[61, 62, 63]] = points[[67, 66, 65]] = (points[[61, 62, 63]] + points[[67, 66, 65]]) / 2
    points[[67, 66, 65], 1] += 0.5
    centre = (size / 2, size / 2)
    return transform(points, np.asarray(cv2.getRotationMatrix2D(centre, turn, 1.0), np.float64)).astype(np.float32)


def closed_face(landmarks: np.ndarray, blur: float = 0.0) -> np.ndarray:
    """(S, S, 3): skin, pink lips, and a dark line where they meet."""
    face = np.full((S, S, 3), SKIN, np.uint8)
    cv2.fillPoly(face, [np.rint(landmarks[48:60] * 8).astype(np.int32)], LIPS, cv2.LINE_AA, shift=3)
    seam = np.rint((landmarks[60:65] + landmarks[[60, 67, 66, 65, 64]]) * 4).astype(np.int32)
    cv2.polylines(face, [seam], False, SEAM, 1, cv2.LINE_AA, shift=3)
    cv2.circle(face, tuple(np.rint(landmarks[32]).astype(int).tolist()), 2, (25, 15, 15), -1)  # a nostril
    return cv2.GaussianBlur(face, (0, 0), blur) if blur else face


def column(picture: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(N, 3) from the middle of the upper lip to that of the lower one."""
    steps = np.linspace(landmarks[51], landmarks[57], 200)
    return picture[np.rint(steps[:, 1]).astype(int), np.rint(steps[:, 0]).astype(int)].astype(float)


@pytest.mark.parametrize("opening", [0.1, 0.25, 0.45])
@pytest.mark.parametrize("turn", [0.0, -12.0])
def test_the_landmarks_open_as_far_as_asked_and_the_chin_follows(opening: float, turn: float) -> None:
    closed = closed_landmarks(turn)
    [(_, landmarks)] = opened(closed_face(closed), closed, [opening])
    before, after = mouth_shape(np.stack([closed, landmarks]))
    asked = opening * before[5]  # mouth widths
    assert after[0] - before[0] == pytest.approx(asked, rel=0.03)
    assert after[6] - before[6] == pytest.approx(WITH_OPENING[6] * asked, rel=0.03)  # chin
    assert after[[4, 5, 7]] == pytest.approx(before[[4, 5, 7]], abs=0.16 * float(asked))  # the lip rises
    np.testing.assert_allclose(landmarks[17:48], closed[17:48], atol=1e-3)


def test_lips_keep_their_thickness_and_colour_and_part_over_teeth_and_dark() -> None:
    closed = closed_landmarks()
    face = closed_face(closed)
    [(picture, landmarks)] = opened(face, closed, [0.4])
    seen = column(picture, landmarks)
    pink = np.abs(seen - LIPS).max(1) < 12
    light = (np.ptp(seen, axis=1) < 40) & (seen.mean(1) > 90)  # teeth: hardly a tint
    dark = seen.mean(1) < 70
    first, last = np.flatnonzero(dark | light)[[0, -1]]
    assert light.sum() > 20 and dark.sum() > 20
    assert np.flatnonzero(light).mean() < np.flatnonzero(dark).mean()  # teeth hang from above
    gap = np.linalg.norm(landmarks[66] - landmarks[62])
    length = np.linalg.norm(landmarks[57] - landmarks[51]) / len(seen)
    assert (last - first) * length == pytest.approx(gap, rel=0.15)
    thick = np.linalg.norm(closed[57] - closed[66]), np.linalg.norm(closed[62] - closed[51])
    assert pink[last:].sum() * length == pytest.approx(thick[0], abs=2.5)
    assert pink[:first].sum() * length == pytest.approx(thick[1], abs=2.5)


def test_a_mouth_without_colour_is_drawn_without_colour() -> None:
    closed = closed_landmarks()
    face = np.repeat(cv2.cvtColor(closed_face(closed), cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    for picture, coloured in ((face, False), (closed_face(closed), True)):
        seen = column(*opened(picture, closed, [0.4])[0])
        assert seen.mean(1).min() < 60 and (np.ptp(seen, axis=1).max() > 20) == coloured
        assert coloured or np.ptp(seen, axis=1).max() <= 1


def test_what_is_drawn_is_as_blurred_as_the_picture() -> None:
    closed = closed_landmarks()
    steep = []
    for blur in (0.6, 2.5):
        face = closed_face(closed, blur)
        [(picture, landmarks)] = opened(face, closed, [0.4])
        steep.append(np.abs(np.diff(column(picture, landmarks).mean(1))).max())
    assert steep[0] > 1.5 * steep[1]


@pytest.mark.parametrize("blur", [0.8, 1.5, 3.0])
def test_the_blur_of_a_picture_is_found_at_its_edges(blur: float) -> None:
    rng = np.random.default_rng(0)
    large = np.full((768, 768), 150, np.uint8)
    for corners in rng.integers(0, 768, (60, 3, 2)):
        cv2.fillPoly(large, [corners.astype(np.int32)], int(rng.integers(20, 230)))
    picture = cv2.GaussianBlur(cv2.resize(large, (S, S), interpolation=cv2.INTER_AREA), (0, 0), blur)
    assert blur_of(picture) == pytest.approx(blur, rel=0.1)


def test_eyes_nose_and_what_lies_beside_the_jaw_stay_as_they_are() -> None:
    rng = np.random.default_rng(0)
    closed = closed_landmarks()
    face = cv2.GaussianBlur(rng.integers(0, 256, (S, S, 3), dtype=np.uint8), (0, 0), 1.5)
    [(picture, _)] = opened(face, closed, [0.5])
    base = int(closed[33, 1]) - 8
    np.testing.assert_allclose(picture[:base].astype(int), face[:base], atol=1)
    np.testing.assert_allclose(picture[:, :10].astype(int), face[:, :10], atol=1)
    assert (picture != face).any()


def test_the_lips_are_cut_where_the_picture_shows_that_they_meet() -> None:
    closed = closed_landmarks()
    face = closed_face(closed)
    off = closed.copy()
    off[60:68, 1] += 1.5  # the landmarks are a little too low
    [(picture, landmarks)] = opened(face, off, [0.4])
    seen = column(picture, landmarks)
    inside = np.flatnonzero(seen.mean(1) < 70)
    pink = np.abs(seen - LIPS).max(1) < 12
    assert pink[: inside[0]].any() and pink[inside[-1] :].any()
    assert not pink[inside[0] : inside[-1]].any()  # no strip of lip in the gap


def test_parted_lips_keep_what_shows_between_them_and_the_dark_comes_below() -> None:
    smile = closed_landmarks()
    for points, by in (([67, 66, 65], 12), (range(55, 60), 12), (range(3, 14), 10)):
        smile[list(points), 1] += by
    face = np.full((S, S, 3), SKIN, np.uint8)
    for points, colour in ((smile[48:60], LIPS), (smile[60:68], (40, 60, 250))):  # teeth, to be told from drawn ones
        cv2.fillPoly(face, [np.rint(points * 8).astype(np.int32)], colour, cv2.LINE_AA, shift=3)
    [(picture, landmarks)] = opened(face, smile, [0.3])
    before, after = column(face, smile), column(picture, landmarks)
    length = [float(np.linalg.norm(points[57] - points[51])) / len(before) for points in (smile, landmarks)]
    teeth = [seen[:, 2] - seen[:, 0] > 100 for seen in (before, after)]
    assert teeth[1].sum() * length[1] == pytest.approx(teeth[0].sum() * length[0], abs=1.5)
    dark = after.max(1) < 120
    assert np.flatnonzero(dark)[0] > np.flatnonzero(teeth[1])[-1]
    width = np.linalg.norm(smile[64] - smile[60])
    assert dark.sum() * length[1] == pytest.approx(0.3 * width, rel=0.25)
    opening = mouth_shape(np.stack([smile, landmarks]))[:, 0]
    assert opening[1] - opening[0] == pytest.approx(0.3 * mouth_shape(smile[None])[0, 5], rel=0.1)


def test_what_shows_between_lips_that_all_but_touch_makes_way_for_what_is_drawn() -> None:
    parted = closed_landmarks()
    parted[[67, 66, 65], 1] += 3
    parted[55:60, 1] += 3
    face = closed_face(closed_landmarks())
    cv2.fillPoly(face, [np.rint(parted[48:60]).astype(np.int32)], LIPS)
    cv2.fillPoly(face, [np.rint(parted[60:68]).astype(np.int32)], (40, 60, 250))  # teeth, to be told from drawn ones
    [(picture, landmarks)] = opened(face, parted, [0.3])
    blue = column(picture, landmarks)[:, 2] - column(picture, landmarks)[:, 0]
    assert blue.max() < 60 < np.ptp(face.astype(int)[..., 2] - face[..., 0])
    before, after = mouth_shape(np.stack([parted, landmarks]))
    assert after[0] - before[0] == pytest.approx(0.3 * before[5], rel=0.03)


def test_a_mouth_seen_from_its_side_stays_as_it_is() -> None:
    closed = closed_landmarks()
    closed[48:68, 0] = closed[66, 0]
    face = closed_face(closed)
    [(picture, landmarks)] = opened(face, closed, [0.4])
    np.testing.assert_array_equal(picture, face)
    np.testing.assert_array_equal(landmarks, closed)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [16, 33, 190])
def test_crops_of_any_size_and_any_landmarks_do(side: int) -> None:
    rng = np.random.default_rng(side)
    face = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    for scatter in (0.0, 0.02, 0.2):
        landmarks = closed_landmarks(size=side) + rng.normal(0, scatter * side, (68, 2)).astype(np.float32)
        [(picture, moved)] = opened(face, landmarks, [0.3])
        assert picture.shape == face.shape and picture.dtype == np.uint8 and np.isfinite(moved).all()


def test_lips_that_touch_are_closed_and_parted_ones_are_not() -> None:
    closed = closed_landmarks()
    other = closed.copy()
    other[[67, 66, 65], 1] += 0.12 * 0.47 * S / 1.25
    assert is_closed(mouth_shape(np.stack([closed, other]))).tolist() == [True, False]


def test_a_mouth_that_speaks_with_small_openings_is_no_mouth_that_never_opens() -> None:
    shapes = np.repeat(mouth_shape(closed_landmarks()[None]), 4, 0)
    rests, speaks, opens = shapes.copy(), shapes.copy(), shapes.copy()
    rests[:, :3] = np.array([0.05, 0.06, 0.07, 0.09])[:, None]
    speaks[:, :3] = np.array([0.01, 0.03, 0.06, 0.09])[:, None]
    opens[:, :3] = np.array([0.01, 0.02, 0.03, 0.12])[:, None]
    smiles, sings = np.clip(rests + 0.06, 0, None), rests + 0.2
    assert never_opens(rests) and never_opens(shapes) and never_opens(smiles) and not never_opens(sings)
    assert not never_opens(speaks) and not never_opens(opens)
