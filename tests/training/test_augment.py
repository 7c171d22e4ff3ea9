"""Other lenses, builds and lights: what they do to a picture they do to its points and mouth shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lipdub.config import load_config
from lipdub.training.augment import ASPECT, IDENTITY, LENS_DISTORTION, SHEAR, SIDE_LIGHT, Augmentation
from lipdub.training.data import ClipSet

SIZE = 96
STRAIGHT = np.array([[1.0, 0, 0], [0, 1, 0]])


@pytest.fixture(scope="module")
def clips(made_data: Path) -> ClipSet:
    """Drawn faces whose samples look otherwise."""
    settings = ["train.augment=1", "train.references=4", "reference.count=4", "generator.whole_references=true"]
    return ClipSet(made_data, "train", load_config("debug", settings))


def test_as_it_is_nothing_changes(draw_dots: Callable[..., np.ndarray]) -> None:
    points = np.array([[20.0, 24], [70, 30]])
    picture = draw_dots(points, SIZE)
    assert np.array_equal(IDENTITY.warp(picture, STRAIGHT, SIZE), picture)
    assert IDENTITY.distort(points, SIZE) == pytest.approx(points)
    assert (IDENTITY.light(SIZE) == 1).all()
    assert np.array_equal(IDENTITY.build, np.eye(2))


@pytest.mark.parametrize("lens_distortion", [-0.5, 0.4])
def test_a_lens_moves_points_with_the_picture(draw_dots: Callable[..., np.ndarray], lens_distortion: float) -> None:
    shown = np.array([[20.0, 24], [70, 30], [48, 75], [30, 60]])
    augmentation = Augmentation(lens_distortion=lens_distortion)
    crop, moved = augmentation.warp(draw_dots(shown, SIZE), STRAIGHT, SIZE), augmentation.distort(shown, SIZE)
    assert np.abs(moved - shown).max() > 1
    for x, y in moved:
        nearby = crop[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3, 0]
        assert nearby.max() > 190
        assert np.unravel_index(nearby.argmax(), (5, 5)) in {(r, c) for r in (1, 2, 3) for c in (1, 2, 3)}
    out, back = np.hypot(*(moved - 48).T), np.hypot(*(shown - 48).T)
    assert ((out < back) == (lens_distortion > 0)).all()


def test_light_falls_from_the_side_that_is_asked_for() -> None:
    light = Augmentation(light_x=1.0, light_y=-0.5).light(SIZE)
    assert np.log(light[48, -1] / light[48, 0]) == pytest.approx(95 / 96)
    assert np.log(light[-1, 48] / light[0, 48]) == pytest.approx(-0.5 * 95 / 96)


def test_looks_are_drawn_as_wide_as_said() -> None:
    rng = np.random.default_rng(0)
    augmentations = [Augmentation.sample(rng, 0.5) for _ in range(4000)]
    found = {
        LENS_DISTORTION: [augmentation.lens_distortion for augmentation in augmentations],
        SHEAR: [augmentation.build[0, 1] for augmentation in augmentations],
        ASPECT: [np.log(augmentation.build[1, 1]) for augmentation in augmentations],
        SIDE_LIGHT: [augmentation.light_y for augmentation in augmentations],
    }
    for wanted, values in found.items():
        assert np.std(values) == pytest.approx(wanted / 2, rel=0.06)
    assert np.linalg.det([augmentation.build for augmentation in augmentations]) == pytest.approx(1)
    later = [augmentations[0].relight(rng, 0.1) for _ in range(1000)]
    assert np.std([augmentation.light_x for augmentation in later]) == pytest.approx(0.1 * SIDE_LIGHT, rel=0.1)
    assert np.mean([augmentation.light_x for augmentation in later]) == pytest.approx(
        augmentations[0].light_x, abs=0.01
    )
    assert {augmentation.lens_distortion for augmentation in later} == {augmentations[0].lens_distortion}


def test_a_longer_face_opens_its_mouth_wider_by_its_code(clips: ClipSet) -> None:
    clip, frames = clips.clips[0], np.arange(0, 30, 3)
    seen = [
        clips._shape(
            clip, clip.landmarks[frames], clips._crop_matrix(clip, SIZE, False, augmentation), SIZE, augmentation
        )
        for augmentation in (IDENTITY, Augmentation(), Augmentation(build=np.diag([1 / 1.1, 1.1])))
    ]
    assert seen[0] == pytest.approx(clip.shape[frames], abs=1e-6)
    assert seen[1] == pytest.approx(seen[0], abs=1e-4)
    rest = np.abs(seen[0]).sum(1).argmin()
    grown = (seen[2] - seen[2][rest])[:, 0] / (seen[0] - seen[0][rest] + 1e-9)[:, 0]
    grown = np.delete(grown, rest)
    assert np.ptp(grown) < 0.02
    assert 1.05 < grown.mean() < 1.25


def test_a_samples_lips_lie_on_its_mouth_whatever_it_looks_like(clips: ClipSet) -> None:
    """The inside of a drawn mouth is nearly black, and nothing else is."""
    clips.reseed(3)
    batch = clips.batch(40, SIZE, 16)
    lit = batch.real.amax(2)  # (B, T, S, S)
    dark = (lit < 0.35 * lit.mean((2, 3), keepdim=True)) & (batch.mouth[:, :, 0] > 0)
    open_mouths = dark.sum((2, 3)) > 60
    assert int(open_mouths.sum()) > 40
    inside = (dark * batch.lips[:, :, 0]).sum((2, 3)) / dark.sum((2, 3)).clamp(min=1)
    assert float(inside[open_mouths].mean()) > 0.9
    elsewhere = (dark * batch.lips[:, :, 0].roll(12, 3)).sum((2, 3)) / dark.sum((2, 3)).clamp(min=1)
    assert float(elsewhere[open_mouths].mean()) < 0.75


def test_a_sample_and_its_references_have_one_look(clips: ClipSet, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Augmentation] = []
    warp = Augmentation.warp

    def noted(self: Augmentation, *args: object, **kwargs: object) -> object:
        seen.append(replace(self, light_x=round(self.light_x, 6)))
        return warp(self, *args, **kwargs)

    monkeypatch.setattr(Augmentation, "warp", noted)
    clips.batch(2, SIZE, 16)
    assert len({augmentation.lens_distortion for augmentation in seen}) == 2
    assert len({augmentation.light_x for augmentation in seen}) > 2  # references are lit a little otherwise
    seen.clear()
    clips.batch(2, SIZE, 16, augment=False)
    assert {augmentation.lens_distortion for augmentation in seen} == {0.0}
    seen.clear()
    clips.faces(clips.clips[0], 0, 5, SIZE, augment=True)
    assert len({(augmentation.lens_distortion, augmentation.light_x) for augmentation in seen}) == 1
    assert seen[0].lens_distortion != 0
