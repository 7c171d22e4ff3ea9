from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lipdub.config import SyncConfig, load_config
from lipdub.dub.analyze import DubPlan, FaceJob
from lipdub.dub.inference import FaceCrop, GeneratedFace
from lipdub.dub.render import render
from lipdub.faces.crop import TEMPLATE
from lipdub.faces.tracker import Track

SIZE = 32


def job(number: int, weight: np.ndarray) -> FaceJob:
    """A face in every frame, whose references nobody asks for."""
    landmarks = np.repeat((TEMPLATE * 60 + 20)[None], len(weight), 0).astype(np.float32)
    track = Track(number, 0, 0, landmarks, np.full(len(weight), 0.9, np.float32))
    shapes, views = np.zeros((len(weight), 8), np.float32), np.zeros((len(weight), 1), np.int64)
    return FaceJob(track, np.zeros((len(weight), 2, 3)), weight, {}, shapes, views)


class Studio:
    """A source, a runner and a writer that count what waits between them."""

    def __init__(self, n_frames: int) -> None:
        self.n_frames = n_frames
        self.read = self.held = self.written = 0
        self.batches: list[int] = []
        self.order: list[int] = []
        self.damage = ()
        self.shape_change = None

    def frames(self) -> Studio:
        return self

    def __enter__(self) -> Studio:
        return self

    def __exit__(self, *args: object) -> None:
        pass

    def __iter__(self) -> Iterator[SimpleNamespace]:
        for index in range(self.n_frames):
            self.read += 1
            self.held = max(self.held, self.read - self.written)
            yield SimpleNamespace(
                index=index,
                pts=10 * index,
                picture=index,
                added=False,
                patch=lambda matrix, size: np.zeros((size, size, 3), np.uint8),
                paste=lambda matrix, face, alpha: None,
            )

    def run(self, faces: list[FaceCrop]) -> list[None]:
        if faces:
            self.batches.append(len(faces))
        return [GeneratedFace(np.zeros((SIZE, SIZE, 3), np.float32), np.zeros((SIZE, SIZE), np.float32)) for _ in faces]

    def write(self, picture: int, pts: int) -> None:
        assert pts == 10 * picture
        self.order.append(picture)
        self.written += 1


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("every", [1, 3, 50, 0])
def test_few_frames_wait_at_any_time(every: int, batch_size: int) -> None:
    studio = Studio(60)
    weight = (np.arange(60) % every == 0).astype(np.float32) if every else np.zeros(60, np.float32)
    analysis = DubPlan(np.zeros(60), [job(0, weight), job(1, weight)], {})
    config = replace(load_config("debug"), sync=SyncConfig(batch_size=batch_size))
    seen: list[int] = []
    done = render(studio, analysis, studio, studio, config, on_frame=seen.append)  # type: ignore[arg-type]
    assert studio.order == list(range(60)) and seen[-1] == 60 and seen == sorted(seen)
    assert studio.held <= (4 * batch_size if every else 2)  # one batch is pasted while the next one is painted
    assert sum(studio.batches) == 2 * int(weight.sum())
    assert (done.frames, done.dubbed, done.lost) == (60, int(weight.sum()), 0)
    if every == 1 and batch_size == 4:
        assert studio.batches == [4] * 30  # whole batches, not frame by frame
