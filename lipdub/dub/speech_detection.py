"""Whether the audio that drives the lips is speech: by its phones, by how its spectrum moves, and by its rhythm.

All of 318 recordings of people and of 72 by espeak-ng in 36 languages pass all limits, and so do 400 of them with white
or pink noise 20, 10 or 5 dB below. Of 310 generated sounds (noise that rises and falls, chords, drums, melodies, beeps,
applause) 280 fail, of 236 excerpts of real music 189. That was with an encoder of two members; with the bundled one all
of 60 recordings and of 120 in noise pass, and 131 of 144 sounds fail (`python -m benchmarks speech`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from lipdub.config import MelConfig
from lipdub.models.audio_encoder import CHUNK, TrackEncoder

WINDOW_S, SHORTEST_S = 4.0, 3.0  # of what sounds, looked at together
WITH_PAUSES_S = 5.0  # longest time from which a window is taken whose rhythm is looked at

# Least variety, variety and change, and change of phones in speech, nats: they depend on the weights of the bundled
# audio encoder. Noise hides phones, so that what is not clearly speech is looked at again without its steady noise.
CLEAR = (2.9, 3.5, 0.15)
NOISY = (2.95, 3.6, 0.5)
FLOOR_SHARE, FLOOR_GAIN = 0.15, 1.8  # the noise of a band: its power exceeded in all but this share of time, times this

# These do not depend on weights. The broad shape of a spectrum changes little in noise whose loudness varies; in music,
# partials stand out of it.
RELIEF = 0.55  # dB of change that speech has for each dB of partials
LEAST_CHANGE_DB = 1.2  # speech: 1.47 at least, 5.5 in the middle
DEPTH_DB, LOUD_DB = 50.0, 25.0  # below the loudest: what is looked at, what counts as sounding
BAND, FINE, SMOOTH = 4, 9, 5  # mel bands of one broad band; around a partial; steps that are averaged
CHANGE_S = 0.1
# Correlation of onsets with those some time later: 0.72 at most in speech, 1 in a rhythm that repeats itself.
MOST_REPEATED, REPEATED_S = 0.77, (0.1, 2.0)


@dataclass(frozen=True)
class WindowStatistics:
    """What tells speech from other sounds, of one window."""

    change_db: float  # see `spectral_change`
    repeated: float  # see `repetition`
    phones: tuple[tuple[float, float], ...]  # `phone_variety` of the sound, and of it without steady noise; () unknown

    @property
    def spoken(self) -> bool:
        """Whether it is as speech is in every respect."""
        return (
            self.change_db > LEAST_CHANGE_DB
            and self.repeated < MOST_REPEATED
            and (not self.phones or any(map(phones_vary, self.phones, (CLEAR, NOISY))))
        )


def is_spoken(
    spectrum: NDArray[np.float32],
    sounding: NDArray[np.bool_],
    mel: MelConfig,
    encoder: TrackEncoder | None,
    device: torch.device,
) -> bool | None:
    """Whether some window of a sound is as speech is.

    Args:
        spectrum: log-mel spectrogram (80, M) of `log_mel`.
        sounding: (M,) where it is no pause.
        mel: settings of the spectrogram.
        encoder: asked for phones; None: they are not looked at.
        device: where the encoder is.

    Returns:
        None if there are less than SHORTEST_S to look at, or if the settings are not those of the limits.
    """
    if mel != MelConfig():
        return None
    spoken = None
    for window in windows(spectrum, sounding, mel, encoder, device):
        spoken = window.spoken
        if spoken:
            break
    return spoken


def windows(
    spectrum: NDArray[np.float32],
    sounding: NDArray[np.bool_],
    mel: MelConfig,
    encoder: TrackEncoder | None,
    device: torch.device,
) -> Iterator[WindowStatistics]:
    """Statistics of SHORTEST_S to WINDOW_S of what sounds at a time; arguments as of `is_spoken`."""
    rate, half_db = mel.sample_rate / mel.hop, -mel.floor_db / 2
    length, shortest, longest = (round(seconds * rate) for seconds in (WINDOW_S, SHORTEST_S, WITH_PAUSES_S))
    spectra = spectrum, without_steady_noise(spectrum, mel)
    readers = () if encoder is None else tuple(encoder.read_phones(each, device) for each in spectra)
    for first in range(0, spectrum.shape[1], CHUNK):
        phones = [next(reader) for reader in readers]
        there = first + np.flatnonzero(sounding[first : first + CHUNK])
        for start in range(0, len(there) - shortest + 1, length):
            steps = there[start : start + length]
            timed = spectrum[:, steps[0] : min(steps[-1] + 1, steps[0] + longest)]
            yield WindowStatistics(
                spectral_change(half_db * spectra[1][:, steps], rate),
                repetition(half_db * timed, rate),
                tuple(phone_variety(each[:, steps - first]) for each in phones),
            )


def phones_vary(phones: tuple[float, float], limits: tuple[float, float, float]) -> bool:
    """Whether variety and change of `phone_variety` are above CLEAR, or NOISY."""
    variety, change = phones
    return variety > limits[0] and variety + change > limits[1] and change > limits[2]


def spectral_change(db: NDArray[np.float32], rate: float) -> float:
    """How far the broad shape of a spectrum moves in CHANGE_S, less RELIEF times how far partials stand out, in dB.

    Both are root mean squares over bands and over the loud steps.

    Args:
        db: levels of mel bands (80, n).
        rate: steps a second.
    """
    db = np.maximum(db, np.percentile(db.max(0), 95) - DEPTH_DB)
    level = 10 * np.log10((10 ** (db / 10)).sum(0))
    loud = level > level.max() - LOUD_DB
    lag = round(CHANGE_S * rate)
    shape = uniform_filter1d(_broad(db), SMOOTH, axis=1)
    moved = shape[:, lag:] - shape[:, :-lag]
    moved = moved - moved.mean(0)
    partials = uniform_filter1d(db - uniform_filter1d(db, FINE, axis=0), SMOOTH, axis=1)
    return _rms(moved[:, loud[lag:] & loud[:-lag]]) - RELIEF * _rms(partials[:, loud])


def repetition(db: NDArray[np.float32], rate: float) -> float:
    """The largest correlation of a sound's onsets with those a time of REPEATED_S later, at most 1 or little above.

    Args:
        db: levels of mel bands (80, n).
        rate: steps a second.
    """
    db = np.maximum(db, np.percentile(db.max(0), 95) - DEPTH_DB)
    bands = uniform_filter1d(_broad(db), 3, axis=1)
    onsets = np.maximum(0, bands[:, 2:] - bands[:, :-2]).mean(0)
    onsets, count = onsets - onsets.mean(), len(onsets)
    energy = float(onsets @ onsets)
    if not energy:
        return 0.0
    alike = np.correlate(onsets, onsets, "full")[count - 1 :] / energy
    shares = 1 - np.arange(count) / count
    first, last = (round(seconds * rate) for seconds in REPEATED_S)
    return float((alike[first:last] / shares[first:last]).max())


def _broad(db: NDArray[np.float32]) -> NDArray[np.float32]:
    """Levels (80, n) averaged over BAND bands each."""
    return db.reshape(-1, BAND, db.shape[1]).mean(1)


def _rms(values: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else 0.0


def without_steady_noise(spectrum: NDArray[np.float32], mel: MelConfig) -> NDArray[np.float32]:
    """A scaled log-mel spectrogram (80, M) less what each band has nearly all the time (spectral subtraction)."""
    half_db = -mel.floor_db / 2
    power = 10 ** ((spectrum - 1) * half_db / 10)
    noise = FLOOR_GAIN * np.quantile(power, FLOOR_SHARE, axis=1, keepdims=True)
    db = 10 * np.log10(np.maximum(power - noise, 10 ** (mel.floor_db / 10)))
    return (db / half_db + 1).astype(np.float32)


def phone_variety(phones: NDArray[np.float64]) -> tuple[float, float]:
    """How many phones a sound has and how much they change, in nats, from probabilities (members, n, P) at n steps.

        variety = H(mean_t p_t),   change = variety - mean_t H(p_t)

    with p_t the probabilities of the phones but silence, number 0, and each step weighing what that leaves. They are
    means over the members, whose other numbers stand for different phones.
    """
    spoken = phones[..., 1:]
    weights = np.maximum(spoken.sum(-1), 1e-9)  # (members, n)
    variety = _entropy(spoken.sum(1) / weights.sum(1, keepdims=True))
    vagueness = (weights * _entropy(spoken / weights[..., None])).sum(1) / weights.sum(1)
    return float(variety.mean()), float((variety - vagueness).mean())


def _entropy(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of distributions (..., P), in nats."""
    return -(p * np.log(np.maximum(p, 1e-12))).sum(-1)
