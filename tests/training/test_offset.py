"""What the mouths predicted from a source's sound say of its offset, and what `prepare` does about it."""

from __future__ import annotations

import numpy as np
import pytest

from lipdub.config import MelConfig
from lipdub.data.offset import MAX_FOREIGN, MIN_SECONDS, MIN_STRENGTH, SHIFTS_S, shift_correlations, source_offset
from lipdub.data.store import RATE

STEPS = 80  # of mel a second


def curve(strength: float, seconds: float, shift_s: float = 0.0) -> tuple[int, np.ndarray]:
    """Frames and correlations of a clip whose best shift has what gives the strength."""
    made = np.full(len(SHIFTS_S), -0.5)
    made[np.abs(SHIFTS_S - shift_s).argmin()] = strength / np.sqrt(seconds / 4)
    return round(seconds * RATE), made


def mouths(times: np.ndarray, seed: int) -> np.ndarray:
    """Shapes (T, 8) of a mouth that moves at random, at any times."""
    rng = np.random.default_rng(seed)
    knots = np.arange(-2, 20, 0.1)
    return np.stack([np.interp(times, knots, rng.uniform(0, 2, len(knots))) for _ in range(8)], 1).astype(np.float32)


@pytest.mark.parametrize("late_s", [-0.12, 0.0, 0.08])
def test_the_shift_at_which_predicted_and_seen_mouths_agree_is_found(late_s: float) -> None:
    start_s = 3.0
    predicted = mouths(np.arange(12 * STEPS) / STEPS, seed=1)
    seen = mouths(start_s + (np.arange(150) + 0.5) / RATE - late_s, seed=1)  # lips behind the sound
    found = shift_correlations(predicted, seen, start_s, MelConfig())
    assert found.shape == SHIFTS_S.shape and found.max() > 0.99
    told = source_offset([(150, found)])
    assert (told.offset_s, told.certain, told.foreign) == (pytest.approx(late_s), True, False)


def test_another_voice_fits_at_no_shift() -> None:
    predicted = mouths(np.arange(12 * STEPS) / STEPS, seed=2)
    seen = mouths((np.arange(250) + 0.5) / RATE, seed=3)
    assert source_offset([(250, shift_correlations(predicted, seen, 0.0, MelConfig()))]).foreign


def test_clips_of_a_source_are_judged_together() -> None:
    half = MIN_SECONDS / 2
    count, one = curve(0.7 * MIN_STRENGTH, half, 0.06)  # over twice the time it is 1.4 times as strong
    told = source_offset([(count, one), (count, one)])
    assert (told.offset_s, told.certain) == (0.0, False)
    count, one = curve(0.75 * MIN_STRENGTH, half, 0.06)
    told = source_offset([(count, one), (count, one)])
    assert (told.offset_s, told.certain) == (pytest.approx(0.06), True)


def test_an_unclear_offset_is_not_believed() -> None:
    told = source_offset([curve(0.9 * MIN_STRENGTH, MIN_SECONDS, 0.1)])
    assert (told.offset_s, told.certain, told.foreign) == (0.0, False, False)


def test_a_short_source_is_never_sure_nor_foreign() -> None:
    told = source_offset([curve(1.5 * MIN_STRENGTH, MIN_SECONDS - 1, 0.1)])
    assert (told.offset_s, told.certain, told.foreign) == (0.0, False, False)
    assert not source_offset([curve(0.5 * MAX_FOREIGN, MIN_SECONDS - 1)]).foreign
    assert source_offset([curve(0.9 * MAX_FOREIGN, MIN_SECONDS + 1)]).foreign
    assert not source_offset([curve(1.1 * MAX_FOREIGN, MIN_SECONDS + 1)]).foreign


def test_nothing_to_judge_is_no_verdict() -> None:
    told = source_offset([])
    assert (told.offset_s, told.certain, told.foreign) == (0.0, False, False)
