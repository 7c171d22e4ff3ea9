from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch

from lipdub.affine import transform
from lipdub.config import FaceConfig
from lipdub.faces.choose import builtin_backend, occlusion_detector
from lipdub.faces.crop import crop_matrix
from lipdub.faces.occlusion import (
    HIGH,
    MARGIN,
    OcclusionDetector,
    bare,
    filled,
    lip_region,
    mask_of,
    mouth_region,
    share_of,
    usual_face,
)
from lipdub.models.occlusion import OCCLUSION_SIDE, OcclusionNet

SIDE, CPU = 256, torch.device("cpu")


@pytest.fixture(scope="module")
def face() -> tuple[np.ndarray, np.ndarray]:
    """scikit-image's portrait as a crop, and its landmarks."""
    from skimage.data import astronaut

    picture = np.ascontiguousarray(astronaut())
    backend = builtin_backend(FaceConfig(), CPU)
    landmarks = backend.landmarks([picture], backend.detect([picture])[0].boxes[:1])[0][0]
    matrix = crop_matrix(landmarks, SIDE, margin=MARGIN)
    crop = cv2.warpAffine(picture, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(crop, np.uint8), transform(landmarks, matrix)


def microphone(crop: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The crop with a dark ball on a stick before the lower lip, and where it is."""
    ink, (x, y) = np.zeros(crop.shape[:2], np.uint8), landmarks[57].round().astype(int).tolist()
    cv2.line(ink, (x, y + 10), (x + 30, SIDE), (255,), 12)
    cv2.circle(ink, (x, y + 10), 26, (255,), -1)
    picture = crop.copy()
    picture[ink > 0] = 35
    return picture, ink > 0


def fingers(crop: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The crop with three fingers in the skin's colour that point at the mouth from below, and where they are."""
    skin = np.median(crop[landmarks[30, 1].astype(int) - 8 :][:16, 110:146].reshape(-1, 3), 0)
    ink, (x, y), picture = np.zeros(crop.shape[:2], np.uint8), landmarks[57], crop.astype(np.float32)
    for number in range(3):
        one, at = np.zeros_like(ink), round(float(x)) - 24 + 20 * number
        cv2.line(one, (at, round(float(y)) - 6 + 4 * number), (at + 6, SIDE + 20), (255,), 18)
        depth = cv2.distanceTransform(one, cv2.DIST_L2, 5)[..., None] / 9.5
        picture = np.where(one[..., None] > 0, skin * (0.55 + 0.45 * np.sqrt(np.clip(depth, 0, 1))), picture)
        ink |= one
    return picture.astype(np.uint8), ink > 0


@pytest.mark.parametrize("draw", [microphone, fingers])
def test_objects_before_the_mouth_are_found(
    face: tuple[np.ndarray, np.ndarray], draw: Callable[..., tuple[np.ndarray, np.ndarray]]
) -> None:
    crop, landmarks = face
    detector = occlusion_detector(MARGIN, CPU)
    picture, place = draw(crop, landmarks)
    (found,) = detector.probabilities([picture], detector.usual([crop]))
    rows = np.arange(SIDE)[:, None]
    on_face = place & (rows > landmarks[33, 1]) & (rows < landmarks[8, 1])
    mask = mask_of(found, SIDE)
    assert mask[on_face].mean() > 0.97
    assert (mask & ~place).mean() < 0.12  # and not the whole face
    assert share_of(found > HIGH, mouth_region(landmarks, SIDE, len(found))) > 0.1


def test_a_bare_face_has_nothing_before_it(face: tuple[np.ndarray, np.ndarray]) -> None:
    crop, landmarks = face
    detector = occlusion_detector(MARGIN, CPU)
    darker = (crop * 0.6).astype(np.uint8)
    turned = np.ascontiguousarray(np.roll(crop, 6, 1))
    found = detector.probabilities([crop, darker, turned], detector.usual([crop]))
    region = mouth_region(landmarks, SIDE, OCCLUSION_SIDE)
    assert max(share_of(each > HIGH, region) for each in found) < 0.02
    assert not detector.covered([crop, crop, crop], [landmarks] * 3).any()


def test_a_reference_behind_a_microphone_is_covered(face: tuple[np.ndarray, np.ndarray]) -> None:
    crop, landmarks = face
    crops = [crop, crop, microphone(crop, landmarks)[0], crop, crop]
    assert occlusion_detector(MARGIN, CPU).covered(crops, [landmarks] * 5).tolist() == [0, 0, 1, 0, 0]


@pytest.mark.parametrize(("margin", "side"), [(1.0, 48), (4 / 3, 64), (1.5, 72)])
def test_crops_of_other_margins_are_seen_as_in_training(margin: float, side: int) -> None:
    """A network that returns its input's brightness: what is found lies where it is in the crop."""

    class Brightness(torch.nn.Module):
        def forward(self, faces: torch.Tensor, usual: torch.Tensor) -> torch.Tensor:
            assert faces.shape == usual.shape == (1, 3, OCCLUSION_SIDE, OCCLUSION_SIDE)
            return (faces.mean(1) - 0.5) * 20

    detector = OcclusionDetector(OcclusionNet(), CPU, margin)
    detector._network = Brightness()  # type: ignore[assignment]
    crop = np.zeros((4 * side, 4 * side, 3), np.uint8)
    crop[2 * side : 2 * side + 40, 2 * side : 2 * side + 60] = 255
    (found,) = detector.probabilities([crop], detector.usual([crop]))
    assert found.shape == (side, side)
    middle = side // 2
    assert (found[middle : middle + 10, middle : middle + 15] > 0.9).all()
    assert (found > 0.5).sum() == 150


def test_what_passes_is_not_in_the_usual_face() -> None:
    crops = np.full((5, 4, 4, 3), 100, np.uint8)
    crops[1, 0], crops[3, 2] = 255, 0
    assert (usual_face(crops) == 100).all()


def test_faint_parts_count_beside_sure_ones() -> None:
    found = np.zeros((64, 64), np.float32)
    found[10:14, 10:14], found[14:16, 10:14] = 0.9, 0.5  # sure, and faint beside it
    found[40:44, 40:44] = 0.5  # faint alone
    mask = mask_of(found, 64)
    assert mask[10:16, 10:14].all() and not mask[30:].any()
    assert not mask_of(np.zeros((64, 64), np.float32), 64).any()


def test_a_filled_crop_is_the_same_elsewhere(face: tuple[np.ndarray, np.ndarray]) -> None:
    picture, place = microphone(*face)
    clear = filled(picture, place)
    assert (clear[~place] == picture[~place]).all()
    assert np.abs(clear[place].astype(float) - 35).mean() > 20
    assert filled(picture, None) is picture


def test_a_dub_fades_in_beside_an_object() -> None:
    place = np.zeros((100, 100), bool)
    place[40:60, 40:60] = True
    opacity = bare(place)
    assert (opacity[place] == 0).all() and opacity[0, 0] == 1
    line = opacity[50, 60:70]
    assert (np.diff(line) >= 0).all() and 0 < line[1] < 1 and line[4] == 1


def test_regions_lie_on_the_face(face: tuple[np.ndarray, np.ndarray]) -> None:
    _, landmarks = face
    mouth, lips = (region(landmarks, SIDE, 64) for region in (mouth_region, lip_region))
    assert mouth.sum() > 4 * lips.sum() > 0 and mouth[lips].all()
    rows, columns = np.nonzero(lips)
    assert (columns.mean() * 4, rows.mean() * 4) == pytest.approx(landmarks[48:60].mean(0), abs=6)
    assert share_of(mouth, lips) == 1 and share_of(lips, np.zeros_like(lips)) == 0
