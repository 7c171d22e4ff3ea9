"""The composition on the CPU against that of the accelerators."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from lipdub.dub.composition import compose_face
from lipdub.models.warp import Cells, Warp, compose_part

SIDE, ACROSS = 96, 16


def smooth(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count, SIDE, SIDE, 3) pictures in [0, 1]."""
    coarse = rng.random((count, 8, 8, 3), np.float32)
    large = [cv2.resize(each, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for each in coarse]
    return np.clip(np.stack(large), 0, 1)


@pytest.mark.parametrize("cells", [((0, 8), (0, 16)), ((2, 7), (3, 12)), ((7, 8), (15, 16))])
def test_it_is_what_an_accelerator_makes(cells: tuple[tuple[int, int], tuple[int, int]]) -> None:
    rng = np.random.default_rng(3)
    pictures = smooth(rng, 4)
    flows = (0.3 * rng.standard_normal((4, 2, 8, ACROSS))).astype(np.float32)  # also beyond the border
    weights = rng.random((4, 8, ACROSS), np.float32)
    weights[1] = 0  # a reference that is nowhere seen
    weights[2, :, 5:] = 0  # one that is seen on one side
    weights[0, 3:6, 4:10] = 1 / 600  # and one that leaves a hole
    weights /= weights.sum(0)
    gains, part = np.array([[0.5, 0.7, 0.9], [2, 2, 2], [1.2, 1, 0.8]], np.float32), Cells(*(slice(*c) for c in cells))
    found = compose_face(flows, weights, [*pictures], part, gains)
    first, own = (torch.from_numpy(each).permute(0, 3, 1, 2) for each in (pictures[:3], pictures[3:]))
    warp = Warp(torch.tensor([[0, 1, 2]]), torch.from_numpy(flows)[None], torch.from_numpy(weights)[None])
    wanted = compose_part(warp, first, part, own=own, gains=torch.from_numpy(gains)[None])
    np.testing.assert_allclose(found, wanted[0].permute(1, 2, 0).numpy(), atol=0.2 / 255)


def test_a_flow_that_is_not_finite_gives_a_face_that_is_not() -> None:
    flows, weights = np.zeros((1, 2, 8, ACROSS), np.float32), np.ones((1, 8, ACROSS), np.float32)
    flows[0, 1, 3, 5] = np.inf
    whole = Cells(slice(0, 8), slice(0, 16))
    assert np.isnan(compose_face(flows, weights, [np.zeros((SIDE, SIDE, 3), np.float32)], whole)).all()
