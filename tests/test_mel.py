"""Log-mel against an independent computation with NumPy's FFT; windows against their definition."""

import sys
from dataclasses import replace

import librosa
import numpy as np
import pytest

from lipdub.config import MelConfig
from lipdub.mel import CHUNK, log_mel, loudness_gain, mel_basis, mel_windows

CONFIG = MelConfig()


def tone(hertz: float, seconds: float, amplitude: float = 0.5) -> np.ndarray:
    t = np.arange(round(seconds * CONFIG.sample_rate)) / CONFIG.sample_rate
    return (amplitude * np.sin(2 * np.pi * hertz * t)).astype(np.float32)


def normalised(waveform: np.ndarray) -> np.ndarray:
    return waveform * loudness_gain(waveform, CONFIG)


def rms_db(waveform: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(waveform, dtype=np.float64)))


def column_oracle(waveform: np.ndarray, m: int) -> np.ndarray:
    """Column m from its definition: one windowed FFT centred at sample m * hop."""
    n_fft = CONFIG.n_fft
    padded = np.pad(normalised(waveform).astype(np.float64), n_fft)
    start = m * CONFIG.hop - n_fft // 2 + n_fft
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
    power = np.abs(np.fft.rfft(padded[start : start + n_fft] * hann) * 2 / hann.sum()) ** 2
    db = 10 * np.log10(np.maximum(mel_basis(CONFIG) @ power, 1e-10))
    return (db + 50) / 50


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, n_mels=40, n_fft=1024, f_min=0.0, f_max=900.0)])
def test_the_filter_bank_kept_or_not_is_librosas(config):
    theirs = librosa.filters.mel(
        sr=config.sample_rate,
        n_fft=config.n_fft,
        n_mels=config.n_mels,
        fmin=config.f_min,
        fmax=config.f_max,
        norm=None,
        dtype=np.float32,
    )
    np.testing.assert_array_equal(mel_basis(config), theirs)


def test_the_default_filter_bank_needs_no_librosa(monkeypatch):
    monkeypatch.setitem(sys.modules, "librosa", None)
    mel_basis.cache_clear()
    assert mel_basis(CONFIG).shape == (80, 401)


def test_columns_match_a_direct_fft():
    waveform = np.random.default_rng(0).normal(0, 0.1, 5000).astype(np.float32)
    mel = log_mel(waveform, CONFIG)
    assert mel.shape == (80, 1 + 5000 // 200)
    assert mel.dtype == np.float32
    for m in (0, 1, 13, 25):
        np.testing.assert_allclose(mel[:, m], column_oracle(waveform, m), atol=1e-4)


def test_a_long_recording_is_the_same_as_its_parts():
    n = (CHUNK + 40) * CONFIG.hop  # more than one FFT call
    waveform = np.random.default_rng(1).normal(0, 0.1, n).astype(np.float32)
    mel = log_mel(waveform, CONFIG)
    for m in (CHUNK - 1, CHUNK, CHUNK + 39):
        np.testing.assert_allclose(mel[:, m], column_oracle(waveform, m), atol=1e-4)


def test_a_click_peaks_in_the_column_of_its_time():
    waveform = np.zeros(16_000, np.float32)
    waveform[7400] = 0.9  # 37 * hop
    assert int(log_mel(waveform, CONFIG).mean(0).argmax()) == 37


def test_a_tone_lights_the_band_that_holds_it():
    mel = log_mel(tone(1000, 1.0), CONFIG)
    band = int(mel[:, 40].argmax())
    edges = np.flatnonzero(mel_basis(CONFIG)[band] > 0) * CONFIG.sample_rate / CONFIG.n_fft
    assert edges[0] <= 1000 <= edges[-1]


@pytest.mark.parametrize("n", [1, 799, 800, 16_000])
def test_digital_silence_is_the_floor(n):
    mel = log_mel(np.zeros(n, np.float32), CONFIG)
    assert np.all(mel == -1.0)


def test_loudness_does_not_matter():
    waveform = np.random.default_rng(2).normal(0, 0.2, 16_000).astype(np.float32)
    np.testing.assert_allclose(log_mel(waveform, CONFIG), log_mel(waveform * 0.05, CONFIG), atol=1e-3)


def test_pauses_do_not_count_as_loudness():
    speech = tone(300, 1.0)
    paused = np.concatenate([np.zeros(80_000, np.float32), speech, np.zeros(80_000, np.float32)])
    np.testing.assert_allclose(normalised(paused)[80_000:96_000], normalised(speech))
    assert rms_db(normalised(speech)) == pytest.approx(CONFIG.level_db, abs=0.01)


def test_hiss_is_not_raised_to_speech():
    hiss = np.random.default_rng(3).normal(0, 1e-4, 16_000).astype(np.float32)  # -80 dB
    assert rms_db(normalised(hiss)) == pytest.approx(-80 + CONFIG.max_gain_db, abs=0.2)


@pytest.mark.parametrize("bad", [np.zeros(0, np.float32), np.zeros((2, 5), np.float32), np.full(5, np.nan, np.float32)])
def test_unusable_waveforms_are_refused(bad):
    with pytest.raises(ValueError, match="waveform"):
        log_mel(bad, CONFIG)


def numbered(n_columns: int) -> np.ndarray:
    """A mel whose every row counts the columns."""
    return np.tile(np.arange(n_columns, dtype=np.float32), (80, 1))


def test_window_is_centred_on_its_time():
    windows = mel_windows(numbered(200), np.array([1.0]), CONFIG)  # 1 s = column 80
    assert windows.shape == (1, 80, 16)
    np.testing.assert_array_equal(windows[0, 0], np.arange(73, 89))  # mean 80.5: half a column is inevitable when even
    odd = mel_windows(numbered(200), np.array([1.0]), CONFIG, width=5)
    np.testing.assert_array_equal(odd[0, 7], [78, 79, 80, 81, 82])


@pytest.mark.parametrize("rate", [25.0, 24000 / 1001, 30.0])
def test_windows_never_drift(rate):
    times = (np.arange(200_000, 200_010) + 0.5) / rate  # hours into a film
    n_columns = int(times[-1] * 80) + 20
    middles = mel_windows(numbered(n_columns)[:1].astype(np.float64), times, CONFIG).mean((1, 2))
    assert np.abs(middles - times * 80).max() <= 0.5 + 1e-6


def test_outside_of_the_recording_is_the_floor():
    windows = mel_windows(numbered(10), np.array([0.0, 10 / 80, 99.0]), CONFIG, width=4)
    np.testing.assert_array_equal(windows[0, 3], [-1, 0, 1, 2])
    np.testing.assert_array_equal(windows[1, 3], [9, -1, -1, -1])
    assert np.all(windows[2] == -1)


def test_no_times_give_no_windows():
    assert mel_windows(numbered(10), np.zeros(0), CONFIG).shape == (0, 80, 16)


@pytest.mark.parametrize(("times", "width"), [(np.zeros((1, 2)), 16), (np.zeros(1), 0)])
def test_unusable_windows_are_refused(times, width):
    with pytest.raises(ValueError, match="times must be"):
        mel_windows(numbered(10), times, CONFIG, width=width)
