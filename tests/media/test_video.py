import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest

from lipdub.errors import InputError
from lipdub.media.ffmpeg import ffmpeg_binary
from lipdub.media.probe import probe, require_video
from lipdub.media.video import VideoReader, upright_rgb


def read(path, **options):
    info = require_video(probe(path))
    with VideoReader(path, info, **options) as reader:
        return [(f.index, f.pts * info.time_base, f.time_s, f.in_range) for f in reader]


def first_picture(path):
    with VideoReader(path, require_video(probe(path))) as reader:
        return next(iter(reader)).picture.to_ndarray(format="gray")


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_every_picture_with_its_own_time(clip, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    base = Fraction(1, 1000)
    times = clip(path, time_base=base, pts=[0, 33, 66, 166, 266, 267, 500], start=40)
    frames = read(path)
    assert [f[0] for f in frames] == list(range(7))
    assert [f[1] for f in frames] == times
    assert [f[2] for f in frames] == pytest.approx([float(t) for t in times])


def test_range_only_marks(clip, tmp_path):
    clip(tmp_path / "a.mp4", n_frames=10)
    wanted = [f[3] for f in read(tmp_path / "a.mp4", start_s=0.12, end_s=0.2)]
    assert wanted == [False] * 3 + [True] * 2 + [False] * 5


def test_reader_needs_its_block(clip, tmp_path):
    clip(tmp_path / "a.mp4", n_frames=2)
    with pytest.raises(ValueError, match="with block"):
        next(iter(VideoReader(tmp_path / "a.mp4", require_video(probe(tmp_path / "a.mp4")))))


def test_truncated_mp4_names_the_time(clip, tmp_path):
    path = tmp_path / "a.mp4"
    clip(path, n_frames=50, options={"movflags": "+faststart"})
    info = require_video(probe(path))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.6)])
    with pytest.raises(InputError, match=r"damaged at [01]\.\d+ s") as caught, VideoReader(path, info) as reader:
        n_read = sum(1 for _ in reader)
        assert n_read == 50, "the cut was not noticed"
    assert 0.2 < float(str(caught.value).split("damaged at ")[1].split(" s")[0]) < 2.0


def test_an_mp4_cut_between_two_pictures(clip, tmp_path):
    """Nothing is broken then: only the index tells that some are missing."""
    path = tmp_path / "a.mp4"
    clip(path, n_frames=50, options={"movflags": "+faststart"}, n_b=0)
    info = require_video(probe(path))
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes()[: places[47]])
    with VideoReader(path, info) as reader, pytest.raises(InputError, match=r"damaged at 1\.880 s.*3 pictures"):
        list(reader)


def test_truncated_mkv_is_noticed(clip, tmp_path):
    path = tmp_path / "a.mkv"
    clip(path, n_frames=75, time_base=Fraction(1, 1000))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.5)])
    with pytest.raises(InputError, match="damaged at"):
        read(path)


def test_flipped_bytes_are_noticed(clip, tmp_path):
    path = tmp_path / "a.mp4"
    clip(path, n_frames=50, size=(128, 96))
    data = bytearray(path.read_bytes())
    for i in range(3000, 6000):
        data[i] ^= 0x5A
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="damaged at"):
        read(path)


def test_mp4_without_its_index(clip, tmp_path):
    path = tmp_path / "a.mp4"
    clip(path, n_frames=25)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(InputError):
        read(path)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("sar", [Fraction(1), Fraction(4, 3)])
def test_upright_as_ffmpeg_shows_it(clip, tmp_path, rotation, sar):
    path = tmp_path / "a.mp4"
    clip(path, rotation=rotation, sar=sar, size=(64, 48), n_frames=1)
    info = require_video(probe(path))
    with VideoReader(path, info) as reader:
        rgb = upright_rgb(next(iter(reader)).picture, info)
    assert rgb.shape == (info.display_height, info.display_width, 3)
    filters = f"scale={info.display_width}:{info.display_height}:in_color_matrix=bt601"
    argv = [ffmpeg_binary(), "-v", "error", "-i", path, "-vf", filters, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    shown = subprocess.run(argv, check=True, capture_output=True).stdout
    expected = np.frombuffer(shown, np.uint8).reshape(rgb.shape)
    assert np.abs(rgb.astype(int) - expected).mean() < 3
    assert np.abs(rgb.astype(int) - expected[::-1]).mean() > 15, "the test picture cannot tell orientation"


def test_small_view(clip, tmp_path):
    clip(tmp_path / "a.mp4", size=(320, 180), rotation=90, n_frames=1)
    info = require_video(probe(tmp_path / "a.mp4"))
    with VideoReader(tmp_path / "a.mp4", info) as reader:
        picture = next(iter(reader)).picture
        small, whole = upright_rgb(picture, info, max_side=80), upright_rgb(picture, info, max_side=4000)
    assert small.shape == (80, 45, 3)
    assert whole.shape == (320, 180, 3)
    blocks = whole.reshape(80, 4, 45, 4, 3).mean((1, 3))
    assert np.abs(blocks - small).mean() < 2


def test_hdr_is_brought_to_sdr(frame, clip, tmp_path):
    from dataclasses import replace

    clip(tmp_path / "a.mp4", n_frames=1)
    info = require_video(probe(tmp_path / "a.mp4"))
    grey = frame("yuv420p")
    for plane, value in zip(grey.planes, (143, 128, 128), strict=True):
        plane.update(np.full(plane.buffer_size, value, np.uint8))
    assert upright_rgb(grey, info)[5, 5, 0] == pytest.approx((143 - 16) / 219 * 255, abs=1)
    # 58 % of PQ is 203 cd/m2, reference white (ITU-R BT.2408)
    assert upright_rgb(grey, replace(info, color_trc=16, colorspace=9))[5, 5, 0] == pytest.approx(255, abs=6), (
        "8 bit steps of PQ are large"
    )


def test_a_cropped_stream_is_read_as_it_is_shown(clip, tmp_path):
    """FFmpeg crops less on the left where that is quicker: two columns were shown that no player shows."""
    clip(tmp_path / "a.mp4", n_frames=2, size=(96, 64))
    crop = "h264_metadata=crop_left=2:crop_right=6:crop_top=4:crop_bottom=4"
    argv = [ffmpeg_binary(), "-v", "error", "-i", tmp_path / "a.mp4", "-c", "copy", "-bsf:v", crop, tmp_path / "b.mp4"]
    subprocess.run(argv, check=True)
    whole, cropped = (first_picture(tmp_path / name) for name in ("a.mp4", "b.mp4"))
    assert cropped.shape == (56, 88)
    np.testing.assert_array_equal(cropped, whole[4:60, 2:90])


def test_pixels_that_change_their_shape_are_told(clip, tmp_path):
    for name, sar in (("a", Fraction(1)), ("b", Fraction(4, 3))):
        clip(tmp_path / f"{name}.h264", n_frames=5, sar=sar, n_b=0)
    (tmp_path / "c.h264").write_bytes(b"".join((tmp_path / f"{name}.h264").read_bytes() for name in "aba"))
    for name in "ac":
        argv = [ffmpeg_binary(), "-v", "error", "-r", "25", "-i", tmp_path / f"{name}.h264", "-c", "copy"]
        subprocess.run([*argv, tmp_path / f"{name}.mkv"], check=True)
        path = tmp_path / f"{name}.mkv"
        with VideoReader(path, require_video(probe(path))) as reader:
            assert len(list(reader)) == (5 if name == "a" else 15)
        told = "the pixel aspect changes from 1:1 to 4:3 at 0.200 s; the output keeps the first"
        assert reader.shape_change == (None if name == "a" else told)
