"""Whether the measures of `lipdub eval` grow with the damage done to real clips (good: monotonic).

    python -m benchmarks sensitivity CLIPS_DIR -o OUT [--expert EXPERT.safetensors] [--limit 10] [--seconds 5]

Shifted sound (frames of 25 a second), a blurred mouth (Gaussian, sigma in pixels of the crop), a seam painted along the
border of the mouth mask (grey levels). Faces, landmarks and crops are those of `lipdub eval FILE`; every figure is a
mean over the clips. Prints a Markdown table, and for each measure whether it is monotonic; values per clip go to
OUT/sensitivity.jsonl.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.arguments import add_output, parser_of
from lipdub.affine import transform
from lipdub.config import Config
from lipdub.evaluation.networks import find_expert
from lipdub.evaluation.pairs import find_clips
from lipdub.evaluation.quality import as_tensor, seam
from lipdub.faces.choose import track_video
from lipdub.faces.crop import crop_matrices, mouth_mask
from lipdub.faces.track import choose_tracks
from lipdub.losses import expert_loss
from lipdub.media.audio import load_audio
from lipdub.media.probe import probe, require_video
from lipdub.media.video import VideoReader
from lipdub.mel import log_mel
from lipdub.metrics import agreement, laplacian_variance, mouth_opening
from lipdub.metrics.sync_offset import (
    REACH,
    best_offset,
    level_at,
    loudness,
    offset_by_loudness,
    similarities,
)
from lipdub.models.expert import Expert

SHIFTS = (0, 1, 2, 4, 8)
BLURS = (0.0, 0.5, 1.0, 2.0, 4.0)
SEAMS = (0, 5, 10, 20, 40)


@dataclass(frozen=True)
class Clip:
    """A real clip: crops, landmarks in them, openings, and its sound."""

    name: str
    faces: np.ndarray  # (T, S, S, 3)
    marks: np.ndarray  # (T, 68, 2)
    openings: np.ndarray  # (T,)
    times_s: np.ndarray  # (T,) middle of each frame
    waveform: np.ndarray


def read(path: Path, name: str, seconds: float, config: Config) -> Clip:
    info = require_video(probe(path))
    rate = float(info.average_rate)
    tracks, times = track_video(path, info, config, torch.device("cpu"), end_s=seconds)
    size = (info.display_width, info.display_height)
    track = max(choose_tracks(tracks, "largest", size), key=lambda one: len(one.landmarks))
    starts = times[track.first :][: len(track.landmarks)]
    matrices = crop_matrices(track.landmarks, starts, config.face, config.face.size)
    faces = []
    with VideoReader(path, info) as reader:
        for frame in reader:
            if frame.index >= track.frames.stop:
                break
            if frame.index in track.frames:
                matrix = matrices[frame.index - track.first]
                faces.append(frame.patch(matrix, config.face.size))
    marks = np.stack([transform(points, matrix) for points, matrix in zip(track.landmarks, matrices, strict=True)])
    sound = load_audio(path, sample_rate=config.mel.sample_rate)
    return Clip(name, np.stack(faces), marks, mouth_opening(track.landmarks), starts + 0.5 / rate, sound)


def shifted(clip: Clip, frames: int, expert: Expert | None, config: Config) -> dict[str, float]:
    """The clip with its sound `frames` later, so that the lips come earlier."""
    times = clip.times_s - frames / 25  # where the sound was that is heard now
    level = loudness(clip.waveform, config.mel)
    found = offset_by_loudness(clip.openings, times, level, config.mel)
    r, z = agreement(clip.openings, level_at(level, times, config.mel))
    values = {"opening with loudness, r": r, "z": z}
    if found is not None:
        values |= {"loudness confidence at 0": found.at_zero, "offset by loudness, ms": found.ms}
    if expert is None:
        return values
    faces = as_tensor(clip.faces)
    d = similarities(expert, faces, times, log_mel(clip.waveform, config.mel), config.mel)
    if d is None:
        return values
    best = best_offset(d)
    values["expert similarity"] = float(d[:, REACH].mean())
    values["expert loss (8)"] = float(expert_loss(torch.from_numpy(d[::5, REACH]), floor=config.loss.expert_floor))
    if best is not None:
        values |= {"expert confidence at 0": best.at_zero, "offset by expert, ms": best.ms}
    return values


def blurred(clip: Clip, sigma: float) -> dict[str, float]:
    """The clip with a soft mouth."""
    masks = np.stack([mouth_mask(points, clip.faces.shape[1]) for points in clip.marks])
    soft = np.stack([cv2.GaussianBlur(face, (0, 0), sigma) for face in clip.faces]) if sigma else clip.faces
    faces = np.where(masks[..., None] > 0, soft, clip.faces)
    return {"masked vL": float(laplacian_variance(as_tensor(faces), torch.from_numpy(masks)[:, None]).nanmean())}


def seamed(clip: Clip, levels: int) -> dict[str, float]:
    """The clip with a mouth region that is brighter than the rest."""
    masks = np.stack([mouth_mask(points, clip.faces.shape[1]) for points in clip.marks])
    faces = np.clip(clip.faces + levels * masks[..., None], 0, 255).astype(np.uint8)
    return {"seam, grey levels": seam(faces, clip.marks)}


def table(title: str, steps: Sequence[float], rows: dict[str, list[float]]) -> list[str]:
    lines = [f"| {title} | {' | '.join(f'{step:g}' for step in steps)} | monotonic |", "|---" * (len(steps) + 2) + "|"]
    for name, values in rows.items():
        change = np.diff(values)
        steady = "yes" if (change <= 0).all() or (change >= 0).all() else "no"
        lines.append(f"| {name} | {' | '.join(f'{value:.3g}' for value in values)} | {steady} |")
    return lines


def measured(
    clips: Sequence[Clip], steps: Sequence[float], spoil: Callable[[Clip, float], dict[str, float]], file: Path
) -> dict[str, list[float]]:
    rows: dict[str, list[float]] = {}
    for step in steps:
        found = [spoil(clip, step) for clip in clips]
        with file.open("a") as out:
            for clip, values in zip(clips, found, strict=True):
                out.write(json.dumps({"clip": clip.name, "step": step} | values) + "\n")
        for key in dict.fromkeys(key for values in found for key in values):
            known = [values[key] for values in found if np.isfinite(values.get(key, np.nan))]
            middle = np.median if "offset" in key else np.mean  # one clip that is lost must not move all
            rows.setdefault(key, []).append(float(middle(known)))
    return rows


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("clips", type=Path)
    add_output(parser)
    parser.add_argument("--expert")
    parser.add_argument("--limit", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    args.output.mkdir(parents=True, exist_ok=True)
    file = args.output / "sensitivity.jsonl"
    file.write_text("")
    expert, config = find_expert(args.expert, Config())
    clips = [read(clip.path, clip.name, args.seconds, config) for clip in find_clips(args.clips)[: args.limit]]
    print(f"{len(clips)} clips, {sum(len(clip.faces) for clip in clips)} frames", flush=True)
    for title, steps, spoil in (
        ("sound later, frames", SHIFTS, lambda clip, step: shifted(clip, step, expert, config)),
        ("mouth blurred, sigma", BLURS, blurred),
        ("mouth brighter, grey levels", SEAMS, seamed),
    ):
        print("\n".join(table(title, steps, measured(clips, steps, spoil, file))) + "\n", flush=True)
