from __future__ import annotations

import numpy as np
import pytest

from lipdub.config import FaceConfig
from lipdub.faces.shots import ShotDetector


def cuts(frames: list[np.ndarray]) -> list[int]:
    detector = ShotDetector(FaceConfig().shot_threshold)
    return [index for index, frame in enumerate(frames) if detector.push(np.clip(frame, 0, 255).astype(np.uint8))]


def plain(r: int, g: int, b: int) -> np.ndarray:
    return np.full((90, 160, 3), (r, g, b), np.float64)


def scene(seed: int, width: int = 160) -> np.ndarray:
    """Random coloured rectangles."""
    rng = np.random.default_rng(seed)
    picture = np.full((90, width, 3), rng.uniform(40, 180, 3))
    for _ in range(25):
        y, x = rng.integers(0, 70), rng.integers(0, width - 20)
        picture[y : y + rng.integers(10, 50), x : x + rng.integers(10, 60)] = rng.uniform(20, 200, 3)
    return picture


def test_a_hard_cut_is_found_at_its_frame() -> None:
    assert cuts([plain(200, 40, 40)] * 5 + [plain(40, 40, 200)] * 5) == [5]
    assert cuts([scene(1)] * 4 + [scene(2)] * 3 + [scene(3)] * 3) == [4, 7]


def test_still_and_noisy_pictures_have_no_cut() -> None:
    rng = np.random.default_rng(0)
    assert cuts([scene(1) + rng.normal(0, 12, (90, 160, 3)) for _ in range(20)]) == []


def test_a_pan_is_no_cut() -> None:
    wide = scene(4, 700)
    assert cuts([wide[:, x : x + 160] for x in range(0, 500, 4)]) == []


def test_slow_light_is_no_cut() -> None:
    assert cuts([scene(5) * gain for gain in np.linspace(0.4, 1.3, 40)]) == []
    assert cuts([plain(60, 60, 60) + level for level in np.arange(0, 150, 4)]) == []  # over many bin edges


def test_a_flash_is_no_cut() -> None:
    white, bright = plain(255, 255, 255), scene(6) * 0.5 + 130
    assert cuts([scene(6)] * 4 + [white] + [scene(6)] * 4) == []
    assert cuts([scene(6)] * 4 + [bright, white, white, bright] + [scene(6)] * 4) == []


def test_a_cut_under_a_flash_or_blackout_is_found() -> None:
    for between in (plain(255, 255, 255), plain(0, 0, 0)):
        assert cuts([scene(6)] * 4 + [between] * 2 + [scene(7)] * 4) == [6]


def test_a_long_blackout_is_a_shot() -> None:
    assert len(cuts([scene(6)] * 4 + [plain(0, 0, 0)] * 30 + [scene(6)] * 4)) == 2


def test_the_size_of_frames_does_not_matter() -> None:
    large = np.repeat(np.repeat(scene(8), 2, 0), 2, 1)
    assert cuts([scene(8), large, scene(8)]) == []


def talking(number: int, at: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """A head before a room, that sways by a pixel or two; `at` moves it elsewhere."""
    picture = scene(9)
    y, x = np.mgrid[:90, :160]
    for radius, offset, colour in ((45, 50, (60, 60, 120)), (24, 0, (205, 165, 140)), (6, 8, (140, 60, 60))):
        middle_x, middle_y = 80 + at[0] + 1.5 * np.sin(number / 4), 38 + at[1] + offset + np.cos(number / 5)
        picture[(x - middle_x) ** 2 + (y - middle_y) ** 2 < radius**2] = colour
    return picture


@pytest.mark.parametrize("at", [(-25.0, 3.0), (-15.0, 3.0), (12.0, -4.0)])
def test_a_jump_cut_is_found(at: tuple[float, float]) -> None:
    frames = [talking(i) for i in range(20)] + [talking(i, at) for i in range(20)]
    detector = ShotDetector(FaceConfig().shot_threshold)
    found = [detector.push(np.clip(frame, 0, 255).astype(np.uint8)) for frame in frames]
    assert np.flatnonzero(found).tolist() == [20]
    assert cuts([frames[0], frames[20]]) == []  # without the motion before, two such pictures are no cut


def test_quick_motion_captions_and_stutter_are_no_jump_cut() -> None:
    away = np.concatenate([np.zeros(12), 35 * (1 - np.cos(np.linspace(0, np.pi, 12))) / 2, np.full(12, 35.0)])
    assert cuts([talking(i, (x, 0.0)) for i, x in enumerate(away)]) == []
    captioned = [talking(i) for i in range(40)]
    for picture in captioned[12:24]:
        picture[66:84, 20:140] = 20
        picture[70:80:2, 30:130:3] = 240
    assert cuts(captioned) == []
    swaying = [talking(i, (20 * np.sin(i / 5), 0.0)) for i in range(60)]
    assert cuts([swaying[i - i % 3] for i in range(60)]) == []  # each picture is shown three times


def test_a_flash_on_a_talking_head_is_no_jump_cut() -> None:
    frames = [talking(i) for i in range(40)]
    assert cuts(frames[:15] + [np.clip(1.6 * each + 30, 0, 255) for each in frames[15:17]] + frames[17:]) == []
