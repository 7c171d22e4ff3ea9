"""A decoded picture as the face code wants to see it, and small clips for training."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from lipdub.faces.backend import Frame
from lipdub.media.probe import VideoInfo
from lipdub.media.video import read_patch, upright_rgb


class PictureView:
    """One upright frame, converted only where it is looked at; the View of faces/tracker.py."""

    def __init__(self, picture: av.VideoFrame, info: VideoInfo) -> None:
        self._picture, self._info = picture, info

    def whole(self, max_side: int) -> tuple[Frame, float]:
        """The frame shrunk to `max_side`, and its scale."""
        frame = upright_rgb(self._picture, self._info, max_side=max_side)
        return frame, frame.shape[1] / self._info.display_width

    def patch(self, matrix: NDArray[np.float64], size: int) -> Frame:
        """(size, size, 3) seen through the affine display -> patch."""
        return read_patch(self._picture, self._info, matrix, size)


def write_clip(path: Path, frames: Iterable[Frame], rate: float, crf: int, *, preset: str = "medium") -> None:
    """Write equal-sized RGB frames, one or more, as a small H.264 mp4: the stored form of a training clip."""
    each = iter(frames)
    first = next(each)
    temporary = path.with_name(f".{path.name}.part.mp4")
    with av.open(str(temporary), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": preset}
        stream.codec_context.thread_count = 1
        for frame in chain([first], each):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    temporary.replace(path)
