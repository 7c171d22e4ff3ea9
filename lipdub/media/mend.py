"""Recordings whose clock begins anew or leaps, as where two were joined, put on one clock; nothing is decoded."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lipdub.config import MediaConfig
from lipdub.errors import InputError, OutputError
from lipdub.media.boxes import top_boxes
from lipdub.media.clocks import JUMP_S, Clock
from lipdub.media.ffmpeg import reading, run
from lipdub.media.probe import MediaInfo, file_url, probe, read_clocks
from lipdub.media.streamed import copy_with_length

_FREE = ("mpegts", "mpeg")  # clocks that mean nothing behind a joint; FFmpeg joins them
_SYNC, _PADDING = 0x47, 8191  # of a transport stream: first byte of each packet, packets that hold nothing
_CLOSE = 4  # packets
_LONGEST_SIGN = 24  # bytes
_LEAP_S = 10.0  # from which on FFmpeg does
_WAV = ("-c:a", "pcm_f32le", "-f", "wav", "-rf64", "auto")
_REORDERED = 4  # pictures by which decoding is ahead of showing, at most
_SHRUNK = 0.9  # share of the parts' time that a copy has at least
_TAIL_S = 0.25  # by which a sound's packets may go on behind the end that its header states: some packets of any codec
_END_S = 1.0  # before the end of a file, where its streams end
# How files begin that FFmpeg reads up to the first one's end, or not rightly, where others of the kind lie behind it.
_ID3 = re.compile(rb"ID3[\x02-\x04]\x00[\x00-\xf0][\x00-\x7f]{4}")  # the tags of an MP3
_SIGNS = tuple(
    re.compile(sign, re.DOTALL)
    for sign in (
        rb"R(?:IFF|IFX|F64)....WAVE[\w ]{4}",
        rb"FORM....AIF[CF]\w{4}",
        rb"riff\x2e\x91\xcf\x11\xa5\xd6",  # Wave64
        rb"caff\x00\x01\x00\x00desc",
        rb"\.snd\x00\x00......\x00\x00\x00[\x01-\x1b]",
        rb"TTA1[\x01\x03]\x00.\x00.\x00",
        rb"#!AMR(?:-WB)?\n",
        rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9",  # ASF
    )
)
_MUXERS = {
    "mpegts": "mpegts",
    "flv": "flv",
    "mpeg": "vob",
    "mov": "mp4",
    "avi": "avi",
}  # by demuxer; all else goes into Matroska


def on_one_clock(
    video: Path, place: Callable[[str], Path], config: MediaConfig
) -> tuple[Path, dict[int, Clock], list[str]]:
    """The video, or a copy of it whose clock only goes forward, and no further than is recorded, without a torn end.

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
    broken_s = _broken_off(info, clocks, config)
    untimed, wrapped = _untimed(info, clocks), _wrapped(info)
    notes = [] if joints else _unread(video)
    repeats = max((clock.repeats for clock in _main(info, clocks).values()), default=0)
    if (info.format == "mxf" and repeats > 1) or (info.format == "ogg" and joints):  # decoders refuse its new headers
        raise InputError(
            f"{video}: packets repeat an earlier time, as where files were joined byte by byte",
            "dub the parts one by one, or join them with FFmpeg's concat demuxer",
        )
    if not joints and not joined and broken_s is None and not untimed and not wrapped:
        return video, clocks, notes
    where = "; ".join(f"{clock.joint_s:.3f} s ({clock.jump_s:.3f} s back)" for clock in joints.values())
    target = place("one_clock")
    words = ["-fflags", "+discardcorrupt"] if broken_s is not None else ["-fflags", "+genpts"] if untimed else []
    if joints and len(starts := _starts(video)) > 1:  # FFmpeg hides pictures behind a joint of MP4 in fragments
        words += [*_reading_parts(video, starts, place("parts")), "-map", "0", "-c", "copy"]
    else:
        words += [*reading(video), "-map", "0", "-c", "copy", *([] if info.format in _FREE else _shifts(info, clocks))]
    words += ["-f", _MUXERS.get(info.format.partition(",")[0], "matroska"), file_url(target)]
    left: dict[int, Clock] = joints
    try:
        run(words, config)
        made, clocks = probe(target, config), read_clocks(target)
        left = _joints(made, clocks) or _shrunk(joints, _main(made, clocks))
    except OutputError:
        if not joints:
            return video, clocks, notes
    if left:
        raise InputError(
            f"{video}: the clock of stream {next(iter(left))} goes back at {where}",
            "cut the video there, or write it anew: ffmpeg -i FILE -c:v libx264 -crf 12 -c:a flac WHOLE.mkv",
        )
    if joints:
        notes.append(f"the video's clock goes back at {where}: what follows is put behind what is before")
    if broken_s is not None:
        notes.append(f"the recording breaks off at {broken_s:.3f} s: what is incomplete there is left out")
    if untimed:
        notes.append(f"{untimed} frames begin before time 0: all is moved, so that the video begins there")
    if joined and leap is None and not joints:
        notes.append("the video was joined from several recordings; they are read as one")
    if leap is not None:
        what = "joined: what follows is put behind what is before"
        if max(clock.leap_s for clock in clocks.values()) > leap.leap_s / 2:
            what = "nothing was recorded: the picture before is shown"
        notes.append(f"the video's clock leaps by {leap.leap_s:.3f} s at {leap.leap_at_s:.3f} s; {what}")
    return target, clocks, notes


def sound_on_one_clock(audio: Path, place: Callable[[str], Path], config: MediaConfig) -> tuple[Path, list[str]]:
    """The sound, or a copy that can be read to its end: with a length, and decoded where several sounds were joined.

    Args:
        audio: the speech track.
        place: gives the path of a file that may be written, for a name.
        config: which ffmpeg.

    Returns:
        The file to read from, and what is said of it, one sentence each.

    Raises:
        InputError: it is no media file, or cannot be read to its end.
    """
    name, audio = audio.name, copy_with_length(audio, place("known"))
    info = probe(audio)
    if not info.audio:
        return audio, []
    notes = []
    if len(info.audio) > 1:
        notes.append(f"of the {len(info.audio)} sounds of {name}, the first is taken")
    first = info.audio[0]
    starts = _starts(audio, _ID3 if info.format == "mp3" else None)
    if len(starts) > 1:
        target, n = place("whole.wav"), len(starts)
        options = reading(audio, protocols="subfile")[:-1]
        inputs = [word for url in _part_urls(audio, starts) for word in (*options, url)]
        chain = "".join(f"[{k}:a:0]aformat=channel_layouts={first.layout}[a{k}];" for k in range(n))
        chain += "".join(f"[a{k}]" for k in range(n)) + f"concat=n={n}:v=0:a=1[all]"
        try:
            run([*inputs, "-filter_complex", chain, "-map", "[all]", *_WAV, file_url(target)], config)
            return target, [*notes, f"{name} was joined from {n} sounds: they are read one after another"]
        except (InputError, OutputError):
            if info.format != "mp3":  # of which all is read in any case: it may have two tags in front
                notes.append(f"what follows behind the first sound in {name} cannot be read: left out")
    clock = read_clocks(audio).get(first.index)
    longer = clock is not None and first.duration_known and clock.end_s - first.end_s > _TAIL_S
    if clock is None or (clock.jump_s <= JUMP_S and not longer):
        return audio, notes
    target = place("whole.wav")
    pauses = [] if clock.jump_s > JUMP_S else ["-af", "aresample=async=1:first_pts=0"]  # which it keeps
    run([*reading(audio), *pauses, "-map", "0:a:0", *_WAV, file_url(target)], config)
    return target, [*notes, f"{name} was joined from several sounds: they are read one after another"]


def _untimed(info: MediaInfo, clocks: dict[int, Clock]) -> int:
    """How many pictures of a Matroska file have no time, as FFmpeg reads those before 0."""
    if info.video is None or info.video.index not in clocks or "matroska" not in info.format:
        return 0
    return clocks[info.video.index].untimed


def _wrapped(info: MediaInfo) -> bool:
    """Whether the clock of a transport or program stream runs over: FFmpeg then lets it begin before 0.

    The file that the picture is written into hides what is before 0.
    """
    return info.video is not None and info.format in _FREE and info.video.start_pts < 0


def _unread(video: Path) -> list[str]:
    """What is said of a file behind the end of which another of its kind follows: no player shows that."""
    more = len(_starts(video)) - 1
    files = "another file follows" if more == 1 else f"{more} other files follow"
    return [f"behind the end of the video {files}, which players do not show: left out"] * (more > 0)


def _starts(path: Path, sign: re.Pattern[bytes] | None = None) -> list[int]:
    """Where files of one kind begin that were put together byte by byte; [0] for kinds of which FFmpeg reads all.

    Args:
        path: the file.
        sign: how each begins, if not in one of _SIGNS.
    """
    with path.open("rb") as file:
        head = file.read(_LONGEST_SIGN)
        if head[4:8] == b"ftyp":
            return [at for kind, at, _ in top_boxes(file) if kind == b"ftyp"]
        sign = next((each for each in _SIGNS if each.match(head)), sign)
        if sign is None:
            return [0]
        starts, at, block = {0}, 0, head
        while block:
            starts |= {at + match.start() for match in sign.finditer(block)}
            at += max(0, len(block) - _LONGEST_SIGN)
            more = file.read(1 << 20)
            block = block[-_LONGEST_SIGN:] + more if more else b""
    return sorted(starts)


def _part_urls(path: Path, starts: Sequence[int]) -> list[str]:
    """What FFmpeg calls each part of a file, with the protocol `subfile`."""
    parts = pairwise([*starts, path.stat().st_size])
    return [f"subfile,,start,{start},end,{end},,:{file_url(path)}" for start, end in parts]


def _reading_parts(path: Path, starts: Sequence[int], listing: Path) -> list[str]:
    """FFmpeg's options that read the parts of a file one after another; writes `listing`."""
    lines = ["file '" + url.replace("'", r"'\''") + "'" for url in _part_urls(path, starts)]
    listing.write_bytes(os.fsencode("\n".join(["ffconcat version 1.0", *lines])))
    return ["-safe", "0", *reading(listing, demuxers="concat", protocols="subfile")]


def _joints(info: MediaInfo, clocks: dict[int, Clock]) -> dict[int, Clock]:
    """The clocks of the picture and of sounds that go back, by stream."""
    return {index: clock for index, clock in _main(info, clocks).items() if clock.jump_s > JUMP_S}


def _broken_off(info: MediaInfo, clocks: dict[int, Clock], config: MediaConfig) -> float | None:
    """When a recording breaks off amid its last packet; None where it does not, or where more than that is missing."""
    known = _main(info, clocks)
    damaged = [clock for clock in known.values() if clock.damaged_s is not None]
    if info.video is None or info.video.index not in known or not damaged:
        return None
    shown, end_s = known[info.video.index], max(clock.end_s for clock in known.values())
    missing_s = info.video.duration_s - (shown.end_s - shown.start_s)
    at_end = all(clock.broken_off and end_s - (clock.damaged_s or 0.0) < _END_S for clock in damaged)
    return damaged[0].damaged_s if at_end and missing_s < config.max_missing_s else None


def _shifts(info: MediaInfo, clocks: dict[int, Clock]) -> list[str]:
    """Options that put each part of a recording behind the one before, all streams by the same time.

    FFmpeg does so for transport streams alone; elsewhere it presses what comes after a joint to one tick each. Where a
    format keeps no decoding times, those behind a joint are guessed wrongly, and made anew.
    """
    joined = {index: clock.parts for index, clock in clocks.items() if len(clock.parts) > 1}
    if {*_main(info, clocks)} - {*joined} or len({len(parts) for parts in joined.values()}) > 1:
        return []
    by_s = [0.0]
    for before, after in pairwise(zip(*joined.values(), strict=True)):
        end_s = max(part.end_s for part in before) + by_s[-1]
        by_s.append(end_s - min(part.start_s for part in after))
    words = ["-copyts", "-copyinkf"]
    for index, parts in joined.items():
        shift, dts = "0", "DTS"
        firsts = [*(part.first for part in parts), clocks[index].packets]
        for part, behind, more_s in list(zip(parts, firsts[1:], by_s, strict=True))[1:]:
            step_s = (part.end_s - part.start_s) / (behind - part.first)
            shift = f"if(gte(N\\,{part.first})\\,{more_s:.6f}\\,{shift})"
            regular = f"round(({part.start_s + more_s:.6f}+(N-{part.first + _REORDERED})*{step_s:.6f})/TB)"
            dts = f"if(gte(N\\,{part.first})\\,max(PREV_OUTDTS+1\\,min(PTS+round({shift}/TB)\\,{regular}))\\,{dts})"
        if info.format == "flv" or info.video is None or index != info.video.index:
            dts = f"DTS+round({shift}/TB)"
        words += [f"-bsf:{index}", f"setts=pts=PTS+round({shift}/TB):dts={dts}"]
    return words


def _shrunk(before: dict[int, Clock], after: dict[int, Clock]) -> dict[int, Clock]:
    """Clocks of which a copy is too short: there, what follows a joint has no time of its own."""
    made = [clock.end_s - clock.start_s for clock in after.values()]
    lengths = {index: sum(part.end_s - part.start_s for part in clock.parts) for index, clock in before.items()}
    return {index: before[index] for index, length in lengths.items() if max(made, default=0.0) < _SHRUNK * length}


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
    for size, start in ((188, 0), (192, 4)):  # the second: camcorders, discs
        heads = _heads(video, size, start)
        if len(heads) > 1:
            return _begin_anew(heads)
    return False


def _heads(video: Path, size: int, start: int) -> NDArray[np.uint8]:
    """The first 6 bytes of each packet (n, 6); of one alone, where another does not begin as it should."""
    blocks = []
    with video.open("rb") as file:
        file.seek(start)
        while len(block := file.read(size << 18)) >= size:
            packets = np.frombuffer(block[: len(block) // size * size], np.uint8).reshape(-1, size)[:, :6]
            if (packets[:, 0] != _SYNC).any():
                return packets[:1]
            blocks.append(packets.copy())
    return np.concatenate(blocks) if blocks else np.empty((0, 6), np.uint8)


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
