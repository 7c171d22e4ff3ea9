"""From a picture's own code values to R'G'B' in 0..255 and back: matrix, range, depth, and a curve for HDR."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.media.probe import UNSPECIFIED, VideoInfo

Pixels = NDArray[np.float32]  # (..., 3)

BT709, BT601, BT2020 = 1, 5, 9  # FFmpeg's colour space numbers, which are ITU-T H.273's
# K_R, K_B of Y' = K_R R' + (1 - K_R - K_B) G' + K_B B'   (ITU-T H.273, table 4)
LUMA_WEIGHTS = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}
PQ, HLG = 16, 18  # transfer characteristics of HDR
REFERENCE_WHITE = 203.0  # cd/m2 that count as SDR white (ITU-R BT.2408)
HLG_WHITE = 0.265  # scene light of that white in HLG: signal 0.75
SDR_GAMMA = 2.2


@dataclass(frozen=True)
class Codes:
    """Affine map: codes = matrix @ rgb + offset, with rgb in 0..255 and codes in the picture's own steps."""

    matrix: NDArray[np.float32]  # (3, 3)
    offset: NDArray[np.float32]  # (3,)
    inverse: NDArray[np.float32]  # (3, 3)

    def encode(self, rgb: Pixels) -> Pixels:
        """R'G'B' (..., 3) in 0..255 to code values, not rounded."""
        return _affine(rgb, self.matrix, self.offset)

    def decode(self, codes: Pixels) -> Pixels:
        """Code values (..., 3) to R'G'B', not clipped."""
        return _affine(codes, self.inverse, -self.inverse @ self.offset)


def _affine(pixels: Pixels, matrix: NDArray[np.float32], offset: NDArray[np.float32]) -> Pixels:
    """Matrix @ pixel + offset; OpenCV does it about ten times as fast as a NumPy product with so small a matrix."""
    flat = np.ascontiguousarray(pixels, np.float32).reshape(1, -1, 3)
    return np.asarray(cv2.transform(flat, np.column_stack([matrix, offset])), np.float32).reshape(pixels.shape)


def colorspace_of(info: VideoInfo) -> int:
    """Matrix of a video; if unspecified, the one that players assume: BT.709 from 720 lines, else BT.601."""
    if info.colorspace in LUMA_WEIGHTS:
        return info.colorspace
    if info.colorspace == UNSPECIFIED and info.color_trc in (PQ, HLG):
        return BT2020
    return BT709 if min(info.width, info.height) >= 720 else BT601


def full_range(info: VideoInfo) -> bool:
    """Whether codes use the whole scale."""
    if info.pix_fmt.startswith("gray"):
        return info.color_range != 1  # grey of unknown range is full, as for FFmpeg
    return info.color_range == 2 or info.pix_fmt.startswith("yuvj")


@lru_cache(maxsize=16)
def codes(kind: str, colorspace: int, full: bool, depth: int) -> Codes:
    """The map of a picture layout: `kind` is "yuv", "gray" or "rgb".

        Y' = K_R R' + K_G G' + K_B B',  Cb = (B' - Y') / (2 - 2 K_B),  Cr = (R' - Y') / (2 - 2 K_R)

    Limited range puts 219 steps of Y' above 16 and 224 of Cb, Cr around 128, times 2**(depth - 8) (ITU-T H.273, 8.3).
    """
    top = float(2**depth - 1)
    if kind == "rgb":
        matrix, offset = np.eye(3) * top / 255, np.zeros(3)
    else:
        k_r, k_b = LUMA_WEIGHTS[colorspace]
        luma = np.array([k_r, 1 - k_r - k_b, k_b])
        blue = (np.array([0.0, 0.0, 1.0]) - luma) / (2 - 2 * k_b)
        red = (np.array([1.0, 0.0, 0.0]) - luma) / (2 - 2 * k_r)
        step = 2.0 ** (depth - 8)
        span = np.array([top, top, top]) if full else np.array([219.0, 224.0, 224.0]) * step
        offset = np.array([0.0 if full else 16 * step, 128 * step, 128 * step])
        matrix = np.stack([luma, blue, red]) * span[:, None] / 255
    return Codes(matrix.astype(np.float32), offset.astype(np.float32), np.linalg.inv(matrix).astype(np.float32))


def to_sdr(rgb: Pixels, trc: int) -> Pixels:
    """SDR from HDR R'G'B' (0..255 of its own curve), for the networks: reference white is 255, gamma 2.2.

    Light above reference white is cut. Pictures that are not HDR are returned as they are.
    """
    if trc not in (PQ, HLG):
        return rgb
    signal = np.clip(rgb / 255.0, 0.0, 1.0)
    light = _pq_light(signal) / REFERENCE_WHITE if trc == PQ else _hlg_light(signal) / HLG_WHITE
    return np.asarray(255.0 * np.clip(light, 0.0, 1.0) ** (1 / SDR_GAMMA), dtype=np.float32)


def from_sdr(rgb: Pixels, trc: int) -> Pixels:
    """The inverse of `to_sdr`, up to reference white."""
    if trc not in (PQ, HLG):
        return rgb
    light = np.clip(rgb / 255.0, 0.0, 1.0) ** SDR_GAMMA
    signal = _pq_signal(light * REFERENCE_WHITE) if trc == PQ else _hlg_signal(light * HLG_WHITE)
    return np.asarray(255.0 * signal, dtype=np.float32)


# Perceptual quantizer (SMPTE ST 2084): constants as printed there.
_M1, _M2 = 2610 / 16384, 2523 / 32
_C1, _C2, _C3 = 3424 / 4096, 2413 / 128, 2392 / 128
# Hybrid log-gamma (ITU-R BT.2100, table 5).
_A, _B, _C = 0.17883277, 0.28466892, 0.55991073


def _pq_light(signal: Pixels) -> Pixels:
    root = signal ** (1 / _M2)
    return np.asarray(10_000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1), dtype=np.float32)


def _pq_signal(light: Pixels) -> Pixels:
    power = (light / 10_000) ** _M1
    return np.asarray(((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2, dtype=np.float32)


def _hlg_light(signal: Pixels) -> Pixels:
    return np.asarray(np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - _C) / _A) + _B) / 12), dtype=np.float32)


def _hlg_signal(light: Pixels) -> Pixels:
    high = _A * np.log(np.maximum(12 * light - _B, 1e-6)) + _C
    return np.asarray(np.where(light <= 1 / 12, np.sqrt(3 * light), high), dtype=np.float32)
