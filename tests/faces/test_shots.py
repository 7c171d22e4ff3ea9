from __future__ import annotations

import numpy as np

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
