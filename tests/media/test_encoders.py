"""What the one encode keeps of a picture's kind, and what it refuses or tells when it cannot."""

import shlex
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.codec.context import Flags

from lipdub.config import MediaConfig
from lipdub.errors import OutputError, SetupError
from lipdub.media.clip import SAMPLE_RATE, ClipWriter, write_clip
from lipdub.media.containers import container_of
from lipdub.media.encoders import HARDWARE, choose_encoding, hardware_here
from lipdub.media.ffmpeg import ffmpeg_binary
from lipdub.media.planes import components
from lipdub.media.probe import probe, require_video
from lipdub.media.video import VideoReader
from lipdub.media.writer import VideoWriter


def encode(path, target, info=None, **options):
    info = info or require_video(probe(path))
    with VideoReader(path, info) as reader, VideoWriter(target, info, **options) as writer:
        for frame in reader:
            writer.write(frame.picture, frame.pts)
    return writer.encoding


def planes(path):
    with av.open(str(path)) as container:
        return [[np.array(part.samples, int) for part in components(each)] for each in container.decode(video=0)]


def rgb(path, matrix=5):
    with av.open(str(path)) as container:
        return [
            frame.reformat(format="rgb24", src_colorspace=matrix, dst_color_range=2).to_ndarray().astype(int)
            for frame in container.decode(video=0)
        ]


def advised(remedy, path):
    """Runs the command that a remedy ends with."""
    words = shlex.split(remedy[remedy.index("ffmpeg ") :])
    words = [str(path) if word == "FILE" else word for word in words]
    subprocess.run([ffmpeg_binary(), "-v", "error", "-y", *words[1:]], check=True, cwd=path.parent)


def test_alpha_is_kept(frame, tmp_path):
    source, made = tmp_path / "a.mov", tmp_path / "b.mov"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("prores_ks", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuva444p10le"
        stream.options = {"profile": "4444"}
        picture = frame("yuva444p10le")
        alpha = np.frombuffer(memoryview(picture.planes[3]), "<u2").reshape(48, -1)[:, :64]
        alpha[:] = np.arange(64) * 16
        container.mux(stream.encode(picture))
        container.mux(stream.encode())
    assert encode(source, made, output=tmp_path / "out.mov").pix_fmt == "yuva444p10le"
    with av.open(str(source)) as before, av.open(str(made)) as after:
        old, new = (
            np.frombuffer(memoryview(next(each.decode(video=0)).planes[3]), "<u2").reshape(48, -1)[:, :64]
            for each in (before, after)
        )
    assert np.ptp(old) > 3000
    np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "source", "output"),
    [
        ("png", "rgba", "a.mov", "b.mp4"),
        ("ffv1", "yuva420p", "a.mkv", "b.mp4"),
        ("prores_ks", "yuva444p10le", "a.mov", "b.mp4"),
        ("libvpx-vp9", "yuva420p", "a.webm", "b.webm"),
        ("libvpx-vp9", "yuva420p", "a.webm", "b.mov"),  # FFmpeg's own decoder leaves it out
    ],
)
def test_alpha_that_would_be_lost_is_refused(clip, tmp_path, codec, pix_fmt, source, output):
    clip(tmp_path / source, codec=codec, pix_fmt=pix_fmt, n_frames=2, time_base=Fraction(1, 1000))
    with pytest.raises(OutputError, match="transparency") as caught:
        encode(tmp_path / source, tmp_path / "c", output=tmp_path / output)
    assert not (tmp_path / "c").exists()
    advised(caught.value.remedy, tmp_path / source)
    assert not encode(tmp_path / "OPAQUE.mkv", tmp_path / "c", output=tmp_path / output).losses


def test_alpha_goes_into_prores_where_the_container_has_it(clip, tmp_path):
    clip(tmp_path / "a.mov", codec="png", pix_fmt="rgba", n_frames=2)
    encoding = encode(tmp_path / "a.mov", tmp_path / "c", output=tmp_path / "b.mov")
    assert (encoding.encoder, encoding.pix_fmt) == ("prores_ks", "yuva444p10le")


def interlaced_clip(path, codec):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.flags |= int(Flags.interlaced_dct | Flags.interlaced_me)
        for number in range(3):
            luma = np.full((72, 64), 128, np.uint8)
            luma[0:48:2, number * 4 :] = 200  # the two fields show different moments
            container.mux(stream.encode(av.VideoFrame.from_ndarray(luma, format="yuv420p")))
        container.mux(stream.encode())


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_fields_are_kept_or_refused(tmp_path, codec):
    interlaced_clip(tmp_path / "a.mkv", codec)
    assert encode(tmp_path / "a.mkv", tmp_path / "b", output=tmp_path / "b.mp4").encoder == "libx264"
    with av.open(str(tmp_path / "b")) as container:
        assert all(frame.interlaced_frame for frame in container.decode(video=0))
    for output, options in (("c.webm", {}), ("c.mp4", {"codec": "hevc"})):
        with pytest.raises(OutputError, match="interlaced") as caught:
            encode(tmp_path / "a.mkv", tmp_path / "c", output=tmp_path / output, **options)
    advised(caught.value.remedy, tmp_path / "a.mkv")
    encode(tmp_path / "PLAIN.mkv", tmp_path / "c", output=tmp_path / "c.webm")
    for suffix in ("mkv", "mp4", "ts"):  # which the remedy names
        encode(tmp_path / "a.mkv", tmp_path / "d", output=tmp_path / f"d.{suffix}", codec="h264")


@pytest.mark.parametrize("suffix", ["ts", "avi"])
def test_a_turned_picture_is_refused_where_nothing_says_so(clip, tmp_path, suffix):
    clip(tmp_path / "a.mov", rotation=90, size=(64, 48))
    with pytest.raises(OutputError, match="no place for how the picture is to be turned") as caught:
        encode(tmp_path / "a.mov", tmp_path / "c", output=tmp_path / f"b.{suffix}")
    advised(caught.value.remedy, tmp_path / "a.mov")
    encode(tmp_path / "TURNED.mkv", tmp_path / "c", output=tmp_path / f"b.{suffix}")
    made = require_video(probe(tmp_path / "c"))
    assert (made.width, made.height, made.is_turned) == (48, 64, False)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix", "size"),
    [("png", "rgb24", "mov", (64, 48)), ("ffv1", "bgr0", "mkv", (64, 48)), ("png", "rgb24", "mov", (720, 720))],
    ids=["png", "ffv1", "hd"],
)
def test_rgb_keeps_its_colours(clip, tmp_path, codec, pix_fmt, suffix, size):
    source = tmp_path / f"a.{suffix}"
    clip(source, codec=codec, pix_fmt=pix_fmt, n_frames=1, time_base=Fraction(1, 1000), size=size)
    encoding = encode(source, tmp_path / "b", crf=4)
    made = require_video(probe(tmp_path / "b"))
    matrix = 1 if size[1] == 720 else 5
    assert (made.pix_fmt, made.colorspace, made.color_range) == ("yuv444p", matrix, 1)
    assert encoding.losses == ()
    assert np.abs(rgb(source)[0] - rgb(tmp_path / "b", matrix)[0]).mean() < 2


def test_full_range_stays_full_without_a_format_of_its_own(clip, tmp_path):
    clip(tmp_path / "a.mkv", codec="mjpeg", pix_fmt="yuvj420p", n_frames=1, time_base=Fraction(1, 1000), size=(128, 96))
    encode(tmp_path / "a.mkv", tmp_path / "b", codec="vp9", lossless=True)
    assert require_video(probe(tmp_path / "b")).color_range == 2
    for before, after in zip(planes(tmp_path / "a.mkv")[0], planes(tmp_path / "b")[0], strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [
        ("h264", "yuv420p"),
        ("h264", "yuv422p10le"),
        ("hevc", "yuv420p10le"),
        ("hevc", "yuv444p"),
        ("vp9", "yuv420p"),
    ],
)
def test_lossless_is_exact(clip, tmp_path, codec, pix_fmt):
    path = tmp_path / "a.mkv"
    clip(path, codec="ffv1", pix_fmt=pix_fmt, n_frames=9, time_base=Fraction(1, 1000), size=(128, 96))
    assert encode(path, tmp_path / "b", codec=codec, lossless=True).pix_fmt == pix_fmt
    before, after = planes(path), planes(tmp_path / "b")
    assert len(before) == len(after) == 9
    for old, new in zip(before, after, strict=True):
        for each, other in zip(old, new, strict=True):
            np.testing.assert_array_equal(each, other)


@pytest.mark.parametrize("codec", ["prores", "av1"])
def test_what_is_not_lossless_does_not_pass_for_it(clip, tmp_path, codec):
    clip(tmp_path / "a.mp4", n_frames=2)
    with pytest.raises(OutputError, match="not lossless"):
        encode(tmp_path / "a.mp4", tmp_path / "b", codec=codec, lossless=True)


def with_light(path):
    points = [Fraction(n, 50000) for n in (34000, 16000, 13250, 34500, 7500, 3000, 15635, 16450)]
    display = (*points, Fraction(1, 10000), Fraction(1000))
    return replace(require_video(probe(path)), mastering_display=display, content_light=(900, 300))


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_hdr_light_levels_are_kept(clip, tmp_path, codec):
    clip(tmp_path / "a.mp4", n_frames=2, pix_fmt="yuv420p10le", size=(128, 96))
    info = with_light(tmp_path / "a.mp4")
    assert encode(tmp_path / "a.mp4", tmp_path / "b", info, codec=codec).losses == ()
    made = require_video(probe(tmp_path / "b"))
    assert made.content_light == (900, 300)
    assert made.mastering_display is not None
    for wanted, found in zip(info.mastering_display, made.mastering_display, strict=True):
        assert float(found) == pytest.approx(float(wanted), rel=1e-3, abs=1e-4)


def test_what_cannot_be_kept_is_told(clip, tmp_path):
    for name, pix_fmt in (("8.mp4", "yuv420p"), ("10.mp4", "yuv422p10le")):
        clip(tmp_path / name, n_frames=2, pix_fmt=pix_fmt, size=(128, 96))
    info = replace(with_light(tmp_path / "8.mp4"), dynamic_hdr="Dolby Vision")
    light, layers = encode(tmp_path / "8.mp4", tmp_path / "b", info, codec="vp9").losses
    assert "mastering display" in light and "Dolby Vision" in layers
    (told,) = encode(tmp_path / "10.mp4", tmp_path / "b", codec="av1").losses
    assert told == "libsvtav1 has no yuv422p10le: it is written as yuv420p10le, with less resolution of colour"
    assert encode(tmp_path / "10.mp4", tmp_path / "b", codec="hevc").losses == ()


@pytest.fixture(scope="module")
def noisy():
    """24 pictures (288, 360, 3) of moving waves under noise, on which x264 with AVX-512 differs from run to run."""
    y, x = np.mgrid[0:288, 0:360]
    noise = np.random.default_rng(0).normal(0, 6, (24, 288, 360))
    waves = (128 + 60 * np.sin(x / 20 + number / 5) * np.cos(y / 15) for number in range(24))
    grey = [(wave + each).clip(0, 255).astype(np.uint8) for wave, each in zip(waves, noise, strict=True)]
    return [np.repeat(each[..., None], 3, 2) for each in grey]


def test_equal_pictures_give_equal_files(noisy, tmp_path):
    """As long as x264 was free to use AVX-512, one in six of these differed."""
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 360, 288, "gray"
        for picture in noisy:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format="gray")))
        container.mux(stream.encode())
    made = set()
    for name in "bcdefg":
        encode(tmp_path / "a.mkv", tmp_path / name)
        made.add((tmp_path / name).read_bytes())
    assert len(made) == 1


def test_equal_pictures_give_equal_stored_clips_and_previews(noisy, clip, tmp_path):
    clip(tmp_path / "clock.mp4")
    clock = require_video(probe(tmp_path / "clock.mp4"))
    sound = np.sin(np.arange(SAMPLE_RATE) / 20).astype(np.float32)
    clips, previews = set(), set()
    for name in "bcdefg":
        write_clip(tmp_path / f"{name}.mp4", noisy, 25, 18)
        clips.add((tmp_path / f"{name}.mp4").read_bytes())
        options = {"time_base": clock.time_base, "sound": sound}
        with ClipWriter(tmp_path / f"{name}.mp4", (360, 288), clock.average_rate, **options) as writer:
            for number, picture in enumerate(noisy):
                writer.write(picture, number * clock.time_base.denominator // 25)
        previews.add((tmp_path / f"{name}.mp4").read_bytes())
    assert len(clips) == 1 == len(previews)


def here(name):
    return pytest.mark.skipif(name not in av.codecs_available, reason=f"this PyAV has no {name}")


@pytest.mark.parametrize(
    ("name", "pix_fmt", "written", "quality"),
    [
        pytest.param("h264_nvenc", "yuv420p", "yuv420p", {"cq": "18"}, marks=here("h264_nvenc")),
        pytest.param("hevc_nvenc", "yuv420p10le", "p010le", {"cq": "20"}, marks=here("hevc_nvenc")),
        pytest.param("h264_nvenc", "yuv420p10le", "yuv420p", {"cq": "18"}, marks=here("h264_nvenc")),
        pytest.param("h264_qsv", "yuv422p", "nv12", {"global_quality": "18"}, marks=here("h264_qsv")),
        pytest.param("hevc_qsv", "yuv420p10le", "p010le", {"global_quality": "20"}, marks=here("hevc_qsv")),
        pytest.param("h264_amf", "yuv420p", "yuv420p", {"qp_i": "18", "qp_p": "18"}, marks=here("h264_amf")),
        pytest.param("h264_videotoolbox", "yuv420p", "yuv420p", {}, marks=here("h264_videotoolbox")),
    ],
)
def test_hardware_encoders_are_asked_for_the_same_quality(clip, tmp_path, name, pix_fmt, written, quality):
    clip(tmp_path / "a.mkv", codec="libx265", pix_fmt=pix_fmt, size=(128, 96), time_base=Fraction(1, 1000))
    info = require_video(probe(tmp_path / "a.mkv"))
    found = choose_encoding(
        info, codec=name, crf=None, lossless=False, container=container_of(Path("o.mp4")), config=MediaConfig()
    )
    assert (found.encoder, found.pix_fmt) == (name, written)
    assert quality.items() <= found.options.items()
    narrower = ("10" in pix_fmt and written == "yuv420p") or written == "nv12"
    assert bool(found.losses) == narrower, "what is lost is told"


def test_a_hardware_encoder_works_or_says_that_it_cannot_before_the_work(clip, tmp_path):
    """It is in FFmpeg; whether the machine has the hardware is another thing."""
    clip(tmp_path / "a.mp4", size=(256, 192))
    there = hardware_here()
    if not there:
        pytest.skip("this PyAV has no hardware encoder")
    info = require_video(probe(tmp_path / "a.mp4"))
    for name in there:
        try:
            writer = VideoWriter(tmp_path / "b", info, codec=name)
        except SetupError as error:
            assert name in error.what and "this machine" in error.what
            continue
        with writer, VideoReader(tmp_path / "a.mp4", info) as reader:
            for each in reader:
                writer.write(each.picture, each.pts)
        assert len(planes(tmp_path / "b")) == 10


def test_an_encoder_that_is_not_there_names_those_that_are(clip, tmp_path):
    clip(tmp_path / "a.mp4")
    info = require_video(probe(tmp_path / "a.mp4"))
    absent = next(name for name in (*HARDWARE, "h264_vaapi") if name not in av.codecs_available)
    with pytest.raises(SetupError) as refused:
        VideoWriter(tmp_path / "b", info, codec=absent)
    assert set(hardware_here()) <= set(refused.value.remedy.removeprefix("choose one of ").split(", "))
    with pytest.raises(OutputError, match="does not take"):
        VideoWriter(tmp_path / "b", info, codec=(hardware_here() or ["hevc"])[0], output=tmp_path / "o.webm")
