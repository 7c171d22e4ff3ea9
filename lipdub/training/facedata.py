"""Labelled footage in memory, and the random pictures that the two face networks are trained on.

Labels come from scripts/label_faces.py: one .npz a clip with boxes, landmarks and their teachers' confidences.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.data.corpora import VIDEO_SUFFIXES
from lipdub.errors import InputError
from lipdub.faces.backend import Frame
from lipdub.models.facenets import LANDMARK_SIDE, STRIDE
from lipdub.training.augment import Augmentation

KEPT_SIDE = 320  # longest side of a frame kept for the detector
PATCH_SIDE = 160  # side of a face patch kept for the landmark network; the face fills half of it
BACKGROUNDS = "backgrounds"  # the group of pictures without a face
# fmt: off
BACKGROUND_NAMES = (  # of scikit-image's own pictures; none shows a person
    "brick", "cell", "chelsea", "clock_motion", "coffee", "coins", "color", "grass", "gravel", "horse",
    "hubble_deep_field", "ihc", "logo", "microaneurysms", "moon", "page", "phantom", "rocket", "text",
)
# fmt: on
REGION = 1.35  # side of the landmark network's region over the larger side of the landmarks' box
# iBUG points that trade places when a face is mirrored.
FLIP = np.concatenate(
    [
        [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)],  # jaw, brows, nose
        [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40],  # eyes
        [*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), 67, 66, 65],  # lips
    ]
)


@dataclass(frozen=True)
class LabelledFrame:
    """A frame no larger than KEPT_SIDE with its faces' boxes in its pixels."""

    image: Frame
    boxes: NDArray[np.float32]  # (N, 4)


@dataclass(frozen=True)
class LabelledPatch:
    """A patch (PATCH_SIDE, PATCH_SIDE, 3) with landmarks in its pixels, or of something that is no face."""

    image: Frame
    landmarks: NDArray[np.float32]  # (68, 2); where a face would be, if there is none
    face: bool = True


def labelled_clips(clips: Path, labels: Path) -> list[tuple[str, Path, Path]]:
    """(group, clip, label file) of every labelled clip; the group is its folder.

    Raises:
        InputError: no label fits a clip.
    """
    labelled = []
    for label in sorted(labels.rglob("*.npz")):
        stem = clips / label.relative_to(labels)
        clip = next((stem.with_suffix(s) for s in VIDEO_SUFFIXES if stem.with_suffix(s).exists()), None)
        if clip is not None:
            labelled.append((str(label.parent.relative_to(labels)), clip, label))
    if not labelled:
        raise InputError(f"no labels in {labels} for clips in {clips}", "run scripts/label_faces.py first")
    return labelled


def read_frames(clip: Path, numbers: set[int]) -> Iterator[tuple[int, Frame]]:
    """The wanted frames of a clip with their numbers, in order, up to where it can be read."""
    capture = cv2.VideoCapture(str(clip))
    try:
        for index in range(max(numbers, default=-1) + 1):
            if not capture.grab():
                return
            if index in numbers:
                yield index, np.asarray(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB), np.uint8)
    finally:
        capture.release()


def load_frames(clips: Path, labels: Path, per_clip: int) -> dict[str, list[LabelledFrame]]:
    """Up to `per_clip` frames a clip for the detector, by group."""
    groups: dict[str, list[LabelledFrame]] = defaultdict(list)
    for group, clip, label in labelled_clips(clips, labels):
        data = np.load(label)
        frames = np.unique(data["frame"])
        many = per_clip * (4 if len(frames) > 60 else 1)
        numbers = set(frames[np.linspace(0, len(frames) - 1, min(many, len(frames))).astype(int)].tolist())
        for index, image in read_frames(clip, numbers):
            scale = min(1.0, KEPT_SIDE / max(image.shape[:2]))
            if scale < 1:
                image = _resized(image, scale)
            clear = (data["frame"] == index) & (data["presence"] > 0.2)
            groups[group].append(LabelledFrame(image, data["box"][clear] * np.float32(scale)))
    return dict(groups)


def load_backgrounds() -> list[LabelledFrame]:
    """scikit-image's own pictures without a face: brick, text, a cat, coins and the like."""
    import skimage.data
    from skimage.color import gray2rgb
    from skimage.io import imread

    folder = Path(skimage.data.__file__).parent
    backgrounds = []
    for name in BACKGROUND_NAMES:
        for path in folder.glob(f"{name}.*"):
            if path.suffix in {".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff"}:
                image = gray2rgb(imread(path))[..., :3]
                if image.ndim == 3 and image.dtype == np.uint8:
                    scale = 2 * KEPT_SIDE / max(image.shape[:2])
                    backgrounds.append(LabelledFrame(_resized(image, scale), np.zeros((0, 4), np.float32)))
    return backgrounds


def _resized(image: Frame, scale: float) -> Frame:
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(image), None, fx=scale, fy=scale, interpolation=method), np.uint8)


def load_patches(clips: Path, labels: Path, per_clip: int) -> dict[str, list[LabelledPatch]]:
    """Up to `per_clip` face patches a clip for the landmark network, by group."""
    groups: dict[str, list[LabelledPatch]] = defaultdict(list)
    for group, clip, label in labelled_clips(clips, labels):
        data = np.load(label)
        spans = np.ptp(data["landmarks"], axis=1).max(1) if len(data["frame"]) else np.zeros(0)
        rows = np.flatnonzero((data["presence"] > 0.7) & (spans > 36))
        many = per_clip * (8 if len(rows) > 60 else 1)
        rows = rows[np.linspace(0, len(rows) - 1, min(many, len(rows))).astype(int)]
        by_frame = defaultdict(list)
        for row in rows:
            by_frame[int(data["frame"][row])].append(row)
        for index, image in read_frames(clip, set(by_frame)):
            groups[group].extend(_patch(image, data["landmarks"][row], spans[row]) for row in by_frame[index])
            groups[BACKGROUNDS].extend(_background_patches(image, data["box"][data["frame"] == index], 1))
    for background in load_backgrounds():
        groups[BACKGROUNDS].extend(_background_patches(background.image, background.boxes, 40))
    return dict(groups)


def _background_patches(image: Frame, faces: NDArray[np.float32], count: int) -> list[LabelledPatch]:
    """Up to `count` random squares of a frame that touch no face; the same for the same frame."""
    rng = np.random.default_rng(int(image[::16, ::16].sum()))
    height, width = image.shape[:2]
    patches = []
    for _ in range(count):
        side = np.exp(rng.uniform(np.log(24), np.log(0.7 * min(height, width))))
        x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
        low, high = np.maximum(faces[:, :2], (x, y)), np.minimum(faces[:, 2:], (x + side, y + side))
        if np.any((high - low).min(1, initial=np.inf, where=True) > 0):
            continue
        corners = np.array([[x, y], [x + side, y + side]]) - side / 4
        stand_in = np.resize(corners + np.array([[0, 0], [side / 2, side / 2]]), (68, 2)).astype(np.float32)
        patch = _patch(image, stand_in, float(np.ptp(stand_in, axis=0).max()))
        patches.append(LabelledPatch(patch.image, patch.landmarks, face=False))
    return patches


def _patch(image: Frame, landmarks: NDArray[np.float32], span: float) -> LabelledPatch:
    scale = PATCH_SIDE / (2 * span)
    centre = (landmarks.min(0) + landmarks.max(0)) / 2
    matrix = np.array([[scale, 0, PATCH_SIDE / 2 - scale * centre[0]], [0, scale, PATCH_SIDE / 2 - scale * centre[1]]])
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    patch = cv2.warpAffine(image, matrix, (PATCH_SIDE, PATCH_SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return LabelledPatch(np.asarray(patch, np.uint8), (landmarks * scale + matrix[:, 2]).astype(np.float32))


def degrade(image: Frame, rng: np.random.Generator) -> Frame:
    """Random light, colour, blur, noise and compression."""
    out = image.astype(np.float32) / 255
    out = np.clip(out, 0, 1) ** np.float32(np.exp(rng.normal(0, 0.3)))
    gain = np.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.12, 3))
    out = (out - 0.5) * np.float32(np.exp(rng.normal(0, 0.2))) + 0.5
    out = out * gain.astype(np.float32) + np.float32(rng.normal(0, 0.06))
    if rng.random() < 0.1:
        out = np.repeat(out.mean(2, keepdims=True), 3, 2)
    if rng.random() < 0.3:
        factor = rng.uniform(0.3, 0.9)
        small = cv2.resize(out, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        out = np.asarray(cv2.resize(small, out.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)
    if rng.random() < 0.3:
        out = out + rng.normal(0, rng.uniform(0, 0.06), out.shape).astype(np.float32)
    result = (np.clip(out, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.3:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 80))]
        return np.asarray(cv2.imdecode(cv2.imencode(".jpg", result, quality)[1], cv2.IMREAD_COLOR), np.uint8)
    return result


def detector_sample(
    frames: list[LabelledFrame], height: int, width: int, rng: np.random.Generator
) -> tuple[Frame, NDArray[np.float32]]:
    """A canvas of one or two labelled frames at random scale, turn and place, and the boxes (N, 4) on it."""
    canvas = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    boxes = []
    split = int(rng.uniform(0.3, 0.7) * width) if rng.random() < 0.4 else width
    for left, right in ((0, split), (split, width)):
        if right > left:
            frame = frames[rng.integers(len(frames))]
            placed, placed_boxes = _place(frame, height, right - left, rng)
            canvas[:, left:right] = placed
            boxes.append(placed_boxes + np.array([left, 0, left, 0], np.float32))
    image, placed_boxes = canvas, np.concatenate(boxes)
    if rng.random() < 0.5:
        image = np.ascontiguousarray(image[:, ::-1])
        placed_boxes = np.stack(
            [width - placed_boxes[:, 2], placed_boxes[:, 1], width - placed_boxes[:, 0], placed_boxes[:, 3]], 1
        )
    return degrade(image, rng), placed_boxes.astype(np.float32)


def _place(
    frame: LabelledFrame, height: int, width: int, rng: np.random.Generator
) -> tuple[Frame, NDArray[np.float32]]:
    if len(frame.boxes):
        x1, y1, x2, y2 = frame.boxes[rng.integers(len(frame.boxes))]
        side = np.exp(rng.uniform(np.log(9), np.log(1.2 * min(height, width))))
        scale, centre = side / max(x2 - x1, y2 - y1), np.array([x1 + x2, y1 + y2]) / 2
    else:
        scale, centre = np.exp(rng.uniform(-1, 1)), np.array(frame.image.shape[1::-1]) / 2
    angle = np.deg2rad(rng.normal(0, 10))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos, -sin], [sin, cos]])
    target = rng.uniform([0.05 * width, 0.05 * height], [0.95 * width, 0.95 * height])
    matrix = np.hstack([linear, (target - linear @ centre)[:, None]])
    fill = tuple(int(v) for v in rng.integers(0, 256, 3))
    small = frame.image
    if scale < 0.6:  # INTER_AREA has no warp of its own: shrink first, so that small faces are not aliased
        factor = max(scale * 1.2, 8 / min(small.shape[:2]))
        small = _resized(small, factor)
        exact = np.array(small.shape[1::-1]) / np.array(frame.image.shape[1::-1])
        placed_matrix = np.hstack([matrix[:, :2] / exact, matrix[:, 2:]])
    else:
        placed_matrix = matrix
    placed = cv2.warpAffine(small, placed_matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=fill)
    return np.asarray(placed, np.uint8), _move_boxes(frame.boxes, matrix, height, width)


def _move_boxes(
    boxes: NDArray[np.float32], matrix: NDArray[np.float64], height: int, width: int
) -> NDArray[np.float32]:
    if not len(boxes):
        return np.zeros((0, 4), np.float32)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 * np.sqrt(np.linalg.det(matrix[:, :2]))
    moved = np.concatenate([centres - half, centres + half], 1)
    clipped = np.clip(moved, 0, [width, height, width, height])
    share = np.prod(clipped[:, 2:] - clipped[:, :2], 1) / np.prod(moved[:, 2:] - moved[:, :2], 1)
    size = np.max(moved[:, 2:] - moved[:, :2], 1)
    return moved[(share > 0.5) & (size > 6)].astype(np.float32)


def detector_targets(
    boxes: list[NDArray[np.float32]], height: int, width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Heat (B, h, w), regression (B, 4, h, w) and its weight (B, h, w) at stride 8 for the boxes of each image."""
    rows, columns = height // STRIDE, width // STRIDE
    heat = np.zeros((len(boxes), rows, columns), np.float32)
    values = np.zeros((len(boxes), 4, rows, columns), np.float32)
    weight = np.zeros_like(heat)
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    for image, picture_boxes in enumerate(boxes):
        for box in sorted(picture_boxes, key=lambda b: -(b[2] - b[0])):  # small faces are written last, on top
            size = np.maximum(box[2:] - box[:2], 1) / STRIDE
            centre = (box[:2] + box[2:]) / 2 / STRIDE
            column, row = np.clip(np.floor(centre).astype(int), 0, (columns - 1, rows - 1))
            spread = max(0.5, 0.12 * float(size.mean()))
            bump = np.exp(-((x - column) ** 2 + (y - row) ** 2) / (2 * spread**2))
            np.maximum(heat[image], bump, out=heat[image])
            near = bump > 0.6
            near[row, column] = True
            values[image, 0][near] = (centre[0] - x)[near]
            values[image, 1][near] = (centre[1] - y)[near]
            values[image, 2][near], values[image, 3][near] = np.log(size)
            weight[image][near] = bump[near]
    return heat, values, weight


def landmark_sample(patches: list[LabelledPatch], rng: np.random.Generator) -> tuple[Frame, NDArray[np.float32], bool]:
    """A jittered crop, its landmarks in the unit crop, and whether it shows a whole face."""
    patch = patches[rng.integers(len(patches))]
    face = patch.face and bool(rng.random() > 0.08)
    low, high = patch.landmarks.min(0), patch.landmarks.max(0)
    side = REGION * (high - low).max()
    centre = (low + high) / 2
    if face or not patch.face:
        centre = centre + rng.normal(0, 0.04, 2) * side
        side *= np.exp(rng.normal(0, 0.09))
    else:
        direction = rng.uniform(0, 2 * np.pi)
        centre = centre + np.array([np.cos(direction), np.sin(direction)]) * side * rng.uniform(0.5, 1.0)
        side *= np.exp(rng.uniform(-1.2, 0.5))
    augmentation, angle = Augmentation.sample(rng), np.deg2rad(rng.normal(0, 9))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = LANDMARK_SIDE / side * turn @ augmentation.build
    matrix = np.hstack([linear, (LANDMARK_SIDE / 2 - linear @ centre)[:, None]])
    border = cv2.BORDER_REPLICATE if rng.random() < 0.7 else cv2.BORDER_CONSTANT
    crop = augmentation.warp(patch.image, matrix, LANDMARK_SIDE, border)
    points = augmentation.distort(patch.landmarks @ linear.T + matrix[:, 2], LANDMARK_SIDE) / LANDMARK_SIDE
    if rng.random() < 0.5:
        crop = np.ascontiguousarray(crop[:, ::-1])
        points = np.stack([1 - points[:, 0], points[:, 1]], 1)[FLIP]
    if rng.random() < 0.25:
        x, y = rng.integers(0, LANDMARK_SIDE, 2)
        w, h = rng.integers(8, 40, 2)
        crop[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    lit = np.clip(crop * augmentation.light(LANDMARK_SIDE)[..., None], 0, 255).astype(np.uint8)
    return degrade(lit, rng), points.astype(np.float32), face
