"""Re-identification: the same person in another shot, by texture patterns of the face.

Each pixel of the aligned face is described by which of its eight neighbours are brighter (local binary patterns, Ahonen
et al. 2006: the 58 codes with at most two changes round the circle, and one for the rest), each of 6 x 6 cells by how
often it holds each code:

    likeness(a, b) = sum over cells and codes of sqrt(h_a h_b) / 36        in [0, 1]

That needs no network and nobody's picture but the film's own. It tells people apart under one light and from one side;
whoever comes back in another light or seen from elsewhere counts as somebody new. Measured: benchmarks/journal,
"Who is there, and who comes back".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.faces.backend import Frame

SIDE = 96  # pixels of the face that is looked at
SMALLEST = 24.0  # pixels of a face below which too little is left to know it by
FLAT = 0.6  # share of pixels without a brighter neighbour above which a picture shows nothing; of faces 0.37 at most
ALIKE = 0.88  # likeness from which on two faces are one person's: no pair of 58,000 of different people reached it
OTHER_PERSON = 0.75  # likeness to a moment ago below which it is somebody else; turning fast comes down to it
MOST = 48  # looks that are kept of one person
REMEMBERED = 100  # people, the last seen: with 200 kB and some 0.3 ms each, a film of any length costs the same
CELLS, SOFT, STEP = 6, 1.0, 1.0  # a side; sigma of the blur and grey levels that a neighbour must differ by: noise
_ROUND = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))

Pattern = NDArray[np.float16]  # (CELLS * CELLS * 59,) of length 1


@dataclass(eq=False)  # told apart by identity: comparing arrays gives no answer
class _Person:
    number: int
    patterns: list[Pattern]
    seen: list[range] = field(default_factory=list)


class People:
    """The last REMEMBERED people that were seen; number them in the order in which they leave the picture."""

    def __init__(self) -> None:
        self._known: list[_Person] = []

    def number(self, number: int, frames: range, patterns: Sequence[Pattern]) -> int:
        """Whose face that is: the number of somebody known, or `number`, who is then known, too.

        Args:
            number: of the face.
            frames: in which it was seen; nobody is at two places in one frame.
            patterns: of a few of them.
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
    """Whether the count-th sight of a face is one to be kept: the 1st, 4th, 9th, ..., dense while little is known."""
    return int(np.sqrt(count)) ** 2 == count


def pattern(face: Frame) -> Pattern | None:
    """What `People` knows a face by, or None where the picture shows too little.

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
    kinds, count = _uniform()
    cell = np.arange(side - 2) * CELLS // (side - 2)
    where = (cell[:, None] * CELLS + cell) * count + kinds[codes]
    held = np.bincount(where.ravel(), minlength=CELLS * CELLS * count).reshape(-1, count)
    roots: Pattern = (np.sqrt(held / held.sum(1, keepdims=True)) / CELLS).astype(np.float16)
    return roots.ravel()


def likeness(a: Sequence[Pattern], b: Sequence[Pattern]) -> float:
    """That of the two most alike patterns of two faces; 0 where one has none."""
    if not a or not b:
        return 0.0
    return float((np.stack(a).astype(np.float32) @ np.stack(b).astype(np.float32).T).max())


@cache
def _uniform() -> tuple[NDArray[np.int64], int]:
    """For each of 256 codes its kind, and how many kinds there are."""
    bits = np.arange(256)[:, None] >> np.arange(8) & 1
    few = (bits != np.roll(bits, 1, 1)).sum(1) <= 2
    return np.where(few, np.cumsum(few) - 1, few.sum()), int(few.sum()) + 1
