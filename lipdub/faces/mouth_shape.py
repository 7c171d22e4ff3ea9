"""Mouth shapes: eight distances between landmarks that describe a mouth; mouths at rest and closed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lipdub.faces.crop import EYE_DISTANCE, unit_crop_scale

SHAPE_NAMES = (
    "inner opening, centre",
    "inner opening, left in the picture",
    "inner opening, right in the picture",
    "outer height",
    "outer width",
    "inner width",
    "chin to nose base",
    "upper lip to nose base",
)
OPENINGS = slice(0, 3)  # the inner openings among them
_SHAPE_PAIRS = np.array([(62, 66), (61, 67), (63, 65), (51, 57), (48, 54), (60, 64), (8, 33), (51, 33)])  # iBUG
# Root mean square of each distance over the training footage, relative to the clip's mouth at rest; networks see
# distances in this unit.
SHAPE_SCALE: NDArray[np.float32] = np.array([0.068, 0.065, 0.066, 0.069, 0.038, 0.038, 0.050, 0.014], np.float32)
# Change of each distance with the inner opening: slopes over the training footage, rounded.
WITH_OPENING: NDArray[np.float32] = np.array([1, 1, 1, 1.15, 0, 0, 0.9, 0], np.float32)

REST_SHARE = 0.2  # of a clip's frames: the least open ones, whose mean is the mouth at rest
MAX_REST_OPENING = 0.045  # eye distances; in three quarters of the training clips the mouth at rest is less open
# Opening that is asked for where lips must touch, in eye distances. Landmarks of touching lips measure 0.008, but the
# generator leaves some of a gap that it is asked to close: asked for 0.008, the least open tenth of a dub measures
# 0.052; asked for -0.05, 0.026.
CLOSED_OPENING = -0.03


def mouth_shape(landmarks: NDArray[np.floating]) -> NDArray[np.float32]:
    """Distances of SHAPE_NAMES, in units of the distance between the outer eye corners.

    The eye distance is that of the template fitted to brows, eyes and nose. The distance between the two corners
    themselves shrinks as the head turns: over the training footage's turned heads the length of the (rigid) nose
    varies by 2 % in the first unit and by 12 % in the second.

    Args:
        landmarks: (N, 68, 2) in any pixels, crop or frame.

    Returns:
        (N, 8). Left and right (1, 2) trade places in a mirrored face.

    Raises:
        ValueError: another shape, values that are not finite, or a face with all points in one place.
    """
    if np.ndim(landmarks) != 3 or np.shape(landmarks)[1:] != (68, 2):
        raise ValueError(f"landmarks must be (N, 68, 2), got {np.shape(landmarks)}")
    scale = unit_crop_scale(landmarks)
    ends = np.asarray(landmarks, np.float64)[:, _SHAPE_PAIRS]  # (N, 8, 2, 2)
    lengths = np.linalg.norm(ends[:, :, 0] - ends[:, :, 1], axis=2)
    return (lengths * scale[:, None] / EYE_DISTANCE).astype(np.float32)


def rest_shape(shapes: NDArray[np.floating]) -> NDArray[np.float32]:
    """Mouth at rest (8,): mean of the least open fifth of mouth shapes (N, 8), by the inner opening at the centre."""
    calm = np.argsort(shapes[:, 0])[: max(1, round(REST_SHARE * len(shapes)))]
    return shapes[calm].mean(0).astype(np.float32)


def closed_rest(rest: NDArray[np.floating]) -> NDArray[np.float32]:
    """Mouth at rest with an opening of at most MAX_REST_OPENING, for people who never close it in the video.

    The lips' outer height and the chin follow the opening as they do in speech.

    Args:
        rest: (8,) of `rest_shape`.
    """
    excess = max(0.0, float(rest[OPENINGS].mean()) - MAX_REST_OPENING)
    return (rest - excess * WITH_OPENING).astype(np.float32)


def relative_shape(shapes: NDArray[np.floating], rest: NDArray[np.floating]) -> NDArray[np.float32]:
    """Mouth shapes (N, 8) relative to a mouth at rest (8,), in units of SHAPE_SCALE, as networks see them."""
    return ((shapes - rest) / SHAPE_SCALE).astype(np.float32)


def closed_openings(rest: NDArray[np.floating]) -> NDArray[np.float32]:
    """(3,) openings of touching lips, relative to a mouth at rest (8,), in units of SHAPE_SCALE; at most 0."""
    away = (CLOSED_OPENING - rest[OPENINGS]) / SHAPE_SCALE[OPENINGS]
    return np.minimum(away, 0).astype(np.float32)


def shape_code(landmarks: NDArray[np.floating]) -> NDArray[np.float32]:
    """Mouth shapes (T, 8) of a clip's landmarks (T, 68, 2), relative to its own mouth at rest, in SHAPE_SCALE."""
    shapes = mouth_shape(landmarks)
    return relative_shape(shapes, rest_shape(shapes))
