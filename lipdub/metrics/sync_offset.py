"""Offset between lips and audio of a video, with a confidence: by loudness, or by the lip-sync expert.

s(k)       similarity of lips at time t and sound at time t - k, for each shift k within REACH frames
offset     the k with the largest s: positive if the lips are late
confidence max_k s(k) - median_k s(k), as SyncNet's (arXiv 2008.10010) in units of s
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lipdub.config import MelConfig
from lipdub.mel import FLOOR, log_mel, mel_windows
from lipdub.metrics import high_pass, pearson
from lipdub.models.expert import Expert, lower_halves

RATE = 25.0  # frames a second that the expert was trained with
REACH = 15  # frames of RATE to either side in which the offset is searched
STEP_S = 0.01  # between two shifts, for loudness
SHORTEST_S = 1.0  # of a video whose offset is measured
CHUNK = 64  # windows per call of the expert


FloatArray: TypeAlias = NDArray[np.floating]


@dataclass(frozen=True)
class Offset:
    """The shift at which lips and sound match best."""

    ms: float  # positive: the lips are late
    confidence: float  # 0: all shifts are equally good
    at_zero: float  # s(0) - median_k s(k): confidence without a shift


def loudness(waveform: NDArray[np.float32], config: MelConfig) -> NDArray[np.float32]:
    """Mean of the log-mel's bands (M,), one value per hop."""
    return log_mel(waveform, config).mean(0)


def level_at(level: FloatArray, times_s: FloatArray, config: MelConfig) -> NDArray[np.float64]:
    """`loudness` at the given times; silence before and after the sound."""
    columns = np.arange(len(level)) * config.hop / config.sample_rate
    return np.interp(times_s, columns, level, left=FLOOR, right=FLOOR)


def offset_by_loudness(
    openings: FloatArray, times_s: FloatArray, level: FloatArray, config: MelConfig
) -> Offset | None:
    """Offset by loudness: s(k) = Pearson's r of high-passed mouth opening and loudness.

    Args:
        openings: (T,) finite.
        times_s: (T,) middle of each frame on the sound's timeline.
        level: of `loudness`.
        config: hop and sample rate.

    Returns:
        None if the video is shorter than SHORTEST_S, or opening or loudness is constant.
    """
    if len(openings) < 2 or times_s[-1] - times_s[0] < SHORTEST_S:
        return None
    shifts = np.arange(-round(REACH / RATE / STEP_S), round(REACH / RATE / STEP_S) + 1) * STEP_S
    mouth = high_pass(openings)
    fits = np.array([pearson(mouth, high_pass(level_at(level, times_s - shift, config))) for shift in shifts])
    return _best(shifts, fits)


@torch.no_grad()
def offset_by_expert(
    expert: Expert, faces: Tensor, times_s: FloatArray, mel: NDArray[np.float32], config: MelConfig
) -> Offset | None:
    """Offset by the expert: s(k) = mean over windows of T_v frames of its similarity d (3) at a shift of k frames.

    Args:
        expert: in eval mode.
        faces: (T, 3, S, S) in [0, 1], crops as the expert was trained on.
        times_s: (T,) middle of each frame on the sound's timeline.
        mel: (n_mels, M) of the whole sound.
        config: hop and sample rate.

    Returns:
        None where there is no window.
    """
    curve = similarities(expert, faces, times_s, mel, config)
    if curve is None or times_s[-1] - times_s[0] < SHORTEST_S:
        return None
    return best_offset(curve)


def best_offset(similarity: NDArray[np.float64]) -> Offset | None:
    """Best offset of `similarities` (n, 2 REACH + 1); None if all are equal."""
    return _best(np.arange(-REACH, REACH + 1) / RATE, similarity.mean(0))


def similarities(
    expert: Expert, faces: Tensor, times_s: FloatArray, mel: NDArray[np.float32], config: MelConfig
) -> NDArray[np.float64] | None:
    """Similarity d of each window (one begins at each frame of 25 a second) at each shift, (n, 2 REACH + 1)."""
    n_frames = expert.config.frames
    moments = np.arange(times_s[0], times_s[-1] + 1e-6, 1 / RATE)
    rows = np.abs(np.asarray(times_s)[:, None] - moments).argmin(0)  # the frame nearest to each moment
    starts = np.arange(len(rows) - n_frames + 1)
    if not len(starts):
        return None
    middles = moments[starts] + (n_frames - 1) / 2 / RATE
    times = np.arange(-REACH, len(starts) + REACH) / RATE + middles[0]
    windows = torch.from_numpy(mel_windows(mel, times, config, width=expert.config.mel_steps))[:, None]
    sound = torch.cat([expert.embed_audio(part) for part in windows.split(CHUNK)])
    lips = torch.cat(
        [
            expert.embed_faces(lower_halves(torch.stack([faces[rows[s : s + n_frames]] for s in part])))
            for part in np.array_split(starts, math.ceil(len(starts) / CHUNK))
        ]
    )
    near = sound.unfold(0, 2 * REACH + 1, 1)  # (n, E, 2 REACH + 1): of window i, sounds i - REACH .. i + REACH
    d = torch.einsum("ne,nek->nk", lips, near).flip(1)  # sound that lies k earlier is shift + k
    return d.double().numpy()


def _best(shifts: FloatArray, fits: FloatArray) -> Offset | None:
    if np.ptp(fits) < 1e-9:
        return None
    middle, best = float(np.median(fits)), int(fits.argmax())
    return Offset(
        ms=round(1000 * float(shifts[best])),
        confidence=float(fits[best]) - middle,
        at_zero=float(fits[len(fits) // 2]) - middle,
    )
