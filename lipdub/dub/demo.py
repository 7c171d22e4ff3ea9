"""A generated talking clip: scikit-image's astronaut portrait in slow motion, with synthesized speech-like audio."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from lipdub.dub.still import RATE, sway
from lipdub.faces.backend import Frame
from lipdub.media.audio import write_wav
from lipdub.media.clip import write_clip

SIDE = 480  # pixels of the clip
SAMPLE_RATE = 16_000
# first three formants of five vowels, Hz (textbook averages of an adult voice)
VOWELS = ((730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240))


def portrait_frames(seconds: float) -> list[Frame]:
    """The portrait under a slow sway, nod and zoom; (SIDE, SIDE, 3) each."""
    from skimage.data import astronaut

    picture = np.ascontiguousarray(astronaut())
    frames = []
    for index in range(round(seconds * RATE)):
        t = index / RATE
        matrix = sway(t, (225.0, 130.0), 1.12)
        matrix[:, 2] += SIDE / 2 - 225, SIDE / 2 - 190
        seen = cv2.warpAffine(picture, matrix, (SIDE, SIDE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        frames.append(np.asarray(seen, np.uint8))
    return frames


def babble(seconds: float, seed: int = 3) -> NDArray[np.float32]:
    """Speech-like sound (n,): voiced syllables of random vowels in phrases, closures between, rests between phrases."""
    rng = np.random.default_rng(seed)
    sound = np.zeros(round(seconds * SAMPLE_RATE))
    at = 0.4
    while at < seconds - 0.5:
        for _ in range(int(rng.integers(4, 8))):
            length = rng.uniform(0.14, 0.26)
            first = round(at * SAMPLE_RATE)
            piece = _syllable(length, VOWELS[rng.integers(len(VOWELS))], rng)[: max(0, len(sound) - first)]
            sound[first : first + len(piece)] += piece
            at += length + rng.uniform(0.03, 0.09)
        at += rng.uniform(0.35, 0.6)
    loudest = max(1e-9, float(np.abs(sound).max()))
    return np.asarray(0.5 * sound / loudest, np.float32)


def _syllable(length: float, formants: tuple[int, int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    count = round(length * SAMPLE_RATE)
    t = np.arange(count) / SAMPLE_RATE
    pitch = rng.uniform(105, 150) * (1 - 0.15 * t / length)
    phase = np.cumsum(pitch) / SAMPLE_RATE
    sound = np.diff(np.floor(phase), prepend=0) + 0.01 * rng.standard_normal(count)  # glottal pulses and breath
    for formant, width in zip(formants, (80, 100, 140), strict=True):
        radius = np.exp(-np.pi * width / SAMPLE_RATE)
        angle = 2 * np.pi * formant / SAMPLE_RATE
        sound = lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], sound)
    envelope = np.sin(np.pi * np.clip(t / length, 0, 1)) ** 0.7
    return sound * envelope


def make_demo_inputs(folder: Path, seconds: float = 6.0) -> tuple[Path, Path]:
    """Write the portrait clip and its new speech into `folder`; returns both paths."""
    video, audio = folder / "portrait.mp4", folder / "speech.wav"
    write_clip(video, portrait_frames(seconds), RATE, crf=14)
    write_wav(audio, babble(seconds), SAMPLE_RATE)
    return video, audio
