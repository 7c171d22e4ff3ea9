from __future__ import annotations

import numpy as np
import pytest

from lipdub.config import SyncConfig
from lipdub.dub.demo import babble
from lipdub.dub.driving_audio import LEVEL_STEP_S, loudness_levels, silence_gate
from lipdub.dub.voice_isolation import CHUNK_S, isolate_voice
from lipdub.errors import SetupError
from lipdub.media.audio import load_audio

RATE = 16_000
needs_extra = pytest.mark.skipif("not __import__('importlib.util').util.find_spec('pyrnnoise')", reason="extra voice")


def noisy(voice: np.ndarray, db: float) -> np.ndarray:
    """A voice with white noise, `db` below it."""
    noise = np.random.default_rng(5).standard_normal(len(voice))
    return (voice + noise * np.sqrt(np.mean(voice**2) / 10 ** (db / 10))).astype(np.float32)


def lag(a: np.ndarray, b: np.ndarray) -> float:
    """Seconds by which `b` is later than `a`."""
    size = 2 * len(a)
    products = np.fft.irfft(np.fft.rfft(b, size) * np.conj(np.fft.rfft(a, size)))
    best = int(products.argmax())
    return (best if best < len(a) else best - size) / RATE


@needs_extra
def test_noise_goes_and_the_voice_stays_in_its_place() -> None:
    voice = babble(12.0)  # more than one chunk
    mixed = noisy(voice, 10)
    clean = isolate_voice(mixed, RATE)
    assert clean.shape == voice.shape and clean.dtype == np.float32
    assert abs(lag(voice, clean)) <= 0.002
    assert abs(lag(voice[-2 * RATE :], clean[-2 * RATE :])) <= 0.002  # nor does it drift from chunk to chunk
    assert np.abs(clean[: RATE // 4]).max() < 0.05 * np.abs(clean).max()  # the pause before the first syllable
    assert np.corrcoef(voice, clean)[0, 1] > np.corrcoef(voice, mixed)[0, 1]


@needs_extra
def test_the_pauses_of_noisy_speech_are_known_again() -> None:
    voice = babble(6.0)
    paused = np.append(voice, np.zeros(2 * RATE, np.float32))
    mixed = noisy(paused, 10)
    behind = round(6.5 / LEVEL_STEP_S)  # speech and its fade are over

    def gate(wave: np.ndarray) -> np.ndarray:
        return silence_gate(loudness_levels(wave, RATE), SyncConfig())

    assert (gate(mixed)[behind:] == 1).all()
    assert (gate(isolate_voice(mixed, RATE))[behind:] == 0).all()
    spoken = gate(paused) == 1
    assert (gate(isolate_voice(mixed, RATE))[spoken] == 1).mean() > 0.9


@needs_extra
@pytest.mark.parametrize("count", [0, 1, 159, 160, 16_001, round(CHUNK_S * RATE), round(CHUNK_S * RATE) - 320])
def test_any_length_stays_what_it_is(count: int) -> None:
    assert isolate_voice(np.full(count, 0.1, np.float32), RATE).shape == (count,)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lipdub.dub.voice_isolation.find_spec", lambda name: None)
    with pytest.raises(SetupError, match="needs pyrnnoise") as caught:
        isolate_voice(np.zeros(1600, np.float32), RATE)
    assert 'pip install "lipdub[voice]"' in str(caught.value.remedy)


@needs_extra
def test_a_dub_is_driven_by_the_voice_alone_and_has_the_mix(dub, face_clip, speech, pictures) -> None:
    video, mix = face_clip(lambda number: [(50, 30, 56)]), speech()  # a hum, which is no voice
    dub(video, mix, overwrite=True)
    driven = [planes for _, planes in pictures(dub.output)]
    dub(video, mix, isolate_voice=True, overwrite=True)
    isolated = [planes for _, planes in pictures(dub.output)]
    assert any(not np.array_equal(a[0], b[0]) for a, b in zip(driven, isolated, strict=True))  # luma
    assert np.abs(load_audio(dub.output)).max() > 0.2
