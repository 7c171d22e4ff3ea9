from __future__ import annotations

import numpy as np
import pytest
import torch

from lipdub.config import ExpertConfig, MelConfig
from lipdub.metrics.sync_offset import level_at, loudness, offset_by_expert, offset_by_loudness

MEL = MelConfig()
TIMES = (np.arange(100) + 0.5) / 25


@pytest.fixture
def envelope() -> np.ndarray:
    """Syllables: a random curve in [0, 1] with a value every 10 ms for 4 s."""
    rng = np.random.default_rng(0)
    slow = np.interp(np.arange(400), np.arange(0, 404, 12), rng.uniform(0, 1, 34))
    return (slow - slow.min()) / np.ptp(slow)


@pytest.fixture
def voice(envelope: np.ndarray) -> np.ndarray:
    gain = np.interp(np.arange(64000) / 16000, np.arange(400) / 100, envelope)
    noise = np.random.default_rng(1).normal(0, 0.2, 64000)
    return (noise * 10 ** (2 * (gain - 1))).astype(np.float32)


@pytest.mark.parametrize("late_ms", [-200, 0, 80, 320])
def test_loudness_finds_by_how_much_lips_are_late(envelope, voice, late_ms: int) -> None:
    lips = np.interp(TIMES - late_ms / 1000, np.arange(400) / 100, envelope)
    found = offset_by_loudness(lips, TIMES, loudness(voice, MEL), MEL)
    assert abs(found.ms - late_ms) <= 20 and found.confidence > 0.5
    assert found.at_zero == pytest.approx(found.confidence, abs=0.1) if late_ms == 0 else found.at_zero < 0.6


def test_nothing_is_said_of_a_still_mouth_silence_or_a_moment(envelope, voice) -> None:
    level = loudness(voice, MEL)
    assert offset_by_loudness(np.full(100, 0.1), TIMES, level, MEL) is None
    assert offset_by_loudness(envelope[::4], TIMES, loudness(np.zeros(64000, np.float32), MEL), MEL) is None
    assert offset_by_loudness(envelope[:20], TIMES[:20], level, MEL) is None


def test_beyond_its_ends_the_sound_is_silent(voice) -> None:
    level = level_at(loudness(voice, MEL), np.array([-1.0, 2.0, 9.0]), MEL)
    assert level[0] == level[2] == -1 < level[1]


class PhaseExpert:
    """Lips are grey levels, the sound is the mel's; both are angles that have to agree."""

    config = ExpertConfig()

    def embed_faces(self, lower: torch.Tensor) -> torch.Tensor:
        return self._angle(lower.flatten(1).mean(1))

    def embed_audio(self, mel: torch.Tensor) -> torch.Tensor:
        return self._angle(mel.flatten(1).mean(1))

    def _angle(self, values: torch.Tensor) -> torch.Tensor:
        return torch.stack([(6 * values).cos(), (6 * values).sin()], 1)


@pytest.mark.parametrize("late", [-6, 0, 3, 15])
def test_the_expert_finds_by_how_many_frames_lips_are_late(late: int) -> None:
    curve = np.cumsum(np.random.default_rng(2).normal(0, 0.1, 5000)).astype(np.float32)
    mel = np.tile(curve[1000:1800], (80, 1))  # 80 columns a second
    columns = np.clip(((TIMES - late / 25) * 80).round().astype(int) + 1000, 0, 4999)
    faces = torch.from_numpy(curve[columns]).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    found = offset_by_expert(PhaseExpert(), faces, TIMES, mel, MEL)
    assert found.ms == 40 * late and found.confidence > 0.05
    assert offset_by_expert(PhaseExpert(), faces[:4], TIMES[:4], mel, MEL) is None
