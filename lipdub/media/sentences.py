"""Files that list when sentences are spoken: subtitles, and lists of times in JSON."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from lipdub.errors import InputError

Span = tuple[float, float]  # start and end, seconds

_TIME = r"(\d+(?::\d+)*(?:[.,]\d+)?)"
_CUES = (  # of SRT and WebVTT, of ASS and SSA
    re.compile(rf"^[ \t]*{_TIME}[ \t]*-->[ \t]*{_TIME}", re.MULTILINE),
    re.compile(rf"^Dialogue:[^,\n]*,[ \t]*{_TIME}[ \t]*,[ \t]*{_TIME}[ \t]*,", re.MULTILINE),
)
_JSON = re.compile(r"\s*(\{|\[\s*[\[\]{])")  # how JSON begins, and the tags of lyrics do not
_OFFSETS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}  # units of TTML, in seconds
# Names of a sentence's times in JSON: ours, then those of the plans that KrillinAI writes.
_BOTH = (("source", "target"), (("original_start", "original_end"), ("new_start", "new_end")))
# Names of the times of a cue in JSON: of pyVideoTrans, whose start_time is in milliseconds, of Whisper, of others.
_CUE_KEYS = (("startraw", "endraw"), ("start", "end"), ("start_time", "end_time"))
_ONE_SIDED = "{} has only the times of the dub"
_ONE_SIDED_REMEDY = "give the subtitles of the video, too: --fit-source video.srt"


@dataclass(frozen=True)
class Sentence:
    """When a sentence is spoken."""

    source: Span  # in the video
    target: Span  # in the dub


def read_sentences(path: Path, source: Path | None = None) -> tuple[Sentence, ...]:
    """Sentences with their times in the video and in the dub, in order.

    Args:
        path: a JSON list of {"source": [start, end], "target": [start, end]}, in seconds or timecodes, or of
            KrillinAI's original_start, original_end, new_start and new_end, perhaps under a key "segments"; or
            cues of the dub, which need `source`: subtitles (SRT, WebVTT, ASS, TTML), or JSON with the start and end
            of each, as Whisper and pyVideoTrans write it.
        source: cues of the video, one for each of the dub's.

    Raises:
        InputError: a file cannot be read; the sentences do not correspond, or change places.
    """
    text = _read_text(path)
    rows = _rows(text, path) if path.suffix.lower() == ".json" or _JSON.match(text) else None
    if rows is not None and (source is None or any(_times(row, _BOTH) is not None for row in rows)):
        if source is not None:
            raise InputError(f"{path} holds both times of each sentence", "leave out --fit-source")
        sentences = [_parse_sentence(row, f"{path}, sentence {number}") for number, row in enumerate(rows, start=1)]
    elif source is None:
        raise InputError(_ONE_SIDED.format(path), _ONE_SIDED_REMEDY)
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


def _rows(text: str, path: Path) -> list[Any]:
    """Objects of a JSON list, in the order of the file."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON: {error}", "check the file") from error
    rows = data.get("segments") if isinstance(data, dict) else data
    if not isinstance(rows, list):
        raise InputError(f"{path} is no list of sentences", 'give [{"source": [0.5, 2.0], "target": [0.7, 2.9]}, ...]')
    return rows


def _times(row: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Values of the first kind of names that a JSON object has all of; a pair of names is a pair of values."""
    for keys in kinds:
        names = [name for key in keys for name in ((key,) if isinstance(key, str) else key)]
        if isinstance(row, dict) and all(name in row for name in names):
            return tuple(row[key] if isinstance(key, str) else [row[name] for name in key] for key in keys)
    return None


def _parse_sentence(row: Any, where: str) -> Sentence:
    """A sentence of one object of the JSON list; `where` names it in errors."""
    values = _times(row, _BOTH)
    if values is not None:
        return Sentence(*(_parse_span(value, where) for value in values))
    if _times(row, _CUE_KEYS) is not None:
        raise InputError(_ONE_SIDED.format(where), _ONE_SIDED_REMEDY)
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
    """The times of each cue of a file, in order."""
    text = _read_text(path)
    if path.suffix.lower() == ".json" or _JSON.match(text):
        pairs = [_cue_times(row, f"{path}, cue {number}") for number, row in enumerate(_rows(text, path), start=1)]
    elif text.lstrip().startswith("<"):
        pairs = _ttml_times(text, path)
    else:
        pairs = next((cues for form in _CUES if (cues := [list(cue.groups()) for cue in form.finditer(text)])), [])
    if not pairs:
        what = f"{path} holds no cue as subtitles have, `00:00:01,000 --> 00:00:02,500`"
        raise InputError(what, "give .srt, .vtt, .ass, .ttml or .json")
    return sorted(_parse_span(pair, f"{path}, cue {number}") for number, pair in enumerate(pairs, start=1))


def _cue_times(row: Any, where: str) -> list[Any]:
    """Start and end of a cue in JSON, as they are written."""
    values = _times(row, _CUE_KEYS)
    if values is None:
        raise InputError(f"{where}: no start and end", 'give {"start": 0.5, "end": 2.0}')
    return list(values)


def _ttml_times(text: str, path: Path) -> list[list[Any]]:
    """Start and end of each paragraph of TTML that has them."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is not TTML: {error}", "give .srt or .vtt") from error
    pairs: list[list[Any]] = []
    for each in root.iter():
        begin, end, length = (each.get(name) for name in ("begin", "end", "dur"))
        if each.tag.rpartition("}")[2] == "p" and begin is not None and (end or length):
            where = f"{path}, cue {len(pairs) + 1}"
            start_s = _ttml_seconds(begin, where)
            pairs.append([start_s, _ttml_seconds(end, where) if end else start_s + _ttml_seconds(length or "", where)])
    return pairs


def _ttml_seconds(text: str, where: str) -> float:
    """Seconds of a time of TTML: "00:00:01.5", "1.5s", "1500ms"; frames and ticks need rates that are not read."""
    offset = re.fullmatch(r"(\d+(?:\.\d+)?)(h|ms|m|s)", text.strip())
    return float(offset[1]) * _OFFSETS[offset[2]] if offset else _parse_seconds(text, where)


def _read_text(path: Path) -> str:
    """The text of a UTF-8 or UTF-16 file; letters of other encodings are replaced."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot open {path}: {error.strerror}", "check the path") from error
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    return data.decode("utf-16" if wide else "utf-8-sig", "replace")  # only numbers are read
