"""Construction of the face backend that `--detector` names."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch

from lipdub.config import FaceConfig
from lipdub.errors import SetupError
from lipdub.faces.backend import FaceBackend
from lipdub.faces.builtin import BuiltinBackend
from lipdub.faces.occlusion import OcclusionDetector
from lipdub.weights import load_model, load_occlusion, locate, sha256_of


def builtin_backend(config: FaceConfig, device: torch.device) -> FaceBackend:
    """The face backend on the bundled networks."""
    detector: Any = load_model("faces-detector", "faces-detector", device)
    landmarks: Any = load_model("faces-landmarks", "faces-landmarks", device)
    return BuiltinBackend(detector, landmarks, config, device)


def occlusion_detector(margin: float, device: torch.device) -> OcclusionDetector:
    """The bundled occlusion network for crops of a margin."""
    return OcclusionDetector(load_occlusion("occlusion", device), device, margin)


def face_backend(name: str, config: FaceConfig, device: torch.device) -> FaceBackend:
    """The face backend of `--detector`: builtin, face-alignment, or face-alignment:DETECTOR.

    Raises:
        SetupError: no such backend.
        WeightsError: its weights are not here.
    """
    if name == "builtin":
        return builtin_backend(config, device)
    library, _, detector = name.partition(":")
    if library == "face-alignment":
        from lipdub.faces.face_alignment import FaceAlignmentBackend

        return FaceAlignmentBackend(detector or "sfd", device)
    raise SetupError(f"no face backend {name!r}", "there are: builtin, face-alignment, face-alignment:DETECTOR")


def detector_identity(name: str) -> str:
    """What tracks and references depend on: the networks' sums, or the library's version."""
    networks = ("faces-detector", "faces-landmarks", "occlusion") if name == "builtin" else ("occlusion",)
    library = [] if name == "builtin" else [version("face-alignment")]
    return " ".join([name, *library, *(sha256_of(locate(network)) for network in networks)])
