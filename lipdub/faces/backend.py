"""Interface of a face backend: detection and landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]  # (H, W, 3) RGB
Boxes = NDArray[np.float32]  # (N, 4) x1, y1, x2, y2, pixels, half-open
Landmarks = NDArray[np.float32]  # (N, 68, 2) x, y, pixels, iBUG order
LUMA = (0.299, 0.587, 0.114)  # weights of R, G, B in grey (BT.601)


@dataclass(frozen=True)
class Detections:
    """Faces of one frame, best first."""

    boxes: Boxes  # (N, 4)
    scores: NDArray[np.float32]  # (N,) in [0, 1]


class FaceBackend(Protocol):
    """Finds faces and their landmarks. Implementations: builtin, face-alignment, and a fake one in the tests.

    `detect` and `landmarks` may be called in two threads at the same time, each of them in one.
    """

    name: str

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Faces of each frame; an empty Detections where there is none. Frames may differ in size."""
        ...

    def landmarks(self, frames: Sequence[Frame], boxes: Boxes) -> tuple[Landmarks, NDArray[np.float32]]:
        """Landmarks (N, 68, 2) of `boxes[i]` in `frames[i]`, and a confidence in [0, 1] for each."""
        ...
