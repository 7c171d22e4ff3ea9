"""Measures of the mouth beside the opening's correlation: closures, rounding, second contours, the interior.

    mouth_width, lip_thickness          landmarks in iBUG order -> curves against time
    closures, closure_rank              do the lips close where those of the sound's own video close?
    opening_reach                       widest opening over that of the sound's own video
    contour_profiles, second_contour    is there a contour below the lips that no frame of the source has?
    interior_share                      is the area between the lips dark, or teeth?

Curves are of mouth opening or width, in distances of the outer eye corners, and finite. Undefined values are NaN;
shapes that do not fit raise ValueError. Arguments of several functions:

    curve       (T,) openings of the dub
    reference   (T,) those of the sound's own video, of the same frames
    silent      (T,) True in a pause of the sound (metrics.silent_frames)
    frame_s     seconds a frame lasts
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d
from scipy.stats import rankdata

from lipdub.faces.backend import LUMA
from lipdub.metrics import FAR, FLAT, LAG, PEAK, check_curves, mouth_opening, over_eyes

OPEN_PERCENTILE = 90.0  # a mouth's wide opening
CLOSED_SHARE = 0.15  # of that opening: below it the lips are together
CLOSED_S = 0.04  # shortest closure that counts
WIDTH_CORNERS = (48, 54)  # outer corners of the mouth, iBUG
OUTER_MIDDLE = (51, 57)  # middle of the outer upper and lower lip, iBUG
CHIN = 8  # iBUG
CONTOUR_COLUMNS = 0.3  # of the mouth's width to either side of its middle, where a chin is horizontal
BELOW_LIP, BELOW_CHIN = 0.05, 0.04  # crop sides: where rows below the lips begin and end
SECOND_CONTOUR = 2.4  # grey levels per pixel: 1 % of 2,109 real frames of 12 clips have more
SAME_ROW = 2 / 160  # crop sides: closer contours count as one
OUTER_LIPS, INNER_LIPS = slice(48, 60), slice(60, 68)  # iBUG
PARTED = 0.06  # eye distances: openings from which the mouth's interior is visible
FEW_PIXELS = 12  # between the lips: fewer are not measured
DARK = 0.6  # of the lips' median luma: darker pixels are the mouth's interior
PALE = 0.5  # of the lips' redness: less red pixels that are brighter than the lips are teeth


@dataclass(frozen=True)
class Closures:
    """Share of the closures in the sound's own video that a dub has."""

    made: float  # share in [0, 1]; NaN where the real mouth never closes inside speech
    chance: float  # the same for the dub's curve shifted in time, mean over shifts
    count: int  # real closures


def mouth_width(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Width of the mouth (T,): `over_eyes` of its outer corners, 48 and 54; small when rounded."""
    return over_eyes(landmarks, *WIDTH_CORNERS)


def lip_thickness(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Height of both lips without the gap between them (T,): `over_eyes` of 51 and 57 less `mouth_opening`.

    A generated mouth whose lips swell instead of parting has thicker lips than its source.
    """
    return over_eyes(landmarks, *OUTER_MIDDLE) - mouth_opening(landmarks)


def lips_closed(curve: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Frames whose opening is under CLOSED_SHARE of the curve's own OPEN_PERCENTILE-th percentile.

    Returns:
        (T,) True = the lips touch. All False for a mouth that never moves.
    """
    values = np.asarray(curve, np.float64)
    if np.ptp(values) < FLAT:
        return np.zeros(len(values), bool)
    return values < CLOSED_SHARE * np.percentile(values, OPEN_PERCENTILE)


def closure_spans(reference: NDArray[np.floating], silent: NDArray[np.bool_], frame_s: float) -> list[slice]:
    """The closures inside speech: runs of `lips_closed` frames of CLOSED_S or more, none of them silent."""
    check_curves(reference, silent)
    edges = np.diff(np.concatenate([[0], lips_closed(reference).astype(np.int8), [0]]))
    runs = zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True)
    shortest = CLOSED_S - 1e-3  # 1/25 s counts, whatever its rounding
    return [slice(int(a), int(b)) for a, b in runs if (b - a) * frame_s >= shortest and not silent[a:b].any()]


def closures(
    curve: NDArray[np.floating], reference: NDArray[np.floating], silent: NDArray[np.bool_], frame_s: float
) -> Closures:
    """Share of the real closures at which the dub's lips close, within +-LAG frames.

    made   = 1/N sum_n max_{t in span_n widened by LAG} closed(curve)_t
    chance = mean of the same over the curve rolled by s = FAR .. T - FAR
    """
    check_curves(curve, reference)
    spans = closure_spans(reference, silent, frame_s)
    if not spans:
        return Closures(float("nan"), float("nan"), 0)
    closed = lips_closed(curve)

    def share(frames: NDArray[np.bool_]) -> float:
        return float(np.mean([frames[max(0, span.start - LAG) : span.stop + LAG].any() for span in spans]))

    shifted = [share(np.roll(closed, shift)) for shift in range(FAR, len(closed) - FAR + 1)]
    return Closures(share(closed), float(np.mean(shifted)) if shifted else float("nan"), len(spans))


def closure_rank(
    curve: NDArray[np.floating], reference: NDArray[np.floating], silent: NDArray[np.bool_], frame_s: float
) -> float:
    """Mean rank of the dub's opening at the real closures among all its openings in speech.

        mean over the frames of the real closures of (rank of curve_t - 1/2) / T, ranks among frames that are not silent

    Returns:
        0 = the most closed of all, 0.5 = chance (a mouth that never moves has it), 1 = the widest. NaN where the real
        mouth never closes inside speech.
    """
    check_curves(curve, reference)
    spans = closure_spans(reference, silent, frame_s)
    if not spans:
        return float("nan")
    ranks = np.full(len(curve), np.nan)
    ranks[~silent] = (rankdata(np.asarray(curve)[~silent]) - 0.5) / (~silent).sum()
    return float(np.mean([ranks[span].mean() for span in spans]))


def opening_reach(curve: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Widest opening of the dub over that of the sound's own video: ratio of their OPEN_PERCENTILE-th percentiles.

    Returns:
        1 = as wide; NaN where the real mouth never opens.
    """
    check_curves(curve, reference)
    wide = float(np.percentile(reference, OPEN_PERCENTILE))
    return float(np.percentile(curve, OPEN_PERCENTILE)) / wide if wide > FLAT else float("nan")


def contour_profiles(faces: NDArray[np.floating], landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Strength of a horizontal edge in each row of a face, in the columns around the middle of the mouth.

        g_t(y) = | d/dy mean_x I_t(x, y) |,  x within CONTOUR_COLUMNS mouth widths of the mouth's middle

    The mean over the columns comes first, so that noise and skin texture cancel and horizontal edges remain.

    Args:
        faces: (T, 3, S, S) RGB in [0, 1], crops that follow the head and show the chin.
        landmarks: (T, 68, 2) in their pixels.

    Returns:
        (T, S) grey levels (0..255) per pixel.
    """
    _check_faces(faces, landmarks)
    side = faces.shape[3]
    profiles = np.zeros((len(faces), side))
    for profile, face, points in zip(profiles, faces, landmarks, strict=True):
        left, right = points[WIDTH_CORNERS[0], 0], points[WIDTH_CORNERS[1], 0]
        middle, reach = (left + right) / 2, CONTOUR_COLUMNS * abs(right - left)
        first = int(np.clip(middle - reach, 0, side - 1))
        last = int(np.clip(middle + reach + 1, first + 1, side))
        profile[:] = np.abs(np.gradient(_luma(face[:, :, first:last]).mean(1)))
    return profiles


def second_contour(
    profiles: NDArray[np.floating],
    landmarks: NDArray[np.floating],
    source: NDArray[np.floating],
    source_landmarks: NDArray[np.floating],
    *,
    apart: int = 0,
) -> NDArray[np.float64]:
    """Strength of the strongest edge between lips and chin that the best matching source frame lacks.

        c_t = min_s max_y [ g_t(y) - max_{|d| <= SAME_ROW} h_s(y + d) ],
        y from BELOW_LIP under the lower lip of frame t to BELOW_CHIN under the lower of its two chins

    A newly drawn chin matches a frame of the source with the same opening. A new chin above the old one, which is still
    visible, matches none.

    Args:
        profiles: g, (T, S) of the dub, by `contour_profiles`.
        landmarks: (T, 68, 2) of the dub in the same pixels.
        source: h, (U, S) of the source, in crops at the same place of the head.
        source_landmarks: (U, 68, 2) of the source, U >= T; frame t of both is the same.
        apart: source frames within this distance of t are not matched; for real frames against themselves.

    Returns:
        (T,) grey levels per pixel; real frames seldom reach SECOND_CONTOUR. NaN where no row is left.
    """
    side = profiles.shape[1]
    if source.shape[1:] != (side,) or not len(profiles) <= len(source) == len(source_landmarks):
        raise ValueError(f"profiles {profiles.shape} and {source.shape} do not fit")
    explained = maximum_filter1d(source, 2 * round(SAME_ROW * side) + 1, axis=1)
    strengths = np.full(len(profiles), np.nan)
    for t, points in enumerate(landmarks):
        first = int(max(0.0, points[OUTER_MIDDLE[1], 1] + BELOW_LIP * side))
        chin = max(points[CHIN, 1], source_landmarks[t, CHIN, 1])
        rows = slice(first, int(min(side, chin + BELOW_CHIN * side + 1)))
        excess = profiles[t, None, rows] - explained[:, rows]
        near = np.arange(len(source))
        excess = excess[np.abs(near - t) > apart] if apart else excess
        if excess.size:
            strengths[t] = excess.max(1).min()
    return strengths


def interior_share(faces: NDArray[np.floating], landmarks: NDArray[np.floating]) -> float:
    """Share of the area between parted lips that is dark or teeth; a swollen lip mistaken for an opening has little.

    Dark: luma below DARK of the lips' median. Tooth: brighter than that median, and less red than PALE of the lips,
    with redness (R - G) / (R + G + B). Lips: the outer contour without the inner one.

    Args:
        faces: (T, 3, S, S) RGB in [0, 1].
        landmarks: (T, 68, 2) in their pixels.

    Returns:
        Percent, mean over the frames that open by PARTED or more; NaN if there is none.
    """
    _check_faces(faces, landmarks)
    shares = []
    for t in np.flatnonzero(mouth_opening(landmarks) >= PARTED):
        outer, inner = (_polygon(landmarks[t, part], faces.shape[3]) for part in (OUTER_LIPS, INNER_LIPS))
        lips = outer & ~inner
        if min(inner.sum(), lips.sum()) < FEW_PIXELS:
            continue
        luma, redness = _luma(faces[t]), (faces[t, 0] - faces[t, 1]) / (faces[t].sum(0) + 1e-6)
        middle = np.median(luma[lips])
        tooth = (luma > middle) & (redness < PALE * np.median(redness[lips]))
        shares.append(100 * float((tooth | (luma < DARK * middle))[inner].mean()))
    return float(np.mean(shares)) if shares else float("nan")


def _polygon(points: NDArray[np.floating], side: int) -> NDArray[np.bool_]:
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [np.rint(np.clip(points, -2 * side, 3 * side)).astype(np.int32)], 1)
    return mask.astype(bool)


def _luma(face: NDArray[np.floating]) -> NDArray[np.float64]:
    """(3, H, W) in [0, 1] -> (H, W) in 0..255."""
    return PEAK * np.tensordot(LUMA, face.astype(np.float64), 1)


def _check_faces(faces: NDArray[np.floating], landmarks: NDArray[np.floating]) -> None:
    if np.ndim(faces) != 4 or faces.shape[1] != 3 or landmarks.shape != (len(faces), 68, 2):
        raise ValueError(f"want faces (T, 3, S, S) and landmarks (T, 68, 2), got {faces.shape} and {landmarks.shape}")
