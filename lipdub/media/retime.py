"""Retiming: the picture is slowed or sped up by timestamps alone, so that sentences begin when a dub speaks them.

A time map is piecewise linear. Its knots are the starts and ends of sentences; its slopes, the factors by which the
picture is slowed, stay within [1 / limit, limit]. Where no such map meets every sentence, the sum of the distances
is the least possible (a linear program), and each sentence tells how far off it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
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
from lipdub.media.probe import file_url, kind_of, open_input, origin, probe, require_video

Span = tuple[float, float]  # start and end, seconds

MIN_TICKS = 90_000  # a second: the coarsest clock of a retimed picture
_MIN_STEP_S = 0.02  # knots that are closer are one
_START_WEIGHT, _END_WEIGHT, _SPEED_WEIGHT = 1.0, 0.2, 0.01  # of a sentence's start and end; of natural speed elsewhere
_CUE = re.compile(r"(\d+(?::\d+)*(?:[.,]\d+)?)\s*-->\s*(\d+(?::\d+)*(?:[.,]\d+)?)")
# Names of a sentence's times in JSON: ours, then those of the plans that KrillinAI writes.
_KEYS = (("source", "target"), (("original_start", "original_end"), ("new_start", "new_end")))


@dataclass(frozen=True)
class Sentence:
    """When a sentence is spoken."""

    source: Span  # in the video
    target: Span  # in the dub


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
        result: NDArray[np.float64] = np.diff(self.output_s) / np.diff(self.source_s)
        return result


def read_sentences(path: Path, source: Path | None = None) -> tuple[Sentence, ...]:
    """Sentences with their times in the video and in the dub, in order.

    Args:
        path: a JSON list of {"source": [start, end], "target": [start, end]}, in seconds or timecodes, or of
            KrillinAI's original_start, original_end, new_start and new_end, perhaps under a key "segments"; or
            subtitles (SRT, WebVTT) of the dub, which need `source`.
        source: subtitles of the video, one cue for each of the dub's.

    Raises:
        InputError: a file cannot be read; the sentences do not correspond, or change places.
    """
    if path.suffix.lower() == ".json":
        if source is not None:
            raise InputError(f"{path} holds both times of each sentence", "leave out --fit-source")
        sentences = _from_json(path)
    elif source is None:
        raise InputError(
            f"{path} tells only when the dub speaks", "give the subtitles of the video, too: --fit-source video.srt"
        )
    else:
        video_cues, dub_cues = _read_cues(source), _read_cues(path)
        if len(video_cues) != len(dub_cues):
            raise InputError(
                f"{source} has {len(video_cues)} sentences, {path} has {len(dub_cues)}",
                "both need one cue for each sentence",
            )
        sentences = [Sentence(*times) for times in zip(video_cues, dub_cues, strict=True)]
    if not sentences:
        raise InputError(f"{path} holds no sentence", "see `--fit` in docs/how-to.md")
    sentences.sort(key=lambda each: each.source)
    for sentence, following in pairwise(sentences):
        if following.target[0] < sentence.target[0] or following.source[0] == sentence.source[0]:
            where = f"the sentences at {sentence.source[0]:.2f} s and {following.source[0]:.2f} s of the video"
            raise InputError(f"{path}: {where} change places in the dub", "give sentences in one order in both")
    return tuple(sentences)


def _from_json(path: Path) -> list[Sentence]:
    """Sentences of a JSON file, as `read_sentences` describes it, in the order of the file."""
    try:
        data = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON: {error}", "check the file") from error
    rows = data.get("segments") if isinstance(data, dict) else data
    if not isinstance(rows, list):
        raise InputError(f"{path} is no list of sentences", 'give [{"source": [0.5, 2.0], "target": [0.7, 2.9]}, ...]')
    return [_parse_sentence(row, f"{path}, sentence {number}") for number, row in enumerate(rows, start=1)]


def _parse_sentence(row: Any, where: str) -> Sentence:
    """A sentence of one object of the JSON list; `where` names it in errors."""
    for keys in _KEYS:
        names = [name for key in keys for name in ((key,) if isinstance(key, str) else key)]
        if isinstance(row, dict) and all(name in row for name in names):
            values = [row[key] if isinstance(key, str) else [row[name] for name in key] for key in keys]
            return Sentence(*(_parse_span(value, where) for value in values))
    raise InputError(f"{where}: no source and target times", 'give {"source": [0.5, 2.0], "target": [0.7, 2.9]}')


def _parse_span(value: Any, where: str) -> Span:
    """A pair of times, which must rise from 0 on."""
    if not isinstance(value, list) or len(value) != 2:
        raise InputError(f"{where}: {value!r} is not [start, end]", "give two times")
    start_s, end_s = (_parse_seconds(each, where) for each in value)
    if not 0 <= start_s < end_s < float("inf"):
        raise InputError(f"{where}: {value!r} ends before it begins", "give start and end, from 0 on")
    return start_s, end_s


def _parse_seconds(value: Any, where: str) -> float:
    """Seconds of a number, or of a timecode: "1:02:03,456", "2:03.4"."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and re.fullmatch(r"\d+(:\d+){0,2}([.,]\d+)?", value.strip()):
        total = 0.0
        for part in value.strip().replace(",", ".").split(":"):
            total = 60 * total + float(part)
        return total
    raise InputError(f"{where}: {value!r} is not a time", "give seconds, or h:mm:ss.mmm")


def _read_cues(path: Path) -> list[Span]:
    """The times of each cue of SRT or WebVTT."""
    text = _read_text(path)
    spans = [_parse_span(list(cue.groups()), f"{path}, cue {n}") for n, cue in enumerate(_CUE.finditer(text), start=1)]
    if not spans:
        raise InputError(f"{path} holds no cue as subtitles have, `00:00:01,000 --> 00:00:02,500`", "give .srt or .vtt")
    return sorted(spans)


def _read_text(path: Path) -> str:
    """The text of a UTF-8 or UTF-16 file; letters of other encodings are replaced."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot open {path}: {error.strerror}", "check the path") from error
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    return data.decode("utf-16" if wide else "utf-8-sig", "replace")  # only numbers are read


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
    output: NDArray[np.float64] = times[0] + np.concatenate([[0.0], np.cumsum(slopes * steps)])
    return output


def copy_retimed(
    source: Path, target: Path, times: TimeMap, config: MediaConfig | None = None, *, name_audio: bool = True
) -> list[str]:
    """Write the picture, subtitles, attachments, cover art, chapters and tags of a video with new times.

    Packets are copied, nothing is decoded. `target` is QuickTime where the source is, else Matroska.

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
    mov = "mov" in info.format
    with open_input(source) as original:
        zero = origin(original)
        ticks = info.time_base.denominator * -(-MIN_TICKS // info.time_base.denominator)
        options = {"video_track_timescale": str(ticks), "movie_timescale": str(ticks)} if mov else {}
        with av.open(file_url(target), "w", format="mov" if mov else "matroska", options=options) as output:
            copies, left_behind = {}, []
            for stream in original.streams:
                kind = kind_of(stream)
                if kind not in ("video", "subtitle", "attachment", "picture") or (
                    kind == "video" and stream.index != info.index
                ):
                    if (kind != "audio" or name_audio) and not is_remade(stream, kind, len(original.chapters())):
                        left_behind.append(_left_behind(kind, stream.index))
                    continue
                copy = output.add_stream_from_template(stream)
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
                raise InputError(
                    f"{source} cannot be copied with new times: {error}",
                    "write it anew: ffmpeg -i FILE -c:v libx264 -crf 12 -c:a flac WHOLE.mkv",
                ) from error
    return left_behind


def _left_behind(kind: str, index: int) -> str:
    """Why a stream is not copied."""
    if kind == "audio":
        return f"audio stream {index} is left out: it keeps the time of the video as it was"
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
