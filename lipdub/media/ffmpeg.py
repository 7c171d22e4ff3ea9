"""The FFmpeg program that remuxes streams: the tested one that is installed with lipdub, or one named by the user.

An ffmpeg on PATH is never used, so that two machines with the same lipdub make the same file.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe

from lipdub.config import MediaConfig
from lipdub.errors import InputError, OutputError, ResourceError, SetupError
from lipdub.media.containers import CONTAINERS
from lipdub.media.probe import FORMATS, file_url

VARIABLE = "LIPDUB_FFMPEG"
QUIET = ("-hide_banner", "-nostdin", "-nostats", "-v", "error", "-y")
READING = {"format_whitelist": FORMATS, "protocol_whitelist": "file,pipe"}  # options of an input
_TIMEOUT_S = 30.0
# What is asked of FFmpeg's muxers and filters: the help page that lists it, and the words to be found there.
_ABILITIES = {"muxer=mp4": ("movie_timescale", "use_metadata_tags"), "bsf=noise": ("-drop",)}
_RATE, _SECONDS, _CUT_S = 48_000, 1.0, 0.5  # of the sound that another FFmpeg has to copy and cut
_CLOSE_S = 0.05  # two packets of that sound
# How FFmpeg says that it is an input, and which, that it cannot read on.
_DAMAGE = re.compile(r"\[in#(\d+)/[^]]*\] (corrupt input packet in stream \d+|[^\n]*Invalid data found[^\n]*)")
_UNDECODED = re.compile(r"\[[avs]ist#(\d+):[^\n]*Decode error rate")  # likewise, that hardly a packet is whole
# What is said once a reason was given: that a task ended, with which code.
_ECHO = re.compile(r"Task finished with error code|Terminating thread with return code|Conversion failed")
_REMEDY = f"take it out of {VARIABLE} and media.ffmpeg: lipdub then uses imageio-ffmpeg's, which is tested"


def ffmpeg_binary(config: MediaConfig | None = None) -> Path:
    """The ffmpeg of imageio-ffmpeg, unless `config.ffmpeg` or the variable LIPDUB_FFMPEG names another.

    Raises:
        SetupError: it is not there, or the other one lacks something or copies wrongly: tried once a process.
    """
    path = chosen_binary(config)
    if _named_binary(config) and (lacks := inspect_binary(path).missing or inspect_binary(path).faults):
        raise SetupError(f"{path} cannot do what lipdub needs: {', '.join(lacks)}", _REMEDY)
    return path


def _named_binary(config: MediaConfig | None) -> str:
    return (config.ffmpeg if config is not None else "") or os.environ.get(VARIABLE, "")


def chosen_binary(config: MediaConfig | None = None) -> Path:
    """As `ffmpeg_binary`, without testing another ffmpeg.

    Raises:
        SetupError: none was asked for, and imageio-ffmpeg has none.
    """
    if other := _named_binary(config):
        return Path(other)
    named = os.environ.pop("IMAGEIO_FFMPEG_EXE", None)  # another program's choice, and unchecked
    try:
        return Path(get_ffmpeg_exe())
    except RuntimeError as error:
        remedy = f"install it: pip install imageio-ffmpeg; or name an ffmpeg in {VARIABLE}"
        raise SetupError("there is no ffmpeg", remedy) from error
    finally:
        if named is not None:
            os.environ["IMAGEIO_FFMPEG_EXE"] = named


@dataclass(frozen=True, kw_only=True)
class Program:
    """An ffmpeg."""

    path: Path
    version: str
    missing: tuple[str, ...]  # encoders and options that it lacks of what lipdub asks for
    faults: tuple[str, ...]  # what it was seen to do wrong; not tried where it lacks something


@cache
def inspect_binary(path: Path) -> Program:
    """Look at an ffmpeg.

    Raises:
        SetupError: it does not run.
    """
    version = _output_of(path, "-version").partition("\n")[0].removeprefix("ffmpeg version ").partition(" ")[0]
    there = {words[1] for line in _output_of(path, "-encoders").splitlines() if len(words := line.split()) > 1}
    kinds = CONTAINERS.values()
    lacks = sorted(({kind.fallback for kind in kinds} | {kind.text for kind in kinds if kind.text}) - there)
    for topic, options in _ABILITIES.items():
        page = _output_of(path, "-h", topic)
        lacks += [f"{topic} {word.removeprefix('-')}" for word in options if word not in page]
    faults = () if lacks else _misbehaviour(path)
    return Program(path=path, version=version, missing=tuple(lacks), faults=faults)


def _misbehaviour(path: Path) -> tuple[str, ...]:
    """Faults of an ffmpeg when it copies a second of audio as lipdub does; its version does not show them.

    FFmpeg 5.1 cuts such a copy by the wrong clock. Up to 7.0 a first packet before time 0 moves all other streams.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Two clocks that are not the sound's rate: Matroska's, and QuickTime's with priming before time 0.
        for name in ("tone.mka", "tone.m4a"):
            source, target = Path(folder) / name, Path(folder) / f"{name}.mp4"
            _write_tone(source)
            drop = f"noise=drop=gte(pts*tb\\,{_CUT_S})"
            argv: list[str | Path] = [path, *QUIET, "-copyts", "-i", source, "-map", "0:a"]
            argv += ["-c", "copy", "-bsf:a", drop]
            if abs(_end_of(argv, target) - _CUT_S) > _CLOSE_S:
                return (f"it does not cut a copy of {source.suffix} in place",)
        target = Path(folder) / "tone.mkv"
        argv = [path, *QUIET, "-copyts", "-i", Path(folder) / "tone.m4a"]
        argv += ["-map", "0:a", "-c:a:0", "copy", "-map", "0:a", "-c:a:1", "pcm_s16le"]
        if abs(_end_of(argv, target, stream=1) - _SECONDS) > 0.01:
            return ("it moves the other streams when it copies AAC into Matroska",)
    return ()


def reading(path: Path, *, demuxers: str = "", protocols: str = "") -> list[str]:
    """FFmpeg's options that open an input, by its absolute name and with the demuxers and protocols that we trust.

    Args:
        path: the file.
        demuxers: others that may read it, with commas between them.
        protocols: likewise.
    """
    more = {"format_whitelist": demuxers, "protocol_whitelist": protocols}
    trusted = [(f"-{key}", ",".join(filter(None, (value, more[key])))) for key, value in READING.items()]
    return [*(word for pair in trusted for word in pair), "-i", file_url(path)]


def run(words: Iterable[str], config: MediaConfig) -> None:
    """Run FFmpeg to its end; it ends with us.

    Args:
        words: its arguments, which follow QUIET.
        config: which ffmpeg, and how much of its words goes into a message.

    Raises:
        InputError: it says that an input is damaged, also where it went on.
        OutputError: it failed.
        ResourceError: the disk is full.
        SetupError: it does not start.
    """
    argv = [str(ffmpeg_binary(config)), *QUIET, *words]
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0
        )
    except OSError as error:
        raise SetupError(f"cannot start {argv[0]}: {error.strerror}", "install ffmpeg or imageio-ffmpeg") from error
    try:
        _, stderr = process.communicate()  # reads until the end, so that FFmpeg never waits for us
    except BaseException:  # Ctrl-C or a signal's SystemExit: no child may outlive us
        process.kill()
        process.communicate()
        raise
    text = stderr.decode("utf-8", "replace").strip()
    inputs = [word.removeprefix("file:") for flag, word in pairwise(argv) if flag == "-i"]
    if damage := _DAMAGE.search(text):
        raise InputError(
            f"{inputs[int(damage[1])]} is damaged: {damage[2]}",
            "get the file again; where only its old sound is damaged, leave that out with --original-audio drop",
        )
    if process.returncode == 0:
        return
    if undecoded := _UNDECODED.search(text):
        raise InputError(f"{inputs[int(undecoded[1])]} cannot be decoded", "get the file again, or give another")
    words = "\n".join(_reason_first(text.splitlines(), config.error_lines)) or f"exit code {process.returncode}"
    if "No space left on device" in words:
        raise ResourceError("the disk is full", "make room, or write to another disk")
    raise OutputError(f"FFmpeg could not write the output:\n{words}", "choose another container for the output")


def _reason_first(lines: list[str], limit: int) -> list[str]:
    """First lines of FFmpeg's messages, without those of its threads about each other's end."""
    telling = [line for line in lines if not _ECHO.search(line)]
    return (telling or lines)[:limit]


def _write_tone(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=_RATE, layout="mono")
        wave = np.sin(np.arange(round(_SECONDS * _RATE), dtype=np.float32) / 20)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = _RATE, 0, Fraction(1, _RATE)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _end_of(argv: Iterable[str | Path], target: Path, stream: int = 0) -> float:
    """When a sound of the file that a command makes is over, in seconds; 0 where it makes none."""
    done = subprocess.run(
        [*map(str, argv), str(target)], stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S
    )
    if done.returncode or not target.exists():
        return 0.0
    with av.open(str(target)) as container:
        sound = container.streams.audio[stream]
        ends = [p.pts + (p.duration or 0) for p in container.demux(sound) if p.pts is not None and p.size]
        return float(max(ends, default=0) * (sound.time_base or 0))


def _output_of(path: Path, *arguments: str) -> str:
    argv = [str(path), "-hide_banner", "-v", "quiet", *arguments]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"cannot run {path}: {error}", _REMEDY) from error
    if not done.stdout:
        raise SetupError(f"{path} gives no answer (exit code {done.returncode})", _REMEDY)
    return done.stdout
