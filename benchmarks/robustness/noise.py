"""What music and other voices in the driving audio cost the mouth (good: r 0.8 with music at 10 dB, 1 is no loss).

    python -m benchmarks noise CLIPS_DIR [-o noise.json] [--isolate COMMAND]

Music (chords, bass and drums, generated) and babble (four other clips) are added to the sound of each clip at 20, 10, 5
and 0 dB below the speech. The opening that the encoder then predicts is correlated with what it predicts from the clean
sound, and with the opening of the clip's own mouth. `rest` is the share of a pause of PAUSE_S, appended to each clip
before noise is added, that is taken for a pause, in which the mouth rests. With `--isolate COMMAND` a program that is
given two WAV files, in and out, cleans each mixture first.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import lfilter

from lipdub.config import load_config
from lipdub.dub.driving_audio import DrivingAudio, analyze_audio
from lipdub.dub.speaking_style import smooth_shapes
from lipdub.faces.choose import face_backend
from lipdub.faces.mouth_shape import OPENINGS, mouth_shape
from lipdub.media.audio import load_audio, write_wav
from lipdub.media.source import open_source
from lipdub.weights import load_audio_encoder

CLIPS = """
natural/0a37e7f4a4.mp4 natural/18fdf0eda1.mp4 natural/1e4e04f79a.mp4 natural/2612510732.mp4 natural/435ae03e42.mp4
natural/4b4b952110.mp4 natural/543cb0dcca.mp4 natural/6301b1d757.mp4 natural/acb2f98d29.mp4 natural/ad512e3311.mp4
"""
LEVELS_DB = [20, 10, 5, 0]  # speech over noise
SECONDS, PAUSE_S = 10.0, 2.0  # of each clip, and of the pause behind it
RATE = 16_000
DETECT_EVERY = 5  # frames

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


def mixed(speech: Wave, noise: Wave, db: float) -> Wave:
    """Speech with noise `db` below it, by mean power."""
    gain = np.sqrt(np.mean(speech**2) / (np.mean(noise**2) * 10 ** (db / 10)))
    both = speech + gain * noise
    return np.asarray(both / max(1.0, float(np.abs(both).max())), np.float32)


def own_mouth(video: Path, seconds: float) -> tuple[NDArray[np.float64], NDArray[np.float32], float]:
    """Times (T,) and mouth shapes (T, 8) of the largest face by lipdub's own landmarks, and the frame rate."""
    config = load_config()
    backend, source = face_backend("builtin", config.face, torch.device("cpu")), open_source(video, config.media)
    times, shapes, box = [], [], None
    with source.frames() as frames:
        for frame in frames:
            if frame.time_s >= seconds:
                break
            rgb = frame.upright()
            if box is None or frame.index % DETECT_EVERY == 0:
                boxes = backend.detect([rgb])[0].boxes
                box = boxes[np.argmax(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))] if len(boxes) else None
            if box is None:
                continue
            landmarks, confidence = backend.landmarks([rgb], box[None])
            if confidence[0] > config.face.min_confidence:
                times.append(frame.time_s)
                shapes.append(mouth_shape(landmarks)[0])
    mouths = np.array(shapes, np.float32).reshape(-1, 8)
    return np.array(times), smooth_shapes(mouths, source.rate, config.sync.smooth_s), source.rate


def isolated(wave: Wave, command: str) -> Wave:
    """What a program makes of it."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "in.wav", Path(folder) / "out.wav"
        write_wav(before, wave, RATE)
        subprocess.run([*shlex.split(command), str(before), str(after)], check=True)
        return load_audio(after, sample_rate=RATE)


def study(
    folder: Path, names: Sequence[str], levels: Sequence[float], clean: Callable[[Wave], Wave] = lambda wave: wave
) -> dict[str, list[float]]:
    """Every measure of every clip, by "KIND DB MEASURE"."""
    config = load_config()
    encoder, config = load_audio_encoder(config.sync.audio_encoder, config)
    waves = [load_audio(folder / name, sample_rate=RATE)[: round(SECONDS * RATE)] for name in names]
    rng, rows = np.random.default_rng(0), {}

    def analyzed(wave: Wave) -> DrivingAudio:
        return analyze_audio(wave, config.mel, config.sync, encoder=encoder)

    def opening(audio: DrivingAudio, times: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
        assert audio.shapes is not None
        curve = audio.shapes[:, OPENINGS].mean(1)
        at = np.interp(times * config.mel.sample_rate / config.mel.hop, np.arange(len(curve)), curve)
        return smooth_shapes(at.astype(np.float32)[:, None], rate, config.sync.smooth_s)[:, 0]

    for number, (name, wave) in enumerate(zip(names, waves, strict=True)):
        times, shapes, rate = own_mouth(folder / name, len(wave) / RATE)
        own = shapes[:, OPENINGS].mean(1)
        first = analyzed(wave)
        predicted = opening(first, times, rate)
        pause = len(wave) / RATE + np.arange(0.3, PAUSE_S, 0.04)  # speech and its fade are over
        paused = np.pad(wave, (0, round(PAUSE_S * RATE)))
        rows.setdefault("clean own", []).append(float(np.corrcoef(predicted, own)[0, 1]))
        for kind, noise in (("music", music(len(paused), rng)), ("babble", babble(waves, number, len(paused)))):
            for db in levels:
                audio = analyzed(clean(mixed(paused, noise, db)))
                made = opening(audio, times, rate)
                rows.setdefault(f"{kind} {db} predicted", []).append(float(np.corrcoef(made, predicted)[0, 1]))
                rows.setdefault(f"{kind} {db} own", []).append(float(np.corrcoef(made, own)[0, 1]))
                rows.setdefault(f"{kind} {db} rest", []).append(float((audio.gate_at(pause) < 0.5).mean()))
        print(f"{name}: {rows['clean own'][-1]:.2f} with its own mouth", file=sys.stderr)
    return rows


def main() -> int:
    """Print the table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="folder of the clips")
    parser.add_argument("--isolate", default="", help="program that cleans a WAV file: COMMAND IN OUT")
    parser.add_argument("--levels", type=int, nargs="+", default=LEVELS_DB, help="speech over noise, dB")
    parser.add_argument("--first", type=int, help="only so many clips")
    parser.add_argument("-o", "--output", type=Path, help="values of each clip, JSON")
    args = parser.parse_args()
    names = CLIPS.split()[: args.first]
    rows = study(
        args.clips, names, args.levels, (lambda wave: isolated(wave, args.isolate)) if args.isolate else lambda w: w
    )
    print(f"{'':14} {'r predicted':>12} {'r own mouth':>12} {'rest':>6}")
    print(f"{'clean':14} {1:12.2f} {np.mean(rows['clean own']):12.2f} {1:6.2f}")
    for kind in ("music", "babble"):
        for db in args.levels:
            means = [np.mean(rows[f"{kind} {db} {what}"]) for what in ("predicted", "own", "rest")]
            print(f"{kind:8} {db:2} dB {means[0]:12.2f} {means[1]:12.2f} {means[2]:6.2f}")
    if args.output is not None:
        args.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0
