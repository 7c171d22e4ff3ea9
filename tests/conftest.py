"""What every test may use, and the rule that none of them reaches the network."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lipdub.config import Config, load_config
from lipdub.faces.backend import Boxes, Detections, Frame, Landmarks

LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class NetworkUsed(AssertionError):
    """A test tried to leave this machine."""


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection and no name look-up but to this machine, here and in processes that a test starts."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: object) -> None:
        if self.family != getattr(socket, "AF_UNIX", None) and str(address[0]) not in LOOPBACK:
            raise NetworkUsed(f"connection to {address}")
        connect(self, address)

    def guarded_look_up(host: object, *args: object, **kwargs: object) -> object:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in LOOPBACK:
            raise NetworkUsed(f"look-up of {name}")
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Caches of the person who runs the tests are neither read nor written."""
    for name in [name for name in os.environ if name.startswith("LIPDUB_") and name != "LIPDUB_SHARED"]:
        monkeypatch.delenv(name)
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("HF_HOME", str(cache / "huggingface"))


@pytest.fixture
def shared() -> Path:
    """Folder of local material (public weights, footage) that is not in the repository; tests without it skip."""
    folder = Path(os.environ.get("LIPDUB_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no local material at {folder}; set LIPDUB_SHARED")
    return folder


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """Networks of a few thousand weights on 32-pixel faces."""
    return load_config("debug")


class FakeFaceBackend:
    """A `FaceBackend` that finds what it was told: a box per frame number, or None.

    Frames are numbered in the order in which `detect` sees them. The landmarks fill the box with a fixed face.
    """

    name = "fake"

    def __init__(self, boxes: Callable[[int], tuple[float, float, float, float] | None]) -> None:
        self._boxes = boxes
        self.seen = 0

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        found = []
        for _ in frames:
            box = self._boxes(self.seen)
            self.seen += 1
            rows = np.array([box] if box else [], np.float32).reshape(-1, 4)
            found.append(Detections(rows, np.full(len(rows), 0.9, np.float32)))
        return found

    def landmarks(self, frames: Sequence[Frame], boxes: Boxes) -> tuple[Landmarks, np.ndarray]:
        low, size = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2])[:, None]
        return (low + unit_face() * size).astype(np.float32), np.full(len(boxes), 0.9, np.float32)


def unit_face() -> np.ndarray:
    """A closed-mouthed face in the unit square, (68, 2), iBUG order."""
    jaw = [(0.5 - 0.48 * np.cos(a), 0.3 + 0.68 * np.sin(a)) for a in np.linspace(0, np.pi, 17)]
    brows = [(x, 0.2) for x in (0.15, 0.22, 0.29, 0.36, 0.43, 0.57, 0.64, 0.71, 0.78, 0.85)]
    nose = [(0.5, y) for y in (0.3, 0.38, 0.46, 0.54)] + [(x, 0.58) for x in (0.42, 0.46, 0.5, 0.54, 0.58)]
    eye = [(-0.08, 0.0), (-0.03, -0.03), (0.03, -0.03), (0.08, 0.0), (0.03, 0.03), (-0.03, 0.03)]
    eyes = [(x + dx, 0.3 + dy) for x in (0.3, 0.7) for dx, dy in eye]
    upper = [(0.5 + 0.16 * x, 0.76 - 0.03 * (1 - x * x)) for x in np.linspace(-1, 1, 7)]
    lower = [(0.5 + 0.16 * x, 0.76 + 0.04 * (1 - x * x)) for x in np.linspace(0.67, -0.67, 5)]
    inner = [(0.5 + 0.12 * x, 0.76) for x in (-1, -0.5, 0, 0.5, 1, 0.5, 0, -0.5)]
    return np.array(jaw + brows + nose + eyes + upper + lower + inner, np.float32)


@pytest.fixture
def fake_faces() -> type[FakeFaceBackend]:
    """The class; call it with a function frame number -> box or None."""
    return FakeFaceBackend


@pytest.fixture
def flash_and_beep(tmp_path: Path) -> Callable[..., Path]:
    """Maker of a clip: moving colours, white frames and a beep of one frame's length at the given times."""

    def make(
        name: str = "clip.mkv",
        *,
        seconds: float = 1.0,
        rate: Fraction = Fraction(25),
        size: tuple[int, int] = (96, 64),
        at_s: Sequence[float] = (),
    ) -> Path:
        path = tmp_path / name
        width, height = size
        flashes = {round(t * rate) for t in at_s}
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=rate)
            video.width, video.height, video.pix_fmt = width, height, "yuv420p"
            video.options = {"preset": "ultrafast", "crf": "10"}
            audio = container.add_stream("pcm_s16le", rate=16000, layout="mono")
            for index in range(round(seconds * rate)):
                ramp = np.add.outer(np.arange(height), np.arange(width)) + 3 * index
                picture = np.stack([ramp % 200, (2 * ramp) % 200, 200 - ramp % 200], -1)
                picture = np.full_like(picture, 255) if index in flashes else picture
                container.mux(video.encode(av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")))
            container.mux(video.encode())
            samples = np.zeros(round(seconds * 16000), np.int16)
            for t in at_s:
                beep = np.arange(round(16000 / rate))
                first = round(t * 16000)
                part = samples[first : first + len(beep)]
                part[:] = (12000 * np.sin(2 * np.pi * 1000 * beep / 16000)).astype(np.int16)[: len(part)]
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16000, 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode())
        return path

    return make
