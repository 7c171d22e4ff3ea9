from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lipdub.config import load_config
from lipdub.errors import SetupError, WeightsError
from lipdub.evaluation import perceptual
from lipdub.evaluation.landmark_track import track_landmarks
from lipdub.evaluation.perceptual import FrechetMeter, frechet_distance, load_inception, load_lpips, ssim_masked
from lipdub.evaluation.teachers import FaceRecognizer
from lipdub.faces.crop import TEMPLATE
from lipdub.models.vgg import VGG16_LAYERS, WIDTHS
from lipdub.weights import save_state

CONFIG = load_config("debug")


def vgg16_state() -> dict[str, torch.Tensor]:
    """Random weights of VGG-16's convolutions, under torchvision's names."""
    torch.manual_seed(0)
    state, inputs = {}, 3
    for name, index in VGG16_LAYERS.items():
        width = WIDTHS[int(name[4]) - 1]
        state[f"features.{index}.weight"] = torch.randn(width, inputs, 3, 3) * (2 / (9 * inputs)) ** 0.5
        state[f"features.{index}.bias"] = 0.1 * torch.randn(width)
        inputs = width
    return state


@pytest.fixture
def vgg16(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The file "vgg16", as if it had been read."""
    state = vgg16_state()
    monkeypatch.setattr(perceptual, "locate", Path)
    monkeypatch.setattr(perceptual, "load_state", lambda path: (state, {}))
    return state


@torch.no_grad()
def test_lpips_is_that_of_torchmetrics(vgg16, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchmetrics.functional.image import lpips

    layers: list[nn.Module] = []
    for name, index in VGG16_LAYERS.items():
        if layers and name.endswith("_1"):
            layers.append(nn.MaxPool2d(2, 2))
        weight = vgg16[f"features.{index}.weight"]
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
        conv.load_state_dict({"weight": weight, "bias": vgg16[f"features.{index}.bias"]})
        layers += [conv, nn.ReLU()]
    monkeypatch.setattr(lpips, "_get_tv_model_features", lambda net, pretrained: nn.Sequential(*layers))
    a, b = torch.rand(2, 3, 32, 40), torch.rand(2, 3, 32, 40)
    theirs = lpips.learned_perceptual_image_patch_similarity(a, b, "vgg", reduction="none", normalize=True)
    ours = load_lpips("vgg16")
    torch.testing.assert_close(ours(a, b), theirs, rtol=1e-4, atol=1e-6)
    assert ours(a, a).abs().max() == 0


def test_other_heads_of_lpips_are_refused(vgg16, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual, "LPIPS_HEADS", "0" * 64)
    with pytest.raises(WeightsError, match="not version"):
        load_lpips("vgg16")


def test_frechet_distance_of_independent_features() -> None:
    real = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [2.0, 4.0]])  # variances 4/3, 16/3
    fake = torch.tensor([[1.0, 0.0], [5.0, 0.0], [1.0, 8.0], [5.0, 8.0]])  # means 2, 2 further; variances 16/3, 64/3
    expected = 2**2 + 2**2 + (4 + 16 + 16 + 64) / 3 - 2 * ((4 * 16) ** 0.5 + (16 * 64) ** 0.5) / 3
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-4)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-3)


def test_all_faces_of_a_row_are_one_set(talking, square_tracker) -> None:
    folder = talking(("a.mp4", "b.mp4", "c.mp4"))
    a, b, c = (
        track_landmarks(folder / name, square_tracker(), 60.0, CONFIG.media) for name in ("a.mp4", "b.mp4", "c.mp4")
    )

    class Colours(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert images.dtype == torch.uint8 and images.shape[1:] == (3, 32, 32)
            return images.float().mean((2, 3))

    meter = FrechetMeter(Colours(), CONFIG)
    for source in (a, c):
        meter.add("own", "dub", b, source)
    meter.add("own", "real", a, a)  # itself: nothing to say
    (found,) = meter.distances()
    assert (found.pairing, found.row, found.frames) == ("own", "dub", 16)  # every fifth frame of 40, twice
    assert np.isfinite(found.distance)


def test_inception_needs_its_package_and_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_state(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, {"kind": "inception"})
    absent = importlib.util.find_spec("torch_fidelity") is None
    with pytest.raises(SetupError if absent else WeightsError, match=r"torch-fidelity|is not the Inception"):
        load_inception(str(tmp_path / "other.safetensors"))
    with pytest.raises(WeightsError, match=r"not a \.safetensors file"):
        (tmp_path / "inception.pth").write_bytes(b"pickle")
        load_inception(str(tmp_path / "inception.pth"))


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A protocol buffer; numbers are below 128."""
    data = b""
    for number, value in fields:
        if isinstance(value, int):
            data += bytes([number << 3, value])
        else:
            text = value.encode() if isinstance(value, str) else value
            data += bytes([number << 3 | 2]) + (bytes([len(text) % 128 | 128, len(text) // 128])) + text
    return data


def tiny_recogniser(path: Path) -> Path:
    """An ONNX network with SFace's input whose embedding is the mean colour of the picture."""

    def tensor(name: str, *shape: int) -> bytes:
        dims = [(1, message((1, size))) for size in shape]
        return message((1, name), (2, message((1, message((1, 1), (2, message(*dims)))))))

    node = message((1, "data"), (2, "fc1"), (4, "GlobalAveragePool"))
    graph = message((1, node), (2, "g"), (11, tensor("data", 1, 3, 112, 112)), (12, tensor("fc1", 1, 3, 1, 1)))
    path.write_bytes(message((1, 7), (7, graph), (8, message((2, 12)))))
    return path


def test_a_face_is_aligned_and_embedded_as_rgb(tmp_path: Path) -> None:
    recogniser = FaceRecognizer(tiny_recogniser(tmp_path / "tiny.onnx"))
    face = np.zeros((160, 160, 3), np.uint8)
    face[..., 0] = 200  # red
    points = (30 + 100 * TEMPLATE).astype(np.float32)
    found = recogniser.embed(face, points)
    assert np.linalg.norm(found) == pytest.approx(1)
    assert found == pytest.approx([1, 0, 0], abs=1e-3)  # OpenCV's own blob is RGB again
    face[:, 80:] = (0, 200, 0)
    red, green, blue = recogniser.embed(face, points)
    assert red == pytest.approx(green, rel=0.1) and blue == 0  # the nose is in the middle


def test_what_is_no_recogniser_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no network")
    with pytest.raises(WeightsError, match="is not a face recognition network"):
        FaceRecognizer(tmp_path / "x.onnx")


def test_ssim_is_one_for_equals_and_counts_the_mask_only() -> None:
    torch.manual_seed(0)
    real = torch.rand(3, 3, 32, 32)
    mask = torch.zeros(3, 1, 32, 32)
    mask[:, :, 16:] = 1
    other = real.clone()
    other[:, :, :6] = 0.5
    assert ssim_masked(real, real, mask) == pytest.approx(1, abs=1e-5)
    assert ssim_masked(other, real, mask) == pytest.approx(1, abs=1e-5)
    assert ssim_masked(1 - real, real, mask) < 0
    assert np.isnan(ssim_masked(real, real, torch.zeros_like(mask)))
