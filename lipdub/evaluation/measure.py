"""Every column's value for one judged video; the equations are in metrics.py and losses.py."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lipdub.config import Config
from lipdub.errors import InputError
from lipdub.evaluation.judge import Geometry, Watched
from lipdub.losses import expert_loss, perceptual
from lipdub.mel import log_mel, mel_windows
from lipdub.metrics import (
    SHORTEST,
    agreement,
    articulation,
    landmark_distance,
    laplacian_variance,
    psnr_masked,
    ring_jitter,
    silence_motion,
    silent_frames,
)
from lipdub.models.expert import Expert, lower_halves

EXPERT_RATE = 25.0  # frames a second that the expert knows
EXPERT_STEP = 5  # frames between two windows [4.1]
CHUNK = 32  # faces per call of the perceptual backbone


@dataclass(frozen=True)
class Real:
    """A real clip: what the judge saw of its picture, and its sound."""

    watched: Watched
    waveform: NDArray[np.float32]  # (n,) mono at config.mel.sample_rate


@dataclass(frozen=True)
class Networks:
    """Networks that judge; None where none was given."""

    expert: Expert | None = None
    features: nn.Module | None = None


def measure(
    video: Watched,
    ground: Real,
    sound: Real,
    config: Config,
    networks: Networks,
    *,
    replaced: Real | None = None,
    truth: bool = False,
) -> dict[str, float]:
    """All columns that are defined.

    Args:
        video: what is judged.
        ground: the real clip whose picture it shows.
        sound: the real clip whose sound it has.
        config: face, mel, loss and media sections.
        networks: for the columns that need one.
        replaced: the real clip whose mouth must not be seen any more, where it is another than the sound's.
        truth: whether `ground` shows what the video should look like.

    Returns:
        Column -> value, finite ones only.

    Raises:
        InputError: picture and sound share too few frames to be compared.
    """
    values = _curves(video, sound, config.mel.sample_rate)
    if replaced is not None:
        values["replaced_z"] = _against(video, replaced.watched)[1]
    if truth:
        count = min(len(video.landmarks), len(ground.watched.landmarks))
        values["lmd"] = landmark_distance(video.landmarks[:count], ground.watched.landmarks[:count])
    values |= _pictures(video, ground.watched, config, networks.features if truth else None, truth)
    if networks.expert is not None:
        values["expert"] = _expert(video, ground.watched, sound, config, networks.expert)
    return {key: value for key, value in values.items() if math.isfinite(value)}


def shared_frames(video: Watched, *others: Watched) -> int:
    """Frames of `video` while the others last too.

    Raises:
        InputError: fewer than curves need.
    """
    end = min(watched.times_s[-1] for watched in (video, *others))
    count = int(np.searchsorted(video.times_s, end, side="right"))
    if count < SHORTEST:
        raise InputError(f"only {count} frames can be compared, {SHORTEST} are needed")
    return count


def _against(video: Watched, other: Watched) -> tuple[float, float, float]:
    """r, z and articulation of a video's mouth against that of another."""
    count = shared_frames(video, other)
    curve = video.openings[:count]
    reference = np.interp(video.times_s[:count], other.times_s, other.openings)
    return *agreement(curve, reference), articulation(curve, reference)


def _curves(video: Watched, sound: Real, sample_rate: int) -> dict[str, float]:
    r, z, movement = _against(video, sound.watched)
    count = shared_frames(video, sound.watched)
    silent = silent_frames(sound.waveform, sample_rate, video.times_s[:count])
    return {
        "follows_r": r,
        "follows_z": z,
        "articulation": movement,
        "silence": silence_motion(video.openings[:count], silent),
    }


@torch.no_grad()
def _pictures(
    video: Watched, real: Watched, config: Config, features: nn.Module | None, truth: bool
) -> dict[str, float]:
    geometry = Geometry.of(real, config.face, config.face.size)
    mouth, skin = geometry.masks(real, video)
    faces = geometry.faces(video.path, video.info, config.media)
    count = min(len(faces), len(mouth))
    faces, mouth, skin = faces[:count], mouth[:count], skin[:count]
    values = {
        "sharpness": float(laplacian_variance(faces, mouth).nanmean()),
        "jitter": float(ring_jitter(faces, skin)),
    }
    if truth:
        wanted = geometry.faces(real.path, real.info, config.media)[:count]
        values["psnr"] = float(psnr_masked(255 * faces, 255 * wanted, mouth, peak=255.0).nanmean())
        if features is not None:
            values["perceptual"] = _perceptual(features, faces, wanted)
    return values


def _perceptual(features: nn.Module, fake: Tensor, real: Tensor) -> float:
    total = 0.0
    for start in range(0, len(fake), CHUNK):
        a, b = fake[start : start + CHUNK], real[start : start + CHUNK]
        total += float(perceptual(features(a), features(b))) * len(a)
    return total / len(fake)


@torch.no_grad()
def _expert(video: Watched, real: Watched, sound: Real, config: Config, expert: Expert) -> float:
    """Loss (8), mean over windows of T_v frames that begin every EXPERT_STEP frames of 25 a second; NaN without any."""
    size, n_frames = expert.config.size, expert.config.frames
    faces = Geometry.of(real, config.face, size).faces(video.path, video.info, config.media)
    times = video.times_s[: len(faces)]
    end_s = min(times[-1], len(sound.waveform) / config.mel.sample_rate)
    moments = np.arange(times[0], end_s + 1e-6, 1 / EXPERT_RATE)
    rows = np.abs(times[:, None] - moments).argmin(0)  # the frame nearest to each moment
    starts = np.arange(0, len(rows) - n_frames + 1, EXPERT_STEP)
    if not len(starts):
        return math.nan
    clips = torch.stack([faces[rows[start : start + n_frames]] for start in starts])
    middles = moments[starts] + n_frames / 2 / EXPERT_RATE
    mel = mel_windows(log_mel(sound.waveform, config.mel), middles, config.mel, width=expert.config.window)
    similarity = expert(lower_halves(clips), torch.from_numpy(mel)[:, None])
    return float(expert_loss(similarity, floor=config.loss.expert_floor))
