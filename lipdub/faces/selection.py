"""Face selection: the syntax of `--face` and of `--speakers` files.

    [[speaker]]                    a table for each, in a TOML file
    face = "id:0,4"                as --face takes it; default: speaking
    sound = "anna.wav"             default: the dub; time 0 is the video's; a path is relative to the TOML file
    turns = [["0:00", "0:05.2"]]   from, to; default: always
    name = "SPEAKER_00"            turns are those of this name in the RTTM file that `rttm = "talk.rttm"` names

A plain RTTM file gives one speaker per name; the face of each is the one whose mouth matches.
"""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lipdub.errors import InputError

# "largest", "all", "speaking", "id:N" or "id:N,M,...", a point (x, y) in display pixels, or one at a time (x, y, t_s)
Face = str | tuple[float, float] | tuple[float, float, float]
Turn = tuple[float, float]  # seconds, half-open

WORDS = ("largest", "all", "speaking")
_NUMBER = r"\d+(?:\.\d+)?"
_KEYS = {"face", "sound", "turns", "name"}
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """One voice and the faces that speak with it."""

    face: Face = "speaking"
    sound: Path | None = None  # None: the dub
    turns: tuple[Turn, ...] = ()  # when; empty: always


def parse_face(text: str) -> Face:
    """Face from a value of `--face`; a plain number is an id, too.

    Raises:
        InputError: none of these.
    """
    if text in WORDS or re.fullmatch(r"id:\d+(,\d+)*", text):
        return text
    if re.fullmatch(r"\d+", text):
        return f"id:{text}"
    if text.lower().endswith(_PICTURES):
        raise InputError(
            f"{text!r}: lipdub has no network that recognises a person in a photo",
            "list the people with `lipdub faces`, then give id:N, or a point on the face and a time: x,y@t",
        )
    point, at, time = text.partition("@")
    match = re.fullmatch(rf"\s*({_NUMBER})\s*,\s*({_NUMBER})\s*", point)
    if match is None:
        raise InputError(f"{text!r} is none of {', '.join(WORDS)}, x,y, x,y@t, id:N", "see `lipdub sync --help`")
    x, y = float(match[1]), float(match[2])
    return (x, y, parse_time(time)) if at else (x, y)


def format_face(face: Face) -> str:
    """Value of `--face` for a face."""
    if isinstance(face, str):
        return face
    x, y, *time = face
    return f"{x:g},{y:g}" + "".join(f"@{seconds:g}" for seconds in time)


def ids_of(which: object) -> frozenset[int] | None:
    """The numbers in "id:3" or "id:3,7"; None for anything else."""
    match = re.fullmatch(r"id:(\d+(?:,\d+)*)", which) if isinstance(which, str) else None
    return None if match is None else frozenset(map(int, match[1].split(",")))


def parse_time(text: str) -> float:
    """Seconds from `12.5`, `1:02.5` or `1:00:02`.

    Raises:
        InputError: something else.
    """
    match = re.fullmatch(rf"(?:(?:(\d+):)?(\d+):)?({_NUMBER})", text.strip())
    if match is None:
        raise InputError(f"invalid time {text!r}", "use seconds, mm:ss or h:mm:ss")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def read_speakers(path: str | Path) -> tuple[Speaker, ...]:
    """The speakers of a TOML or RTTM file.

    Raises:
        InputError: it cannot be read, or has unknown keys or values.
    """
    path = Path(path)
    if path.suffix.lower() == ".rttm":
        return tuple(Speaker(turns=turns) for turns in read_rttm(path).values())
    tables, named = _read_tables(path)
    known = read_rttm(path.parent / named) if named is not None else {}
    try:
        return tuple(_parse_speaker(table, known, path.parent) for table in tables)
    except InputError as error:
        raise InputError(f"{path}: {error.what}", error.remedy) from error


def read_rttm(path: Path) -> dict[str, tuple[Turn, ...]]:
    """The turns of each name in a diarization: lines `SPEAKER file channel start length <NA> <NA> name ...`.

    Raises:
        InputError: it cannot be read, or holds no turn.
    """
    turns: dict[str, list[Turn]] = defaultdict(list)
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        words = line.split()
        if not words or words[0] != "SPEAKER":
            continue
        try:
            start_s, length_s = float(words[3]), float(words[4])
            turns[words[7]].append((start_s, start_s + length_s))
        except (IndexError, ValueError) as error:
            raise InputError(f"{path}, line {number}: invalid RTTM: {line[:80]!r}", "see the NIST format") from error
    if not turns:
        raise InputError(f"{path} names no speaker", "give an RTTM or TOML file")
    return {name: tuple(sorted(each)) for name, each in turns.items()}


def _read_tables(path: Path) -> tuple[list[dict[str, Any]], str | None]:
    try:
        data = tomllib.loads(_read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            f"cannot read the speakers {path}: {error}", "the file is not TOML; an RTTM file needs the suffix .rttm"
        ) from error
    tables, named = data.pop("speaker", None), data.pop("rttm", None)
    good = isinstance(tables, list) and tables and all(isinstance(table, dict) for table in tables)
    if data or not good or not isinstance(named, str | None):
        remedy = f"take out {', '.join(data)}" if data else "see `lipdub sync --help`"
        raise InputError(f"{path} must hold [[speaker]] tables and at most one rttm = FILE", remedy)
    return tables, named


def _parse_speaker(table: dict[str, Any], known: dict[str, tuple[Turn, ...]], folder: Path) -> Speaker:
    if unknown := set(table) - _KEYS:
        raise InputError(f"unknown key {', '.join(sorted(unknown))}", f"there are: {', '.join(sorted(_KEYS))}")
    name, sound = table.get("name"), table.get("sound")
    if name is not None and "turns" not in table and name not in known:
        raise InputError(f"no turns of {name!r}", f"the RTTM file has: {', '.join(known) or 'nobody'}")
    turns = _parse_turns(table["turns"]) if "turns" in table else known.get(str(name), ())
    return Speaker(
        face=parse_face(str(table.get("face", "speaking"))),
        sound=folder / str(sound) if sound is not None else None,
        turns=turns,
    )


def _parse_turns(value: Any) -> tuple[Turn, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(row, list) and len(row) == 2 for row in value):
        raise InputError(f"turns are [[from, to], ...], not {value!r}", "for example [[0, 5.2], [8, 12]]")
    turns = tuple((parse_time(str(a)), parse_time(str(b))) for a, b in value)
    if wrong := [turn for turn in turns if turn[1] <= turn[0]]:
        raise InputError(f"a turn ends before it starts: {wrong[0]}", "from comes first")
    return tuple(sorted(turns))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the speakers {path}: {error}", "give a TOML or RTTM file") from error
