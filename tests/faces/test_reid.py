from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lipdub.faces.reid import ALIKE, MOST, OTHER_PERSON, REMEMBERED, SIDE, People, likeness, pattern, should_sample


def somebody(seed: int, *, grain: int = 4, light: float = 1.0, noise: int = 0, shift: float = 0.0) -> NDArray[np.uint8]:
    """A made-up face: what tells people apart is texture of some pixels' size."""
    rough = np.random.default_rng(seed).uniform(40, 200, (SIDE // grain, SIDE // grain, 3)).astype(np.float32)
    face = cv2.resize(rough, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    face = cv2.warpAffine(face, np.array([[1, 0, shift], [0, 1, 0]]), (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
    face = light * face + np.random.default_rng(99).normal(0, noise, face.shape)
    return np.clip(face, 0, 255).astype(np.uint8)


def known(face: NDArray[np.uint8]) -> NDArray[np.float16]:
    found = pattern(face)
    assert found is not None
    return found


def test_a_pattern_is_that_of_the_person_not_of_the_light() -> None:
    one, dark, moved, other = (
        known(somebody(1)),
        somebody(1, light=0.6, noise=1),
        somebody(1, shift=0.5),
        somebody(2, grain=14),
    )
    assert likeness([one], [one]) == pytest.approx(1, abs=2e-3)
    assert likeness([one], [known(dark)]) > ALIKE and likeness([one], [known(moved)]) > ALIKE
    assert likeness([one], [known(somebody(2))]) < ALIKE - 0.02 and likeness([one], [known(other)]) < OTHER_PERSON
    assert likeness([one, known(other)], [known(other)]) == pytest.approx(1, abs=2e-3)
    assert likeness([], [one]) == 0


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_an_empty_picture_is_nobody(grey: int) -> None:
    assert pattern(np.full((SIDE, SIDE, 3), grey, np.uint8)) is None


def test_who_comes_back_keeps_the_number() -> None:
    people, anna, ben = People(), known(somebody(1)), known(somebody(2))
    again = known(somebody(1, light=0.8))
    assert people.number(0, range(50), [anna]) == 0
    assert people.number(1, range(50), [ben]) == 1
    assert people.number(2, range(50, 80), [ben]) == 1
    assert people.number(3, range(80, 90), [again]) == 0
    assert people.number(4, range(85, 95), [again]) == 4  # nobody is at two places at once
    assert people.number(5, range(95, 99), []) == 5 and people.number(6, range(99, 103), []) == 6


def test_looks_are_taken_ever_more_seldom_and_not_without_end() -> None:
    assert [count for count in range(1, 40) if should_sample(count)] == [1, 4, 9, 16, 25, 36]
    people = People()
    for number in range(3):
        frames = range(100 * number, 100 * number + 100)
        assert people.number(number, frames, [known(somebody(1, noise=n % 3)) for n in range(MOST)]) == 0
    assert [len(person.patterns) for person in people._known] == [MOST]


def test_only_so_many_people_are_remembered_the_last_seen_first() -> None:
    people, faces = People(), np.eye(REMEMBERED + 1, dtype=np.float16)  # patterns that have nothing in common
    for number, face in enumerate(faces[:-1]):
        assert people.number(number, range(number, number + 1), [face]) == number
    assert people.number(500, range(500, 501), [faces[0]]) == 0  # seen again: now the last one
    assert people.number(501, range(501, 502), [faces[-1]]) == 501  # one too many
    assert people.number(502, range(502, 503), [faces[1]]) == 502  # forgotten
    assert people.number(503, range(503, 504), [faces[0]]) == 0
