"""Format of a data set on disk: written by `lipdub prepare`, read by training.

    DATASET/manifest.json            settings, counts, reasons of what was dropped
    DATASET/clips.jsonl              a line per clip: id, speaker, group, split, frames, offset_s, source
    DATASET/clips/<id>.mp4           H.264, `side` x `side`, 25 fps: the aligned crop with a margin round it
    DATASET/clips/<id>.npz           landmarks (T, 68, 2) uint16 in 1/256 px of the stored crop; confidence (T,) uint8;
                                     mel (80, M) uint8, linear between the log-mel's limits -1 and 1

Reading needs OpenCV and NumPy only.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.errors import InputError
from lipdub.faces.backend import Frame

RATE = 25.0  # frames a second of every stored clip
FIXED_POINT = 256.0  # stored landmark units per pixel
AGAIN = "run `lipdub prepare` again, into another folder"
_READING = Lock()  # NumPy parses headers by `ast`, whose constructor in CPython 3.11 fails now and then in two threads


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
    sure: bool = False  # whether the offset was measured in the clip's own source, with certainty


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
    """Write the .npz of a clip, atomically; `offset_s` is the shift that its mel already has."""
    fixed = np.clip(np.round(landmarks * FIXED_POINT), 0, 65535).astype(np.uint16)
    levels = np.clip(np.round((mel + 1) * 127.5), 0, 255).astype(np.uint8)
    sure = np.round(np.clip(confidence, 0, 1) * 255).astype(np.uint8)
    temporary = path.with_name(f".{path.stem}.part.npz")
    np.savez_compressed(temporary, landmarks=fixed, confidence=sure, mel=levels, offset_s=np.float64(offset_s))
    temporary.replace(path)


def read_arrays(folder: Path, clip: str) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Landmarks, confidence and mel of a clip, without its frames.

    Raises:
        InputError: the file is absent or damaged.
    """
    data = _load(folder, clip)
    landmarks = np.asarray(data["landmarks"] / FIXED_POINT, np.float32)
    mel = np.asarray(data["mel"] / 127.5 - 1, np.float32)
    return landmarks, np.asarray(data["confidence"] / 255, np.float32), mel


def stored_offset(folder: Path, clip: str) -> float:
    """Shift of a clip's stored mel, in seconds; raises as `read_arrays` does."""
    return float(_load(folder, clip)["offset_s"])


def _load(folder: Path, clip: str) -> dict[str, NDArray[Any]]:
    path = folder / "clips" / f"{clip}.npz"
    try:
        with path.open("rb") as file, _READING, np.load(file) as data:
            return {name: data[name] for name in ("landmarks", "confidence", "mel", "offset_s")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"cannot read {path}: {error}", AGAIN) from error


def read_clip(folder: Path, entry: ClipEntry) -> ClipArrays:
    """A stored clip with its frames.

    Raises:
        InputError: the file is damaged, shorter than its entry says, or its arrays are of another length.
    """
    path = folder / "clips" / f"{entry.id}.mp4"
    capture = cv2.VideoCapture(str(path))
    frames: list[Frame] = []
    try:
        while len(frames) < entry.frames:
            ok, image = capture.read()
            if not ok:
                raise InputError(f"{path} ends after {len(frames)} of {entry.frames} frames", AGAIN)
            frames.append(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8))
    finally:
        capture.release()
    landmarks, confidence, mel = read_arrays(folder, entry.id)
    if not len(frames) == len(landmarks) == len(confidence) or mel.ndim != 2 or not mel.size:
        raise InputError(f"{path.with_suffix('.npz')} does not belong to its {len(frames)} frames", AGAIN)
    return ClipArrays(np.stack(frames), landmarks, confidence, mel)


def write_manifest(folder: Path, entries: list[ClipEntry], summary: dict[str, object]) -> None:
    """Write clips.jsonl and manifest.json."""
    lines = "".join(json.dumps(asdict(entry)) + "\n" for entry in entries)
    (folder / "clips.jsonl").write_text(lines, encoding="utf-8")
    (folder / "manifest.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")


def read_manifest(folder: Path, split: str | None = None) -> tuple[list[ClipEntry], dict[str, object]]:
    """Entries (of one split) and the summary.

    Raises:
        InputError: the folder is no data set, its manifest is damaged, or the split is empty.
    """
    try:
        summary = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        lines = (folder / "clips.jsonl").read_text(encoding="utf-8").splitlines()
        entries = [ClipEntry(**json.loads(line)) for line in lines]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{folder} is not a prepared data set", f"lipdub prepare SOURCE -o {folder}") from error
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"cannot read the manifest of {folder}: {error}", AGAIN) from error
    chosen = [entry for entry in entries if split is None or entry.split == split]
    if not chosen:
        raise InputError(f"{folder} has no clips in split {split!r}", "prepare more footage, of more speakers")
    return chosen, summary
