"""Files that are whole, but say something else, written again before they are read; nothing is decoded.

Recordings whose clock begins anew or leaps, as where two were joined, are put on one clock. Sounds that were written
into a pipe, in formats of which FFmpeg reads nothing then, or not all, get the length of their samples.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lipdub.config import MediaConfig
from lipdub.errors import InputError, OutputError
from lipdub.media.clocks import JUMP_S, Clock
from lipdub.media.ffmpeg import ffmpeg_binary, run
from lipdub.media.probe import FORMATS, MediaInfo, file_url, probe, read_clocks

_W64 = bytes.fromhex("2e91cf11a5d628db04c10000"), bytes.fromhex("f3acd3118cd100c04f8edb8a")  # of riff, of other chunks
_UNKNOWN_LENGTHS = (0, (1 << 32) - 1)  # and all that no disc holds
_FREE = ("mpegts", "mpeg")  # clocks that mean nothing behind a joint; FFmpeg joins them
_SYNC, _PADDING = 0x47, 8191  # of a transport stream: first byte of each packet, packets that hold nothing
_CLOSE = 4  # packets
_LEAP_S = 10.0  # from which on FFmpeg does
_MUXERS = {"mpegts": "mpegts", "flv": "flv", "mpeg": "vob"}  # by demuxer; all else goes into Matroska


def on_one_clock(
    video: Path, place: Callable[[str], Path], config: MediaConfig
) -> tuple[Path, dict[int, Clock], list[str]]:
    """The video, or a copy of it whose clock only goes forward, and no further than is recorded.

    A transport stream's counters begin anew at a joint, too, so that whole packets there are marked as incomplete; the
    copy has no such marks. Where its pictures are in truth not whole, their decoder says so.

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
    joints, leap = _joints(info, clocks), _leap(info, clocks)
    joined = leap is not None or _joined(video, info, clocks)
    if not joints and not joined:
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
    notes = [f"the video's clock goes back at {where}: what follows is put behind what is before"] if joints else []
    if joined and leap is None and not joints:
        notes.append("the video was joined from several recordings; they are read as one")
    if leap is not None:
        what = "joined: what follows is put behind what is before"
        if max(clock.leap_s for clock in clocks.values()) > leap.leap_s / 2:
            what = "nothing was recorded: the picture before is shown"
        notes.append(f"the video's clock leaps by {leap.leap_s:.3f} s at {leap.leap_at_s:.3f} s; {what}")
    return target, clocks, notes


def _joints(info: MediaInfo, clocks: dict[int, Clock]) -> dict[int, Clock]:
    """The clocks of the picture and of sounds that go back, by stream."""
    return {index: clock for index, clock in _main(info, clocks).items() if clock.jump_s > JUMP_S}


def _leap(info: MediaInfo, clocks: dict[int, Clock]) -> Clock | None:
    """The picture's clock, where it and those of all sounds leap in a way that only a joint explains."""
    known = [*_main(info, clocks).values()]
    if not known or info.format not in _FREE or min(clock.leap_s for clock in known) < JUMP_S:
        return None
    far = len(known) > 1 and min(clock.leap_s for clock in known) > _LEAP_S
    return known[0] if far or any(clock.torn for clock in known) else None


def _joined(video: Path, info: MediaInfo, clocks: dict[int, Clock]) -> bool:
    """Whether packets are marked as incomplete because recordings, whose counters begin anew, were put together.

    Where packets were lost, counters break off anywhere. At a joint, every one of them goes on with the beginning of a
    picture, sound or table, and behind a new table of programs, or just before it.
    """
    if info.format != "mpegts" or all(clock.damaged_s is None for clock in _main(info, clocks).values()):
        return False
    data = np.memmap(video, np.uint8, "r")
    for size, start in ((188, 0), (192, 4)):  # the second: camcorders, discs
        n = (len(data) - start) // size
        heads = np.array(data[start : start + n * size].reshape(n, size)[:, :6])
        if n > 1 and (heads[:, 0] == _SYNC).all():
            return _begin_anew(heads)
    return False


def _begin_anew(heads: NDArray[np.uint8]) -> bool:
    """Whether all counters that break off begin anew, that of the tables too.

    Args:
        heads: first bytes of each packet, (n, 6).
    """
    ids = (heads[:, 1] & 31).astype(np.uint16) << 8 | heads[:, 2]
    begins, full = (heads[:, 1] & 64) > 0, (heads[:, 3] & 16) > 0
    signalled = ((heads[:, 3] & 32) > 0) & (heads[:, 4] > 0) & ((heads[:, 5] & 128) > 0)
    tables = np.flatnonzero(ids == 0)
    anew = False
    for each in np.unique(ids[ids != _PADDING]):
        places = np.flatnonzero((ids == each) & full)
        steps = np.diff(heads[places, 3] & 15) % 16  # of 0: a packet may be sent twice
        broken = (steps > 1) & ~signalled[places[1:]]
        before, after = places[:-1][broken], places[1:][broken]
        behind_table = np.searchsorted(tables, after + _CLOSE) > np.searchsorted(tables, before, "right")
        if not (begins[after] & (behind_table | (each == 0))).all():
            return False
        anew = anew or (each == 0 and bool(broken.any()))
    return anew


def _main(info: MediaInfo, clocks: dict[int, Clock]) -> dict[int, Clock]:
    """The clocks of the picture and of sounds, by stream."""
    indices = [*([info.video.index] if info.video is not None else []), *(each.index for each in info.audio)]
    return {index: clocks[index] for index in indices if index in clocks}


def with_length(sound: Path, place: Callable[[str], Path]) -> Path:
    """A sound file, or a copy whose header says how long it is: RF64, Wave64 and CAF that were written into a pipe.

    Args:
        sound: any file.
        place: gives the path of a file that may be written, for a name.
    """
    if not sound.is_file():
        return sound
    size = sound.stat().st_size
    with sound.open("rb") as file:
        head = file.read(1 << 16)
    fields = _lengths(head, size)
    if not fields:
        return sound
    target = place("sound")
    shutil.copyfile(sound, target)
    with target.open("r+b") as file:
        for at, value in fields.items():
            file.seek(at)
            file.write(value)
    return target


def _lengths(head: bytes, size: int) -> dict[int, bytes]:
    """What is to be written where, in a file of `size` bytes; nothing if its header tells its length."""
    if head[:4] == b"RF64" and head[12:16] == b"ds64":
        at = _chunk(head, 12, b"data", 4, "little")
        if at and _unknown(int.from_bytes(head[28:36], "little")):
            return {20: (size - 8).to_bytes(8, "little"), 28: (size - at - 8).to_bytes(8, "little")}
    elif head[:16] == b"riff" + _W64[0]:
        at = _chunk(head, 40, b"data" + _W64[1], 8, "little")
        if at and _unknown(int.from_bytes(head[at + 16 : at + 24], "little")):
            return {16: size.to_bytes(8, "little"), at + 16: (size - at).to_bytes(8, "little")}
    elif head[:4] == b"caff":
        at = _chunk(head, 8, b"data", 8, "big")
        if at and _unknown(int.from_bytes(head[at + 4 : at + 12], "big")):
            return {at + 4: (size - at - 12).to_bytes(8, "big")}
    return {}


def _unknown(length: int) -> bool:
    return length in _UNKNOWN_LENGTHS or length >= 1 << 62


def _chunk(head: bytes, at: int, name: bytes, width: int, order: Literal["little", "big"]) -> int:
    """Where a chunk begins; 0 if it is not in `head`. A name is followed by a length of `width` bytes."""
    while at + len(name) + width <= len(head):
        if head.startswith(name, at):
            return at
        length = int.from_bytes(head[at + len(name) : at + len(name) + width], order)
        if len(name) == 16:  # Wave64 counts the chunk's head, too
            at += max(24, length + -length % 8)
        else:
            at += len(name) + width + length + (length % 2 if width == 4 else 0)
    return 0
