"""SyncNet (Chung and Zisserman, ACCV-W 2016), to judge with: written anew from the published architecture; its scores.

Parameter names and shapes are those of the public file syncnet_v2.model (13.6 M parameters).

    lips (N, 5, 3, 224, 224)    five faces at 25 fps         -> (N, 1024)
    mfcc (N, 1, 13, 20)         their 0.2 s of sound         -> (N, 1024)

    d(k)   = mean over windows i of || lips_i - sound_{i + k} ||,   k = -15 .. 15, zeros beyond the ends
    LSE-D  = min_k d(k)         LSE-C = median_k d(k) - min_k d(k)       (arXiv 2008.10010)

Its scores depend on the crop that it sees. Values of other tools, with other crops, are not comparable with ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.fft import dct
from torch import Tensor, nn

FRAMES = 5  # of a window
RATE = 25.0  # frames a second
SIDE = 224  # pixels
EMBEDDING = 1024
REACH = 15  # frames to either side in which the offset is searched
SAMPLE_RATE = 16_000
N_MFCC, STEPS = 13, 20  # of a window
STEPS_PER_FRAME = 4  # 100 MFCC a second, 25 frames
N_FFT, FRAME, HOP = 512, 400, 160  # samples: 25 ms every 10 ms
N_FILTERS = 26
PRE_EMPHASIS = 0.97
LIFTER = 22
FULL_SCALE = 32768.0  # the network was trained on 16 bit samples

# Channels, kernel and padding of each convolution, then kernel, stride and padding of the pooling after it, if any.
_AUDIO = (
    (64, (3, 3), (1, 1), ((1, 1), (1, 1), (0, 0))),
    (192, (3, 3), (1, 1), ((3, 3), (1, 2), (0, 0))),
    (384, (3, 3), (1, 1), None),
    (256, (3, 3), (1, 1), None),
    (256, (3, 3), (1, 1), ((3, 3), (2, 2), (0, 0))),
    (512, (5, 4), (0, 0), None),
)
_LIPS = (
    (96, (5, 7, 7), (0, 0, 0), ((1, 3, 3), (1, 2, 2), (0, 0, 0))),
    (256, (1, 5, 5), (0, 1, 1), ((1, 3, 3), (1, 2, 2), (0, 1, 1))),
    (256, (1, 3, 3), (0, 1, 1), None),
    (256, (1, 3, 3), (0, 1, 1), None),
    (256, (1, 3, 3), (0, 1, 1), ((1, 3, 3), (1, 2, 2), (0, 0, 0))),
    (512, (1, 6, 6), (0, 0, 0), None),
)


class SyncNet(nn.Module):
    """Two convolutional towers whose outputs lie close together where lips and sound belong together."""

    def __init__(self) -> None:
        super().__init__()
        sound: list[nn.Module] = []
        inputs = 1
        for width, kernel, padding, pool in _AUDIO:
            sound += [nn.Conv2d(inputs, width, kernel, padding=padding), nn.BatchNorm2d(width), nn.ReLU()]
            sound += [nn.MaxPool2d(*pool)] if pool else []
            inputs = width
        lips: list[nn.Module] = []
        inputs = 3
        for number, (width, kernel3, padding3, pool3) in enumerate(_LIPS):
            stride = (1, 2, 2) if number < 2 else (1, 1, 1)
            lips += [nn.Conv3d(inputs, width, kernel3, stride, padding3), nn.BatchNorm3d(width), nn.ReLU()]
            lips += [nn.MaxPool3d(*pool3)] if pool3 else []
            inputs = width
        self.netcnnaud, self.netfcaud = nn.Sequential(*sound), _head()
        self.netcnnlip, self.netfclip = nn.Sequential(*lips), _head()

    def embed_audio(self, mfcc: Tensor) -> Tensor:
        """(N, 1, 13, 20) of `mfcc` -> (N, 1024).

        Raises:
            ValueError: another shape.
        """
        if mfcc.ndim != 4 or mfcc.shape[1:] != (1, N_MFCC, STEPS):
            raise ValueError(f"mfcc must be (N, 1, {N_MFCC}, {STEPS}), got {tuple(mfcc.shape)}")
        return self.netfcaud(self.netcnnaud(mfcc).flatten(1))

    def embed_lips(self, clips: Tensor) -> Tensor:
        """(N, 5, 3, 224, 224) RGB in [0, 1] -> (N, 1024). The network itself was trained on BGR in 0..255.

        Raises:
            ValueError: another shape.
        """
        if clips.ndim != 5 or clips.shape[1:] != (FRAMES, 3, SIDE, SIDE):
            raise ValueError(f"clips must be (N, {FRAMES}, 3, {SIDE}, {SIDE}), got {tuple(clips.shape)}")
        x = 255 * clips.flip(2).transpose(1, 2)  # (N, 3, 5, 224, 224)
        return self.netfclip(self.netcnnlip(x).flatten(1))


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, EMBEDDING))


@dataclass(frozen=True)
class LipSyncError:
    """SyncNet's verdict on one video."""

    distance: float  # LSE-D, lower is better
    confidence: float  # LSE-C, higher is better; above that of real video it is a warning, not a win
    offset: int  # frames by which the lips come after their sound at the best agreement


def lip_sync_error(lips: Tensor, sound: Tensor, *, reach: int = REACH) -> LipSyncError:
    """LSE-D, LSE-C and offset from the embeddings of a video's windows; equations at the top of this module.

    Args:
        lips: (n, E), window i shows frames i .. i + 4.
        sound: (n, E), of the same times.
        reach: largest shift in frames.

    Raises:
        ValueError: shapes that differ, or no window.
    """
    if lips.ndim != 2 or lips.shape != sound.shape or not len(lips):
        raise ValueError(f"want (n, E) twice, n > 0, got {tuple(lips.shape)} and {tuple(sound.shape)}")
    padded = F.pad(sound, (0, 0, reach, reach))
    shifted = padded.unfold(0, 2 * reach + 1, 1).transpose(1, 2)  # (n, 2 reach + 1, E)
    distances = F.pairwise_distance(lips[:, None], shifted).mean(0)
    least, best = distances.min(0)
    return LipSyncError(float(least), float(distances.median() - least), reach - int(best))


def sound_windows(features: NDArray[np.float32], n_frames: int) -> NDArray[np.float32]:
    """MFCC windows (n, 1, 13, 20) for the windows of a video of 25 fps; n = frames with sound - 5, as published.

    Args:
        features: (13, M) of `mfcc`; column 0 and frame 0 begin together.
        n_frames: frames of the video.

    Raises:
        ValueError: nothing is left.
    """
    count = min(n_frames - FRAMES, (features.shape[1] - STEPS) // STEPS_PER_FRAME + 1)
    if count < 1:
        raise ValueError(f"{n_frames} frames and {features.shape[1]} MFCC columns give no window")
    starts = STEPS_PER_FRAME * np.arange(count)
    return np.stack([features[None, :, start : start + STEPS] for start in starts])


def mfcc(waveform: NDArray[np.floating]) -> NDArray[np.float32]:
    """Mel-frequency cepstral coefficients as SyncNet was trained with, 100 a second.

        y_n = x_n - 0.97 x_{n-1};  P = |FFT_512(400 samples of y, every 160)|^2 / 512;  26 triangles in mel, 0 - 8 kHz
        c   = orthonormal DCT-II of their logs, 13 of them, times 1 + 11 sin(pi n / 22);  c_0 = log(sum P)

    Args:
        waveform: (n,) mono in [-1, 1] at 16 kHz.

    Returns:
        (13, M), M = 1 + ceil((n - 400) / 160), at least 1.

    Raises:
        ValueError: not one axis, or no samples.
    """
    if waveform.ndim != 1 or not waveform.size:
        raise ValueError(f"waveform must be (n,) with n >= 1, got {waveform.shape}")
    samples = np.clip(np.rint(np.asarray(waveform, np.float64) * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1)
    sharp = np.append(samples[0], samples[1:] - PRE_EMPHASIS * samples[:-1])
    count = 1 + max(0, -(-(len(sharp) - FRAME) // HOP))
    sharp = np.pad(sharp, (0, max(0, (count - 1) * HOP + FRAME - len(sharp))))
    frames = np.lib.stride_tricks.sliding_window_view(sharp, FRAME)[::HOP][:count]
    power = np.abs(np.fft.rfft(frames, N_FFT)) ** 2 / N_FFT
    tiny = np.finfo(np.float64).eps
    logs = np.log(np.maximum(power @ _triangles().T, tiny))
    cepstrum = dct(logs, type=2, axis=1, norm="ortho")[:, :N_MFCC]
    cepstrum *= 1 + LIFTER / 2 * np.sin(np.pi * np.arange(N_MFCC) / LIFTER)
    cepstrum[:, 0] = np.log(np.maximum(power.sum(1), tiny))
    return np.ascontiguousarray(cepstrum.T, np.float32)


def _triangles() -> NDArray[np.float64]:
    """(26, 257): corners at whole FFT bins, evenly spaced in mel = 2595 log10(1 + f / 700)."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, top, N_FILTERS + 2) / 2595) - 1)
    corners = np.floor((N_FFT + 1) * hertz / SAMPLE_RATE)
    bins = np.arange(N_FFT // 2 + 1)
    left, middle, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rise = (bins - left) / np.maximum(middle - left, 1)
    fall = (right - bins) / np.maximum(right - middle, 1)
    inside: NDArray[np.float64] = np.where((bins >= left) & (bins < middle), rise, 0.0)
    inside = np.where((bins >= middle) & (bins < right), fall, inside)
    return inside
