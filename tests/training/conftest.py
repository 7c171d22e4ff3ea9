"""Small data sets of drawn faces whose mouths move with their sound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from lipdub.data.store import RATE, ClipEntry, write_arrays, write_manifest
from lipdub.media.clip import write_clip

SIDE = 48  # pixels of a stored crop
MARGIN = 1.25
COLUMNS = 80  # of mel a second


def movement(seed: int, frames: int) -> Callable[[np.ndarray], np.ndarray]:
    """A random smooth signal in [0, 1] of the time in seconds."""
    rng = np.random.default_rng(seed)
    knots = np.arange(-1, frames / RATE + 1, 0.12)
    values = rng.uniform(0, 1, len(knots))
    return lambda times: np.interp(times, knots, values)


def open_mouth(face: np.ndarray, opening: np.ndarray) -> np.ndarray:
    """Landmarks (T, 68, 2) of a closed face whose lower lip and chin drop by `opening` (T,), the left side more."""
    points = np.repeat(face[None], len(opening), 0)
    lower = [5, 6, 7, 8, 9, 10, 11, 55, 56, 57, 58, 59, 65, 66, 67]
    points[:, lower, 1] += opening[:, None]
    points[:, 67, 1] += 0.3 * opening
    return points


def draw(points: np.ndarray, seed: int) -> np.ndarray:
    """A textured picture (SIDE, SIDE, 3), red in its top left corner, with eyes and an open mouth at the landmarks."""
    rng = np.random.default_rng(seed)
    texture = cv2.resize(rng.uniform(90, 220, (12, 12, 3)).astype(np.float32), (SIDE, SIDE))
    picture = np.clip(texture, 0, 255).astype(np.uint8)
    picture[:12, :12] = (230, 30, 40)
    for part, colour in ((slice(36, 42), (40, 40, 90)), (slice(42, 48), (40, 40, 90)), (slice(48, 60), (180, 60, 60))):
        cv2.fillPoly(picture, [np.rint(points[part]).astype(np.int32)], colour)
    cv2.fillPoly(picture, [np.rint(points[60:68]).astype(np.int32)], (20, 5, 5))
    return picture


def dotted(points: np.ndarray, size: int) -> np.ndarray:
    """A grey picture with a bright dot at each point."""
    y, x = np.mgrid[:size, :size]
    picture = np.full((size, size), 60.0)
    for px, py in points:
        picture += 150 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 2.0**2))
    return np.repeat(np.clip(picture, 0, 255).astype(np.uint8)[..., None], 3, 2)


@pytest.fixture(scope="session")
def draw_dots() -> Callable[..., np.ndarray]:
    """`dotted`."""
    return dotted


@pytest.fixture(scope="session", autouse=True)
def on_the_cpu() -> Iterator[None]:
    """Also where there is a GPU: runs are compared bit for bit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        yield


@pytest.fixture(scope="session")
def unit_face() -> np.ndarray:
    """A closed-mouthed face in the unit crop, (68, 2)."""
    from lipdub.faces.crop import TEMPLATE

    return TEMPLATE.copy()


@pytest.fixture(scope="session")
def make_data(unit_face: np.ndarray) -> Callable[..., list[ClipEntry]]:
    """Maker of a data set: one group, clips by (speaker, split, frames); the lips lie `lag_s` behind the sound."""

    def make(folder: Path, clips: Sequence[tuple[str, str, int]], lag_s: float = 0.0) -> list[ClipEntry]:
        (folder / "clips").mkdir(parents=True)
        entries = []
        for number, (speaker, split, frames) in enumerate(clips):
            signal = movement(number, frames)
            opening = 0.12 * signal((np.arange(frames) + 0.5) / RATE - lag_s)
            inside = (open_mouth(unit_face, opening) - 0.5) / MARGIN + 0.5
            landmarks = (inside * SIDE).astype(np.float32)
            pictures = [draw(points, seed=len(speaker) + ord(speaker[0])) for points in landmarks]
            write_clip(folder / "clips" / f"{number}.mp4", pictures, RATE, 12)
            times = np.arange(round(frames / RATE * COLUMNS) + 1) / COLUMNS
            mel = np.linspace(-0.6, 0.2, 80)[:, None] * 0.3 + (1.4 * signal(times) - 0.9)
            confidence = np.full(frames, 0.9, np.float32)
            write_arrays(folder / "clips" / f"{number}.npz", landmarks, confidence, np.clip(mel, -1, 1).astype("f4"))
            entries.append(
                ClipEntry(
                    id=str(number), speaker=speaker, group="made", split=split, frames=frames, source="", start_s=0.0
                )
            )
        write_manifest(folder, entries, {"margin": MARGIN, "side": SIDE})
        return entries

    return make


@pytest.fixture(scope="session")
def made_data(make_data: Callable[..., list[ClipEntry]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three speakers to train on, one of whom has most of the clips, and one to validate on."""
    folder = tmp_path_factory.mktemp("data") / "made"
    train = [("anna", "train", 40), ("anna", "train", 50), ("anna", "train", 45), ("ben", "train", 30)]
    make_data(folder, [*train, ("cora", "train", 32), ("dora", "val", 36), ("dora", "val", 30)])
    return folder
