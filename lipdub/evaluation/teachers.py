"""Public networks for labelling and evaluation, which are not shipped: YuNet, MediaPipe's face mesh, SFace.

The only home of ai_edge_litert (extra `teachers`). The files are listed in weights.toml's comments and in
MODEL_CARD.md; both licences (MIT, Apache-2.0) allow this use. Nothing that `lipdub sync` runs imports this module.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.errors import SetupError, WeightsError

Frame = NDArray[np.uint8]
Points = NDArray[np.float32]

TEACHERS = 'pip install "lipdub[teachers]"'

# MediaPipe's 478-point mesh -> the 68 points of iBUG, in iBUG order.
MESH_TO_IBUG = np.concatenate(
    [
        [162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389],  # jaw, ear to ear
        [71, 63, 105, 66, 107, 336, 296, 334, 293, 301],  # brows
        [168, 197, 5, 4, 75, 97, 2, 326, 305],  # nose bridge, nostrils
        [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380],  # eyes
        [61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181],  # outer lips
        [78, 82, 13, 312, 308, 317, 14, 87],  # inner lips
    ]
)
MAX_WIDTH = 640  # pixels of a frame in which faces are detected
EYE_CORNERS = (33, 263)  # outer corners, mesh indices
# The five points by which OpenCV aligns a face, as groups of iBUG's: eyes, nose, corners of the mouth, left to right.
FIVE = (slice(36, 42), slice(42, 48), slice(30, 31), slice(48, 49), slice(54, 55))


class YuNet:
    """Box teacher: `cv2.FaceDetectorYN` on frames no wider than MAX_WIDTH."""

    def __init__(self, path: Path, *, threshold: float = 0.7) -> None:
        self._net = cv2.FaceDetectorYN.create(str(path), "", (320, 320), score_threshold=threshold)

    def detect(self, frame: Frame) -> NDArray[np.float32]:
        """(N, 15): x, y, w, h, five points, score; pixels of `frame` (H, W, 3) RGB."""
        scale = min(1.0, MAX_WIDTH / frame.shape[1])
        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        if scale < 1.0:
            bgr = cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        self._net.setInputSize((bgr.shape[1], bgr.shape[0]))
        faces = self._net.detect(bgr)[1]
        if faces is None:
            return np.zeros((0, 15), np.float32)
        rows = np.array(faces, np.float32)
        rows[:, :14] /= np.float32(scale)
        return rows


class FaceMesh:
    """Landmark teacher: the mesh network of MediaPipe's Face Landmarker bundle, run by LiteRT.

    Raises:
        SetupError: the extra `teachers` is not installed.
        WeightsError: a file that is no such bundle.
    """

    size = 256

    def __init__(self, bundle: Path) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise SetupError("the landmark teacher needs the package ai-edge-litert", TEACHERS) from error

        try:
            with zipfile.ZipFile(bundle) as archive:
                model = archive.read("face_landmarks_detector.tflite")
        except (zipfile.BadZipFile, KeyError) as error:
            raise WeightsError(
                f"{bundle} is not a face landmarker bundle", "lipdub weights pull face-landmarker"
            ) from error
        self._net: Any = Interpreter(model_content=model, num_threads=1)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        self._outputs = [detail["index"] for detail in self._net.get_output_details()]

    def _region(self, left_eye: Points, right_eye: Points, points: Points) -> NDArray[np.float64]:
        """2x3 affine, frame -> network input: upright eyes, box of `points` enlarged by half."""
        angle = np.arctan2(right_eye[1] - left_eye[1], right_eye[0] - left_eye[0])
        c, s = np.cos(-angle), np.sin(-angle)
        rotation = np.array([[c, -s], [s, c]])
        turned = points @ rotation.T
        low, high = turned.min(0), turned.max(0)
        side = 1.5 * float((high - low).max())
        scale = self.size / side
        centre = (low + high) / 2
        return np.hstack([scale * rotation, (self.size / 2 - scale * centre)[:, None]])

    def _run(self, frame: Frame, region: NDArray[np.float64]) -> tuple[Points, float]:
        crop = cv2.warpAffine(frame, region, (self.size, self.size), flags=cv2.INTER_LINEAR)
        self._net.set_tensor(self._input, crop[None].astype(np.float32) / 255)
        self._net.invoke()
        outputs = [self._net.get_tensor(index).ravel() for index in self._outputs]
        mesh = next(o for o in outputs if o.size == 1434).reshape(478, 3)[:, :2]
        logit = max((o[0] for o in outputs if o.size == 1), key=abs)
        inverse = cv2.invertAffineTransform(region)
        points = (mesh @ inverse[:, :2].T + inverse[:, 2]).astype(np.float32)
        return points, float(1 / (1 + np.exp(-logit)))

    def from_box(self, frame: Frame, face: NDArray[np.float32]) -> tuple[Points, float]:
        """Mesh (478, 2) in pixels and its presence in [0, 1], from a YuNet row.

        Run twice, the second time on the region of the first.
        """
        x, y, w, h = face[:4]
        corners = np.array([[x, y], [x + w, y], [x, y + h], [x + w, y + h]], np.float32)
        points, presence = self._run(frame, self._region(face[4:6], face[6:8], corners))
        return self.follow(frame, points) if presence > 0.3 else (points, presence)

    def follow(self, frame: Frame, points: Points) -> tuple[Points, float]:
        """Mesh and presence from the mesh of this or of the previous frame."""
        return self._run(frame, self._region(points[EYE_CORNERS[0]], points[EYE_CORNERS[1]], points))


class FaceRecognizer:
    """Identity embedding: SFace (arXiv 2205.12010, face_recognition_sface_2021dec.onnx), run and aligned by OpenCV.

    Raises:
        WeightsError: no such network.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._net = cv2.FaceRecognizerSF.create(str(path), "")
        except cv2.error as error:
            raise WeightsError(f"{path} is not a face recognition network", "lipdub weights pull sface") from error

    def embed(self, face: Frame, landmarks: NDArray[np.floating]) -> NDArray[np.float32]:
        """Unit embedding (E,) of a face (H, W, 3) with room around the head and landmarks (68, 2) in its pixels.

        The cosine of two people is below about 0.36.
        """
        row = np.zeros((1, 15), np.float32)
        row[0, 4:14] = np.concatenate([landmarks[group].mean(0) for group in FIVE])
        aligned = self._net.alignCrop(cv2.cvtColor(face, cv2.COLOR_RGB2BGR), row)
        feature = np.asarray(self._net.feature(aligned), np.float32).ravel()
        return feature / np.float32(max(float(np.linalg.norm(feature)), 1e-9))
