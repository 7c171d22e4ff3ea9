"""`--compare`: source and dub side by side above the waveform."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.errors import InputError
from lipdub.faces.backend import Frame
from lipdub.media.audio import Waveform, load_audio
from lipdub.media.clip import SAMPLE_RATE, ClipWriter, fitted, write_text
from lipdub.media.source import Source, open_source

SIDE = 720  # longest side of a panel in pixels
WAVE = 96  # height of the waveform in pixels
WINDOW_S = 4.0  # of sound that is seen at once, now in the middle
PAPER, INK, NOW = (24, 24, 24), (120, 200, 255), (255, 90, 60)  # RGB


def write_comparison(
    source: Source,
    dubbed: Path,
    output: Path,
    *,
    on_frame: Callable[[int], None] = lambda done: None,
) -> None:
    """Write an MP4 with the source and its dub, which has as many frames, and with the sound of the dub.

    Raises:
        InputError: a file cannot be read, or they do not have as many frames.
        OutputError: the output cannot be written.
    """
    audio = load_audio(dubbed, sample_rate=SAMPLE_RATE, config=source.config)
    wave = _Wave(audio)
    info = source.video
    wide, high = fitted(info, SIDE)
    size = (2 * wide, high + WAVE)
    with (
        ClipWriter(output, size, info.average_rate, time_base=info.time_base, sound=audio) as writer,
        source.frames() as old,
        open_source(dubbed, source.config).frames() as new,
    ):
        dubbed_frames = iter(new)
        for frame in old:
            other = next(dubbed_frames, None)
            if other is None:
                raise InputError(f"{dubbed} has fewer frames than {source.name}", "compare a video with its own dub")
            page = np.empty((high + WAVE, 2 * wide, 3), np.uint8)
            page[:high, :wide] = titled(frame.upright(SIDE), (wide, high), "source")
            page[:high, wide:] = titled(other.upright(SIDE), (wide, high), "dubbed")
            page[high:] = wave.strip(frame.time_s, 2 * wide)
            writer.write(page, frame.pts)
            on_frame(frame.index + 1)


def titled(picture: Frame, size: tuple[int, int], title: str) -> Frame:
    """A picture of `size` with a word in its corner."""
    page = np.ascontiguousarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    write_text(page, title, (8, 20), (255, 255, 255), 0.5)
    return page


class _Wave:
    """A waveform that is drawn around any moment; its peaks are found once."""

    def __init__(self, sound: Waveform, per_second: int = 200) -> None:
        step = SAMPLE_RATE // per_second
        padded = np.pad(np.abs(sound), (0, -len(sound) % step))
        self._per_second = per_second
        self._peaks: NDArray[np.float32] = padded.reshape(-1, step).max(1)
        self._peaks /= max(float(self._peaks.max(initial=0)), 1e-3)

    def strip(self, time_s: float, width: int) -> Frame:
        """(WAVE, width, 3), `time_s` in the middle."""
        times = time_s + (np.arange(width) / width - 0.5) * WINDOW_S
        places = np.round(times * self._per_second).astype(int)
        inside = (places >= 0) & (places < len(self._peaks))
        heights = np.where(inside, self._peaks[np.clip(places, 0, len(self._peaks) - 1)], 0.0)
        away = np.abs(np.arange(WAVE) - (WAVE - 1) / 2) / (WAVE / 2)
        page = np.full((WAVE, width, 3), PAPER, np.uint8)
        page[away[:, None] <= np.maximum(heights, 0.01)] = INK
        page[:, width // 2 - 1 : width // 2 + 1] = NOW
        return page
