"""`lipdub inspect`: the streams of a file, and the marks that show whether lipdub altered it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
from av.stream import Disposition

from lipdub.media.c2pa import Credentials, read_credentials
from lipdub.media.disclosure import marks_in
from lipdub.media.probe import codec_of, kind_of, layout_name, open_input


@dataclass(frozen=True, kw_only=True)
class StreamInfo:
    """Properties of a stream from the file's header; None if they do not apply."""

    index: int
    kind: str  # video, audio, subtitle, picture (cover art), data, attachment, unknown
    codec: str
    language: str | None
    title: str | None
    default: bool  # players choose it by themselves
    duration_s: float | None
    width: int | None = None  # coded pixels
    height: int | None = None
    fps: Fraction | None = None
    sample_rate: int | None = None  # Hz
    layout: str | None = None  # mono, stereo, 5.1, ...

    def __str__(self) -> str:
        words = [f"{self.width}x{self.height}"] if self.width else []
        words += [f"{float(self.fps):.6g} fps"] if self.fps and self.kind == "video" else []
        words += [f"{self.sample_rate} Hz"] if self.sample_rate else []
        words += [self.layout] if self.layout else []
        words += [f"{self.duration_s:.2f} s"] if self.duration_s is not None else []
        words += [self.language] if self.language else []
        words += ["default"] if self.default else []
        words += [f'"{self.title}"'] if self.title else []
        return ", ".join(words)


@dataclass(frozen=True, kw_only=True)
class FileListing:
    """Properties of a file from its header, and its marks."""

    path: Path
    format: str
    duration_s: float
    chapters: int
    marks: dict[str, str]  # of marks.KEYS; empty where the file carries none
    credentials: Credentials | None  # its signed manifest, where there is one and the extra `c2pa` to read it
    streams: tuple[StreamInfo, ...]


def inspect_file(path: Path) -> FileListing:
    """Read a file's header; no picture and no sound is decoded.

    Raises:
        InputError: not a media file.
    """
    with open_input(path) as container:
        return FileListing(
            path=path,
            format=container.format.name,
            duration_s=(container.duration or 0) / av.time_base,
            chapters=len(container.chapters()),
            marks=marks_in(container.metadata),
            credentials=read_credentials(path),
            streams=tuple(_stream_info(stream) for stream in container.streams),
        )


def _stream_info(stream: av.stream.Stream) -> StreamInfo:
    context = getattr(stream, "codec_context", None)
    tags = {key.lower(): value for key, value in stream.metadata.items()}
    duration, clock = stream.duration, stream.time_base
    info = StreamInfo(
        index=stream.index,
        kind=kind_of(stream),
        codec=codec_of(stream),
        language=None if stream.language == "und" else stream.language,
        title=tags.get("title"),
        default=bool(stream.disposition & Disposition.default),
        duration_s=None if duration is None or clock is None else float(duration * clock),
    )
    if context is not None and isinstance(stream, av.VideoStream):
        return replace(info, width=context.width, height=context.height, fps=stream.average_rate)
    if context is not None and isinstance(stream, av.AudioStream):
        return replace(info, sample_rate=context.sample_rate, layout=layout_name(context.layout))
    return info
