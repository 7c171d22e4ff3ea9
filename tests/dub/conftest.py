"""Running `sync_video` on made clips, and looking at what came out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lipdub.config import Config, MediaConfig, SyncConfig
from lipdub.dub.options import SyncOptions
from lipdub.dub.report import SyncReport
from lipdub.dub.sync import sync_video
from lipdub.events import Event

Picture = tuple[Fraction, list[np.ndarray]]  # time, planes


def decoded(path: Path) -> list[Picture]:
    """Times and planes of all pictures of a yuv420p file."""
    found = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            packed = frame.to_ndarray(format="yuv420p")
            height = frame.height
            found.append(
                (frame.pts * frame.time_base, [packed[:height], packed[height:].reshape(2, -1, frame.width // 2)])
            )
    return found


class Dub:
    """Runs `sync_video` with the fake face backend and the small generator, by default lossless and in float32."""

    def __init__(self, generator: Path, output: Path) -> None:
        self.output = output
        self.events: list[Event] = []
        self._generator = generator

    def __call__(self, video: Path, audio: Path, *, config: Config | None = None, **options: object) -> SyncReport:
        # float32, since "auto" depends on the processor
        config = config or Config(media=MediaConfig(preset="ultrafast"), sync=SyncConfig(precision="no"))
        chosen = replace(SyncOptions(generator=str(self._generator), device="cpu", crf=0), **options)
        return sync_video(video, audio, self.output, chosen, config=config, on_event=self.events.append)


@pytest.fixture
def dub(generator_file: Path, fake_backend, tmp_path: Path) -> Dub:
    folder = tmp_path / "out"
    folder.mkdir()
    return Dub(generator_file, folder / "dubbed.mp4")


@pytest.fixture
def pictures() -> Callable[[Path], list[Picture]]:
    return decoded
