from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from lipdub.config import Config, SyncConfig
from lipdub.dub.demo import babble
from lipdub.dub.driving_audio import DrivingAudio, analyze_audio
from lipdub.dub.job import open_job
from lipdub.dub.options import SyncOptions
from lipdub.dub.speech_detection import MOST_REPEATED, RELIEF, phone_variety, repetition, spectral_change
from lipdub.media.audio import load_audio, write_wav
from lipdub.models.audio_encoder import TrackEncoder
from lipdub.weights import load_audio_encoder


def notes(
    pitches: list[float], step_s: float, harmonics: int = 6, decay: float = 1.0, rate: int = 16_000
) -> np.ndarray:
    """Tones one after another, all but the last cut off by the next."""
    time_s = np.arange(round(step_s * rate)) / rate
    tones = [
        sum(np.sin(2 * np.pi * pitch * k * time_s) / k for k in range(1, 7))
        * np.exp(-decay * time_s)
        * np.minimum(1, time_s / 0.01)
        for pitch in pitches
    ]
    return 0.15 * np.concatenate(tones)


def sounds() -> dict[str, np.ndarray]:
    """Sounds of 6 s that nobody speaks."""
    rng, rate = np.random.default_rng(0), 16_000
    time_s = np.arange(6 * rate) / rate
    roots = rng.choice([131.0, 147.0, 165.0, 196.0, 220.0], 6).tolist()
    hits = np.zeros(len(time_s))
    for number, at in enumerate(range(0, len(hits) - 4000, 3200)):  # a kick, a snare and hats, five a second
        fade = np.arange(4000) / rate
        kick, snare = np.sin(2 * np.pi * 55 * fade) * np.exp(-12 * fade), rng.normal(size=4000) * np.exp(-20 * fade)
        hits[at : at + 4000] += (0.8 * kick, 0.3 * snare, 0.5 * snare, 0.3 * snare)[number % 4]
    hum = sum(np.sin(2 * np.pi * 50 * k * time_s) / k for k in range(1, 9))
    gusts = np.cumsum(rng.normal(size=len(time_s)))
    gusts = gusts - np.convolve(gusts, np.ones(800) / 800, "same")
    chords = sum(notes([root * ratio for root in roots], 1.0) for ratio in (1, 1.26, 1.5))
    noise = 0.1 * rng.normal(size=len(time_s))
    return {
        "chords and drums": chords + 0.5 * hits,
        "chords and loud drums": chords + 2 * hits,
        **{f"noise at {hz} Hz": noise * (0.5 + 0.5 * np.sin(2 * np.pi * hz * time_s)) for hz in (2, 3, 4, 6, 8)},
        "beeps": 0.3 * np.sin(2 * np.pi * 1000 * time_s) * (time_s % 0.3 < 0.12),
        "arpeggio": notes([root * ratio for root in roots * 2 for ratio in (1, 1.26, 1.5, 2)], 0.125, decay=4.0),
        "chords": chords,
        "melody": notes(rng.choice([220.0, 262.0, 294.0, 330.0, 392.0], 24).tolist(), 0.25, decay=3.0),
        "drums": hits,
        "white noise": noise,
        "wind": 0.05 * gusts * (1 + np.sin(2 * np.pi * 0.4 * time_s)),
        "a tone": 0.3 * np.sin(2 * np.pi * 440 * time_s),
        "mains hum": 0.1 * hum,
    }


@pytest.fixture(scope="module")
def bundled() -> tuple[TrackEncoder, Config]:
    encoder, config = load_audio_encoder(SyncConfig().audio_encoder, Config())
    return encoder, config


def judged(samples: np.ndarray, bundled: tuple[TrackEncoder, Config]) -> DrivingAudio:
    encoder, config = bundled
    return analyze_audio(samples.astype(np.float32), config.mel, config.sync, encoder=encoder, judge_phones=True)


@pytest.mark.parametrize("name", sounds())
def test_music_and_noise_are_not_taken_for_speech(name: str, bundled) -> None:
    heard = judged(sounds()[name], bundled)
    assert heard.spoken is False or heard.steady


def test_variety_and_change_of_phones() -> None:
    n, kinds = 100, 4
    steps = np.arange(n)
    clear = np.zeros((1, n, kinds + 1))
    clear[0, steps, 1 + steps % kinds] = 1.0  # a phone after another
    vague = np.full((1, n, kinds + 1), 1 / kinds)  # all at once
    vague[..., 0] = 0.0
    single = np.zeros((1, n, kinds + 1))
    single[..., 2] = 1.0
    np.testing.assert_allclose(phone_variety(clear), (np.log(kinds), np.log(kinds)), atol=1e-9)
    np.testing.assert_allclose(phone_variety(vague), (np.log(kinds), 0), atol=1e-9)
    np.testing.assert_allclose(phone_variety(single), (0, 0), atol=1e-9)
    np.testing.assert_allclose(
        phone_variety(np.concatenate([clear, single])), (np.log(kinds) / 2, np.log(kinds) / 2), atol=1e-9
    )


def test_silence_counts_for_nothing_in_the_variety_of_phones() -> None:
    phones = np.zeros((1, 90, 3))
    phones[0, :45, 1] = phones[0, 45:, 2] = 1.0
    silent = np.zeros((1, 60, 3))
    silent[..., 0] = 1.0
    padded = np.concatenate([phones, silent], 1)
    np.testing.assert_allclose(phone_variety(padded), (np.log(2), np.log(2)), atol=1e-6)


def test_what_members_call_their_phones_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    phones = rng.dirichlet(np.full(9, 0.3), (2, 200))
    renamed = phones.copy()
    renamed[1, :, 1:] = phones[1][:, 1 + rng.permutation(8)]
    np.testing.assert_allclose(phone_variety(renamed), phone_variety(phones), rtol=1e-12)


def test_a_dub_without_speech_is_reported(face_clip, tmp_path: Path) -> None:
    video = face_clip(lambda number: [])

    def warnings(name: str, samples: np.ndarray) -> dict[str, str]:
        write_wav(tmp_path / name, samples.astype(np.float32), 16_000)
        options = SyncOptions(device="cpu")
        job = open_job(video, tmp_path / name, tmp_path / "dub.mp4", options, Config(), tmp_path.joinpath)
        return dict(job.warnings(job.writer(BytesIO())))

    music = warnings("music.wav", sounds()["drums"])
    assert music["speech"].startswith("the audio that drives the lips does not sound like speech")
    assert "speech" not in warnings("voice.wav", babble(6.0))


def test_syllables_are_taken_for_speech_and_too_little_sound_is_not_judged(bundled) -> None:
    voice = babble(8.0)
    assert judged(voice, bundled).spoken is True
    music = sounds()["drums"]
    assert judged(np.concatenate([0.5 * music, voice, 0.5 * music]), bundled).spoken is True  # somewhere is enough
    assert judged(music[: 2 * 16_000], bundled).spoken is None
    assert judged(np.zeros(64_000), bundled).spoken is None


@pytest.mark.parametrize("name", ["chords and drums", "noise at 4 Hz", "beeps"])
def test_weights_that_are_not_calibrated_need_no_phones(name: str, bundled) -> None:
    encoder, config = bundled
    for samples, spoken in ((sounds()[name], False), (babble(8.0), True)):
        heard = analyze_audio(samples.astype(np.float32), config.mel, config.sync, encoder=encoder)
        assert heard.spoken is spoken
    finer = replace(config.mel, hop=config.mel.hop // 2)
    assert analyze_audio(samples.astype(np.float32), finer, config.sync).spoken is None  # other steps, other limits


def test_change_and_repetition_have_the_values_of_their_definitions() -> None:
    rate = 80.0
    still = np.repeat(np.linspace(0, -20, 80, dtype=np.float32)[:, None], 320, 1)
    louder = still + 10 * np.sin(np.arange(320) / 8).astype(np.float32)  # the same spectrum, at another loudness
    assert spectral_change(still, rate) == pytest.approx(spectral_change(louder, rate), abs=0.05)
    comb = still + 6 * (np.arange(80) % 2 * 2 - 1).astype(np.float32)[:, None]  # partials of 6 dB in every other band
    above_mean = 6 - 6 / 9  # of nine bands around
    assert spectral_change(still, rate) - spectral_change(comb, rate) == pytest.approx(RELIEF * above_mean, abs=0.05)
    step = np.arange(320) // 8 % 2  # two vowels, a tenth of a second each: 12 dB between low bands and high
    vowels = np.where((np.arange(80) < 40)[:, None] == (step == 0), 0.0, -12.0).astype(np.float32)
    assert spectral_change(vowels, rate) > 6
    beats, drift = np.full((80, 320), -40, np.float32), np.random.default_rng(0)
    beats[:, ::20] = 0.0
    assert repetition(beats, rate) == pytest.approx(1, abs=0.05)
    free = np.full((80, 320), -40, np.float32)
    free[:, drift.choice(320, 16, replace=False)] = 0.0
    assert repetition(free, rate) < MOST_REPEATED
    assert repetition(still, rate) == 0


@pytest.mark.parametrize("db", [30, 20, 10, 5])
@pytest.mark.parametrize("seed", range(2))
def test_steady_noise_does_not_hide_speech(bundled, db: int, seed: int) -> None:
    voice = babble(6.0, seed)
    assert judged(in_noise(voice, db), bundled).spoken is True


def in_noise(voice: np.ndarray, db: float) -> np.ndarray:
    """Speech (n,) over white noise, `db` below it."""
    noise = np.random.default_rng(0).normal(size=len(voice))
    return voice + np.sqrt(np.mean(voice**2)) * 10 ** (-db / 20) * noise


def test_speech_of_many_speakers_is_taken_for_speech(shared: Path, bundled) -> None:
    files = [*sorted((shared / "clips" / "speech").iterdir()), *sorted((shared / "clips/dev/natural").iterdir())]
    found = {path.name: judged(load_audio(path)[: 20 * 16_000], bundled) for path in files}
    found |= {f"{path.name}, 10 dB": judged(in_noise(load_audio(path)[: 12 * 16_000], 10), bundled) for path in files}
    assert len(found) > 40 and not [name for name, heard in found.items() if heard.spoken is False or heard.steady]
