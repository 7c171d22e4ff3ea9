"""What every test may use, and the rule that none of them reaches the network."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lipdub.config import Config, load_config
from lipdub.faces.backend import Boxes, Detections, Frame, Landmarks
from lipdub.faces.crop import TEMPLATE
from lipdub.media.audio import write_wav
from lipdub.weights import config_json, save_state

LOOPBACK = {"127.0.0.1", "::1", "localhost"}


class NetworkUsed(AssertionError):
    """A test tried to leave this machine."""


HOSTILE = """#!/bin/sh
case "$*" in
*-version*) echo "ffmpeg version 4.2.2 Copyright";;
*) for last; do :; done
   case "$last" in -*) ;; *) echo broken > "${last#file:}";; esac;;
esac
"""


@pytest.fixture(autouse=True, scope="session")
def old_ffmpeg_on_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An ffmpeg that is old and writes nonsense comes first on PATH in all tests: lipdub must never run it."""
    folder = tmp_path_factory.mktemp("old")
    for name in ("ffmpeg", "ffprobe"):
        (folder / name).write_text(HOSTILE)
        (folder / name).chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}{os.pathsep}{os.environ.get('PATH', '')}")
        yield folder / "ffmpeg"


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """Processes that tests start hear Ctrl-C, even where tests began in a background shell, which ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
    cache = tmp_path_factory.mktemp("cache")
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


BRIGHT = 140  # grey level above which a pixel belongs to a marker
Marker = tuple[float, float, float]  # left, top and side of a face's unit crop, pixels


SCENES = np.array([(60, 60, 60), (100, 40, 30), (30, 50, 110)])  # colours behind the faces


def face_picture(size: tuple[int, int], markers: Sequence[Marker], number: int = 0, scene: int = 0) -> Frame:
    """A dark, moving background with bright squares that stand for faces, (H, W, 3)."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    wave = np.sin(x / (7 + 9 * scene) + number / 30)[..., None] + np.cos(y[..., None] / np.array([5.0, 8.0, 11.0]))
    picture = SCENES[scene] + 15 * wave
    for left, top, side in markers:
        inside = (abs(x + 0.5 - left - side / 2) < side / 2) & (abs(y + 0.5 - top - side / 2) < side / 2)
        skin = np.array([235, 205, 190]) - 12 * np.sin((x - left) / 3 + (y - top) / 2)[..., None]
        picture[inside] = skin[inside]
    return picture.astype(np.uint8)


class FakeFaceBackend:
    """A `FaceBackend` that takes bright squares for faces, each with the template's landmarks in its unit crop.

    Args:
        ghosts: boxes that `detect` finds in addition; where no square is near, `landmarks` is not confident.
    """

    name = "fake"

    def __init__(self, ghosts: Sequence[tuple[float, float, float, float]] = ()) -> None:
        self._ghosts = np.array(ghosts, np.float32).reshape(-1, 4)
        self.n_detections = 0

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        self.n_detections += len(frames)
        boxes = [np.concatenate([_squares(frame), self._ghosts]) for frame in frames]
        return [Detections(rows, np.full(len(rows), 0.9, np.float32)) for rows in boxes]

    def landmarks(self, frames: Sequence[Frame], boxes: Boxes) -> tuple[Landmarks, np.ndarray]:
        points, confidence = np.zeros((len(boxes), 68, 2), np.float32), np.zeros(len(boxes), np.float32)
        for index, (frame, box) in enumerate(zip(frames, boxes, strict=True)):
            squares = _squares(frame)
            centre = (box[:2] + box[2:]) / 2
            away = np.abs((squares[:, :2] + squares[:, 2:]) / 2 - centre).max(1)
            near = away < max(box[2:] - box[:2])
            if near.any():
                square = squares[away.argmin()]
                points[index] = square[:2] + TEMPLATE * (square[2:] - square[:2])
                confidence[index] = 0.9
        return points, confidence


def _squares(frame: Frame) -> Boxes:
    """Boxes of all bright squares, largest first."""
    bright = (frame.mean(2) > BRIGHT).astype(np.uint8)
    rows = cv2.connectedComponentsWithStats(bright)[2][1:]
    rows = rows[rows[:, cv2.CC_STAT_AREA] > 60]
    boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], 1).astype(np.float32)
    return boxes[np.argsort(-rows[:, cv2.CC_STAT_AREA], kind="stable")]


@pytest.fixture(scope="session")
def fake_faces() -> type[FakeFaceBackend]:
    """The class of the fake face backend."""
    return FakeFaceBackend


@pytest.fixture
def fake_backend(fake_faces: type[FakeFaceBackend], monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs find their faces with the fake face backend; drawn faces go without the occlusion network."""
    monkeypatch.setattr("lipdub.dub.networks.occlusion_detector", lambda margin, device: None)
    monkeypatch.setattr("lipdub.dub.networks.face_backend", lambda name, config, device: fake_faces())


@pytest.fixture
def draw_faces() -> Callable[..., Frame]:
    """`face_picture`."""
    return face_picture


@pytest.fixture
def face_clip(clip_maker: Callable[[Path], Callable[..., Path]], tmp_path: Path) -> Callable[..., Path]:
    """Maker of a clip in the test's folder, see `clip_maker`."""
    return clip_maker(tmp_path)


@pytest.fixture(scope="session")
def clip_maker() -> Callable[[Path], Callable[..., Path]]:
    """Of a folder, the maker of clips there in which bright squares stand for faces.

    `markers(number)` gives the faces of a frame and `scenes(number)` what is behind them; `pts` and `time_base` make
    the frame rate variable.
    """
    return _clips_in


def _clips_in(folder: Path) -> Callable[..., Path]:
    def make(
        markers: Callable[[int], Sequence[Marker]],
        name: str = "clip.mp4",
        *,
        n_frames: int = 10,
        rate: Fraction = Fraction(25),
        pts: Sequence[int] | None = None,
        time_base: Fraction | None = None,
        size: tuple[int, int] = (160, 120),
        languages: Sequence[str] = (),
        rotation: int = 0,
        scenes: Callable[[int], int] = lambda number: 0,
    ) -> Path:
        path, clock = folder / name, time_base or 1 / rate
        stamps = list(pts or range(n_frames))
        options = {"video_track_timescale": str(clock.denominator)} if path.suffix == ".mp4" else {}
        with av.open(str(path), "w", options=options) as container:
            video = container.add_stream("libx264", rate=rate)
            video.width, video.height, video.pix_fmt = *size, "yuv420p"
            video.time_base = video.codec_context.time_base = clock
            video.options = {"preset": "ultrafast", "crf": "12"}
            if rotation:
                video.set_display_rotation(rotation)
            sounds = [container.add_stream("aac", rate=16000, layout="mono") for _ in languages]
            for sound, language in zip(sounds, languages, strict=True):
                sound.metadata["language"] = language
            if languages:
                container.set_chapters([_chapter(number, 200) for number in range(2)])
            for number, stamp in enumerate(stamps):
                picture = face_picture(size, markers(number), number, scenes(number))
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = stamp, clock
                container.mux(video.encode(frame))
            container.mux(video.encode())
            for sound in sounds:
                _hum(container, sound, float(stamps[-1] * clock) + 0.04)
        return path

    return make


def _chapter(number: int, length_ms: int) -> dict[str, object]:
    start, title = number * length_ms, {"title": f"Chapter {number}"}
    return {
        "id": number,
        "start": start,
        "end": start + length_ms,
        "time_base": Fraction(1, 1000),
        "metadata": title,
    }


def _hum(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    wave = 0.3 * np.sin(2 * np.pi * 200 * np.arange(round(seconds * 16000)) / 16000).astype(np.float32)
    for start in range(0, len(wave), 1024):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


@pytest.fixture
def speech(tmp_path: Path) -> Callable[..., Path]:
    """Maker of a dub: a humming tone of some seconds, or digital silence."""

    def make(seconds: float = 0.4, name: str = "dub.wav", *, level: float = 0.3) -> Path:
        t = np.arange(round(seconds * 16000)) / 16000
        tone = level * np.sin(2 * np.pi * 150 * t) * (1 + 0.5 * np.sin(2 * np.pi * 4 * t))
        write_wav(tmp_path / name, tone.astype(np.float32), 16000)
        return tmp_path / name

    return make


@pytest.fixture(scope="session")
def generator_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small untrained generator with a mouth-shape code. It repaints nearly the whole crop."""
    import torch

    from lipdub.models.generator import Generator  # slow to import, and few tests need it

    config = load_config("debug", ["generator.shape_code=8"])
    torch.manual_seed(0)
    network = Generator(config.generator)
    with torch.no_grad():
        network.mask_head[-1].bias.fill_(6.0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_state(path, network.state_dict(), {"kind": "generator", "config": config_json(config, "generator", "mel")})
    return path


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
