from dataclasses import replace
from fractions import Fraction
from io import BytesIO

import av
import numpy as np
import pytest

from lipdub.errors import OutputError, SetupError
from lipdub.media.planes import components
from lipdub.media.probe import probe, require_video
from lipdub.media.video import VideoReader
from lipdub.media.writer import VideoWriter

CLOCKS = {
    "25": {"rate": Fraction(25)},
    "ntsc": {"rate": Fraction(30000, 1001), "time_base": Fraction(1, 30000)},
    "vfr": {"time_base": Fraction(1, 90000), "pts": [0, 3000, 7501, 7999, 30000, 30001, 60000], "n_b": 0},
    "late": {"time_base": Fraction(1, 30000), "rate": Fraction(30000, 1001), "start": 777},
    "ms": {"time_base": Fraction(1, 1000), "pts": [0, 33, 66, 100, 500], "start": 40, "n_b": 0},
}


def copy(path, target, **options):
    info = require_video(probe(path))
    with VideoReader(path, info) as reader, VideoWriter(target, info, **options) as writer:
        for frame in reader:
            writer.write(frame.picture, frame.pts)
    return writer


def times(path):
    info = require_video(probe(path))
    with VideoReader(path, info) as reader:
        return [frame.pts * info.time_base for frame in reader]


@pytest.mark.parametrize("clock", CLOCKS)
def test_timestamps_are_exact(clip, tmp_path, clock):
    wanted = clip(tmp_path / "a.mp4", **CLOCKS[clock])
    writer = copy(tmp_path / "a.mp4", tmp_path / "b.mov")
    assert times(tmp_path / "b.mov") == wanted
    assert writer.n_frames == len(wanted)
    source, made = (require_video(probe(tmp_path / name)) for name in ("a.mp4", "b.mov"))
    assert made.duration_s == pytest.approx(source.duration_s, abs=1e-3), "the last picture lasts as long as it did"


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
@pytest.mark.parametrize("steps", [(200, 50), (50, 200), (100, 100)], ids=["faster", "slower", "even"])
def test_the_last_picture_lasts_as_long_as_it_did(clip, tmp_path, codec, steps):
    """Also where others before it last longer, as in a film that `--fit` has slowed there; for every player."""
    first, last = steps
    pts = [*range(0, 15 * first, first), *range(15 * first, 15 * first + 15 * last, last)]
    clip(tmp_path / "a.mp4", time_base=Fraction(1, 1000), pts=pts, last=last, size=(128, 96), n_b=0)
    copy(tmp_path / "a.mp4", tmp_path / "b.mp4", codec=codec)
    with av.open(str(tmp_path / "b.mp4")) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        shown_last = max(packets, key=lambda packet: packet.pts)
        assert shown_last.duration == last
        assert float(stream.duration * stream.time_base) == pytest.approx((pts[-1] + last) / 1000)
        assert all(packet.dts <= packet.pts for packet in packets)
        assert [packet.dts for packet in packets] == sorted({packet.dts for packet in packets})
    with av.open(str(tmp_path / "b.mp4")) as container:
        frames = list(container.decode(video=0))
    assert [frame.pts for frame in frames] == pts and frames[-1].duration == last


@pytest.mark.parametrize(
    ("codec", "made"),
    [
        ("libx264", "h264"),
        ("mpeg4", "h264"),
        ("libx265", "hevc"),
        ("libvpx-vp9", "vp9"),
        ("libsvtav1", "av1"),
        ("mjpeg", "h264"),
        ("prores_ks", "prores"),
    ],
)
def test_codec_follows_the_source(clip, tmp_path, codec, made):
    pix_fmt = {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le"}.get(codec, "yuv420p")
    path = tmp_path / "a.mkv"
    wanted = clip(path, codec=codec, pix_fmt=pix_fmt, time_base=Fraction(1, 1000), size=(128, 96), n_frames=4)
    copy(path, tmp_path / "b")
    info = require_video(probe(tmp_path / "b"))
    assert (info.codec, info.pix_fmt) == (made, pix_fmt)
    assert times(tmp_path / "b") == wanted


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "made"),
    [
        ("yuv420p10le", "libx264", "yuv420p10le"),
        ("yuv422p", "libx264", "yuv422p"),
        ("yuv444p", "libx264", "yuv444p"),
        ("gray", "ffv1", "yuvj420p"),  # of the whole scale, as grey is
        ("bgr0", "ffv1", "yuv444p"),
        ("yuv411p", "ffv1", "yuv422p"),
        ("yuv422p10le", "ffv1", "yuv422p10le"),
        ("yuv444p16le", "ffv1", "yuv444p12le"),
        ("yuv420p12le", "ffv1", "yuv420p12le"),
    ],
)
def test_pixel_format_is_kept_or_the_nearest(clip, tmp_path, pix_fmt, codec, made):
    clip(tmp_path / "a.mkv", pix_fmt=pix_fmt, codec=codec, time_base=Fraction(1, 1000), n_frames=2)
    copy(tmp_path / "a.mkv", tmp_path / "b")
    assert require_video(probe(tmp_path / "b")).pix_fmt == made


@pytest.mark.parametrize(
    ("codec", "pix_fmt"), [("libx264", "yuv444p"), ("libvpx-vp9", "yuv420p"), ("mpeg4", "yuv420p")]
)
def test_odd_size(clip, tmp_path, codec, pix_fmt):
    path = tmp_path / "a.mkv"
    clip(path, codec=codec, pix_fmt=pix_fmt, size=(321, 181), time_base=Fraction(1, 1000), n_frames=2)
    copy(path, tmp_path / "b")
    info = require_video(probe(tmp_path / "b"))
    assert (info.width, info.height) == (321, 181)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_shape_and_turn(clip, tmp_path, rotation):
    clip(tmp_path / "a.mp4", rotation=rotation, sar=Fraction(4, 3), n_frames=2)
    copy(tmp_path / "a.mp4", tmp_path / "b.mov")
    before, after = (require_video(probe(tmp_path / name)) for name in ("a.mp4", "b.mov"))
    assert (after.sar, after.rotation) == (Fraction(4, 3), (360 - rotation) % 360)
    assert (after.display_width, after.display_height) == (before.display_width, before.display_height)
    np.testing.assert_array_equal(after.display_matrix, before.display_matrix)


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_colour_tags(clip, tmp_path, codec):
    clip(tmp_path / "a.mp4", n_frames=2, pix_fmt="yuv420p10le", size=(128, 96))
    tags = {"color_primaries": 9, "color_trc": 16, "colorspace": 9, "color_range": 1}
    info = replace(require_video(probe(tmp_path / "a.mp4")), **tags)
    with VideoReader(tmp_path / "a.mp4", info) as reader, VideoWriter(tmp_path / "b", info, codec=codec) as writer:
        for frame in reader:
            writer.write(frame.picture, frame.pts)
    made = require_video(probe(tmp_path / "b"))
    assert (made.color_primaries, made.color_trc, made.colorspace, made.color_range) == (9, 16, 9, 1)
    assert made.pix_fmt == "yuv420p10le"


def test_hdr_light_levels(clip, tmp_path):
    clip(tmp_path / "a.mp4", n_frames=2, pix_fmt="yuv420p10le", size=(128, 96))
    points = [Fraction(n, 50000) for n in (34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450)]
    display = (*points, Fraction(1, 10000), Fraction(1000))
    info = replace(require_video(probe(tmp_path / "a.mp4")), mastering_display=display, content_light=(900, 300))
    with VideoReader(tmp_path / "a.mp4", info) as reader, VideoWriter(tmp_path / "b", info, codec="hevc") as writer:
        for frame in reader:
            writer.write(frame.picture, frame.pts)
    made = require_video(probe(tmp_path / "b"))
    assert made.mastering_display == display
    assert made.content_light == (900, 300)


def test_pictures_survive_the_encode(clip, tmp_path):
    clip(tmp_path / "a.mp4", size=(160, 120))
    copy(tmp_path / "a.mp4", tmp_path / "b.mov", crf=4)
    read = []
    for name in ("a.mp4", "b.mov"):
        info = require_video(probe(tmp_path / name))
        with VideoReader(tmp_path / name, info) as reader:
            read.append([np.array(components(f.picture)[0].samples, int) for f in reader])
    assert len(read[0]) == len(read[1]) == 10
    for before, after in zip(*read, strict=True):
        assert np.abs(before - after).mean() < 1


def test_quality_is_heard(clip, tmp_path):
    clip(tmp_path / "a.mp4", size=(160, 120))
    for crf in (10, 40):
        copy(tmp_path / "a.mp4", tmp_path / f"{crf}.mov", crf=crf)
    assert (tmp_path / "10.mov").stat().st_size > 1.3 * (tmp_path / "40.mov").stat().st_size


def test_the_encoder_chooses_its_own_key_frames(clip, tmp_path):
    path = tmp_path / "a.mkv"
    clip(path, codec="mjpeg", pix_fmt="yuvj420p", time_base=Fraction(1, 1000), still=True)  # key frames alone
    copy(path, tmp_path / "b")
    with av.open(str(tmp_path / "b")) as container:
        assert [p.is_keyframe for p in container.demux(video=0) if p.size].count(True) == 1


@pytest.mark.parametrize(
    ("source", "pix_fmt", "suffix", "made"),
    [
        ("libx264", "yuv420p", "webm", "vp9"),
        ("libx264", "yuv420p10le", "webm", "av1"),
        ("libvpx-vp9", "yuv420p", "mov", "h264"),
        ("prores_ks", "yuv422p10le", "mp4", "h264"),
        ("libsvtav1", "yuv420p", "mp4", "av1"),
    ],
)
def test_the_codec_fits_the_container(clip, tmp_path, source, pix_fmt, suffix, made):
    clip(tmp_path / "a.mkv", codec=source, pix_fmt=pix_fmt, time_base=Fraction(1, 1000), n_frames=2, size=(128, 96))
    copy(tmp_path / "a.mkv", tmp_path / "b", output=tmp_path / f"out.{suffix}")
    info = require_video(probe(tmp_path / "b"))
    assert (info.codec, info.pix_fmt) == (made, pix_fmt)
    with pytest.raises(OutputError, match="does not take"):
        copy(tmp_path / "a.mkv", tmp_path / "c", output=tmp_path / "out.avi", codec="vp9")


def test_refusals(clip, tmp_path):
    clip(tmp_path / "a.mp4", n_frames=2)
    info = require_video(probe(tmp_path / "a.mp4"))
    with pytest.raises(SetupError, match="betamax"):
        VideoWriter(tmp_path / "b", info, codec="betamax")
    with pytest.raises(OutputError, match="nowhere"):
        VideoWriter(tmp_path / "nowhere" / "b", info)
    with VideoReader(tmp_path / "a.mp4", info) as reader, VideoWriter(tmp_path / "b", info) as writer:
        frame = next(iter(reader))
        writer.write(frame.picture, 5)
        with pytest.raises(ValueError, match="rise"):
            writer.write(frame.picture, 5)


def test_a_full_disk(clip, tmp_path):
    from lipdub.errors import ResourceError

    clip(tmp_path / "a.mp4", n_frames=40, size=(160, 120))
    info = require_video(probe(tmp_path / "a.mp4"))
    with (
        pytest.raises(ResourceError, match="full") as caught,
        VideoReader(tmp_path / "a.mp4", info) as reader,
        VideoWriter("/dev/full", info) as writer,
    ):
        for frame in reader:
            writer.write(frame.picture, frame.pts)
    assert caught.value.exit_code == 8


def test_a_trial_in_memory(clip, tmp_path):
    """The same encode, nowhere on the disk, with the size of every packet."""
    clip(tmp_path / "a.mp4")
    file, before = BytesIO(), {*tmp_path.iterdir()}
    writer = copy(tmp_path / "a.mp4", file)
    assert {*tmp_path.iterdir()} == before
    on_disc = copy(tmp_path / "a.mp4", tmp_path / "b.mov")
    assert writer.sizes == on_disc.sizes and (len(writer.sizes[True]), len(writer.sizes[False])) == (1, 9)
    assert len(file.getvalue()) == (tmp_path / "b.mov").stat().st_size > sum(map(sum, writer.sizes.values()))
