"""Log-mel spectrograms, and the one window function that training and sync share [3.1, 3.7].

    column m of the spectrogram is centred at m * hop / sample_rate seconds
    value = (dB - floor / 2) / (-floor / 2):    floor_db -> -1,    0 dB (a full-scale sine) -> about +1

Only home of librosa (its filter bank), which is imported on first use because it takes seconds.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lipdub.config import MelConfig

KEPT = Path(__file__).parent / "bundled" / "mel.npz"
FLOOR = -1.0  # the scaled value of digital silence, and of everything outside the recording
CHUNK = 1024  # columns per FFT call: 13 s of sound, 6 MB, however long the recording
GATE_DB = -10.0  # blocks this far below the mean of the audible ones are pauses, not speech (as in ITU-R BS.1770)


@lru_cache(maxsize=4)
def mel_basis(config: MelConfig) -> NDArray[np.float32]:
    """Triangular filters (n_mels, n_fft / 2 + 1), each of height 1 at its centre, of `librosa.filters.mel`.

    Those of the default settings are kept in KEPT (scripts/bundle_mel): librosa takes as long to import as PyTorch.
    """
    with np.load(KEPT) as kept:
        if kept["settings"].tolist() == settings_of(config):
            return np.asarray(kept["basis"], np.float32)
    return librosas_basis(config)


def librosas_basis(config: MelConfig) -> NDArray[np.float32]:
    """The same, made by librosa."""
    import librosa

    return librosa.filters.mel(
        sr=config.sample_rate,
        n_fft=config.n_fft,
        n_mels=config.n_mels,
        fmin=config.f_min,
        fmax=config.f_max,
        norm=None,
        dtype=np.float32,
    )


def settings_of(config: MelConfig) -> list[float]:
    """What the filters depend on."""
    return [config.sample_rate, config.n_fft, config.n_mels, config.f_min, config.f_max]


def loudness_gain(waveform: NDArray[np.float32], config: MelConfig) -> np.float32:
    """What brings speech to an RMS level of `config.level_db`, so that quiet and loud recordings look alike.

    Only audible blocks of `n_fft` samples count, pauses do not, and it never exceeds `config.max_gain_db`: hiss in an
    empty recording stays hiss, digital silence stays silence.

    Args:
        waveform: (n,) mono, [-1, 1].
        config: level and limits.
    """
    usable = len(waveform) // config.n_fft * config.n_fft
    power = mean_power(waveform[:usable].reshape(-1, config.n_fft) if usable else waveform[None])
    audible = power[power > 10 ** (config.floor_db / 10)]
    if audible.size == 0:
        return np.float32(1)
    speech = audible[audible >= audible.mean() * 10 ** (GATE_DB / 10)]
    gain_db = config.level_db - 10 * np.log10(speech.mean())
    return np.float32(10 ** (min(float(gain_db), config.max_gain_db) / 20))


def log_mel(waveform: NDArray[np.float32], config: MelConfig) -> NDArray[np.float32]:
    """Scaled log-mel spectrogram of a whole recording, its loudness normalised first.

        x[b, m] = 10 log10 max(sum_f basis[b, f] |2 STFT(f, m) / sum(hann)|^2, 10^(floor / 10))
        value   = (x - floor / 2) / (-floor / 2)

    Args:
        waveform: (n,) mono float32 at `config.sample_rate`, n >= 1; time 0 is sample 0.
        config: mel settings.

    Returns:
        (n_mels, M) float32 in about [-1, 1], M = 1 + n // hop. Digital silence is -1.

    Raises:
        ValueError: not one non-empty axis, or values that are not finite.
    """
    if waveform.ndim != 1 or waveform.size == 0:
        raise ValueError(f"waveform must be (n,) with n >= 1, got {waveform.shape}")
    if not np.isfinite(waveform).all():
        raise ValueError("waveform holds values that are not finite")
    n_columns = 1 + len(waveform) // config.hop
    gain = loudness_gain(waveform, config)
    hann = torch.hann_window(config.n_fft)
    basis = torch.from_numpy(mel_basis(config))
    scale = 2.0 / float(hann.sum())  # a sine of amplitude 1 has magnitude 1 in its own bin
    floor = 10 ** (config.floor_db / 10)
    mel = np.empty((config.n_mels, n_columns), np.float32)
    for first in range(0, n_columns, CHUNK):
        last = min(first + CHUNK, n_columns)
        start = first * config.hop - config.n_fft // 2
        piece = torch.from_numpy(gain * _cut(waveform, start, (last - 1 - first) * config.hop + config.n_fft))
        spectrum = torch.stft(
            piece, config.n_fft, config.hop, window=hann, center=False, return_complex=True
        )  # (F, last - first)
        power = basis @ (spectrum.abs() * scale).square()
        mel[:, first:last] = (10 * power.clamp(min=floor).log10()).numpy()
    middle = np.float32(config.floor_db / 2)
    mel -= middle
    mel /= -middle
    return mel


def _cut(waveform: NDArray[np.float32], start: int, length: int) -> NDArray[np.float32]:
    """`length` samples from `start` on, which may be negative; 0 outside of the recording."""
    before, after = max(0, -start), max(0, start + length - len(waveform))
    return np.pad(waveform[max(0, start) : start + length], (before, after))


def mean_power(blocks: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N,) mean square of blocks (N, n) of samples; no copy of them is made."""
    return np.einsum("ij,ij->i", blocks, blocks, dtype=np.float64) / blocks.shape[1]


def mel_windows(
    mel: NDArray[np.float32], times_s: NDArray[np.float64], config: MelConfig, width: int | None = None
) -> NDArray[np.float32]:
    """The mel window around each time [3.5]: `width` columns whose middle lies nearest to it.

        first column = round(t * sample_rate / hop - (width - 1) / 2)

    The index is computed afresh from each time in float64, so it is never more than half a column (6.25 ms) off,
    however long the recording: there is no drift.

    Args:
        mel: (n_mels, M) from `log_mel`.
        times_s: (N,) seconds since sample 0; for a video frame, the middle of its display time.
        config: sample rate, hop and the default width.
        width: columns W; `config.window` if None.

    Returns:
        (N, n_mels, W) float32; columns before the start or after the end are -1, the floor.

    Raises:
        ValueError: times that are not (N,), or a width below 1.
    """
    width = config.window if width is None else width
    times = np.asarray(times_s, np.float64)
    if times.ndim != 1 or width < 1:
        raise ValueError(f"times must be (N,) and width >= 1, got {times.shape} and {width}")
    first = np.floor(times * (config.sample_rate / config.hop) - (width - 1) / 2 + 0.5).astype(np.int64)
    columns = first[:, None] + np.arange(width)  # (N, W)
    inside = (columns >= 0) & (columns < mel.shape[1])
    picked = mel[:, np.where(inside, columns, 0)]  # (n_mels, N, W)
    picked[:, ~inside] = FLOOR
    return np.ascontiguousarray(picked.transpose(1, 0, 2), dtype=np.float32)


def wav2lip_mel(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mel that Wav2Lip was trained with, over 4, so that digital silence is FLOOR as in ours.

        x = filters |STFT(s_n - 0.97 s_{n-1})|,    value = clip((20 log10 max(x, 1e-5) + 80) / 50 - 1, -1, 1)

    Frame, hop, bands and frequencies are those of MelConfig; filters have equal areas, loudness is left as it is.

    Args:
        waveform: (n,) mono float32 at 16 kHz, n >= 1.

    Returns:
        (80, M) in [-1, 1], M = 1 + n // hop.
    """
    import librosa

    config = MelConfig()
    sharp = np.append(waveform[:1], waveform[1:] - np.float32(0.97) * waveform[:-1])
    basis = librosa.filters.mel(
        sr=config.sample_rate, n_fft=config.n_fft, n_mels=config.n_mels, fmin=config.f_min, fmax=config.f_max
    )
    spectrum = np.abs(librosa.stft(sharp, n_fft=config.n_fft, hop_length=config.hop))
    levels = 20 * np.log10(np.maximum(basis @ spectrum, 1e-5)) - 20
    return np.clip((levels + 100) / 50 - 1, -1, 1).astype(np.float32)
