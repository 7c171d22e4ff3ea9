"""The prepared data set on disc: what `lipdub prepare` writes and training reads.

    DATASET/manifest.json            settings, counts, reasons of what was dropped
    DATASET/clips.jsonl              a line per clip: id, speaker, group, split, frames, offset_s, source
    DATASET/clips/<id>.mp4           H.264, `side` x `side`, 25 fps: the aligned crop with a margin round it
    DATASET/clips/<id>.npz           landmarks (T, 68, 2) uint16 in 1/256 px of the stored crop; confidence (T,) uint8;
                                     mel (80, M) uint8, linear between the log-mel's limits -1 and 1

Reading needs OpenCV and NumPy only.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.errors import InputError
from lipdub.faces.backend import Frame

RATE = 25.0  # frames a second of every stored clip
FIXED_POINT = 256.0  # stored landmark units per pixel


@dataclass(frozen=True, kw_only=True)
class ClipEntry:
    """One line of clips.jsonl."""

    id: str
    speaker: str
    group: str  # source folder: clips of one group share a sound offset
    split: str  # train | val | test
    frames: int
    source: str
    start_s: float  # where in the source its first frame lies
    offset_s: float = 0.0  # the sound was read this much later than the picture to bring both together


@dataclass(frozen=True)
class ClipArrays:
    """A stored clip, decoded."""

    frames: NDArray[np.uint8]  # (T, side, side, 3) RGB
    landmarks: NDArray[np.float32]  # (T, 68, 2) pixels of `frames`
    confidence: NDArray[np.float32]  # (T,)
    mel: NDArray[np.float32]  # (80, M) in [-1, 1]; column m at m * hop seconds of the clip


def write_arrays(
    path: Path,
    landmarks: NDArray[np.float32],
    confidence: NDArray[np.float32],
    mel: NDArray[np.float32],
    offset_s: float = 0.0,
) -> None:
    """Write the .npz beside a clip; `offset_s` is the shift that its sound already has."""
    fixed = np.clip(np.round(landmarks * FIXED_POINT), 0, 65535).astype(np.uint16)
    levels = np.clip(np.round((mel + 1) * 127.5), 0, 255).astype(np.uint8)
    sure = np.round(np.clip(confidence, 0, 1) * 255).astype(np.uint8)
    np.savez_compressed(path, landmarks=fixed, confidence=sure, mel=levels, offset_s=np.float64(offset_s))


def read_arrays(folder: Path, clip: str) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Landmarks, confidence and mel of a clip, without its frames."""
    with np.load(folder / "clips" / f"{clip}.npz") as data:
        landmarks = data["landmarks"].astype(np.float32) / np.float32(FIXED_POINT)
        mel = data["mel"].astype(np.float32) / np.float32(127.5) - 1
        return landmarks, data["confidence"].astype(np.float32) / 255, mel


def stored_offset(folder: Path, clip: str) -> float:
    """The shift that a clip's stored sound already has, in seconds."""
    with np.load(folder / "clips" / f"{clip}.npz") as data:
        return float(data["offset_s"])


def read_clip(folder: Path, entry: ClipEntry) -> ClipArrays:
    """A whole clip.

    Raises:
        InputError: the file is damaged or shorter than its entry says.
    """
    path = folder / "clips" / f"{entry.id}.mp4"
    capture = cv2.VideoCapture(str(path))
    frames: list[Frame] = []
    try:
        while len(frames) < entry.frames:
            ok, image = capture.read()
            if not ok:
                raise InputError(
                    f"{path} ends after {len(frames)} of {entry.frames} frames", "run lipdub prepare again"
                )
            frames.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    finally:
        capture.release()
    return ClipArrays(np.stack(frames), *read_arrays(folder, entry.id))


def write_manifest(folder: Path, entries: list[ClipEntry], summary: dict[str, object]) -> None:
    """Write clips.jsonl and manifest.json."""
    lines = "".join(json.dumps(asdict(entry)) + "\n" for entry in entries)
    (folder / "clips.jsonl").write_text(lines, encoding="utf-8")
    (folder / "manifest.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")


def read_manifest(folder: Path, split: str | None = None) -> tuple[list[ClipEntry], dict[str, object]]:
    """Entries (of one split) and the summary.

    Raises:
        InputError: the folder is no data set or the split is empty.
    """
    try:
        summary = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        lines = (folder / "clips.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise InputError(f"{folder} is not a prepared data set", f"lipdub prepare SOURCE -o {folder}") from error
    entries = [ClipEntry(**json.loads(line)) for line in lines]
    chosen = [entry for entry in entries if split is None or entry.split == split]
    if not chosen:
        raise InputError(f"{folder} has no clips in split {split!r}")
    return chosen, summary
