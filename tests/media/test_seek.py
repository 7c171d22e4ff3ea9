from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from lipdub.errors import InputError
from lipdub.media.seek import frame_at


@pytest.fixture(params=["a.mp4", "a.mkv", "a.ts"])
def clip(request, tmp_path: Path) -> Path:
    """2 s of 25 frames a second with B-frames and a key frame every 12, each brighter by 4 levels than the last."""
    path = tmp_path / request.param
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 32, "yuv420p"
        video.options = {"crf": "1", "g": "12", "bf": "2"}
        for number in range(50):
            page = np.full((32, 64, 3), 20 + 4 * number, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(page, format="rgb24")))
        container.mux(video.encode())
    return path


@pytest.mark.parametrize(("time_s", "number"), [(0.0, 0), (0.5, 12), (0.53, 13), (1.239, 30), (1.97, 49), (9.0, 49)])
def test_the_frame_that_is_on_screen(clip: Path, time_s: float, number: int) -> None:
    assert frame_at(clip, time_s + 1e-4).mean() == pytest.approx(20 + 4 * number, abs=1.5)


def test_it_can_be_small(clip: Path) -> None:
    assert frame_at(clip, 0.0, max_side=32).shape == (16, 32, 3)


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(InputError):
        frame_at(tmp_path / "a.mp4", 0.0)


def test_a_frame_is_on_screen_until_the_next(face_clip) -> None:
    video = face_clip(lambda number: [(5 * number, 30, 40)], n_frames=6)  # whose clock has one tick a frame
    second = frame_at(video, 0.08)
    assert (frame_at(video, 0.119) == second).all() and (frame_at(video, 0.0796) == second).all()
    assert (frame_at(video, 0.12) != second).any() and (frame_at(video, 0.079) != second).any()
