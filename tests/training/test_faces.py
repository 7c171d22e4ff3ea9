"""The pictures and losses that the two face networks are trained on, and two steps of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lipdub.config import load_config
from lipdub.errors import InputError
from lipdub.faces.crop import TEMPLATE
from lipdub.media.clip import write_clip
from lipdub.models.facenets import FaceDetector, LandmarkNet, centres, decode_boxes, spread
from lipdub.training.engine import Engine
from lipdub.training.facedata import (
    BACKGROUND_NAMES,
    BACKGROUNDS,
    FLIP,
    LabelledFrame,
    LabelledPatch,
    degrade,
    detector_sample,
    detector_targets,
    labelled_clips,
    landmark_sample,
    load_backgrounds,
    load_frames,
    load_patches,
    read_frames,
)
from lipdub.training.faces import BACKGROUND_SHARE, FaceTraining, detector_loss, landmark_loss
from lipdub.training.stages import RunRequest, run_stage
from lipdub.weights import load_model

BOX = (60.0, 40.0, 180.0, 190.0)  # of the face in the labelled clip


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A clip of twelve frames with one face in each, and its labels; a clip without labels beside it."""
    folder = tmp_path_factory.mktemp("faces")
    clips, labels = folder / "clips", folder / "labels"
    (clips / "studio").mkdir(parents=True)
    (labels / "studio").mkdir(parents=True)
    rng = np.random.default_rng(0)
    frames = [cv2.resize(rng.integers(0, 255, (30, 40, 3), np.uint8), (320, 240)) for _ in range(12)]
    for name in ("a", "b"):
        write_clip(clips / "studio" / f"{name}.mp4", frames, 25.0, 18)
    low, high = np.array(BOX[:2]), np.array(BOX[2:])
    np.savez(
        labels / "studio" / "a.npz",
        frame=np.arange(12, dtype=np.int32),
        box=np.array([BOX] * 12, np.float32),
        score=np.ones(12, np.float32),
        landmarks=np.array([low + TEMPLATE * (high - low)] * 12, np.float32),
        presence=np.ones(12, np.float32),
    )
    return clips, labels


def drawn(points: torch.Tensor) -> torch.Tensor:
    """The maps of a network that knows the points."""
    return (spread(points, 24, 24) + 1e-12).log()


def test_flip_is_an_involution_that_swaps_sides() -> None:
    assert sorted(FLIP.tolist()) == list(range(68))
    assert np.array_equal(FLIP[FLIP], np.arange(68))
    assert FLIP[36:42].tolist() == [45, 44, 43, 42, 47, 46]  # the left eye becomes the right one
    assert (FLIP[48], FLIP[60], FLIP[61], FLIP[67]) == (54, 64, 63, 65)
    mirrored = np.stack([1 - TEMPLATE[:, 0], TEMPLATE[:, 1]], 1)[FLIP]
    assert mirrored == pytest.approx(TEMPLATE, abs=0.002)  # the template is symmetric


def test_targets_decode_to_the_boxes_they_were_made_of() -> None:
    boxes = [
        np.array([[20.0, 30.0, 60.0, 85.0], [150.0, 100.0, 171.0, 118.0], [230.0, 10.0, 318.0, 120.0]], np.float32),
        np.zeros((0, 4), np.float32),
        np.array([[100.3, 57.9, 133.1, 99.2]], np.float32),
    ]
    heat, values, weight = detector_targets(boxes, 224, 320)
    assert heat.shape == weight.shape == (3, 28, 40)
    assert values.shape == (3, 4, 28, 40)
    logits = np.log(np.clip(heat, 1e-6, 1 - 1e-6) / (1 - np.clip(heat, 1e-6, 1 - 1e-6)))
    output = torch.from_numpy(np.concatenate([logits[:, None], values], 1))
    for wanted, (found, scores) in zip(boxes, decode_boxes(output, 0.9), strict=True):
        assert len(found) == len(wanted)
        order = np.argsort(found[:, 0].numpy())
        assert found.numpy()[order] == pytest.approx(wanted, abs=1e-3)
        assert float(scores.min()) > 0.99 if len(scores) else True


def test_every_cell_near_a_centre_regresses_the_same_box() -> None:
    box = np.array([[40.0, 40.0, 200.0, 180.0]], np.float32)
    _, values, weight = detector_targets([box], 224, 320)
    rows, columns = np.nonzero(weight[0])
    assert len(rows) > 4
    dx, dy, log_w, log_h = values[0][:, rows, columns]
    assert 8 * (columns + dx) == pytest.approx(120)
    assert 8 * (rows + dy) == pytest.approx(110)
    assert 8 * np.exp(log_w) == pytest.approx(160, rel=1e-5)
    assert 8 * np.exp(log_h) == pytest.approx(140, rel=1e-5)


def test_the_right_answer_costs_nothing() -> None:
    heat, values, weight = (
        torch.from_numpy(t) for t in detector_targets([np.array([[50, 50, 90, 90]], "f4")], 128, 128)
    )
    centre = (heat > 0.999).float()
    right = torch.cat([40 * centre[:, None] - 20, values], 1)
    wrong = torch.cat([-40 * centre[:, None] + 20, values + 1], 1)
    assert float(detector_loss(right, heat, values, weight)) < 0.01
    assert float(detector_loss(wrong, heat, values, weight)) > 4
    points = torch.from_numpy(TEMPLATE).float()[None]
    yes, no = torch.ones(1), torch.zeros(1)
    assert float(landmark_loss(drawn(points), torch.tensor([20.0]), points, yes)) < 2e-3
    assert float(landmark_loss(drawn(points + 0.1), torch.tensor([20.0]), points, yes)) > 1
    free = landmark_loss(drawn(points + 0.1), torch.tensor([-20.0]), points, no)  # no face
    assert float(free) < 1e-4


def test_lips_and_eyes_count_double() -> None:
    points, yes, sure = torch.from_numpy(TEMPLATE).float()[None], torch.ones(1), torch.tensor([30.0])
    right = float(landmark_loss(drawn(points), sure, points, yes))
    losses = []
    for index in (30, 62):  # tip of the nose, upper inner lip
        moved = points.clone()
        moved[0, index] += 0.1
        losses.append(float(landmark_loss(drawn(moved), sure, points, yes)) - right)
    assert losses[1] == pytest.approx(2 * losses[0], rel=2e-3)


def test_maps_say_where_points_are() -> None:
    inside = torch.tensor([[[0.5, 0.25], [0.2, 0.8], [0.91, 0.13]]])
    maps = spread(inside, 24, 24)
    assert maps.shape == (1, 3, 24, 24)
    assert maps.sum((2, 3)).numpy() == pytest.approx(1)
    row, column = divmod(int(maps[0, 0].argmax()), 24)
    assert (row, column) in {(5, 11), (5, 12), (6, 11), (6, 12)}
    assert centres(maps.log()).numpy() == pytest.approx(inside.numpy(), abs=2e-3)
    outside = spread(torch.tensor([[[1.3, 0.5]]]), 24, 24)
    assert divmod(int(outside.argmax()), 24)[1] == 23
    assert centres(torch.zeros(1, 1, 24, 24)).numpy() == pytest.approx(0.5)  # knows nothing: the middle


def test_landmarks_lie_where_the_picture_has_them(
    monkeypatch: pytest.MonkeyPatch, draw_dots: Callable[..., np.ndarray]
) -> None:
    monkeypatch.setattr("lipdub.training.facedata.degrade", lambda image, rng: image)
    points = (80 + 90 * (TEMPLATE - 0.5)).astype(np.float32)
    shown = [0, 16, 8, 30, 39, 42, 48, 54, 57]  # far enough apart; a mirrored face has the same
    patch = LabelledPatch(draw_dots(points[shown], 160), points)
    rng = np.random.default_rng(0)
    hits, misses = [], []
    for _ in range(60):
        crop, found, face = landmark_sample([patch], rng)
        assert crop.shape == (96, 96, 3)
        for x, y in 96 * found[shown] if face else []:
            for shift, seen in ((0, hits), (9, misses)):
                if 2 <= x < 94 - shift and 2 <= y < 94:
                    row, column = round(y), round(x + shift)
                    seen.append(crop[row - 1 : row + 2, column - 1 : column + 2, 0].max() > 150)
    assert len(hits) > 400
    assert np.mean(hits) > 0.9  # some are under a random patch
    assert np.mean(misses) < 0.3


def test_landmarks_of_a_mirrored_sample_keep_their_meaning(draw_dots: Callable[..., np.ndarray]) -> None:
    points = (80 + 90 * (TEMPLATE - 0.5)).astype(np.float32)
    patch = LabelledPatch(draw_dots(points[:1], 160), points)
    rng = np.random.default_rng(1)
    for _ in range(30):
        _, found, face = landmark_sample([patch], rng)
        if face:
            assert found[36, 0] < found[45, 0]  # the picture's left eye is on the left, mirrored or not
            assert found[0, 0] < found[16, 0]
            assert found[8, 1] > found[30, 1]


def test_a_patch_without_a_face_is_never_called_one(draw_dots: Callable[..., np.ndarray]) -> None:
    points = (80 + 90 * (TEMPLATE - 0.5)).astype(np.float32)
    patch = LabelledPatch(draw_dots(points[:4], 160), points, face=False)
    rng = np.random.default_rng(2)
    assert not any(landmark_sample([patch], rng)[2] for _ in range(40))


def test_boxes_lie_where_the_picture_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipdub.training.facedata.degrade", lambda image, rng: image)
    image = np.zeros((240, 320, 3), np.uint8)
    x1, y1, x2, y2 = (int(v) for v in BOX)
    image[y1:y2, x1:x2] = (0, 255, 0)
    rng = np.random.default_rng(3)
    checked = 0
    for _ in range(30):
        canvas, boxes = detector_sample([LabelledFrame(image, np.array([BOX], np.float32))], 224, 320, rng)
        assert canvas.shape == (224, 320, 3)
        for left, top, right, bottom in boxes:
            if left > 20 and right < 300 and top > 20 and bottom < 204 and right - left > 30:
                x, y = round((left + right) / 2), round((top + bottom) / 2)
                assert tuple(canvas[y, x]) == (0, 255, 0)
                checked += 1
    assert checked > 5


def test_degraded_pictures_stay_pictures() -> None:
    rng = np.random.default_rng(4)
    image = rng.integers(0, 255, (96, 96, 3), np.uint8)
    made = [degrade(image, rng) for _ in range(20)]
    assert {(m.shape, m.dtype) for m in made} == {((96, 96, 3), np.dtype(np.uint8))}
    assert len({m.tobytes() for m in made}) == 20


def test_backgrounds_have_no_boxes_and_all_names_exist() -> None:
    found = load_backgrounds()
    assert len(found) >= len(BACKGROUND_NAMES) // 2
    assert all(len(frame.boxes) == 0 for frame in found)


def test_labels_find_their_clips(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    clips, labels = labelled
    assert [(group, clip.name) for group, clip, _ in labelled_clips(clips, labels)] == [("studio", "a.mp4")]
    with pytest.raises(InputError, match="no labels") as raised:
        labelled_clips(clips, tmp_path)
    assert "label_faces" in raised.value.remedy


def test_wanted_frames_are_read_with_their_numbers(labelled: tuple[Path, Path]) -> None:
    clip = labelled[0] / "studio" / "a.mp4"
    every = dict(read_frames(clip, set(range(12))))
    some = dict(read_frames(clip, {3, 7, 99}))
    assert list(some) == [3, 7]
    assert np.array_equal(some[7], every[7])
    assert not np.array_equal(every[3], every[7])
    assert list(read_frames(clip, set())) == []


def test_frames_and_patches_carry_their_labels(labelled: tuple[Path, Path]) -> None:
    frames = load_frames(*labelled, 4)["studio"]
    assert len(frames) == 4
    assert frames[0].boxes[0] == pytest.approx(BOX)  # 320 wide: kept as it is
    groups = load_patches(*labelled, 3)
    patches = groups["studio"]
    assert len(patches) == 3
    assert all(patch.image.shape == (160, 160, 3) and patch.face for patch in patches)
    assert np.ptp(patches[0].landmarks, axis=0).max() == pytest.approx(80)
    assert (patches[0].landmarks.min(0) + patches[0].landmarks.max(0)) / 2 == pytest.approx(80, abs=0.01)
    assert groups[BACKGROUNDS]
    assert not any(patch.face for patch in groups[BACKGROUNDS])


@pytest.mark.parametrize(("stage", "network"), [("detector", FaceDetector), ("landmarks", LandmarkNet)])
def test_two_steps_of_a_face_network(
    labelled: tuple[Path, Path], tmp_path: Path, stage: str, network: type[torch.nn.Module]
) -> None:
    clips, labels = labelled
    config = load_config("faces", ["train.steps=3", "train.batch_clips=2", f"train.stage={stage!r}"])
    asked = RunRequest(
        stage=stage, data=clips, labels=labels, run=tmp_path / "whole", config=config, export=tmp_path / "f.safetensors"
    )
    assert run_stage(asked, lambda line: None)
    whole = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)
    torch.manual_seed(0)
    fresh = network().state_dict()
    same = [name for name in fresh if torch.equal(fresh[name], whole["model"][name]) and "weight" in name]
    assert same == []
    asked_again = iter([False, True])
    parts = RunRequest(stage=stage, data=clips, labels=labels, run=tmp_path / "parts", config=config)
    assert not run_stage(parts, lambda line: None, stopped=lambda: next(asked_again))
    assert run_stage(parts, lambda line: None)
    resumed = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)
    for kind in ("model", "ema"):
        assert all(torch.equal(whole[kind][name], resumed[kind][name]) for name in whole[kind]), kind
    exported = load_model(tmp_path / "f.safetensors", f"faces-{stage}").state_dict()
    name = next(name for name in exported if name.endswith("weight"))
    assert torch.allclose(exported[name], whole["ema"][f"module.{name}"], atol=1e-3)


def test_the_share_of_backgrounds_is_what_it_says(labelled: tuple[Path, Path]) -> None:
    clips, labels = labelled
    config = load_config("faces", ["train.batch_clips=4000"]).train
    training = FaceTraining("detector", clips, labels, config, Engine(config))
    drawn = training._draw_groups(np.random.default_rng(0))
    bare = sum(group is training.groups[BACKGROUNDS] for group in drawn)
    assert bare / 4000 == pytest.approx(BACKGROUND_SHARE, abs=0.02)


def test_labels_without_a_clear_face_are_refused(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    clips, labels = labelled
    config = load_config("faces").train
    data = dict(np.load(labels / "studio" / "a.npz"))
    (tmp_path / "studio").mkdir()
    np.savez(tmp_path / "studio" / "a.npz", **(data | {"presence": np.zeros(12, np.float32)}))
    with pytest.raises(InputError, match="no clear face"):
        FaceTraining("landmarks", clips, tmp_path, config, Engine(config))
