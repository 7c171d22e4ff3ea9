"""Visibility of the border of a generated mouth.

Grey levels are averaged along lines around the mouth. Over all frames and along a line the texture of the skin cancels;
what remains is a smooth profile of shading. A seam is a kink in it, at the same distance and in the same direction on
all sides, unlike a jaw, a beard or a hand:

    p_a(k) = mean of grey over the skin at distance k from a border, in sector a
    kink   = max_k | median_a ( p_a(k + 1) - 2 p_a(k) + p_a(k - 1) ) | / 2

Borders: the mouth mask's (nose tip and jaw), the outer lips', and rows beside the nose's base. A border that is blended
over several pixels has no kink, and is not visible either.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.evaluation.landmark_track import lips_mask
from lipdub.faces.backend import LUMA
from lipdub.faces.crop import mouth_mask

OUTSIDE, INSIDE = 4 / 96, 8 / 96  # reach of the lines on each side of the mask's border, in crop sides
LIPS_FROM, LIPS_TO = 5 / 96, 16 / 96  # reach of the lines round the lips; nearer ones are on the lips
LOWER = 0.47  # rows of the unit crop from here down can be generated
JAW = 0.66  # down to here the mask's border runs through skin
BASE = 0.62  # down to here a mask may be cut off in a straight line
BESIDE = (0.2, 0.4)  # columns of the left cheek, beside the nose; the right one is its mirror image
MOUTH = (0.5, 0.69)  # its middle in the unit crop
SECTORS = 8  # of the full turn round it
FEWEST = 40  # pixels of a line, over all frames, that are needed for an average


class SeamMeter:
    """Measures the kink of one face from its frames, crops of `size` pixels."""

    def __init__(self, size: int) -> None:
        self._size = size
        y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
        turn = np.arctan2(y - MOUTH[1], x - MOUTH[0]) / (2 * np.pi) + 0.5
        self._sector = np.minimum(np.floor(turn * SECTORS), SECTORS - 1).astype(np.int64)
        self._lower, self._cheek = y > LOWER, (y > LOWER) & (y < JAW)
        beside = (np.abs(x - 0.5) > 0.5 - BESIDE[1]) & (np.abs(x - 0.5) < 0.5 - BESIDE[0])
        self._rows = np.where(beside & (y > LOWER) & (y < BASE), np.floor((y - LOWER) * size), -1)
        self._sums = np.zeros((3, 2, SECTORS * size))

    def add(self, face: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> None:
        """Add a frame: crop (S, S, 3), landmarks (68, 2) in its pixels."""
        grey = face.astype(np.float32) @ np.array(LUMA, np.float32)
        mask = mouth_mask(landmarks, self._size).astype(np.uint8)
        depth = np.where(mask > 0, _distance(mask) - 0.5, 0.5 - _distance(1 - mask)) + OUTSIDE * self._size
        inside = self._cheek & (depth >= 0) & (depth < (OUTSIDE + INSIDE) * self._size)
        border = np.where(inside, np.floor(depth), -1)
        away = _distance(1 - lips_mask(landmarks, self._size).astype(np.uint8)) - LIPS_FROM * self._size
        near = (mask > 0) & self._lower & (away >= 0) & (away < (LIPS_TO - LIPS_FROM) * self._size)
        for sums, levels in zip(self._sums, (border, np.where(near, np.floor(away), -1), self._rows), strict=True):
            known = levels >= 0
            places = self._sector[known] * self._size + levels[known].astype(np.int64)
            sums[0] += np.bincount(places, grey[known], minlength=SECTORS * self._size)
            sums[1] += np.bincount(places, minlength=SECTORS * self._size)

    def kink(self) -> float:
        """The largest kink, in grey levels; NaN without frames."""
        kinks = [kink for sums in self._sums for kink in _kinks(sums.reshape(2, SECTORS, self._size))]
        return max(kinks, default=float("nan"))


def _kinks(sums: NDArray[np.float64]) -> list[float]:
    """Kinks of one border at each distance, from totals and counts (2, SECTORS, levels)."""
    total, count = sums
    profile = np.where(count >= FEWEST, total / np.maximum(count, 1), np.nan)
    bends = (profile[:, :-2] - 2 * profile[:, 1:-1] + profile[:, 2:]) / 2
    seen = np.isfinite(bends).sum(0)
    full = seen >= max(2, seen.max() / 2)  # distances present in half of the sectors that the border crosses
    return np.abs(np.nanmedian(bends[:, full], 0)).tolist() if full.any() else []


def _distance(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Distance of each mask pixel from the nearest pixel outside."""
    return np.asarray(cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)
