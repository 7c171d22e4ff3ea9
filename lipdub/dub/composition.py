"""Composition of a face on the CPU: what `models.warp.compose_part` does on an accelerator, with OpenCV."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.faces.blend import extent
from lipdub.models.warp import Cells

Picture = NDArray[np.float32]  # (height, width, 3) in [0, 1]
MIN_WEIGHT = 1 / 512  # a smaller weight changes no colour by half a level of 255


def compose_face(
    flows: NDArray[np.float32],
    weights: NDArray[np.float32],
    pictures: Sequence[Picture],
    cells: Cells,
    gains: NDArray[np.float32] | None = None,
) -> Picture:
    """A part of a face, mixed from warped references.

    Args:
        flows: (K, 2, w / 2, w) of the references, as in `models.warp.Warp`.
        weights: (K, w / 2, w) of the references.
        pictures: K references (D, D, 3), whole; D is a multiple of w.
        cells: the part, in pixels of the flows.
        gains: (G, 3), colours of the first G references are multiplied by; None: by 1.

    Returns:
        (height, width, 3); all NaN where a flow is not finite. Beyond its border a picture shows its edge.
    """
    side, across = len(pictures[0]), weights.shape[2]
    times = side // across
    rows, columns = cells.times(times)
    composed = np.zeros((rows.stop - rows.start, columns.stop - columns.start, 3), np.float32)
    if not np.isfinite(flows).all():
        return np.full_like(composed, np.nan)
    line = np.arange(side, dtype=np.float32)
    places = np.meshgrid(line[columns], line[side // 2 :][rows])
    for k, (flow, weight, picture) in enumerate(zip(flows, weights, pictures, strict=True)):
        seen_in = _cells_in_use(weight, cells)
        if seen_in is None:
            continue
        share = _enlarged(weight, side, seen_in, across)
        shares = [share * gain for gain in gains[k]] if gains is not None and k < len(gains) else [share] * 3
        inside = tuple(
            slice(part.start - of.start, part.stop - of.start)
            for part, of in zip(seen_in.times(times), (rows, columns), strict=True)
        )
        x, y = (
            at[inside] + side * _enlarged(away, side, seen_in, across) for at, away in zip(places, flow, strict=True)
        )
        seen = cv2.remap(picture, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        cv2.accumulateProduct(seen, cv2.merge(shares), composed[inside])
    return np.clip(composed, 0, 1, out=composed)  # cubics overshoot


def _cells_in_use(weight: NDArray[np.float32], cells: Cells) -> Cells | None:
    """The rectangle of `cells` in which a reference's weight (w / 2, w) shows, with the cells that border on it."""
    part = weight[cells] >= MIN_WEIGHT
    if not part.any():
        return None
    bounds = [
        slice(within.start + max(0, seen.start - 1), min(within.stop, within.start + seen.stop + 1))
        for within, seen in zip(cells, extent(part), strict=True)
    ]
    return Cells(*bounds)


def _enlarged(field: NDArray[np.float32], side: int, cells: Cells, across: int) -> NDArray[np.float32]:
    """What lies in `cells`, `across` of which are a row, of a lower half (h, 2 h, ...) enlarged to `side`."""
    times = side // field.shape[1]
    rows, columns = cells.times(field.shape[1] // across)
    top, left = max(0, rows.start - 1), max(0, columns.start - 1)  # with a neighbour on each side for interpolation
    part = np.ascontiguousarray(field[top : rows.stop + 1, left : columns.stop + 1])
    if times > 1:
        part = cv2.resize(part, None, fx=times, fy=times, interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    down, right = times * (rows.start - top), times * (columns.start - left)
    height, width = times * (rows.stop - rows.start), times * (columns.stop - columns.start)
    return part[down : down + height, right : right + width]
