"""Affine maps of the plane: (2, 3) matrices from pixels to pixels, whose integers are pixel centres."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]  # (2, 3)


def compose(outer: Affine, inner: Affine) -> Affine:
    """The map that applies `inner`, then `outer`."""
    both: Affine = outer[:, :2] @ inner
    both[:, 2] += outer[:, 2]
    return both


def invert(matrix: Affine) -> Affine:
    """The map back."""
    return np.asarray(cv2.invertAffineTransform(matrix), np.float64)


def scale(matrix: NDArray[np.floating]) -> float:
    """Length in the target of one pixel of the source."""
    (a, b), (c, d) = matrix[:, :2].tolist()
    return math.sqrt(abs(a * d - b * c))


def transform(points: NDArray[np.floating], matrix: NDArray[np.floating]) -> NDArray[np.float32]:
    """Points (..., 2) through a map."""
    moved: NDArray[np.float32] = (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    return moved


def finer(matrix: NDArray[np.floating], times: int) -> Affine:
    """The same crop `times` as large: each of its pixels becomes times x times that average to it.

    Args:
        matrix: source -> crop.
        times: whole number, at least 1.
    """
    fine: Affine = times * np.asarray(matrix, np.float64)
    fine[:, 2] += (times - 1) / 2
    return fine
