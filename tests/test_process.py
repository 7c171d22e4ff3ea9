from __future__ import annotations

from collections.abc import Iterator

import cv2
import pytest
import torch

from lipdub.config import load_config
from lipdub.dub.analyze import track_faces
from lipdub.media.source import open_source
from lipdub.process import shared_cores


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before, pictures = torch.get_num_threads(), cv2.getNumThreads()
    monkeypatch.setattr("lipdub.process._owned", True)
    yield
    torch.set_num_threads(before)
    cv2.setNumThreads(pictures)


@pytest.mark.parametrize(("all_of_them", "networks"), [(1, 1), (2, 1), (3, 1), (8, 4)])
def test_the_networks_get_half_and_give_it_back(all_of_them: int, networks: int) -> None:
    torch.set_num_threads(all_of_them)
    cv2.setNumThreads(all_of_them)
    with shared_cores():
        assert torch.get_num_threads() == networks and cv2.getNumThreads() == 1
    assert torch.get_num_threads() == cv2.getNumThreads() == all_of_them
    with pytest.raises(OSError), shared_cores():
        raise OSError
    assert torch.get_num_threads() == all_of_them


def test_a_film_is_looked_through_with_shared_cores(face_clip, fake_faces) -> None:
    seen = set()

    class Watched(fake_faces):
        def detect(self, frames):
            seen.add(torch.get_num_threads())
            return super().detect(frames)

    torch.set_num_threads(4)
    video = face_clip(lambda number: [(30, 20, 60)], n_frames=5)
    config = load_config("debug")
    track_faces(open_source(video, config.media), Watched(), config)
    assert seen == {2} and torch.get_num_threads() == 4


def test_a_callers_threads_are_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipdub.process._owned", False)
    torch.set_num_threads(4)
    with shared_cores():
        assert torch.get_num_threads() == 4
