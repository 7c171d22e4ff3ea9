"""How often speech is taken for another sound (good: never), and other sounds for speech (good: 1 in 10).

    python -m benchmarks speech CLIPS_DIR [--music DIR] [--first N] [-o speech.json]

Recordings of speech, clean and with steady noise below them, and sounds that nobody speaks: generated ones, and the
files of `--music`. Limits of `lipdub/dub/speech_detection.py` are proposed from the speech alone, each a MARGIN away
from the recording that is nearest to it. CLEAR and NOISY depend on the weights of the audio encoder: run this again
when it is trained anew, and write them down there.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import butter, lfilter, sosfilt

from lipdub.config import load_config
from lipdub.dub.driving_audio import analyze_audio, loudness_levels, silence_gate, sounding_steps
from lipdub.dub.speech_detection import CLEAR, WindowStatistics, phones_vary, windows
from lipdub.errors import InputError
from lipdub.media.audio import load_audio
from lipdub.mel import log_mel
from lipdub.weights import load_audio_encoder

RATE, SECONDS, SEEDS = 16_000, 12, 8
LEVELS_DB = (20, 10, 5)  # speech over noise
SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".wav", ".flac", ".m4a", ".mp3", ".ogg")
MARGIN = {"variety": 0.2, "sum": 0.15, "change": 0.1, "change_db": 0.25, "repeated": 0.05}
PITCHES = [131.0, 147.0, 165.0, 175.0, 196.0, 220.0, 247.0, 262.0, 294.0, 330.0, 349.0, 392.0, 440.0, 494.0, 523.0]

Wave = NDArray[np.float64]


def main() -> int:
    """Print how many are told, and the limits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="folder of recordings of speech, also in its folders")
    parser.add_argument("--music", type=Path, help="folder of music without voices")
    parser.add_argument("--first", type=int, default=500, help="so many recordings, drawn at random")
    parser.add_argument("-o", "--output", type=Path, help="statistics of each window, JSON")
    args = parser.parse_args()
    judge = _judge()
    kept: dict[str, list[WindowStatistics]] = {}
    told: dict[str, list[str]] = {}
    count: dict[str, int] = {}
    for kind, name, wave in _all(args.clips, args.music, args.first):
        found, warned = judge(wave)
        if found:
            kept[f"{kind}: {name}"] = found
            count[kind] = count.get(kind, 0) + 1
            told.setdefault(kind, []).extend([name] if warned else [])
    for kind, names in told.items():
        print(f"{kind:16} {len(names):4} of {count[kind]:4} told {sorted(names)[:4] if kind[:6] == 'speech' else ''}")
    print(proposed([found for name, found in kept.items() if name.startswith("speech")]))
    if args.output is not None:
        rows = {name: [asdict(window) for window in found] for name, found in kept.items()}
        args.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def proposed(speech: Sequence[Sequence[WindowStatistics]]) -> str:
    """Limits that every recording of speech meets, as Python."""

    def least(what: Callable[[WindowStatistics], float], margin: str) -> float:
        return min(max(map(what, found)) for found in speech) - MARGIN[margin]

    hidden = [  # those that are not clear, with noise taken off
        max((window.phones[1] for window in found), key=sum)
        for found in speech
        if not any(phones_vary(window.phones[0], CLEAR) for window in found)
    ] or [(np.nan, np.nan)]
    noisy = [
        min(what(pair) for pair in hidden) - MARGIN[margin]
        for what, margin in ((lambda pair: pair[0], "variety"), (sum, "sum"), (lambda pair: pair[1], "change"))
    ]
    repeated = max(min(window.repeated for window in found) for found in speech) + MARGIN["repeated"]
    return (
        f"NOISY = ({', '.join(f'{limit:.2f}' for limit in noisy)})  # for CLEAR = {CLEAR}, {len(hidden)} of"
        f" {len(speech)} behind noise\n"
        f"LEAST_CHANGE_DB = {least(lambda window: window.change_db, 'change_db'):.2f}\nMOST_REPEATED = {repeated:.2f}"
    )


def _judge() -> Callable[[Wave], tuple[list[WindowStatistics], bool]]:
    """Statistics of the windows of a sound, and whether a dub warns of it."""
    config = load_config()
    encoder, config = load_audio_encoder(config.sync.audio_encoder, config)

    def judge(sound: Wave) -> tuple[list[WindowStatistics], bool]:
        wave = np.asarray(sound, np.float32)
        spectrum, gate = log_mel(wave, config.mel), silence_gate(loudness_levels(wave, RATE), config.sync)
        sounding = sounding_steps(gate, spectrum.shape[1], config.mel)
        found = list(windows(spectrum, sounding, config.mel, encoder, torch.device("cpu")))
        audio = analyze_audio(wave, config.mel, config.sync, encoder=encoder, judge_phones=True)
        return found, audio.spoken is False or audio.steady

    return judge


def _all(clips: Path, music: Path | None, first: int) -> Iterator[tuple[str, str, Wave]]:
    """Kind, name and samples of every sound."""
    rng = np.random.default_rng(0)
    files = [path for path in sorted(clips.rglob("*")) if path.suffix in SUFFIXES]
    random.Random(0).shuffle(files)
    left = first
    for path in files:
        wave = _loaded(path)
        if left == 0:
            break
        if len(wave) < 4 * RATE or not wave.any():
            continue
        left -= 1
        yield "speech", path.name, wave
        for kind, noise in (("white", rng.normal(size=len(wave))), ("pink", _pink(len(wave), rng))):
            db = LEVELS_DB[left % len(LEVELS_DB)]
            loud = np.sqrt(np.mean(wave**2)) * 10 ** (-db / 20)
            yield "speech in noise", f"{path.name}, {kind} {db} dB", wave + loud * noise
        if left % 50 == 0:
            print(f"{left} left", file=sys.stderr)
    for seed in range(SEEDS):
        for name, wave in generated(seed).items():
            yield name, f"{seed}", wave
    for path in [] if music is None else sorted(music.rglob("*")):
        if path.suffix in SUFFIXES and len(wave := _loaded(path, None)) >= 4 * RATE:
            for part in range(0, len(wave) - 4 * RATE, max(SECONDS * RATE, len(wave) // 5)):
                yield "music", f"{path.name} from {part // RATE} s", wave[part : part + SECONDS * RATE]


def _loaded(path: Path, seconds: int | None = SECONDS) -> Wave:
    try:
        return load_audio(path, sample_rate=RATE)[: None if seconds is None else seconds * RATE].astype(np.float64)
    except InputError:  # no sound
        return np.zeros(0)


def generated(seed: int) -> dict[str, Wave]:
    """Sounds of SECONDS that nobody speaks, by name."""
    rng, count = np.random.default_rng(seed), SECONDS * RATE
    time_s = np.arange(count) / RATE
    hz = rng.uniform(2, 8)
    waves = 0.5 + 0.5 * np.sin(2 * np.pi * hz * time_s)
    wander = np.abs(sosfilt(butter(2, [2 / 8000, 6 / 8000], "band", output="sos"), rng.normal(size=count)))
    white, pink = rng.normal(size=count), _pink(count, rng)
    chords = np.sum([_notes(rng.choice(PITCHES[:9], 24) * ratio, 0.5, 1.0) for ratio in (1, 1.26, 1.5)], axis=0)
    drums, melody = _drums(count, rng), _notes(rng.choice(PITCHES, 48), 0.25, 3.0)
    broken = np.outer(rng.choice(PITCHES[:8], 17), [1, 1.26, 1.5, 2, 1.5, 1.26]).ravel()
    clapping, beeps = np.zeros(count), np.zeros(count)
    for at in rng.integers(0, count - 800, 1500):
        clapping[at : at + 800] += rng.uniform(0.3, 1) * rng.normal(size=800) * np.exp(-np.arange(800) / 100)
    for at in range(0, count - 8000, int(rng.uniform(0.15, 0.5) * RATE)):
        beeps[at : at + 1600] = np.sin(2 * np.pi * rng.choice([440, 1000, 1400]) * np.arange(1600) / RATE)
    sounds = {
        "white noise 2 Hz": white * (0.5 + 0.5 * np.sin(4 * np.pi * time_s)),
        "white noise 4 Hz": white * (0.5 + 0.5 * np.sin(8 * np.pi * time_s)),
        "white noise 8 Hz": white * (0.5 + 0.5 * np.sin(16 * np.pi * time_s)),
        "pink noise 2-8 Hz": pink * waves,
        "noise, irregular": pink * wander,
        "noises in turn": np.where(np.sin(np.pi * hz * time_s) > 0, 0.6 * white, pink) * waves,
        "surf": pink * (1 + 0.8 * np.sin(2 * np.pi * rng.uniform(0.1, 0.5) * time_s)),
        "chords": chords,
        "drums": drums,
        "chords and drums": chords + rng.uniform(0.5, 3) * drums,
        "melody": melody,
        "melody and drums": melody + 2 * drums,
        "band": chords + melody + 2 * drums,
        "arpeggio": _notes(broken, 0.12, 4.0)[:count],
        "vibrato": _notes(rng.choice(PITCHES, 24), 0.5, 0.3, vibrato=0.4),
        "applause": clapping,
        "beeps": beeps,
        "siren": np.sin(np.cumsum(2 * np.pi * (700 + 300 * np.sin(2 * np.pi * rng.uniform(0.3, 3) * time_s)) / RATE)),
    }
    return {name: 0.2 * sound / np.sqrt(np.mean(sound**2)) for name, sound in sounds.items()}


def _pink(count: int, rng: np.random.Generator) -> Wave:
    """Noise (n,) of power 1/f, of standard deviation 1."""
    spectrum = np.fft.rfft(rng.normal(size=count)) / np.sqrt(np.maximum(1, np.arange(count // 2 + 1)))
    noise = np.fft.irfft(spectrum, count)
    return np.asarray(noise / noise.std(), np.float64)


def _notes(pitches: Wave, step_s: float, decay: float, vibrato: float = 0.0) -> Wave:
    """Tones of six partials, one after another."""
    time_s = np.arange(round(step_s * RATE)) / RATE
    swell = np.minimum(1, time_s / 0.01) * np.exp(-decay * time_s)
    bend = vibrato * np.sin(2 * np.pi * 5.5 * time_s)
    tones = [sum(np.sin(k * (2 * np.pi * pitch * time_s + bend)) / k for k in range(1, 7)) * swell for pitch in pitches]
    return np.concatenate(tones)


def _drums(count: int, rng: np.random.Generator) -> Wave:
    """Kick, snare and hats in a pattern of eight, three to eight a second."""
    sound, pattern, time_s = np.zeros(count), rng.integers(0, 4, 8), np.arange(4000) / RATE
    for number, at in enumerate(range(0, count - 4000, int(rng.uniform(0.12, 0.35) * RATE))):
        kick = 0.9 * np.sin(2 * np.pi * rng.uniform(48, 70) * time_s * (1 + 2 * np.exp(-40 * time_s)))
        snare = 0.4 * lfilter([1], [1, -0.6], rng.normal(size=4000)) * np.exp(-18 * time_s)
        hat = 0.25 * np.diff(rng.normal(size=4001)) * np.exp(-40 * time_s)
        sound[at : at + 4000] += (kick * np.exp(-12 * time_s), hat, snare, hat)[pattern[number % 8]]
    return sound
