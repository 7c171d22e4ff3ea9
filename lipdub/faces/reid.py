"""Re-identification: the same person in another shot, by texture patterns of the face.

Each pixel of the aligned face has a code of which of its eight neighbours are brighter (local binary patterns, Ahonen
et al. 2006: the 58 codes with at most two changes around the circle, and one for the rest). Each of 6 x 6 cells is
described by its histogram of codes:

    likeness(a, b) = sum over cells and codes of sqrt(h_a h_b) / 36        in [0, 1]

This needs no network and no pictures beside the video. It distinguishes people in the same light and pose; a person who
returns in another light or pose counts as a new one. Measured: benchmarks/journal, "Who is there, and who comes back".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.faces.backend import Frame

SIDE = 96  # pixels of the aligned face
SMALLEST = 24.0  # pixels of a face below which it cannot be recognized
FLAT = 0.6  # share of pixels without a brighter neighbour above which a picture shows nothing; faces have at most 0.37
ALIKE = 0.88  # likeness from which two faces are one person's; no pair of different people (58,000) reached it
OTHER_PERSON = 0.75  # likeness to the last frames below which the person is another; a fast turn goes down to it
MOST = 48  # patterns kept of one person
REMEMBERED = 100  # people last seen: at 200 kB and 0.3 ms each, the cost does not grow with the video's length
CELLS, SOFT, STEP = 6, 1.0, 1.0  # a side; sigma of the blur and grey levels that a neighbour must differ by: noise
_ROUND = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))

Pattern = NDArray[np.float16]  # (CELLS * CELLS * 59,) of length 1


@dataclass(eq=False)  # compared by identity: comparing arrays gives no answer
class _Person:
    number: int
    patterns: list[Pattern]
    seen: list[range] = field(default_factory=list)


class People:
    """The last REMEMBERED people; `number` them in the order in which they leave the picture."""

    def __init__(self) -> None:
        self._known: list[_Person] = []

    def number(self, number: int, frames: range, patterns: Sequence[Pattern]) -> int:
        """Number of the known person whose face this is; else `number`, and the person is known from then on.

        Args:
            number: of the face.
            frames: in which it was seen; one person is not at two places in one frame.
            patterns: of some of these frames.
        """
        best, person = ALIKE, None
        for other in self._known:
            apart = all(frames.stop <= seen.start or seen.stop <= frames.start for seen in other.seen)
            if apart and (like := likeness(other.patterns, patterns)) >= best:
                best, person = like, other
        if person is None:
            person = _Person(number, [])
        else:
            self._known.remove(person)
        self._known = [*self._known, person][-REMEMBERED:]
        person.seen.append(frames)
        person.patterns += patterns[: MOST - len(person.patterns)]
        return person.number


def should_sample(count: int) -> bool:
    """Whether to keep a pattern of the count-th frame of a face: the 1st, 4th, 9th, ..., dense at the beginning."""
    return int(np.sqrt(count)) ** 2 == count


def pattern(face: Frame) -> Pattern | None:
    """Texture pattern of a face, or None if the picture shows too little.

    Args:
        face: (SIDE, SIDE, 3) RGB, aligned as for the generator.
    """
    grey = cv2.GaussianBlur(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), SOFT)
    side = grey.shape[0]
    inner = grey[1:-1, 1:-1]
    codes = np.zeros(inner.shape, np.int64)
    for bit, (down, right) in enumerate(_ROUND):
        near = grey[1 + down : side - 1 + down, 1 + right : side - 1 + right]
        codes |= (near > inner + STEP).astype(np.int64) << bit
    if (codes == 0).mean() > FLAT:
        return None
    kinds, count = _uniform_codes()
    cell = np.arange(side - 2) * CELLS // (side - 2)
    where = (cell[:, None] * CELLS + cell) * count + kinds[codes]
    held = np.bincount(where.ravel(), minlength=CELLS * CELLS * count).reshape(-1, count)
    roots: Pattern = (np.sqrt(held / held.sum(1, keepdims=True)) / CELLS).astype(np.float16)
    return roots.ravel()


def likeness(a: Sequence[Pattern], b: Sequence[Pattern]) -> float:
    """Likeness of the two most similar patterns of two faces; 0 if one has none."""
    if not a or not b:
        return 0.0
    return float((np.stack(a).astype(np.float32) @ np.stack(b).astype(np.float32).T).max())


@cache
def _uniform_codes() -> tuple[NDArray[np.int64], int]:
    """Bin of each of 256 codes in the histogram, and the number of bins."""
    bits = np.arange(256)[:, None] >> np.arange(8) & 1
    few = (bits != np.roll(bits, 1, 1)).sum(1) <= 2
    return np.where(few, np.cumsum(few) - 1, few.sum()), int(few.sum()) + 1
