"""`--label`: a caption in a corner of every picture that tells viewers that the film was dubbed with AI."""

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
MOST = 60  # characters
_CAPITAL = 0.72  # height of a capital letter as a share of the font's size
_WEIGHT = 600  # semibold
_INK, _PAPER = 255.0, 0.0  # grey levels
_BOX = 0.55  # opacity of the box behind the letters
_PLAIN = ("L", "R", "EN", "ES", "CS", "WS", "ON", "ET", "AN", "NSM")  # directions of letters that need no joining


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
        short = min(info.display_width, info.display_height)
        height = max(6, round(config.label_height * short / _CAPITAL))
        inset = max(2, round(height / 3))
        letters = _drawn(text, height)
        box = np.pad(letters, inset)
        place = max(1, round(0.03 * short))
        if box.shape[1] + 2 * place > info.display_width or box.shape[0] + 2 * place > info.display_height:
            raise InputError(f"the label {text!r} is too long for this picture", "give fewer words with --label-text")
        share = box / 255.0
        self._alpha = np.asarray(share + (1 - share) * _BOX, np.float32)
        grey = (_INK * share + _PAPER * (1 - share) * _BOX) / self._alpha
        self._face = np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
        self._matrix = np.array([[1.0, 0.0, -place], [0.0, 1.0, -place]])

    def burn(self, picture: av.VideoFrame) -> None:
        """Blend the caption into a picture, in place."""
        paste_patch(picture, self._info, self._matrix, self._face, self._alpha)


def check_label(text: str) -> None:
    """Whether a text can be drawn.

    Raises:
        InputError: empty, too long, more than a line, marks that the file's own tags are parted by, or a letter that
            the font does not have; names it.
    """
    if not text.strip() or len(text) > MOST or not text.isprintable() or any(mark in text for mark in ";|"):
        raise InputError(f"invalid caption {text!r}", f"give one line of at most {MOST} characters, without ; and |")
    unknown = _drawn("?", 24)
    for letter in dict.fromkeys(text):
        joined = unicodedata.bidirectional(letter) not in _PLAIN
        if joined or (letter != "?" and np.array_equal(_drawn(letter, 24), unknown)):
            raise InputError(f"the label's letter {letter!r} cannot be drawn", "write it in another script")


def _drawn(text: str, height: int) -> NDArray[np.uint8]:
    """Letters as opacity (h, w); a blank is blank."""
    page = np.zeros((3 * height, height * (len(text) + 2), 3), np.uint8)
    cv2.putText(page, text, (height, 2 * height), (255, 255, 255), cv2.FontFace("sans"), height, _WEIGHT)
    rows, columns = np.flatnonzero(page.any((1, 2))), np.flatnonzero(page.any((0, 2)))
    if not len(rows):
        return page[:1, :1, 0]
    return page[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, 0]
