"""Reading a single frame of a video by its time."""

from __future__ import annotations

import math
from pathlib import Path

import av

from lipdub.config import MediaConfig
from lipdub.errors import InputError
from lipdub.faces.backend import Frame
from lipdub.media.probe import VideoInfo, open_input, probe, require_video
from lipdub.media.video import upright_rgb

_ROUNDED_S = 5e-4  # reports give times in milliseconds
_BACK_S = (0.0, 2.0, 10.0, 60.0, float(1 << 31))  # some files are sought only to near a key frame, or behind it


def frame_at(path: Path, time_s: float, *, max_side: int | None = None, config: MediaConfig | None = None) -> Frame:
    """The frame that is on screen at a time, (H, W, 3) RGB as it is shown; the first or last outside of the video.

    Args:
        path: the video.
        time_s: position in seconds.
        max_side: longest side of the result; smaller frames are not enlarged.
        config: limits of `probe`.

    Raises:
        InputError: it cannot be read there.
    """
    info = require_video(probe(path, config))
    pts = math.floor((time_s + info.origin_s + _ROUNDED_S) / info.time_base)
    for back_s in _BACK_S:
        seen = _decoded(path, info, pts, pts - round(back_s / info.time_base))
        if seen is not None:
            return upright_rgb(seen, info, max_side=max_side)
    raise InputError(f"{path} has no frame at {time_s:.2f} s", "try another time")


def _decoded(path: Path, info: VideoInfo, pts: int, start: int) -> av.VideoFrame | None:
    """The frame on screen at `pts`, decoded from near `start` on; None where that is too late for it."""
    seen: av.VideoFrame | None = None
    with open_input(path) as container:
        stream = container.streams[info.index]
        assert isinstance(stream, av.VideoStream)
        try:
            if start > info.start_pts:
                container.seek(start, stream=stream)
            for frame in container.decode(stream):
                if frame.is_corrupt or frame.pts is None:
                    continue
                if frame.pts > pts and (seen is not None or start > info.start_pts):
                    break
                seen = frame
                if frame.pts > pts:  # before the first
                    break
        except av.error.FFmpegError as error:
            if seen is None:
                raise InputError(f"{path} cannot be read: {error}", "try another time") from error
    return seen
