"""Retiming: the picture is slowed or sped up by timestamps alone, so that sentences begin when a dub speaks them.

A time map is piecewise linear. Its knots are the starts and ends of sentences; its slopes, the factors by which the
picture is slowed, stay within [1 / limit, limit]. Where no such map meets every sentence, the sum of the distances
is the least possible (a linear program), and each sentence reports how far off it is.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import coo_array

from lipdub.config import MediaConfig
from lipdub.errors import InputError
from lipdub.media.containers import is_remade
from lipdub.media.kept import is_statistic
from lipdub.media.probe import codec_of, file_url, kind_of, open_input, origin, probe, require_video
from lipdub.media.sentences import Sentence

MIN_TICKS = 90_000  # a second: the coarsest clock of a retimed picture
_MIN_STEP_S = 0.02  # knots that are closer are one
_REMEDY = "write it anew: ffmpeg -i FILE -c:v libx264 -crf 12 -c:a flac WHOLE.mkv"
_START_WEIGHT, _END_WEIGHT, _SPEED_WEIGHT = 1.0, 0.2, 0.01  # of a sentence's start and end; of natural speed elsewhere


@dataclass(frozen=True)
class TimeMap:
    """From the video's timeline to the output's: linear between knots, at natural speed before and behind them."""

    source_s: NDArray[np.float64]  # (K,) rising
    output_s: NDArray[np.float64]  # (K,) rising

    def __call__(self, times_s: float) -> float:
        """When a moment of the video is shown; both in seconds."""
        first, last = self.source_s[0], self.source_s[-1]
        inside = float(np.interp(times_s, self.source_s, self.output_s))
        return inside + min(0.0, times_s - float(first)) + max(0.0, times_s - float(last))

    @property
    def speeds(self) -> NDArray[np.float64]:
        """Output over video time of each piece (K - 1,): above 1 is slower."""
        return np.diff(self.output_s) / np.diff(self.source_s)


def fit_times(
    sentences: Sequence[Sentence], start_s: float, end_s: float, limit: float, length_s: float | None = None
) -> TimeMap:
    """The time map that shows each sentence when the dub speaks it, as far as the limit allows.

    Args:
        sentences: in order; none for a map that only changes the length.
        start_s: when the video's first frame is shown, which stays.
        end_s: when its last frame is over.
        limit: how many times slower or faster the picture may run, at least 1.
        length_s: when the output is to be over; None: what follows the last sentence keeps its speed.

    Raises:
        InputError: a sentence begins behind the video's end.
    """
    for sentence in sentences:
        if sentence.source[0] >= end_s:
            raise InputError(
                f"a sentence begins at {sentence.source[0]:.2f} s, the video ends at {end_s:.2f} s",
                "give the sentences of this video",
            )
    knots: list[tuple[float, float | None, float]] = [(start_s, start_s, 0.0)]  # time, target time, weight
    for sentence, following in zip(sentences, [*sentences[1:], None], strict=False):
        knots.append((max(start_s, sentence.source[0]), sentence.target[0], _START_WEIGHT))
        stop = end_s if following is None else following.source[0]
        if sentence.source[1] < stop - _MIN_STEP_S and (following is None or sentence.target[1] < following.target[0]):
            knots.append((sentence.source[1], sentence.target[1], _END_WEIGHT))
    weight = _START_WEIGHT if length_s is not None else 0.0
    if length_s is None and sentences and sentences[-1].source[1] >= end_s - _MIN_STEP_S:
        length_s, weight = _end_of(sentences[-1], end_s), _END_WEIGHT
    knots.append((end_s, length_s, weight))
    distinct: list[tuple[float, float | None, float]] = [knots[0]]
    anchors: list[tuple[int, float, float]] = []  # knot, target time, weight
    for time_s, target_s, weight in knots[1:]:
        if time_s - distinct[-1][0] > _MIN_STEP_S:
            distinct.append((time_s, target_s, weight))
        if target_s is not None and weight:
            anchors.append((len(distinct) - 1, target_s + distinct[-1][0] - time_s, weight))
    times = np.array([time_s for time_s, _, _ in distinct])
    unanchored = [] if length_s is not None else [len(times) - 2]  # pieces that keep their speed if they can
    return TimeMap(times, _solve(times, anchors, unanchored, limit))


def _end_of(sentence: Sentence, end_s: float) -> float:
    """When the dub is as far in a sentence as the video is at its end; seconds."""
    (source_s, stop_s), (target_s, _) = sentence.source, sentence.target
    share = min(1.0, (end_s - source_s) / (stop_s - source_s))
    return target_s + share * (sentence.target[1] - target_s)


def _solve(
    times: NDArray[np.float64], anchors: Sequence[tuple[int, float, float]], unanchored: Sequence[int], limit: float
) -> NDArray[np.float64]:
    """Output times (K,) with the least weighted distance from `anchors`.

    Variables are the K times and one distance for each anchor and unanchored piece; the first time is fixed.
    """
    steps, count = np.diff(times), len(times)
    rows: list[tuple[int, int, float]] = []
    bounds: list[float] = []

    def at_most(terms: Sequence[tuple[int, float]], bound: float) -> None:
        rows.extend((len(bounds), column, value) for column, value in terms)
        bounds.append(bound)

    for k, step in enumerate(steps.tolist()):
        at_most([(k + 1, 1.0), (k, -1.0)], step * limit)
        at_most([(k + 1, -1.0), (k, 1.0)], -step / limit)
    cost = [0.0] * count
    for k, target_s, weight in anchors:
        at_most([(k, 1.0), (len(cost), -1.0)], target_s)
        at_most([(k, -1.0), (len(cost), -1.0)], -target_s)
        cost.append(weight)
    for k in unanchored:
        at_most([(k + 1, 1.0), (k, -1.0), (len(cost), -1.0)], float(steps[k]))
        at_most([(k + 1, -1.0), (k, 1.0), (len(cost), -1.0)], -float(steps[k]))
        cost.append(_SPEED_WEIGHT)
    row, column, value = (np.array(part) for part in zip(*rows, strict=True))
    matrix = coo_array((value, (row, column)), shape=(len(bounds), len(cost))).tocsr()
    ranges = [(float(times[0]), float(times[0])), *[(0.0, None)] * (len(cost) - 1)]
    solution = linprog(cost, A_ub=matrix, b_ub=bounds, bounds=ranges, method="highs")
    if solution.x is None:
        raise ValueError(f"no time map: {solution.message}")
    slopes = np.clip(np.diff(solution.x[:count]) / steps, 1 / limit, limit)  # to the last digit
    return times[0] + np.concatenate([[0.0], np.cumsum(slopes * steps)])


def copy_retimed(
    source: Path, target: Path, times: TimeMap, config: MediaConfig | None = None, *, name_audio: bool = True
) -> list[str]:
    """Write the picture, subtitles, attachments, cover art, chapters and tags of a video with new times.

    Packets are copied, nothing is decoded. `target` is QuickTime where the source is, else Matroska, or what takes the
    picture's codec.

    Args:
        source: the video; its clock only goes forward.
        target: the file to write.
        times: of the whole video.
        config: limits of `probe`.
        name_audio: whether audio that stays behind is named, too.

    Returns:
        What stays behind, one sentence each: sound, data, and streams that cannot be copied.

    Raises:
        InputError: the video cannot be read to its end.
    """
    info = require_video(probe(source, config))
    with open_input(source) as original:
        zero = origin(original)
        container = _container_for(original.streams[info.index], "mov" if "mov" in info.format else "matroska", source)
        mov = container == "mov"
        ticks = info.time_base.denominator * -(-MIN_TICKS // info.time_base.denominator)
        options = {"video_track_timescale": str(ticks), "movie_timescale": str(ticks)} if mov else {}
        with av.open(file_url(target), "w", format=container, options=options) as output:
            copies, left_behind = {}, []
            for stream in original.streams:
                kind = kind_of(stream)
                if kind not in ("video", "subtitle", "attachment", "picture") or (
                    kind == "video" and stream.index != info.index
                ):
                    if (kind != "audio" or name_audio) and not is_remade(stream, kind, len(original.chapters())):
                        left_behind.append(_left_behind(kind, stream.index))
                    continue
                try:
                    copy = output.add_stream_from_template(stream, opaque=True)  # no encoder of the codec is needed
                except ValueError:
                    left_behind.append(f"{kind} stream {stream.index} is left out: it cannot be copied with new times")
                    continue
                copy.metadata.update({k: v for k, v in stream.metadata.items() if not _is_outdated(k)})
                copy.disposition = stream.disposition
                copies[stream.index] = (kind, copy)
            output.metadata.update(original.metadata)
            output.set_chapters([_retime_chapter(each, times, zero) for each in original.chapters()])
            try:
                for packet in original.demux(*(original.streams[index] for index in copies)):
                    if not packet.size:
                        continue
                    kind, copy = copies[packet.stream_index]
                    if kind in ("video", "subtitle"):
                        _retime_packet(packet, times, zero, ticks)
                    packet.stream = copy
                    output.mux(packet)
            except av.error.FFmpegError as error:
                raise InputError(f"{source} cannot be copied with new times: {error}", _REMEDY) from error
    return left_behind


def _container_for(stream: av.stream.Stream, usual: str, source: Path) -> str:
    """The format that a stream can be copied into: `usual`, if it takes the codec.

    Raises:
        InputError: none takes it.
    """
    for name in (usual, "matroska", "mov", "nut"):
        with av.open(io.BytesIO(), "w", format=name) as trial:
            try:
                trial.add_stream_from_template(stream, opaque=True)
                trial.start_encoding()
                return name
            except ValueError:  # also FFmpeg's "invalid argument"
                pass
    raise InputError(f"the {codec_of(stream)} of {source} cannot be copied with new times", _REMEDY)


def _left_behind(kind: str, index: int) -> str:
    """Why a stream is not copied."""
    if kind == "audio":
        return f"audio stream {index} is left out: it cannot follow the new times of the picture"
    return f"{kind} stream {index} is left out: it cannot be given new times"


def _is_outdated(tag: str) -> bool:
    """Whether a tag of a stream is no longer true with other times."""
    return is_statistic(tag) or tag.upper() == "DURATION"


def _retime_packet(packet: av.Packet[Any], times: TimeMap, zero: float, ticks: int) -> None:
    """Move a packet; its length is the length on screen that it has there."""
    base = packet.time_base

    def new_stamp(stamp: int) -> int:
        return round(times(float(stamp * base) - zero) * ticks)

    pts, dts, length = packet.pts, packet.dts, packet.duration or 0
    start = pts if pts is not None else dts
    if start is not None:
        packet.duration = max(1, new_stamp(start + length) - new_stamp(start)) if length else 0
    packet.pts, packet.dts = (None if stamp is None else new_stamp(stamp) for stamp in (pts, dts))
    packet.time_base = Fraction(1, ticks)


def _retime_chapter(chapter: Any, times: TimeMap, zero: float) -> Any:
    """A chapter with new times, in milliseconds."""
    base = chapter["time_base"]
    start, end = (round(1000 * max(0.0, times(float(chapter[key] * base) - zero))) for key in ("start", "end"))
    return {**chapter, "start": start, "end": max(start + 1, end), "time_base": Fraction(1, 1000)}
