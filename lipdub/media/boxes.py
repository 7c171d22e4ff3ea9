"""Boxes of MP4 and QuickTime files that FFmpeg does not write again: marks of 360 degree video, and whatever else.

Put into the intermediate file, `st3d` and `sv3d` become side data of its picture, which FFmpeg then writes as the
output's container has it, in Matroska as StereoMode and Projection: Spherical Video V2 RFC, google/spatial-media.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType

_STEREO = {2: 1, 1: 2}  # FFmpeg's kind -> the box's: top and bottom, left and right
_INVERTED = 1  # flag: the right eye comes first, which the box cannot say
_EQUIRECTANGULAR, _CUBEMAP, _TILE = 0, 1, 2
_ENTRY = 86  # bytes of a visual sample entry before its boxes
# Boxes that hold a file together, or that FFmpeg reads as tags, marks or pictures; it writes its own.
_STRUCTURE = ("ftyp", "styp", "free", "skip", "wide", "mdat", "moov", "moof", "mfra", "sidx", "mvhd", "iods", "trak")
_OF_TRACKS = ("mdia", "tkhd", "edts", "tref", "load", "tapt", "mvex", "clip", "udta", "hnti", "hinf")
_READ = ("meta", "name", "titl", "auth", "cprt", "dscp", "gnre", "perf", "loci", "albm", "yrrc", "rtng", "kywd", "PICT")
_USUAL = frozenset(name.encode() for name in (*_STRUCTURE, *_OF_TRACKS, *_READ))
_SPHERICAL = bytes.fromhex("ffcc8263f8554a938814587a02521fdd")  # first version, which FFmpeg reads, too
_HOLDERS = (b"moov", b"trak", b"udta")
_PATH = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")


def spatial_boxes(frame: av.VideoFrame) -> bytes:
    """Boxes for the spherical and stereoscopic side data of a frame; empty without any, or if they cannot hold it."""
    side_data = cast(Mapping[SideDataType, bytes], frame.side_data)
    boxes = b""
    if SideDataType.STEREO3D in side_data:
        kind, flags = np.frombuffer(bytes(side_data[SideDataType.STEREO3D])[:8], "i4").tolist()
        if kind in _STEREO and not flags & _INVERTED:
            boxes += _full_box(b"st3d", bytes([_STEREO[kind]]))
    if SideDataType.SPHERICAL in side_data:
        kind, *numbers = np.frombuffer(bytes(side_data[SideDataType.SPHERICAL])[:36], "u4").tolist()
        turn, (left, top, right, bottom, padding) = numbers[:3], numbers[3:]
        shapes = {
            _EQUIRECTANGULAR: _full_box(b"equi", struct.pack(">4I", 0, 0, 0, 0)),
            _TILE: _full_box(b"equi", struct.pack(">4I", top, bottom, left, right)),
            _CUBEMAP: _full_box(b"cbmp", struct.pack(">2I", 0, padding)),
        }
        if kind in shapes:
            head = _full_box(b"svhd", b"lipdub\0")
            projection = _box(b"proj", _full_box(b"prhd", struct.pack(">3I", *turn)) + shapes[kind])
            boxes += _box(b"sv3d", head + projection)
    return boxes


def insert_boxes(path: Path, boxes: bytes) -> None:
    """Add boxes to the first sample entry of an MP4 file that begins with the picture's track and ends with its index.

    Raises:
        ValueError: it is no such file.
    """
    with path.open("r+b") as file:
        start, index = _index(file)
        parents = _entry(index)
        place = parents[-1] + int.from_bytes(index[parents[-1] : parents[-1] + 4], "big")
        index[place:place] = boxes
        for parent in parents:
            length = int.from_bytes(index[parent : parent + 4], "big") + len(boxes)
            index[parent : parent + 4] = length.to_bytes(4, "big")
        file.seek(start)
        file.write(index)


def drop_eyes(path: Path) -> None:
    """Make Apple's box about two views of the picture's track into free space.

    FFmpeg writes it beside `st3d`, for pictures that hold both eyes too, and then reads it first.

    Raises:
        ValueError: it is no MP4 file that begins with the picture's track.
    """
    with path.open("r+b") as file:
        start, index = _index(file)
        entry = _entry(index)[-1]
        end = entry + int.from_bytes(index[entry : entry + 4], "big")
        for kind, at, _ in boxes_within(index, entry + _ENTRY, end):
            if kind == b"vexu":
                file.seek(start + at + 4)
                file.write(b"free")


def unusual_boxes(path: Path) -> Counter[str]:
    """Counts of the boxes of a file that FFmpeg does not know, by kind, beside tracks and tags."""
    with path.open("rb") as file:
        contents = []
        for kind, at, _ in [*top_boxes(file)]:
            file.seek(at + 8)
            contents.append((kind, file.read(16)))
        index = _index(file)[1]
    holders = [(8, len(index))]
    while holders:
        for kind, at, stop in boxes_within(index, *holders.pop()):
            contents.append((kind, bytes(index[at + 8 : at + 24])))
            holders += [(at + 8, stop)] * (kind in _HOLDERS)
    return Counter(
        f"uuid {content.hex()}" if kind == b"uuid" else kind.decode("ascii")
        for kind, content in contents
        if kind not in _USUAL and kind.isascii() and kind.decode("ascii").isprintable() and content != _SPHERICAL
    )


def top_boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and length of each box that lies in no other."""
    start, size = 0, file.seek(0, os.SEEK_END)
    while start + 8 <= size:
        file.seek(start)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        length = int.from_bytes(head[8:], "big") if length == 1 else length or size - start
        if length < 8:
            return
        yield head[4:8], start, length
        start += length


def _index(file: BinaryIO) -> tuple[int, bytearray]:
    """Offset of the index (moov) of an MP4 file, and its bytes."""
    start, length = next(((at, length) for kind, at, length in top_boxes(file) if kind == b"moov"), (0, 0))
    file.seek(start)
    return start, bytearray(file.read(length))


def _entry(index: bytearray) -> list[int]:
    """Offset of the first sample entry of the first track, after the boxes that contain it."""
    at, end, parents = 0, len(index), []
    for name in _PATH:
        at, end = next((each for kind, *each in boxes_within(index, at, end) if kind == name), (0, 0))
        if end == 0:
            raise ValueError(f"no {name.decode()} where one should be")
        parents.append(at)
        at += 16 if name == b"stsd" else 8
    return [*parents, at]


def boxes_within(data: bytes | bytearray, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and end of each box between two places."""
    while start + 8 <= end:
        length = int.from_bytes(data[start : start + 4], "big")
        if length < 8:
            return
        yield bytes(data[start + 4 : start + 8]), start, start + length
        start += length


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def _full_box(kind: bytes, content: bytes) -> bytes:
    return _box(kind, bytes(4) + content)
