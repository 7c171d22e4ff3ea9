from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lipdub.config import ReferenceConfig
from lipdub.errors import ResourceError
from lipdub.faces.crop import TEMPLATE
from lipdub.faces.mouth_shape import mouth_shape
from lipdub.faces.references import (
    DRAWN_OPEN,
    ReferencePool,
    ReferenceStore,
    Selection,
    best_of_each,
    cluster,
    nearest_poses,
    sharpness,
)

S = 32
CONFIG = ReferenceConfig(count=5, pool=50)


def mouth(opening: float, width: float = 0.0) -> np.ndarray:
    """Landmarks in crop pixels of a mouth that is opened by that share of the crop."""
    points = TEMPLATE.copy()
    points[[61, 62, 63], 1] = 0.68
    points[[65, 66, 67], 1] = 0.68 + opening
    points[55:60, 1] += opening
    points[5:12, 1] += 0.6 * opening
    points[[48, 60], 0] -= width
    points[[54, 64], 0] += width
    return points * S


def crop(level: int, *, blur: bool = False) -> np.ndarray:
    """A face whose number can be read from its first pixel."""
    picture = np.random.default_rng(0).integers(0, 255, (S, S, 3)).astype(np.uint8)
    picture = cv2.GaussianBlur(picture, (0, 0), 2) if blur else picture
    picture[0, 0] = (level % 256, level // 256, 0)
    return picture


def numbers(selection: Selection) -> list[int]:
    return [int(c[0, 0, 0]) + 256 * int(c[0, 0, 1]) for c in selection.crops]


def filled(count: int, config: ReferenceConfig = CONFIG) -> ReferencePool:
    """Mouths in five groups by opening, three widths each."""
    pool = ReferencePool(config)
    for i in range(count):
        pool.push(crop(i), mouth(0.03 * (i % 5) + 0.0001 * i, 0.02 * (i % 3)))
    return pool


def test_selection_is_distinct_deterministic_and_holds_the_most_closed_mouth() -> None:
    chosen = filled(40).select(seed=3)
    assert chosen.crops.shape == (5, S, S, 3) and chosen.landmarks.shape == (5, 68, 2) and chosen.shapes.shape == (5, 8)
    assert len(set(numbers(chosen))) == 5
    assert numbers(chosen)[0] == 0  # the most closed mouth of all
    assert chosen.frames.tolist() == numbers(chosen)
    np.testing.assert_allclose(chosen.shapes, mouth_shape(chosen.landmarks))
    again = filled(40).select(seed=3)
    np.testing.assert_array_equal(again.crops, chosen.crops)


def test_every_group_of_mouths_is_present() -> None:
    pool = ReferencePool(CONFIG)
    for i in range(40):
        pool.push(crop(i), mouth(0.04 * (i % 5) + 1e-4 * i))
    openings = sorted(pool.select().shapes[:, 0] * 0.47 / 0.04)
    np.testing.assert_allclose(openings, [0, 1, 2, 3, 4], atol=0.15)


def test_the_sharpest_of_each_group_stands_for_it() -> None:
    pool = ReferencePool(replace(CONFIG, closed_mouth=False))
    for i in range(40):
        pool.push(crop(i, blur=i not in range(20, 25)), mouth(0.04 * (i % 5) + 1e-4 * i))
    assert sorted(numbers(pool.select())) == [20, 21, 22, 23, 24]


def test_the_most_closed_mouth_takes_its_own_groups_place() -> None:
    pool = ReferencePool(CONFIG)
    for i in range(40):
        pool.push(crop(i, blur=i not in range(20, 25)), mouth(0.04 * (i % 5) + 1e-4 * i))
    assert numbers(pool.select())[0] == 0
    assert sorted(numbers(pool.select())) == [0, 21, 22, 23, 24]


def test_the_pool_is_bounded_and_spread_over_time() -> None:
    pool = ReferencePool(CONFIG)
    one, face = crop(0), mouth(0.05)
    largest = 0
    for i in range(10_000):
        one[0, 0] = (i % 256, i // 256, 0)
        pool.push(one, face if i != 4321 else mouth(0.01), sharpness=float(i * 7919 % 101))
        largest = max(largest, len(pool))
    assert largest <= 50 and len(pool) >= 25
    kept = np.array([face.frame for face in pool._kept])
    held = np.array([int(face.crop[0, 0, 0]) + 256 * int(face.crop[0, 0, 1]) for face in pool._kept])
    np.testing.assert_array_equal(kept, held)  # crops are copies, not views of what was pushed
    steps = np.diff(kept, prepend=0, append=10_000)
    assert steps.max() <= 2 * 256  # n has doubled eight times: one of every 256


def test_the_most_closed_mouth_survives_thinning() -> None:
    pool = ReferencePool(CONFIG)
    for i in range(400):
        pool.push(crop(i), mouth(0.001 if i == 16 else 0.05), sharpness=0.0 if i == 16 else 1.0)
    assert numbers(pool.select())[0] == 16


def test_wants_spares_the_crops_that_would_be_dropped() -> None:
    asked, all_pushed = ReferencePool(CONFIG), filled(300)
    made = 0
    for i in range(300):
        if asked.wants():
            asked.push(crop(i), mouth(0.03 * (i % 5) + 0.0001 * i, 0.02 * (i % 3)))
            made += 1
    assert made < 150
    np.testing.assert_array_equal(asked.select().crops, all_pushed.select().crops)


def test_few_frames_are_filled_up_by_affine_copies() -> None:
    pool = filled(2, replace(CONFIG, draw_open=False))
    chosen = pool.select(seed=1)
    assert len(chosen.crops) == 5 and set(chosen.frames[:2].tolist()) == {0, 1}
    for copy in range(2, 5):
        source = (copy) % 2
        assert chosen.frames[copy] == chosen.frames[source]
        moved = np.abs(chosen.landmarks[copy] - chosen.landmarks[source]).max()
        assert 0.1 < moved < 0.15 * S
        assert (chosen.crops[copy] != chosen.crops[source]).any()
        np.testing.assert_allclose(chosen.shapes[copy], chosen.shapes[source], atol=1e-5)
    np.testing.assert_array_equal(pool.select(seed=1).crops, chosen.crops)
    assert (pool.select(seed=2).crops != chosen.crops).any()


def closed_pool(count: int, config: ReferenceConfig = CONFIG) -> ReferencePool:
    """Mouths that hardly open, in four widths."""
    pool = ReferencePool(config)
    for i in range(count):
        pool.push(crop(i), mouth(0.002 * (i % 3), 0.02 * (i % 4)))
    return pool


@pytest.mark.parametrize("count", [1, 40])
def test_mouths_that_never_open_are_drawn_open_in_the_last_places(count: int) -> None:
    chosen = closed_pool(count).select(views=2)
    groups = len(np.unique(chosen.group))
    assert groups == CONFIG.count
    first = chosen.group == 0
    assert not chosen.drawn[first].any() and chosen.drawn.any()
    for number, opening in zip(np.unique(chosen.group)[-3:] if count > 1 else (1, 2, 3), DRAWN_OPEN, strict=True):
        drawn = chosen.group == number
        np.testing.assert_array_equal(chosen.frames[drawn], chosen.frames[first])  # of the most closed mouths
        wider = chosen.shapes[drawn, 0] - chosen.shapes[first, 0]
        np.testing.assert_allclose(wider, opening * chosen.shapes[first, 5], rtol=0.05)
    assert (chosen.crops[chosen.group == 1] != chosen.crops[first][:1]).any()
    assert chosen.rest[0] < 0.05  # drawn mouths are no part of what is at rest


@pytest.mark.parametrize(("places", "drawn"), [(1, ()), (2, DRAWN_OPEN[-1:]), (3, DRAWN_OPEN[-2:]), (6, DRAWN_OPEN)])
def test_the_most_closed_mouth_keeps_a_place_beside_drawn_ones(places: int, drawn: tuple[float, ...]) -> None:
    chosen = closed_pool(40, replace(CONFIG, count=places)).select()
    assert len(np.unique(chosen.group)) == places and not chosen.drawn[0]
    assert len(np.unique(chosen.group[chosen.drawn])) == len(drawn)
    if drawn:
        wider = chosen.shapes[-1, 0] - chosen.shapes[0, 0]
        np.testing.assert_allclose(wider, drawn[-1] * chosen.shapes[0, 5], rtol=0.05)


def test_mouths_are_not_drawn_open_where_one_opens_or_nobody_asks() -> None:
    pool = closed_pool(40)
    pool.push(crop(40), mouth(0.1))
    assert mouth_shape(pool.select().landmarks)[:, 0].max() == pytest.approx(mouth_shape(mouth(0.1)[None])[0, 0])
    plain = closed_pool(40, replace(CONFIG, draw_open=False)).select()
    assert plain.shapes[:, 0].max() < 0.05 and not plain.drawn.any()


def test_the_landmarks_of_a_copy_move_with_its_picture() -> None:
    pool = ReferencePool(replace(CONFIG, count=2))
    picture = np.zeros((S, S, 3), np.uint8)
    face = mouth(0.05)
    x, y = face[30]
    picture[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3] = 255
    pool.push(picture, face)
    chosen = pool.select(seed=5)
    rows, columns = np.nonzero(chosen.crops[1][..., 0] > 127)
    before = np.array([np.nonzero(picture[..., 0])[1].mean(), np.nonzero(picture[..., 0])[0].mean()])
    shift = np.array([columns.mean(), rows.mean()]) - before
    np.testing.assert_allclose(chosen.landmarks[1, 30] - face[30], shift, atol=0.5)


def test_without_augmentation_there_are_fewer() -> None:
    assert len(filled(3, replace(CONFIG, augment=False)).select().crops) == 3


def turned(face: np.ndarray, yaw: float) -> np.ndarray:
    """The face with its head turned: the nose moves aside, by a share of the crop."""
    moved = face.copy()
    moved[27:36, 0] += yaw * S * np.linspace(0.2, 1, 9)
    return moved


def looking_round(views: int, *, sharp_at: int | None = None) -> Selection:
    """Three kinds of mouth, each seen from the left, from the front and from the right."""
    pool = ReferencePool(replace(CONFIG, count=3))
    for i in range(45):
        face = turned(mouth(0.08 * (i % 3) + 1e-5 * i), 0.04 * ((i // 3) % 3 - 1))
        pool.push(crop(i), face, sharpness=1.0 if i == sharp_at else 0.0)
    return pool.select(views=views)


def test_each_group_of_mouths_is_seen_from_different_sides() -> None:
    chosen = looking_round(3)
    assert chosen.group.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for number in range(3):
        own = chosen.group == number
        assert np.ptp(chosen.shapes[own, 0]) < 0.01  # the same mouth
        assert sorted((n // 3) % 3 for n in chosen.frames[own]) == [0, 1, 2]  # every side
    assert chosen.shapes[:3, 0].max() < chosen.shapes[3:, 0].min()  # the closed ones are first
    assert looking_round(3, sharp_at=22).frames.tolist().count(22) == 1
    assert looking_round(2).group.tolist() == [0, 0, 1, 1, 2, 2]


def test_one_view_is_what_stands_for_its_group_alone() -> None:
    chosen = filled(40).select(seed=3)
    np.testing.assert_array_equal(filled(40).select(seed=3, views=1).crops, chosen.crops)
    assert chosen.group.tolist() == [0, 1, 2, 3, 4]


def test_heads_that_do_not_turn_are_seen_once() -> None:
    pool = ReferencePool(CONFIG)
    for i in range(40):
        pool.push(crop(i), mouth(0.04 * (i % 5) + 1e-4 * i))
    assert len(pool.select(views=4).crops) == 5


def test_frames_look_at_the_views_nearest_in_pose() -> None:
    chosen = looking_round(3)
    yaws = np.repeat([-0.04, 0.0, 0.04, 0.0], 5)
    faces = np.stack([7 * turned(mouth(0.1), yaw) + 300 for yaw in yaws])  # another mouth, size and place
    views = nearest_poses(faces, chosen)
    assert views.shape == (20, 3)
    np.testing.assert_array_equal(chosen.group[views], np.tile([0, 1, 2], (20, 1)))
    sides = (chosen.frames[views] // 3) % 3
    np.testing.assert_array_equal(sides, np.repeat([[0], [1], [2], [1]], 5, 0).repeat(3, 1))


def test_trembling_landmarks_change_no_view() -> None:
    chosen = looking_round(3)
    rng = np.random.default_rng(0)
    between = [turned(mouth(0.1), 0.02 + 0.003 * rng.normal()) for _ in range(100)]
    assert (np.diff(nearest_poses(np.stack(between), chosen), axis=0) == 0).all()


def test_some_references_alone() -> None:
    chosen = looking_round(3)
    kept = chosen.only(chosen.group > 0)
    assert 0 < len(kept.crops) == len(kept.group) == len(kept.frames) == 6
    np.testing.assert_array_equal(kept.rest, chosen.rest)
    views = nearest_poses(kept.landmarks, kept)
    assert views.max() < len(kept.crops)


def test_equal_faces_make_one_group() -> None:
    pool = ReferencePool(replace(CONFIG, augment=False, draw_open=False))
    for i in range(10):
        pool.push(crop(i), mouth(0.05))
    assert len(pool.select().crops) == 1


@pytest.mark.parametrize("sampling", ["random", "neighbourhood"])
def test_other_samplings(sampling: str) -> None:
    pool = filled(45, replace(CONFIG, sampling=sampling, neighbourhood=4, closed_mouth=False))
    chosen = numbers(pool.select(seed=1))
    assert len(set(chosen)) == 5 and chosen != numbers(pool.select(seed=2))
    if sampling == "neighbourhood":
        assert all(abs(number - 22) <= 4 for number in chosen)
    with_closed = filled(45, replace(CONFIG, sampling=sampling, neighbourhood=4)).select(seed=1)
    assert numbers(with_closed)[0] == 0 and len(set(numbers(with_closed))) == 5


def test_what_cannot_be_selected() -> None:
    with pytest.raises(ValueError, match="no face"):
        ReferencePool(CONFIG).select()
    with pytest.raises(ValueError, match="best"):
        filled(3, replace(CONFIG, sampling="best")).select()


def test_cluster_sees_the_mouth_and_not_the_place() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 3, 60)
    faces = np.stack([mouth(0.08 * g) * rng.uniform(0.5, 3) + rng.uniform(-500, 500, 2) for g in groups])
    labels = cluster(faces, 3, seed=0)
    assert labels.dtype == np.int64 and set(labels) == {0, 1, 2}
    assert len(set(zip(groups.tolist(), labels.tolist(), strict=True))) == 3
    np.testing.assert_array_equal(cluster(faces, 3, seed=0), labels)
    assert set(cluster(faces[:2], 10)) <= {0, 1}


def test_sharpness_looks_at_the_mouth() -> None:
    sharp, blurred = crop(0), crop(0, blur=True)
    assert sharpness(sharp) > 10 * sharpness(blurred) > 0
    upper = blurred.copy()
    upper[: S // 2 - 1] = sharp[: S // 2 - 1]
    assert sharpness(upper) == pytest.approx(sharpness(blurred))
    assert sharpness(np.full((S, S, 3), 9, np.uint8)) == 0


def test_a_store_gives_back_what_it_kept_and_holds_nothing() -> None:
    kept = {number: filled(number + 3).select() for number in (4, 1, 9)}
    store = ReferenceStore()
    for number, selection in kept.items():
        store.keep(number, selection)
    assert list(store) == [4, 1, 9] and len(store) == 3
    for number in (9, 4, 1, 4):  # in any order, again and again
        for field in fields(Selection):
            np.testing.assert_array_equal(getattr(store[number], field.name), getattr(kept[number], field.name))
    assert store[4].crops is not store[4].crops
    with pytest.raises(KeyError):
        store[2]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_of_temporary_files_is_no_bug(monkeypatch) -> None:
    with open("/dev/full", "r+b", buffering=0) as full:
        monkeypatch.setattr("tempfile.TemporaryFile", lambda prefix: full)
        with pytest.raises(ResourceError, match="cannot keep reference faces"):
            ReferenceStore().keep(0, filled(3).select())


def test_the_best_of_each_label_is_the_first_of_the_highest_scores() -> None:
    labels, scores = np.array([2, 0, 2, 0, 5, 2]), np.array([1.0, 3.0, 4.0, 3.0, -1.0, 4.0])
    assert best_of_each(labels, scores).tolist() == [1, 2, 4]


def test_covered_mouths_are_no_references_while_there_are_others() -> None:
    def covered(crops: list[np.ndarray], landmarks: list[np.ndarray]) -> np.ndarray:
        assert len(crops) == len(landmarks) == 40
        return np.array([int(c[0, 0, 0]) < 30 for c in crops])

    chosen = filled(40).select(covered=covered)
    assert chosen.crops.shape == (5, S, S, 3) and min(numbers(chosen)) >= 30
    everyone = filled(40).select(covered=lambda crops, landmarks: np.ones(len(crops), bool))
    np.testing.assert_array_equal(everyone.crops, filled(40).select().crops)
