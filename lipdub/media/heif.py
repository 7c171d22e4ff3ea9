"""Pictures in HEIF, which are HEIC and AVIF: tiles put together, turned, and on white where they are transparent.

FFmpeg makes a stream of each coded image, with the item's number as its id. How they belong together is read here from
the `meta` box (ISO/IEC 23008-12): phones store a picture as a grid of tiles, a turn, and perhaps a mask.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from lipdub.errors import InputError
from lipdub.faces.backend import Frame
from lipdub.media.boxes import boxes_within, top_boxes
from lipdub.media.probe import file_url

_CODED = (b"hvc1", b"av01", b"avc1")
_ALPHA = (b"urn:mpeg:hevc:2015:auxid:1", b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha")  # marks of a mask
_META_MAX = 1 << 24  # bytes of a `meta` box that is read


@dataclass
class _Items:
    """What the `meta` box says about the images of a file."""

    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    tiles: dict[int, list[int]] = field(default_factory=dict)  # of a grid, row by row
    masks: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))  # auxiliary images of an image
    properties: dict[int, list[tuple[bytes, bytes]]] = field(default_factory=dict)  # in the order they are applied
    grids: dict[int, bytes] = field(default_factory=dict)  # descriptions of the grids

    def get(self, item: int, kind: bytes) -> bytes | None:
        """A property of an image."""
        return next((data for name, data in self.properties.get(item, ()) if name == kind), None)


def read_heif(path: Path, max_pixels: int) -> Frame:
    """The primary picture of a file, as viewers show it.

    Returns:
        (H, W, 3) RGB.

    Raises:
        InputError: it cannot be read, holds a kind of picture that is not, or is larger than `max_pixels`.
    """
    remedy = "save it as JPEG or PNG"
    try:
        items = _read_items(path)
        size = items.get(items.primary, b"ispe")
        width, height = struct.unpack(">2I", size[4:12]) if size is not None else (0, 0)
        if width * height > max_pixels:
            raise InputError(f"{path} has {width}x{height} pixels, the limit is {max_pixels}", "make it smaller")
        decoded = _decode(path)
        picture = _assemble(items, items.primary, decoded, "rgb24")
        mask = next(
            (it for it in items.masks[items.primary] if (items.get(it, b"auxC") or b"").strip(b"\0") in _ALPHA), None
        )
        if mask is not None:
            cover = _assemble(items, mask, decoded, "gray")[..., None].astype(np.float32) / 255
            picture = np.rint(picture * cover + 255 * (1 - cover)).astype(np.uint8)
    except (OSError, av.error.FFmpegError) as error:
        raise InputError(f"cannot read {path}: {error}", remedy) from error
    except (KeyError, IndexError, ValueError, struct.error) as error:
        raise InputError(f"{path} is damaged, or a kind of HEIF that lipdub does not read", remedy) from error
    return np.ascontiguousarray(_turn(picture, items.properties.get(items.primary, [])))


def _decode(path: Path) -> Mapping[int, av.VideoFrame]:
    """The first frame of each stream, by its id."""
    decoded: dict[int, av.VideoFrame] = {}
    options = {"format_whitelist": "mov", "protocol_whitelist": "file,pipe"}
    with av.open(file_url(path), mode="r", options=options) as container:
        for packet in container.demux(video=list(range(len(container.streams.video)))):
            for frame in packet.decode():
                decoded.setdefault(packet.stream.id, frame)
    return decoded


def _assemble(items: _Items, item: int, decoded: Mapping[int, av.VideoFrame], form: str) -> NDArray[np.uint8]:
    """An image, or the tiles of a grid side by side: (H, W, 3) or, of a mask, (H, W)."""
    if items.kinds[item] in _CODED:
        # Full range is what pixels of a picture are meant to fill.
        return np.asarray(decoded[item].reformat(format=form, dst_color_range=2).to_ndarray(), np.uint8)
    if items.kinds[item] != b"grid":
        raise ValueError(f"an item of kind {items.kinds[item]!r}")
    _, flags, rows, columns = items.grids[item][:4]
    width, height = struct.unpack(">2I" if flags & 1 else ">2H", items.grids[item][4 : 12 if flags & 1 else 8])
    tiles = [_assemble(items, tile, decoded, form) for tile in items.tiles[item]]
    if len(tiles) != (rows + 1) * (columns + 1):
        raise ValueError(f"{len(tiles)} tiles of a grid")
    lines = [np.hstack(tiles[at : at + columns + 1]) for at in range(0, len(tiles), columns + 1)]
    return np.vstack(lines)[:height, :width]


def _turn(picture: NDArray[np.uint8], properties: list[tuple[bytes, bytes]]) -> NDArray[np.uint8]:
    """A picture after the turns and mirrors of its item, one after another."""
    for kind, data in properties:
        if kind == b"irot":
            picture = np.rot90(picture, data[0] & 3)  # quarter turns anticlockwise
        elif kind == b"imir":
            picture = np.flip(picture, axis=data[0] & 1)  # 0: top and bottom change places
    return picture


def _read_items(path: Path) -> _Items:
    """The images of a file.

    Raises:
        ValueError, IndexError, struct.error: the file is damaged.
    """
    with path.open("rb") as file:
        at, length = next(((at, length) for kind, at, length in top_boxes(file) if kind == b"meta"), (0, 0))
        if not 12 <= length <= _META_MAX:
            raise ValueError("no index")
        file.seek(at)
        meta = file.read(length)
        parts = {kind: meta[start + 8 : stop] for kind, start, stop in boxes_within(meta, 12, len(meta))}
        items = _Items(primary=int.from_bytes(parts[b"pitm"][4:]))
        items.kinds = dict(_entries(parts[b"iinf"]))
        for kind, one, others in _references(parts.get(b"iref", bytes(4))):
            if kind == b"dimg":
                items.tiles[one] = others
            elif kind == b"auxl":
                for other in others:
                    items.masks[other].append(one)
        items.properties = _properties(parts[b"iprp"])
        for item, (in_idat, start, stop) in _places(parts[b"iloc"]).items():
            if items.kinds.get(item) == b"grid":
                file.seek(start)
                items.grids[item] = parts[b"idat"][start:stop] if in_idat else file.read(stop - start)
    return items


def _entries(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and kind of each item, of `iinf`."""
    for _, start, stop in boxes_within(data, 6 if data[0] == 0 else 8, len(data)):
        entry = data[start + 8 : stop]
        wide = 4 if entry[0] == 3 else 2
        yield int.from_bytes(entry[4 : 4 + wide]), entry[6 + wide : 10 + wide]


def _references(data: bytes) -> Iterator[tuple[bytes, int, list[int]]]:
    """Kind, item and the items that it refers to, of `iref`."""
    code = ">H" if data[0] == 0 else ">I"
    wide = struct.calcsize(code)
    for kind, start, _ in boxes_within(data, 4, len(data)):
        at = start + 8
        one, count = int.from_bytes(data[at : at + wide]), int.from_bytes(data[at + wide : at + wide + 2])
        first = at + wide + 2
        yield kind, one, [int.from_bytes(data[first + n * wide : first + (n + 1) * wide]) for n in range(count)]


def _properties(data: bytes) -> dict[int, list[tuple[bytes, bytes]]]:
    """Kind and content of each property of each item, of `iprp`."""
    inner = [(kind, data[start + 8 : stop]) for kind, start, stop in boxes_within(data, 0, len(data))]
    shared = next(content for kind, content in inner if kind == b"ipco")
    known = [(kind, shared[start + 8 : stop]) for kind, start, stop in boxes_within(shared, 0, len(shared))]
    result: dict[int, list[tuple[bytes, bytes]]] = {}
    for content in (content for kind, content in inner if kind == b"ipma"):
        reader = _Reader(content, 8)
        for _ in range(int.from_bytes(content[4:8])):
            item = reader.number(2 if content[0] == 0 else 4)
            wide = 2 if content[3] & 1 else 1
            numbers = [reader.number(wide) & (0x7FFF if wide == 2 else 0x7F) for _ in range(reader.number(1))]
            result[item] = [known[number - 1] for number in numbers if number]
    return result


def _places(data: bytes) -> dict[int, tuple[bool, int, int]]:
    """Whether an item lies in `idat`, its begin and end, of `iloc`; of items in one piece."""
    version, reader = data[0], _Reader(data, 4)
    sizes = reader.number(2)
    offset_wide, length_wide, base_wide, index_wide = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    places = {}
    for _ in range(reader.number(4 if version == 2 else 2)):
        item = reader.number(4 if version == 2 else 2)
        method = reader.number(2) & 15 if version else 0
        reader.number(2)
        base, count = reader.number(base_wide), reader.number(2)
        for _ in range(count):
            reader.number(index_wide if version else 0)
            start = base + reader.number(offset_wide)
            places[item] = (method == 1, start, start + reader.number(length_wide))
    return places


@dataclass
class _Reader:
    """Numbers of a box, one after another."""

    data: bytes
    at: int

    def number(self, wide: int) -> int:
        """The next `wide` bytes.

        Raises:
            IndexError: the box is over.
        """
        self.at += wide
        if self.at > len(self.data):
            raise IndexError("the box is over")
        return int.from_bytes(self.data[self.at - wide : self.at])
