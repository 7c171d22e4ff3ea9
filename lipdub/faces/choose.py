"""Construction of the face backend that `--detector` names."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch

from lipdub.config import FaceConfig
from lipdub.errors import SetupError
from lipdub.faces.backend import FaceBackend
from lipdub.faces.builtin import BuiltinBackend
from lipdub.weights import load_model, locate, sha256_of


def builtin_backend(config: FaceConfig, device: torch.device) -> FaceBackend:
    """The face backend on the bundled networks."""
    detector: Any = load_model("faces-detector", "faces-detector", device)
    landmarks: Any = load_model("faces-landmarks", "faces-landmarks", device)
    return BuiltinBackend(detector, landmarks, config, device)


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
    """What `face_backend(name)` finds depends on: its networks' sums, or its library's version."""
    if name == "builtin":
        return " ".join([name, *(sha256_of(locate(network)) for network in ("faces-detector", "faces-landmarks"))])
    return f"{name} {version('face-alignment')}"
