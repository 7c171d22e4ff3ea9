"""A maker of small clips, so that the media tests need no files."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
from av.codec.context import Flags

from lipdub.config import MediaConfig
from lipdub.media.atomic import verify
from lipdub.media.kept import changes
from lipdub.media.mend import on_one_clock
from lipdub.media.mux import RemuxPlan, remux
from lipdub.media.probe import measured, probe, require_video
from lipdub.media.streams import plan_streams
from lipdub.media.video import VideoReader
from lipdub.media.writer import VideoWriter


def picture(number: int, width: int, height: int) -> np.ndarray:
    """Smooth colours that move, (H, W, 3) uint8; the top left quarter is red, so that orientation can be told."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    rgb = np.stack([0.4 + 0.2 * np.sin(4 * x + number), 0.5 + 0.2 * np.cos(3 * y), 0.4 + 0.2 * np.sin(3 * (x + y))], -1)
    rgb[: height // 2, : width // 2] = (0.9, 0.1, 0.1)
    return np.rint(255 * rgb).astype(np.uint8)


def make_frame(pix_fmt: str, width: int = 64, height: int = 48, number: int = 0) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(picture(number, width, height), format="rgb24")
    return frame.reformat(format=pix_fmt, dst_colorspace="ITU601", dst_color_range=1)


def make_clip(
    path: Path,
    *,
    rate: Fraction = Fraction(25),
    n_frames: int = 10,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    last: int | None = None,
    start: int = 0,
    size: tuple[int, int] = (64, 48),
    pix_fmt: str = "yuv420p",
    codec: str = "libx264",
    n_b: int = 2,
    rotation: int = 0,
    sar: Fraction = Fraction(1),
    n_audio: int = 0,
    chapters: bool = False,
    still: bool = False,
    cover: bool = False,
    title: str | None = None,
    options: dict[str, str] | None = None,
) -> list[Fraction]:
    """Write a clip; returns the times of its pictures. `pts` wins over `rate`; `last` is the length of the last one."""
    time_base = time_base or 1 / rate
    step = int(1 / (rate * time_base))
    stamps = [start + each for each in (pts or [i * step for i in range(n_frames)])]
    clock = str(time_base.denominator)
    muxing = {"video_track_timescale": clock, "movie_timescale": clock} if path.suffix in (".mp4", ".mov") else {}
    with av.open(f"file:{path.absolute()}", "w", options=muxing | (options or {})) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.time_base = stream.codec_context.time_base = time_base
        stream.codec_context.sample_aspect_ratio = sar
        stream.codec_context.flags |= int(Flags.frame_duration)
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "bf": str(n_b), "crf": "12"}
        if rotation:
            stream.set_display_rotation(rotation)
        sounds = [container.add_stream("aac", rate=48000, layout="mono") for _ in range(n_audio)]
        for number, sound in enumerate(sounds):
            sound.metadata["language"] = ("eng", "fra", "deu")[number]
        art = _add_cover(container) if cover else None
        if title:
            container.metadata["title"] = title
        length = float((stamps[-1] + step) * time_base)
        if chapters:
            middle = int(length * 500)
            container.set_chapters(
                [
                    _chapter(1, 0, middle, "One"),
                    _chapter(2, middle, int(length * 1000), "Two"),
                ]
            )
        for number, stamp in enumerate(stamps):
            frame = make_frame(pix_fmt, *size, number=0 if still else number)
            frame.pts, frame.time_base = stamp, time_base
            frame.duration = stamps[number + 1] - stamp if number + 1 < len(stamps) else last or step
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for number, sound in enumerate(sounds):
            _tone(container, sound, length, 300.0 * (number + 1))
        if art is not None:
            container.mux(art)
    return [stamp * time_base for stamp in stamps]


def make_sound(
    path: Path, seconds: float = 0.4, *, codec: str = "pcm_s16le", rate: int = 44100, layout: str = "mono"
) -> Path:
    """A 440 Hz tone of amplitude 0.5."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        _tone(container, stream, seconds, 440.0)
    return path


def add_subtitles(path: Path, output: Path, ffmpeg: Path) -> None:
    """Copy a clip and add a text subtitle to it."""
    text = path.with_suffix(".srt")
    text.write_text("1\n00:00:00,000 --> 00:00:00,200\nhello\n")
    codec = "mov_text" if output.suffix in (".mp4", ".mov") else "srt"
    argv = [ffmpeg, "-v", "error", "-i", path, "-i", text, "-map", "0:v", "-map", "0:a", "-map", "1"]
    subprocess.run([*argv, "-c", "copy", "-c:s", codec, "-metadata:s:s:0", "language=spa", output], check=True)


def _chapter(number: int, start: int, end: int, title: str) -> dict:
    return {
        "id": number,
        "start": start,
        "end": end,
        "time_base": Fraction(1, 1000),
        "metadata": {"title": title},
    }


def _add_cover(container: av.container.OutputContainer) -> av.Packet:
    context = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt, context.time_base = 32, 32, "yuvj420p", Fraction(1, 25)
    packet = next(iter(context.encode(make_frame("yuvj420p", 32, 32))))
    stream = container.add_stream("mjpeg", rate=25)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
    stream.disposition = av.stream.Disposition.attached_pic
    packet.stream = stream
    packet.pts = packet.dts = 0
    return packet


def _tone(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float, pitch: float) -> None:
    rate = stream.codec_context.sample_rate
    channels = stream.codec_context.layout.nb_channels
    wave = 0.5 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)
    size = stream.codec_context.frame_size or 1024
    for start in range(0, len(wave), size):
        block = np.repeat(wave[None, start : start + size], channels, axis=0).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=stream.codec_context.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


class Dub(NamedTuple):
    """A file made as `sync` makes it, with no mouth changed."""

    told: list[str]  # what is said before and while it is written
    changed: list[str]  # differences from the source that are found in it
    n_frames: int


def dub_file(source: Path, audio: Path, output: Path) -> Dub:
    """Write `output`: the source's picture encoded anew, the audio, and the source's other streams."""
    source, clocks, told = on_one_clock(source, output.parent.joinpath, MediaConfig())
    info = measured(probe(source), clocks)
    video, streams = require_video(info), plan_streams(source, audio, output, clocks=clocks)
    with VideoReader(source, video) as reader, VideoWriter(output.parent / "p", video, output=output) as writer:
        for frame in reader:
            writer.write(frame.picture, frame.pts)
    plan = RemuxPlan(
        picture=output.parent / "p",
        source=info,
        dub=audio,
        output=output,
        video_duration_s=video.duration_s,
        streams=streams,
    )
    told += [*streams.losses, *writer.encoding.losses, *remux(plan)]
    verify(output, info, writer.n_frames)
    return Dub(told, changes(source, output, video.index, streams.items), writer.n_frames)


@pytest.fixture
def clip():
    return make_clip


@pytest.fixture
def sound():
    return make_sound


@pytest.fixture
def subtitled():
    return add_subtitles


@pytest.fixture
def frame():
    return make_frame


@pytest.fixture(scope="session")
def dubbed():
    return dub_file
