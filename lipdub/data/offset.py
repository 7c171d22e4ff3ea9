"""Offset between audio and lips of footage: per source by the predicted mouth shapes, else per folder by loudness."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lipdub.config import MelConfig
from lipdub.data.store import RATE, ClipEntry, read_arrays, stored_offset, write_arrays
from lipdub.faces.mouth_shape import mouth_shape
from lipdub.mel import FLOOR
from lipdub.metrics import high_pass, pearson

# Lags of the lips behind the sound that are tried. On GRID, which is known to be in sync, opening and loudness peak
# together, so that no further correction is needed.
LAGS_S = np.arange(-6, 7) / RATE
# Least margin of the best lag's correlation over that of lag 0; a larger one for little footage. Lips take about 8
# independent positions a second, so that the deviation by chance over t seconds is 1 / sqrt(8 t); the second is twice
# that at one second.
MIN_MARGIN, MIN_MARGIN_AT_1_S = 0.02, 0.7
# Shifts of a source's sound that are tried, and distances of a mouth shape that are compared: opening, height, width,
# chin.
SHIFTS_S = np.arange(-10, 11) * 0.02
COMPARED = (0, 3, 4, 6)
# Limits of a source's strength, which is the best shift's correlation times sqrt(seconds / 4): from the first on the
# shift is certain, below the second the voice is another person's; shorter sources are not judged. On 337 clips of
# natural speech the median was 0.82; with the sound of another clip it was 0.19, and below 0.41 in 95 of 100.
MIN_STRENGTH, MAX_FOREIGN, MIN_SECONDS = 0.5, 0.3, 4.0
MIN_OPENING_STD, MIN_LOUDNESS_STD = 0.005, 0.02  # below these nothing is measured


@dataclass(frozen=True)
class SourceOffset:
    """Offset of one source, measured by the audio encoder."""

    offset_s: float  # by which the sound has to come later; 0 where it is not certain
    certain: bool
    foreign: bool  # the sound matches the mouth at no offset


def shift_correlations(
    predicted: NDArray[np.float32], shapes: NDArray[np.float32], start_s: float, config: MelConfig
) -> NDArray[np.float64]:
    """Correlation of a clip's mouth shapes with those predicted from its sound, at each of SHIFTS_S.

        r(d) = mean over COMPARED of  pearson(h(seen_t), h(predicted(t - d))),    h: high-pass of metrics

    Args:
        predicted: (M, 8) mouth shapes at every mel step of the whole sound (`TrackEncoder.read_track`).
        shapes: (T, 8) mouth shapes of the clip's frames, RATE a second.
        start_s: of the clip in the sound.
        config: hop and sample rate.

    Returns:
        (len(SHIFTS_S),) in [-1, 1].
    """
    times = start_s + (np.arange(len(shapes)) + 0.5) / RATE
    steps = np.arange(len(predicted))
    true = [high_pass(shapes[:, number]) for number in COMPARED]
    curve = np.zeros(len(SHIFTS_S))
    for place, shift in enumerate(SHIFTS_S):
        columns = (times - shift) * config.sample_rate / config.hop
        curves = [high_pass(np.interp(columns, steps, predicted[:, number])) for number in COMPARED]
        curve[place] = np.mean([pearson(a, b) for a, b in zip(true, curves, strict=True)])
    return curve


def source_offset(clips: Sequence[tuple[int, NDArray[np.float64]]]) -> SourceOffset:
    """Offset of a source from all of its clips: frames and `shift_correlations` of each."""
    frames = sum(count for count, _ in clips)
    if not frames:
        return SourceOffset(0.0, certain=False, foreign=False)
    mean = np.sum([count * curve for count, curve in clips], axis=0) / frames
    strength, enough = float(mean.max()) * math.sqrt(frames / RATE / 4), frames / RATE >= MIN_SECONDS
    certain = enough and strength >= MIN_STRENGTH
    shift_s = round(float(SHIFTS_S[mean.argmax()]), 3) if certain else 0.0
    return SourceOffset(shift_s, certain=certain, foreign=enough and strength < MAX_FOREIGN)


def group_offsets(folder: Path, entries: Sequence[ClipEntry], config: MelConfig) -> dict[str, float]:
    """Lag of each group at which mouth opening and loudness correlate best, in seconds; 0 if uncertain.

    For every clip of a group the correlation of inner-lip opening with the mean log-mel is taken at each lag; the lag
    with the highest mean over the group's clips wins. Lags are those of the footage: a shift that a clip's stored sound
    has already is undone. A group whose clips all have the same shift is not measured again.

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
        mean = np.mean([_lag_correlations(folder, entry, shift, config) for entry, shift in members], axis=0)
        best = int(mean.argmax())
        seconds = sum(entry.frames for entry, _ in members) / RATE
        clear = mean[best] - mean[len(LAGS_S) // 2] > max(MIN_MARGIN, MIN_MARGIN_AT_1_S / np.sqrt(seconds))
        offsets[group] = round(float(LAGS_S[best]), 3) if clear else 0.0
    return offsets


def _lag_correlations(folder: Path, entry: ClipEntry, stored_s: float, config: MelConfig) -> NDArray[np.float64]:
    """Correlation of opening and loudness at each of LAGS_S; 0 if one of them hardly varies."""
    landmarks, _, mel = read_arrays(folder, entry.id)
    opening, loudness = mouth_shape(landmarks)[:, 0], mel.mean(0)
    times = (np.arange(len(opening)) + 0.5) / RATE
    curve = np.zeros(len(LAGS_S))
    for i, lag in enumerate(LAGS_S):
        columns = (times - lag + stored_s) * config.sample_rate / config.hop
        delayed = np.interp(columns, np.arange(mel.shape[1]), loudness)  # beyond the ends: the last value
        if opening.std() > MIN_OPENING_STD and delayed.std() > MIN_LOUDNESS_STD:
            curve[i] = np.corrcoef(opening, delayed)[0, 1]
    return curve


def shift_sound(
    folder: Path, entries: Sequence[ClipEntry], offsets: Mapping[str, float], config: MelConfig
) -> list[ClipEntry]:
    """Delay the sound of clips by their group's offset, by rewriting their mel; no clip is shifted twice.

    Each file stores its shift. Groups without an offset get 0.
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
    """Columns [first, last) of a mel, padded with silence."""
    out = np.full((mel.shape[0], last - first), FLOOR, np.float32)
    low, high = max(first, 0), min(last, mel.shape[1])
    if high > low:
        out[:, low - first : high - first] = mel[:, low:high]
    return out
