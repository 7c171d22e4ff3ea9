"""What music, noise and voices in the driving audio cost the mouth (good: r 0.8 with music at 10 dB, 1 is no loss).

    python -m benchmarks noise CLIPS_DIR [--kinds music noise voices] [--levels 20 10 5 0] [--first N] [-o noise.json]

Music (chords, bass and drums, generated), pink noise and voices (four other clips) are added to the sound of each clip
at 20, 10, 5 and 0 dB below the speech. The opening that the encoder then predicts is correlated with what it predicts
from the clean sound. `pauses` is the share of a pause of PAUSE_S, appended to each clip before noise is added, that is
taken for a pause, in which the mouth rests; `speech` that of the clip's speech that is not. Each is measured as it is,
and after `--isolate-voice` where its extra is installed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from lipdub.config import load_config
from lipdub.dub.driving_audio import DrivingAudio, analyze_audio
from lipdub.dub.speaking_style import smooth_shapes
from lipdub.dub.voice_isolation import isolate_voice
from lipdub.faces.mouth_shape import OPENINGS
from lipdub.media.audio import load_audio
from lipdub.weights import load_audio_encoder

CLIPS = """
natural/0a37e7f4a4.mp4 natural/18fdf0eda1.mp4 natural/1e4e04f79a.mp4 natural/2612510732.mp4 natural/435ae03e42.mp4
natural/4b4b952110.mp4 natural/543cb0dcca.mp4 natural/6301b1d757.mp4 natural/acb2f98d29.mp4 natural/ad512e3311.mp4
"""
KINDS = ["music", "noise", "voices"]
LEVELS_DB = [20, 10, 5, 0]  # speech over noise
SECONDS, PAUSE_S = 10.0, 2.0  # of each clip, and of the pause behind it
RATE = 16_000
STEP_S = 0.04  # of the openings compared

Wave = NDArray[np.float32]


def music(n: int, rng: np.random.Generator) -> Wave:
    """Four chords over a bass, with kick, snare and hi-hat, at 110 beats a minute."""
    t, beat = np.arange(n) / RATE, 60 / 110
    sound = np.zeros(n)
    chords = ((220.0, 261.6, 329.6), (174.6, 220.0, 261.6), (261.6, 329.6, 392.0), (196.0, 246.9, 293.7))
    bar = (t // (4 * beat)).astype(int) % 4
    for number, notes in enumerate(chords):
        inside = (bar == number) * (1 - 0.6 * (t % (4 * beat)) / (4 * beat))
        for note in (notes[0] / 2, *notes):
            sound += inside * sum(np.sin(2 * np.pi * note * k * t) / k**1.5 for k in (1, 2, 3, 4, 5))
    hit = np.exp(-t[: RATE // 5] * 25)
    for number in range(int(n / RATE / beat) * 2):
        first = round(number * beat / 2 * RATE)
        drum = rng.standard_normal(len(hit)) * hit * 0.6  # hi-hat
        if number % 4 == 0:
            drum = drum + 4 * np.sin(2 * np.pi * 60 * t[: len(hit)]) * hit
        if number % 4 == 2:
            drum = drum + lfilter([1], [1, -0.6], rng.standard_normal(len(hit))) * hit * 2
        part = sound[first : first + len(hit)]
        part += drum[: len(part)]
    return np.asarray(sound, np.float32)


def babble(waves: Sequence[Wave], own: int, n: int) -> Wave:
    """The sound of four other clips at once."""
    others = [waves[(own + k) % len(waves)] for k in (1, 3, 4, 6)]
    return np.sum([np.resize(wave / (np.sqrt(np.mean(wave**2)) + 1e-9), n) for wave in others], axis=0)


def pink(n: int, rng: np.random.Generator) -> Wave:
    """Noise whose power falls by 3 dB an octave above 20 Hz."""
    spectrum = np.fft.rfft(rng.standard_normal(n))
    hertz = np.fft.rfftfreq(n, 1 / RATE)
    return np.asarray(np.fft.irfft(spectrum / np.sqrt(np.maximum(hertz, 20)), n), np.float32)


def mixed(speech: Wave, noise: Wave, db: float) -> Wave:
    """Speech with noise `db` below it, by mean power."""
    gain = np.sqrt(np.mean(speech**2) / (np.mean(noise**2) * 10 ** (db / 10)))
    both = speech + gain * noise
    return np.asarray(both / max(1.0, float(np.abs(both).max())), np.float32)


def study(folder: Path, names: Sequence[str], kinds: Sequence[str], levels: Sequence[float]) -> dict[str, list[float]]:
    """Every measure of every clip, by "KIND DB HOW MEASURE"."""
    config = load_config()
    encoder, config = load_audio_encoder(config.sync.audio_encoder, config)
    waves = [load_audio(folder / name, sample_rate=RATE)[: round(SECONDS * RATE)] for name in CLIPS.split()]
    ways: dict[str, Callable[[Wave], Wave]] = {"as-is": lambda wave: wave}
    if find_spec("pyrnnoise") is not None:
        ways["isolated"] = lambda wave: isolate_voice(wave, RATE)
    rng, rows = np.random.default_rng(0), {}

    def analyzed(wave: Wave) -> DrivingAudio:
        return analyze_audio(wave, config.mel, config.sync, encoder=encoder)

    def opening(audio: DrivingAudio, times: NDArray[np.float64]) -> NDArray[np.float64]:
        assert audio.shapes is not None
        curve = audio.shapes[:, OPENINGS].mean(1)
        at = np.interp(times * config.mel.sample_rate / config.mel.hop, np.arange(len(curve)), curve)
        return smooth_shapes(at.astype(np.float32)[:, None], 1 / STEP_S, config.sync.smooth_s)[:, 0]

    def measure(key: str, audio: DrivingAudio, clean: DrivingAudio, length_s: float) -> None:
        times, pause = np.arange(0, length_s, STEP_S), length_s + np.arange(0.3, PAUSE_S, STEP_S)  # its fade is over
        spoken = times[clean.gate_at(times) > 0.5]
        made, predicted = opening(audio, times), opening(clean, times)
        rows.setdefault(f"{key} r", []).append(float(np.corrcoef(made, predicted)[0, 1]))
        rows.setdefault(f"{key} pauses", []).append(float((audio.gate_at(pause) < 0.5).mean()))
        rows.setdefault(f"{key} speech", []).append(float((audio.gate_at(spoken) > 0.5).mean()))

    for number, name in enumerate(names):
        wave = waves[CLIPS.split().index(name)]
        clean, paused = analyzed(wave), np.pad(wave, (0, round(PAUSE_S * RATE)))
        noises = {
            "music": music(len(paused), rng),
            "voices": babble(waves, number, len(paused)),
            "noise": pink(len(paused), np.random.default_rng(number)),
        }
        for way, clear in ways.items():
            measure(f"none 0 {way}", analyzed(clear(paused)), clean, len(wave) / RATE)
            for kind in kinds:
                for db in levels:
                    audio = analyzed(clear(mixed(paused, noises[kind], db)))
                    measure(f"{kind} {db} {way}", audio, clean, len(wave) / RATE)
        print(f"{name} done", file=sys.stderr)
    return rows


def main() -> int:
    """Print the table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="folder of the clips")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--levels", type=int, nargs="+", default=LEVELS_DB, help="speech over noise, dB")
    parser.add_argument("--first", type=int, help="only so many clips")
    parser.add_argument("-o", "--output", type=Path, help="values of each clip, JSON")
    args = parser.parse_args()
    rows = study(args.clips, CLIPS.split()[: args.first], args.kinds, args.levels)
    print(f"{'noise':24} {'r':>6} {'pauses':>7} {'speech':>7}")
    for key in dict.fromkeys(key.rpartition(" ")[0] for key in rows):
        r, pauses, speech = (np.mean(rows[f"{key} {what}"]) for what in ("r", "pauses", "speech"))
        print(f"{key:24} {r:6.2f} {pauses:7.2f} {speech:7.2f}")
    if args.output is not None:
        args.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0
