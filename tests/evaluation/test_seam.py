from __future__ import annotations

import cv2
import numpy as np
import pytest

from lipdub.evaluation.seam import SeamMeter
from lipdub.faces.crop import TEMPLATE, mouth_mask

SIDE = 96
MARKS = (TEMPLATE * SIDE).astype(np.float32)


def face(paint: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """Shaded, noisy skin, brighter by `paint`."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    skin = 150 + 40 * np.cos((x - 48) / 40) + 0.2 * y + np.random.default_rng(seed).normal(0, 3, (SIDE, SIDE))
    return np.clip(np.repeat((skin + (0 if paint is None else paint))[..., None], 3, 2), 0, 255).astype(np.uint8)


def measured(paint: np.ndarray | None = None) -> float:
    meter = SeamMeter(SIDE)
    for seed in range(10):
        meter.add(face(paint, seed), MARKS)
    return meter.kink()


def test_skin_has_no_seam() -> None:
    assert measured() < 1.5


def test_a_patch_with_a_hard_edge_has_one_and_a_soft_one_has_not() -> None:
    mask = mouth_mask(MARKS, SIDE)
    hard = measured(20 * mask)
    assert hard == pytest.approx(10, abs=2)
    assert measured(20 * cv2.GaussianBlur(mask, (0, 0), 4)) < 2


def test_a_line_and_a_straight_cut_are_seen() -> None:
    mask = mouth_mask(MARKS, SIDE)
    assert measured(20 * (mask - cv2.erode(mask, np.ones((3, 3))))) > 12
    cut = np.zeros((SIDE, SIDE))
    cut[53:] = 20
    assert measured(cut) > 8


def test_an_edge_on_one_side_is_no_seam() -> None:
    hand = np.zeros((SIDE, SIDE))
    hand[60:, :40] = -60
    assert measured(hand) < 3


def test_without_frames_there_is_no_value() -> None:
    assert np.isnan(SeamMeter(SIDE).kink())
