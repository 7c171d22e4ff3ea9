from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lipdub.dub.speaking_style import (
    CLOSED_OFTEN,
    MAX_GAIN,
    MIN_GAIN,
    TYPICAL,
    TYPICAL_POSTURE,
    UNKNOWN_STYLE,
    SpeakingStyle,
    measure_style,
    retarget,
    smooth_shapes,
)
from lipdub.faces.mouth_shape import CLOSED_OPENING, OPENINGS, SHAPE_SCALE, closed_openings

RATE = 25.0


def talking(seconds: float, far: float, posture: float = 1.0) -> np.ndarray:
    """A mouth (T, 8) that opens and closes four times a second, by `far` in standard deviations."""
    t = np.arange(round(seconds * RATE)) / RATE
    swing = far * np.sqrt(2) * np.sin(2 * np.pi * 4 * t)
    return np.repeat((posture + swing)[:, None], 8, 1).astype(np.float32)


def still(seconds: float, level: float = 0.0) -> np.ndarray:
    return np.full((round(seconds * RATE), 8), level, np.float32)


def test_movement_and_posture_are_those_of_the_time_in_which_it_moves() -> None:
    seen = measure_style([talking(4, 0.5, 1.2)], RATE)
    assert seen.movement == pytest.approx(0.5, rel=0.1) and seen.seconds == 4.0
    np.testing.assert_allclose(seen.posture, 1.2, atol=0.1)
    waiting = measure_style([still(4), talking(4, 0.5, 1.2), still(4)], RATE)
    assert waiting.movement == pytest.approx(seen.movement, rel=0.1)
    np.testing.assert_allclose(waiting.posture, 1.2, atol=0.1)


def test_trembling_is_steadied_without_delay_and_speech_is_left() -> None:
    trembling = np.random.default_rng(0).normal(0, 1, (500, 8)).astype(np.float32)
    steady = smooth_shapes(trembling, RATE, 0.023)
    assert steady.dtype == np.float32 and steady.shape == trembling.shape
    assert np.diff(steady, axis=0).std() < 0.7 * np.diff(trembling, axis=0).std()
    speech = talking(4, 0.5)
    quiet = smooth_shapes(speech, RATE, 0.023)
    assert np.corrcoef(speech[:, 0], quiet[:, 0])[0, 1] > 0.999  # no delay
    assert quiet.std() == pytest.approx(speech.std(), rel=0.2)
    assert smooth_shapes(trembling, RATE, 0.0) is trembling
    assert len(smooth_shapes(trembling[:0], RATE, 0.023)) == 0


def test_a_shot_between_two_postures_is_no_movement() -> None:
    assert measure_style([still(3, 0.0), still(3, 2.0)], RATE).movement < 1e-6


def test_a_portrait_a_listener_and_nobody_tell_nothing() -> None:
    assert UNKNOWN_STYLE.known == measure_style([], RATE).known == measure_style([still(60)], RATE).known == 0.0
    assert measure_style([talking(60, 0.05)], RATE).known == 0.0
    assert measure_style([talking(1, 0.5)], RATE).known < 0.5 < measure_style([talking(10, 0.5)], RATE).known < 1


def test_somebody_unknown_moves_as_people_do_on_average() -> None:
    heard = talking(4, 0.2)
    said = retarget(UNKNOWN_STYLE, heard, measure_style([heard], RATE))
    assert np.std(said[:, 4]) == pytest.approx(TYPICAL * 0.2, rel=0.05)
    assert said[:, 4].mean() == pytest.approx(TYPICAL_POSTURE, abs=0.1)
    assert (said[:, OPENINGS] >= 0).all()


def test_lips_meet_as_often_as_those_of_speakers_do_and_wide_openings_stay() -> None:
    heard = talking(8, 0.1, posture=1.0)
    style, person = measure_style([heard], RATE), replace(measure_style([talking(600, 0.16, 1.45)], RATE), low=None)
    said = retarget(person, heard, style)
    plain = retarget(person, heard, replace(style, low=None))
    openings, before = said[:, OPENINGS], plain[:, OPENINGS]
    assert before.min() > 0.9  # a posture far from closed
    assert (openings < 1e-3).mean() == pytest.approx(CLOSED_OFTEN, abs=0.04)
    wide = before > np.median(before)
    np.testing.assert_array_equal(openings[wide], before[wide])
    assert (np.diff(openings[np.argsort(before[:, 0]), 0]) >= 0).all()  # in the same order
    fall = ((before - openings) * SHAPE_SCALE[OPENINGS]).mean(1)  # eye distances; the height goes with the openings
    for number, slope in ((3, 1.15), (4, 0.0), (5, 0.0), (6, 0.0), (7, 0.0)):
        expected = plain[:, number] - slope * fall / SHAPE_SCALE[number]
        np.testing.assert_allclose(said[:, number], expected, atol=1e-4)


def test_somebody_whose_lips_stay_apart_keeps_them_apart() -> None:
    heard = talking(8, 0.1, posture=1.0)
    style = measure_style([heard], RATE)
    apart, closing = (measure_style([talking(600, 0.3, posture)], RATE) for posture in (1.6, 0.35))
    lowest = [retarget(person, heard, style)[:, OPENINGS].min() for person in (apart, closing)]
    assert apart.low is not None and lowest[0] == pytest.approx(apart.known * apart.low[0], rel=0.1)
    assert lowest[1] == pytest.approx(0, abs=0.01)


def test_lips_that_rest_open_close_in_speech() -> None:
    heard = talking(8, 0.1, posture=1.0)
    style, person = measure_style([heard], RATE), replace(measure_style([talking(600, 0.16, 1.45)], RATE), low=None)
    closed = closed_openings(np.full(8, 0.04, np.float32))  # the mouth at rest is open by 0.04 eye distances
    said = retarget(person, heard, style, closed=closed)[:, OPENINGS]
    at_least = 0.04 + said.min(0) * SHAPE_SCALE[OPENINGS]
    np.testing.assert_allclose(at_least, CLOSED_OPENING, atol=1e-4)
    assert (closed_openings(np.full(8, CLOSED_OPENING - 0.01, np.float32)) == 0).all()  # never more open than at rest


def test_a_mouth_that_closes_by_itself_is_left_as_it_is() -> None:
    heard = talking(8, 0.6, posture=0.3)
    style = measure_style([heard], RATE)
    np.testing.assert_array_equal(
        retarget(UNKNOWN_STYLE, heard, style), retarget(UNKNOWN_STYLE, heard, replace(style, low=None))
    )


@pytest.mark.parametrize("far", [0.25, 0.45])
def test_somebody_known_moves_as_far_as_they_do(far: float) -> None:
    heard, person = talking(4, 0.2), measure_style([talking(600, far, 0.7)], RATE)
    said = retarget(person, heard, measure_style([heard], RATE))
    known = person.known
    assert np.std(said[:, 4]) == pytest.approx((TYPICAL * 0.2) ** (1 - known) * far**known, rel=0.1)
    assert said[:, 4].mean() == pytest.approx((1 - known) * TYPICAL_POSTURE + known * 0.7, abs=0.1)
    twice = retarget(person, heard, measure_style([heard], RATE), 2.0)
    np.testing.assert_allclose(np.std(twice[:, 4]), 2 * np.std(said[:, 4]), rtol=1e-4)


def test_the_gain_is_bounded() -> None:
    heard = talking(4, 0.2)
    for far, bound in ((0.3, None), (9.0, MAX_GAIN), (0.05 * TYPICAL, MIN_GAIN)):
        person = SpeakingStyle(far, np.ones(8, np.float32), 1e6)
        gain = np.std(retarget(person, heard, measure_style([heard], RATE))[:, 4]) / np.std(heard[:, 4])
        assert TYPICAL * MIN_GAIN * 0.99 <= gain <= TYPICAL * MAX_GAIN * 1.01
        if bound == MAX_GAIN:
            assert gain == pytest.approx(TYPICAL * MAX_GAIN, rel=1e-3)


def test_a_flat_sound_does_not_explode() -> None:
    person = measure_style([talking(60, 0.5)], RATE)
    said = retarget(person, still(2, 0.3), measure_style([still(2, 0.3)], RATE))
    assert np.isfinite(said).all() and np.std(said[:, 4]) < 1e-6


def test_a_single_frame() -> None:
    one = measure_style([talking(0.04, 0.5)], RATE)
    assert one.movement == 0.0 and one.known == 0.0
