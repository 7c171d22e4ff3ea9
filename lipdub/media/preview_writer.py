"""Writer of preview videos: RGB pictures with their times, and mono audio, as an MP4 for any player."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from lipdub.errors import OutputError
from lipdub.faces.backend import Frame
from lipdub.media.audio import Waveform
from lipdub.media.encoders import X264_REPRODUCIBLE
from lipdub.media.probe import VideoInfo, file_url
from lipdub.threads import ClosedOrCancelled

CRF, PRESET = "20", "veryfast"  # for viewing only
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


class PreviewWriter(ClosedOrCancelled):
    """Writes pictures in order.

    Args:
        path: replaced if it exists; the ending .mp4.
        size: width and height, even.
        clock: the video whose time base and rate the pictures have.
        sound: (n,) at SAMPLE_RATE from time 0, or None.

    Raises:
        OutputError: the disc or FFmpeg refuses.
    """

    def __init__(self, path: Path, size: tuple[int, int], clock: VideoInfo, sound: Waveform | None = None) -> None:
        self._path, self._clock, self._sound = path, clock, sound
        options = {"movflags": "faststart", "video_track_timescale": str(clock.time_base.denominator)}
        try:
            self._container = av.open(file_url(path), mode="w", format="mp4", options=options)
        except (av.error.FFmpegError, OSError) as error:
            raise self._refused(error) from error
        self._video = self._container.add_stream("libx264", rate=clock.average_rate)
        assert isinstance(self._video, av.VideoStream)
        self._video.width, self._video.height = size
        self._video.pix_fmt = "yuv420p"
        self._video.time_base = self._video.codec_context.time_base = clock.time_base
        self._video.options = {"crf": CRF, "preset": PRESET, "x264-params": X264_REPRODUCIBLE}
        self._audio = self._container.add_stream("aac", rate=SAMPLE_RATE, layout="mono") if sound is not None else None

    def write(self, picture: Frame, pts: int) -> None:
        """Add a picture (H, W, 3) of the given size, at `pts` of the clock's time base."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, frame.time_base = pts, self._clock.time_base
        try:
            self._container.mux(self._video.encode(frame))
        except (av.error.FFmpegError, OSError) as error:
            raise self._refused(error) from error

    def close(self) -> None:
        """Flush the encoder, write the audio and finish the file."""
        try:
            self._container.mux(self._video.encode(None))
            self._write_sound()
        except (av.error.FFmpegError, OSError) as error:
            raise self._refused(error) from error
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

    def _refused(self, error: Exception) -> OutputError:
        return OutputError(f"cannot write {self._path}: {error}", "check the folder")
