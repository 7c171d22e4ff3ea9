"""The face-alignment library as a face backend: public detectors and the FAN landmark network (its only home).

The library downloads its weights while it is constructed. To prevent that, the files of weights.toml are verified
first; detectors get theirs by path, and the landmark network finds its own in torch.hub's folder.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lipdub.errors import SetupError
from lipdub.faces.backend import Boxes, Detections, Frame, Landmarks
from lipdub.weights import entry_of, locate

LANDMARK_WEIGHTS = "2dfan4"
REGION = 640  # side in pixels of the picture that the library crops a face from
REGION_OVER_BOX = 2.5  # side of that region over the larger side of the box; FAN looks at about 2 sides


@dataclass(frozen=True)
class _Detector:
    """A detector of the library, and the names in weights.toml of its files."""

    module: str
    files: dict[str, str]  # argument -> name
    options: dict[str, Any]


DETECTORS = {
    "sfd": _Detector("sfd", {"path_to_detector": "s3fd"}, {}),
    "blazeface": _Detector(
        "blazeface", {"path_to_detector": "blazeface", "path_to_anchor": "blazeface-anchors"}, {"back_model": False}
    ),
    "blazeface-back": _Detector(
        "blazeface",
        {"path_to_detector": "blazeface-back", "path_to_anchor": "blazeface-back-anchors"},
        {"back_model": True},
    ),
    "yunet": _Detector("yunet", {"path_to_detector": "yunet"}, {}),
    "retinaface": _Detector("retinaface", {"path_to_detector": "retinaface"}, {}),
    "scrfd": _Detector("scrfd", {"path_to_detector": "scrfd"}, {}),
}


class FaceAlignmentBackend:
    """`FaceBackend` on face-alignment: 2-D landmarks, without compilation and without the mirrored second run.

    The files are located at once; the library is imported and the networks are built at first use.

    Args:
        detector: sfd, blazeface, blazeface-back, yunet, retinaface or scrfd.
        device: where the networks run; yunet stays on the CPU.
        find: name in weights.toml -> verified file.

    Raises:
        SetupError: unknown detector.
        WeightsError: a file is absent or not the right one; names `lipdub weights pull NAME`.
    """

    name = "face-alignment"

    def __init__(
        self, detector: str = "sfd", device: str | torch.device = "cpu", find: Callable[[str], Path] = locate
    ) -> None:
        if detector not in DETECTORS:
            raise SetupError(f"face-alignment has no detector {detector!r}", f"there are: {', '.join(DETECTORS)}")
        self._detector = DETECTORS[detector]
        self._device = str(device)
        self._files = {argument: str(find(name)) for argument, name in self._detector.files.items()}
        self._landmark_file = find(LANDMARK_WEIGHTS)
        self._library: Any = None

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        """Faces of each frame, best first.

        Raises:
            SetupError: the library or what its detector needs cannot be used.
        """
        detections = []
        for frame in frames:
            rows = np.array(self._loaded_library().face_detector.detect_from_image(frame.copy()), np.float32).reshape(
                -1, 5
            )
            rows = rows[np.isfinite(rows).all(1)]
            rows = rows[np.argsort(-rows[:, 4], kind="stable")]
            limit = np.tile(np.array(frame.shape[1::-1], np.float32), 2)
            detections.append(Detections(np.clip(rows[:, :4], 0, limit), np.clip(rows[:, 4], 0, 1)))
        return detections

    def landmarks(self, frames: Sequence[Frame], boxes: Boxes) -> tuple[Landmarks, NDArray[np.float32]]:
        """Landmarks (N, 68, 2) of `boxes[i]` in `frames[i]`, and confidences (N,): mean height of FAN's heat maps.

        Raises:
            SetupError: the library cannot be used.
        """
        points = np.zeros((len(boxes), 68, 2), np.float32)
        confidence = np.zeros(len(boxes), np.float32)
        for row, (frame, box) in enumerate(zip(frames, boxes, strict=True)):
            # The library rounds to whole pixels, so the face is enlarged first.
            region, offset, scale = _enlarged_region(frame, box)
            around = ((box - np.tile(offset, 2)) * scale).tolist()  # torch takes no float32 scalars of NumPy
            faces, scores, _ = self._loaded_library().get_landmarks_from_image(
                region, detected_faces=[around], return_landmark_score=True
            )
            points[row] = np.asarray(faces[0])[:, :2] / scale + offset
            confidence[row] = np.clip(np.asarray(scores[0]).mean(), 0, 1)
        return points, confidence

    def _loaded_library(self) -> Any:
        """The library's FaceAlignment, built at the first call."""
        if self._library is None:
            self._library = self._build()
        return self._library

    def _build(self) -> Any:
        try:
            import face_alignment
        except ImportError as error:
            raise SetupError(f"face-alignment cannot be imported: {error}", "pip install face-alignment") from error
        filename = Path(urlsplit(face_alignment.api.models_urls["2DFAN-4"]).path).name
        if filename != entry_of(LANDMARK_WEIGHTS).filename:
            raise SetupError(
                f"this face-alignment reads {filename}, weights.toml has {entry_of(LANDMARK_WEIGHTS).filename}",
                "install face-alignment 1.5",
            )
        benchmark = torch.backends.cudnn.benchmark
        try:
            with _hub_with(self._landmark_file, filename), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # yunet, scrfd: "runs on the CPU"
                return face_alignment.FaceAlignment(
                    face_alignment.LandmarksType.TWO_D,
                    device=self._device,
                    flip_input=False,
                    face_detector=self._detector.module,
                    face_detector_kwargs=self._files | self._detector.options,
                    compile=False,
                )
        except ImportError as error:  # scrfd without onnxruntime
            remedy = "install what it lacks, or use --detector builtin"
            raise SetupError(f"face-alignment's detector {self._detector.module}: {error}", remedy) from error
        finally:
            torch.backends.cudnn.benchmark = benchmark  # the library sets it for the whole process


@contextmanager
def _hub_with(file: Path, name: str) -> Iterator[None]:
    """Set torch.hub's folder to one that holds only this file, under the name that the library expects."""
    before = torch.hub.get_dir()
    with tempfile.TemporaryDirectory(prefix="lipdub-hub-") as folder:
        checkpoints = Path(folder) / "checkpoints"
        checkpoints.mkdir()
        try:
            (checkpoints / name).symlink_to(file.resolve())
        except OSError:  # no links on this file system, or not allowed
            (checkpoints / name).write_bytes(file.read_bytes())
        torch.hub.set_dir(folder)
        try:
            yield
        finally:
            torch.hub.set_dir(before)


def _enlarged_region(frame: Frame, box: NDArray[np.float32]) -> tuple[Frame, NDArray[np.float32], np.float32]:
    """A square of REGION pixels round the box; display = region / scale + offset."""
    side = REGION_OVER_BOX * max(float((box[2:] - box[:2]).max()), 1.0)
    scale = np.float32(REGION / side)
    offset = ((box[:2] + box[2:]) / 2 - side / 2).astype(np.float32)
    matrix = np.array([[scale, 0, -scale * offset[0]], [0, scale, -scale * offset[1]]], np.float64)
    region = cv2.warpAffine(frame, matrix, (REGION, REGION), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return region.astype(np.uint8, copy=False), offset, scale
