"""`--label`: a caption in the upper left corner of every picture, which says that the video was dubbed with AI."""

from __future__ import annotations

import unicodedata

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.config import MediaConfig
from lipdub.errors import InputError
from lipdub.media.patch import paste_patch
from lipdub.media.probe import VideoInfo

CAPTION = "AI-dubbed"
MAX_LENGTH = 60  # characters
_CAPITAL_HEIGHT = 0.72  # height of a capital letter as a share of the font's size
_WEIGHT = 600  # semibold
_LETTERS, _BACKGROUND = 255.0, 0.0  # grey levels
_BOX_OPACITY = 0.55  # opacity of the box behind the letters
_UNJOINED = ("L", "R", "EN", "ES", "CS", "WS", "ON", "ET", "AN", "NSM")  # directions of letters that need no joining


class Caption:
    """A caption that is drawn once and blended into the planes of each picture.

    Args:
        text: one line, in any script of OpenCV's own font; Arabic letters it does not join.
        info: of the pictures.
        config: height of the letters.

    Raises:
        InputError: a text that cannot be drawn, or does not fit.
    """

    def __init__(self, text: str, info: VideoInfo, config: MediaConfig) -> None:
        check_label(text)
        self._info = info
        short_side = min(info.display_width, info.display_height)
        height = max(6, round(config.label_height * short_side / _CAPITAL_HEIGHT))
        padding = max(2, round(height / 3))
        letters = _render_text(text, height)
        box = np.pad(letters, padding)
        margin = max(1, round(0.03 * short_side))
        if box.shape[1] + 2 * margin > info.display_width or box.shape[0] + 2 * margin > info.display_height:
            raise InputError(f"the label {text!r} is too long for this picture", "give fewer words with --label-text")
        coverage = box / 255.0
        self._alpha = np.asarray(coverage + (1 - coverage) * _BOX_OPACITY, np.float32)
        grey = (_LETTERS * coverage + _BACKGROUND * (1 - coverage) * _BOX_OPACITY) / self._alpha
        self._pixels = np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
        self._matrix = np.array([[1.0, 0.0, -margin], [0.0, 1.0, -margin]])

    def burn(self, picture: av.VideoFrame) -> None:
        """Blend the caption into a picture, in place."""
        paste_patch(picture, self._info, self._matrix, self._pixels, self._alpha)


def check_label(text: str) -> None:
    """Check that a text can be drawn.

    Raises:
        InputError: empty, too long, more than one line, with ; or |, which separate the tags of the file, or with a
            letter that the font lacks, which the error names.
    """
    if not text.strip() or len(text) > MAX_LENGTH or not text.isprintable() or any(mark in text for mark in ";|"):
        raise InputError(
            f"invalid caption {text!r}", f"give one line of at most {MAX_LENGTH} characters, without ; and |"
        )
    unknown = _render_text("?", 24)
    for letter in dict.fromkeys(text):
        joined = unicodedata.bidirectional(letter) not in _UNJOINED
        if joined or (letter != "?" and np.array_equal(_render_text(letter, 24), unknown)):
            raise InputError(f"the label's letter {letter!r} cannot be drawn", "write it in another script")


def _render_text(text: str, height: int) -> NDArray[np.uint8]:
    """Opacity of a line of text (h, w), cropped to its letters; (1, 1) zero where it has none."""
    canvas = np.zeros((3 * height, height * (len(text) + 2), 3), np.uint8)
    cv2.putText(canvas, text, (height, 2 * height), (255, 255, 255), cv2.FontFace("sans"), height, _WEIGHT)
    rows, columns = np.flatnonzero(canvas.any((1, 2))), np.flatnonzero(canvas.any((0, 2)))
    if not len(rows):
        return canvas[:1, :1, 0]
    return canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, 0]
