from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lipdub.config import Config, MelConfig, SyncConfig
from lipdub.dub.driving_audio import (
    LEVEL_STEP_S,
    DrivingAudio,
    analyze_audio,
    loudness_levels,
    predict_mouth_shapes,
    silence_gate,
    windows_at,
)
from lipdub.dub.speaking_style import UNKNOWN_STYLE
from lipdub.faces.mouth_shape import OPENINGS, SHAPE_SCALE
from lipdub.weights import load_generator

RATE, MEL, SYNC = 16_000, MelConfig(), SyncConfig()


def sound(*parts: tuple[float, float]) -> np.ndarray:
    """Tones of 200 Hz, (seconds, amplitude) each, one after another."""
    levels = np.concatenate([np.full(round(seconds * RATE), level) for seconds, level in parts])
    return (levels * np.sin(2 * np.pi * 200 * np.arange(len(levels)) / RATE)).astype(np.float32)


def gate(*parts: tuple[float, float]) -> np.ndarray:
    return silence_gate(loudness_levels(sound(*parts), RATE), SYNC)


def test_digital_silence_is_shut() -> None:
    values = gate((1.0, 0.0))
    assert values.shape == (100,) and not values.any()


def test_a_tone_is_open() -> None:
    assert (gate((1.0, 0.3)) == 1).all()
    assert (gate((1.0, 0.01)) == 1).all()  # a faint recording is not silence


def test_the_gate_is_open_when_the_sound_begins_and_shut_a_fade_before_and_after() -> None:
    values = gate((0.5, 0.0), (0.5, 0.3), (0.5, 0.0))
    fade = round(SYNC.silence_fade_s / LEVEL_STEP_S)
    assert (values[50:100] == 1).all()
    assert not values[: 50 - fade - 2].any() and not values[100 + fade + 2 :].any()
    rising, falling = values[50 - fade - 2 : 51], values[99 : 100 + fade + 2]
    assert (np.diff(rising) >= 0).all() and (np.diff(falling) <= 0).all()
    assert 3 < ((rising > 0) & (rising < 1)).sum() <= fade + 2


def test_short_dips_stay_open_and_long_ones_shut() -> None:
    hold = SYNC.silence_hold_s
    assert (gate((0.5, 0.3), (hold - 0.01, 0.0), (0.5, 0.3)) == 1).all()
    values = gate((0.5, 0.3), (0.4, 0.0), (0.5, 0.3))
    assert not values[62:78].any() and (values[:50] == 1).all() and (values[90:] == 1).all()


def test_a_click_moves_no_lips_and_a_short_word_does() -> None:
    click = gate((0.5, 0.3), (0.4, 0.0), (0.01, 0.5), (0.4, 0.0), (0.5, 0.3))
    assert not click[65:120].any() and (click[:50] == 1).all() and (click[131:] == 1).all()
    assert (gate((0.5, 0.3), (0.4, 0.0), (0.1, 0.3), (0.4, 0.0), (0.5, 0.3))[90:100] == 1).all()
    before_a_word = gate((0.5, 0.0), (0.01, 0.5), (0.1, 0.0), (0.5, 0.3))
    assert (before_a_word[50:] == 1).all()  # the release of a stop


def test_silence_is_measured_against_the_loud_parts() -> None:
    quiet = 0.5 * 10 ** ((SYNC.silence_db - 6) / 20)
    values = gate((0.5, 0.5), (0.5, quiet))
    assert (values[:50] == 1).all() and not values[70:].any()
    values = gate((0.5, 0.5), (0.5, quiet * 10))
    assert (values == 1).all()


def test_a_pause_is_measured_against_what_is_loud_nearby() -> None:
    faint = 0.5 * 10 ** ((SYNC.pause_db - 3) / 20)
    values = gate((1.5, 0.5), (0.5, faint), (1.5, 0.5))
    assert not values[165:185].any() and (values[:150] == 1).all() and (values[200:] == 1).all()
    whisper = gate((1.5, 0.5), (4.0, faint))
    assert (whisper[270:] == 1).all()  # a second after the last loud sound it is speech


def test_one_word_in_a_long_silence_is_heard() -> None:
    hum = 0.3 * 10 ** ((SYNC.silence_db - 6) / 20)
    values = gate((30.0, 0.0), (0.5, 0.3), (0.5, hum), (30.0, 0.0))
    assert (values[3000:3050] == 1).all() and not values[:2980].any() and not values[3065:].any()


@pytest.mark.parametrize("n_samples", [1, 100, 1600])
def test_the_shortest_sounds_have_a_gate_of_their_length(n_samples: int) -> None:
    values = silence_gate(loudness_levels(np.full(n_samples, 0.3, np.float32), RATE), SYNC)
    assert values.shape == (-(-n_samples // 160),) and (values == 1).all()


def test_the_gate_is_shut_outside_the_sound() -> None:
    heard = DrivingAudio(np.zeros((80, 10), np.float32), np.array([0.5, 1.0, 1.0], np.float32), 0.03)
    assert heard.gate_at(np.array([-1.0, 0.0, 0.005, 0.02, 5.0])).tolist() == [0.0, 0.5, 0.75, 1.0, 0.0]


def test_a_sound_that_ends_in_a_word_lets_the_mouth_go_to_rest() -> None:
    heard = analyze_audio(sound((0.5, 0.3)), MEL, SYNC)
    values = heard.gate_at(np.arange(0.48, 0.6, 0.02))
    assert (
        values[0] == 1 and values[-1] == 0 and ((values > 0) & (values < 1)).sum() >= 3 and (np.diff(values) <= 0).all()
    )


def test_gated_windows_are_silence() -> None:
    hum = 0.3 * 10 ** ((SYNC.silence_db - 6) / 20)
    heard = analyze_audio(sound((0.5, 0.3), (0.5, hum)), MEL, SYNC)
    assert heard.mel[:, 72:].max() > -0.9  # it is there, but it is not speech
    loud, quiet = windows_at(heard, np.array([0.25, 0.9]), MEL, 16)
    assert loud.shape == (80, 16) and loud.max() > 0 and loud.dtype == np.float32
    assert (quiet == -1).all()


@pytest.fixture
def heard_by(generator_file):
    """Mouth shapes of a waveform at 25 times a second."""
    network, config = load_generator(generator_file, Config())

    def shapes(
        waveform: np.ndarray,
        strength: float = 1.0,
        smooth_s: float = SYNC.smooth_s,
        closed: np.ndarray | None = None,
    ) -> np.ndarray:
        times = (np.arange(round(len(waveform) / RATE * 25)) + 0.5) / 25
        sync = replace(config.sync, smooth_s=smooth_s)
        found = predict_mouth_shapes(
            network, analyze_audio(waveform, config.mel, sync), times, config.mel, sync, torch.device("cpu")
        )
        assert found is not None
        return found.retargeted(UNKNOWN_STYLE, slice(None), strength, closed)

    return shapes


def test_the_mouth_rests_in_silence(heard_by) -> None:
    assert (heard_by(np.zeros(RATE, np.float32)) == 0).all()
    shapes = heard_by(sound((0.6, 0.3), (0.6, 0.0)))
    assert shapes.shape == (30, 8)
    assert np.abs(shapes[:15]).max(1).min() > 1e-3 and (shapes[19:] == 0).all()


def test_lips_that_rest_apart_close_in_silence(heard_by) -> None:
    closed = np.array([-1.1, -1.2, -1.0], np.float32)  # 0.07 eye distances below the mouth at rest
    shapes = heard_by(sound((0.6, 0.3), (0.6, 0.0)), closed=closed)
    (silent,) = np.unique(shapes[19:], axis=0)
    np.testing.assert_allclose(silent[OPENINGS], closed)
    fall = -(silent[OPENINGS] * SHAPE_SCALE[OPENINGS]).mean()
    np.testing.assert_allclose(silent[3] * SHAPE_SCALE[3], -1.15 * fall, rtol=1e-5)  # of the lips' outer height
    assert (silent[4:] == 0).all()


def test_strength_scales_how_far_the_mouth_moves(heard_by) -> None:
    tone = sound((0.3, 0.3), (0.3, 0.05), (0.3, 0.6))
    calm, usual, strong = (heard_by(tone, strength) for strength in (0.0, 1.0, 2.0))
    assert np.ptp(usual, 0).max() > 0.01 and np.ptp(calm, 0).max() < 1e-6
    free = slice(OPENINGS.stop, None)  # widths and heights may fall below rest, openings may not
    np.testing.assert_allclose((strong - calm)[:, free], 2 * (usual - calm)[:, free], atol=1e-5)
    assert min(shapes[:, OPENINGS].min() for shapes in (calm, usual, strong)) >= 0


def test_neighbouring_frames_are_smoothed(heard_by) -> None:
    tone = sound((0.3, 0.3), (0.3, 0.05), (0.3, 0.6))
    rough, smooth = (heard_by(tone, 0.5, smooth_s)[:, OPENINGS.stop :] for smooth_s in (0.0, SYNC.smooth_s))
    assert np.abs(np.diff(smooth, 2, axis=0)).mean() < 0.7 * np.abs(np.diff(rough, 2, axis=0)).mean()


def test_long_sounds_are_read_in_pieces(heard_by, monkeypatch: pytest.MonkeyPatch) -> None:
    tone = sound((0.3, 0.3), (0.3, 0.1))
    whole = heard_by(tone)
    monkeypatch.setattr("lipdub.dub.driving_audio.CHUNK", 4)
    np.testing.assert_allclose(heard_by(tone), whole, atol=1e-6)


def test_a_generator_without_a_shape_code_has_no_mouth_shapes(tiny_config: Config) -> None:
    from lipdub.models.generator import Generator

    network = Generator(tiny_config.generator).eval()
    heard = analyze_audio(sound((0.2, 0.3)), MEL, SYNC)
    assert predict_mouth_shapes(network, heard, np.array([0.1]), MEL, SYNC, torch.device("cpu")) is None


def test_shapes_of_a_track_are_looked_up_by_time() -> None:
    generator, config = load_generator("generator", Config())
    ramp = np.linspace(0, 8, 81, dtype=np.float32)[:, None].repeat(8, 1)  # a second: 80 steps
    speech = DrivingAudio(np.zeros((80, 81), np.float32), np.ones(101, np.float32), 1.0, ramp)
    times = np.array([0.1, 0.25, 0.5, 0.75])
    heard = predict_mouth_shapes(
        generator, speech, times, config.mel, replace(config.sync, smooth_s=0.0), torch.device("cpu")
    )
    assert heard is not None
    np.testing.assert_allclose(heard.shapes[:, 3], 8 * times, atol=1e-5)


def test_silence_and_steady_sounds_are_no_speech() -> None:
    mel, sync = MelConfig(), SyncConfig()
    rate, rng = mel.sample_rate, np.random.default_rng(0)
    time_s = np.arange(3 * rate) / rate
    noise = rng.normal(0, 0.1, len(time_s)).astype(np.float32)
    syllables = noise * (0.5 + 0.5 * np.sin(2 * np.pi * 4 * time_s)).astype(np.float32) ** 2
    assert analyze_audio(np.zeros(3 * rate, np.float32), mel, sync).silent
    assert (
        analyze_audio(noise, mel, sync).steady
        and analyze_audio(0.1 * np.sin(900 * time_s).astype(np.float32), mel, sync).steady
    )
    spoken = analyze_audio(syllables, mel, sync)
    assert not spoken.steady and not spoken.silent
