from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from lipdub.config import FaceConfig, MediaConfig
from lipdub.errors import InputError, NoFaceError, SetupError, WeightsError
from lipdub.evaluation import landmark_track as module
from lipdub.evaluation.landmark_track import BuiltinJudge, Geometry, MeshLandmarkTracker, find_judge, track_landmarks
from lipdub.evaluation.teachers import MESH_TO_IBUG

MEDIA = MediaConfig()


def test_a_video_is_watched_frame_by_frame(talking, square_tracker) -> None:
    folder = talking(("a.mp4",))
    seen = track_landmarks(folder / "a.mp4", square_tracker(), 60.0, MEDIA)
    assert seen.landmarks.shape == (40, 68, 2) and seen.seen.all()
    np.testing.assert_allclose(np.diff(seen.times_s), 0.04, atol=1e-6)
    assert np.ptp(seen.openings) > 0.05
    assert len(track_landmarks(folder / "a.mp4", square_tracker(), 0.4, MEDIA).times_s) == 10


def test_gaps_are_filled_and_a_face_that_is_mostly_absent_is_none(face_clip, square_tracker) -> None:
    path = face_clip(lambda t: [] if t in (3, 4) else [(40, 20, 50 + 2 * t)], n_frames=10)
    seen = track_landmarks(path, square_tracker(), 60.0, MEDIA)
    assert seen.seen.tolist() == [t not in (3, 4) for t in range(10)]
    steps = np.diff(seen.landmarks[:, 16, 0])  # a point at the right edge goes on evenly
    np.testing.assert_allclose(steps, steps.mean(), atol=1.0)
    path = face_clip(lambda t: [(40, 20, 50)] if t < 4 else [], "gone.mp4", n_frames=10)
    with pytest.raises(NoFaceError, match="4 of 10 frames"):
        track_landmarks(path, square_tracker(), 60.0, MEDIA)
    with pytest.raises(InputError, match="no frame"):
        track_landmarks(path, square_tracker(), 0.0, MEDIA)


def test_geometry_follows_the_real_face(talking, square_tracker) -> None:
    path = talking(("a.mp4",)) / "a.mp4"
    seen = track_landmarks(path, square_tracker(), 0.4, MEDIA)
    geometry = Geometry.of(seen, FaceConfig(), 48)
    faces = geometry.faces(seen, MEDIA)
    assert faces.shape == (10, 3, 48, 48) and faces.min() >= 0 and faces.max() <= 1
    assert faces[:, :, 12:36, 12:36].mean() > 0.6  # the square fills the crop
    mouth, skin = geometry.masks(seen, seen)
    assert mouth.shape == skin.shape == (10, 1, 48, 48)
    assert set(torch.unique(mouth).tolist()) == set(torch.unique(skin).tolist()) == {0.0, 1.0}
    assert (skin <= mouth).all() and skin.sum() < mouth.sum()
    assert mouth[0, 0, 33, 24] == 1 and skin[0, 0, 33, 24] == 0  # between the lips
    assert mouth[0, 0, 5, 24] == 0  # forehead


class Mesh:
    """Stands in for MediaPipe: finds and loses on request, and counts."""

    def __init__(self) -> None:
        self.presence = [0.9]
        self.calls: list[str] = []

    def __call__(self, path: Path) -> Mesh:
        return self

    def detect(self, frame: np.ndarray) -> np.ndarray:
        self.calls.append("detect")
        return np.array([[0, 0, 5, 5, *[0] * 11], [0, 0, 9, 9, *[0] * 11]], np.float32)[: int(frame.max())]

    def from_box(self, frame: np.ndarray, face: np.ndarray) -> tuple[np.ndarray, float]:
        self.calls.append(f"box {face[2]:.0f}")
        return np.arange(956, dtype=np.float32).reshape(478, 2), self.presence.pop(0)

    def follow(self, frame: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, float]:
        self.calls.append("follow")
        return points, self.presence.pop(0)


def test_the_mesh_follows_a_face_and_finds_a_lost_one(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = Mesh()
    monkeypatch.setattr(module, "YuNet", mesh)
    monkeypatch.setattr(module, "FaceMesh", mesh)
    judge = MeshLandmarkTracker(Path(), Path())
    empty, full = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 2, np.uint8)
    judge.begin()
    assert judge.look(empty) is None
    mesh.presence = [0.9, 0.8, 0.2, 0.7, 0.1, 0.3]
    np.testing.assert_array_equal(judge.look(full), np.arange(956).reshape(478, 2)[MESH_TO_IBUG])
    assert judge.look(full) is not None  # followed
    assert judge.look(full) is not None  # lost, found again
    assert judge.look(full) is None  # lost, and not found
    assert mesh.calls == ["detect", "detect", "box 9", "follow", *("follow", "detect", "box 9") * 2]
    judge.begin()
    mesh.presence = [0.9]
    assert judge.look(full) is not None
    assert mesh.calls[-2:] == ["detect", "box 9"]


def test_files_that_are_no_judge(tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("nothing")
    with pytest.raises(WeightsError, match=r"text\.onnx"):
        MeshLandmarkTracker(text, text)


@pytest.mark.weights
def test_mediapipe_sees_the_portrait(shared: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    judge = MeshLandmarkTracker(
        shared / "weights/face_detection_yunet_2023mar.onnx", shared / "weights/face_landmarker.task"
    )
    judge.begin()
    points = judge.look(np.ascontiguousarray(astronaut()))
    assert points is not None
    np.testing.assert_allclose(points[36:48].mean(0), (225, 115), atol=15)
    assert judge.look(np.zeros((64, 64, 3), np.uint8)) is None


def test_without_the_mesh_our_own_landmarks_judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "find", lambda entry: None)  # nothing was fetched
    judge = find_judge(None, None, FaceConfig(), torch.device("cpu"))
    assert isinstance(judge, BuiltinJudge) and judge.ours and "OUR OWN" in judge.name
    picture = astronaut()[:256, 96:352]
    judge.begin()
    first = judge.look(picture)
    moved = judge.look(np.roll(picture, 5, 1))
    assert first is not None and moved is not None
    assert np.abs(moved - first - [5, 0]).max() < 2  # follows
    assert judge.look(np.zeros_like(picture)) is None
    again = judge.look(picture)
    assert again is not None and np.abs(again - first).max() < 2  # found again
    with pytest.raises(WeightsError, match="yunet"):
        find_judge("yunet", None, FaceConfig(), torch.device("cpu"))  # asked for: not replaced in silence

    def lacking(*files: Path) -> MeshLandmarkTracker:
        raise SetupError("needs ai-edge-litert", "install it")

    monkeypatch.setattr(module, "find", lambda entry: tmp_path)
    monkeypatch.setattr(module, "locate", Path)
    monkeypatch.setattr(module, "MeshLandmarkTracker", lacking)
    assert isinstance(find_judge(None, None, FaceConfig(), torch.device("cpu")), BuiltinJudge)
    with pytest.raises(SetupError):
        find_judge(None, "mesh.task", FaceConfig(), torch.device("cpu"))
