"""The one encode: every picture once, with its own timestamp, into an intermediate file that remuxing copies from."""

from __future__ import annotations

import errno
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Self

import av
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.frame import PictureType

from lipdub.config import MediaConfig
from lipdub.errors import OutputError, ResourceError, SetupError
from lipdub.media.containers import container_of, movie_clock
from lipdub.media.probe import VideoInfo, file_url

# The source's codec -> encoders, of which the first that keeps depth and chroma is taken. Anything else (MPEG-2, MJPEG,
# DV, ...) becomes H.264, which every container here takes.
ENCODERS = {
    "h264": ("libx264", "libx265"),
    "hevc": ("libx265",),
    "vp8": ("libvpx-vp9",),
    "vp9": ("libvpx-vp9", "libsvtav1", "libx265"),
    "av1": ("libsvtav1", "libvpx-vp9", "libx265"),
    "prores": ("prores_ks",),
}
# What an encoder falls back to when it lacks the picture's own pixel format, least change first.
_PLAIN = {"yuvj420p": "yuv420p", "yuvj422p": "yuv422p", "yuvj444p": "yuv444p", "yuvj440p": "yuv440p"}
_FALLBACKS = tuple(f"yuv{chroma}p{depth}" for depth in ("", "10le", "12le") for chroma in ("420", "422", "444"))


_WHOLE_CHROMA = ("libx264", "libx265")
_SHORT = 8  # pictures; x265 gives wild decoding times when fewer come than it reorders


class VideoWriter:
    """Encodes pictures to an intermediate MP4 or QuickTime file with the source's size, clock, shape and colour tags.

    Why QuickTime: its clock can be any fraction, so the pts of variable frame rate and of NTSC rates are kept exactly;
    with a movie clock as fine as the track's, so is a late start. It carries the display matrix and every codec we
    write.

    Args:
        path: the intermediate file; its name's ending does not matter. An open binary file, for a trial in memory.
        info: of the source's picture.
        crf: constant quality of the encoder's own scale; None: the one of `config`.
        codec: "h264", "hevc", "vp9", "av1" or "prores"; None: as the source.
        output: the finished file: only codecs that its container takes come into question.
        config: quality and preset.

    Raises:
        SetupError: this PyAV lacks the encoder.
        OutputError: the encoder or the disc refuses, or the container does not take the codec.
        ResourceError: the disc is full.
    """

    def __init__(
        self,
        path: Path | BytesIO,
        info: VideoInfo,
        *,
        crf: int | None = None,
        codec: str | None = None,
        output: Path | None = None,
        config: MediaConfig | None = None,
    ) -> None:
        self.path = Path("memory") if isinstance(path, BytesIO) else Path(path)
        self.video = info
        self.n_frames = 0
        self.sizes: dict[bool, list[int]] = {True: [], False: []}  # bytes of each packet; True: key frames
        self.encoder, self.pix_fmt = _choice(
            info, codec, container_of(Path(output)).video if output is not None else ()
        )
        self._last: int | None = None
        self._end = 0  # pts at which the last picture is over
        self._first: tuple[int, int] | None = None  # pts and dts of the first packet
        form = "mov" if self.encoder == "prores_ks" else "mp4"
        try:
            self._container: OutputContainer = av.open(
                path if isinstance(path, BytesIO) else file_url(self.path),
                mode="w",
                format=form,
                options=movie_clock(self.video.time_base.denominator),
            )
        except (av.error.FFmpegError, OSError) as error:
            raise _refused(self.path, error) from error
        self._stream = self._add_stream(crf, config or MediaConfig())
        try:
            self._container.start_encoding()  # here, not at the first picture: refusals come before the work
        except (av.error.FFmpegError, OSError) as error:
            self._container.close()
            raise _refused(self.path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._container.close()  # no flush: the file is of no use

    def write(self, picture: av.VideoFrame, pts: int) -> None:
        """Encode one picture.

        Args:
            picture: of the source's size; its timestamp and picture type are overwritten.
            pts: in the source's time base, larger than that of the picture before.
        """
        if self._last is not None and pts <= self._last:
            raise ValueError(f"pts must rise: {pts} after {self._last}")
        self._last = pts
        picture.pts = pts
        picture.time_base = self.video.time_base
        picture.pict_type = PictureType.NONE  # else the encoder repeats the source's I, P and B choice
        self._end = pts + max(picture.duration, 1)
        try:
            self._mux(self._stream.encode(picture))
        except (av.error.FFmpegError, OSError) as error:
            raise _refused(self.path, error) from error
        self.n_frames += 1

    def close(self) -> None:
        """Flush the encoder and finish the file."""
        try:
            self._mux(self._stream.encode(None), last=True)
            self._container.close()
        except (av.error.FFmpegError, OSError) as error:
            raise _refused(self.path, error) from error

    def _mux(self, packets: list[av.Packet[av.VideoStream]], *, last: bool = False) -> None:
        if packets and self._first is None:
            self._first = (packets[0].pts or 0, packets[0].dts or 0)
        if last and packets and packets[-1].dts is not None and self._first is not None:
            # MP4 keeps lengths in decoding order. The last one makes the sum what the pictures' own lengths add up to.
            first_pts, first_dts = self._first
            packets[-1].duration = max(1, self._end - first_pts - (packets[-1].dts - first_dts))
        for packet in packets:
            self.sizes[packet.is_keyframe].append(packet.size)
            self._container.mux(packet)

    def _add_stream(self, crf: int | None, config: MediaConfig) -> av.VideoStream:
        video = self.video
        stream = self._container.add_stream(self.encoder, rate=video.average_rate)
        assert isinstance(stream, av.VideoStream)
        context = stream.codec_context
        stream.width, stream.height = video.width, video.height
        stream.pix_fmt = self.pix_fmt
        stream.time_base = context.time_base = video.time_base
        context.sample_aspect_ratio = video.sar
        context.color_primaries = video.color_primaries
        context.color_trc = video.color_trc
        context.colorspace = video.colorspace
        context.color_range = _range(video)
        context.bit_rate = 0  # quality rules, not rate
        context.thread_count = 0  # as many as there are cores
        context.thread_type = "AUTO"
        context.flags |= int(Flags.frame_duration)  # the last picture lasts as long as it did
        if video.interlaced:
            context.flags |= int(Flags.interlaced_dct | Flags.interlaced_me)
        stream.options = dict[str, object](_options(self.encoder, video, crf, config))
        if video.container_matrix is not None:
            stream.set_display_matrix(video.container_matrix)
        return stream


def _choice(video: VideoInfo, codec: str | None, taken: tuple[str, ...]) -> tuple[str, str]:
    """Encoder and pixel format; `taken` are the codecs that the container takes, empty for any."""
    if codec is not None and codec not in ENCODERS:
        raise SetupError(f"no encoder for {codec!r}", f"choose one of {', '.join(sorted(ENCODERS))}")
    if codec is not None and taken and codec not in taken:
        raise OutputError(f"the output's container does not take {codec}", f"choose one of {', '.join(taken)}")
    names = ENCODERS[codec][:1] if codec is not None else ENCODERS.get(video.codec, ENCODERS["h264"])
    if taken:
        allowed = [ENCODERS[each][0] for each in taken]
        names = tuple(name for name in names if name in allowed) if names[0] in allowed else tuple(allowed)
    found = [(name, _pixel_format(name, video)) for name in names if name in av.codecs_available]
    if not found:
        raise SetupError(f"this installation of PyAV has no encoder {names[0]}", "install the wheel: pip install av")
    # Python's min keeps the first of equals, so the source's own codec wins unless it would cost quality.
    return min(found, key=lambda pair: _loss(video.pix_fmt, pair[1])[:2])


def _options(encoder: str, video: VideoInfo, crf: int | None, config: MediaConfig) -> dict[str, str]:
    """The encoder's own options."""

    def quality(default: int) -> str:
        return str(default if crf is None else crf)

    if encoder == "libx264":
        return {"crf": quality(config.crf_h264), "preset": config.preset}
    if encoder == "libx265":
        parameters = ["log-level=error", *_hdr(video)]
        if video.duration_s * video.average_rate < _SHORT:
            parameters.append("bframes=0")
        return {"crf": quality(config.crf_hevc), "preset": config.preset, "x265-params": ":".join(parameters)}
    if encoder == "libvpx-vp9":
        return {"crf": quality(config.crf_vp9), "deadline": "good", "cpu-used": "4", "row-mt": "1"}
    if encoder == "libsvtav1":
        return {"crf": quality(config.crf_av1), "preset": "8"}
    return {"profile": "4444" if "444" in video.pix_fmt else "hq", "vendor": "apl0"}  # ProRes has no crf


def _hdr(video: VideoInfo) -> list[str]:
    """Static HDR metadata in x265's notation: chromaticity in 0.00002, luminance in 0.0001 cd/m2."""
    found = []
    if video.mastering_display is not None:
        *points, least, most = video.mastering_display
        red, green, blue, white = (
            f"({round(points[i] * 50_000)},{round(points[i + 1] * 50_000)})" for i in range(0, 8, 2)
        )
        light = f"({round(most * 10_000)},{round(least * 10_000)})"
        found.append(f"master-display=G{green}B{blue}R{red}WP{white}L{light}")
    if video.content_light is not None:
        found.append(f"max-cll={video.content_light[0]},{video.content_light[1]}")
    return found


def _range(video: VideoInfo) -> int:
    return 2 if video.pix_fmt.startswith("yuvj") else video.color_range


def _pixel_format(encoder: str, video: VideoInfo) -> str:
    """The source's own format where the encoder takes it, else the nearest that loses neither colour nor depth."""
    taken = {form.name for form in av.Codec(encoder, "w").video_formats or ()}
    if encoder in _WHOLE_CHROMA:
        # Odd sizes do not exist in H.264 and HEVC unless every pixel has its own chroma sample.
        taken = {name for name in taken if _fits(name, video)}
    own = (video.pix_fmt, _PLAIN.get(video.pix_fmt, video.pix_fmt))
    for name in own:
        if name in taken:
            return name
    return min((name for name in _FALLBACKS if name in taken), key=lambda name: _loss(video.pix_fmt, name))


def _loss(source: str, target: str) -> tuple[int, int, int]:
    """What a conversion costs: chroma samples lost (of 16 in each direction), bits lost; then what it adds."""
    before, after = av.VideoFormat(source, 16, 16), av.VideoFormat(target, 16, 16)
    if len(before.components) == 1 and not before.has_palette:  # grey has no chroma to lose
        wide, high = 0, 0
    elif before.is_rgb or before.has_palette:
        wide, high = 16, 16
    else:
        wide, high = before.chroma_width(), before.chroma_height()
    bits = 0 if before.has_palette else before.components[0].bits
    lost = max(0, wide - after.chroma_width()) + max(0, high - after.chroma_height())
    deeper = after.components[0].bits - bits
    added = max(0, deeper) + after.chroma_width() * after.chroma_height() + len(after.components)
    return lost, max(0, -deeper), added


def _fits(name: str, video: VideoInfo) -> bool:
    form = av.VideoFormat(name, video.width, video.height)
    step_x, step_y = (16 // size for size in (form.chroma_width(16), form.chroma_height(16)))
    return video.width % step_x == 0 and video.height % step_y == 0


def _refused(path: Path, error: Exception) -> OutputError | ResourceError:
    if getattr(error, "errno", None) == errno.ENOSPC:
        return ResourceError(f"the disc is full: {path.parent}", "make room, or write to another disc")
    return OutputError(f"cannot write {path}: {error}", "check the folder and the chosen codec")
