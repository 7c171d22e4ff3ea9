from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from lipdub.affine import transform
from lipdub.config import FaceConfig
from lipdub.faces import letters
from lipdub.faces.crop import crop_matrix
from lipdub.faces.letters import find_letters
from lipdub.faces.occlusion import filled

SIDE = 256
STYLES = {
    "white with an outline": ((255, 255, 255), True),
    "white": ((255, 255, 255), False),
    "yellow with an outline": ((255, 230, 0), True),
}


@pytest.fixture(scope="module")
def face() -> tuple[np.ndarray, np.ndarray]:
    """scikit-image's portrait as a crop, and its landmarks."""
    from skimage.data import astronaut

    from lipdub.faces.choose import builtin_backend

    picture = np.ascontiguousarray(astronaut())
    backend = builtin_backend(FaceConfig(), torch.device("cpu"))
    landmarks = backend.landmarks([picture], backend.detect([picture])[0].boxes[:1])[0][0]
    matrix = crop_matrix(landmarks, SIDE, margin=4 / 3)
    crop = cv2.warpAffine(picture, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(crop, np.uint8), transform(landmarks, matrix)


def captioned(crop: np.ndarray, landmarks: np.ndarray, style: str) -> tuple[np.ndarray, np.ndarray]:
    """The crop with a line of text across its lower lip and chin, and where the text is."""
    colour, outlined = STYLES[style]
    place = (4, round(float(landmarks[57, 1])) + 12)
    picture, ink = crop.copy(), np.zeros(crop.shape[:2], np.uint8)
    cv2.putText(ink, "AND THEN SHE", place, cv2.FONT_HERSHEY_SIMPLEX, 1.0, (255,), 2)
    if outlined:
        picture[cv2.dilate(ink, np.ones((5, 5), np.uint8)) > 0] = 0
    picture[ink > 0] = colour
    return picture, ink > 0


@pytest.mark.parametrize("style", STYLES)
def test_letters_over_a_mouth_are_found_and_filled(face: tuple[np.ndarray, np.ndarray], style: str) -> None:
    crop, landmarks = (face[0] * 0.75).astype(np.uint8), face[1]  # white letters on white skin cannot be told
    picture, ink = captioned(crop, landmarks, style)
    found = find_letters(picture, landmarks)
    assert found is not None and found.dtype == bool
    chin = ink & (np.abs(np.arange(SIDE) - landmarks[57, 0]) < 40)[None]
    assert found[chin].mean() > 0.97
    assert found.mean() < 0.25  # a band, not the face
    bare = filled(picture, found)
    assert (bare[~found] == picture[~found]).all()
    before, after = (np.abs(image[chin].astype(float) - crop[chin]).mean() for image in (picture, bare))
    assert after < 0.35 * before


def test_a_face_without_letters_has_none(face: tuple[np.ndarray, np.ndarray]) -> None:
    crop, landmarks = face
    assert find_letters(crop, landmarks) is None
    assert filled(crop, None) is crop


def test_letters_beside_a_face_are_none_of_its_business(face: tuple[np.ndarray, np.ndarray]) -> None:
    crop, landmarks = face
    picture = crop.copy()
    cv2.putText(picture, "NEWS", (4, 30), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (255, 255, 255), 2, cv2.LINE_AA)
    assert find_letters(picture, landmarks) is None


def test_shapes_that_do_not_fit_are_refused(face: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="landmarks"):
        find_letters(face[0], face[1][:60])


@pytest.mark.parametrize("style", [None, *STYLES])
def test_the_lower_face_alone_gives_the_same_decision(face: tuple[np.ndarray, np.ndarray], style: str | None) -> None:
    crop, landmarks = (face[0] * 0.75).astype(np.uint8), face[1]
    picture = crop if style is None else captioned(crop, landmarks, style)[0]
    eyes = float(np.linalg.norm(landmarks[36] - landmarks[45]))
    rows, columns = letters._surroundings(landmarks, eyes, SIDE)
    assert (rows.stop - rows.start) * (columns.stop - columns.start) < 0.6 * SIDE**2
    part = letters._letter_parts(
        picture[rows, columns], landmarks - np.array([columns.start, rows.start], np.float32), eyes
    )
    whole = letters._letter_parts(picture, landmarks, eyes)
    assert (part is None) == (whole is None) == (style is None)
    if part is not None and whole is not None:
        np.testing.assert_array_equal(part.face, whole.face[rows, columns])
        np.testing.assert_array_equal((part.bright & part.face), (whole.bright & whole.face)[rows, columns])
