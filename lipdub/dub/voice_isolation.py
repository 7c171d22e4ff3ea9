"""`--isolate-voice`: suppression of music and noise in the audio that drives the mouth.

The network is RNNoise (Valin, "A Hybrid DSP/Deep Learning Approach to Real-Time Full-Band Speech Enhancement",
arXiv:1709.08243), in the package pyrnnoise, whose wheel holds the weights. Only home of pyrnnoise, which comes with the
extra `voice`. What it gains is measured by `python -m benchmarks noise`.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from lipdub.errors import SetupError

DELAY_S = 0.02  # by which what pyrnnoise returns is late: two of RNNoise's frames
CHUNK_S = 10.0  # of audio in one call
_FULL_SCALE = 32767  # of the 16-bit samples that RNNoise takes


def check_installed() -> None:
    """Raise a SetupError unless the extra `voice` is installed."""
    if find_spec("pyrnnoise") is None:
        raise SetupError("--isolate-voice needs pyrnnoise", 'install it: pip install "lipdub[voice]"')


def isolate_voice(waveform: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
    """A voice without the music and noise around it, at the times that it had: mono (n,) in [-1, 1], as the waveform.

    Raises:
        SetupError: the extra `voice` is not installed.
    """
    check_installed()
    from pyrnnoise import RNNoise

    delay, chunk = round(DELAY_S * sample_rate), round(CHUNK_S * sample_rate)
    padded = np.append(waveform, np.zeros(delay, np.float32))
    denoiser, parts = RNNoise(sample_rate), [np.zeros(0, np.int16)]
    for start in range(0, len(padded), chunk):
        samples = (padded[None, start : start + chunk].clip(-1, 1) * _FULL_SCALE).astype(np.int16)
        last = start + chunk >= len(padded)
        parts += [frame[0] for _, frame in denoiser.denoise_chunk(samples, partial=last)]
    clean = np.concatenate(parts)[delay : delay + len(waveform)]
    return (np.pad(clean, (0, len(waveform) - len(clean))) / _FULL_SCALE).astype(np.float32)
