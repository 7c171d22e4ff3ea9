"""Read a face crop from a picture, and blend one back into the picture's own planes.

Coordinates: integers are pixel centres, as in OpenCV. A crop's affine maps upright display pixels to crop pixels; here
it is composed with the file's display matrix and with the chroma grid, so every component is warped once, straight
between its own samples and the crop. Only samples under the crop are ever touched, whatever the picture's size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import av
import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from lipdub.affine import Affine, compose, invert, scale
from lipdub.faces.backend import Frame
from lipdub.media.color import Codes, codes, colorspace_of, from_sdr, full_range, to_sdr
from lipdub.media.planes import Component, Layout, Part, components, layout
from lipdub.media.probe import VideoInfo

_MARGIN = 3  # samples around the crop that a cubic filter may look at
_MOST = 16  # largest supersampling, which bounds the work for a face of thousands of pixels
_SAMPLED = 0.85  # least samples that are looked up for one of the picture when it shrinks; each leans on two
_MIN_SCALE = 3e-5  # of a crop: below it there is no way back


def read_patch(picture: av.VideoFrame, info: VideoInfo, matrix: Affine, size: int) -> Frame:
    """Crop of a picture by `matrix`.

    Args:
        picture: a decoded frame.
        info: of its stream.
        matrix: (2, 3) upright display pixels -> crop pixels.
        size: S, side of the crop.

    Returns:
        (S, S, 3) uint8 R'G'B'; outside the picture the edge is repeated. Shrinking is averaged, not skipped.

    Raises:
        InputError: a pixel format without support.
        ValueError: a matrix that is not (2, 3), finite and invertible.
    """
    form, to_crop = layout(picture.format.name), compose(_checked(matrix), info.display_matrix)
    planes = [_cut(each, form, compose(to_crop, _grid(each.part, info)), size) for each in components(picture)]
    table = _codes(form, info)
    if form.kind == "gray":  # with neutral chroma
        planes += [np.full((size, size), neutral, np.float32) for neutral in table.offset[1:]]
    rgb = to_sdr(table.decode(np.asarray(cv2.merge(planes), np.float32)), info.color_trc)
    return np.clip(np.rint(rgb, out=rgb), 0, 255, out=rgb).astype(np.uint8)


def paste_patch(
    picture: av.VideoFrame,
    info: VideoInfo,
    matrix: Affine,
    face: NDArray[np.float32],
    alpha: NDArray[np.float32],
) -> None:
    """Blend a crop into the picture, in place: v <- v + alpha (face - v) in the code values of each component.

    Samples where the warped alpha is 0 keep their value to the bit; the alpha channel of the picture is not changed.

    Args:
        picture: a decoded frame; its memory is copied first when the decoder still refers to it.
        info: of its stream.
        matrix: (2, 3) upright display pixels -> crop pixels.
        face: (H, W, 3) R'G'B' in 0..255, the crop or a part of it.
        alpha: (H, W) in 0..1; taken as 0 outside of it.

    Raises:
        InputError: a pixel format without support.
        ValueError: shapes that do not fit, a bad matrix, or values that are not finite.
    """
    if face.ndim != 3 or face.shape != (*alpha.shape, 3):
        raise ValueError(f"face must be (H, W, 3) and alpha (H, W), got {face.shape} and {alpha.shape}")
    if not alpha.size:
        return
    if not (np.isfinite(face).all() and np.isfinite(alpha).all()):
        raise ValueError("face and alpha must be finite")
    form, to_crop = layout(picture.format.name), compose(_checked(matrix), info.display_matrix)
    picture.make_writable()
    values = cv2.split(_codes(form, info).encode(from_sdr(np.asarray(face, dtype=np.float32), info.color_trc)))
    weight = np.clip(np.asarray(alpha, dtype=np.float32), 0.0, 1.0)
    targets = zip(components(picture), values, strict=False)  # grey pictures have no chroma
    for _, alike in groupby(targets, lambda target: (target[0].part.sub_x, target[0].part.sub_y)):
        group = [*alike]
        _blend(group, form, compose(to_crop, _grid(group[0][0].part, info)), weight)


def _cut(component: Component, form: Layout, to_crop: Affine, size: int) -> NDArray[np.float32]:
    """One component in the crop's grid; where that is coarser, it is made `times` as large and then averaged."""
    times = min(_MOST, max(1, math.ceil(_SAMPLED / scale(to_crop))))
    span = _span(invert(to_crop), (size, size), component.samples.shape, _MARGIN)
    if span is None:  # the crop lies outside: the nearest edge goes on
        span = _nearest(invert(to_crop), (size, size), component.samples.shape)
    x0, y0, x1, y1 = span
    source = component.samples[y0:y1, x0:x1].astype(np.float32)
    if form.shift:
        source *= np.float32(1 / (1 << form.shift))
    finer = np.array([[times, 0, (times - 1) / 2], [0, times, (times - 1) / 2]])
    warp = compose(compose(finer, to_crop), np.array([[1.0, 0, x0], [0, 1.0, y0]]))
    method = cv2.INTER_CUBIC if times == 1 else cv2.INTER_LINEAR
    side = (size * times, size * times)
    large = cv2.warpAffine(source, warp, side, flags=method, borderMode=cv2.BORDER_REPLICATE)
    if times > 1:
        large = _shrunk(large, (size, size))
    return np.asarray(large, dtype=np.float32)


def _shrunk(image: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """To a width and a height."""
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def _blend(
    group: Sequence[tuple[Component, MatLike]], form: Layout, to_crop: Affine, weight: NDArray[np.float32]
) -> None:
    """Blend into components of one grid what each is to have in the crop."""
    size = (weight.shape[1], weight.shape[0])
    times = max(1, round(scale(to_crop)))  # > 1: crop pixels for one sample of the picture
    if times > 1:
        small = (-(-size[0] // times), -(-size[1] // times))
        across, down = small[0] / size[0], small[1] / size[1]
        group, weight = [(each, _shrunk(values, small)) for each, values in group], _shrunk(weight, small)
        shrink = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]])
        to_crop, size = compose(shrink, to_crop), small
    from_crop = invert(to_crop)
    span = _span(from_crop, size, group[0][0].samples.shape, 1)
    if span is None:
        return
    x0, y0, x1, y1 = span
    warp = compose(np.array([[1.0, 0, -x0], [0, 1.0, -y0]]), from_crop)
    side = (x1 - x0, y1 - y0)
    share = np.asarray(
        cv2.warpAffine(weight, warp, side, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0),
        np.float32,
    )
    pasted = share > 0
    for component, values in group:
        target = component.samples[y0:y1, x0:x1]
        old = (target >> form.shift if form.shift else target).astype(np.float32)
        new = cv2.warpAffine(values, warp, side, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        mixed = np.asarray(new, np.float32)
        mixed -= old
        mixed *= share
        mixed += old
        code = np.clip(np.rint(mixed, out=mixed), 0, 2**form.depth - 1, out=mixed).astype(target.dtype)
        np.copyto(target, code << form.shift if form.shift else code, where=pasted)


def _checked(matrix: Affine) -> Affine:
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape != (2, 3) or not np.isfinite(matrix).all() or scale(matrix) < _MIN_SCALE:
        raise ValueError(f"need an invertible (2, 3) affine, got {matrix.tolist()}")
    return matrix


def _grid(part: Part, info: VideoInfo) -> Affine:
    """Component samples -> coded pixels."""
    # Chroma lies between lines, and on the left column of its pair (H.264 type 0); in JPEG between the columns too.
    centred = info.pix_fmt.startswith("yuvj")
    return np.array([[part.sub_x, 0, (part.sub_x - 1) / 2 if centred else 0.0], [0, part.sub_y, (part.sub_y - 1) / 2]])


def _bounds(from_crop: Affine, size: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre (x, y) of the rectangle of samples that a crop covers, and half its sides."""
    half = np.array(size) / 2
    linear = from_crop[:, :2]
    return linear @ (half - 0.5) + from_crop[:, 2], np.abs(linear) @ half


def _span(
    from_crop: Affine, size: tuple[int, int], shape: tuple[int, ...], margin: int
) -> tuple[int, int, int, int] | None:
    """Rectangle of samples (half-open) under the crop, cut to the component; None when there is none."""
    centre, half = _bounds(from_crop, size)
    x0, y0 = (max(0, math.floor(low) - margin) for low in (centre - half).tolist())
    x1, y1 = (math.ceil(high) + margin + 1 for high in (centre + half).tolist())
    x1, y1 = min(x1, shape[1]), min(y1, shape[0])
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def _nearest(from_crop: Affine, size: tuple[int, int], shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The corner sample closest to a crop that lies wholly outside."""
    x, y = np.clip(np.rint(_bounds(from_crop, size)[0]).astype(int), 0, [shape[1] - 1, shape[0] - 1])
    return int(x), int(y), int(x) + 1, int(y) + 1


def _codes(form: Layout, info: VideoInfo) -> Codes:
    return codes("rgb" if form.kind == "rgb" else "yuv", colorspace_of(info), full_range(info), form.depth)
