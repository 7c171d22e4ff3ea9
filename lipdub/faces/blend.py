"""Blending of a generated mouth into the frame: mask edge and colour match."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

LOW, HIGH = 0.1, 0.9  # of the blurred mask: nothing is pasted below, nothing of the picture is left above
MAX_GAIN = 1.25  # and its inverse: largest change of contrast that the colour match may make
MAX_SHIFT = 32.0  # levels of 255, the largest change of a channel's mean
MAX_TILT = 16.0  # levels of 255 across the crop, the largest change of a slope in light
NOISE = 4.0  # variance of a channel over the ring, levels squared, below which its contrast is noise
RING_MIN = 32.0  # weight of the ring, in pixels, below which colours are not matched
RIDGE = 0.003  # variance of position, crop sides squared, that damps the plane where the ring is short
OUTLINE, BOTTOM = slice(27), slice(6, 11)  # jaw and brows; the part of the chin that an opening mouth lowers
DROP = 0.15  # unit crop sides: how far below the chin of the frame that of another mouth may be
BESIDE = 0.025  # unit crop sides beside the face over which a new mouth fades out
OUTLIER = 16.0  # levels of 255: a pixel this far from the usual difference counts half (a hand, the moved jaw line)


def paste_alpha(mask: NDArray[np.floating], feather: float, top: float = 0.0) -> NDArray[np.float32]:
    """Opacity of the generated face, from the predicted mask.

        alpha = s((G * mask - LOW) / (HIGH - LOW)) s(b / w),   s(x) = 3 x^2 - 2 x^3 on x clipped to [0, 1]

    G: Gaussian with sigma = feather S / 2; b: distance to the crop's border in pixels; w = feather S. Of thesis (10)
    the blur is kept; the rest makes the far field exactly 0, so that pixels away from the mouth stay as they were.

    Args:
        mask: (S, S) in [0, 1], 1 = generated.
        feather: softness as a share of the crop side.
        top: y in crop sides above which nothing is pasted, whatever the mask says.

    Returns:
        (S, S) in [0, 1]: 0 on the outermost pixels, 1 well inside, and nowhere smaller for a larger mask.

    Raises:
        ValueError: not a square picture.
    """
    if np.ndim(mask) != 2 or mask.shape[0] != mask.shape[1]:
        raise ValueError(f"mask must be (S, S), got {np.shape(mask)}")
    size = mask.shape[0]
    soft = np.asarray(mask, np.float32)
    if feather > 0:
        soft = cv2.GaussianBlur(soft, (0, 0), feather * size / 2, borderType=cv2.BORDER_REPLICATE)  # type: ignore[assignment]
    return _smoothstep((soft - LOW) / (HIGH - LOW)) * _border_ramp(size, feather, top)


def inside_outline(landmarks: NDArray[np.floating], size: int, *, margin: float = 1.0) -> NDArray[np.float32]:
    """Opacity that keeps what is beside a face as it is: background, hair and collar do not follow its jaw.

    Args:
        landmarks: (68, 2) crop pixels.
        size: crop side S.
        margin: side of the crop over the unit crop's.

    Returns:
        (S, S): 1 in the convex hull of jaw, brows and room for a lower chin, 0 from BESIDE outside of it on.
    """
    unit = size / margin
    points = np.vstack([landmarks[OUTLINE], landmarks[BOTTOM] + np.array([0, DROP * unit])])
    hull = cv2.convexHull(points.astype(np.float32))[:, 0]
    along = np.roll(hull, -1, 0) - hull
    normals = np.stack([along[:, 1], -along[:, 0]], 1) / np.maximum(np.linalg.norm(along, axis=1)[:, None], 1e-6)
    normals *= np.sign((normals * (hull - hull.mean(0))).sum())  # they point outwards
    line = np.arange(size, dtype=np.float32)
    away = np.full((size, size), -np.inf, np.float32)
    for (right, down), corner in zip(normals, hull, strict=True):
        np.maximum(away, right * (line - corner[0]) + (down * (line - corner[1]))[:, None], out=away)
    return _smoothstep(1 - away / (BESIDE * unit))


def extent(alpha: NDArray[np.floating | np.bool_]) -> tuple[slice, slice]:
    """The smallest rectangle (rows, columns) of an opacity (H, W) that holds all that is not 0; empty where all is."""
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    if rows.size == 0:
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def match_colour(
    generated: NDArray[np.float32], original: NDArray[np.float32], alpha: NDArray[np.float32], side: int | None = None
) -> NDArray[np.float32]:
    """Generated face with the colours of the picture around it.

    The two are compared on the ring where both show the same skin, the soft edge of alpha: w = 4 alpha (1 - alpha),
    reduced at pixels whose difference is an outlier. Each channel gets the gain and offset that make mean and deviation
    on the ring equal, then the slope b x + c y of the remaining difference (light from one side):

        g' = s_o / s_g (g - m_g) + m_o + b x + c y

    An affine difference of colours is removed (within the limits above); equal pictures are returned unchanged.

    Args:
        generated: (H, W, 3) in [0, 255], a face crop or a part of it.
        original: the same part of the picture's crop.
        alpha: (H, W) of `paste_alpha`.
        side: S, of the whole crop, in pixels; W if None.

    Returns:
        (H, W, 3) in [0, 255]; `generated` itself where there is no ring.

    Raises:
        ValueError: shapes do not agree.
    """
    if generated.shape != original.shape or generated.shape != (*alpha.shape, 3):
        raise ValueError(f"shapes disagree: {generated.shape}, {original.shape}, alpha {alpha.shape}")
    opacity = np.ravel(alpha)
    ring = np.flatnonzero((opacity > 0.02) & (opacity < 0.98))
    edge = opacity[ring]
    weight = 4 * edge * (1 - edge)
    if weight.sum() < RING_MIN:
        return generated
    places = _unit_places(side or alpha.shape[1])[: alpha.shape[0], : alpha.shape[1]]
    made, real, at = (_samples(each, ring) for each in (generated, original, places))
    away = real - made
    unusual = np.abs(away - np.median(away, 1, keepdims=True)).mean(0)
    weight /= 1 + (unusual / OUTLIER) ** 2
    weight /= weight.sum()
    mean_made, mean_real = made @ weight, real @ weight
    made -= mean_made[:, None]
    real -= mean_real[:, None]
    gain = np.sqrt((real**2 @ weight + NOISE) / (made**2 @ weight + NOISE))
    gain = np.clip(gain, 1 / MAX_GAIN, MAX_GAIN)
    mean = mean_made + np.clip(mean_real - mean_made, -MAX_SHIFT, MAX_SHIFT)
    plane = cv2.transform(places, _slopes(real - gain[:, None] * made, weight, at))
    matched = cv2.transform(generated, np.column_stack([np.diag(gain), mean - gain * mean_made]))
    return np.clip(cv2.add(matched, plane), 0, 255)


def _samples(picture: NDArray[np.float32], ring: NDArray[np.int64]) -> NDArray[np.float32]:
    """Values (3, P) of a picture (H, W, 3) at the numbers of P pixels."""
    return np.ascontiguousarray(picture.reshape(-1, 3).take(ring, 0).T)


@lru_cache(maxsize=8)
def _unit_places(side: int) -> NDArray[np.float32]:
    """(S, S, 3): x and y of each pixel in crop sides, and 1."""
    line = np.arange(side, dtype=np.float32) / np.float32(side)
    places: NDArray[np.float32] = np.stack([*np.meshgrid(line, line), np.ones((side, side), np.float32)], 2)
    places.setflags(write=False)  # shared by all calls
    return places


def _slopes(rest: NDArray[np.floating], weight: NDArray[np.floating], at: NDArray[np.floating]) -> NDArray[np.floating]:
    """Least-squares planes through `rest` (3, P) at the places x, y, 1 (3, P), 0 at their centre: (3, 3) by channel."""
    middle = at @ weight
    away = (at - middle[:, None])[:2]
    weighted = away * weight
    slopes = np.linalg.solve(weighted @ away.T + RIDGE * np.eye(2, dtype=np.float32), weighted @ rest.T)  # (2, 3)
    slopes = np.clip(slopes, -MAX_TILT, MAX_TILT)
    return np.column_stack([slopes.T, -slopes.T @ middle[:2]])


def _smoothstep(x: NDArray[np.floating]) -> NDArray[np.float32]:
    inside: NDArray[np.floating] = np.clip(x, 0, 1)
    step: NDArray[np.float32] = (inside * inside * (3 - 2 * inside)).astype(np.float32)
    return step


@lru_cache(maxsize=8)
def _border_ramp(size: int, feather: float, top: float) -> NDArray[np.float32]:
    """(S, S) 0 on the outermost pixels and above `top`, 1 from feather S pixels inwards."""
    line = np.arange(size, dtype=np.float32)
    sides = np.minimum(line, line[::-1])
    down = np.clip(np.minimum(line - top * (size - 1), line[::-1]), 0, None)
    ramp = _smoothstep(np.minimum(down[:, None], sides) / max(1.0, feather * size))
    ramp.setflags(write=False)  # shared by all calls
    return ramp
