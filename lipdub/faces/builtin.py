"""The default face backend: two small bundled networks."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lipdub.config import FaceConfig
from lipdub.faces.backend import Boxes, Detections, Frame, Landmarks
from lipdub.models.facenets import LANDMARK_SIDE, FaceDetector, LandmarkNet, centres, decode_boxes
from lipdub.models.layers import for_inference
from lipdub.models.packed import pack

# The detector's box is YuNet's: forehead to chin. The landmark network was trained on regions around the landmarks' own
# box (brows to chin), 1.35 times its larger side. Both numbers are medians over the labelled training footage.
REGION_OVER_BOX = 1.03
CENTRE_SHIFT = 0.135  # of the box height, downwards
FILLING = 0.35  # of the frame's longer side: faces of this size and more are taken from the coarse scale
SURE_SCORE = 0.9  # boxes below it are verified by the landmark network ...
FACE_CONFIDENCE = 0.6  # ... which must have this confidence
# A face can score below `min_score`, for example with glasses that reflect: in 1,009 frames of clips/dev and
# clips/scenes 60 boxes of 0.3 to 0.5 were faces, 31 of them with a landmark confidence of 0.98 or more; of the boxes
# that were none, 3 had that confidence.
FAINT_SCORE = 0.6  # of min_score: boxes above it are faces, too, ...
CERTAIN_CONFIDENCE = 0.98  # ... if the landmark network has this confidence


class BuiltinBackend:
    """`FaceBackend` on lipdub's own networks.

    Args:
        detector: trained FaceDetector.
        landmarks: trained LandmarkNet.
        config: detect_side and min_score are used.
        device: where the networks run.
    """

    name = "builtin"

    def __init__(
        self, detector: FaceDetector, landmarks: LandmarkNet, config: FaceConfig, device: torch.device
    ) -> None:
        self._device, self._dtype = device, torch.float32
        self._detector = _prepare(detector, device)
        self._landmarks = _prepare(landmarks, device)
        self._config = config

    def pack(self) -> None:
        """Go on in bfloat16, on the CPU; see `models.packed.pack`."""
        self._dtype = pack(self._detector)
        pack(self._landmarks)

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Faces of each frame, best first; frames of equal size run as one batch.

        The detector runs at two scales, the second for faces that fill the frame. A box below SURE_SCORE counts only if
        the landmark network confirms it; one below `min_score` needs CERTAIN_CONFIDENCE and then scores `min_score`.
        """
        results = [Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))] * len(frames)
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, frame in enumerate(frames):
            by_size.setdefault((frame.shape[0], frame.shape[1]), []).append(index)
        for (height, width), indices in by_size.items():
            scales = [side / max(height, width) for side in (self._config.detect_side, self._config.detect_side // 2)]
            by_scale = [self._boxes([frames[i] for i in indices], scale) for scale in scales]
            limit = np.array([width, height, width, height], np.float32)
            for index, fine, coarse in zip(indices, *by_scale, strict=True):
                filling = (coarse[0][:, 2:] - coarse[0][:, :2]).max(1, initial=0) >= FILLING * max(height, width)
                boxes = np.clip(np.concatenate([fine[0], coarse[0][filling]]), 0, limit)
                scores = np.concatenate([fine[1], coarse[1][filling]])
                results[index] = self._verify(frames[index], *_merge_scales(boxes, scores))
        return results

    def _boxes(self, frames: Sequence[Frame], scale: float) -> list[tuple[Boxes, NDArray[np.float32]]]:
        """Boxes in frame pixels, and scores, of equal-sized frames at one scale."""
        high, wide = _scaled_size(frames[0], scale)
        images = _to_tensor([_letterbox(frame, high, wide) for frame in frames], self._device)
        with torch.inference_mode():
            decoded = decode_boxes(
                self._detector(images.to(self._dtype)).float().cpu(), FAINT_SCORE * self._config.min_score
            )
        # Sides are whole pixels, so that the true scale differs slightly from `scale`, and between the axes.
        back = np.tile(np.array([frames[0].shape[1] / wide, frames[0].shape[0] / high], np.float32), 2)
        return [(boxes.numpy() * back, scores.numpy()) for boxes, scores in decoded]

    def _verify(self, frame: Frame, boxes: Boxes, scores: NDArray[np.float32]) -> Detections:
        doubtful = np.flatnonzero(scores < SURE_SCORE)
        kept = np.ones(len(boxes), bool)
        if len(doubtful):
            regions = [_region_of_box(boxes[i]) for i in doubtful]
            needed = np.where(scores[doubtful] < self._config.min_score, CERTAIN_CONFIDENCE, FACE_CONFIDENCE)
            kept[doubtful] = self._predict_landmarks([frame] * len(doubtful), regions)[1] >= needed
        return Detections(boxes[kept], np.maximum(scores[kept], np.float32(self._config.min_score)))

    def landmarks(self, frames: Sequence[Frame], boxes: Boxes) -> tuple[Landmarks, NDArray[np.float32]]:
        """Landmarks (N, 68, 2) of `boxes[i]` in `frames[i]` and confidences (N,)."""
        if len(boxes) == 0:
            return np.zeros((0, 68, 2), np.float32), np.zeros(0, np.float32)
        regions = [_region_of_box(box) for box in boxes]
        points, confidence = self._predict_landmarks(frames, regions)
        # A turned or badly framed face is processed again, upright and centred.
        again = [i for i, p in enumerate(points) if confidence[i] > 0.05 and _badly_framed(p, regions[i])]
        if again:
            upright = [_region_of_landmarks(points[i]) for i in again]
            points[again], confidence[again] = self._predict_landmarks([frames[i] for i in again], upright)
        return points, confidence

    def _predict_landmarks(
        self, frames: Sequence[Frame], regions: Sequence[NDArray[np.float64]]
    ) -> tuple[Landmarks, NDArray[np.float32]]:
        crops = [_crop(frame, region) for frame, region in zip(frames, regions, strict=True)]
        with torch.inference_mode():
            maps, logits = self._landmarks(_to_tensor(crops, self._device).to(self._dtype))
            points = centres(maps.float()).cpu().numpy() * LANDMARK_SIDE
        inverse = np.stack([cv2.invertAffineTransform(region) for region in regions])
        moved = np.einsum("nij,npj->npi", inverse[:, :, :2], points) + inverse[:, None, :, 2]
        return moved.astype(np.float32), logits.float().sigmoid().cpu().numpy().astype(np.float32)


def box_of_landmarks(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Box (4,) of a face, as the detector would give it, from landmarks (68, 2): inverse of the region of a box."""
    low, high = landmarks.min(0), landmarks.max(0)
    side = 1.35 * float((high - low).max()) / REGION_OVER_BOX
    centre = (low + high) / 2 - np.array([0, CENTRE_SHIFT * side], np.float32)
    return np.concatenate([centre - side * np.array([0.36, 0.5]), centre + side * np.array([0.36, 0.5])]).astype(
        np.float32
    )


def _prepare(network: nn.Module, device: torch.device) -> nn.Module:
    for_inference(network)
    return network.to(device)


def _to_tensor(images: Sequence[Frame], device: torch.device) -> Tensor:
    batch = torch.from_numpy(np.stack(images)).to(device)
    return batch.permute(0, 3, 1, 2).float().div_(255).contiguous(memory_format=torch.channels_last)


def _merge_scales(boxes: Boxes, scores: NDArray[np.float32]) -> tuple[Boxes, NDArray[np.float32]]:
    """Boxes of two scales, best first, without those that overlap a better one by most of the smaller one's area."""
    kept: list[int] = []
    order = np.argsort(-scores, kind="stable")
    for index in order:
        low = np.maximum(boxes[kept, :2], boxes[index, :2])
        high = np.minimum(boxes[kept, 2:], boxes[index, 2:])
        common = np.clip(high - low, 0, None).prod(1)
        areas = (boxes[kept, 2:] - boxes[kept, :2]).prod(1)
        smaller = np.minimum(areas, (boxes[index, 2:] - boxes[index, :2]).prod())
        if not np.any(common > 0.6 * smaller):
            kept.append(int(index))
    return boxes[kept], scores[kept]


def _scaled_size(frame: Frame, scale: float) -> tuple[int, int]:
    """Height and width of a frame at a scale, whole pixels."""
    return max(1, round(frame.shape[0] * scale)), max(1, round(frame.shape[1] * scale))


def _letterbox(frame: Frame, height: int, width: int) -> Frame:
    """The frame resized, in the top left corner of a grey picture whose sides are multiples of 32."""
    boxed = np.full((height + -height % 32, width + -width % 32, 3), 127, np.uint8)
    method = cv2.INTER_AREA if height < frame.shape[0] else cv2.INTER_LINEAR
    boxed[:height, :width] = cv2.resize(frame, (width, height), interpolation=method)
    return boxed


def _crop(frame: Frame, region: NDArray[np.float64]) -> Frame:
    """Network input (LANDMARK_SIDE, LANDMARK_SIDE, 3): the frame warped by a region's affine."""
    side = (LANDMARK_SIDE, LANDMARK_SIDE)
    seen = cv2.warpAffine(frame, region, side, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(seen, np.uint8)


def _region(centre: NDArray[np.float64], side: float, angle: float) -> NDArray[np.float64]:
    """2x3 affine, frame -> network input, of a square rotated by `angle`."""
    scale = LANDMARK_SIDE / side
    linear = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.hstack([linear, (LANDMARK_SIDE / 2 - linear @ centre)[:, None]])


def _region_of_box(box: NDArray[np.float32]) -> NDArray[np.float64]:
    x1, y1, x2, y2 = (float(v) for v in box)
    side = max(x2 - x1, y2 - y1, 1.0)
    return _region(np.array([(x1 + x2) / 2, (y1 + y2) / 2 + CENTRE_SHIFT * (y2 - y1)]), REGION_OVER_BOX * side, 0.0)


def _region_of_landmarks(points: NDArray[np.float32]) -> NDArray[np.float64]:
    eyes = points[42:48].mean(0) - points[36:42].mean(0)
    angle = float(np.arctan2(eyes[1], eyes[0]))
    turned = points @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    low, high = turned.min(0), turned.max(0)
    back = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return _region(back @ ((low + high) / 2), max(1.35 * float((high - low).max()), 1.0), angle)


def _badly_framed(points: NDArray[np.float32], region: NDArray[np.float64]) -> bool:
    """Whether a face is rotated, off centre or of another size in its region than in training."""
    seen = points @ region[:, :2].T + region[:, 2]
    low, high = seen.min(0), seen.max(0)
    eyes = seen[42:48].mean(0) - seen[36:42].mean(0)
    off_centre = np.abs((low + high) / 2 / LANDMARK_SIDE - 0.5).max() > 0.1
    size = (high - low).max() / LANDMARK_SIDE
    return bool(off_centre or not 0.62 < size < 0.9 or abs(np.arctan2(eyes[1], eyes[0])) > np.deg2rad(15))
