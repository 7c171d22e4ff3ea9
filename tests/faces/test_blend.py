from __future__ import annotations

import cv2
import numpy as np
import pytest

from lipdub.faces.blend import BESIDE, extent, inside_outline, match_colour, paste_alpha
from lipdub.faces.crop import TEMPLATE, mouth_mask

S = 96
FEATHER = 0.06


@pytest.fixture
def alpha() -> np.ndarray:
    return paste_alpha(mouth_mask(TEMPLATE * S, S), FEATHER)


@pytest.fixture
def picture() -> np.ndarray:
    noise = np.random.default_rng(0).uniform(-1, 1, (S, S, 3)).astype(np.float32)
    return np.clip(100 + 260 * cv2.GaussianBlur(noise, (0, 0), 4), 20, 200)


def test_alpha_is_zero_at_the_border_and_far_away_and_one_inside(alpha: np.ndarray) -> None:
    assert alpha.dtype == np.float32 and alpha.min() == 0 and alpha.max() == 1
    assert not np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]]).any()
    assert not alpha[: S // 4].any()
    x, y = np.rint(TEMPLATE[48:68].mean(0) * S).astype(int)
    assert (alpha[y - 10 : y + 10, x - 15 : x + 15] == 1).all()


def test_alpha_is_zero_at_the_border_even_of_a_full_mask() -> None:
    alpha = paste_alpha(np.ones((S, S), np.float32), FEATHER)
    assert not alpha[0].any() and not alpha[:, -1].any()
    assert (np.diff(alpha[: S // 2, S // 2]) >= 0).all() and alpha[8:-8, 8:-8].min() == 1


def test_alpha_grows_with_the_mask(alpha: np.ndarray) -> None:
    mask = mouth_mask(TEMPLATE * S, S)
    assert (paste_alpha(cv2.dilate(mask, np.ones((5, 5))), FEATHER) >= alpha - 1e-6).all()
    assert (paste_alpha(mask * 0.6, FEATHER) <= alpha + 1e-6).all()


def test_alpha_ignores_what_the_mask_head_is_unsure_of(alpha: np.ndarray) -> None:
    mask = np.maximum(mouth_mask(TEMPLATE * S, S), 0.05)
    assert ((paste_alpha(mask, FEATHER) > 0) <= (cv2.dilate(alpha, np.ones((5, 5))) > 0)).all()
    assert not paste_alpha(np.full((S, S), 0.08), FEATHER).any()


def test_alpha_has_a_soft_edge(alpha: np.ndarray) -> None:
    row = alpha[round(0.75 * S)]
    assert np.abs(np.diff(row)).max() < 0.25
    assert paste_alpha(np.ones((S, S)), 0.0)[1:-1, 1:-1].min() == 1


def test_what_is_beside_a_face_is_kept_and_a_chin_may_drop() -> None:
    margin = 4 / 3
    points = TEMPLATE * S / margin + (S - S / margin) / 2
    kept = inside_outline(points, S, margin=margin)
    assert kept.dtype == np.float32 and kept.shape == (S, S) and kept.min() == 0 and kept.max() == 1
    lowered = points[6:11] + np.array([0, 0.14 * S / margin])
    for x, y in (*points[:27], *points[48:68], *lowered):
        assert kept[round(y), round(x)] > 0.5
    row = kept[round(points[3, 1])]  # across the cheeks
    edge = round(points[3, 0])
    assert not row[: edge - round(BESIDE * S) - 1].any() and row[edge + 1 : S // 2].min() == 1
    assert not kept[round(points[8, 1]), : round(points[3, 0])].any()  # beside the neck


def test_the_edge_beside_a_face_moves_by_fractions_of_a_pixel() -> None:
    edges = [inside_outline(TEMPLATE * S + [shift, 0], S)[60].sum() for shift in (0, 0.25, 0.5, 0.75, 1)]
    halves = [inside_outline(TEMPLATE * S + [shift, 0], S)[60, : S // 2].sum() for shift in (0, 0.25, 0.5, 0.75, 1)]
    np.testing.assert_allclose(np.diff(halves), -0.25, atol=0.1)
    np.testing.assert_allclose(edges, edges[0], atol=0.2)


def test_alpha_of_no_square_is_refused() -> None:
    with pytest.raises(ValueError):
        paste_alpha(np.zeros((4, 5)), FEATHER)


def test_equal_pictures_stay_as_they_are(picture: np.ndarray, alpha: np.ndarray) -> None:
    np.testing.assert_array_equal(match_colour(picture.copy(), picture, alpha), picture)


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 15.0), (1.0, -20.0), (1.12, -8.0), (0.9, 12.0)])
def test_gain_and_offset_are_removed(picture: np.ndarray, alpha: np.ndarray, gain: float, offset: float) -> None:
    generated = picture * gain + np.array([offset, 0, -offset / 2], np.float32)
    before, after = (np.abs(face - picture).max() for face in (generated, match_colour(generated, picture, alpha)))
    assert before > 10 and after < 1.0


def test_a_slope_of_light_is_mostly_removed(picture: np.ndarray, alpha: np.ndarray) -> None:
    slope = np.linspace(-8, 8, S, dtype=np.float32)[None, :, None] * np.ones((S, 1, 3), np.float32)
    matched = match_colour(picture + slope, picture, alpha)
    middle = np.s_[40:80, 20:76]
    assert np.abs(matched - picture)[middle].mean() < 0.45 * np.abs(slope[middle]).mean()


def test_a_hand_in_the_ring_changes_little(picture: np.ndarray, alpha: np.ndarray) -> None:
    real = picture.copy()
    real[75:, :30] = (240, 30, 30)
    matched = match_colour(picture, real, alpha)
    assert np.abs(matched - picture).mean() < 4
    naive = ((real - picture) * (alpha * (1 - alpha))[..., None]).sum((0, 1)) / (alpha * (1 - alpha)).sum()
    assert np.abs(matched - picture).mean() < 0.5 * np.abs(naive).mean()


def test_without_a_ring_nothing_is_matched(picture: np.ndarray) -> None:
    generated = picture + 30
    assert match_colour(generated, picture, np.zeros((S, S), np.float32)) is generated


def test_a_wild_difference_is_matched_within_limits(alpha: np.ndarray) -> None:
    dark, light = np.full((S, S, 3), 10, np.float32), np.full((S, S, 3), 240, np.float32)
    np.testing.assert_allclose(match_colour(dark, light, alpha), 42, atol=1e-3)


def test_shapes_must_agree(picture: np.ndarray, alpha: np.ndarray) -> None:
    with pytest.raises(ValueError):
        match_colour(picture, picture[1:], alpha)


def test_an_extent_holds_all_that_is_not_0_and_no_more() -> None:
    alpha = np.zeros((8, 6), np.float32)
    alpha[3, 2] = alpha[5, 4] = 0.1
    assert extent(alpha) == (slice(3, 6), slice(2, 5))
    assert alpha[extent(np.zeros((8, 6)))].size == 0


def test_a_part_is_matched_as_the_whole_is(picture) -> None:
    alpha = paste_alpha(mouth_mask(TEMPLATE * S, S), FEATHER, top=0.53)
    real = np.clip(picture * 0.9 + 12 + np.linspace(-8, 8, S, dtype=np.float32)[:, None], 0, 255)
    seen = extent(alpha)
    assert seen[0].start > S // 2
    whole, part = match_colour(picture, real, alpha), match_colour(picture[seen], real[seen], alpha[seen], S)
    np.testing.assert_allclose(part, whole[seen], atol=1e-3)
