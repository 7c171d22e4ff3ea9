"""`--compare`: source and dub side by side above the waveform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.config import MediaConfig
from lipdub.errors import InputError
from lipdub.faces.backend import Frame
from lipdub.media.audio import Waveform, load_audio
from lipdub.media.preview_writer import SAMPLE_RATE, PreviewWriter, fitted, write_text
from lipdub.media.probe import Ending, probe, require_video
from lipdub.media.video import VideoReader, upright_rgb

SIDE = 720  # longest side of a panel in pixels
WAVE = 96  # height of the waveform in pixels
WINDOW_S = 4.0  # of sound that is seen at once, now in the middle
PAPER, INK, NOW = (24, 24, 24), (120, 200, 255), (255, 90, 60)  # RGB


def write_comparison(
    source: Path,
    dubbed: Path,
    output: Path,
    config: MediaConfig,
    ending: Ending | None = None,
    *,
    on_frame: Callable[[int], None] = lambda done: None,
) -> None:
    """Write an MP4 with both pictures, and with the sound of the second.

    Args:
        source: the video as it was.
        dubbed: what `sync_video` made of it: as many pictures.
        output: replaced if it exists.
        config: limits.
        ending: of the dubbed video, where it is not the source's.
        on_frame: told how many pictures are done.

    Raises:
        InputError: a file cannot be read, or they do not have as many pictures.
        OutputError: the output cannot be written.
    """
    before, after = require_video(probe(source, config)), require_video(probe(dubbed, config))
    before = replace(before, ending=ending)
    sound = load_audio(dubbed, sample_rate=SAMPLE_RATE, config=config)
    wave = _Wave(sound)
    wide, high = fitted(before, SIDE)
    size = (2 * wide, high + WAVE)
    with (
        PreviewWriter(output, size, before, sound) as reel,
        VideoReader(source, before, config=config) as old,
        VideoReader(dubbed, after, config=config) as new,
    ):
        made = iter(new)
        for frame in old:
            other = next(made, None)
            if other is None:
                raise InputError(f"{dubbed} has fewer pictures than {source}", "compare a video with its own dub")
            page = np.empty((high + WAVE, 2 * wide, 3), np.uint8)
            page[:high, :wide] = titled(upright_rgb(frame.picture, before, max_side=SIDE), (wide, high), "source")
            page[:high, wide:] = titled(upright_rgb(other.picture, after, max_side=SIDE), (wide, high), "dubbed")
            page[high:] = wave.strip(frame.time_s, 2 * wide)
            reel.write(page, frame.pts)
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
