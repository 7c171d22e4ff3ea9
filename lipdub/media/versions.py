"""Which PyAV and which ffmpeg this machine has, and what they lack of what lipdub asks of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av

from lipdub.config import MediaConfig
from lipdub.media.encoders import ENCODERS
from lipdub.media.ffmpeg import chosen_binary, misbehaves, missing, version_of

PLAIN_ENCODER = ENCODERS["h264"][0]  # what any source can become; without it hardly a file can be written


@dataclass(frozen=True, kw_only=True)
class PyAV:
    """The library that reads and writes pictures."""

    version: str
    ffmpeg: str  # of the FFmpeg inside it
    encoders: tuple[str, ...]  # of those that lipdub may choose
    missing: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FFmpeg:
    """The program that re-wraps streams."""

    path: Path
    version: str
    missing: tuple[str, ...]  # encoders and options that it lacks
    faults: tuple[str, ...]  # what it was seen to do wrong


def pyav() -> PyAV:
    """Look at the installed PyAV."""
    encoders = sorted({name for names in ENCODERS.values() for name in names})
    return PyAV(
        version=av.__version__,
        ffmpeg=av.ffmpeg_version_info,
        encoders=tuple(name for name in encoders if name in av.codecs_available),
        missing=tuple(name for name in encoders if name not in av.codecs_available),
    )


def ffmpeg(config: MediaConfig | None = None) -> FFmpeg:
    """Look at the ffmpeg that the remux runs.

    Args:
        config: may name another than the usual one.

    Raises:
        SetupError: there is none, or it does not run.
    """
    path = chosen_binary(config)
    version, lacks = version_of(path), missing(path)
    return FFmpeg(path=path, version=version, missing=lacks, faults=() if lacks else misbehaves(path))
