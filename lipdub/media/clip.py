"""Videos of RGB pictures, as H.264 in MP4 for any player: previews, training clips, a picture that becomes a video."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import cv2
import numpy as np

from lipdub.faces.backend import Frame
from lipdub.media.audio import Waveform
from lipdub.media.encoders import X264_REPRODUCIBLE
from lipdub.media.probe import VideoInfo, file_url
from lipdub.media.writer import refused
from lipdub.threads import ClosedOrCancelled

SAMPLE_RATE = 48_000  # Hz
_BLOCK = 1024  # samples that AAC wants at a time
_FONT, _SHADOW = cv2.FONT_HERSHEY_SIMPLEX, (0, 0, 0)


def fitted(info: VideoInfo, max_side: int) -> tuple[int, int]:
    """Width and height of a video's upright picture, shrunk to a longest side of `max_side`, both even."""
    scale = min(1.0, max_side / max(info.display_width, info.display_height))
    return max(2, 2 * round(info.display_width * scale / 2)), max(2, 2 * round(info.display_height * scale / 2))


def write_text(page: Frame, text: str, at: tuple[int, int], colour: tuple[int, int, int], size: float = 0.45) -> None:
    """Draw a line of text with a shadow into `page`, its lower left corner at x, y."""
    for ink, away in ((_SHADOW, 1), (colour, 0)):
        cv2.putText(page, text, (at[0] + away, at[1] + away), _FONT, size, ink, 1, cv2.LINE_AA)


class ClipWriter(ClosedOrCancelled):
    """Writes pictures in order.

    Args:
        path: replaced if it exists; the ending .mp4.
        size: width and height, even.
        rate: pictures per second, on average.
        time_base: seconds of a tick; None: of a picture.
        crf: x264's constant quality.
        preset: x264's.
        threads: of the encoder; 0: as many as there are cores.
        sound: (n,) at SAMPLE_RATE from time 0, or None.

    Raises:
        OutputError: the disk or FFmpeg refuses.
        ResourceError: the disk is full.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        rate: Fraction,
        *,
        time_base: Fraction | None = None,
        crf: int = 20,
        preset: str = "veryfast",
        threads: int = 0,
        sound: Waveform | None = None,
    ) -> None:
        self._path, self._sound, self._time_base = path, sound, time_base or 1 / rate
        options = {"movflags": "faststart", "video_track_timescale": str(self._time_base.denominator)}
        try:
            self._container = av.open(file_url(path), mode="w", format="mp4", options=options)
        except (av.error.FFmpegError, OSError) as error:
            raise refused(self._path, error) from error
        self._video = self._container.add_stream("libx264", rate=rate)
        assert isinstance(self._video, av.VideoStream)
        self._video.width, self._video.height = size
        self._video.pix_fmt = "yuv420p"
        self._video.time_base = self._video.codec_context.time_base = self._time_base
        self._video.codec_context.thread_count = threads
        self._video.options = {"crf": str(crf), "preset": preset, "x264-params": X264_REPRODUCIBLE}
        self._audio = self._container.add_stream("aac", rate=SAMPLE_RATE, layout="mono") if sound is not None else None

    def write(self, picture: Frame, pts: int) -> None:
        """Add a picture (H, W, 3) of the given size, at `pts` of the time base."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, frame.time_base = pts, self._time_base
        try:
            self._container.mux(self._video.encode(frame))
        except (av.error.FFmpegError, OSError) as error:
            raise refused(self._path, error) from error

    def close(self) -> None:
        """Flush the encoder, write the audio and finish the file."""
        try:
            self._container.mux(self._video.encode(None))
            self._write_sound()
        except (av.error.FFmpegError, OSError) as error:
            raise refused(self._path, error) from error
        finally:
            self._container.close()

    def cancel(self) -> None:
        """Close the incomplete file."""
        self._container.close()

    def _write_sound(self) -> None:
        if self._audio is None or self._sound is None:
            return
        assert isinstance(self._audio, av.AudioStream)
        for start in range(0, len(self._sound), _BLOCK):
            block = np.ascontiguousarray(self._sound[None, start : start + _BLOCK])
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
            self._container.mux(self._audio.encode(frame))
        self._container.mux(self._audio.encode(None))


def write_clip(path: Path, frames: Iterable[Frame], rate: float, crf: int, *, preset: str = "medium") -> None:
    """Write equal-sized RGB frames, one or more: the stored form of a training clip.

    Raises:
        OutputError, ResourceError: see ClipWriter.
    """
    each = iter(frames)
    first = next(each)
    temporary, size = path.with_name(f".{path.name}.part.mp4"), (first.shape[1], first.shape[0])
    exact = Fraction(rate).limit_denominator(1001)
    with ClipWriter(temporary, size, exact, crf=crf, preset=preset, threads=1) as writer:
        for number, frame in enumerate(chain([first], each)):
            writer.write(frame, number)
    temporary.replace(path)
