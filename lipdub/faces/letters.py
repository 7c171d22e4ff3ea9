"""Letters in front of a face: captions burnt into the picture at the height of the mouth.

A letter is bright and thin, with something darker next to it (an outline or a shadow): the luma's white top-hat by a
disc of STROKE is high, and the black top-hat beside it is, too. Teeth look the same, so the decision uses the share of
letter pixels in the lower face without the lips. In 1,165 frames of clips/dev and clips/scenes without letters the
share is at most 0.024 (highlights on dark skin); under a caption it is 0.05 or more.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.faces.backend import Frame
from lipdub.faces.crop import CHIN, NOSE_TIP

EYE_CORNERS = (36, 45)  # outer ones, iBUG
LIPS, NOSE = slice(48, 60), slice(27, 36)  # iBUG
STROKE = 0.2  # of the distance of the outer eye corners: the thickest stroke of a letter
BRIGHT, BRIGHTER, DARKER = 170, 60, 50  # luma of a letter; its white top-hat; the black top-hat beside it; all at least
EDGE = 0.05  # eye distances by which the lower face is shrunk, and the lips are grown
MIN_SHARE = 0.035  # of the lower face without the lips
MAX_COVER = 0.8  # of the same, with outlines: more is noise, or leaves nothing to dub
OUTLINE = 0.02  # eye distances round a letter that belong to it


def find_letters(crop: Frame, landmarks: NDArray[np.floating]) -> NDArray[np.bool_] | None:
    """Mask of letters in front of the lower face, with their outlines; None without letters.

    Args:
        crop: (S, S, 3) RGB.
        landmarks: (68, 2) of the face, crop pixels.

    Returns:
        (S, S), True on letters, in those rows that have letters on the face.

    Raises:
        ValueError: another shape.
    """
    if np.shape(landmarks) != (68, 2) or crop.ndim != 3:
        raise ValueError(f"want a crop (S, S, 3) and landmarks (68, 2), got {np.shape(crop)}, {np.shape(landmarks)}")
    eyes = float(np.linalg.norm(landmarks[EYE_CORNERS[0]] - landmarks[EYE_CORNERS[1]]))
    near = _surroundings(landmarks, eyes, len(crop))
    corner = np.array([near[1].start, near[0].start], np.float32)
    if _letter_parts(crop[near], landmarks - corner, eyes) is None:  # the same answer from a part of the crop
        return None
    parts = _letter_parts(crop, landmarks, eyes)
    if parts is None:
        return None
    rows = np.flatnonzero((parts.bright & parts.face & _dilated(parts.dark, 2 * OUTLINE * eyes)).any(1))
    reach = round(STROKE * eyes)
    letters = parts.bright & _dilated(parts.dark, STROKE * eyes / 2)  # thick ones, too
    letters[: max(0, rows[0] - reach)] = False
    letters[rows[-1] + reach + 1 :] = False
    outlined = letters | (parts.dark & _dilated(letters, STROKE * eyes / 2))
    covered = _dilated(outlined, OUTLINE * eyes)
    return covered if covered[parts.face].mean() < MAX_COVER else None


class _LetterParts(NamedTuple):
    """Masks (H, W) of a picture with letters on the face."""

    bright: NDArray[np.bool_]  # bright and thin
    dark: NDArray[np.bool_]  # dark and thin
    face: NDArray[np.bool_]  # lower face without lips and nose


def _letter_parts(picture: Frame, landmarks: NDArray[np.floating], eyes: float) -> _LetterParts | None:
    """What letters are made of; None where the face has less than MIN_SHARE of them."""
    luma = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    face = cv2.erode(_hull(np.vstack([landmarks[CHIN], landmarks[NOSE_TIP]]), luma.shape), _disc(EDGE * eyes)).astype(
        bool
    )
    for shining in (landmarks[LIPS], landmarks[NOSE]):
        face &= ~_dilated(_hull(shining, luma.shape).astype(bool), EDGE * eyes)
    bright, min_pixels = luma >= BRIGHT, MIN_SHARE * max(1, int(face.sum()))
    if (bright & face).sum() < min_pixels:
        return None
    disc = _disc(STROKE * eyes)
    bright &= cv2.morphologyEx(luma, cv2.MORPH_TOPHAT, disc) >= BRIGHTER
    if (bright & face).sum() < min_pixels:
        return None
    dark = cv2.morphologyEx(luma, cv2.MORPH_BLACKHAT, disc) >= DARKER
    on_face = bright & face & _dilated(dark, 2 * OUTLINE * eyes)
    return None if on_face.sum() < min_pixels else _LetterParts(bright, dark, face)


def _surroundings(landmarks: NDArray[np.floating], eyes: float, side: int) -> tuple[slice, slice]:
    """Rows and columns of the lower face, with all pixels that a decision about it depends on."""
    margin = (STROKE + 4 * OUTLINE) * eyes + 6
    lower = np.vstack([landmarks[CHIN], landmarks[NOSE_TIP]])
    low = np.clip(np.floor(lower.min(0) - margin), 0, side - 1).astype(int)
    high = np.clip(np.ceil(lower.max(0) + margin) + 1, low + 1, side).astype(int)
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _hull(points: NDArray[np.floating], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """(S, S) 1 within the convex hull of points (N, 2)."""
    area = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(area, cv2.convexHull(np.rint(points).astype(np.int32)), (1,))
    return area


def _dilated(area: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    return cv2.dilate(area.astype(np.uint8), _disc(2 * radius)).astype(bool)


def _disc(diameter: float) -> NDArray[np.uint8]:
    side = max(3, round(diameter) | 1)
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)
