from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lipdub.config import load_config
from lipdub.errors import InputError
from lipdub.models.occlusion import OCCLUSION_SIDE, OcclusionNet
from lipdub.training import occluders
from lipdub.training.occluders import Occluder, sample_occluder
from lipdub.training.occlusion import ClipFaces, load_faces, occlusion_loss, occlusion_sample
from lipdub.training.stages import RunRequest, run_stage
from lipdub.weights import load_model

SIDE = 96


@pytest.fixture(scope="module")
def faces() -> list[ClipFaces]:
    """Two people, of one colour each."""
    return [
        ClipFaces(np.full((3, 112, 112, 3), colour, np.uint8), np.full((112, 112, 3), colour, np.uint8))
        for colour in ((190, 140, 120), (90, 60, 50))
    ]


def picture(colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((SIDE, SIDE, 3), colour, np.uint8)


@pytest.mark.parametrize("kind", ["hand", "microphone", "thing", "letters", "blob"])
def test_objects_are_pictures_with_an_opacity(kind: str) -> None:
    rng = np.random.default_rng(3)
    made = [getattr(occluders, kind)(picture((190, 140, 120)), picture((60, 90, 20)), rng) for _ in range(40)]
    for each in made:
        assert each.picture.shape == (SIDE, SIDE, 3) and each.alpha.shape == (SIDE, SIDE)
        assert each.picture.min() >= 0 and each.picture.max() <= 255
        assert each.alpha.min() >= 0 and each.alpha.max() <= 1
    seen = np.array([each.alpha[round(0.5 * SIDE) :].mean() for each in made])
    assert (seen > 0.01).mean() > 0.6  # most lie before the lower face
    assert np.mean([(each.alpha > 0.5).mean() for each in made]) < 0.5


def test_a_hand_has_about_the_colour_of_its_face() -> None:
    rng = np.random.default_rng(0)
    dark, light = picture((70, 45, 35)), picture((225, 180, 160))
    seen = []
    for face in (dark, light):
        hands = [occluders.hand(face, face, rng) for _ in range(20)]
        seen.append(np.mean([np.median(each.picture[each.alpha > 0.9]) for each in hands if each.alpha.max() > 0.9]))
    assert 20 < seen[0] < 80 and 100 < seen[1] < 230


def test_an_object_hides_what_is_behind_it() -> None:
    alpha = np.zeros((4, 4), np.float32)
    alpha[1, 1], alpha[2, 2] = 1, 0.5
    shown = Occluder(np.full((4, 4, 3), 100, np.float32), alpha).over(np.zeros((4, 4, 3), np.float32))
    assert shown[..., 0].tolist() == [[0, 0, 0, 0], [0, 100, 0, 0], [0, 0, 50, 0], [0, 0, 0, 0]]


def test_moving_an_object_moves_its_opacity() -> None:
    alpha = np.zeros((10, 10), np.float32)
    alpha[4, 4] = 1
    moved = Occluder(np.zeros((10, 10, 3), np.float32), alpha).shifted(0.2, -0.1)
    assert np.argwhere(moved.alpha > 0.99).tolist() == [[3, 6]]


def test_samples_are_the_same_for_the_same_numbers() -> None:
    pictures = picture((190, 140, 120)), picture((60, 90, 20))
    one, same, other = (sample_occluder(*pictures, np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(one.picture, same.picture) and np.array_equal(one.alpha, same.alpha)
    assert not np.array_equal(one.alpha, other.alpha)


def test_half_of_the_samples_show_nothing_before_the_face(faces: list[ClipFaces]) -> None:
    rng = np.random.default_rng(1)
    samples = [occlusion_sample(faces[:1], faces, rng) for _ in range(300)]
    for face, usual, opacity in samples[:20]:
        assert face.shape == usual.shape == (OCCLUSION_SIDE, OCCLUSION_SIDE, 3)
        assert opacity.shape == (OCCLUSION_SIDE, OCCLUSION_SIDE) and opacity.dtype == np.float32
    shares = np.array([opacity.mean() for _, _, opacity in samples])
    assert (shares == 0).mean() == pytest.approx(0.5, abs=0.1)
    assert 0.03 < shares[shares > 0].mean() < 0.4


def test_what_is_labelled_is_what_differs(faces: list[ClipFaces]) -> None:
    """On a face of one colour, an object that the median lacks stands out where its opacity is high."""
    rng = np.random.default_rng(2)
    inside, outside = [], []
    for _ in range(200):
        face, usual, opacity = occlusion_sample(faces[:1], faces, rng)
        away = np.abs(face.astype(float) - usual).mean(2)
        if opacity.max() > 0.9:
            inside.append(away[opacity > 0.9].mean())
            outside.append(away[opacity < 0.01].mean())
    assert np.median(inside) > 3 * np.median(outside)


def test_the_loss_is_that_of_its_equation() -> None:
    logits, opacity = torch.zeros(2, 2, 2), torch.zeros(2, 2, 2)
    opacity[0, 0] = 1  # two pixels of the first sample
    logits[1, 0, 0] = 3  # a false alarm
    dice, worst = 1 - (2 * 1 + 1) / (2 + 2 + 1), math.log(1 + math.exp(3))
    cross = (7 * math.log(2) + worst) / 8
    assert float(occlusion_loss(logits, opacity)) == pytest.approx(cross + dice + worst)
    assert float(occlusion_loss(logits[:1], opacity[:1])) == pytest.approx(math.log(2) + dice)
    sure = torch.where(opacity > 0, 20.0, -20.0)
    assert float(occlusion_loss(sure, opacity)) == pytest.approx(0, abs=1e-5)


def test_faces_are_read_by_speaker(made_data: Path, tmp_path: Path) -> None:
    speakers = load_faces(made_data)
    assert sorted(len(clips) for clips in speakers) == [1, 1, 3]
    for clip in (clip for clips in speakers for clip in clips):
        assert clip.faces.shape == (11, 112, 112, 3) and clip.usual.shape == (112, 112, 3)
    with pytest.raises(InputError, match="not a prepared data set"):
        load_faces(tmp_path)


def test_a_continued_run_is_the_same_as_a_whole_one(made_data: Path, tmp_path: Path) -> None:
    config = load_config("occlusion", ["train.steps=3", "train.batch_clips=2", "train.stage='occlusion'"])
    whole = RunRequest(
        stage="occlusion", data=made_data, run=tmp_path / "whole", config=config, export=tmp_path / "o.safetensors"
    )
    assert run_stage(whole, lambda line: None)
    after = torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)
    torch.manual_seed(0)
    fresh = OcclusionNet().state_dict()
    assert not [name for name in fresh if "weight" in name and torch.equal(fresh[name], after["model"][name])]
    asked = iter([False, True])
    parts = RunRequest(stage="occlusion", data=made_data, run=tmp_path / "parts", config=config)
    assert not run_stage(parts, lambda line: None, stopped=lambda: next(asked))
    assert run_stage(parts, lambda line: None)
    resumed = torch.load(tmp_path / "parts" / "checkpoint.pt", weights_only=True)
    for kind in ("model", "ema"):
        assert all(torch.equal(after[kind][name], resumed[kind][name]) for name in after[kind]), kind
    exported = load_model(tmp_path / "o.safetensors", "occlusion").state_dict()
    assert torch.allclose(exported["head.weight"], after["ema"]["module.head.weight"], atol=1e-3)
