"""Drawn talking squares, and a judge that can read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lipdub.faces.backend import Frame, Landmarks
from lipdub.faces.crop import TEMPLATE

N_FRAMES = 40


def mouth(seed: int) -> np.ndarray:
    """Widths (T,) of a square in pixels: it speaks by growing."""
    noise = np.random.default_rng(seed).uniform(0, 1, N_FRAMES + 2)
    return np.rint(52 + 8 * np.convolve(noise, np.ones(3) / 3, "valid"))


@pytest.fixture(scope="session")
def square_tracker(fake_faces) -> Callable[[], object]:
    """Maker of a judge that takes the width of a bright square for its mouth's opening."""

    class SquareLandmarkTracker:
        name, caveat, ours = "the width of squares", "It reads squares.", False

        def __init__(self) -> None:
            self._finder = fake_faces()

        def begin(self) -> None:
            pass

        def look(self, frame: Frame) -> Landmarks | None:
            boxes = self._finder.detect([frame])[0].boxes
            if not len(boxes):
                return None
            side = boxes[0, 2] - boxes[0, 0]
            points = (boxes[0, :2] + TEMPLATE * side).astype(np.float32)
            points[66, 1] += (side - 50) / 50 * side
            return points

    return SquareLandmarkTracker


@pytest.fixture
def talking(talking_in: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """`talking_in` the test's folder."""
    return partial(talking_in, tmp_path)


@pytest.fixture(scope="session")
def talking_in(clip_maker: Callable[[Path], Callable[..., Path]]) -> Callable[..., Path]:
    """Maker of a folder of clips, each a square that grows and shrinks, with a hum. `faceless` ones show no square."""

    def make(
        folder: Path, names: Sequence[str] = ("a/1.mp4", "a/2.mp4", "b/3.mp4"), faceless: Sequence[str] = ()
    ) -> Path:
        for number, name in enumerate(names):
            (folder / "footage" / name).parent.mkdir(parents=True, exist_ok=True)
            widths = [] if name in faceless else mouth(number)
            clip_maker(folder)(
                lambda t, widths=widths: [(50, 20, widths[t])] if len(widths) else [],
                f"footage/{name}",
                n_frames=N_FRAMES,
                languages=("eng",),
            )
        return folder / "footage"

    return make


@pytest.fixture(autouse=True)
def no_bundled_expert(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without the bundled expert, which would double the time of every test; unless one asks for it."""
    if request.node.get_closest_marker("bundled_expert") is None:
        monkeypatch.setattr("lipdub.evaluation.networks.find", lambda entry: None)
