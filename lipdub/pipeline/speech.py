"""What the dub asks of the mouth, frame by frame: mel windows, the silence gate, and the mouth-shape track."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, maximum_filter1d, uniform_filter1d

from lipdub.config import MelConfig, SyncConfig
from lipdub.faces.align import OPENINGS
from lipdub.mel import log_mel, mean_power, mel_windows
from lipdub.models.generator import Generator

LEVEL_STEP_S = 0.01  # resolution of the loudness curve
FAINT_DB = -75.0  # of full scale; what is fainter is silence in any recording
CHUNK = 64  # frames whose sound is read in one call; 512 took 100 MB


@dataclass(frozen=True)
class Speech:
    """The driving sound, ready to be looked up at any time."""

    mel: NDArray[np.float32]  # (80, M)
    gate: NDArray[np.float32]  # (L,) in [0, 1] every LEVEL_STEP_S: 0 = silence, the mouth rests
    duration_s: float

    def gate_at(self, times_s: NDArray[np.float64]) -> NDArray[np.float32]:
        """The gate at the given times; 0 outside the sound."""
        at = np.arange(len(self.gate)) * LEVEL_STEP_S
        return np.interp(times_s, at, self.gate, left=0.0, right=0.0).astype(np.float32)


def listen(
    waveform: NDArray[np.float32], mel: MelConfig, sync: SyncConfig, own_mel: NDArray[np.float32] | None = None
) -> Speech:
    """Mel and silence gate of a mono waveform (n,) at mel.sample_rate; `own_mel` of a network that has its own."""
    duration_s = len(waveform) / mel.sample_rate
    return Speech(
        log_mel(waveform, mel) if own_mel is None else own_mel,
        silence_gate(waveform, mel.sample_rate, sync),
        duration_s,
    )


def silence_gate(waveform: NDArray[np.float32], sample_rate: int, sync: SyncConfig) -> NDArray[np.float32]:
    """1 where there is sound, 0 in silence, with linear fades; a value every LEVEL_STEP_S.

    Silence is a level more than |silence_db| below the loud parts (95th percentile of what is audible at all, so that
    one sentence in an hour counts) for at least silence_hold_s; shorter dips between two sounds stay open.
    """
    step = round(LEVEL_STEP_S * sample_rate)
    count, whole = -(-len(waveform) // step), len(waveform) // step * step
    power = mean_power(waveform[:whole].reshape(-1, step))
    if whole < len(waveform):
        power = np.append(power, mean_power(np.pad(waveform[whole:], (0, step - len(waveform) + whole))[None]))
    level = 10 * np.log10(uniform_filter1d(power, 3) + 1e-12)
    audible = level[level > FAINT_DB]
    if audible.size == 0:
        return np.zeros(count, np.float32)
    hold = max(1, round(sync.silence_hold_s / LEVEL_STEP_S))
    sounding = np.pad(level > max(np.percentile(audible, 95) + sync.silence_db, FAINT_DB), hold)
    sounding = binary_closing(sounding, np.ones(hold))[hold:-hold]
    # Widened by half a fade, then averaged over a whole one: a ramp that ends where the sound begins, so that the mouth
    # is free to move by then.
    width = 2 * round(sync.silence_fade_s / LEVEL_STEP_S / 2) + 1
    widened = maximum_filter1d(sounding.astype(np.float64), width)
    gate: NDArray[np.float32] = np.clip(uniform_filter1d(widened, width), 0, 1).astype(np.float32)
    return gate


def windows_at(speech: Speech, times_s: NDArray[np.float64], mel: MelConfig, width: int) -> NDArray[np.float32]:
    """Mel windows (N, 80, width) centred at times; gated windows fade to silence (-1)."""
    gate = speech.gate_at(times_s)[:, None, None]
    windows = mel_windows(speech.mel, times_s, mel, width=width)
    return (windows * gate + (gate - 1)).astype(np.float32)


def mouth_shapes(
    generator: Generator,
    speech: Speech,
    times_s: NDArray[np.float64],
    mel: MelConfig,
    sync: SyncConfig,
    device: torch.device,
) -> NDArray[np.float32] | None:
    """The mouth shape (N, C) that each frame should have; None for a generator without a shape code.

    What is heard is the mean of all mouths that fit the sound, and so moves too little: its distance from the mean over
    the speech is multiplied by `strength`. No opening falls below that of a closed mouth; in silence it fades to rest,
    the zero code.
    """
    if generator.config.shape_code == 0:
        return None
    shapes = []
    with torch.inference_mode():
        for start in range(0, len(times_s), CHUNK):
            windows = mel_windows(speech.mel, times_s[start : start + CHUNK], mel, width=generator.config.window)
            heard = generator.encode_audio(torch.from_numpy(windows).to(device)).shape
            assert heard is not None
            shapes.append(heard.float().cpu().numpy())
    heard_shapes = np.concatenate(shapes) if shapes else np.zeros((0, generator.config.shape_code), np.float32)
    gate = speech.gate_at(times_s)[:, None]
    level = (heard_shapes * gate).sum(0) / max(float(gate.sum()), 1e-6)
    moved = level + np.float32(sync.strength) * (heard_shapes - level)
    moved[:, OPENINGS] = np.maximum(moved[:, OPENINGS], 0)
    result: NDArray[np.float32] = (moved * gate).astype(np.float32)
    return result
