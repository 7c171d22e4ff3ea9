from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lipdub.config import SyncConfig
from lipdub.dub.demo import RATE, SAMPLE_RATE, SIDE, babble, make_demo_inputs, portrait_frames
from lipdub.dub.driving_audio import loudness_levels, silence_gate
from lipdub.media.audio import load_audio
from lipdub.media.probe import probe


@pytest.mark.parametrize("seconds", [1.0, 2.3, 6.0])
def test_the_voice_has_syllables_and_rests(seconds: float) -> None:
    sound = babble(seconds)
    assert sound.shape == (round(seconds * SAMPLE_RATE),) and sound.dtype == np.float32
    assert np.abs(sound).max() == pytest.approx(0.5)
    gate = silence_gate(loudness_levels(sound, SAMPLE_RATE), SyncConfig())
    assert gate[:25].max() == 0  # it starts with a closed mouth
    assert (gate == 1).mean() > 0.15
    if seconds == 6.0:
        opened = np.flatnonzero(np.diff((gate > 0.5).astype(int)) == 1)
        assert len(opened) >= 2 and 0.4 < (gate == 1).mean() < 0.95


def test_the_voice_is_the_same_each_time_unless_another_is_asked_for() -> None:
    np.testing.assert_array_equal(babble(1.0), babble(1.0))
    assert not np.array_equal(babble(1.0), babble(1.0, seed=4))


def test_the_portrait_moves_gently() -> None:
    frames = portrait_frames(0.4)
    assert len(frames) == 10 and all(frame.shape == (SIDE, SIDE, 3) and frame.dtype == np.uint8 for frame in frames)
    steps = [np.abs(a.astype(int) - b).mean() for a, b in pairwise(frames)]
    assert all(0.1 < step < 8 for step in steps)


def test_both_inputs_have_the_same_length(tmp_path: Path) -> None:
    video, audio = make_demo_inputs(tmp_path, 1.0)
    info = probe(video).video
    assert info is not None and info.frames == RATE and (info.width, info.height) == (SIDE, SIDE)
    np.testing.assert_allclose(load_audio(audio), babble(1.0), atol=1e-4)
