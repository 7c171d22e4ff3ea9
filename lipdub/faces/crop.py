"""Face crops: alignment from landmarks, and masks of the mouth in a crop.

Training and `lipdub sync` both crop with this module. The crop's position follows brows, eyes and nose only: if it
moved with lips or jaw, it would reveal the shape of the hidden mouth to the generator (thesis 3.6).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.affine import scale
from lipdub.config import FaceConfig
from lipdub.faces.track import smooth

EYE_DISTANCE = 0.47  # between the outer eye corners of the template, in crop sides
EYE_LINE = 0.29  # y of the template's eyes, the mean of their twelve points
HIDDEN_FROM = 0.5  # y below which the generator's input is always hidden [3.6]

# Mean landmarks of the training footage: 39,113 frames labelled by the landmark teacher. Each corpus was aligned and
# averaged by itself, then all with equal weight; averaged with its mirror image; scaled to EYE_DISTANCE and EYE_LINE.
# Nose base at .55, mouth at .69, chin at .94; in 99 % of the frames the chin is inside the crop.
# fmt: off
TEMPLATE: NDArray[np.float64] = np.array([
    (0.1246, 0.2211), (0.1191, 0.3905), (0.1245, 0.4768), (0.1617, 0.6679), (0.1954, 0.7465),
    (0.2345, 0.8028), (0.3279, 0.8857), (0.4297, 0.9373), (0.5000, 0.9438), (0.5703, 0.9373),
    (0.6721, 0.8857), (0.7655, 0.8028), (0.8046, 0.7465), (0.8383, 0.6679), (0.8755, 0.4768),
    (0.8809, 0.3905), (0.8754, 0.2211), (0.1658, 0.1790), (0.2239, 0.1731), (0.2751, 0.1565),
    (0.3430, 0.1607), (0.4210, 0.1724), (0.5790, 0.1724), (0.6570, 0.1607), (0.7249, 0.1565),
    (0.7761, 0.1731), (0.8342, 0.1790), (0.5000, 0.2699), (0.5000, 0.3535), (0.5000, 0.4279),
    (0.5000, 0.4745), (0.4336, 0.5294), (0.4587, 0.5477), (0.5000, 0.5499), (0.5413, 0.5477),
    (0.5664, 0.5294), (0.2650, 0.2902), (0.2996, 0.2704), (0.3518, 0.2672), (0.4088, 0.2984),
    (0.3593, 0.3060), (0.3068, 0.3079), (0.5912, 0.2984), (0.6482, 0.2672), (0.7004, 0.2704),
    (0.7350, 0.2902), (0.6932, 0.3079), (0.6407, 0.3060), (0.3629, 0.6822), (0.4206, 0.6430),
    (0.4596, 0.6313), (0.5000, 0.6394), (0.5404, 0.6313), (0.5794, 0.6430), (0.6371, 0.6822),
    (0.5806, 0.7432), (0.5433, 0.7584), (0.5000, 0.7634), (0.4567, 0.7584), (0.4194, 0.7432),
    (0.3766, 0.6821), (0.4671, 0.6733), (0.5000, 0.6747), (0.5329, 0.6733), (0.6234, 0.6821),
    (0.5331, 0.6983), (0.5000, 0.7009), (0.4669, 0.6983),
])  # (68, 2) x, y in the unit crop, iBUG order
# fmt: on

FIT = slice(17, 48)  # brows, nose, eyes
# Eye corners and the nose's bridge are the most rigid points: lids blink, brows move, nostrils move a little in speech.
FIT_WEIGHTS = np.full(31, 0.5)
FIT_WEIGHTS[[10, 11, 12, 13, 19, 22, 25, 28]] = 1.0  # bridge and tip of the nose 27-30; eye corners 36, 39, 42, 45
FIT_WEIGHTS[[0, 9]] = 0.25  # outer ends of the brows, which hair hides
FIT_WEIGHTS /= FIT_WEIGHTS.sum()

NOSE_TIP = 30
CHIN = slice(3, 14)  # lower jaw
INNER_LIPS = slice(60, 68)
LIPS_DILATION = 5 / 96  # kernel side over crop side of `parted_lips`
JUMP_SIDES, JUMP_SCALE = 0.25, 0.2  # motion in crop sides and change of log scale between frames that mean a cut
MASK_DILATION = 11 / 96  # kernel side over crop side: 11 pixels at S = 96 [3.5]


def crop_matrix(landmarks: NDArray[np.floating], size: int, *, margin: float = 1.0) -> NDArray[np.float64]:
    """Similarity transform that aligns a face with the template, from brows, eyes and nose only.

        min over s, R, t of  sum_i w_i || s R x_i + t - TEMPLATE_i ||^2,  i = 17 .. 47     (Umeyama 1991)

    Args:
        landmarks: (68, 2) display pixels.
        size: crop side S in pixels.
        margin: crop side over unit crop side; 1.25 shows an eighth of the face more on every side.

    Returns:
        (2, 3) display pixel -> crop pixel. It does not depend on points of the mouth (48-67) or jaw (0-16).

    Raises:
        ValueError: another shape, values that are not finite, or all points in one place.
    """
    if np.shape(landmarks) != (68, 2):
        raise ValueError(f"landmarks must be (68, 2), got {np.shape(landmarks)}")
    turn, shift = _fit(landmarks)
    return _matrices(np.asarray(turn), np.asarray(shift), size, margin)


def crop_matrices(
    landmarks: NDArray[np.floating],
    times_s: NDArray[np.floating],
    config: FaceConfig,
    size: int,
    *,
    margin: float = 1.0,
) -> NDArray[np.float64]:
    """`crop_matrix` for every frame of one track, smoothed without delay.

    Log scale, angle and the crop centre's display position are smoothed over `config.smooth_s`. (Smoothing the matrix's
    last column instead of the centre would couple the three.)

    Args:
        landmarks: (T, 68, 2) display pixels, of one shot.
        times_s: (T,) ascending; frames need not be evenly spaced.
        config: smooth_s is used.
        size: crop side S in pixels.
        margin: as in `crop_matrix`.

    Returns:
        (T, 2, 3) display pixel -> crop pixel.

    Raises:
        ValueError: another shape, values that are not finite, or a frame with all points in one place.
    """
    if np.ndim(landmarks) != 3 or np.shape(landmarks)[1:] != (68, 2) or np.shape(times_s) != (len(landmarks),):
        raise ValueError(f"want landmarks (T, 68, 2) and times (T,), got {np.shape(landmarks)}, {np.shape(times_s)}")
    turn, shift = _fit(landmarks)
    centre = (complex(0.5, 0.5) - shift) / turn
    path = np.stack([np.log(np.abs(turn)), np.unwrap(np.angle(turn)), centre.real, centre.imag], 1)
    parts = np.split(np.arange(len(path)), np.flatnonzero(_jumps(path)) + 1)
    log_scale, angle, x, y = np.concatenate([smooth(path[part], config.smooth_s, times_s[part]) for part in parts]).T
    turn = np.exp(log_scale + 1j * angle)
    return _matrices(turn, complex(0.5, 0.5) - turn * (x + 1j * y), size, margin)


def _jumps(path: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Between which frames the face jumps, (T - 1,): a cut between two framings of one shot.

    Args:
        path: (T, 4) log scale (crop sides a pixel), angle, and centre x, y in pixels, as `crop_matrices` has them.
    """
    step = np.abs(np.diff(path, axis=0))
    away = np.hypot(step[:, 2], step[:, 3]) * np.exp(path[1:, 0])  # in crop sides
    return (away > JUMP_SIDES) | (step[:, 0] > JUMP_SCALE)


def crop_detail(matrix: NDArray[np.floating], max_detail: int) -> int:
    """Resolution of the picture over that of the crop, rounded to an integer from 1 to `max_detail`."""
    return int(np.clip(round(1 / scale(matrix)), 1, max_detail))


def to_unit_crop(landmarks: NDArray[np.floating]) -> NDArray[np.float32]:
    """Landmarks (N, 68, 2) of any pixels in the unit crop of each face, without scale, roll and position."""
    turn, shift = _fit(landmarks)
    points = np.asarray(landmarks, np.float64)
    moved = turn[..., None] * (points[..., 0] + 1j * points[..., 1]) + shift[..., None]
    return np.stack([moved.real, moved.imag], -1).astype(np.float32)


def far_side(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Share (N,) of a face's width that is seen beyond its nose: .5 from the front, 0 where the nose meets the outline.

        min(x_33 - x_2, x_14 - x_33) / (x_14 - x_2),   x in the unit crop

    Args:
        landmarks: (N, 68, 2) of any pixels.
    """
    right, nose, left = to_unit_crop(landmarks)[:, [2, 33, 14], 0].astype(np.float64).T
    return np.minimum(nose - right, left - nose) / np.maximum(left - right, 1e-6)


def unit_crop_scale(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Unit crop sides per pixel (N,), of landmarks (N, 68, 2)."""
    turn, _ = _fit(landmarks)
    return np.abs(turn)


def mouth_mask(
    landmarks: NDArray[np.floating], size: int, *, margin: float = 1.0, others: NDArray[np.floating] | None = None
) -> NDArray[np.float32]:
    """Mouth mask: hull of lower jaw (3-13) and nose tip, dilated by a square of 11 pixels at S = 96.

    As in thesis 3.5, it always covers the chin.

    Args:
        landmarks: (68, 2) crop pixels.
        size: crop side S.
        margin: side of the crop over the unit crop's.
        others: (68, 2) of the same face with another mouth; the hull then covers both jaws.

    Returns:
        (S, S), 1 in the mouth region, 0 elsewhere.

    Raises:
        ValueError: another shape or values that are not finite.
    """
    points = np.vstack([landmarks[CHIN], landmarks[NOSE_TIP]]) if np.shape(landmarks) == (68, 2) else np.empty(0)
    if points.size and others is not None:
        points = np.vstack([points, others[CHIN]])
    if points.size == 0 or not np.isfinite(points).all():
        raise ValueError(f"landmarks must be finite and (68, 2), got {np.shape(landmarks)}")
    return _hull(points, size, MASK_DILATION / margin)


def parted_lips(landmarks: NDArray[np.floating], size: int, *, margin: float = 1.0) -> NDArray[np.float32]:
    """Mask of the mouth's interior: hull of the inner lips (60-67), slightly dilated.

    Args:
        landmarks: (68, 2) crop pixels.
        size: crop side S.
        margin: side of the crop over the unit crop's.

    Returns:
        (S, S), 1 between the lips, 0 elsewhere.
    """
    return _hull(landmarks[INNER_LIPS], size, LIPS_DILATION / margin)


def _hull(points: NDArray[np.floating], size: int, dilation: float) -> NDArray[np.float32]:
    """(S, S), 1 in the convex hull of crop points (P, 2), dilated by a square of `dilation` crop sides."""
    corners = np.rint(np.clip(points, -2 * size, 3 * size)).astype(np.int32)
    mask = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(corners), 1)
    side = 2 * round((dilation * size - 1) / 2) + 1  # odd: the mask grows equally on all sides
    return cv2.dilate(mask, np.ones((side, side), np.uint8)).astype(np.float32)


def _fit(landmarks: NDArray[np.floating]) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Similarity z -> turn * z + shift in the complex plane, landmarks (..., 68, 2) -> unit crop; each (...)."""
    points = np.asarray(landmarks, np.float64)[..., FIT, :]
    if not np.isfinite(points).all():
        raise ValueError("landmarks must be finite")
    source, target = points[..., 0] + 1j * points[..., 1], TEMPLATE[FIT, 0] + 1j * TEMPLATE[FIT, 1]
    source_mean, target_mean = source @ FIT_WEIGHTS, target @ FIT_WEIGHTS
    source, target = source - source_mean[..., None], target - target_mean
    overlap, spread = (source.conj() * target) @ FIT_WEIGHTS, np.abs(source) ** 2 @ FIT_WEIGHTS
    if np.any(np.abs(overlap) < 1e-9):
        raise ValueError("a face with all points in one place has no crop")
    turn = overlap / spread
    return turn, target_mean - turn * source_mean


def _matrices(
    turn: NDArray[np.complex128], shift: NDArray[np.complex128], size: int, margin: float
) -> NDArray[np.float64]:
    """Matrices (..., 2, 3) of z -> turn * z + shift for crops of `size` pixels with a margin."""
    factor = size / margin
    turn, shift = turn * factor, (shift - complex(0.5, 0.5)) * factor + complex(0.5, 0.5) * size
    rows = [np.stack([turn.real, -turn.imag, shift.real], -1), np.stack([turn.imag, turn.real, shift.imag], -1)]
    return np.stack(rows, -2)
