"""Cutting a piece of a video to new files, and writing a finished file to a pipe, both by FFmpeg's command line.

`config` names the ffmpeg, where it is not to be the usual one.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import IO

from lipdub.config import MediaConfig
from lipdub.errors import InputError, OutputError
from lipdub.media.ffmpeg import QUIET, ffmpeg_binary, reading, run
from lipdub.media.mend import sound_on_one_clock
from lipdub.media.probe import file_url, probe, read_clocks

_LATE_S = 0.1  # by which the first picture of a piece may come late
_PIECES = "frag_keyframe+empty_moov+default_base_moof+use_metadata_tags"  # a file that need not be sought in


def cut_video(source: Path, target: Path, start_s: float, length_s: float, config: MediaConfig | None = None) -> None:
    """Cut a piece of the picture losslessly, upright, with its first audio track; `target` ends in .mkv.

    Raises:
        InputError: FFmpeg cannot read it.
    """
    piece = ["-ss", f"{start_s:.6f}", "-t", f"{length_s:.6f}"]
    streams = ("-map", "0:v:0", "-map", "0:a:0?", "-sn", "-dn")
    lossless = ("-c:v", "libx264", "-qp", "0", "-preset", "ultrafast", "-c:a", "pcm_s16le")
    _run([*piece, *reading(source), *streams, *lossless, file_url(target)], source, config)
    picture = read_clocks(target).get(0)
    if start_s > 0 and (picture is None or picture.start_s > _LATE_S):  # where FFmpeg finds only a later key frame
        _run([*reading(source), *piece, *streams, *lossless, file_url(target)], source, config)


def cut_sound(source: Path, target: Path, start_s: float, length_s: float, config: MediaConfig | None = None) -> None:
    """Cut a piece of the first audio track, behind its end silence; `target` ends in .wav.

    Raises:
        InputError: FFmpeg cannot read it.
    """
    whole, _ = sound_on_one_clock(source, lambda name: target.with_suffix(f".{name}"), config or MediaConfig())
    info = probe(whole)
    first_pts = round(info.origin_s * info.audio[0].sample_rate) if info.audio else 0
    chain = f"aresample=async=1:first_pts={first_pts},asetpts=PTS-STARTPTS,apad,"
    chain += f"atrim=start={start_s:.6f}:duration={length_s:.6f},asetpts=PTS-STARTPTS"
    words = ["-copyts", *reading(whole), "-map", "0:a:0", "-af", chain, "-c:a", "pcm_s24le", file_url(target)]
    _run(words, source, config)


def pour(source: Path, pipe: IO[bytes], config: MediaConfig | None = None) -> None:
    """Write an MP4 file, its pictures, sounds, subtitles, chapters and tags, into a pipe, as a fragmented MP4.

    Raises:
        OutputError: FFmpeg failed.
        BrokenPipeError: whoever read the pipe is gone.
    """
    argv = [str(ffmpeg_binary(config)), *QUIET, "-i", file_url(source), "-map", "0", "-map", "-0:d"]
    argv += ["-c", "copy", "-copyts", "-movflags", _PIECES, "-f", "mp4", "pipe:1"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.PIPE, check=False)
    words = done.stderr.decode("utf-8", "replace").strip()
    if "Broken pipe" in words:
        raise BrokenPipeError(words)
    if done.returncode:
        raise OutputError(f"FFmpeg could not write to the pipe: {words}", "write to a file instead")


def _run(words: list[str], source: Path, config: MediaConfig | None) -> None:
    try:
        run(words, config or MediaConfig())
    except OutputError as error:
        raise InputError(f"cannot cut {source}: {error.what.partition(chr(10))[2]}", "check the file") from error
