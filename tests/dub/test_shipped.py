"""What ships, at work: the bundled networks dub the demo's portrait, and its mouth must follow the syllables.

The opening is read off the dub by the bundled landmark network; what it should do is known from how the voice was
made: open in each syllable, shut between them. The generators that must fail are the bundled one under a spoilt voice:
what it draws is then what a generator draws that is frozen, random or late.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lipdub import SyncOptions, sync
from lipdub.config import Config
from lipdub.dub.demo import RATE, SAMPLE_RATE, babble, make_demo_inputs
from lipdub.evaluation.landmark_track import BuiltinJudge, track_landmarks
from lipdub.faces.choose import builtin_backend
from lipdub.media.audio import load_audio, write_wav
from lipdub.metrics import agreement
from lipdub.metrics.sync_offset import level_at, loudness

SECONDS = 5.0
LEAST_R = 0.35  # of opening and loudness; weights 0e12714e: 0.50, and 0.05 to 0.20 for the spoilt ones below
CONFIG = Config()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The portrait's clip and its voice."""
    return make_demo_inputs(tmp_path_factory.mktemp("shipped"), SECONDS)


def follows(video: Path, audio: Path) -> float:
    """r of the mouth's opening with the loudness of the voice."""
    backend = builtin_backend(CONFIG.face, torch.device("cpu"))
    seen = track_landmarks(video, BuiltinJudge(backend), SECONDS, CONFIG.media)
    level = loudness(load_audio(audio), CONFIG.mel)
    return agreement(seen.openings, level_at(level, seen.times_s + 0.5 / RATE, CONFIG.mel))[0]


def test_the_mouth_follows_the_syllables(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    video, audio = inputs
    report = sync(video, audio, tmp_path / "out.mp4", SyncOptions(device="cpu"))
    assert report.dubbed == report.frames == round(SECONDS * RATE)
    r = follows(tmp_path / "out.mp4", audio)
    assert r >= LEAST_R


def frozen(voice: np.ndarray) -> np.ndarray:
    """Silence: the mouth rests."""
    return np.zeros_like(voice)


def random(voice: np.ndarray) -> np.ndarray:
    """Other syllables at other times."""
    return babble(SECONDS, seed=11)


def late(voice: np.ndarray) -> np.ndarray:
    """The right mouth, five frames after its sound."""
    shift = round(5 / RATE * SAMPLE_RATE)
    return np.concatenate([np.zeros(shift, np.float32), voice[:-shift]])


@pytest.mark.parametrize("spoil", [frozen, random, late])
def test_a_spoilt_generator_does_not(inputs: tuple[Path, Path], tmp_path: Path, spoil) -> None:
    video, audio = inputs
    write_wav(tmp_path / "spoilt.wav", spoil(babble(SECONDS)), SAMPLE_RATE)
    sync(video, tmp_path / "spoilt.wav", tmp_path / "out.mp4", SyncOptions(device="cpu"))
    r = follows(tmp_path / "out.mp4", audio)
    assert r < LEAST_R
