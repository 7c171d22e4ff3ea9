"""Films that end earlier than their source, or go on behind it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lipdub.config import MediaConfig
from lipdub.media.ffmpeg import ffmpeg_binary
from lipdub.media.probe import Ending, VideoInfo, probe, require_video
from lipdub.media.timeline import Extension
from lipdub.media.video import SourceFrame, VideoReader

VFR = {"time_base": Fraction(1, 90000), "pts": [0, 3000, 7501, 7999, 12000, 20001, 30000]}
CLOCKS = {
    "25": {"rate": Fraction(25), "n_frames": 7},
    "ntsc": {"rate": Fraction(30000, 1001), "time_base": Fraction(1, 30000), "n_frames": 7, "start": 777},
    "vfr": VFR,
}
ORDERS = {  # of seven pictures, ten more
    "freeze": [6] * 10,
    "loop": [0, 1, 2, 3, 4, 5, 6, 0, 1, 2],
    "bounce": [5, 4, 3, 2, 1, 0, 1, 2, 3, 4],
}


def read(path: Path, ending: Ending | None = None, **numbers: int) -> tuple[VideoInfo, list[SourceFrame]]:
    info = require_video(probe(path))
    with VideoReader(path, info, ending=ending, config=replace(MediaConfig(), **numbers)) as reader:
        return info, list(reader)


def samples(frames: list[SourceFrame]) -> list[bytes]:
    return [frame.picture.to_ndarray(format="yuv420p").tobytes() for frame in frames]


@pytest.mark.parametrize("extend", ORDERS)
@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize("bounce_mib", [256, 0])
def test_the_film_goes_on(clip, tmp_path, extend, clock, suffix, bounce_mib):
    path = tmp_path / f"a.{suffix}"
    clip(path, **CLOCKS[clock])
    info, source = read(path)
    lengths = [after.pts - before.pts for before, after in pairwise(source)]
    lengths.append(source[-1].picture.duration or round(1 / (info.average_rate * info.time_base)))
    wanted = samples(source)
    step = Fraction(1) / (info.average_rate * info.time_base)
    frames = taken(path, Ending(end_s=source[-1].time_s + 60, extend=extend), 17, bounce_mib)
    assert samples(frames) == [wanted[n] for n in (*range(7), *ORDERS[extend])]
    assert [frame.pts for frame in frames[:7]] == [frame.pts for frame in source]
    assert [frame.index for frame in frames] == list(range(17))
    assert [frame.added for frame in frames] == [False] * 7 + [True] * 10
    on_screen = [after.pts - before.pts for before, after in pairwise(frames[6:])]
    if extend == "freeze":
        first = frames[6].pts + lengths[6]
        assert [frame.pts for frame in frames[7:]] == [first + round(n * step) for n in range(10)]
    else:
        assert on_screen == [lengths[n] for n in (6, *ORDERS[extend][:-1])]


def taken(path: Path, ending: Ending, n: int, bounce_mib: int) -> list[SourceFrame]:
    """The first n pictures; each is compared before the next one is read, as if it were painted into then."""
    found = []
    with VideoReader(
        path, require_video(probe(path)), ending=ending, config=MediaConfig(bounce_mib=bounce_mib)
    ) as reader:
        for frame in reader:
            found.append(replace(frame, picture=frame.picture.reformat(format="yuv420p")))
            if len(found) == n:
                return found
    raise AssertionError("it ended")


@pytest.mark.parametrize("end_s", [0.5, 0.52, 0.53, 1.0])
@pytest.mark.parametrize("extend", ORDERS)
def test_it_ends_within_half_a_picture(clip, tmp_path, end_s, extend):
    clip(tmp_path / "a.mp4", n_frames=10)
    info, frames = read(tmp_path / "a.mp4", Ending(end_s=end_s, extend=extend))
    last = frames[-1]
    assert abs(last.time_s + float(last.picture.duration * info.time_base) - end_s) <= 0.02 + 1e-9


@pytest.mark.parametrize(("end_s", "n"), [(0.0, 1), (0.2, 5), (0.21, 5), (0.23, 6), (0.4, 10), (0.41, 10)])
def test_it_ends_before_its_source(clip, tmp_path, end_s, n):
    clip(tmp_path / "a.mp4", n_frames=10)
    _, frames = read(tmp_path / "a.mp4", Ending(end_s=end_s))
    assert (len(frames), any(frame.added for frame in frames)) == (n, False)


def test_a_picture_is_not_on_screen_for_longer_than_the_film(clip, tmp_path):
    clip(tmp_path / "a.mkv", time_base=Fraction(1, 1000), rate=Fraction(25), pts=[0, 40, 80, 5000])
    info, frames = read(tmp_path / "a.mkv", Ending(end_s=0.3))
    assert [frame.pts for frame in frames] == [0, 40, 80]
    assert frames[-1].picture.duration * info.time_base == pytest.approx(0.22, abs=0.002)


def test_a_frozen_picture_is_not_what_was_painted_into_the_last_one(clip, tmp_path):
    """It also keeps its flags: an interlaced film stays one."""
    clip(tmp_path / "a.mkv", n_frames=3, time_base=Fraction(1, 1000))
    source, path = tmp_path / "a.mkv", tmp_path / "b.mkv"
    argv = [ffmpeg_binary(), "-v", "error", "-i", source, "-vf", "setfield=tff", "-flags", "+ilme+ildct", path]
    subprocess.run([*map(str, argv)], check=True)
    info = require_video(probe(path))
    clean = samples(read(path)[1])[-1]
    found = []
    with VideoReader(path, info, ending=Ending(end_s=0.4)) as reader:
        for frame in reader:
            found.append((frame.picture.interlaced_frame, samples([frame])[0]))
            frame.picture.make_writable()
            np.frombuffer(memoryview(frame.picture.planes[0]), np.uint8)[:] = 7
    assert found[2:] == [(True, clean)] * 8


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_way_back_is_sought_and_where_that_fails_counted(clip, tmp_path, monkeypatch, suffix):
    clip(tmp_path / "a.mkv", n_frames=90, size=(32, 32), time_base=Fraction(1, 1000))
    path = tmp_path / f"b.{suffix}"
    argv = [ffmpeg_binary(), "-v", "error", "-i", tmp_path / "a.mkv", "-g", "12", "-x264-params", "open-gop=1", path]
    subprocess.run([*map(str, argv)], check=True)
    wanted = samples(read(path)[1])
    order = [*range(90), *reversed(range(89)), *range(1, 5)]
    ending = Ending(end_s=len(order) / 25, extend="bounce")
    counted = Extension._read_from_start
    far = []  # pictures that were decoded from the file's start, though they are far from it

    def watched(self, first, stop):
        far.extend([first] if first > 30 else [])
        return counted(self, first, stop)

    monkeypatch.setattr(Extension, "_read_from_start", watched)
    assert samples(taken(path, ending, len(order), 0)) == [wanted[n] for n in order]
    assert far == []
    again = VideoReader._again
    monkeypatch.setattr(VideoReader, "_again", lambda self, pts: again(self, None) if pts is None else iter(()))
    assert samples(taken(path, ending, 120, 0)) == [wanted[n] for n in order[:120]]
    assert far != []
