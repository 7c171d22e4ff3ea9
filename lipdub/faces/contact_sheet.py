"""Contact sheet: a picture of each face, with captions, in rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from lipdub.errors import OutputError
from lipdub.faces.backend import Frame

ENDINGS = (".png", ".jpg", ".jpeg")
_GAP, _LINE = 8, 18  # pixels between cells, and of a line of text
_FONT, _TEXT, _PAPER = cv2.FONT_HERSHEY_SIMPLEX, (20, 20, 20), 245
_WIDE_ROWS = 1.6  # columns over rows, about the shape of a screen


def contact_sheet(pictures: Sequence[Frame], captions: Sequence[Sequence[str]]) -> Frame:
    """Page of all pictures with their captions.

    Args:
        pictures: (S, S, 3) each, S the same for all; at least one.
        captions: a few lines of ASCII for each; the first is larger.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: no picture, other counts or sizes.
    """
    sides = {picture.shape for picture in pictures}
    if len(sides) != 1 or len(pictures) != len(captions):
        raise ValueError(f"pictures of sizes {sorted(sides)} with {len(captions)} captions for {len(pictures)}")
    side = pictures[0].shape[0]
    n_columns = min(len(pictures), math.ceil(math.sqrt(_WIDE_ROWS * len(pictures))))
    n_rows = math.ceil(len(pictures) / n_columns)
    wide, high = side + _GAP, side + _GAP + _LINE * max(len(lines) for lines in captions)
    page = np.full((n_rows * high + _GAP, n_columns * wide + _GAP, 3), _PAPER, np.uint8)
    for number, (picture, lines) in enumerate(zip(pictures, captions, strict=True)):
        row, column = divmod(number, n_columns)
        top, left = row * high + _GAP, column * wide + _GAP
        page[top : top + side, left : left + side] = picture
        for line, text in enumerate(lines):
            at = (left, top + side + _LINE * (line + 1) - 4)
            cv2.putText(page, text, at, _FONT, 0.5 if line == 0 else 0.4, _TEXT, 1, cv2.LINE_AA)
    return page


def encode_picture(picture: Frame, ending: str) -> bytes:
    """A picture as the bytes of a file.

    Args:
        picture: (H, W, 3).
        ending: one of ENDINGS.

    Raises:
        OutputError: another ending.
    """
    if ending.lower() not in ENDINGS:
        raise OutputError(f"cannot write a picture as {ending or 'a file without an ending'}", f"use {ENDINGS[0]}")
    return bytes(cv2.imencode(ending.lower(), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1])
