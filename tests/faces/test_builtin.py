from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lipdub.config import FaceConfig
from lipdub.faces import builtin
from lipdub.faces.builtin import BuiltinBackend, box_of_landmarks
from lipdub.faces.crop import TEMPLATE
from lipdub.models.facenets import LANDMARK_SIDE, STRIDE, spread

CPU = torch.device("cpu")
GREY = 127 / 255  # of the letterbox


class WholePicture(nn.Module):
    """Stands in for the detector: finds one face as large as what is not letterbox, in the cell of its middle."""

    def __init__(self, score: float = 0.95) -> None:
        super().__init__()
        self.logit = float(np.log(score / (1 - score)))
        self.inputs: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.inputs.append(tuple(images.shape))
        n, _, high, wide = images.shape
        out = torch.full((n, 5, high // STRIDE, wide // STRIDE), -20.0)
        for index, image in enumerate(images):
            rows, columns = torch.nonzero((image - GREY).abs().amax(0) > 0.01, as_tuple=True)
            height, width = int(rows.max()) + 1, int(columns.max()) + 1
            row, column = height // 2 // STRIDE, width // 2 // STRIDE
            box = [
                width / 2 / STRIDE - column,
                height / 2 / STRIDE - row,
                np.log(width / STRIDE),
                np.log(height / STRIDE),
            ]
            out[index, :, row, column] = torch.tensor([self.logit, *box])
        return out


class Centred(nn.Module):
    """Stands in for the landmark network: a fixed face in the middle of every crop, and a confidence."""

    def __init__(self, confidence: float = 0.99) -> None:
        super().__init__()
        self.logit = float(np.log(confidence / (1 - confidence)))
        self.crops: list[np.ndarray] = []

    def points(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        self.crops += list((faces.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8))
        low, high = TEMPLATE.min(0), TEMPLATE.max(0)
        points = 0.5 + (TEMPLATE - (low + high) / 2) / (high - low).max() / 1.35
        points = torch.from_numpy(points).float()
        return points.expand(len(faces), 68, 2), torch.full((len(faces),), self.logit)

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        points, logits = self.points(faces)
        return spread(points, 96, 96).log(), logits  # finer than the network's own, so that rounding does not show


def backend(score: float = 0.95, confidence: float = 0.99, **config: float) -> BuiltinBackend:
    return BuiltinBackend(WholePicture(score), Centred(confidence), FaceConfig(**config), CPU)  # type: ignore[arg-type]


def white(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 255, np.uint8)


@pytest.mark.parametrize("size", [(200, 333), (360, 640), (320, 320), (61, 97), (720, 405)])
def test_boxes_come_back_in_pixels_of_the_frame(size: tuple[int, int]) -> None:
    height, width = size
    (found,) = backend().detect([white(height, width)])
    np.testing.assert_allclose(found.boxes, [[0, 0, width, height]], atol=1e-3)
    assert found.boxes.dtype == np.float32 and found.scores == pytest.approx([0.95])


def test_frames_of_one_size_run_together_and_keep_their_order() -> None:
    faces = backend()
    found = faces.detect([white(100, 200), white(64, 64), white(100, 200)])
    np.testing.assert_allclose([f.boxes[0] for f in found], [[0, 0, 200, 100], [0, 0, 64, 64], [0, 0, 200, 100]])
    inputs = faces._detector.inputs
    assert inputs == [(2, 3, 160, 320), (2, 3, 96, 160), (1, 3, 320, 320), (1, 3, 160, 160)]


def test_a_doubtful_box_counts_only_where_there_are_landmarks() -> None:
    assert len(backend(score=0.7, confidence=0.9).detect([white(100, 200)])[0].boxes) == 1
    assert len(backend(score=0.7, confidence=0.3).detect([white(100, 200)])[0].boxes) == 0
    assert len(backend(score=0.95, confidence=0.3).detect([white(100, 200)])[0].boxes) == 1
    assert len(backend(score=0.4, confidence=0.9).detect([white(100, 200)])[0].boxes) == 0  # under min_score
    (certain,) = backend(score=0.4, confidence=0.995).detect([white(100, 200)])
    assert len(certain.boxes) == 1 and certain.scores == pytest.approx([0.5])
    assert len(backend(score=0.25, confidence=0.995).detect([white(100, 200)])[0].boxes) == 0
    assert backend().detect([]) == []


def test_of_two_boxes_of_one_face_the_better_is_kept() -> None:
    face, part, other = (10, 10, 60, 70), (25, 30, 50, 60), (100, 10, 150, 70)
    boxes = np.array([part, other, face], np.float32)
    kept, scores = builtin._merge_scales(boxes, np.array([0.6, 0.7, 0.9], np.float32))
    assert kept.tolist() == [list(face), list(other)] and scores.tolist() == pytest.approx([0.9, 0.7])
    kept, _ = builtin._merge_scales(boxes, np.array([0.9, 0.7, 0.6], np.float32))
    assert kept.tolist() == [list(part), list(other)]


def test_of_equally_good_boxes_that_of_the_larger_scale_is_kept() -> None:
    fine, coarse = (10, 10, 60, 70), (12, 8, 62, 72)  # `detect` lists the larger scale first
    kept, _ = builtin._merge_scales(np.array([fine, coarse], np.float32), np.array([0.8, 0.8], np.float32))
    assert kept.tolist() == [list(fine)]


def test_neighbours_that_overlap_a_little_are_two_faces() -> None:
    boxes = np.array([(0, 0, 50, 60), (30, 0, 80, 60)], np.float32)
    assert len(builtin._merge_scales(boxes, np.array([0.8, 0.9], np.float32))[0]) == 2
    assert len(builtin._merge_scales(boxes[:0], np.zeros(0, np.float32))[0]) == 0


def test_the_box_of_landmarks_leads_back_to_them() -> None:
    """The region that the box stands for is 1.35 times the landmarks, round their middle."""
    landmarks = (TEMPLATE * (90, 100) + (35, 20)).astype(np.float32)
    region = builtin._region_of_box(box_of_landmarks(landmarks))
    seen = landmarks @ region[:, :2].T + region[:, 2]
    low, high = seen.min(0), seen.max(0)
    np.testing.assert_allclose((low + high) / 2, LANDMARK_SIDE / 2, atol=1e-3)
    assert (high - low).max() == pytest.approx(LANDMARK_SIDE / 1.35, abs=1e-3)


def test_landmarks_go_through_the_crop_and_back() -> None:
    faces = backend()
    landmarks = (TEMPLATE * 80 + (35, 20)).astype(np.float32)
    box = box_of_landmarks(landmarks)
    frame = np.zeros((140, 160, 3), np.uint8)
    frame[60:] = (0, 0, 255)
    points, confidence = faces.landmarks([frame, frame], np.stack([box, box + 10]))
    np.testing.assert_allclose(points[0], landmarks, atol=0.01)
    np.testing.assert_allclose(points[1], landmarks + 10, atol=0.01)
    assert confidence == pytest.approx([0.99, 0.99]) and points.dtype == np.float32
    crop = faces._landmarks.crops[0]  # RGB of the place where the box says the face is
    edge, region = np.flatnonzero(crop[:, 48, 2] > 127)[0], builtin._region_of_box(box)
    assert abs(edge - (region[1, 1] * 60 + region[1, 2])) < 1.5 and crop[-1, 48].tolist() == [0, 0, 255]


class TurnedAtFirst(Centred):
    """Sees a face that lies on its side a little, then what is given to it upright, and more clearly."""

    def points(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        points, logits = super().points(faces)
        if len(self.crops) == len(faces):
            turn = np.deg2rad(30)
            matrix = torch.tensor([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]).float()
            return (points - 0.5) @ matrix.T + 0.5, logits - 3
        return points, logits


def test_a_turned_face_is_looked_at_once_more_upright() -> None:
    network = TurnedAtFirst()
    faces = BuiltinBackend(WholePicture(), network, FaceConfig(), CPU)  # type: ignore[arg-type]
    frame = np.random.default_rng(0).integers(0, 255, (200, 200, 3)).astype(np.uint8)
    (points,), (sure,) = faces.landmarks([frame], np.array([[60, 40, 130, 140]], np.float32))
    assert len(network.crops) == 2 and sure == pytest.approx(0.99)
    eyes = points[42:48].mean(0) - points[36:42].mean(0)
    assert np.rad2deg(np.arctan2(eyes[1], eyes[0])) == pytest.approx(30, abs=0.1)
    region = builtin._region_of_landmarks(points)
    np.testing.assert_allclose(network.crops[1].astype(int), builtin._crop(frame, region), atol=2)


def test_no_box_no_landmarks() -> None:
    points, confidence = backend().landmarks([], np.zeros((0, 4), np.float32))
    assert points.shape == (0, 68, 2) and confidence.shape == (0,)


@pytest.mark.parametrize("angle", [0.0, 40.0, -75.0])
def test_the_region_of_turned_landmarks_is_upright(angle: float) -> None:
    turn = np.deg2rad(angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    landmarks = (TEMPLATE * 80 @ matrix.T + (200, 150)).astype(np.float32)
    region = builtin._region_of_landmarks(landmarks)
    seen = landmarks @ region[:, :2].T + region[:, 2]
    eyes = seen[42:48].mean(0) - seen[36:42].mean(0)
    assert eyes[0] > 0 and abs(eyes[1]) < 1e-3
    np.testing.assert_allclose((seen.min(0) + seen.max(0)) / 2, LANDMARK_SIDE / 2, atol=1e-2)
    assert builtin._badly_framed(landmarks, builtin._region_of_box(box_of_landmarks(landmarks))) == (angle != 0)
    assert not builtin._badly_framed(landmarks, region)


# --- the bundled networks ---

EYES = np.array([(203, 102), (246, 104)])  # of scikit-image's portrait, measured by hand, pixels
NOSE_BASE, MOUTH_CORNERS, CHIN = (223, 132), np.array([(203, 141), (243, 142)]), (223, 178)
NEAR = 0.06 * 92  # 6 % of the width of the face


@pytest.fixture(scope="module")
def bundled() -> BuiltinBackend:
    from lipdub.faces.choose import builtin_backend

    return builtin_backend(FaceConfig(), CPU)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    from skimage.data import astronaut

    return np.ascontiguousarray(astronaut())


def parts(points: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "eyes": np.stack([points[36:42].mean(0), points[42:48].mean(0)]),
        "nose base": points[33],
        "mouth corners": points[[48, 54]],
        "chin": points[8],
    }


def test_the_portrait_is_found_once_with_the_eyes_in_its_box(bundled: BuiltinBackend, portrait: np.ndarray) -> None:
    (found,) = bundled.detect([portrait])
    assert found.boxes.shape == (1, 4)
    x1, y1, x2, y2 = found.boxes[0]
    for x, y in [*EYES, *MOUTH_CORNERS, NOSE_BASE]:
        assert x1 < x < x2 and y1 < y < y2
    assert 70 < x2 - x1 < 130 and 90 < y2 - y1 < 160


def test_the_portraits_landmarks_lie_on_its_features(bundled: BuiltinBackend, portrait: np.ndarray) -> None:
    (found,) = bundled.detect([portrait])
    (points,), (sure,) = bundled.landmarks([portrait], found.boxes)
    assert sure > 0.9
    seen = parts(points)
    for name, wanted in zip(seen, (EYES, NOSE_BASE, MOUTH_CORNERS, CHIN), strict=True):
        assert np.linalg.norm(seen[name] - wanted, axis=-1).max() < NEAR, name
    assert points[36:42, 0].max() < points[27, 0] < points[42:48, 0].min()  # 36-41 lie left in the picture
    assert points[30, 1] < points[33, 1] < points[51, 1] < points[57, 1] < points[8, 1]  # mouth under nose
    assert (np.diff(points[[0, 4, 8, 12, 16], 0]) > 0).all()  # the jaw runs from left to right


def test_a_turned_portrait_is_seen_upright_the_second_time(bundled: BuiltinBackend, portrait: np.ndarray) -> None:
    turn = cv2.getRotationMatrix2D((223.0, 120.0), 25.0, 1.0)
    turned = cv2.warpAffine(portrait, turn, (512, 512), borderMode=cv2.BORDER_REFLECT)
    (found,) = bundled.detect([turned])
    (points,), (sure,) = bundled.landmarks([turned], found.boxes[:1])
    back = cv2.invertAffineTransform(turn)
    seen = parts(points @ back[:, :2].T + back[:, 2])
    assert sure > 0.9
    for name, wanted in zip(seen, (EYES, NOSE_BASE, MOUTH_CORNERS, CHIN), strict=True):
        assert np.linalg.norm(seen[name] - wanted, axis=-1).max() < 1.5 * NEAR, name


def test_noise_and_flat_pictures_hold_no_face(bundled: BuiltinBackend) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
    assert [len(found.boxes) for found in bundled.detect([noise, np.full_like(noise, 120)])] == [0, 0]
