"""What a media file holds, found before any work starts, and the one way in which lipdub opens an input."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.codec.context import Flags
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from numpy.typing import NDArray

from lipdub.config import MediaConfig
from lipdub.errors import InputError
from lipdub.media.boxes import spatial_boxes
from lipdub.media.clocks import Clock, clocks_in
from lipdub.media.streamed import with_length

# Demuxers that may read an input. Playlists, concat scripts and device inputs are absent on purpose: an "mp4" that is
# in truth a playlist must not make lipdub read other files or the network.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,wav,w64,aiff,caf,au,mp3,aac,ac3,eac3,flac,ogg,asf,flv,"
    "mxf,nut,gif,amr,wv,ape,tta,dv,ivf,wtv,dts,dtshd,truehd,mlp,gsm,mpc,mpc8,tak,dsf,voc,ircam,sox,qcp,oma,loas"
)
# Formats whose timestamps are a position on a timeline that starts at 0. In the others the clock is free (a recording
# may start at 5 h) or counts encoder priming, and players call the first timestamp 0.
TIMELINES = frozenset({"mov", "mp4", "matroska", "webm", "avi", "nut", "wav", "w64", "aiff", "caf", "flac", "ogg"})
# Start of all streams on a timeline from which on it is that of another, longer video; MP4 says pauses before a video.
_LATE_S, _LATE_EDIT_S = 1.0, 10.0
_TAIL_S = 0.25  # by which packets may go on behind the end that a header states: some of any codec
_MEAN_LIMIT = 2.0  # a rate this many times that of the packets is no mean
UNKNOWN = "unknown"  # codec or kind that FFmpeg cannot name
DYNAMIC_HDR = {  # metadata of each single picture
    SideDataType.DOVI_METADATA: "Dolby Vision",
    SideDataType.DYNAMIC_HDR_PLUS: "HDR10+",
    SideDataType.DYNAMIC_HDR_VIVID: "HDR Vivid",
}
MOST_HZ = 6_144_000  # of a sound: twice what the fastest converters of one bit give
UNSPECIFIED = 2  # FFmpeg's number for an unknown colour primary, transfer or matrix


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Where a film is to end, if not where its source does."""

    end_s: float  # on the file's timeline
    extend: str = "freeze"  # what is seen behind the source's last picture: freeze | bounce | loop


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoInfo:
    """The picture stream. `display_matrix` maps coded to upright display pixels; integers are pixel centres."""

    index: int
    codec: str
    width: int  # coded pixels
    height: int
    display_width: int  # upright, square pixels
    display_height: int
    display_matrix: NDArray[np.float64]  # (2, 3)
    time_base: Fraction
    average_rate: Fraction
    frames: int | None  # as the container says
    start_pts: int
    duration_s: float
    duration_known: bool  # said of the picture itself, not of the longest stream
    origin_s: float  # the timestamp that a player shows as time 0
    format: str  # of the container
    rotation: int  # degrees clockwise that make the coded picture upright: 0, 90, 180, 270
    sar: Fraction  # width / height of one coded pixel
    pix_fmt: str
    bit_rate: int | None
    color_primaries: int
    color_trc: int
    colorspace: int
    color_range: int  # 0 unknown, 1 limited, 2 full
    interlaced: bool | None
    container_matrix: tuple[int, ...] | None  # the nine 16.16 numbers of the file's display matrix
    mastering_display: tuple[Fraction, ...] | None  # HDR: r, g, b, white (x, y), least and most luminance in cd/m2
    content_light: tuple[int, int] | None  # HDR: most light of a pixel, of a frame's average, in cd/m2
    dynamic_hdr: str  # HDR metadata of each picture: its kind, or ""
    alpha: bool  # transparency, also where the decoder leaves it out
    field_order: int = 0  # FFmpeg's number: 0 unknown, 1 progressive, 2 top first, 3 bottom first, 4 and 5 mixed
    spatial: bytes = field(default=b"", repr=False)  # boxes that mark it as stereoscopic or spherical

    @property
    def start_s(self) -> float:
        """When the first picture is shown, on the file's timeline."""
        return float(self.start_pts * self.time_base) - self.origin_s

    @property
    def is_turned(self) -> bool:
        """Whether players are to turn or mirror the coded picture."""
        a, b, _, c, d = (self.container_matrix or (1, 0, 0, 0, 1))[:5]
        return bool(b or c or a < 0 or d < 0)


@dataclass(frozen=True, kw_only=True)
class AudioInfo:
    """One sound stream."""

    index: int
    codec: str
    sample_rate: int
    channels: int
    layout: str
    start_s: float  # when its first sample is heard, on the file's timeline
    duration_s: float
    duration_known: bool  # said of this sound, not of the longest stream
    language: str | None
    integer: bool  # whether its samples are, of at most 32 bits

    @property
    def end_s(self) -> float:
        """When it is over, on the file's timeline."""
        return self.start_s + self.duration_s


@dataclass(frozen=True, kw_only=True)
class MediaInfo:
    """One file."""

    path: Path
    format: str
    duration_s: float
    start_s: float
    origin_s: float  # the timestamp that a player shows as time 0
    video: VideoInfo | None
    audio: tuple[AudioInfo, ...]
    streams: tuple[str, ...]  # kind of each stream in file order; cover art is "picture"
    chapters: int


def file_url(path: Path) -> str:
    """A path as FFmpeg must be given it: `-x.mp4`, `c:olon.mp4` and `%03d.mp4` are then just names."""
    return f"file:{os.path.abspath(path)}"


@contextmanager
def open_input(path: Path) -> Iterator[InputContainer]:
    """Open a file for reading, by its absolute name and with the demuxers and protocols that we trust.

    Raises:
        InputError: missing, a directory, not a regular file, empty, not a media file.
    """
    _check_file(path)
    _refuse_other_kinds(path)
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file,pipe"}
    with ExitStack() as stack:
        streamed = with_length(path)
        opened = file_url(path) if streamed is None else stack.enter_context(streamed)
        try:
            container = stack.enter_context(av.open(opened, mode="r", options=options, metadata_errors="replace"))
        except (av.error.FFmpegError, ValueError) as error:
            # What FFmpeg calls an invalid argument is a format that is not among FORMATS.
            why = "another format" if isinstance(error, av.error.ArgumentError) else _reason(error)
            remedy = "where FFmpeg reads it, write it anew: ffmpeg -i FILE WHOLE.mkv, or for a sound WHOLE.wav"
            if path.suffix.lower() in _SAMPLES:
                remedy = f"{_SAMPLES_REMEDY}; name the right format, rate and channels"
            raise InputError(f"{path} is not a media file of a kind that lipdub reads: {why}", remedy) from error
        for stream in container.streams.video:
            if _decodable(
                stream
            ):  # else FFmpeg cuts off less on the left than the stream says, where memory is quicker so
                stream.codec_context.flags |= int(Flags.unaligned)
        yield container


def probe(path: Path, config: MediaConfig | None = None) -> MediaInfo:
    """Look into a file. The first picture is decoded, because only frames state rotation, colour and interlacing.

    Raises:
        InputError: see `open_input`; also when no stream can be decoded, or a picture is larger than `max_pixels`.
    """
    path = Path(path)
    with open_input(path) as container:
        kinds = tuple(kind_of(stream) for stream in container.streams)
        video = None
        if "video" in kinds:
            stream = container.streams[kinds.index("video")]
            assert isinstance(stream, av.VideoStream)
            video = _video_info(path, container, stream, config or MediaConfig())
        audio = tuple(audio_info(container, stream) for stream in container.streams.audio if _decodable(stream))
        if video is None and not audio:
            raise InputError(f"{path} has no video or audio stream that can be decoded", "give another file")
        info = MediaInfo(
            path=path,
            format=container.format.name,
            duration_s=_container_duration(container),
            start_s=(container.start_time or 0) / av.time_base,
            origin_s=origin(container),
            video=video,
            audio=audio,
            streams=kinds,
            chapters=len(container.chapters()),
        )
    if _is_streamed_avi(path):
        info = _of_unknown_length(info)
    # A recording that was streamed or broke off may have no duration.
    return info if info.duration_s else measured(info, read_clocks(path))


def _is_streamed_avi(path: Path) -> bool:
    """Whether an AVI was written into a pipe: then its lengths are placeholders, which FFmpeg takes at their word."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[:4] == b"RIFF" and head[8:] == b"AVI " and head[4:8] in (bytes(4), b"\xff\xff\xff\xff")


def _of_unknown_length(info: MediaInfo) -> MediaInfo:
    video = None if info.video is None else replace(info.video, duration_known=False, frames=None)
    audio = tuple(replace(each, duration_known=False) for each in info.audio)
    return replace(info, duration_s=0.0, video=video, audio=audio)


def read_clocks(path: Path) -> dict[int, Clock]:
    """The clock of each stream that has packets, by its index; the file is read to its end.

    Raises:
        InputError: not a media file, or it cannot be read to its end.
    """
    with open_input(path) as container:
        return clocks_in(container, path, origin(container))


def measured(info: MediaInfo, clocks: dict[int, Clock]) -> MediaInfo:
    """A file with the lengths and the frame rate of its packets, where its header does not state them or is wrong."""
    video, audio = info.video, info.audio
    if video is not None and (seen := clocks.get(video.index)) is not None:
        length_s = seen.end_s - seen.start_s
        if not video.duration_known or length_s - video.duration_s > _TAIL_S:
            video = replace(video, duration_s=length_s, frames=video.frames or seen.n_shown)
        if length_s > 0 and float(video.average_rate) > _MEAN_LIMIT * seen.n_shown / length_s:
            rate = Fraction(seen.n_shown / length_s).limit_denominator(1001)  # FFmpeg gives the clock's, 1000 Hz
            video = replace(video, average_rate=rate)
    lengths = {index: clock.end_s for index, clock in clocks.items()}
    audio = tuple(
        replace(each, duration_s=max(0.0, lengths[each.index] - each.start_s))
        if each.index in lengths and (not each.duration_known or lengths[each.index] - each.end_s > _TAIL_S)
        else each
        for each in audio
    )
    return replace(info, video=video, audio=audio, duration_s=info.duration_s or max(lengths.values(), default=0.0))


def require_video(info: MediaInfo) -> VideoInfo:
    """The picture stream.

    Raises:
        InputError: there is none; says what there is instead.
    """
    if info.video is None:
        there = ", ".join(info.streams) or "nothing"
        raise InputError(f"{info.path} has no video stream (it has: {there})", "give a file with moving pictures")
    return info.video


def origin(container: InputContainer) -> float:
    """The timestamp in seconds that a player shows as time 0: 0 on a timeline, else where the clock starts.

    A video on a timeline, too, may be cut out of a longer one with the times that it had there, or begin before 0.
    """
    start_s = (container.start_time or 0) / av.time_base
    if not is_timeline(container.format.name):
        return start_s
    pictures = [_start(stream) for stream in container.streams.video if kind_of(stream) == "video"]
    if not pictures:  # a sound may be meant to begin late
        return 0.0
    late_s = _LATE_EDIT_S if "mov" in container.format.name else _LATE_S
    return start_s if start_s > late_s else min(0.0, *pictures)


def is_timeline(container_format: str) -> bool:
    """Whether timestamps of this format are positions on a timeline that starts at 0."""
    return bool(TIMELINES & set(container_format.split(",")))


def display_geometry(
    width: int, height: int, sar: Fraction, matrix: tuple[int, ...] | None
) -> tuple[NDArray[np.float64], int, int, int]:
    """Affine from coded to upright display pixels (2, 3), display width and height, clockwise rotation in degrees.

    The picture is first stretched by `sar`, then turned (and mirrored, where the file says so) by quarter turns. A
    matrix that is no quarter turn is left to the player: it then counts as upright.
    """
    stretched = max(1, round(width * sar))
    turn = np.eye(2)
    if matrix is not None:
        linear = np.array([[matrix[0], matrix[3]], [matrix[1], matrix[4]]], dtype=np.float64)
        snapped = np.sign(np.where(np.abs(linear) > 0.5 * np.abs(linear).max(initial=1.0), linear, 0.0))
        if abs(np.linalg.det(snapped)) == 1.0 and np.abs(snapped).sum() == 2.0:
            turn = snapped
    size = np.abs(turn) @ np.array([stretched, height])
    scale = turn @ np.diag([stretched / width, 1.0])
    origin = np.where(turn.sum(axis=1) < 0, size, 0.0)  # a negative axis starts at the far edge
    offset = origin + scale @ [0.5, 0.5] - 0.5  # pixel centres, not corners
    # Where the coded x axis points to on the screen (y runs down); of a mirrored picture, the mirror comes first.
    axis = turn[:, 0] * (1.0 if np.linalg.det(turn) > 0 else -1.0)
    rotation = round(float(np.degrees(np.arctan2(axis[1], axis[0])))) % 360
    return np.column_stack([scale, offset]), int(size[0]), int(size[1]), rotation


def _check_file(path: Path) -> None:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        if (scheme := re.match(r"([a-z][a-z0-9+.-]+):/", str(path), re.IGNORECASE)) is not None:
            here = scheme[1].lower() == "file"
            address = re.sub("^([^:]+:)/+", rf"\1//{'/' * here}", str(path))  # `Path` has made one slash of two
            raise InputError(
                f"cannot open {address}: it is an address, not a file",
                "give the path alone, without file:" if here else "download it first, then give the file",
            ) from error
        raise InputError(f"cannot open {path}: {_reason(error)}", "check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path} is a folder", "give a video or audio file")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a regular file", "copy it to a file first")
    if status.st_size == 0:
        raise InputError(f"{path} is empty (0 bytes)", "get the file again")


_PICTURES = {
    b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"8BPS": "PSD",
    b"\0\0\1\0": "icon", b"\0\0\0\x0cjP": "JPEG 2000", b"\0\0\0\x0cJXL": "JPEG XL", b"\xff\x0a": "JPEG XL",
    b"\x76\x2f\x31\x01": "OpenEXR", b"SDPX": "DPX", b"XPDS": "DPX", b"P5\n": "PGM", b"P6\n": "PPM", b"qoif": "QOI",
}  # fmt: skip
_SAMPLES = (".pcm", ".raw", ".s16", ".s16le", ".l16", ".sln")  # as speech services send: samples without a header
_SAMPLES_REMEDY = "put samples without a header into a WAV first: ffmpeg -f s16le -ar 24000 -ac 1 -i FILE WHOLE.wav"
_RAW = {b"YUV4MPEG2": "-i FILE", b"\0\0\0\1": "-r 25 -i FILE", b"\0\0\1": "-r 25 -i FILE"}


_HEIF = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2", b"avif")  # brands: HEIC and AVIF ...
_HEIF_SEQUENCES = (b"avis", b"hevc", b"hevx", b"msf1")  # ... and what moves


def picture_kind(path: Path) -> tuple[str, bool]:
    """The format of a picture, by its first bytes, and whether it is animated; "" for everything else.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(64)
        head += file.read(1 << 20) if head.startswith(b"\x89PNG") else b""
    kind = next((name for start, name in _PICTURES.items() if head.startswith(start)), "")
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        kind = "WebP"
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if head.startswith(b"GIF8") and not _moves(path):
        kind = "GIF"
    if brand in _HEIF or brand in _HEIF_SEQUENCES:
        kind = "HEIF"
    return kind, brand in _HEIF_SEQUENCES or (kind == "PNG" and b"acTL" in head.partition(b"IDAT")[0]) or (
        kind == "WebP" and head[12:16] == b"VP8X" and head[20] & 2 > 0
    )


def _moves(path: Path) -> bool:
    """Whether a GIF has more than one frame, or cannot be read: what reads it as a video says why."""
    try:
        with av.open(file_url(path), mode="r", options={"format_whitelist": "gif"}) as container:
            return sum(packet.size > 0 for packet in islice(container.demux(video=0), 2)) > 1
    except (av.error.FFmpegError, IndexError):
        return True


def are_jpegs(path: Path) -> bool:
    """Whether one JPEG follows another: motion JPEG without a container, or a photo with a second picture behind it.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return file.read(3) == b"\xff\xd8\xff" and b"\xff\xd9\xff\xd8\xff" in file.read(1 << 20)


def _refuse_other_kinds(path: Path) -> None:
    """What FFmpeg could read, but is no film: a still picture; or one without a clock: a stream without a container."""
    with path.open("rb") as file:
        head = file.read(64)
    if are_jpegs(path):
        remedy = (
            "put it into one: ffmpeg -r 25 -f mjpeg -i FILE -c:v libx264 -crf 12 FILM.mkv; name the right rate with -r"
        )
        raise InputError(f"{path} is a raw stream of pictures, without a container", remedy)
    kind, animated = picture_kind(path)
    if animated:
        remedy = "make a film of it first: ffmpeg -i FILE -c:v libx264 -crf 12 -pix_fmt yuv444p FILM.mkv"
        raise InputError(f"{path} is an animated picture ({kind}), which lipdub does not read", remedy)
    if kind:
        raise InputError(
            f"{path} is a still picture ({kind}), no film or sound",
            "make a film of it first: ffmpeg -loop 1 -i FILE -t 10 -r 25 -pix_fmt yuv420p "
            '-vf "crop=trunc(iw/2)*2:trunc(ih/2)*2" FILM.mp4',
        )
    if head.startswith(b"\0\0\1\xba"):  # MPEG's own container begins like a stream of pictures
        return
    boxes = head[4:8].isalpha()  # QuickTime's, the first of which may count its length with 64 bits
    raw = next(
        (words for start, words in _RAW.items() if head.startswith(start) and not (boxes and start[:1] == b"\0")), ""
    )
    if raw:
        remedy = f"put it into one: ffmpeg {raw} -c:v libx264 -crf 12 FILM.mkv; name the right rate with -r"
        raise InputError(f"{path} is a raw stream of pictures, without a container", remedy)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def _decodable(stream: av.stream.Stream) -> bool:
    return getattr(stream, "codec_context", None) is not None


def kind_of(stream: av.stream.Stream) -> str:
    """video, audio, subtitle, data, attachment, unknown, or "picture" for cover art."""
    if stream.type == "video" and stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails):
        return "picture"
    if stream.type == "video" and not _decodable(stream):
        return UNKNOWN
    return stream.type or UNKNOWN


def codec_of(stream: av.stream.Stream) -> str:
    """The codec's usual name, "h264" whatever the decoder; UNKNOWN where FFmpeg has no decoder and no name for it."""
    context = getattr(stream, "codec_context", None)
    return context.codec.canonical_name if context is not None else (getattr(stream, "name", None) or UNKNOWN)


def _duration_known(container: InputContainer, stream: av.stream.Stream) -> bool:
    alone = len(container.streams) == 1 and bool(container.duration)
    return bool(stream.duration) or "DURATION" in stream.metadata or alone  # 0 is what a writer that broke off leaves


def _container_duration(container: InputContainer) -> float:
    return max(0.0, (container.duration or 0) / av.time_base)


def _stream_duration(container: InputContainer, stream: av.stream.Stream) -> float:
    parts = stream.metadata.get("DURATION", "").split(":")  # Matroska keeps it here: 00:00:02.040000000
    if len(parts) == 3 and "matroska" in container.format.name:  # what FFmpeg says may be that of the longest stream
        try:
            end = int(parts[0]) * 3600 + int(parts[1]) * 60 + float(parts[2])
        except ValueError:
            return _container_duration(container)
        return max(0.0, end - _start(stream))
    if stream.duration and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return _container_duration(container)


def _start(stream: av.stream.Stream) -> float:
    return float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0


def _first_frame(path: Path, container: InputContainer, stream: av.VideoStream) -> av.VideoFrame:
    try:
        for frame in container.decode(stream):
            return frame
    except (av.error.FFmpegError, ValueError) as error:
        what = f"{path}: the first picture cannot be decoded: {_reason(error)}"
        raise InputError(what, "get a sound copy, or convert it to H.264 with FFmpeg") from error
    raise InputError(f"{path}: the video stream holds no picture", "give another file")


def _video_info(path: Path, container: InputContainer, stream: av.VideoStream, config: MediaConfig) -> VideoInfo:
    context = stream.codec_context
    if context.width * context.height > config.max_pixels:
        raise InputError(
            f"{path}: pictures of {context.width}x{context.height} are too large",
            f"the limit is {config.max_pixels} pixels (--set media.max_pixels=...)",
        )
    frame = _first_frame(path, container, stream)
    sar = stream.sample_aspect_ratio or Fraction(1)
    sar = sar if sar > 0 else Fraction(1)
    matrix = _matrix(frame)
    affine, display_width, display_height, rotation = display_geometry(frame.width, frame.height, sar, matrix)
    return VideoInfo(
        index=stream.index,
        codec=context.codec.canonical_name,
        width=frame.width,
        height=frame.height,
        display_width=display_width,
        display_height=display_height,
        display_matrix=affine,
        time_base=stream.time_base or Fraction(1, 90_000),
        average_rate=stream.average_rate or stream.guessed_rate or Fraction(25),
        frames=stream.frames or None,
        start_pts=stream.start_time or 0,
        duration_s=_stream_duration(container, stream),
        duration_known=_duration_known(container, stream),
        origin_s=origin(container),
        format=container.format.name,
        rotation=rotation,
        sar=sar,
        pix_fmt=frame.format.name,
        bit_rate=stream.bit_rate or None,
        color_primaries=_specified(int(frame.color_primaries), int(context.color_primaries)),
        color_trc=_specified(int(frame.color_trc), int(context.color_trc)),
        colorspace=_specified(int(frame.colorspace), int(context.colorspace)),
        color_range=int(frame.color_range) or int(context.color_range),
        interlaced=bool(frame.interlaced_frame),
        container_matrix=matrix,
        mastering_display=_mastering(frame),
        content_light=_light(frame),
        dynamic_hdr=_dynamic_hdr(frame),
        alpha=_alpha(frame, context.codec.canonical_name) or stream.metadata.get("alpha_mode") == "1",
        field_order=int(context.field_order),
        spatial=spatial_boxes(frame),
    )


def _alpha(frame: av.VideoFrame, codec: str) -> bool:
    """Whether a picture has transparency; every GIF is decoded as if it had, so there the pixels decide."""
    if codec == "gif" and has_alpha(frame.format.name):
        return bool((frame.to_ndarray(format="rgba")[..., 3] < 255).any())
    return has_alpha(frame.format.name)


def has_alpha(pix_fmt: str) -> bool:
    """Whether pictures of this format have transparency."""
    form = av.VideoFormat(pix_fmt, 16, 16)
    return any(component.is_alpha for component in form.components)


def _dynamic_hdr(frame: av.VideoFrame) -> str:
    side_data = cast(Mapping[SideDataType, bytes], frame.side_data)
    return " and ".join(words for kind, words in DYNAMIC_HDR.items() if kind in side_data)


def _specified(first: int, second: int) -> int:
    return second if first == UNSPECIFIED else first


def _side_data(frame: av.VideoFrame, kind: SideDataType, dtype: str) -> NDArray[np.int64] | None:
    # The stubs say a mapping from names; it is one from kinds, and asking for an absent one is a KeyError.
    side_data = cast(Mapping[SideDataType, bytes], frame.side_data)
    return np.frombuffer(bytes(side_data[kind]), dtype=dtype).astype(np.int64) if kind in side_data else None


def _matrix(frame: av.VideoFrame) -> tuple[int, ...] | None:
    data = _side_data(frame, SideDataType.DISPLAYMATRIX, "i4")
    return None if data is None or data.size < 9 else tuple(int(value) for value in data[:9])


def _mastering(frame: av.VideoFrame) -> tuple[Fraction, ...] | None:
    """Ten rationals and two flags, as FFmpeg lays out its mastering display record."""
    data = _side_data(frame, SideDataType.MASTERING_DISPLAY_METADATA, "i4")
    if data is None or data.size < 22 or not (data[20] and data[21]) or not data[1:20:2].all():
        return None
    return tuple(Fraction(int(data[i]), int(data[i + 1])) for i in range(0, 20, 2))


def _light(frame: av.VideoFrame) -> tuple[int, int] | None:
    data = _side_data(frame, SideDataType.CONTENT_LIGHT_LEVEL, "u4")
    return None if data is None or data.size < 2 else (int(data[0]), int(data[1]))


def layout_name(layout: av.AudioLayout) -> str:
    """A layout as people call it; a WAV file only states how many channels there are."""
    return {"1 channels": "mono", "2 channels": "stereo"}.get(layout.name, layout.name)


def require_rate(path: str | Path, stream: av.AudioStream) -> None:
    """Refuse a sound of a rate that none has: FFmpeg would compute for hours to bring it to another.

    Raises:
        InputError: it is over MOST_HZ.
    """
    rate = int(stream.codec_context.sample_rate or 0)
    if rate > MOST_HZ:
        name = str(path).removeprefix("file:")
        raise InputError(f"{name}: the header of the sound is damaged: {rate} samples a second", "get the file again")


def audio_info(container: InputContainer, stream: av.AudioStream) -> AudioInfo:
    """What the header says of a sound stream that can be decoded.

    Raises:
        InputError: see `require_rate`.
    """
    require_rate(container.name, stream)
    context = stream.codec_context
    return AudioInfo(
        index=stream.index,
        codec=context.codec.canonical_name,
        sample_rate=int(context.sample_rate or 0),
        channels=int(context.layout.nb_channels),
        layout=layout_name(context.layout),
        start_s=_start(stream) - origin(container),
        duration_s=_stream_duration(container, stream),
        duration_known=_duration_known(container, stream),
        language=stream.language,
        integer=context.format is not None and context.format.name.startswith(("s16", "s32", "u8")),
    )
