"""Which PyAV and which ffmpeg this machine has, and what they lack of what lipdub asks of them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import av

from lipdub.errors import SetupError
from lipdub.media.containers import CONTAINERS
from lipdub.media.encoders import ENCODERS
from lipdub.media.mux import ffmpeg_binary

PLAIN_ENCODER = ENCODERS["h264"][0]  # what any source can become; without it hardly a file can be written
_TIMEOUT_S = 30.0
# What the remux asks of FFmpeg's muxers and filters: the help page that lists it, and the word to be found there.
_ABILITIES = {"muxer=mp4": ("movie_timescale", "use_metadata_tags"), "bsf=noise": ("-drop",)}


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


def pyav() -> PyAV:
    """Look at the installed PyAV."""
    wanted = sorted({name for names in ENCODERS.values() for name in names})
    return PyAV(
        version=av.__version__,
        ffmpeg=av.ffmpeg_version_info,
        encoders=tuple(name for name in wanted if name in av.codecs_available),
        missing=tuple(name for name in wanted if name not in av.codecs_available),
    )


def ffmpeg() -> FFmpeg:
    """Look at the ffmpeg that the remux runs.

    Raises:
        SetupError: there is none, or it does not run.
    """
    path = ffmpeg_binary()
    version = _run(path, "-version").partition("\n")[0].removeprefix("ffmpeg version ").partition(" ")[0]
    there = {words[1] for line in _run(path, "-encoders").splitlines() if len(words := line.split()) > 1}
    kinds = CONTAINERS.values()
    wanted = {kind.fallback for kind in kinds} | {kind.text for kind in kinds if kind.text}
    missing = sorted(wanted - there)
    for topic, options in _ABILITIES.items():
        page = _run(path, "-h", topic)
        missing += [f"{topic} {word.removeprefix('-')}" for word in options if word not in page]
    return FFmpeg(path=path, version=version, missing=tuple(missing))


def _run(path: Path, *arguments: str) -> str:
    argv = [str(path), "-hide_banner", "-v", "quiet", *arguments]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"cannot run {path}: {error}", "install another ffmpeg, or take it off PATH") from error
    if not done.stdout:
        raise SetupError(f"{path} failed with exit code {done.returncode}", "install another ffmpeg")
    return done.stdout
