"""What of a source is not in the output as it was: found by looking at both, not by a list of known losses."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition

from lipdub.config import MediaConfig
from lipdub.errors import InputError
from lipdub.media.boxes import unusual_boxes
from lipdub.media.containers import Item, is_remade
from lipdub.media.language import language_code
from lipdub.media.probe import UNSPECIFIED, codec_of, kind_of, layout_name, open_input, origin
from lipdub.media.stream_details import CHROMA, RANGES, FileDetails, read_details

# Who wrote the file and how long it is; a comment goes on behind ours, and a language is compared on its own.
_OWN_TAGS = frozenset(
    {"encoder", "duration", "language", "major_brand", "minor_version", "compatible_brands"}
    | {"digital_source_type", "lipdub_version", "lipdub_weights", "lipdub_label"}
)
_NOTHING = ("", "und", "[0][0][0][0]", "FFMP")  # values that say nothing
_STATISTICS = ("bps", "number_of_frames", "number_of_bytes", "_statistics")  # of the encode that is replaced
_LOOK = 50  # pictures at the beginning in which side data is looked for
_BY_DECODER = frozenset(
    {"MOTION_VECTORS", "VIDEO_ENC_PARAMS", "QP_TABLE_DATA", "QP_TABLE_PROPERTIES", "REGIONS_OF_INTEREST"}
)
_SAID_ELSEWHERE = frozenset(  # by the encoder's own losses
    {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL", "DOVI_METADATA", "DOVI_RPU_BUFFER", "DYNAMIC_HDR_PLUS"}
    | {"DYNAMIC_HDR_VIVID", "SEI_UNREGISTERED"}
)
_LISTED = {"STEREO3D": "Stereo 3D", "SPHERICAL": "Spherical Mapping", "DISPLAYMATRIX": "Display Matrix"}
_OF_ENCODE = frozenset({"CPB properties"})
_ENCODERS_OWN = (
    "",
    "dc45e9bde6d948b7962cd820d923eeef",
    "2ca2de09b51747dbbb55a4fe7fc2fc4e",
)  # x264, x265: their settings
_FIELDS = ("", "progressive", "top first", "bottom first", "top first, swapped", "bottom first, swapped")


def is_statistic(tag: str) -> bool:
    """Whether a tag counts the packets of a stream, as mkvmerge's do: untrue once it was encoded anew."""
    return tag.lower().startswith(_STATISTICS)


@dataclass(frozen=True)
class _Pair:
    """A stream of the source and what it became."""

    name: str
    old: av.stream.Stream
    new: av.stream.Stream


def changes(
    source: Path, output: Path, picture: int, items: Sequence[Item], config: MediaConfig | None = None
) -> list[str]:
    """One short phrase for each property of the source that the output has not, or has otherwise.

    Args:
        source: the video.
        output: the finished file: its picture, the dub, then `items`.
        picture: index of the source's picture stream.
        items: the other streams, in the output's order; those left out were reported by then.
        config: which ffmpeg.
    """
    before, after = read_details(source, config), read_details(output, config)
    with open_input(source) as old, open_input(output) as new:
        pairs = [*_pairs(old, new, picture, items)]
        changed = _chapters(old, new) + _programs(before, after)
        if "mov" in old.format.name:
            there = unusual_boxes(output) if "mov" in new.format.name else Counter[str]()
            changed += [f"box {kind} of the file" for kind in unusual_boxes(source) - there]
        changed += _picture(pairs[0], before, after)
        for pair in pairs[1:]:
            changed += _stream(pair)
        for pair in pairs:
            changed += _flags(pair) + _side_data(pair, before, after)
        remade, lost = _remade(old, new, pairs)
        places = {"the file": (old.metadata, new.metadata)}
        places |= {pair.name: (pair.old.metadata, pair.new.metadata) for pair in (*pairs, *remade)}
        return changed + lost + _tags(places)


def _pairs(old: InputContainer, new: InputContainer, picture: int, items: Sequence[Item]) -> Iterator[_Pair]:
    left: dict[str, list[av.stream.Stream]] = defaultdict(list)
    for stream in new.streams:
        left[kind_of(stream)].append(stream)
    yield _Pair("the picture", old.streams[picture], left["video"].pop(0))
    left["audio"][:1] = []  # the dub
    for item in items:
        queue = left[item.kind] or (left["data"] if item.kind == "unknown" else [])
        if queue:
            yield _Pair(f"{item.kind} stream {item.index}", old.streams[item.index], queue.pop(0))


def _tags(places: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]]) -> list[str]:
    """A phrase for all tags that are lost in the same places."""
    lost: dict[str, list[str]] = defaultdict(list)
    for place, (old, new) in places.items():
        there = {key.lower(): value for key, value in new.items()}
        for key, value in old.items():
            plain = key.lower()
            value = value.partition(";")[0] if plain == "creation_time" else value  # FFmpeg joins what is stated twice
            kept = there.get(plain, "")
            if plain in _OWN_TAGS or value in _NOTHING or (plain == "comment" and value in kept):
                continue
            if kept != value and kept.partition(";")[0] != value:
                other = next((other for other in there if there[other] == value and len(value) > 1), "")
                lost[f"{key} (now {other})" if other else key].append(place)
    together: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key, where in lost.items():
        together[tuple(where)].append(key)
    return [
        f"tag{'s' if len(keys) > 1 else ''} {', '.join(sorted(keys))} of {_joined(where)}"
        for where, keys in together.items()
    ]


def _joined(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _chapters(old: InputContainer, new: InputContainer) -> list[str]:
    def chapters_of(container: InputContainer) -> list[tuple[float, float, dict[str, str]]]:
        zero = origin(container)
        chapters = []
        for each in container.chapters():
            first_s, last_s = (float(each[end] * (each["time_base"] or 0)) - zero for end in ("start", "end"))
            chapters.append((round(first_s, 2), round(last_s, 2), {k.lower(): v for k, v in each["metadata"].items()}))
        return chapters

    before, after = chapters_of(old), chapters_of(new)
    if len(before) > len(after):
        return [f"{len(before) - len(after)} of {len(before)} chapters"]
    return ["times, titles or tags of chapters"] if before != after else []


def _programs(before: FileDetails, after: FileDetails) -> list[str]:
    there = after.programs[0] if after.programs else None
    if not before.programs or (before.programs == after.programs):
        return []
    if there is None:
        return ["names of programs"] if any(program.tags for program in before.programs) else []
    more = len(before.programs) - 1
    changed = ["number or names of the program"] if there != before.programs[0] else []
    return changed + ([f"{more} other program{'s' if more > 1 else ''}"] if more else [])


def _picture(pair: _Pair, before: FileDetails, after: FileDetails) -> list[str]:
    old, new = cast(av.VideoStream, pair.old), cast(av.VideoStream, pair.new)
    kinds, there = _first_pictures(old), _first_pictures(new)
    shown = before.of(old.index), after.of(new.index)
    listed_too = {kind for kind, name in _LISTED.items() if name in shown[0].side_data}
    facts: dict[str, Sequence[object]] = {
        "codec": (codec_of(old), codec_of(new)),
        "pixel format": (old.codec_context.pix_fmt, new.codec_context.pix_fmt),
        "pixel aspect": (old.sample_aspect_ratio, new.sample_aspect_ratio),
        "order of fields": [_FIELDS[int(each.codec_context.field_order)] for each in (old, new)],
    }
    for what, names in (("place of chroma", CHROMA), ("range", RANGES)):
        facts[what] = [each.first_of(names) for each in shown]
    for what, name in (("primaries", "color_primaries"), ("transfer", "color_trc"), ("matrix", "colorspace")):
        one, other = (int(getattr(each.codec_context, name)) for each in (old, new))
        rgb = {0: "RGB", UNSPECIFIED: ""} if what == "matrix" else {UNSPECIFIED: ""}
        facts[f"colour {what}"] = (rgb.get(one, str(one)), rgb.get(other, str(other)))
    facts["language"] = [_language(each) for each in (old, new)]
    return [
        f"{what} of the picture: {was} became {now or 'unknown'}"
        for what, (was, now) in facts.items()
        if was not in (None, 0, "", "und", now)
    ] + [f"{kind.lower().replace('_', ' ')} of the picture" for kind in sorted(kinds - there - listed_too)]


def _first_pictures(stream: av.VideoStream) -> set[str]:
    """Kinds of side data in a stream's first pictures."""
    kinds: set[str] = set()
    try:
        for number, frame in enumerate(cast(InputContainer, stream.container).decode(stream)):
            data = cast(Mapping[SideDataType, bytes], frame.side_data)
            kinds |= {kind.name for kind in SideDataType if kind in data}
            if bytes(data.get(SideDataType.SEI_UNREGISTERED, b""))[:16].hex() not in _ENCODERS_OWN:
                kinds.add("USER_DATA")
            if number >= _LOOK:
                break
    except av.error.FFmpegError:
        pass
    return kinds - _BY_DECODER - _SAID_ELSEWHERE


def _stream(pair: _Pair) -> list[str]:
    old, new = pair.old, pair.new
    facts: dict[str, Sequence[object]] = {"": (codec_of(old), codec_of(new))}
    facts["language "] = [_language(each) for each in (old, new)]
    if isinstance(old, av.AudioStream) and isinstance(new, av.AudioStream):
        facts["rate "] = [f"{each.codec_context.sample_rate} Hz" for each in (old, new)]
        facts["channels "] = (layout_name(old.codec_context.layout), layout_name(new.codec_context.layout))
    return [
        f"{pair.name}: {what}{was} became {now}" for what, (was, now) in facts.items() if was not in (None, "und", now)
    ]


def _language(stream: av.stream.Stream) -> str:
    """Its code; one, where a language has two."""
    try:
        return language_code(stream.language or "und")
    except InputError:
        return stream.language or "und"


def _flags(pair: _Pair) -> list[str]:
    own = Disposition.default | Disposition.attached_pic if pair.new.type != "subtitle" else Disposition(0)
    old, new = pair.old.disposition & ~own, pair.new.disposition & ~own
    lost, came = ([flag.name for flag in flags if flag.name] for flags in (old & ~new, new & ~old))
    phrases = [f"{pair.name}: not marked as {_joined(lost)} any more"] if lost else []
    return [*phrases, f"{pair.name}: marked as {_joined(came)} now"] if came else phrases


def _side_data(pair: _Pair, before: FileDetails, after: FileDetails) -> list[str]:
    old, new = before.of(pair.old.index), after.of(pair.new.index)
    return [
        f"{kind} of {pair.name}: {was} became {new.side_data.get(kind, 'unknown')}"
        for kind, was in old.side_data.items()
        if kind not in _OF_ENCODE and new.side_data.get(kind) != was
    ]


def _remade(old: InputContainer, new: InputContainer, pairs: Sequence[_Pair]) -> tuple[list[_Pair], list[str]]:
    """Tracks that a muxer makes itself, or keeps in another way: titles of chapters, time codes."""

    def unpaired_tracks(container: InputContainer, known: set[int]) -> dict[str, list[av.stream.Stream]]:
        tracks: dict[str, list[av.stream.Stream]] = defaultdict(list)
        for each in container.streams:
            if each.index not in known and is_remade(each, kind_of(each), len(container.chapters())):
                tracks["time code" if "timecode" in each.metadata else "chapter titles"].append(each)
        return tracks

    before, after = (
        unpaired_tracks(old, {pair.old.index for pair in pairs}),
        unpaired_tracks(new, {pair.new.index for pair in pairs}),
    )
    remade: list[_Pair] = []
    lost: list[str] = []
    for what, streams in before.items():
        there = after[what]
        remade += [_Pair(f"data stream {a.index}", a, b) for a, b in zip(streams, there, strict=False)]
        if len(there) < len(streams):
            more = len(streams) - len(there)
            lost.append(
                f"{more} track{'s' if more > 1 else ''} for {what}: kept as this container keeps them, if it does"
            )
    return remade, lost
