"""When the packets of each stream are shown: what a file holds, whatever its header says of lengths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple

import av
from av.container import InputContainer

from lipdub.errors import InputError

JUMP_S = 0.1  # step back of a clock from which on it is another clock, as where two recordings were joined
_JOINT_PACKETS = 3  # around a joint that may be marked as damaged: the counters of a transport stream begin anew


@dataclass(frozen=True, kw_only=True)
class Part:
    """Packets whose clock does not go back."""

    first: int  # packet
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The packets of one stream; times are in seconds on the file's timeline."""

    packets: int
    start_s: float  # of the first that is shown
    end_s: float  # of the last that is shown; equal to `start_s` where there is none
    inside_s: float = 0.0  # start of the first that is shown and does not begin before time 0
    untimed: int = 0  # packets without any time, as FFmpeg gives them where a Matroska picture begins before 0
    repeats: int = 0  # packets that come no later than the one before
    jump_s: float = 0.0  # largest step back, of packets that are shown
    joint_s: float | None = None  # where that is
    parts: tuple[Part, ...] = ()  # between steps back of over JUMP_S
    leap_s: float = 0.0  # largest time in which there is no packet, though the one before is over
    leap_at_s: float | None = None  # where that begins
    torn: bool = False  # a packet at that place is marked as incomplete
    hidden: tuple[tuple[int, int], ...] = ()  # first and last of each run of packets that an edit list hides
    damaged_s: float | None = None  # of the first incomplete packet
    broken_off: bool = False  # that is its last packet

    @property
    def n_shown(self) -> int:
        """How many packets are not hidden."""
        return self.packets - sum(last - first + 1 for first, last in self.hidden)


class _Packet(NamedTuple):
    """What a packet's header says; times in ticks of its stream."""

    pts: int | None
    dts: int | None
    duration: int
    hidden: bool = False  # by an edit list
    damaged: bool = False

    @property
    def start(self) -> int:
        """When it is shown, or decoded where that is all that is known; 0 where neither is."""
        return self.pts if self.pts is not None else self.dts or 0


def clocks_in(container: InputContainer, path: Path, origin_s: float) -> dict[int, Clock]:
    """The clock of each stream that has packets, by its index; nothing is decoded.

    Args:
        container: an open file; it is at its end afterwards.
        path: its name.
        origin_s: the timestamp that is time 0.

    Raises:
        InputError: it cannot be read to its end.
    """
    packets: dict[int, list[_Packet]] = {}
    try:
        for packet in container.demux():
            if packet.size:
                duration = _signed_duration(packet.duration or 0)
                row = _Packet(packet.pts, packet.dts, duration, packet.is_discard, packet.is_corrupt)
                packets.setdefault(packet.stream_index, []).append(row)
    except av.error.FFmpegError as error:
        raise InputError(f"{path} is damaged: {error}", "get the file again, or write it anew with FFmpeg") from error
    time_bases = {index: container.streams[index].time_base or Fraction(1, 1000) for index in packets}
    return {index: _clock_of(rows, time_bases[index], origin_s) for index, rows in sorted(packets.items())}


def _parts(packets: list[_Packet], joints: list[int], time_base: Fraction, origin_s: float) -> Iterator[Part]:
    """The packets between `joints`, which are the first ones of a new clock."""
    usual = sorted(packet.duration for packet in packets)[len(packets) // 2]
    for first, stop in pairwise([0, *joints, len(packets)]):
        part = packets[first:stop]
        start = min(packet.start for packet in part)
        end = max(packet.start + (packet.duration or usual) for packet in part)
        yield Part(first=first, start_s=float(start * time_base) - origin_s, end_s=float(end * time_base) - origin_s)


def _signed_duration(ticks: int) -> int:
    """A duration; of the last packet of an Ogg file, FFmpeg gives what is to be cut off as 2**32 less that."""
    return ticks - (1 << 32) if (1 << 32) - (1 << 16) <= ticks < 1 << 32 else ticks


def _clock_of(packets: list[_Packet], time_base: Fraction, origin_s: float) -> Clock:
    """The clock of one stream from all of its packets, in the file's order."""

    def seconds(ticks: int) -> float:
        return float(ticks * time_base) - origin_s

    shown = [each for each in packets if not each.hidden and (each.pts is not None or each.dts is not None)]
    decoded = [(n, each.dts) for n, each in enumerate(packets) if each.dts is not None and not each.hidden]
    repeats, jump, joint, leap, leap_end = 0, 0, None, 0, 0
    joints: list[int] = []
    for (last, before), (number, after) in pairwise(decoded):
        repeats += after <= before
        if (before - after) * time_base > JUMP_S:
            joints.append(number)
        if before - after > jump:
            jump, joint = before - after, before
        if after - before - packets[last].duration > leap:
            leap, leap_end = after - before - packets[last].duration, number
    start_s = seconds(min((each.start for each in shown), default=0))
    inside_s = min((start for each in shown if (start := seconds(each.start)) >= 0), default=start_s)
    corrupt = [n for n, each in enumerate(packets) if each.damaged]
    damaged = [n for n in corrupt if all(abs(n - joint) > _JOINT_PACKETS for joint in joints)]
    runs = [(hidden, [n for n, _ in run]) for hidden, run in groupby(enumerate(packets), lambda each: each[1].hidden)]
    return Clock(
        packets=len(packets),
        untimed=sum(each.pts is None and each.dts is None for each in packets),
        start_s=start_s,
        inside_s=inside_s,
        end_s=max(start_s, seconds(max((each.start + each.duration for each in shown), default=0))),
        repeats=repeats,
        jump_s=float(jump * time_base),
        joint_s=None if joint is None else seconds(joint),
        parts=tuple(_parts(packets, joints, time_base, origin_s)),
        leap_s=float(leap * time_base),
        leap_at_s=seconds((packets[leap_end].dts or 0) - leap) if leap else None,
        torn=leap > 0 and any(abs(n - leap_end) <= _JOINT_PACKETS for n in corrupt),
        hidden=tuple((run[0], run[-1]) for hidden, run in runs if hidden),
        broken_off=damaged == [len(packets) - 1],
        damaged_s=seconds(packets[damaged[0]].dts or 0) if damaged else None,
    )
