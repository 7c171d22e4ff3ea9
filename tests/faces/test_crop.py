from __future__ import annotations

import cv2
import numpy as np
import pytest

from lipdub.affine import finer, transform
from lipdub.config import FaceConfig
from lipdub.faces.crop import (
    EYE_DISTANCE,
    EYE_LINE,
    TEMPLATE,
    crop_detail,
    crop_matrices,
    crop_matrix,
    far_side,
    mouth_mask,
    parted_lips,
    to_unit_crop,
)

MIRRORED = np.r_[
    16:-1:-1, 26:16:-1, 27:31, 35:30:-1, 45:41:-1, 47, 46, 39:35:-1, 41, 40, 54:47:-1, 59:54:-1, 64:59:-1, 67:64:-1
]
STILL = np.arange(17, 48)  # brows, nose, eyes


def placed(scale: float = 150.0, angle: float = 0.0, at: tuple[float, float] = (200.0, 120.0)) -> np.ndarray:
    """The template as a face of a frame."""
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return TEMPLATE @ turn.T + at


def test_template_has_the_stated_geometry_and_is_symmetric() -> None:
    assert TEMPLATE.shape == (68, 2)
    assert TEMPLATE[45, 0] - TEMPLATE[36, 0] == pytest.approx(EYE_DISTANCE, abs=2e-4)
    assert TEMPLATE[36:48, 1].mean() == pytest.approx(EYE_LINE, abs=2e-4)
    np.testing.assert_allclose(TEMPLATE[MIRRORED] * [-1, 1] + [1, 0], TEMPLATE, atol=2e-4)
    assert TEMPLATE[30, 1] < 0.5 < TEMPLATE[33, 1] < TEMPLATE[51, 1] < TEMPLATE[8, 1] < 1


@pytest.mark.parametrize("margin", [1.0, 1.25])
def test_crop_matrix_brings_a_face_to_the_template(margin: float) -> None:
    matrix = crop_matrix(placed(130.0, 0.4, (33.0, 77.0)), 96, margin=margin)
    wanted = ((TEMPLATE - 0.5) / margin + 0.5) * 96
    np.testing.assert_allclose(transform(placed(130.0, 0.4, (33.0, 77.0)), matrix), wanted, atol=1e-3)
    scale = np.hypot(matrix[0, 0], matrix[1, 0])
    assert scale == pytest.approx(96 / margin / 130)
    assert (matrix[0, 0], matrix[0, 1]) == pytest.approx((matrix[1, 1], -matrix[1, 0]))  # a similarity, not mirrored


def test_far_side_is_what_is_seen_beyond_the_nose() -> None:
    assert far_side(placed(angle=0.3)[None]) == pytest.approx(0.5, abs=1e-3)
    turned = TEMPLATE.copy()
    turned[:17, 0] += 0.25 * (TEMPLATE[14, 0] - TEMPLATE[2, 0])  # the outline, which the crop does not follow
    mirrored = turned[MIRRORED] * [-1, 1] + [1, 0]
    np.testing.assert_allclose(far_side(np.stack([turned, mirrored]) * 200), 0.25, atol=2e-3)
    turned[:17, 0] += 0.25 * (TEMPLATE[14, 0] - TEMPLATE[2, 0])
    assert far_side(turned[None]) == pytest.approx(0, abs=2e-3)


def test_crop_does_not_depend_on_mouth_and_jaw() -> None:
    face = placed(150.0, -0.2)
    moved = face.copy()
    moved[np.setdiff1d(np.arange(68), STILL)] += np.random.default_rng(0).normal(0, 30, (37, 2))
    np.testing.assert_array_equal(crop_matrix(moved, 96), crop_matrix(face, 96))
    for point in STILL:
        touched = face.copy()
        touched[point] += 10
        assert np.abs(crop_matrix(touched, 96) - crop_matrix(face, 96)).max() > 1e-3


def test_crop_then_inverse_gives_the_picture_back() -> None:
    noise = np.random.default_rng(1).uniform(0, 255, (300, 400, 3)).astype(np.float32)
    picture = cv2.GaussianBlur(noise, (0, 0), 6)
    matrix = crop_matrix(placed(150.0, 0.1, (120.0, 60.0)), 144)
    crop = cv2.warpAffine(picture, matrix, (144, 144), flags=cv2.INTER_CUBIC)
    back = cv2.warpAffine(crop, cv2.invertAffineTransform(matrix), (400, 300), flags=cv2.INTER_CUBIC)
    inside = cv2.warpAffine(np.ones((144, 144), np.float32), cv2.invertAffineTransform(matrix), (400, 300)) == 1
    inside = cv2.erode(inside.astype(np.uint8), np.ones((7, 7))) > 0
    assert inside.sum() > 15_000
    assert np.abs(back - picture)[inside].max() < 1.0 < picture[inside].std()


def test_crop_matrices_of_a_still_face_are_its_crop_matrix() -> None:
    for count in (1, 2, 3, 20):
        still = np.repeat(placed(120.0, 0.3)[None], count, 0)
        matrices = crop_matrices(still, np.arange(count) / 25, FaceConfig(), 96, margin=1.25)
        np.testing.assert_allclose(
            matrices, np.repeat(crop_matrix(still[0], 96, margin=1.25)[None], count, 0), atol=1e-6
        )


def test_crop_matrices_take_jitter_away_and_follow_motion() -> None:
    rng = np.random.default_rng(2)
    times = np.arange(100) / 25
    path = np.stack([200 + 40 * times, 120 + 10 * times], 1)
    clean = np.stack([placed(150.0, 0.05 * t, (x, y)) for t, (x, y) in zip(times, path, strict=True)])
    shaken = clean + rng.normal(0, 1.0, (100, 1, 2))  # the whole face shakes by a pixel
    smooth = crop_matrices(shaken, times, FaceConfig(), 96)
    errors = [transform(face, m) - TEMPLATE * 96 for face, m in zip(clean, smooth, strict=True)]
    raw = [transform(face, crop_matrix(s, 96)) - TEMPLATE * 96 for face, s in zip(clean, shaken, strict=True)]
    assert np.std(errors) < 0.6 * np.std(raw)
    assert np.abs(np.mean(errors, (0, 1))).max() < 0.15  # no lag behind the motion


def test_crop_matrices_do_not_break_where_an_angle_wraps() -> None:
    angles = np.linspace(np.pi - 0.2, np.pi + 0.2, 21)  # a face upside down
    faces = np.stack([placed(100.0, a, (300.0, 300.0)) for a in angles])
    matrices = crop_matrices(faces, np.arange(21) / 25, FaceConfig(), 96)
    seen = np.stack([transform(face, m) for face, m in zip(faces, matrices, strict=True)])
    assert np.abs(seen - TEMPLATE * 96).max() < 1.0


def test_mouth_mask_covers_chin_and_mouth_whatever_the_mouth_does() -> None:
    points = TEMPLATE * 96
    mask = mouth_mask(points, 96)
    assert mask.dtype == np.float32 and set(np.unique(mask)) == {0.0, 1.0}
    for x, y in np.rint(points[np.r_[48:68, 5:12, 30]]).astype(int):
        assert mask[min(y, 95), x] == 1
    for x, y in np.rint(points[17:28]).astype(int):
        assert mask[y, x] == 0
    rows = np.flatnonzero(mask.any(1))
    assert rows[0] == round(points[30, 1]) - 5  # kernel 11: five pixels over the tip of the nose
    lips = points.copy()
    lips[48:] += 5
    np.testing.assert_array_equal(mouth_mask(lips, 96), mask)


def test_mouth_mask_of_a_face_outside_is_empty() -> None:
    assert mouth_mask(TEMPLATE * 96 + 1e6, 96).sum() == 0
    assert mouth_mask(TEMPLATE * 192, 192).mean() == pytest.approx(mouth_mask(TEMPLATE * 96, 96).mean(), abs=0.02)


def test_to_unit_crop_undoes_place_size_and_roll() -> None:
    np.testing.assert_allclose(to_unit_crop(placed(77.0, 1.0)[None])[0], TEMPLATE, atol=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: crop_matrix(np.zeros((67, 2)), 96),
        lambda: crop_matrix(np.full((68, 2), 3.0), 96),
        lambda: crop_matrix(np.full((68, 2), np.nan), 96),
        lambda: crop_matrices(np.zeros((2, 68, 2)), np.zeros(3), FaceConfig(), 96),
        lambda: mouth_mask(np.full((68, 2), np.nan), 96),
    ],
)
def test_bad_landmarks_are_refused(call: object) -> None:
    with pytest.raises(ValueError):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_finer_crop_averages_to_the_coarse_one(times: int) -> None:
    matrix = crop_matrix(placed(70.0, 0.2, (60.0, 60.0)), 32)
    fine = finer(matrix, times)
    inside = transform(np.array([[80.0, 90.0]]), matrix)
    block = transform(np.array([[80.0, 90.0]]), fine)
    np.testing.assert_allclose(block, times * inside + (times - 1) / 2, atol=1e-4)  # centre p is that of its block
    picture = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (200, 200)).astype(np.float32), (0, 0), 6)
    large = cv2.warpAffine(picture, fine, (32 * times, 32 * times))
    small = cv2.resize(large, (32, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(small, cv2.warpAffine(picture, matrix, (32, 32)), atol=1.5)


def test_detail_is_that_of_the_picture_and_has_a_bound() -> None:
    found = [crop_detail(crop_matrix(placed(scale), 96), 3) for scale in (50.0, 96.0, 150.0, 200.0, 900.0)]
    assert found == [1, 1, 2, 2, 3]


def test_parted_lips_cover_the_opening_and_little_else() -> None:
    size, points = 96, TEMPLATE.copy() * 96
    points[[65, 66, 67], 1] += 12
    mask = parted_lips(points, size)
    x, y = points[60:68].mean(0).round().astype(int)
    assert mask[y, x] == 1 and mask[y + 14, x] == 0 and mask[:60].sum() == 0
    assert mask.sum() < 0.5 * mouth_mask(points, size).sum()


def test_a_mask_can_hold_two_jaws() -> None:
    closed = (TEMPLATE * 96).astype(np.float32)
    opened = closed.copy()
    opened[3:14, 1] += 8
    both = mouth_mask(closed, 96, others=opened)
    assert (both >= mouth_mask(closed, 96)).all() and (both >= mouth_mask(opened, 96)).all()
    assert both.sum() == mouth_mask(opened, 96, others=closed).sum()


def test_a_margin_leaves_the_mask_as_large_as_the_face() -> None:
    plain = mouth_mask((TEMPLATE * 96).astype(np.float32), 96)
    wide = mouth_mask((TEMPLATE * 96 + 16).astype(np.float32), 128, margin=4 / 3)
    assert (wide[16:112, 16:112] == plain).all()


def test_a_jump_cut_is_not_smoothed_over() -> None:
    near = TEMPLATE * 150 + 40
    far = TEMPLATE * 110 + (60, 95)
    landmarks = np.concatenate([np.repeat(near[None], 12, 0), np.repeat(far[None], 12, 0)])
    matrices = crop_matrices(landmarks, np.arange(24) / 30, FaceConfig(), 96)
    for frame in (0, 11, 12, 23):
        np.testing.assert_allclose(transform(landmarks[frame], matrices[frame]), TEMPLATE * 96, atol=0.05)
