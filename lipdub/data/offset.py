"""Offset between audio and lips of footage: per source by the expert, else per folder by loudness."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lipdub.config import MelConfig
from lipdub.data.store import RATE, ClipEntry, read_arrays, stored_offset, write_arrays
from lipdub.faces.backend import Frame
from lipdub.faces.crop import mouth_shape
from lipdub.mel import FLOOR
from lipdub.metrics.sync_offset import best_offset, similarities
from lipdub.models.expert import Expert

# Lags of the lips behind the sound that are tried. On GRID, whose tracks are known to be in sync, opening and
# loudness peak together, so that the lag that is found needs no correction of its own.
LAGS_S = np.arange(-6, 7) / RATE
# By how much the best lag's correlation must exceed that of lag 0 to be believed: the first, and more where there is
# little footage. Lips take about 8 independent positions a second, so that over t seconds chance gives 1 / sqrt(8 t);
# the second is twice that at one second.
CLEAR, CLEAR_AT_1_S = 0.02, 0.7
# The expert's confidence in a source, times sqrt(seconds / 4), where there is enough to judge: above the first its
# offset is believed, below the second somebody else is heard. Measured in benchmarks/RESULTS.md. Of sources of about a
# second, all from one studio and in sync, it was as sure of 80 ms too early or too late in one of ten.
SURE, FOREIGN, ENOUGH_S = 0.14, 0.1, 4.0
CLOSE_MS = 40  # one frame, which the expert does not tell from none: on footage in sync it often finds it
MIN_OPENING_STD, MIN_LOUDNESS_STD = 0.005, 0.02  # below these nothing is measured


@dataclass(frozen=True)
class SourceOffset:
    """What the expert makes of the sound of one source."""

    offset_s: float  # by which the sound has to come later; 0 where it is not sure
    sure: bool
    foreign: bool  # the sound fits the mouth at no offset


def offset_similarities(
    expert: Expert, crops: Sequence[Frame], margin: float, start_s: float, mel: NDArray[np.float32], config: MelConfig
) -> NDArray[np.float64]:
    """How well a clip's mouths agree with the sound of each shift: a row for each window of the expert, perhaps none.

    Args:
        expert: in eval mode.
        crops: stored crops, (side, side, 3), RATE a second.
        margin: of the stored crop over the face crop.
        start_s: of the clip in the sound.
        mel: (80, M) of the whole sound.
        config: hop and sample rate.
    """
    size, side = expert.config.size, crops[0].shape[0]
    scale = size * margin / side
    matrix = np.array([[scale, 0, (size - scale * side) / 2], [0, scale, (size - scale * side) / 2]])
    faces = np.stack([cv2.warpAffine(crop, matrix, (size, size), flags=cv2.INTER_LINEAR) for crop in crops])
    tensor = torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 255
    times = start_s + (np.arange(len(crops)) + 0.5) / RATE
    with torch.inference_mode():
        rows = similarities(expert, tensor, times, mel, config)
    return np.zeros((0, 1)) if rows is None else rows


def source_offset(clips: Sequence[NDArray[np.float64]]) -> SourceOffset:
    """What `fits` of all clips of a source say together."""
    rows = [clip for clip in clips if len(clip)]
    best = best_offset(np.concatenate(rows)) if rows else None
    if best is None:
        return SourceOffset(0.0, sure=False, foreign=False)
    seconds = sum(map(len, rows)) / RATE
    strength, enough = best.confidence * math.sqrt(seconds / 4), seconds >= ENOUGH_S
    sure = enough and strength >= SURE
    shift_s = best.ms / 1000 if sure and abs(best.ms) > CLOSE_MS else 0.0
    return SourceOffset(shift_s, sure=sure, foreign=enough and strength < FOREIGN)


def group_offsets(folder: Path, entries: Sequence[ClipEntry], config: MelConfig) -> dict[str, float]:
    """The lag of each group at which mouth opening and loudness agree best, in seconds; 0 where it is unclear.

    For every clip of a group the correlation of inner-lip opening with the mean log-mel is taken at each lag; the
    lag with the highest mean over the group's clips wins. Lags are those of the footage: a shift that a clip's stored
    sound has already is undone. A group whose clips all have the same shift is not measured again.

    Args:
        folder: the data set.
        entries: clips with their groups.
        config: hop and sample rate of the stored mel.

    Returns:
        Group -> seconds by which its sound has to come later.
    """
    groups: dict[str, list[tuple[ClipEntry, float]]] = defaultdict(list)
    for entry in entries:
        groups[entry.group].append((entry, stored_offset(folder, entry.id)))
    offsets = {}
    for group, members in groups.items():
        shifts = {shift for _, shift in members}
        if len(shifts) == 1 and shifts != {0.0}:
            offsets[group] = shifts.pop()
            continue
        mean = np.mean([_agreement(folder, entry, shift, config) for entry, shift in members], axis=0)
        best = int(mean.argmax())
        seconds = sum(entry.frames for entry, _ in members) / RATE
        clear = mean[best] - mean[len(LAGS_S) // 2] > max(CLEAR, CLEAR_AT_1_S / np.sqrt(seconds))
        offsets[group] = round(float(LAGS_S[best]), 3) if clear else 0.0
    return offsets


def _agreement(folder: Path, entry: ClipEntry, stored_s: float, config: MelConfig) -> NDArray[np.float64]:
    """Correlation of opening and loudness at each of LAGS_S; 0 where one of them hardly varies."""
    landmarks, _, mel = read_arrays(folder, entry.id)
    opening, loudness = mouth_shape(landmarks)[:, 0], mel.mean(0)
    times = (np.arange(len(opening)) + 0.5) / RATE
    curve = np.zeros(len(LAGS_S))
    for i, lag in enumerate(LAGS_S):
        columns = (times - lag + stored_s) * config.sample_rate / config.hop
        heard = np.interp(columns, np.arange(mel.shape[1]), loudness)  # beyond the ends: the last value
        if opening.std() > MIN_OPENING_STD and heard.std() > MIN_LOUDNESS_STD:
            curve[i] = np.corrcoef(opening, heard)[0, 1]
    return curve


def shift_sound(
    folder: Path, entries: Sequence[ClipEntry], offsets: Mapping[str, float], config: MelConfig
) -> list[ClipEntry]:
    """Delay the sound of clips by their group's offset, by rewriting their mel; no clip is shifted twice.

    Each file remembers the shift that it has. Groups without an offset get 0.
    """
    shifted = []
    for entry in entries:
        offset = offsets.get(entry.group, 0.0)
        change = round((offset - stored_offset(folder, entry.id)) * config.sample_rate / config.hop)
        if change:
            landmarks, confidence, mel = read_arrays(folder, entry.id)
            mel = slice_mel(mel, -change, mel.shape[1] - change)
            write_arrays(folder / "clips" / f"{entry.id}.npz", landmarks, confidence, mel, offset)
        shifted.append(replace(entry, offset_s=offset))
    return shifted


def slice_mel(mel: NDArray[np.float32], first: int, last: int) -> NDArray[np.float32]:
    """Columns [first, last) of a mel, silence where it has none."""
    out = np.full((mel.shape[0], last - first), FLOOR, np.float32)
    low, high = max(first, 0), min(last, mel.shape[1])
    if high > low:
        out[:, low - first : high - first] = mel[:, low:high]
    return out
