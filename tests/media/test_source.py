"""A video that a job reads: its timeline, and frames that know how they are shown."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lipdub.config import MediaConfig
from lipdub.errors import InputError
from lipdub.media.audio import audio_duration
from lipdub.media.patch import paste_patch, read_patch
from lipdub.media.probe import Ending
from lipdub.media.source import open_source
from lipdub.media.video import upright_rgb

MATRIX = np.array([[0.5, 0.1, 3.0], [-0.1, 0.5, 4.0]])


@pytest.mark.parametrize(("end_s", "n_frames"), [(None, 10), (0.2, 5), (0.6, 15), (0.01, 1)])
def test_its_length_is_that_of_the_frames_it_gives(clip, tmp_path: Path, end_s: float | None, n_frames: int) -> None:
    clip(tmp_path / "a.mp4", n_frames=10)
    source = open_source(tmp_path / "a.mp4", MediaConfig())
    if end_s is not None:
        source = replace(source, ending=Ending(end_s=end_s))
    with source.frames() as frames:
        assert sum(1 for _ in frames) == n_frames == source.n_frames
    assert source.duration_s == pytest.approx(end_s if end_s is not None else 0.4)
    assert source.video.duration_s == pytest.approx(0.4), "the file's own is not changed"


def test_it_is_read_as_often_as_needed_and_marks_the_range(clip, tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4", n_frames=6)
    source = open_source(tmp_path / "a.mp4", MediaConfig())
    for _ in range(2):
        with source.frames(0.08, 0.16) as frames:
            assert [frame.in_range for frame in frames] == [False, False, True, True, False, False]


def test_a_frame_is_seen_through_its_own_stream(clip, tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4", n_frames=1, rotation=90, sar=Fraction(4, 3))
    source = open_source(tmp_path / "a.mp4", MediaConfig())
    info = source.video
    with source.frames() as frames:
        frame = next(iter(frames))
        np.testing.assert_array_equal(frame.upright(), upright_rgb(frame.picture, info))
        small, scale = frame.thumbnail(32)
        assert max(small.shape) == 32 and scale == pytest.approx(small.shape[1] / info.display_width)
        before = read_patch(frame.picture, info, MATRIX, 24)
        np.testing.assert_array_equal(frame.patch(MATRIX, 24), before)
        face, alpha = np.full((24, 24, 3), 250, np.float32), np.ones((24, 24), np.float32)
        frame.paste(MATRIX, face, alpha)
        after = frame.patch(MATRIX, 24)
    with source.frames() as frames:
        again = next(iter(frames)).picture
        paste_patch(again, info, MATRIX, face, alpha)
        np.testing.assert_array_equal(after, read_patch(again, info, MATRIX, 24))
    assert after[8:16, 8:16].min() > 240 > before[8:16, 8:16].mean()


def test_a_file_without_a_picture_is_refused(sound, tmp_path: Path) -> None:
    path = sound(tmp_path / "a.wav")
    for scratch in (None, tmp_path.joinpath):
        with pytest.raises(InputError, match="no video stream"):
            open_source(path, MediaConfig(), scratch)


def test_the_duration_of_an_audio_file_is_told_whatever_its_rate(sound, tmp_path: Path) -> None:
    path = sound(tmp_path / "a.wav", 0.7, rate=44_100)
    assert audio_duration(path, sample_rate=16_000) == pytest.approx(0.7, abs=1 / 16_000)
