"""Small clips: how training clips are stored, and how a picture becomes a video."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np

from lipdub.faces.backend import Frame
from lipdub.media.encoders import X264_REPRODUCIBLE


def write_clip(path: Path, frames: Iterable[Frame], rate: float, crf: int, *, preset: str = "medium") -> None:
    """Write equal-sized RGB frames, one or more, as a small H.264 mp4: the stored form of a training clip."""
    each = iter(frames)
    first = next(each)
    temporary = path.with_name(f".{path.name}.part.mp4")
    with av.open(str(temporary), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": preset, "x264-params": X264_REPRODUCIBLE}
        stream.codec_context.thread_count = 1
        for frame in chain([first], each):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    temporary.replace(path)
