"""Construction of the face backend that `--detector` names; all faces of a video by the bundled one."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lipdub.config import Config, FaceConfig
from lipdub.errors import SetupError
from lipdub.faces.backend import FaceBackend
from lipdub.faces.builtin import BuiltinBackend
from lipdub.faces.occlusion import OcclusionDetector
from lipdub.faces.tracker import FaceTracker, Track
from lipdub.media.probe import VideoInfo
from lipdub.media.video import VideoReader
from lipdub.weights import load_model, load_occlusion, locate, sha256_of


def builtin_backend(config: FaceConfig, device: torch.device) -> FaceBackend:
    """The face backend on the bundled networks."""
    detector = load_model("faces-detector", "faces-detector", device)
    landmarks = load_model("faces-landmarks", "faces-landmarks", device)
    return BuiltinBackend(detector, landmarks, config, device)


def track_video(
    path: Path,
    info: VideoInfo,
    config: Config,
    device: torch.device,
    *,
    end_s: float = math.inf,
    on_frame: Callable[[int], None] = lambda done: None,
) -> tuple[list[Track], NDArray[np.float64]]:
    """Tracks of all faces in a video by the bundled networks, and the time of every frame before `end_s`.

    Args:
        path: the video.
        info: of `probe`.
        config: sections face and media.
        device: where the networks run.
        end_s: where to stop.
        on_frame: receives the number of frames that are done.
    """
    tracker = FaceTracker(builtin_backend(config.face, device), config.face, float(info.average_rate))
    times: list[float] = []
    with VideoReader(path, info, config=config.media) as reader:
        for frame in reader:
            if frame.time_s >= end_s:
                break
            tracker.push(frame.index, frame)
            times.append(frame.time_s)
            on_frame(len(times))
    return tracker.finish(), np.array(times)


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
