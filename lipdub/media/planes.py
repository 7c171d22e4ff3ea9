"""A decoded picture's memory as one writable array per colour component."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from lipdub.errors import InputError

_PLANAR = re.compile(r"(yuvj|yuva|yuv|gbra|gbr|gray)(?:(410|411|420|422|440|444)?p)?(\d+)?(le|be)?$")
_SEMI_PLANAR = {"nv12": "420", "nv21": "420", "nv16": "422", "nv24": "444", "nv42": "444"}
_SEMI_DEEP = re.compile(r"p([024])(10|12|16)(le|be)$")  # P010: 10 bits in the upper end of 16
_PACKED_RGB = re.compile(r"(rgb|bgr|rgba|bgra|argb|abgr|rgb0|bgr0|0rgb|0bgr)(24|48|64)?(le|be)?$")
_PACKED_YUV = {"yuyv422": (0, 1, 3), "uyvy422": (1, 0, 2), "yvyu422": (0, 3, 1)}
_SUBSAMPLING = {"444": (1, 1), "422": (2, 1), "420": (2, 2), "411": (4, 1), "410": (4, 4), "440": (1, 2)}
_DEEP_SEMI = {"0": "420", "2": "422", "4": "444"}


@dataclass(frozen=True)
class Part:
    """Memory layout of a component: samples `offset + step * x` of each line of a plane."""

    plane: int
    offset: int
    step: int
    sub_x: int  # luma columns for one sample of this component
    sub_y: int


@dataclass(frozen=True)
class Layout:
    """A pixel format. Components are Y Cb Cr, R G B, or Y alone; alpha is not among them and is never touched."""

    kind: str  # "yuv" | "rgb" | "gray"
    depth: int  # bits of a code
    shift: int  # empty low bits of a stored sample
    dtype: np.dtype[Any]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Component:
    """One component of one picture: `samples` (h, w) is a view, so writing to it changes the picture."""

    samples: NDArray[Any]
    part: Part


@lru_cache(maxsize=64)
def layout(pix_fmt: str) -> Layout:
    """Memory layout of a pixel format.

    Raises:
        InputError: a format that we cannot paste into (paletted, Bayer, bit-packed, float).
    """
    form = _planar(pix_fmt) or _semi_planar(pix_fmt) or _packed(pix_fmt)
    if form is None:
        raise InputError(
            f"pictures of the kind {pix_fmt} are not supported",
            "convert the video first: ffmpeg -i FILE -c:a copy -crf 12 -pix_fmt yuv420p OUT",
        )
    return form


def components(picture: av.VideoFrame) -> tuple[Component, ...]:
    """Views of a picture's components. Call `picture.make_writable()` before writing to them."""
    form = layout(picture.format.name)
    parts = []
    for part in form.parts:
        plane = picture.planes[part.plane]
        stride = abs(plane.line_size) // form.dtype.itemsize
        lines: NDArray[Any] = np.frombuffer(memoryview(plane), dtype=form.dtype).reshape(-1, stride)
        if plane.line_size < 0:  # stored bottom up
            lines = lines[::-1]
        width = -(-picture.width // part.sub_x)
        height = -(-picture.height // part.sub_y)
        parts.append(Component(lines[:height, part.offset : part.offset + part.step * width : part.step], part))
    return tuple(parts)


def _dtype(depth: int, order: str | None) -> np.dtype[Any]:
    return np.dtype(np.uint8) if depth <= 8 else np.dtype(">u2" if order == "be" else "<u2")


def _planar(name: str) -> Layout | None:
    match = _PLANAR.match(name)
    if match is None:
        return None
    family, sampling, bits, order = match.groups()
    depth = int(bits or 8)
    if depth > 16 or name.endswith(("f32le", "f32be")):
        return None
    dtype = _dtype(depth, order)
    if family == "gray":
        return None if sampling else Layout("gray", depth, 0, dtype, (Part(0, 0, 1, 1, 1),))
    if family in ("gbr", "gbra"):
        return Layout("rgb", depth, 0, dtype, tuple(Part(plane, 0, 1, 1, 1) for plane in (2, 0, 1)))
    if sampling is None:
        return None
    sub = _SUBSAMPLING[sampling]
    return Layout("yuv", depth, 0, dtype, (Part(0, 0, 1, 1, 1), Part(1, 0, 1, *sub), Part(2, 0, 1, *sub)))


def _semi_planar(name: str) -> Layout | None:
    deep = _SEMI_DEEP.match(name)
    if deep is not None:
        depth, sampling, order = int(deep.group(2)), _DEEP_SEMI[deep.group(1)], deep.group(3)
    elif name in _SEMI_PLANAR:
        depth, sampling, order = 8, _SEMI_PLANAR[name], None
    else:
        return None
    sub = _SUBSAMPLING[sampling]
    first = 1 if name in ("nv21", "nv42") else 0
    parts: tuple[Part, ...] = (Part(0, 0, 1, 1, 1), Part(1, first, 2, *sub), Part(1, 1 - first, 2, *sub))
    return Layout("yuv", depth, 0 if depth == 8 else 16 - depth, _dtype(depth, order), parts)


def _packed(name: str) -> Layout | None:
    if name in _PACKED_YUV:
        luma, blue, red = _PACKED_YUV[name]
        packed = (Part(0, luma, 2, 1, 1), Part(0, blue, 4, 2, 1), Part(0, red, 4, 2, 1))
        return Layout("yuv", 8, 0, _dtype(8, None), packed)
    match = _PACKED_RGB.match(name)
    if match is None:
        return None
    order, bits, endian = match.groups()
    if len(order) == 3 and bits is None:
        return None
    depth = 16 if bits in ("48", "64") else 8
    parts = tuple(Part(0, order.index(letter), len(order), 1, 1) for letter in "rgb")
    return Layout("rgb", depth, 0, _dtype(depth, endian), parts)
