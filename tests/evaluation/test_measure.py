from __future__ import annotations

import numpy as np
import pytest
import torch

from lipdub.config import load_config
from lipdub.errors import InputError
from lipdub.evaluation.landmark_track import Geometry, track_landmarks
from lipdub.evaluation.measure import Real, measure, shared_frames
from lipdub.evaluation.networks import Networks
from lipdub.losses import expert_loss
from lipdub.media.audio import load_audio
from lipdub.mel import log_mel, mel_windows
from lipdub.metrics import agreement
from lipdub.metrics.sync_offset import loudness
from lipdub.models.expert import Expert, lower_halves

CONFIG = load_config("debug")


@pytest.fixture
def clips(talking, square_tracker) -> list[Real]:
    folder = talking(("a.mp4", "b.mp4"))
    paths = [folder / name for name in ("a.mp4", "b.mp4")]
    sounds = [load_audio(path) for path in paths]
    return [
        Real(sound, loudness(sound, CONFIG.mel), track_landmarks(path, square_tracker(), 60.0, CONFIG.media))
        for path, sound in zip(paths, sounds, strict=True)
    ]


def test_a_real_video_against_itself_and_another(clips) -> None:
    a, b = clips
    values = measure(a.tracked, a.tracked, b, CONFIG, Networks(), replaced=a.tracked)
    assert (values["opening_r"], values["opening_z"]) == pytest.approx(
        agreement(a.tracked.openings, b.tracked.openings)
    )
    assert values["replaced_z"] == pytest.approx(agreement(a.tracked.openings, a.tracked.openings)[1])
    assert set(values) == {
        "opening_r",
        "opening_z",
        "replaced_z",
        "articulation",
        "range",
        "sharpness",
        "jitter",
        "outside",
        "loudness",
        "offset",
        "signed_offset",
        "width_r",
        "reach",
        "interior",
        "second_contour",
    }  # hum: no pause; and the squares never close
    assert values["outside"] == 0
    values = measure(a.tracked, a.tracked, a, CONFIG, Networks(), has_truth=True)
    assert values["lmd"] == 0 and "psnr" not in values  # infinite


def test_pauses_of_the_sound_count(clips) -> None:
    a, _ = clips
    quiet = a.waveform.copy()
    quiet[len(quiet) // 2 :] = 0
    values = measure(a.tracked, a.tracked, Real(quiet, a.level, a.tracked), CONFIG, Networks())
    assert 50 < values["silence"] < 200  # the mouth goes on as if nothing were


def test_expert_loss_is_that_of_windows_every_five_frames(clips) -> None:
    a, _ = clips
    torch.manual_seed(0)
    expert = Expert(CONFIG.expert).eval()
    found = measure(a.tracked, a.tracked, a, CONFIG, Networks(expert=expert))["expert"]
    geometry = Geometry.of(a.tracked, CONFIG.face, CONFIG.expert.size)
    faces = geometry.faces(a.tracked, CONFIG.media)
    mel = log_mel(a.waveform, CONFIG.mel)
    each = []
    with torch.no_grad():
        for first in range(0, 36, 5):
            middle = np.array([(first + 2.5) / 25])
            window = mel_windows(mel, middle, CONFIG.mel, width=CONFIG.expert.window)
            each.append(expert(lower_halves(faces[None, first : first + 5]), torch.from_numpy(window)[:, None]))
    assert len(each) == 8
    assert found == pytest.approx(float(expert_loss(torch.cat(each), floor=1e-3)), rel=1e-4)


def test_the_expert_gives_its_confidence_and_the_offset(clips) -> None:
    a, _ = clips
    torch.manual_seed(0)
    found = measure(a.tracked, a.tracked, a, CONFIG, Networks(expert=Expert(CONFIG.expert).eval()))
    assert found["expert_c"] >= 0 and found["offset"] == abs(found["signed_offset"])
    assert found["signed_offset"] % 40 == 0 and found["offset"] <= 600  # whole frames, within 15


def test_syncnet_sees_lips_and_sound_of_the_same_times(clips) -> None:
    a, _ = clips
    seen: dict[str, torch.Tensor] = {}

    class Listener(torch.nn.Module):
        def embed_audio(self, mfcc: torch.Tensor) -> torch.Tensor:
            return self._numbered("mfcc", mfcc)

        def embed_lips(self, lips: torch.Tensor) -> torch.Tensor:
            return self._numbered("lips", lips)

        def _numbered(self, name: str, windows: torch.Tensor) -> torch.Tensor:
            before = seen.get(name, windows[:0])
            seen[name] = torch.cat([before, windows])
            return torch.eye(40)[len(before) : len(seen[name])]

    found = measure(a.tracked, a.tracked, a, CONFIG, Networks(syncnet=Listener()))
    assert seen["mfcc"].shape[1:] == (1, 13, 20) and seen["lips"].shape == (len(seen["mfcc"]), 5, 3, 224, 224)
    assert len(seen["mfcc"]) == 35  # 40 frames
    assert found["lse_d"] == pytest.approx(0, abs=1e-4) and found["lse_c"] > 1  # each window fits its own sound alone


@pytest.mark.parametrize("shift", [0, 40])
def test_who_is_seen_is_compared_in_the_real_ones_place(clips, face_clip, square_tracker, shift: int) -> None:
    a, _ = clips
    other = track_landmarks(
        face_clip(lambda t: [(50 + shift, 20, 56)], "other.mp4", n_frames=30), square_tracker(), 60.0, CONFIG.media
    )

    class Brightness:
        def embed(self, face: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
            assert face.shape == (160, 160, 3) and face.dtype == np.uint8
            x, y = landmarks[30].astype(int)  # the nose of the real one
            return np.array([1.0, 0.0]) if face[y, x].mean() > 140 else np.array([0.6, 0.8])

    values = measure(other, a.tracked, a, CONFIG, Networks(recognizer=Brightness()))
    assert values["identity"] == pytest.approx(1 if shift == 0 else 0.6)
    assert "identity" not in measure(a.tracked, a.tracked, a, CONFIG, Networks(recognizer=Brightness()))


def test_lpips_is_a_mean_over_every_fifth_frame_of_a_dub(clips) -> None:
    a, b = clips
    asked: list[int] = []

    def lpips(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        asked.append(len(x))
        return torch.arange(len(x), dtype=torch.float32)

    values = measure(b.tracked, a.tracked, a, CONFIG, Networks(lpips=lpips), has_truth=True)
    assert values["lpips"] == pytest.approx(3.5)
    assert asked == [8]  # of 40
    assert "lpips" not in measure(b.tracked, a.tracked, a, CONFIG, Networks(lpips=lpips))


def test_too_little_in_common(clips, face_clip, square_tracker) -> None:
    a, _ = clips
    short = track_landmarks(
        face_clip(lambda t: [(50, 20, 56)], "short.mp4", n_frames=8), square_tracker(), 60.0, CONFIG.media
    )
    with pytest.raises(InputError, match="only 8 frames"):
        shared_frames(short, a.tracked)
