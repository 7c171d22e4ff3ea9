from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from lipdub.cli.app import app
from lipdub.faces.backend import Detections
from lipdub.faces.builtin import CENTRE_SHIFT, REGION_OVER_BOX
from lipdub.faces.crop import TEMPLATE
from lipdub.media.disclosure import read_marks

FACE = np.array([(180, 130, 300, 280)], np.float32)  # about where the portrait's face is, pixels of the clip


class Portrait:
    """A `FaceBackend` that knows where the demo's face is."""

    name = "portrait"

    def detect(self, frames):
        return [Detections(FACE * np.float32(frame.shape[1] / 480), np.array([0.9], np.float32)) for frame in frames]

    def landmarks(self, frames, boxes):
        high = (boxes[:, 3] - boxes[:, 1])[:, None, None]
        middle = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2 + (0, CENTRE_SHIFT) * high
        unit = (TEMPLATE - (TEMPLATE.min(0) + TEMPLATE.max(0)) / 2) / np.ptp(TEMPLATE, 0).max()
        points = middle + unit * high * REGION_OVER_BOX / 1.35  # whose box is the box again
        return points.astype(np.float32), np.full(len(boxes), 0.9, np.float32)


@pytest.fixture
def demo(tmp_path: Path, generator_file: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setattr("lipdub.dub.networks.face_backend", lambda name, config, device: Portrait())
    monkeypatch.chdir(tmp_path)

    def run(*args: str) -> Result:
        words = ["demo", "--seconds", "1", "--device", "cpu", "--weights", str(generator_file), *args]
        return CliRunner().invoke(app, words)

    return run


def test_the_demo_makes_a_playable_file_without_any_input(demo, tmp_path: Path) -> None:
    result = demo()
    assert result.exit_code == 0, result.output
    assert "demo.mp4: 25 of 25 frames dubbed" in result.stderr
    with av.open(str(tmp_path / "demo.mp4")) as made:
        pictures = list(made.decode(video=0))
        assert len(pictures) == 25 and (pictures[0].width, pictures[0].height) == (480, 480)
    with av.open(str(tmp_path / "demo.mp4")) as made:
        sound = np.concatenate([frame.to_ndarray().ravel() for frame in made.decode(audio=0)])
        assert len(sound) >= 16000 and np.abs(sound).max() > 0.2
    assert "altered with AI" in read_marks(tmp_path / "demo.mp4")["comment"]
    assert [path.name for path in tmp_path.iterdir()] == ["demo.mp4"]


def test_the_demo_keeps_what_is_there(demo, tmp_path: Path) -> None:
    (tmp_path / "demo.mp4").write_bytes(b"precious")
    assert demo().exit_code == 5
    assert (tmp_path / "demo.mp4").read_bytes() == b"precious"


@pytest.mark.parametrize("seconds", ["0.5", "3600"])
def test_the_demo_is_short(demo, seconds: str) -> None:
    assert demo("--seconds", seconds).exit_code == 2
