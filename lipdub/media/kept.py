"""What of a source is not in the output as it was: found by looking at both, not by a list of known losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import av
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition

from lipdub.media.containers import Item
from lipdub.media.probe import codec_of, is_timeline, open_input

# Said of the file that was written, by whoever wrote it; or ours.
_OWN_TAGS = frozenset(
    {"encoder", "duration", "comment", "major_brand", "minor_version", "compatible_brands", "vendor_id", "handler_name"}
    | {"digital_source_type", "lipdub_version", "lipdub_weights", "lipdub_label", "language", "mimetype", "filename"}
    | {"_statistics_writing_app", "_statistics_writing_date_utc", "_statistics_tags", "creation_time"}
)
_STATISTICS = ("bps", "number_of_frames", "number_of_bytes", "_statistics")  # of the encode that is replaced
_LOOK = 50  # pictures at the beginning in which side data is looked for
_BY_DECODER = frozenset(
    {"MOTION_VECTORS", "VIDEO_ENC_PARAMS", "QP_TABLE_DATA", "QP_TABLE_PROPERTIES", "REGIONS_OF_INTEREST"}
)
_SAID_ELSEWHERE = frozenset(  # by the encoder's own losses
    {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL", "DOVI_METADATA", "DOVI_RPU_BUFFER", "DYNAMIC_HDR_PLUS"}
    | {"DYNAMIC_HDR_VIVID", "DISPLAYMATRIX", "SEI_UNREGISTERED"}
)


def is_statistic(tag: str) -> bool:
    """Whether a tag counts the packets of a stream, as mkvmerge's do: untrue once it was encoded anew."""
    return tag.lower().startswith(_STATISTICS)


def changes(source: Path, output: Path, picture: int, items: Sequence[Item]) -> list[str]:
    """One short phrase for each property of the source that the output has not, or has otherwise.

    Args:
        source: the video.
        output: the finished file: its picture, the dub, then `items`.
        picture: index of the source's picture stream.
        items: the other streams, in the output's order; those that stayed behind were told by whoever left them.
    """
    with open_input(source) as old, open_input(output) as new:
        found = _tags("", old.metadata, new.metadata)
        found += _chapters(old, new)
        seen = [stream for stream in new.streams if stream.type != "data" or any(i.kind == "data" for i in items)]
        found += _picture(old, new, picture, seen[0].index if seen else 0)
        for item, made in zip(items, _made(new, items), strict=False):
            if made is None:
                continue
            stream = old.streams[item.index]
            name = f"{item.kind} stream {item.index}"
            if codec_of(made) != item.codec:
                found.append(f"{name}: {item.codec} became {codec_of(made)}")
            if (stream.language or "und") != (made.language or "und") and stream.language not in (None, "und"):
                found.append(f"{name}: language {stream.language} became {made.language or 'unknown'}")
            flags = ~(Disposition.default | Disposition.attached_pic)
            if lost := (stream.disposition & flags) & ~made.disposition:
                found.append(f"{name}: not marked as {lost.name} any more")
            found += _tags(f"{name}: ", stream.metadata, made.metadata)
        return found


def _made(new: av.container.InputContainer, items: Sequence[Item]) -> list[av.stream.Stream | None]:
    """The streams of the output that items became: of each kind in order."""
    left: dict[str, list[av.stream.Stream]] = {}
    for stream in list(new.streams)[1:]:
        left.setdefault(stream.type or "", []).append(stream)
    left.get("audio", [])[:1] = []  # the dub
    kinds = {"picture": "video", "unknown": "data"}
    found: list[av.stream.Stream | None] = []
    for item in items:
        queue = left.get(kinds.get(item.kind, item.kind), [])
        found.append(queue.pop(0) if queue else None)
    return found


def _tags(name: str, old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    there = {key.lower(): value for key, value in new.items()}
    comment = there.get("comment", "")
    lost = []
    for key, value in old.items():
        plain = key.lower()
        if plain in _OWN_TAGS or plain.split("-")[0] in _OWN_TAGS or not value:
            continue
        if there.get(plain) != value and value not in comment:
            lost.append(key)
    return [f"{name}tag{'s' if len(lost) > 1 else ''} {', '.join(sorted(lost))}"] if lost else []


def _chapters(old: av.container.InputContainer, new: av.container.InputContainer) -> list[str]:
    def listed(container: av.container.InputContainer) -> list[tuple[float, str]]:
        zero = 0.0 if is_timeline(container.format.name) else (container.start_time or 0) / av.time_base
        return [
            (round(float(each["start"] * (each["time_base"] or 0)) - zero, 2), str(each["metadata"].get("title", "")))
            for each in container.chapters()
        ]

    before, after = listed(old), listed(new)
    if len(before) > len(after):
        return [f"{len(before) - len(after)} of {len(before)} chapters"]
    return ["times or titles of chapters"] if before != after else []


def _picture(old: av.container.InputContainer, new: av.container.InputContainer, first: int, second: int) -> list[str]:
    before, after = _facts(old, first), _facts(new, second)
    found = [
        f"{name} of the picture: {value} became {after[name]}"
        for name, value in before.items()
        if _differ(name, before, after)
    ]
    lost = before["side data"] - after["side data"]
    found += [f"{kind.lower().replace('_', ' ')} of the picture" for kind in sorted(lost)]
    return found + _tags("picture: ", old.streams[first].metadata, new.streams[second].metadata)


def _differ(name: str, before: dict[str, Any], after: dict[str, Any]) -> bool:
    return name != "side data" and before[name] not in (None, 0, "unknown", after[name])


def _facts(container: av.container.InputContainer, index: int) -> dict[str, Any]:
    """What a picture stream says of itself, in its first pictures."""
    stream = cast(av.VideoStream, container.streams[index])
    kinds: set[str] = set()
    order, location = None, None
    try:
        for number, frame in enumerate(container.decode(stream)):
            data = cast(Mapping[SideDataType, bytes], frame.side_data)
            kinds |= {kind.name for kind in SideDataType if kind in data}
            if number == 0:
                fields = "progressive" if not frame.interlaced_frame else "interlaced"
                order, location = fields, getattr(frame, "chroma_location", None)
            if number >= _LOOK:
                break
    except av.error.FFmpegError:
        pass
    return {
        "field order": order,
        "pixel aspect": stream.sample_aspect_ratio or None,
        "place of chroma": None if location in (None, 0) else str(location),
        "codec": codec_of(stream),
        "side data": kinds - _BY_DECODER - _SAID_ELSEWHERE,
    }
