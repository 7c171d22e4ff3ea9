"""Details of a file that `ffmpeg -i` prints and PyAV lacks: side data of streams, chroma locations, programs."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from lipdub.config import MediaConfig
from lipdub.errors import SetupError
from lipdub.media.ffmpeg import ffmpeg_binary, reading

CHROMA = ("left", "center", "topleft", "top", "bottomleft", "bottom")  # in the order of H.264 and HEVC
RANGES = ("tv", "pc")
_TIMEOUT_S = 60.0
_STREAM = re.compile(r"\s+Stream #0:(\d+)\S*: \w+: (.*)")
_PROGRAM = re.compile(r"\s+Program (\d+)")
_FORMAT = re.compile(r"(?:^|, )(?:yuv|gray|gbr|rgb|bgr|nv|p0|p2|p4|ya|pal|mono)\w*\(([^)]*)\)")
_PAIR = re.compile(r"\s+([^:]+?)\s*: (.*)")


@dataclass(frozen=True)
class Program:
    """A program of a transport stream."""

    number: int
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StreamDetails:
    """One stream."""

    words: frozenset[str]  # behind the pixel format: range, order of fields, place of chroma
    side_data: dict[str, str] = field(default_factory=dict)  # as FFmpeg words it

    def first_of(self, names: tuple[str, ...]) -> str:
        """The word that is one of `names`; "" if none is."""
        return next((name for name in names if name in self.words), "")


@dataclass(frozen=True)
class FileDetails:
    """A file."""

    streams: dict[int, StreamDetails]
    programs: list[Program]

    def of(self, index: int) -> StreamDetails:
        """Details of a stream; empty if FFmpeg does not list it."""
        return self.streams.get(index, StreamDetails(frozenset()))


def read_details(path: Path, config: MediaConfig | None = None) -> FileDetails:
    """Read the head of a file.

    Raises:
        SetupError: ffmpeg does not run.
    """
    argv = [str(ffmpeg_binary(config)), "-hide_banner", "-nostdin", "-v", "verbose", *reading(path)]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"cannot run {argv[0]}: {error}", "install imageio-ffmpeg again") from error
    return parse(done.stderr.decode("utf-8", "replace"))


def parse(text: str) -> FileDetails:
    """Take a listing apart by its indents."""
    details = FileDetails({}, [])
    stream: StreamDetails | None = None
    tags: dict[str, str] | None = None  # where the pairs that follow belong
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if (start := _STREAM.match(line)) is not None:
            form = _FORMAT.search(start[2])
            words = frozenset(form[1].split(", ")) if form is not None else frozenset[str]()
            stream, tags = StreamDetails(words), None
            details.streams[int(start[1])] = stream
        elif (start := _PROGRAM.match(line)) is not None:
            details.programs.append(Program(int(start[1])))
            stream, tags = None, details.programs[-1].tags
        elif line.strip() == "Side data:" and stream is not None:
            tags = stream.side_data
        elif line.strip() == "Metadata:":
            tags = tags if stream is None else None
        elif tags is not None and indent >= 4 and (pair := _PAIR.match(line)) is not None:
            tags.setdefault(pair[1], pair[2])
    return details
