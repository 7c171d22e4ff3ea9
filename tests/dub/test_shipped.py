"""What ships, at work: the bundled networks dub the demo's portrait, and its mouth must follow the syllables.

The opening is read off the dub by the bundled landmark network; what it should do is known from how the voice was
made: open in each syllable, shut between them. The generators that must fail draw the faces that the bundled one drew
for the same voice, at the wrong times: one for all, in random order, five frames late.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from lipdub import SyncOptions, sync
from lipdub.config import Config
from lipdub.dub.demo import RATE, make_demo_inputs
from lipdub.dub.inference import FaceCrop, GeneratedFace, GeneratorRunner
from lipdub.evaluation.landmark_track import BuiltinJudge, track_landmarks
from lipdub.faces.choose import builtin_backend
from lipdub.media.audio import load_audio
from lipdub.metrics import agreement
from lipdub.metrics.sync_offset import level_at, loudness

SECONDS = 5.0
LEAST_R = 0.35  # of opening and loudness; weights 908771ae: 0.63, and -0.12 to 0.06 for the spoilt ones below
CONFIG = Config()


@dataclass(frozen=True)
class Dub:
    """The portrait's clip, its voice, their dub, and every face that the generator drew for it, by frame."""

    video: Path
    audio: Path
    output: Path
    faces: dict[int, GeneratedFace]
    dubbed: int


@pytest.fixture(scope="module")
def dub(tmp_path_factory: pytest.TempPathFactory) -> Dub:
    """What the bundled networks make."""
    folder = tmp_path_factory.mktemp("shipped")
    video, audio = make_demo_inputs(folder, SECONDS)
    faces: dict[int, GeneratedFace] = {}
    drawn = GeneratorRunner.run

    def run(self: GeneratorRunner, targets: Sequence[FaceCrop]) -> list[GeneratedFace | None]:
        found = drawn(self, targets)
        faces.update({target.frame: face for target, face in zip(targets, found, strict=True) if face is not None})
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GeneratorRunner, "run", run)
        report = sync(video, audio, folder / "out.mp4", SyncOptions(device="cpu"))
    return Dub(video, audio, folder / "out.mp4", faces, report.dubbed)


def follows(video: Path, audio: Path) -> float:
    """r of the mouth's opening with the loudness of the voice."""
    backend = builtin_backend(CONFIG.face, torch.device("cpu"))
    seen = track_landmarks(video, BuiltinJudge(backend), SECONDS, CONFIG.media)
    level = loudness(load_audio(audio), CONFIG.mel)
    return agreement(seen.openings, level_at(level, seen.times_s + 0.5 / RATE, CONFIG.mel))[0]


def test_the_mouth_follows_the_syllables(dub: Dub) -> None:
    assert dub.dubbed == len(dub.faces) == round(SECONDS * RATE)
    assert follows(dub.output, dub.audio) >= LEAST_R


def frozen(frame: int) -> int:
    """The mouth of one frame, always."""
    return 30


def at_random(frame: int) -> int:
    """Every mouth at another time."""
    return int(np.random.default_rng(0).permutation(round(SECONDS * RATE))[frame])


def late(frame: int) -> int:
    """The right mouth, five frames after its sound."""
    return max(0, frame - 5)


@pytest.mark.parametrize("spoil", [frozen, at_random, late])
def test_a_spoilt_generator_does_not(
    dub: Dub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[int], int]
) -> None:
    def run(self: GeneratorRunner, targets: Sequence[FaceCrop]) -> list[GeneratedFace | None]:
        return [dub.faces[spoil(target.frame)] for target in targets]

    monkeypatch.setattr(GeneratorRunner, "run", run)
    sync(dub.video, dub.audio, tmp_path / "out.mp4", SyncOptions(device="cpu"))
    assert follows(tmp_path / "out.mp4", dub.audio) < LEAST_R
