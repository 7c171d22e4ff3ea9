from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from lipdub.faces.crop import TEMPLATE
from lipdub.faces.mouth_shape import (
    CLOSED_OPENING,
    OPENINGS,
    SHAPE_NAMES,
    SHAPE_SCALE,
    closed_openings,
    closed_rest,
    mouth_shape,
    relative_shape,
    rest_shape,
    shape_code,
)

MIRRORED = cdist(TEMPLATE * [-1, 1] + [1, 0], TEMPLATE).argmin(1)  # each landmark's counterpart on the other side


def test_mouth_shape_measures_what_its_names_say() -> None:
    assert len(SHAPE_NAMES) == 8 == len(SHAPE_SCALE)
    face = TEMPLATE.copy()
    face[62], face[66] = (0.5, 0.65), (0.5, 0.697)  # a tenth of the eye distance
    face[48], face[54] = (0.3, 0.68), (0.77, 0.68)  # the whole of it
    face[8] = face[33] + [0, 0.47 * 0.8]
    code = mouth_shape(face[None])
    assert code.shape == (1, 8) and code.dtype == np.float32
    np.testing.assert_allclose(code[0, [0, 4, 6]], [0.1, 1.0, 0.8], atol=2e-4)


def test_mouth_shape_does_not_depend_on_place_size_or_roll() -> None:
    code = mouth_shape(TEMPLATE[None])
    for scale, angle, at in ((40.0, 0.5, (0.0, 0.0)), (900.0, -1.2, (5000.0, -300.0))):
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        np.testing.assert_allclose(mouth_shape((TEMPLATE @ turn.T + at)[None]), code, rtol=1e-5)


def test_mouth_shape_mirrors_by_swapping_left_and_right() -> None:
    face = TEMPLATE.copy()
    face[61, 1] -= 0.02
    code = mouth_shape(np.stack([face, face[MIRRORED] * [-1, 1] + [1, 0]]))
    assert code[0, 1] > code[0, 2] + 0.02
    np.testing.assert_allclose(code[1], code[0, [0, 2, 1, 3, 4, 5, 6, 7]], atol=2e-3)


def test_rest_is_the_mean_of_the_calmest_fifth() -> None:
    shapes = np.tile(np.arange(10, dtype=np.float32)[::-1, None], (1, 8))
    np.testing.assert_allclose(rest_shape(shapes), np.full(8, 0.5))


def test_a_mouth_that_never_closed_rests_closed_and_another_as_it_does() -> None:
    rest = np.array([0.02, 0.01, 0.01, 0.2, 0.5, 0.4, 0.6, 0.1], np.float32)
    np.testing.assert_array_equal(closed_rest(rest), rest)
    smile = rest.copy()
    smile[:3] = (0.12, 0.1, 0.11)
    found = closed_rest(smile)
    assert found[:3].mean() == pytest.approx(0.045)
    np.testing.assert_allclose(found[[3, 6]], [0.2 - 1.15 * 0.065, 0.6 - 0.9 * 0.065], atol=1e-6)
    np.testing.assert_array_equal(found[[4, 5, 7]], rest[[4, 5, 7]])


def test_relative_shapes_are_multiples_of_the_scale() -> None:
    rest = mouth_shape(TEMPLATE[None])[0]
    shapes = rest + np.array([[0.0], [2.0]], np.float32) * SHAPE_SCALE
    np.testing.assert_allclose(relative_shape(shapes, rest), np.repeat([[0.0], [2.0]], 8, 1), atol=1e-5)


def test_lips_that_touch_are_closed_from_any_rest_and_never_opened() -> None:
    rest = mouth_shape(TEMPLATE[None])[0]
    asked = rest[OPENINGS] + closed_openings(rest) * SHAPE_SCALE[OPENINGS]
    np.testing.assert_allclose(asked, np.full(3, CLOSED_OPENING), atol=1e-6)
    np.testing.assert_array_equal(closed_openings(np.full(8, CLOSED_OPENING - 0.1, np.float32)), np.zeros(3))


def test_a_clip_is_measured_from_its_own_mouth_at_rest() -> None:
    faces = np.repeat(TEMPLATE[None], 10, 0)
    faces[2:, [65, 66, 67], 1] += 0.047  # two of ten frames, the calmest fifth, stay as they are
    code = shape_code(faces * 200 + 50)
    np.testing.assert_allclose(code[:2], np.zeros((2, 8)), atol=1e-4)
    np.testing.assert_allclose(code[2:, 0], np.full(8, 0.1 / SHAPE_SCALE[0]), rtol=1e-3)


@pytest.mark.parametrize("landmarks", [TEMPLATE, np.zeros((2, 67, 2)), np.full((1, 68, 2), np.nan)])
def test_bad_landmarks_are_refused(landmarks: np.ndarray) -> None:
    with pytest.raises(ValueError, match="landmarks must be"):
        mouth_shape(landmarks)
