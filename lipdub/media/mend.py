"""Recordings whose clock begins anew, as where two were joined: written again on one clock, nothing decoded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lipdub.config import MediaConfig
from lipdub.errors import InputError, OutputError
from lipdub.media.clocks import JUMP_S, Clock
from lipdub.media.ffmpeg import ffmpeg_binary, run
from lipdub.media.probe import FORMATS, MediaInfo, file_url, probe, read_clocks

_MUXERS = {"mpegts": "mpegts", "flv": "flv", "mpeg": "vob"}  # by demuxer; all else goes into Matroska


def on_one_clock(
    video: Path, place: Callable[[str], Path], config: MediaConfig
) -> tuple[Path, dict[int, Clock], list[str]]:
    """The video, or a copy of it whose clock only goes forward.

    Args:
        video: the source.
        place: gives the path of a file that may be written, for a name.
        config: which ffmpeg.

    Returns:
        The file to read from, the clocks of its streams, and what was mended, one sentence each.

    Raises:
        InputError: the clock goes back in a way that cannot be mended; says where.
    """
    info, clocks = probe(video, config), read_clocks(video)
    joints = _joints(info, clocks)
    if not joints:
        return video, clocks, []
    where = "; ".join(f"{clock.joint_s:.3f} s ({clock.jump_s:.3f} s back)" for clock in joints.values())
    target = place("one_clock")
    argv = [str(ffmpeg_binary(config)), "-hide_banner", "-nostdin", "-nostats", "-v", "error", "-y"]
    argv += ["-format_whitelist", FORMATS, "-protocol_whitelist", "file,pipe", "-i", file_url(video), "-map", "0"]
    argv += ["-c", "copy", "-f", _MUXERS.get(info.format.partition(",")[0], "matroska"), file_url(target)]
    left: dict[int, Clock] = joints
    try:
        run(argv, config)
        clocks = read_clocks(target)
        left = _joints(probe(target, config), clocks)
    except OutputError:
        pass
    if left:
        raise InputError(
            f"{video}: the clock of stream {next(iter(left))} goes back at {where}",
            "cut the video there, or write it anew: ffmpeg -i FILE -c:v libx264 -crf 12 -c:a flac WHOLE.mkv",
        )
    return target, clocks, [f"the video's clock goes back at {where}: what follows is put behind what is before"]


def _joints(info: MediaInfo, clocks: dict[int, Clock]) -> dict[int, Clock]:
    """The clocks of the picture and of sounds that go back, by stream."""
    indices = [*([info.video.index] if info.video is not None else []), *(each.index for each in info.audio)]
    known = {index: clocks[index] for index in indices if index in clocks}
    return {index: clock for index, clock in known.items() if clock.jump_s > JUMP_S}
