"""`--debug-overlay`: the dub with faces, landmarks, masks and reasons drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.affine import invert
from lipdub.config import FaceConfig
from lipdub.dub.render import Pasted
from lipdub.faces.backend import Frame
from lipdub.faces.tracker import Track
from lipdub.media.clip import ClipWriter, fitted, write_text
from lipdub.media.probe import VideoInfo
from lipdub.media.video import SourceFrame

SIDE = 1280  # longest side of the drawn picture
DUBBED, LEFT, MASK = (80, 220, 120), (255, 170, 60), (90, 160, 255)  # RGB


class Overlay:
    """Draws the boxes, landmarks, numbers and confidences of all faces, and the outline of each generated mouth."""

    def __init__(self, path: Path, info: VideoInfo, tracks: Sequence[Track], config: FaceConfig) -> None:
        self._tracks, self._config = tracks, config
        self._scale = min(1.0, SIDE / max(info.display_width, info.display_height))
        self._size = fitted(info, SIDE)
        self.writer = ClipWriter(path, self._size, info.average_rate, time_base=info.time_base)

    def draw(self, frame: SourceFrame, pasted: Sequence[Pasted]) -> None:
        """Add a frame, with generated mouths already pasted."""
        shown = cv2.resize(frame.upright(SIDE), self._size)
        page: Frame = np.ascontiguousarray(shown, np.uint8)
        painted = {each.track: each for each in pasted}
        for track in self._tracks:
            row = frame.index - track.first
            if 0 <= row < len(track.landmarks):
                self._face(page, track, row, painted.get(track.id))
        write_text(page, f"frame {frame.index}  {frame.time_s:.2f} s  {len(pasted)} dubbed", (8, 20), (255, 255, 255))
        self.writer.write(page, frame.pts)

    def _face(self, page: Frame, track: Track, row: int, pasted: Pasted | None) -> None:
        colour = DUBBED if pasted is not None else LEFT
        points = np.rint(track.landmarks[row] * self._scale).astype(int)
        (x1, y1), (x2, y2) = points.min(0), points.max(0)
        cv2.rectangle(page, (int(x1), int(y1)), (int(x2), int(y2)), colour, 1)
        for x, y in points:
            cv2.circle(page, (int(x), int(y)), 1, colour, -1)
        if pasted is not None:
            for line in _outline(pasted):
                cv2.polylines(page, [np.rint(line * self._scale).astype(np.int32)], True, MASK, 1, cv2.LINE_AA)
        confidence, side = float(track.confidence[row]), float(max(x2 - x1, y2 - y1)) / self._scale
        why = "" if pasted is not None else f", left: {self._reason(confidence, side)}"
        write_text(page, f"id {track.person}  {confidence:.2f}{why}", (int(x1), max(12, int(y1) - 6)), colour)

    def _reason(self, confidence: float, side: float) -> str:
        if confidence < self._config.min_confidence:
            return "unclear"
        return "small" if side < self._config.min_face else "not chosen"


def _outline(pasted: Pasted) -> list[NDArray[np.float64]]:
    """Contours of a mouth at half opacity, closed lines (P, 2) of display pixels."""
    lines, _ = cv2.findContours((pasted.alpha > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    back = invert(pasted.matrix)
    return [np.asarray(line.reshape(-1, 2) @ back[:, :2].T + back[:, 2], np.float64) for line in lines]
