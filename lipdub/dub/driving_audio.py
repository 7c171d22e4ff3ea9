"""Driving audio: mel windows, silence gate and predicted mouth shapes of each frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, binary_opening, maximum_filter1d, uniform_filter1d

from lipdub.config import MelConfig, SyncConfig
from lipdub.dub.speaking_style import SpeakingStyle, closed_lips, frame_rate_of, measure_style, retarget, smooth_shapes
from lipdub.dub.speech_detection import is_spoken
from lipdub.mel import log_mel, mean_power, mel_windows
from lipdub.models.audio_encoder import TrackEncoder
from lipdub.models.generator import Generator

LEVEL_STEP_S = 0.01  # resolution of the loudness curve
NEAR_S = 1.0  # to either side
SHORTEST_SOUND_S = 0.06  # a click between two silences moves no lips
FAINT_DB = -75.0  # of full scale; what is fainter is silence in any recording
# Loudness of speech has a standard deviation of about 10 dB, of 1.8 at least with noise 5 dB below it; noise below 1.
STEADY_S, STEADY_DB = 1.0, 1.7
CHUNK = 64  # frames whose sound is read in one call; 512 took 100 MB


@dataclass(frozen=True)
class DrivingAudio:
    """Driving audio, for lookup at any time."""

    mel: NDArray[np.float32]  # (80, M)
    gate: NDArray[np.float32]  # (L,) in [0, 1] every LEVEL_STEP_S, and a fade behind: 0 = silence, lips closed
    duration_s: float
    shapes: NDArray[np.float32] | None = None  # (M, 8) mouth shapes of an audio encoder, one a mel step
    steady: bool = False  # its loudness hardly changes, as that of a hum, a tone or noise
    spoken: bool | None = None  # whether it sounds like speech; None: not judged

    @property
    def silent(self) -> bool:
        """Whether there is nothing to hear."""
        return not self.gate.any()

    def gate_at(self, times_s: NDArray[np.float64]) -> NDArray[np.float32]:
        """The gate at the given times; 0 outside the sound."""
        at = np.arange(len(self.gate)) * LEVEL_STEP_S
        return np.interp(times_s, at, self.gate, left=0.0, right=0.0).astype(np.float32)


def analyze_audio(
    waveform: NDArray[np.float32],
    mel: MelConfig,
    sync: SyncConfig,
    own_mel: NDArray[np.float32] | None = None,
    encoder: TrackEncoder | None = None,
    device: torch.device | None = None,
    judge_phones: bool = False,
) -> DrivingAudio:
    """What drives the lips, from a mono waveform (n,) at mel.sample_rate.

    Args:
        waveform: the whole track.
        mel: of the spectrogram.
        sync: of the silence gate.
        own_mel: of a network that has a mel of its own.
        encoder: reads the mouth shapes off the whole track, once; None leaves them to the generator.
        device: where the encoder is; the CPU if None.
        judge_phones: ask the encoder's phones, too, whether it is speech; they must be those of the bundled one.
    """
    device = device or torch.device("cpu")
    spectrum = log_mel(waveform, mel) if own_mel is None else own_mel
    shapes = None if encoder is None else encoder.read_track(spectrum, device)
    level = loudness_levels(waveform, mel.sample_rate)
    gate = silence_gate(level, sync)
    sounding = sounding_steps(gate, 1 + len(waveform) // mel.hop, mel)
    usual = spectrum if own_mel is None else log_mel(waveform, mel)
    spoken = is_spoken(usual, sounding, mel, encoder if judge_phones else None, device)
    loud = level[gate == 1]
    steady = len(loud) * LEVEL_STEP_S > STEADY_S and float(loud.std()) < STEADY_DB
    if gate.size:  # a sound may end in the middle of a word: the mouth does not snap to rest
        fade = np.linspace(1, 0, round(sync.silence_fade_s / LEVEL_STEP_S) + 1, dtype=np.float32)[1:]
        gate = np.append(gate, gate[-1] * fade)
    return DrivingAudio(spectrum, gate, len(waveform) / mel.sample_rate, shapes, steady=steady, spoken=spoken)


def sounding_steps(gate: NDArray[np.float32], count: int, mel: MelConfig) -> NDArray[np.bool_]:
    """Which of the first `count` mel steps of a sound are no pause, by its `silence_gate` (L,): (count,)."""
    steps_s = np.arange(count) * mel.hop / mel.sample_rate
    return np.interp(steps_s, np.arange(len(gate)) * LEVEL_STEP_S, gate, right=0.0) == 1


def silence_gate(level: NDArray[np.float64], sync: SyncConfig) -> NDArray[np.float32]:
    """1 where there is sound, 0 in silence, with linear fades; a value for each of the `loudness_levels` (L,).

    Silence is a level more than |silence_db| below the loud parts (95th percentile of what is audible at all, so that
    one sentence in an hour counts), and so is one more than |pause_db| below what is loudest within NEAR_S, a pause:
    a whisper after shouting is neither. It must last silence_hold_s; shorter dips between two sounds stay open. A sound
    of less than SHORTEST_SOUND_S with silence on both sides is a click, and stays shut.
    """
    audible = level[level > FAINT_DB]
    if audible.size == 0:
        return np.zeros(len(level), np.float32)
    hold = max(1, round(sync.silence_hold_s / LEVEL_STEP_S))
    silence_db = max(float(np.percentile(audible, 95)) + sync.silence_db, FAINT_DB)
    near = maximum_filter1d(level, 2 * round(NEAR_S / LEVEL_STEP_S) + 1)
    sounding = np.pad(level > np.maximum(near + sync.pause_db, silence_db), hold, mode="edge")
    sounding = binary_closing(sounding, np.ones(hold))
    sounding = binary_opening(sounding, np.ones(round(SHORTEST_SOUND_S / LEVEL_STEP_S)))[hold:-hold]
    # Widened by half a fade, then averaged over a whole one: a ramp that ends where the sound begins, so that the mouth
    # is free to move by then.
    width = 2 * round(sync.silence_fade_s / LEVEL_STEP_S / 2) + 1
    widened = maximum_filter1d(sounding.astype(np.float64), width)
    return np.clip(uniform_filter1d(widened, width), 0, 1).astype(np.float32)


def loudness_levels(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float64]:
    """Loudness (L,) in dB of full scale, every LEVEL_STEP_S."""
    step = round(LEVEL_STEP_S * sample_rate)
    whole = len(waveform) // step * step
    power = mean_power(waveform[:whole].reshape(-1, step))
    if whole < len(waveform):
        power = np.append(power, mean_power(np.pad(waveform[whole:], (0, step - len(waveform) + whole))[None]))
    return 10 * np.log10(uniform_filter1d(power, 3) + 1e-12)


def windows_at(speech: DrivingAudio, times_s: NDArray[np.float64], mel: MelConfig, width: int) -> NDArray[np.float32]:
    """Mel windows (N, 80, width) centred at times; gated windows fade to silence (-1)."""
    gate = speech.gate_at(times_s)[:, None, None]
    windows = mel_windows(speech.mel, times_s, mel, width=width)
    return (windows * gate + (gate - 1)).astype(np.float32)


@dataclass(frozen=True)
class PredictedMouthShapes:
    """Mouth shapes predicted from audio, before per-speaker scaling."""

    shapes: NDArray[np.float32]  # (F, 8) of each frame, relative to a mouth at rest, in units of SHAPE_SCALE
    gate: NDArray[np.float32]  # (F,) in [0, 1]: 0 = silence, lips closed
    style: SpeakingStyle  # of all that is heard while the gate is open

    def retargeted(
        self, person: SpeakingStyle, frame: int | slice, strength: float, closed: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """The mouth (8,), or mouths (T, 8), that a person should have; in silence they fade to closed lips.

        Args:
            person: how they were seen to speak; UNKNOWN_STYLE if they were not.
            frame: one, or several.
            strength: gain on the movement, beside the person's own.
            closed: (3,) openings of closed lips; None: those of the mouth at rest.
        """
        asked, gate = retarget(person, self.shapes[frame], self.style, strength, closed), self.gate[frame][..., None]
        return (gate * asked + (1 - gate) * closed_lips(closed)).astype(np.float32)


def predict_mouth_shapes(
    generator: Generator,
    speech: DrivingAudio,
    times_s: NDArray[np.float64],
    mel: MelConfig,
    sync: SyncConfig,
    device: torch.device,
) -> PredictedMouthShapes | None:
    """What is heard at each time (F,); None for a generator without a shape code.

    They are smoothed, which takes a third off the change from frame to frame and agrees with real mouths better.
    """
    if generator.config.shape_code == 0:
        return None
    if speech.shapes is not None:
        columns, steps = times_s * mel.sample_rate / mel.hop, np.arange(len(speech.shapes))
        shapes = np.stack([np.interp(columns, steps, number) for number in speech.shapes.T], 1).astype(np.float32)
    else:
        shapes = _of_windows(generator, speech, times_s, mel, device)
    rate = frame_rate_of(times_s)
    shapes = smooth_shapes(shapes, rate, sync.smooth_s)
    gate = speech.gate_at(times_s)
    return PredictedMouthShapes(shapes, gate, measure_style([shapes[run] for run in _runs(gate == 1)], rate))


def _of_windows(
    generator: Generator, speech: DrivingAudio, times_s: NDArray[np.float64], mel: MelConfig, device: torch.device
) -> NDArray[np.float32]:
    """Mouth shapes (F, 8) by the generator's own audio encoder, from a mel window around each time."""
    parts = [np.zeros((0, generator.config.shape_code), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(times_s), CHUNK):
            windows = mel_windows(speech.mel, times_s[start : start + CHUNK], mel, width=generator.config.window)
            predicted = generator.encode_audio(torch.from_numpy(windows).to(device)).shape
            assert predicted is not None
            parts.append(predicted.float().cpu().numpy())
    return np.concatenate(parts)


def _runs(inside: NDArray[np.bool_]) -> list[slice]:
    """The stretches of True in (F,)."""
    edges = np.flatnonzero(np.diff(inside.astype(np.int8), prepend=0, append=0)).tolist()
    return [slice(first, stop) for first, stop in zip(edges[::2], edges[1::2], strict=True)]
