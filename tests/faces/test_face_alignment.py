from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from lipdub.errors import SetupError, WeightsError
from lipdub.faces.face_alignment import DETECTORS, FaceAlignmentBackend
from lipdub.weights import entry_of

FAN = "2DFAN4-11f355bf06.pth.tar"


class StubAligner:
    """In the library's place: reads its landmark file as the library does, sees one face of 40 pixels at (30, 20)."""

    made: list[StubAligner]

    def __init__(self, landmarks_type: int, **options: Any) -> None:
        self.landmarks_type, self.options = landmarks_type, options
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        self.placed = {path.name: path.read_bytes() for path in folder.iterdir()}
        torch.backends.cudnn.benchmark = True
        self.face_detector = SimpleNamespace(detect_from_image=self.detect)
        self.made.append(self)

    def detect(self, image: np.ndarray) -> list[list[float]]:
        image[:] = 0  # the library may write into what it is given
        return [[-5, 20, 30, 60, 0.7], [30, 20, 70, 60, 0.95]]

    def get_landmarks_from_image(
        self, image: np.ndarray, *, detected_faces: list, return_landmark_score: bool
    ) -> tuple:
        (box,) = detected_faces
        points = np.trunc(np.linspace(box[:2], box[2:], 68))  # whole pixels, as the library gives them
        return [points], [np.full(68, 0.8, np.float32)], None


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> type[StubAligner]:
    module = ModuleType("face_alignment")
    StubAligner.made = []
    module.FaceAlignment = StubAligner  # type: ignore[attr-defined]
    module.LandmarksType = SimpleNamespace(TWO_D=1)  # type: ignore[attr-defined]
    module.api = SimpleNamespace(models_urls={"2DFAN-4": f"https://example.org/python-fan/{FAN}"})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "face_alignment", module)
    return StubAligner


@pytest.fixture
def find(tmp_path: Path) -> Callable[[str], Path]:
    def put(name: str) -> Path:
        path = tmp_path / f"{name}.bin"
        path.write_bytes(name.encode())
        return path

    return put


def test_it_is_built_late_quietly_and_from_verified_files(
    library: type[StubAligner], find: Callable[[str], Path], tmp_path: Path
) -> None:
    hub, benchmark = torch.hub.get_dir(), torch.backends.cudnn.benchmark
    backend = FaceAlignmentBackend("blazeface-back", torch.device("cpu"), find)
    assert library.made == []
    backend.detect([np.zeros((90, 120, 3), np.uint8)])
    backend.detect([np.zeros((90, 120, 3), np.uint8)])
    (made,) = library.made
    assert made.landmarks_type == 1
    assert made.options == {
        "device": "cpu",
        "flip_input": False,
        "compile": False,
        "face_detector": "blazeface",
        "face_detector_kwargs": {
            "path_to_detector": str(tmp_path / "blazeface-back.bin"),
            "path_to_anchor": str(tmp_path / "blazeface-back-anchors.bin"),
            "back_model": True,
        },
    }
    assert made.placed == {FAN: b"2dfan4"}
    assert torch.hub.get_dir() == hub and torch.backends.cudnn.benchmark == benchmark


def test_detections_are_sorted_clipped_and_leave_the_frame_alone(
    library: type[StubAligner], find: Callable[[str], Path]
) -> None:
    frame = np.full((50, 120, 3), 7, np.uint8)
    (found,) = FaceAlignmentBackend("sfd", "cpu", find).detect([frame])
    np.testing.assert_allclose(found.boxes, [[30, 20, 70, 50], [0, 20, 30, 50]])
    np.testing.assert_allclose(found.scores, [0.95, 0.7])
    assert found.boxes.dtype == found.scores.dtype == np.float32 and (frame == 7).all()


def test_no_face_is_an_empty_detection(
    library: type[StubAligner], find: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "detect", lambda self, image: [])
    (found,) = FaceAlignmentBackend("sfd", "cpu", find).detect([np.zeros((50, 120, 3), np.uint8)])
    assert found.boxes.shape == (0, 4) and found.scores.shape == (0,)


def test_landmarks_come_back_in_frame_pixels_finer_than_the_library_rounds(
    library: type[StubAligner], find: Callable[[str], Path]
) -> None:
    boxes = np.array([[30.3, 20.6, 70.3, 60.6], [5, 5, 65, 65]], np.float32)
    frames = [np.zeros((90, 120, 3), np.uint8)] * 2
    points, confidence = FaceAlignmentBackend("sfd", "cpu", find).landmarks(frames, boxes)
    wanted = np.stack([np.linspace(box[:2], box[2:], 68) for box in boxes])
    assert points.shape == (2, 68, 2) and points.dtype == np.float32
    assert np.abs(points - wanted).max() < 0.25
    np.testing.assert_allclose(confidence, 0.8, rtol=1e-6)


def test_no_boxes_no_landmarks(find: Callable[[str], Path]) -> None:
    points, confidence = FaceAlignmentBackend("sfd", "cpu", find).landmarks([], np.zeros((0, 4), np.float32))
    assert points.shape == (0, 68, 2) and confidence.shape == (0,)


@pytest.mark.parametrize(
    ("detector", "name"), [("sfd", "s3fd"), ("blazeface", "blazeface"), ("yunet", "yunet"), ("sfd", "2dfan4")]
)
def test_missing_weights_name_the_command_that_fetches_them(
    detector: str, name: str, find: Callable[[str], Path], library: type[StubAligner]
) -> None:
    from lipdub.weights import locate

    def all_but_one(wanted: str) -> Path:
        return locate(wanted) if wanted == name else find(wanted)

    with pytest.raises(WeightsError) as caught:
        FaceAlignmentBackend(detector, "cpu", all_but_one)
    assert f"lipdub weights pull {name}" in caught.value.remedy
    assert library.made == []


def test_an_unknown_detector_is_refused() -> None:
    with pytest.raises(SetupError, match="dlib") as caught:
        FaceAlignmentBackend("dlib")
    assert "yunet" in caught.value.remedy


def test_a_library_that_reads_other_files_is_refused_before_it_downloads(
    library: type[StubAligner], find: Callable[[str], Path]
) -> None:
    sys.modules["face_alignment"].api.models_urls["2DFAN-4"] = "https://example.org/2DFAN4-other.zip"  # type: ignore[attr-defined]
    with pytest.raises(SetupError, match=r"2DFAN4-other\.zip"):
        FaceAlignmentBackend("sfd", "cpu", find).detect([np.zeros((9, 9, 3), np.uint8)])
    assert library.made == []


def test_what_the_library_lacks_is_a_setup_error(
    library: type[StubAligner], find: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_onnx(*args: object, **options: object) -> None:
        raise ImportError("needs onnxruntime")

    monkeypatch.setattr(sys.modules["face_alignment"], "FaceAlignment", without_onnx)
    with pytest.raises(SetupError, match="onnxruntime"):
        FaceAlignmentBackend("scrfd", "cpu", find).detect([np.zeros((9, 9, 3), np.uint8)])
    monkeypatch.setitem(sys.modules, "face_alignment", None)
    with pytest.raises(SetupError, match="cannot be imported"):
        FaceAlignmentBackend("sfd", "cpu", find).detect([np.zeros((9, 9, 3), np.uint8)])


def test_the_manifest_names_the_file_that_the_library_looks_for() -> None:
    assert entry_of("2dfan4").filename == FAN
    assert all("path_to_detector" in detector.files for detector in DETECTORS.values())


@pytest.mark.weights
@pytest.mark.filterwarnings("ignore")  # of the library and of what it imports
@pytest.mark.parametrize("detector", ["blazeface", "blazeface-back", "yunet"])
def test_real_detectors_find_a_real_face(detector: str, shared: Path, tmp_path: Path) -> None:
    """The library's own loading code, with a landmark network of random weights in the real one's file."""
    from face_alignment.models import FAN as Network
    from skimage import data

    files = {
        "blazeface": "blazeface.pth",
        "blazeface-anchors": "anchors.npy",
        "blazeface-back": "blazefaceback.pth",
        "blazeface-back-anchors": "anchorsback.npy",
        "yunet": "face_detection_yunet_2023mar.onnx",
    }
    paths = {name: shared / "weights" / file for name, file in files.items()}
    if not all(path.is_file() for path in paths.values()):
        pytest.skip("the public detector files are absent")
    paths["2dfan4"] = tmp_path / "random.pth"
    torch.manual_seed(0)
    torch.save(Network(4).state_dict(), paths["2dfan4"])
    hub = torch.hub.get_dir()
    backend = FaceAlignmentBackend(detector, "cpu", paths.__getitem__)
    picture = cv2.resize(data.astronaut()[:300, 80:380], (320, 320))  # one woman, from the front
    found, nothing = backend.detect([picture, np.zeros_like(picture)])
    assert len(found.boxes) == 1 and found.scores[0] > 0.6
    centre = (found.boxes[0, :2] + found.boxes[0, 2:]) / 2
    assert np.abs(centre - [154, 130]).max() < 30
    assert len(nothing.boxes) == 0
    points, confidence = backend.landmarks([picture], found.boxes)
    assert points.shape == (1, 68, 2) and np.isfinite(points).all() and 0 <= confidence[0] <= 1
    assert torch.hub.get_dir() == hub
