import os
import shlex
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lipdub.config import MediaConfig
from lipdub.errors import InputError
from lipdub.media.audio import load_audio
from lipdub.media.ffmpeg import ffmpeg_binary
from lipdub.media.probe import display_geometry, probe, require_video
from lipdub.media.video import VideoReader

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
    assert (video.codec, video.width, video.height, video.pix_fmt) == ("h264", 321, 181, "yuv444p")
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
    assert (video.pix_fmt, video.start_pts, video.time_base) == ("yuv420p10le", 500, Fraction(1, 1000))
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


@pytest.mark.parametrize(("name", "kind"), [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.webp", "WebP"), ("a.bmp", "BMP")])
def test_a_still_picture_is_named_and_the_advice_works(tmp_path, name, kind):
    path = tmp_path / name
    assert cv2.imwrite(str(path), np.full((33, 47, 3), 90, np.uint8))
    with pytest.raises(InputError, match=rf"still picture \({kind}\)") as caught:
        probe(path)
    advised(caught.value.remedy, path)
    video = require_video(probe(tmp_path / "FILM.mp4"))
    assert (video.width, video.height, video.frames) == (46, 32, 250)


@pytest.mark.parametrize("name", ["a.y4m", "a.h264", "a.mjpeg"])
def test_a_raw_stream_is_named_and_the_advice_works(clip, tmp_path, name):
    clip(tmp_path / "a.mp4")
    subprocess.run([ffmpeg_binary(), "-v", "error", "-i", tmp_path / "a.mp4", tmp_path / name], check=True)
    with pytest.raises(InputError, match="raw stream") as caught:
        probe(tmp_path / name)
    advised(caught.value.remedy.partition(";")[0], tmp_path / name)
    assert len(list(av.open(str(tmp_path / "FILM.mkv")).decode(video=0))) == 10


@pytest.mark.parametrize(("name", "codec", "kind"), [("a.png", "apng", "PNG"), ("a.webp", "libwebp_anim", "WebP")])
def test_an_animated_picture_is_no_still_one_and_the_advice_works(clip, tmp_path, name, codec, kind):
    clip(tmp_path / "a.mp4")
    words = ["-v", "error", "-i", tmp_path / "a.mp4", "-c:v", codec, "-f", codec.removeprefix("lib").partition("_")[0]]
    subprocess.run([ffmpeg_binary(), *words, tmp_path / name], check=True)
    if kind == "PNG":  # some put their colour profile before it
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[:33] + b"\0\0\0\x40tEXt" + b"a\0" * 32 + bytes(4) + data[33:])
    with pytest.raises(InputError, match=rf"animated picture \({kind}\)") as caught:
        probe(tmp_path / name)
    advised(caught.value.remedy, tmp_path / name)
    assert len(list(av.open(str(tmp_path / "FILM.mkv")).decode(video=0))) == 10


def test_samples_without_a_header_are_named_and_the_advice_works(sound, tmp_path):
    sound(tmp_path / "a.wav", 0.5, rate=24000)
    subprocess.run([ffmpeg_binary(), "-v", "error", "-i", "a.wav", "-f", "s16le", "a.pcm"], check=True, cwd=tmp_path)
    with pytest.raises(InputError, match="not a media file") as caught:
        probe(tmp_path / "a.pcm")
    advised(caught.value.remedy.partition(";")[0], tmp_path / "a.pcm")
    assert (tmp_path / "WHOLE.wav").read_bytes()[-24000:] == (tmp_path / "a.pcm").read_bytes()


@pytest.mark.parametrize("text", ["#EXTM3U\n#EXTINF:1,\na.ts\n", "1\n00:00:00,000 --> 00:00:01,000\nHello\n"])
def test_a_format_that_lipdub_does_not_read_is_no_invalid_argument(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(InputError) as caught:
        probe(tmp_path / "a.txt")
    assert "Invalid argument" not in caught.value.what


@pytest.mark.parametrize(
    ("name", "codec"), [("a.dts", "dca"), ("a.thd", "truehd"), ("a.mlp", "mlp"), ("a.voc", "pcm_s16le")]
)
def test_raw_sounds_are_read(sound, tmp_path, name, codec):
    sound(tmp_path / "a.wav", 0.5, rate=48000)
    words = ["-v", "error", "-i", tmp_path / "a.wav", "-c:a", codec, "-strict", "-2", tmp_path / name]
    subprocess.run([ffmpeg_binary(), *words], check=True)
    assert len(load_audio(tmp_path / name)) == pytest.approx(8000, abs=200)


def advised(remedy, path):
    """Runs the command that a remedy ends with."""
    words = shlex.split(remedy[remedy.index("ffmpeg ") :])
    words = [str(path) if word == "FILE" else word for word in words]
    subprocess.run([ffmpeg_binary(), "-v", "error", "-y", *words[1:]], check=True, cwd=path.parent)


def test_an_address_is_named_as_it_was_written():
    with pytest.raises(InputError, match=r"https://example\.org/a\.mp4\?x=1: it is an address") as caught:
        probe(Path("https://example.org/a.mp4?x=1"))
    assert "download" in caught.value.remedy
    with pytest.raises(InputError, match=r"HTTP://example\.org/a: it is an address"):
        probe(Path("HTTP://example.org/a"))
    with pytest.raises(InputError, match=r"file:///tmp/a\.mp4: it is an address") as caught:
        probe(Path("file:///tmp/a.mp4"))
    assert caught.value.remedy == "give the path alone, without file:"


def test_an_opaque_gif_is_no_transparent_one(tmp_path, frame):
    with av.open(str(tmp_path / "a.gif"), "w") as container:
        stream = container.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb8"
        for number in range(3):
            container.mux(stream.encode(frame("rgb8", number=number)))
        container.mux(stream.encode())
    assert not require_video(probe(tmp_path / "a.gif")).alpha


def test_a_recording_without_a_length_is_measured(clip, tmp_path):
    """As browsers and broken-off recordings leave them: their header has no duration."""
    clip(tmp_path / "a.mkv", n_audio=1, n_frames=30, time_base=Fraction(1, 1000))
    words = ["-v", "error", "-i", str(tmp_path / "a.mkv"), "-c", "copy", "-f", "matroska", "-live", "1", "pipe:1"]
    made = subprocess.run([ffmpeg_binary(), *words], check=True, stdout=subprocess.PIPE)
    (tmp_path / "live.mkv").write_bytes(made.stdout)
    with av.open(str(tmp_path / "live.mkv")) as container:
        assert container.duration is None
    info = probe(tmp_path / "live.mkv")
    video = require_video(info)
    assert (video.duration_s, video.frames) == (pytest.approx(1.2, abs=0.01), 30)
    assert info.audio[0].duration_s == pytest.approx(1.2, abs=0.06)


@pytest.mark.parametrize("size", [b"\xff\xff\xff\xff", bytes(4)])
def test_an_avi_that_was_streamed_is_measured(clip, tmp_path, size):
    """Its header says 34 hours, or nothing."""
    clip(tmp_path / "a.mkv", n_audio=1, n_frames=30, time_base=Fraction(1, 1000))
    words = ["-v", "error", "-i", str(tmp_path / "a.mkv"), "-c:v", "mjpeg", "-c:a", "pcm_s16le", "-f", "avi", "pipe:1"]
    made = subprocess.run([ffmpeg_binary(), *words], check=True, stdout=subprocess.PIPE).stdout
    (tmp_path / "piped.avi").write_bytes(made[:4] + size + made[8:])
    video = require_video(probe(tmp_path / "piped.avi"))
    assert (video.duration_s, video.frames) == (pytest.approx(1.2, abs=0.01), 30)
    with VideoReader(tmp_path / "piped.avi", video) as reader:
        assert sum(1 for _ in reader) == 30
