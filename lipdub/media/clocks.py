"""When the packets of each stream are shown: what a file holds, whatever its header says of lengths."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby, pairwise
from pathlib import Path

import av
from av.container import InputContainer

from lipdub.errors import InputError

JUMP_S = 0.1  # step back of a clock from which on it is another clock, as where two recordings were joined
_NEAR = 3  # packets around a joint that may be marked as damaged: the counters of a transport stream begin anew


@dataclass(frozen=True, kw_only=True)
class Clock:
    """The packets of one stream; times are in seconds on the file's timeline."""

    packets: int
    start_s: float  # of the first that is shown
    end_s: float  # of the last that is shown; equal to `start_s` where there is none
    repeats: int = 0  # packets that come no later than the one before
    jump_s: float = 0.0  # largest step back, of packets that are shown
    joint_s: float | None = None  # where that is
    leap_s: float = 0.0  # largest time in which there is no packet, though the one before is over
    leap_at_s: float | None = None  # where that begins
    torn: bool = False  # a packet at that place is marked as incomplete
    hidden: tuple[tuple[int, int], ...] = ()  # first and last of each run of packets that an edit list hides
    damaged_s: float | None = None  # of the first incomplete packet

    @property
    def shown(self) -> int:
        """Packets that are not hidden."""
        return self.packets - sum(last - first + 1 for first, last in self.hidden)


Packets = list[tuple[int | None, int | None, int, bool, bool]]  # pts, dts, duration, hidden, damaged


def clocks_in(container: InputContainer, path: Path, origin_s: float) -> dict[int, Clock]:
    """The clock of each stream that has packets, by its index; nothing is decoded.

    Args:
        container: an open file; it is at its end afterwards.
        path: its name.
        origin_s: the timestamp that is time 0.

    Raises:
        InputError: it cannot be read to its end.
    """
    found: dict[int, Packets] = {}
    try:
        for packet in container.demux():
            if packet.size:
                ticks = _signed(packet.duration or 0)
                row = (packet.pts, packet.dts, ticks, packet.is_discard, packet.is_corrupt)
                found.setdefault(packet.stream_index, []).append(row)
    except av.error.FFmpegError as error:
        raise InputError(f"{path} is damaged: {error}", "get the file again, or write it anew with FFmpeg") from error
    bases = {index: container.streams[index].time_base or Fraction(1, 1000) for index in found}
    return {index: _clock(rows, bases[index], origin_s) for index, rows in sorted(found.items())}


def _signed(ticks: int) -> int:
    """A duration; of the last packet of an Ogg file, FFmpeg gives what is to be cut off as 2**32 less that."""
    return ticks - (1 << 32) if (1 << 32) - (1 << 16) <= ticks < 1 << 32 else ticks


def _clock(rows: Packets, base: Fraction, origin_s: float) -> Clock:
    shown = [row for row in rows if not row[3] and (row[0] is not None or row[1] is not None)]
    starts = [row[0] if row[0] is not None else row[1] or 0 for row in shown]
    ends = [start + row[2] for start, row in zip(starts, shown, strict=True)]
    stamps = [(n, row[1]) for n, row in enumerate(rows) if row[1] is not None and not row[3]]
    repeats, jump, joint, leap, leap_end = 0, 0, None, 0, 0
    joints: list[int] = []
    for (last, before), (number, after) in pairwise(stamps):
        repeats += after <= before
        if (before - after) * base > JUMP_S:
            joints.append(number)
        if before - after > jump:
            jump, joint = before - after, before
        if after - before - rows[last][2] > leap:
            leap, leap_end = after - before - rows[last][2], number
    first_s = float(min(starts, default=0) * base) - origin_s
    marked = [n for n, row in enumerate(rows) if row[4]]
    damaged = [n for n in marked if all(abs(n - joint) > _NEAR for joint in joints)]
    hidden = [[n for n, _ in run] for off, run in groupby(enumerate(rows), lambda each: each[1][3]) if off]
    return Clock(
        packets=len(rows),
        start_s=first_s,
        end_s=max(first_s, float(max(ends, default=0) * base) - origin_s),
        repeats=repeats,
        jump_s=float(jump * base),
        joint_s=None if joint is None else float(joint * base) - origin_s,
        leap_s=float(leap * base),
        leap_at_s=float(((rows[leap_end][1] or 0) - leap) * base) - origin_s if leap else None,
        torn=leap > 0 and any(abs(n - leap_end) <= _NEAR for n in marked),
        hidden=tuple((run[0], run[-1]) for run in hidden),
        damaged_s=float((rows[damaged[0]][1] or 0) * base) - origin_s if damaged else None,
    )
