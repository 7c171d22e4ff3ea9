"""What the opening's correlation alone cannot tell: closures, rounding, how far a closed mouth opens.

    mouth_width, lip_thickness          landmarks in iBUG order -> curves against time
    closures, closure_rank              do the lips meet where those of the sound's own video meet?
    opening_reach                       how wide the mouth opens, over how wide the sound's own video does

The curves are of mouth opening or width, in distances of the outer eye corners. What has no value is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from lipdub.metrics import EYE_CORNERS, FAR, FLAT, LAG, mouth_opening

OPEN_PERCENTILE = 90.0  # a mouth's wide opening
CLOSED_SHARE = 0.15  # of that opening: below it the lips are together
CLOSED_S = 0.04  # shortest closure that counts
WIDTH_CORNERS = (48, 54)  # outer corners of the mouth, iBUG
OUTER_MIDDLE = (51, 57)  # middle of the outer upper and lower lip, iBUG


@dataclass(frozen=True)
class Closures:
    """How many closures of the sound's own video a dub makes."""

    made: float  # share in [0, 1]; NaN where the real mouth never closes inside speech
    chance: float  # the same for the dub's curve shifted in time, mean over shifts
    count: int  # real closures


def mouth_width(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Width of the mouth, outer corner to corner, over the distance of the outer eye corners: small when rounded.

        w_t = || p_48 - p_54 || / || p_36 - p_45 ||        (iBUG numbers from 0)

    Args:
        landmarks: (T, 68, 2), any pixels.

    Returns:
        (T,). NaN where landmarks are.

    Raises:
        ValueError: another shape.
    """
    return _over_eyes(landmarks, WIDTH_CORNERS)


def lip_thickness(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """Height of both lips without the gap between them, over the distance of the outer eye corners.

        h_t = || p_51 - p_57 || / || p_36 - p_45 || - o_t,   o of metrics.mouth_opening

    A mouth that swells instead of parting has thicker lips than its source.

    Args:
        landmarks: (T, 68, 2), any pixels.

    Returns:
        (T,). NaN where landmarks are.

    Raises:
        ValueError: another shape.
    """
    return _over_eyes(landmarks, OUTER_MIDDLE) - mouth_opening(landmarks)


def lips_closed(curve: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Frames whose opening is under CLOSED_SHARE of the curve's own OPEN_PERCENTILE-th percentile.

    Args:
        curve: (T,) openings of one speaker, finite.

    Returns:
        (T,) True = the lips are together. All False for a mouth that never moves.
    """
    values = np.asarray(curve, np.float64)
    if np.ptp(values) < FLAT:
        return np.zeros(len(values), bool)
    closed: NDArray[np.bool_] = values < CLOSED_SHARE * np.percentile(values, OPEN_PERCENTILE)
    return closed


def closure_spans(reference: NDArray[np.floating], silent: NDArray[np.bool_], frame_s: float) -> list[slice]:
    """The closures inside speech: runs of `lips_closed` frames of CLOSED_S or more, none of them silent.

    Args:
        reference: (T,) openings of the sound's own video, finite.
        silent: (T,), True in a pause of the sound (metrics.silent_frames).
        frame_s: seconds a frame lasts.

    Raises:
        ValueError: shapes that differ.
    """
    if np.ndim(reference) != 1 or np.shape(reference) != np.shape(silent):
        raise ValueError(f"want a curve (T,) and silent (T,), got {np.shape(reference)} and {np.shape(silent)}")
    edges = np.diff(np.concatenate([[0], lips_closed(reference).astype(np.int8), [0]]))
    runs = zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True)
    shortest = CLOSED_S - 1e-3  # 1/25 s counts, whatever its rounding
    return [slice(int(a), int(b)) for a, b in runs if (b - a) * frame_s >= shortest and not silent[a:b].any()]


def closures(
    curve: NDArray[np.floating], reference: NDArray[np.floating], silent: NDArray[np.bool_], frame_s: float
) -> Closures:
    """The share of the real closures at which the dub's lips meet, too, within +-LAG frames.

        made   = 1/N sum_n max_{t in span_n widened by LAG} closed(a)_t
        chance = mean of the same over the curve rolled by s = FAR .. T - FAR

    Args:
        curve: a, (T,) openings of the dub, finite.
        reference: (T,) those of the sound's own video, same frames.
        silent: (T,), True in a pause of the sound.
        frame_s: seconds a frame lasts.

    Raises:
        ValueError: shapes that differ.
    """
    _alike(curve, reference)
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
    """Where the dub's opening ranks among all its openings in speech at the real closures.

        mean over the frames of the real closures of (rank of a_t - 1/2) / T,  ranks among frames that are not silent

    Args:
        curve: a, (T,) openings of the dub, finite.
        reference: (T,) those of the sound's own video, same frames.
        silent: (T,), True in a pause of the sound.
        frame_s: seconds a frame lasts.

    Returns:
        0 = the most closed of all, 0.5 = chance (a mouth that never moves has it), 1 = the widest. NaN where the real
        mouth never closes inside speech.

    Raises:
        ValueError: shapes that differ.
    """
    _alike(curve, reference)
    spans = closure_spans(reference, silent, frame_s)
    if not spans:
        return float("nan")
    ranks = np.full(len(curve), np.nan)
    ranks[~silent] = (rankdata(np.asarray(curve)[~silent]) - 0.5) / (~silent).sum()
    return float(np.mean([ranks[span].mean() for span in spans]))


def opening_reach(curve: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """How wide the dub opens over how wide the sound's own video does: ratio of their OPEN_PERCENTILE-th percentiles.

    Args:
        curve: (T,) openings of the dub, finite.
        reference: (T,) those of the sound's own video, finite.

    Returns:
        1 = as wide; NaN where the real mouth never opens.

    Raises:
        ValueError: shapes that differ.
    """
    _alike(curve, reference)
    wide = float(np.percentile(reference, OPEN_PERCENTILE))
    return float(np.percentile(curve, OPEN_PERCENTILE)) / wide if wide > FLAT else float("nan")


def _over_eyes(landmarks: NDArray[np.floating], points: tuple[int, int]) -> NDArray[np.float64]:
    if np.ndim(landmarks) != 3 or np.shape(landmarks)[1:] != (68, 2):
        raise ValueError(f"landmarks must be (T, 68, 2), got {np.shape(landmarks)}")
    lengths = [np.linalg.norm(landmarks[:, a] - landmarks[:, b], axis=1) for a, b in (points, EYE_CORNERS)]
    ratio: NDArray[np.float64] = lengths[0].astype(np.float64) / lengths[1]
    return ratio


def _alike(curve: NDArray[np.floating], reference: NDArray[np.floating]) -> None:
    if np.ndim(curve) != 1 or np.shape(curve) != np.shape(reference):
        raise ValueError(f"curves must be (T,) and alike, got {np.shape(curve)} and {np.shape(reference)}")
