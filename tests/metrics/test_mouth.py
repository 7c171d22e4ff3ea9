"""Closures, rounding and reach on curves whose answer is known, and on spoilt ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lipdub.faces.crop import TEMPLATE
from lipdub.metrics import agreement
from lipdub.metrics.mouth import (
    SECOND_CONTOUR,
    closure_rank,
    closure_spans,
    closures,
    contour_profiles,
    interior_share,
    lip_thickness,
    lips_closed,
    mouth_width,
    opening_reach,
    second_contour,
)

T = 100
CLOSED_AT = (20, 41, 63, 87)  # each for two frames
LOUD = np.zeros(T, bool)
FRAME_S = 0.04


def speech(closed_at: tuple[int, ...] = CLOSED_AT) -> np.ndarray:
    """Openings about 0.1 that fall to 0.002 at the closures."""
    curve = 0.1 + 0.04 * np.sin(np.arange(T) * 1.3)
    for at in closed_at:
        curve[at : at + 2] = 0.002
    return curve


def test_the_real_video_makes_every_closure() -> None:
    found = closures(speech(), speech(), LOUD, FRAME_S)
    assert (found.made, found.count) == (1.0, 4)
    assert found.chance < 0.2
    # 8 of 100 frames are closed and hold the lowest ranks: their mean is (8 / 2) / 100.
    assert closure_rank(speech(), speech(), LOUD, FRAME_S) == pytest.approx(0.04)


def test_half_of_the_closures() -> None:
    found = closures(speech(CLOSED_AT[:2]), speech(), LOUD, FRAME_S)
    assert (found.made, found.count) == (0.5, 4)


@pytest.mark.parametrize(("late", "made"), [(1, 1.0), (2, 1.0), (3, 0.0), (5, 0.0)])
def test_a_late_mouth_misses_them(late: int, made: float) -> None:
    """Spans of two frames, widened by one: closed two frames later still touches, three frames later does not."""
    assert closures(np.roll(speech(), late), speech(), LOUD, FRAME_S).made == made


def test_spoilt_mouths_are_at_chance() -> None:
    frozen = np.full(T, 0.05)
    assert closures(frozen, speech(), LOUD, FRAME_S).made == 0
    assert closure_rank(frozen, speech(), LOUD, FRAME_S) == pytest.approx(0.5)
    random = [np.random.default_rng(seed).permutation(speech()) for seed in range(40)]
    ranks = [closure_rank(curve, speech(), LOUD, FRAME_S) for curve in random]
    assert np.mean(ranks) == pytest.approx(0.5, abs=0.05)
    found = [closures(curve, speech(), LOUD, FRAME_S) for curve in random]
    assert np.mean([one.made - one.chance for one in found]) == pytest.approx(0, abs=0.05)
    assert closure_rank(-speech(), speech(), LOUD, FRAME_S) == pytest.approx(0.96)


def test_pauses_and_blinks_of_the_mouth_are_no_closures() -> None:
    silent = LOUD.copy()
    silent[41] = True
    assert closure_spans(speech(), silent, FRAME_S) == [slice(at, at + 2) for at in (20, 63, 87)]
    single = 0.1 + 0.04 * np.sin(np.arange(T) * 1.3)
    single[30] = 0.001
    assert closure_spans(single, LOUD, 1 / 25) == [slice(30, 31)]
    assert closure_spans(single, LOUD, 1 / 50) == []  # 20 ms
    assert math.isnan(closure_rank(single, single, ~LOUD, FRAME_S))
    assert math.isnan(closures(single, single, ~LOUD, FRAME_S).made)
    assert not lips_closed(np.full(T, 0.002)).any()


def test_reach_is_the_ratio_of_wide_openings() -> None:
    assert opening_reach(0.5 * speech(), speech()) == pytest.approx(0.5)
    assert math.isnan(opening_reach(speech(), np.zeros(T)))


def face(width: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Landmarks (T, 68, 2) of a mouth `width` wide, open by `gap`, lips 0.1 thick in all, in eye distances."""
    points = np.repeat(np.asarray(TEMPLATE, np.float64)[None], len(width), 0)
    points -= points.mean(1, keepdims=True)
    eyes = np.linalg.norm(points[0, 36] - points[0, 45])
    points[:, 48] = np.stack([-width / 2 * eyes, 0 * width], 1)
    points[:, 54] = np.stack([width / 2 * eyes, 0 * width], 1)
    for at, place in ((62, -gap / 2), (66, gap / 2), (51, -gap / 2 - 0.05), (57, gap / 2 + 0.05)):
        points[:, at] = np.stack([0 * gap, place * eyes], 1)
    return 37 * points + 100


def test_width_and_thickness_are_read_off_the_landmarks() -> None:
    width, gap = 0.5 + 0.1 * np.sin(np.arange(T)), 0.1 + 0.05 * np.cos(np.arange(T))
    landmarks = face(width, gap)
    assert mouth_width(landmarks) == pytest.approx(width)
    assert lip_thickness(landmarks) == pytest.approx(np.full(T, 0.1))
    assert agreement(mouth_width(landmarks), width)[0] == pytest.approx(1)
    never_rounds = face(np.full(T, 0.55), gap)
    assert agreement(mouth_width(never_rounds), width)[0] == pytest.approx(0, abs=1e-6)


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="alike"):
        closures(speech(), speech()[:-1], LOUD, FRAME_S)
    with pytest.raises(ValueError, match="silent"):
        closure_spans(speech(), LOUD[:-1], FRAME_S)
    with pytest.raises(ValueError, match="landmarks"):
        mouth_width(np.zeros((3, 60, 2)))


SIDE = 160
SKIN, NECK, LIP, BLACK, TOOTH = (
    (0.8, 0.6, 0.5),
    (0.6, 0.4, 0.33),
    (0.7, 0.35, 0.33),
    (0.1, 0.06, 0.06),
    (0.9, 0.88, 0.8),
)


def drawn(gap: float, chin: float, inside: tuple[float, float, float] = BLACK) -> tuple[np.ndarray, np.ndarray]:
    """A drawn face (3, S, S) in [0, 1], lips parted by `gap` rows above a chin in row `chin`, and its landmarks."""
    face = np.empty((3, SIDE, SIDE))
    face[:] = np.reshape(SKIN, (3, 1, 1))
    face[:, round(chin) :] = np.reshape(NECK, (3, 1, 1))
    points = np.asarray(TEMPLATE * SIDE / 1.4 + SIDE * (1 - 1 / 1.4) / 2, np.float64)
    middle, width = 95.0, 24
    for part, half in ((slice(48, 60), gap / 2 + 5), (slice(60, 68), gap / 2)):
        angle = np.pi + np.arange(part.stop - part.start) * 2 * np.pi / (part.stop - part.start)
        points[part] = np.stack([80 + width * np.cos(angle), middle + half * np.sin(angle)], 1)
    y, x = np.mgrid[:SIDE, :SIDE]
    for half, colour in ((gap / 2 + 5, LIP), (gap / 2, inside)):
        within = ((x - 80) / width) ** 2 + ((y - middle) / max(half, 0.1)) ** 2 <= 1
        face[:, within] = np.reshape(colour, (3, 1))
    points[8] = (80, chin)
    return face, points


def film(gaps: list[float], chins: list[float], inside: tuple[float, float, float] = BLACK) -> tuple[np.ndarray, ...]:
    frames = [drawn(gap, chin, inside) for gap, chin in zip(gaps, chins, strict=True)]
    return np.stack([face for face, _ in frames]), np.stack([points for _, points in frames])


GAPS = [2.0 + 18 * (t % 10) / 9 for t in range(30)]
CHINS = [125 + gap / 2 for gap in GAPS]


def contours(spoil: np.ndarray | None = None) -> np.ndarray:
    """Of a dub that shows the frames of the source in reverse, `spoil` (T, 3, S, S) added."""
    source, theirs = film(GAPS, CHINS)
    dub, ours = film(GAPS[::-1], CHINS[::-1])
    if spoil is not None:
        dub = np.clip(dub + spoil, 0, 1)
    return second_contour(contour_profiles(dub, ours), ours, contour_profiles(source, theirs), theirs)


def test_a_new_chin_is_no_second_one_and_a_ghost_of_the_old_is() -> None:
    assert (contours() < 0.5).all()
    fold = np.zeros((30, 3, SIDE, SIDE))
    for t in range(30):
        if CHINS[::-1][t] < CHINS[t] - 5.5:  # the new chin lies higher: the old one stays behind it as a fold
            fold[t, :, round(CHINS[t]) :] -= 0.1  # and shades the neck below
    spoilt = fold.any((1, 2, 3))
    found = contours(fold)
    assert spoilt.sum() == 6
    assert (found[spoilt] > SECOND_CONTOUR).all() and (found[~spoilt] < 0.5).all()


def test_real_frames_against_themselves_have_no_second_contour() -> None:
    faces, points = film(GAPS, CHINS)
    profiles = contour_profiles(faces, points)
    assert (second_contour(profiles, points, profiles, points, apart=6) < 0.5).all()
    with pytest.raises(ValueError, match="fit"):
        second_contour(profiles, points, profiles[:-1], points[:-1])


def test_the_inside_of_a_mouth_is_dark_or_has_teeth() -> None:
    assert interior_share(*film([14.0] * 3, [130.0] * 3)) > 90
    assert interior_share(*film([14.0] * 3, [130.0] * 3, inside=TOOTH)) > 90
    swollen = interior_share(*film([14.0] * 3, [130.0] * 3, inside=LIP))  # lips that bulge instead of parting
    assert swollen < 10
    assert math.isnan(interior_share(*film([1.0] * 3, [130.0] * 3)))  # never parts
    with pytest.raises(ValueError, match="faces"):
        interior_share(np.zeros((2, 3, 9, 9)), np.zeros((3, 68, 2)))
