from __future__ import annotations

import numpy as np
import pytest

from lipdub.faces.align import OPENINGS
from lipdub.pipeline.manner import (
    LEAST,
    MOST,
    NOBODY,
    TYPICAL,
    TYPICAL_POSTURE,
    Manner,
    as_spoken_by,
    manner,
    steadied,
)

RATE = 25.0


def talking(seconds: float, far: float, posture: float = 1.0) -> np.ndarray:
    """A mouth (T, 8) that opens and closes four times a second, by `far` in standard deviations."""
    t = np.arange(round(seconds * RATE)) / RATE
    swing = far * np.sqrt(2) * np.sin(2 * np.pi * 4 * t)
    return np.repeat((posture + swing)[:, None], 8, 1).astype(np.float32)


def still(seconds: float, level: float = 0.0) -> np.ndarray:
    return np.full((round(seconds * RATE), 8), level, np.float32)


def test_movement_and_posture_are_those_of_the_time_in_which_it_moves() -> None:
    seen = manner([talking(4, 0.5, 1.2)], RATE)
    assert seen.movement == pytest.approx(0.5, rel=0.1) and seen.seconds == 4.0
    np.testing.assert_allclose(seen.posture, 1.2, atol=0.1)
    waiting = manner([still(4), talking(4, 0.5, 1.2), still(4)], RATE)
    assert waiting.movement == pytest.approx(seen.movement, rel=0.1)
    np.testing.assert_allclose(waiting.posture, 1.2, atol=0.1)


def test_trembling_is_steadied_without_delay_and_speech_is_left() -> None:
    trembling = np.random.default_rng(0).normal(0, 1, (500, 8)).astype(np.float32)
    steady = steadied(trembling, RATE, 0.023)
    assert steady.dtype == np.float32 and steady.shape == trembling.shape
    assert np.diff(steady, axis=0).std() < 0.7 * np.diff(trembling, axis=0).std()
    speech = talking(4, 0.5)
    quiet = steadied(speech, RATE, 0.023)
    assert np.corrcoef(speech[:, 0], quiet[:, 0])[0, 1] > 0.999  # no delay
    assert quiet.std() == pytest.approx(speech.std(), rel=0.2)
    assert steadied(trembling, RATE, 0.0) is trembling
    assert len(steadied(trembling[:0], RATE, 0.023)) == 0


def test_a_shot_between_two_postures_is_no_movement() -> None:
    assert manner([still(3, 0.0), still(3, 2.0)], RATE).movement < 1e-6


def test_a_portrait_a_listener_and_nobody_tell_nothing() -> None:
    assert NOBODY.known == manner([], RATE).known == manner([still(60)], RATE).known == 0.0
    assert manner([talking(60, 0.05)], RATE).known == 0.0
    assert manner([talking(1, 0.5)], RATE).known < 0.5 < manner([talking(10, 0.5)], RATE).known < 1


def test_somebody_unknown_moves_as_people_do_on_average() -> None:
    heard = talking(4, 0.2)
    said = as_spoken_by(NOBODY, heard, manner([heard], RATE))
    assert np.std(said[:, 4]) == pytest.approx(TYPICAL * 0.2, rel=0.05)
    assert said[:, 4].mean() == pytest.approx(TYPICAL_POSTURE, abs=0.1)
    assert (said[:, OPENINGS] >= 0).all()


@pytest.mark.parametrize("far", [0.25, 0.45])
def test_somebody_known_moves_as_far_as_they_do(far: float) -> None:
    heard, person = talking(4, 0.2), manner([talking(600, far, 0.7)], RATE)
    said = as_spoken_by(person, heard, manner([heard], RATE))
    known = person.known
    assert np.std(said[:, 4]) == pytest.approx((TYPICAL * 0.2) ** (1 - known) * far**known, rel=0.1)
    assert said[:, 4].mean() == pytest.approx((1 - known) * TYPICAL_POSTURE + known * 0.7, abs=0.1)
    twice = as_spoken_by(person, heard, manner([heard], RATE), 2.0)
    np.testing.assert_allclose(np.std(twice[:, 4]), 2 * np.std(said[:, 4]), rtol=1e-4)


def test_the_gain_is_bounded() -> None:
    heard = talking(4, 0.2)
    for far, bound in ((0.3, None), (9.0, MOST), (0.05 * TYPICAL, LEAST)):
        person = Manner(far, np.ones(8, np.float32), 1e6)
        gain = np.std(as_spoken_by(person, heard, manner([heard], RATE))[:, 4]) / np.std(heard[:, 4])
        assert TYPICAL * LEAST * 0.99 <= gain <= TYPICAL * MOST * 1.01
        if bound == MOST:
            assert gain == pytest.approx(TYPICAL * MOST, rel=1e-3)


def test_a_flat_sound_does_not_explode() -> None:
    person = manner([talking(60, 0.5)], RATE)
    said = as_spoken_by(person, still(2, 0.3), manner([still(2, 0.3)], RATE))
    assert np.isfinite(said).all() and np.std(said[:, 4]) < 1e-6


def test_a_single_frame() -> None:
    one = manner([talking(0.04, 0.5)], RATE)
    assert one.movement == 0.0 and one.known == 0.0
