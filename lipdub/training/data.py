"""Prepared clips in memory, and the batches that the expert and the generator are trained on [3.5, 3.6].

A sample is T consecutive faces, their sound, and K references of the same clip that are no neighbours of the target.
Target and references are cropped with independent jitter, so that their frames never agree to the pixel.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lipdub.config import Config
from lipdub.faces.align import SHAPE_SCALE, mouth_mask, mouth_shape
from lipdub.faces.backend import Frame
from lipdub.faces.references import cluster, sharpness
from lipdub.mel import mel_windows
from lipdub.models.layers import mask_lower_half
from lipdub.training.store import RATE, ClipEntry, read_clip, read_manifest

REST_SHARE = 0.2  # the calmest share of a clip's frames stands for the mouth at rest


@dataclass(frozen=True)
class Clip:
    """One clip in memory."""

    entry: ClipEntry
    frames: NDArray[np.uint8]  # (T, side, side, 3)
    landmarks: NDArray[np.float32]  # (T, 68, 2) stored pixels
    mel: NDArray[np.float32]  # (80, M)
    shape: NDArray[np.float32]  # (T, C) mouth-shape code relative to the mouth at rest
    clusters: NDArray[np.int64]  # (T,) KMeans label of lips and chin
    sharpness: NDArray[np.float32]  # (T,)


@dataclass(frozen=True)
class Batch:
    """B clips of T frames; S the face side, K references, W mel steps, C shape numbers."""

    real: Tensor  # (B, T, 3, S, S) in [0, 1]
    references: Tensor  # (B, K, 3, S, S) lower halves only
    windows: Tensor  # (B, T, 80, W) mel of each frame
    expert_mel: Tensor  # (B, 80, 16) mel of the whole clip
    mouth: Tensor  # (B, T, 1, S, S) true mouth mask
    shape: Tensor  # (B, T, C)

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


def shape_code(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mouth shapes (T, C) of one clip relative to its own mouth at rest, in units of SHAPE_SCALE.

    Rest is the mean of the calmest fifth of the frames by inner-lip opening.
    """
    shapes = mouth_shape(landmarks)
    calm = np.argsort(shapes[:, 0])[: max(1, round(REST_SHARE * len(shapes)))]
    code: NDArray[np.float32] = ((shapes - shapes[calm].mean(0)) / SHAPE_SCALE).astype(np.float32)
    return code


class ClipSet:
    """All clips of one split in memory, and random batches of them.

    Args:
        folder: a prepared data set.
        split: train, val or test.
        config: mel, face, reference and train sections are used.
        seed: of the sampling.
    """

    def __init__(self, folder: Path, split: str, config: Config, seed: int = 0) -> None:
        entries, summary = read_manifest(folder, split)
        self.config = config
        self.rng = np.random.default_rng(seed)
        self.margin = float(summary["margin"])  # type: ignore[arg-type]
        with ThreadPoolExecutor(4) as pool:
            self.clips = list(pool.map(lambda entry: self._load(folder, entry), entries))
        self.weights = self._speaker_weights()

    def _load(self, folder: Path, entry: ClipEntry) -> Clip:
        arrays = read_clip(folder, entry)
        return Clip(
            entry,
            arrays.frames,
            arrays.landmarks,
            arrays.mel,
            shape_code(arrays.landmarks),
            cluster(arrays.landmarks, self.config.reference.count, seed=0),
            np.array([sharpness(frame) for frame in arrays.frames], np.float32),
        )

    def _speaker_weights(self) -> NDArray[np.float64]:
        """A clip's probability: by its frames, no speaker over the cap."""
        frames = np.array([max(0, clip.entry.frames - self.config.train.frames + 1) for clip in self.clips], float)
        speakers = np.array([clip.entry.speaker for clip in self.clips])
        names = np.unique(speakers)
        share = np.array([frames[speakers == name].sum() for name in names]) / frames.sum()
        cap = max(self.config.train.speaker_cap, 1 / len(names))
        for _ in range(20):  # capping raises the others' shares: repeat until none is over
            share = np.minimum(share, cap)
            share /= share.sum()
        per_speaker = dict(zip(names, share, strict=True))
        weights = np.array(
            [per_speaker[s] * f / frames[speakers == s].sum() for s, f in zip(speakers, frames, strict=True)]
        )
        return weights / weights.sum()

    def sounds(self, count: int, width: int) -> tuple[Tensor, Tensor]:
        """`count` mel windows (N, 80, W) and the mouth shapes (N, C) that were seen with them."""
        windows, shapes = [], []
        for index in self.rng.choice(len(self.clips), max(1, count // 16), p=self.weights):
            clip = self.clips[index]
            at = self.rng.integers(0, len(clip.frames), 16)
            windows.append(mel_windows(clip.mel, (at + 0.5) / RATE, self.config.mel, width=width))
            shapes.append(clip.shape[at])
        return torch.from_numpy(np.concatenate(windows)), torch.from_numpy(np.concatenate(shapes))

    def batch(self, count: int, size: int, width: int, *, augment: bool = True) -> Batch:
        """`count` random samples."""
        chosen = self.rng.choice(len(self.clips), count, p=self.weights)
        samples = [self._sample(self.clips[index], size, width, augment) for index in chosen]
        batch = Batch(*(torch.from_numpy(np.stack(column)) for column in zip(*samples, strict=True)))
        return _light(batch, self.rng) if augment else batch

    def _sample(self, clip: Clip, size: int, width: int, augment: bool) -> tuple[NDArray[np.float32], ...]:
        n_frames = self.config.train.frames
        first = int(self.rng.integers(0, len(clip.frames) - n_frames + 1))
        at = np.arange(first, first + n_frames)
        mirrored = augment and bool(self.rng.random() < 0.5)
        matrix = self._matrix(clip, size, augment)
        real = np.stack([_warp(clip.frames[i], matrix, size, mirrored) for i in at])
        landmarks = clip.landmarks[at] @ matrix[:, :2].T + matrix[:, 2]
        mouth = np.stack([mouth_mask(points.astype(np.float32), size)[None] for points in landmarks])
        if mirrored:
            mouth = np.ascontiguousarray(mouth[..., ::-1])
        picked = self._reference_frames(clip, at)
        references = np.stack(
            [_warp(clip.frames[i], self._matrix(clip, size, augment), size, mirrored) for i in picked]
        )
        references[:, :, : size // 2] = 0
        times = (at + 0.5) / RATE
        windows = mel_windows(clip.mel, times, self.config.mel, width=width)
        whole = mel_windows(clip.mel, times.mean(keepdims=True), self.config.mel, width=self.config.expert.window)[0]
        shape = clip.shape[at]
        if mirrored:
            shape = shape[:, MIRRORED_SHAPE]
        return real, references, windows, whole, mouth, shape

    def faces(self, clip: Clip, first: int, size: int, augment: bool) -> NDArray[np.float32]:
        """The faces (T, 3, S, S) of a clip from frame `first` on, under one random crop."""
        mirrored = augment and bool(self.rng.random() < 0.5)
        matrix = self._matrix(clip, size, augment)
        frames = clip.frames[first : first + self.config.train.frames]
        faces = np.stack([_warp(frame, matrix, size, mirrored) for frame in frames])
        if augment:
            gain = np.exp(self.rng.normal(0, 0.1, (1, 3, 1, 1)) + self.rng.normal(0, 0.1))
            faces = np.clip(faces ** np.exp(self.rng.normal(0, 0.15)) * gain, 0, 1).astype(np.float32)
        return faces

    def _matrix(self, clip: Clip, size: int, augment: bool) -> NDArray[np.float64]:
        """Stored crop -> face crop: cuts the margin away, with a little jitter in training."""
        side = clip.frames.shape[1]
        scale, angle, shift = size * self.margin / side, 0.0, np.zeros(2)
        if augment:
            scale *= float(np.exp(self.rng.normal(0, 0.03)))
            angle = float(np.deg2rad(self.rng.normal(0, 2.0)))
            shift = self.rng.normal(0, 0.012, 2) * size
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        linear = np.array([[cos, -sin], [sin, cos]])
        return np.hstack([linear, (size / 2 + shift - linear @ np.full(2, side / 2))[:, None]])

    def _reference_frames(self, clip: Clip, target: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sharpest frame of each cluster, never the target's neighbours; filled up by repeats [3.5, 3.6].

        A repeat is jittered anew by the caller, which is the thesis' affine augmentation of free places.
        """
        count = self.config.train.references
        everywhere = np.arange(len(clip.frames))
        far = everywhere[np.abs(everywhere[:, None] - target).min(1) > self.config.reference.exclude]
        if len(far) == 0:
            far = everywhere[np.abs(everywhere - target.mean()).argsort()[-1:]]
        sampling = self.config.reference.sampling
        if sampling == "neighbourhood":
            near = far[np.abs(far - target.mean()) <= self.config.reference.neighbourhood]
            far = near if len(near) else far
        if sampling != "kmeans":
            return self.rng.choice(far, count)
        order = far[np.argsort(-clip.sharpness[far])]
        _, best = np.unique(clip.clusters[order], return_index=True)
        picked = self.rng.permutation(order[best])[:count]
        extra = self.rng.choice(picked, count - len(picked))
        return np.concatenate([picked, extra])


# left and right inner opening trade places in a mirrored face; all other numbers of the code are symmetric
MIRRORED_SHAPE = np.array([0, 2, 1, 3, 4, 5, 6, 7])


def _warp(frame: Frame, matrix: NDArray[np.float64], size: int, mirrored: bool) -> NDArray[np.float32]:
    face = cv2.warpAffine(frame, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if mirrored:
        face = face[:, ::-1]
    return np.ascontiguousarray(face.transpose(2, 0, 1)).astype(np.float32) / 255


def _light(batch: Batch, rng: np.random.Generator) -> Batch:
    """The same random light and colour for a clip's target and references; noise on the sound."""
    count = batch.real.shape[0]
    gamma = torch.from_numpy(np.exp(rng.normal(0, 0.15, (count, 1, 1, 1, 1))).astype(np.float32))
    gain = torch.from_numpy(np.exp(rng.normal(0, 0.1, (count, 1, 3, 1, 1))).astype(np.float32))
    gain = gain * torch.from_numpy(np.exp(rng.normal(0, 0.1, (count, 1, 1, 1, 1))).astype(np.float32))

    def relight(faces: Tensor) -> Tensor:
        return (faces.clamp(1e-4, 1) ** gamma * gain).clamp_(0, 1)

    return Batch(
        relight(batch.real),
        relight(batch.references),
        noisy_sound(batch.windows, rng),
        noisy_sound(batch.expert_mel, rng),
        batch.mouth,
        batch.shape,
    )


def noisy_sound(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """Mel windows (B, ..., 80, W) with random level, spectral tilt and noise floor; one draw for each of the B."""
    lead = (mel.shape[0],) + (1,) * (mel.ndim - 1)
    level = torch.from_numpy(rng.normal(0, 0.05, lead).astype(np.float32))
    tilt = (
        torch.from_numpy(rng.normal(0, 0.05, lead).astype(np.float32)) * torch.linspace(-1, 1, mel.shape[-2])[:, None]
    )
    floor = torch.from_numpy(rng.uniform(-1.4, -0.45, lead).astype(np.float32))
    louder = mel + level + tilt
    softened = torch.maximum(louder, floor + 0.04 * torch.randn_like(mel))
    return softened.clamp(-1, 1.2)


def masked_faces(real: Tensor) -> Tensor:
    """What the identity encoder may see of (B, T, 3, S, S): the upper half [3.2, 3.6]."""
    return mask_lower_half(real.flatten(0, 1))
