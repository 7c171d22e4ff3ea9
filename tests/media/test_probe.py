import os
from fractions import Fraction

import numpy as np
import pytest

from lipdub.config import MediaConfig
from lipdub.errors import InputError
from lipdub.media.probe import display_geometry, probe, require_video

NAMES = [
    "with space.mp4",
    'it\'s "quoted".mp4',
    "-dash.mp4",
    "c:olon.mp4",
    "%03d.mp4",
    "http:x.mp4",
    "ünï-漢字.mp4",
    "new\nline.mp4",
]


def test_everything_is_found(clip, tmp_path):
    path = tmp_path / "a.mp4"
    clip(
        path,
        rate=Fraction(30000, 1001),
        size=(321, 181),
        pix_fmt="yuv444p",
        n_audio=2,
        chapters=True,
        cover=True,
        sar=Fraction(4, 3),
        n_frames=7,
    )
    info = probe(path)
    video = require_video(info)
    assert (video.codec, video.width, video.height, video.pix_fmt, video.bit_depth) == ("h264", 321, 181, "yuv444p", 8)
    assert (video.average_rate, video.frames, video.sar) == (Fraction(30000, 1001), 7, Fraction(4, 3))
    assert video.duration_s == pytest.approx(7 * 1001 / 30000)
    assert (video.display_width, video.display_height) == (428, 181)
    assert [(a.codec, a.sample_rate, a.channels, a.language) for a in info.audio] == [
        ("aac", 48000, 1, "eng"),
        ("aac", 48000, 1, "fra"),
    ]
    assert info.streams.count("picture") == 1, "cover art is not video"
    assert info.streams.count("video") == 1
    assert info.chapters == 2


def test_ten_bit_and_start(clip, tmp_path):
    clip(tmp_path / "a.mkv", pix_fmt="yuv420p10le", time_base=Fraction(1, 1000), start=500)
    video = require_video(probe(tmp_path / "a.mkv"))
    assert (video.pix_fmt, video.bit_depth, video.start_pts, video.time_base) == (
        "yuv420p10le",
        10,
        500,
        Fraction(1, 1000),
    )
    assert video.duration_s == pytest.approx(0.4, abs=0.002), "the late start is no part of the duration"


def test_transport_stream_counts_from_its_first_timestamp(clip, tmp_path):
    clip(tmp_path / "a.ts", n_audio=1)
    info = probe(tmp_path / "a.ts")
    assert info.origin_s == info.start_s > 0


@pytest.mark.parametrize("name", NAMES)
def test_odd_names(clip, tmp_path, name):
    clip(tmp_path / name, n_frames=2)
    assert require_video(probe(tmp_path / name)).frames == 2


def test_relative_path_with_dash(clip, tmp_path, monkeypatch):
    clip(tmp_path / "-x.mp4", n_frames=2)
    monkeypatch.chdir(tmp_path)
    assert require_video(probe("-x.mp4")).width == 64


def test_name_that_is_no_utf8(clip, tmp_path):
    clip(tmp_path / "a.mp4", n_frames=2)
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.mp4")
    os.rename(tmp_path / "a.mp4", odd)
    assert require_video(probe(odd)).frames == 2


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "text", "playlist", "fifo"])
def test_what_is_no_media_file(tmp_path, kind):
    path = tmp_path / "a.mp4"
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("hello " * 100)
    elif kind == "playlist":
        path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nother.ts\n")
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(InputError, match=r"a\.mp4") as caught:
        probe(path)
    assert caught.value.exit_code == 3


def test_sound_only_names_the_missing_stream(sound, tmp_path):
    info = probe(sound(tmp_path / "a.wav"))
    assert info.video is None
    with pytest.raises(InputError, match=r"no video stream.*audio"):
        require_video(info)


def test_cover_art_alone_is_not_video(clip, sound, tmp_path):
    clip(tmp_path / "a.mp4", cover=True, n_frames=2)
    assert probe(tmp_path / "a.mp4").streams == ("video", "picture")


def test_huge_pictures_are_refused(clip, tmp_path):
    clip(tmp_path / "a.mp4", n_frames=2)
    with pytest.raises(InputError, match="64x48"):
        probe(tmp_path / "a.mp4", MediaConfig(max_pixels=64 * 47))


@pytest.mark.parametrize(
    ("matrix", "corner", "size", "rotation"),
    [
        (None, (0, 0), (8, 4), 0),
        ((0, 1, 0, -1, 0, 0), (3, 0), (4, 8), 90),  # clockwise: the first pixel comes to the top right
        ((-1, 0, 0, 0, -1, 0), (7, 3), (8, 4), 180),
        ((0, -1, 0, 1, 0, 0), (0, 7), (4, 8), 270),
        ((-1, 0, 0, 0, 1, 0), (7, 0), (8, 4), 0),  # mirrored
    ],
)
def test_first_pixel_lands_where_the_matrix_says(matrix, corner, size, rotation):
    numbers = None if matrix is None else (*(65536 * v for v in matrix), 0, 0, 1 << 30)
    affine, width, height, turned = display_geometry(8, 4, Fraction(1), numbers)
    assert (width, height, turned) == (*size, rotation)
    np.testing.assert_allclose(affine @ [0, 0, 1], corner)


def test_wide_pixels_keep_the_edges():
    affine, width, height, _ = display_geometry(90, 50, Fraction(4, 3), None)
    assert (width, height) == (120, 50)
    np.testing.assert_allclose(affine @ [-0.5, -0.5, 1], [-0.5, -0.5], atol=1e-12)
    np.testing.assert_allclose(affine @ [89.5, 49.5, 1], [119.5, 49.5], atol=1e-12)
