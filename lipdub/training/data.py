"""Prepared clips in memory, and training batches for the expert and the generator [3.5, 3.6].

A sample is T consecutive faces, their audio, and K references from the same clip that are not adjacent to the target.
Target and references are cropped with independent jitter, so that they are never aligned to the pixel.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.signal import lfilter
from torch import Tensor

from lipdub.affine import transform
from lipdub.config import Config
from lipdub.data.shards import unpacked
from lipdub.data.store import AGAIN, RATE, ClipEntry, read_clip, read_manifest
from lipdub.errors import InputError
from lipdub.faces.backend import Frame
from lipdub.faces.crop import mouth_mask, parted_lips
from lipdub.faces.mouth_shape import OPENINGS, mouth_shape, relative_shape, rest_shape
from lipdub.faces.open_mouth import is_closed, opened
from lipdub.faces.references import best_of_each, cluster, sharpness
from lipdub.mel import mel_windows
from lipdub.models.layers import mask_lower_half
from lipdub.training.augment import IDENTITY, Augmentation

LIGHT_CHANGE = 0.02  # log gain, standard deviation, between a clip's frames in training: once per channel, once in all
DARKEST = 0.05  # smallest gain of a sample in a fade (train.dark)
CLOSED_SHARE, WIDE_SHARE = 0.2, 0.2  # shares of a clip's frames that count as closed and as wide open
CLOSED_AT = 0.6  # mean opening, in mouth-shape code, above which a frame is never a closed mouth
DRAWN_OPEN = (0.1, 0.25), (0.25, 0.5)  # ranges of openings, in mouth widths, of closed mouths that are drawn open
LIGHT_TURN = 0.15  # strength of `Augmentation.relight` between a clip's target and its references
VOICE_PACE, VOICE_PITCH, VOICE_SPREAD = 0.06, 3.5, 0.05  # of `vary_voice`: log time, mel bands, log mel axis
BABBLE_SHARE, BABBLE_DB = 0.3, (3.0, 25.0)  # of `obscure_speech`: share of runs with a second voice, dB below the first
HIDDEN_BANDS, HIDDEN_LEVEL = 13, -0.7  # of `obscure_speech`: most bands that are masked, their mel value
REVERB_S, REVERB_DB = (0.2, 0.9), (0.0, 18.0)  # of `add_reverb`
MEL_RATE = 80  # steps of a mel spectrogram a second
DB_PER_UNIT = 50.0  # of a mel value (lipdub/mel.py)
AUDIO_RUN = 16  # consecutive frames (0.64 s) in a sample for predicting mouth shapes from audio
SAMPLINGS = ("random", "neighbourhood", "kmeans")  # of references: Table 4.1, column 1
# left and right inner opening trade places in a mirrored face; all other numbers of the code are symmetric
MIRRORED_SHAPE = np.array([0, 2, 1, 3, 4, 5, 6, 7])


@dataclass(frozen=True)
class Clip:
    """One clip in memory."""

    entry: ClipEntry
    frames: NDArray[np.uint8]  # (T, side, side, 3)
    landmarks: NDArray[np.float32]  # (T, 68, 2) stored pixels
    mel: NDArray[np.float32]  # (80, M)
    rest: NDArray[np.float32]  # (C,) mouth at rest
    shape: NDArray[np.float32]  # (T, C) mouth-shape code relative to it
    closed: NDArray[np.bool_]  # (T,)
    rest_landmarks: NDArray[np.float32]  # (68, 2) stored pixels, of the frame whose mouth is nearest to rest
    clusters: NDArray[np.int64]  # (T,) KMeans label of lips and chin
    sharpness: NDArray[np.float32]  # (T,)

    @property
    def opening(self) -> NDArray[np.float32]:
        """(T,) mean code of the inner openings."""
        return np.asarray(self.shape[:, OPENINGS].mean(1), np.float32)


class _Faces(NamedTuple):
    """N faces of a clip in stored pixels."""

    pictures: list[NDArray[np.uint8]]
    landmarks: NDArray[np.float32]  # (N, 68, 2)

    def draw_open(self, place: int, source: int, opening: float) -> None:
        """Replace the face at `place` by the one at `source` with its mouth drawn open, in mouth widths."""
        [(self.pictures[place], self.landmarks[place])] = opened(
            self.pictures[source], self.landmarks[source], [opening]
        )


class Batch(NamedTuple):
    """B clips of T frames; S the face side, K references, W mel steps, C shape numbers."""

    real: Tensor  # (B, T, 3, S, S) in [0, 1]
    references: Tensor  # (B, K, 3, S, S) lower halves only, unless `generator.whole_references`
    known: Tensor  # (B, K) bool; False at a place that holds no reference
    reference_shapes: Tensor  # (B, K, C) their mouth shapes
    windows: Tensor  # (B, T, 80, W) mel of each frame
    expert_mel: Tensor  # (B, 80, 16) mel of the whole clip
    mouth: Tensor  # (B, T, 1, S, S) true mouth mask
    changed: Tensor  # (B, T, 1, S, S) the mouth mask, widened by the jaw of the aligned reference where there is one
    lips: Tensor  # (B, T, 1, S, S) 1 between the lips and a little around
    unseen: Tensor  # (B, T) in [0, 1], SHAPE_SCALE by which the mouth is open wider than in any undrawn reference
    shape: Tensor  # (B, T, C)


class ClipSet:
    """All clips of one split of a data set, or of its shards, in memory, and random batches of them.

    Clips too short to have a reference that is no neighbour of the target, wherever that lies, are left out, and so are
    damaged ones; `left_out` says which and why.

    Raises:
        InputError: no data set, no usable clip in the split, damaged shards, or an unknown `reference.sampling`.
    """

    def __init__(self, folder: Path, split: str, config: Config, seed: int = 0) -> None:
        if config.reference.sampling not in SAMPLINGS:
            what = f"reference.sampling cannot be {config.reference.sampling!r}"
            raise InputError(what, f"it is one of {', '.join(SAMPLINGS)}")
        stored, summary = read_manifest(folder, split)
        shortest = max(config.train.frames, config.expert.frames) + 2 * config.reference.exclude + 1
        shortest = max(shortest, AUDIO_RUN) if config.generator.shape_code else shortest
        self.left_out = {e.id: f"shorter than {shortest} frames" for e in stored if e.frames < shortest}
        entries = [entry for entry in stored if entry.frames >= shortest]
        if not entries:
            raise InputError(f"{folder} has no clip of {shortest} frames in split {split!r}", "prepare longer footage")
        self.config, self.seed = config, seed
        self.margin = float(summary["margin"])  # type: ignore[arg-type]
        self.reseed(self.seed)
        with unpacked(folder, stored) as place, ThreadPoolExecutor(max(1, config.train.workers)) as pool:
            loaded = pool.map(lambda entry: self._load(place, entry), entries)
            self.clips = [clip for clip in loaded if clip is not None]
        self.left_out = {key: why.replace(str(place), str(folder)) for key, why in self.left_out.items()}
        if not self.clips:
            raise InputError(f"no clip in split {split!r} can be read: {next(reversed(self.left_out.values()))}", AGAIN)
        starts = np.array([clip.entry.frames - config.train.frames + 1 for clip in self.clips], np.float64)
        self.weights = clip_weights([clip.entry.speaker for clip in self.clips], starts, config.train.speaker_cap)

    def reseed(self, seed: int) -> None:
        """Start the sampling afresh."""
        self.rng = np.random.default_rng(seed)

    def seeded(self, *numbers: int) -> ClipSet:
        """The same clips with a random generator of their own, seeded by the set's seed and these numbers."""
        view = copy.copy(self)
        view.rng = np.random.default_rng((self.seed, *numbers))
        return view

    def _load(self, folder: Path, entry: ClipEntry) -> Clip | None:
        """A clip, or None if it is damaged."""
        try:
            arrays = read_clip(folder, entry)
        except InputError as error:
            self.left_out[entry.id] = error.what
            return None
        shapes = mouth_shape(arrays.landmarks)
        rest = rest_shape(shapes)
        shape = relative_shape(shapes, rest)
        return Clip(
            entry,
            arrays.frames,
            arrays.landmarks,
            arrays.mel,
            rest,
            shape,
            is_closed(shapes),
            arrays.landmarks[np.abs(shape).sum(1).argmin()],
            cluster(arrays.landmarks, self.config.reference.count, seed=0),
            np.array([sharpness(frame) for frame in arrays.frames], np.float32),
        )

    def draw(self, count: int) -> list[Clip]:
        """`count` random clips, by their weights, with replacement."""
        return [self.clips[index] for index in self.rng.choice(len(self.clips), count, p=self.weights)]

    def audio_windows(self, count: int, width: int) -> tuple[Tensor, Tensor]:
        """`count` runs of AUDIO_RUN frames: mel windows (B, L, 80, W) and the mouth shapes (B, L, C) seen with them."""
        windows, shapes = [], []
        for clip in self.draw(count):
            first = int(self.rng.integers(0, len(clip.frames) - AUDIO_RUN + 1))
            at = np.arange(first, first + AUDIO_RUN)
            windows.append(mel_windows(clip.mel, _times(at), self.config.mel, width=width))
            shapes.append(clip.shape[at])
        return torch.from_numpy(np.stack(windows)), torch.from_numpy(np.stack(shapes))

    def batch(self, count: int, size: int, width: int, *, augment: bool = True) -> Batch:
        """`count` random samples, faces of side `size` and mel windows of `width` steps; `augment` varies them."""
        samples = [self._sample(clip, size, width, augment) for clip in self.draw(count)]
        batch = Batch(**{name: torch.from_numpy(np.stack([s[name] for s in samples])) for name in samples[0]})
        return _vary_light(batch, self.rng, self.config.train.dark) if augment else batch

    def faces(self, clip: Clip, first: int, count: int, size: int, *, augment: bool) -> NDArray[np.float32]:
        """`count` faces (T, 3, S, S) of a clip from frame `first` on, under one random crop and light."""
        mirrored = augment and bool(self.rng.random() < 0.5)
        augmentation = self._augmentation(augment)
        matrix = self._crop_matrix(clip, size, augment, augmentation)
        faces = np.stack(
            [_warp(frame, matrix, size, mirrored, augmentation) for frame in clip.frames[first : first + count]]
        )
        if augment:
            gain = np.exp(self.rng.normal(0, 0.1, (1, 3, 1, 1)) + self.rng.normal(0, 0.1))
            faces = np.clip(faces ** np.exp(self.rng.normal(0, 0.15)) * gain, 0, 1).astype(np.float32)
        return faces

    def _sample(self, clip: Clip, size: int, width: int, augment: bool) -> dict[str, NDArray[Any]]:
        n_frames = self.config.train.frames
        at = self._target_frames(clip, n_frames)
        frames, distinct = self._reference_frames(clip, at)
        draw_references = (
            self.config.reference.draw_open and len(frames) > len(DRAWN_OPEN) and bool(clip.closed[frames].all())
        )
        undrawn = frames[: -len(DRAWN_OPEN)] if draw_references else frames
        references, unseen = _faces_at(clip, frames), clip.opening[at] - clip.opening[undrawn].max()
        draw_target = draw_references and bool(self.rng.random() < self.config.train.drawn_targets)
        if draw_target:
            at, unseen = self.rng.choice(np.flatnonzero(clip.closed), n_frames), np.zeros(n_frames)
        target = _faces_at(clip, at)
        if draw_references:
            for place, bounds in enumerate(DRAWN_OPEN, len(frames) - len(DRAWN_OPEN)):
                references.draw_open(place, 1, self.rng.uniform(*bounds))
        if draw_target:
            opening = self.rng.uniform(DRAWN_OPEN[0][0], DRAWN_OPEN[-1][1])
            for place in range(n_frames):
                target.draw_open(place, place, opening)
        mirrored = augment and bool(self.rng.random() < 0.5)
        augmentation = self._augmentation(augment)
        matrix = self._crop_matrix(clip, size, augment, augmentation)
        masks = self._masks(target, references, matrix, size, augmentation)
        times = _times(at)
        middle = times.mean(keepdims=True)
        shape, reference_shapes = (
            self._shape(clip, faces.landmarks, matrix, size, augmentation) for faces in (target, references)
        )
        if mirrored:
            masks = {name: np.ascontiguousarray(mask[..., ::-1]) for name, mask in masks.items()}
            shape, reference_shapes = shape[:, MIRRORED_SHAPE], reference_shapes[:, MIRRORED_SHAPE]
        return masks | {
            "real": np.stack([_warp(face, matrix, size, mirrored, augmentation) for face in target.pictures]),
            "references": self._reference_crops(
                clip, references, distinct, matrix, size, mirrored, augment, augmentation
            ),
            "known": np.arange(self.config.train.references) < len(frames),
            "windows": mel_windows(clip.mel, times, self.config.mel, width=width),
            "expert_mel": mel_windows(clip.mel, middle, self.config.mel, self.config.expert.mel_steps)[0],
            "unseen": np.clip(unseen, 0, 1).astype(np.float32),
            "shape": shape,
            "reference_shapes": np.resize(reference_shapes, (self.config.train.references, reference_shapes.shape[1])),
        }

    def _masks(
        self, target: _Faces, references: _Faces, matrix: NDArray[np.float64], size: int, augmentation: Augmentation
    ) -> dict[str, NDArray[np.float32]]:
        """`mouth`, `changed` and `lips` of `Batch`, each (T, 1, S, S), before mirroring."""
        landmarks = [augmentation.distort(transform(points, matrix), size) for points in target.landmarks]
        margin = self.config.generator.margin
        mouth = np.stack([mouth_mask(points, size, margin=margin)[None] for points in landmarks])
        lips = np.stack([parted_lips(points, size, margin=margin)[None] for points in landmarks])
        changed = mouth
        if self.config.train.aligned_references:
            old = augmentation.distort(transform(references.landmarks[0], matrix), size)
            changed = np.stack([mouth_mask(points, size, margin=margin, others=old)[None] for points in landmarks])
        return {"mouth": mouth, "changed": changed, "lips": lips}

    def _target_frames(self, clip: Clip, n_frames: int) -> NDArray[np.int64]:
        """Consecutive frames (T,) to generate; in a share `train.wide_targets` of samples at a wide opening."""
        last = len(clip.frames) - n_frames
        first = int(self.rng.integers(0, last + 1))
        if self.config.train.wide_targets and self.rng.random() < self.config.train.wide_targets:
            opening = clip.opening[n_frames // 2 : n_frames // 2 + last + 1]
            widest = np.argsort(-opening)[: max(1, round(WIDE_SHARE * len(opening)))]
            first = int(self.rng.choice(widest))
        return np.arange(first, first + n_frames)

    def _reference_frames(self, clip: Clip, target: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
        """Frames of at most K references, and how many distinct ones they begin with [3.5, 3.6].

        With `reference.augment`, repeats fill the remaining places.
        """
        places, same = self.config.train.references, self.config.train.same_frame
        chosen = self.reference_frames(clip, target)
        if same and self.rng.random() < same:
            chosen = np.concatenate([[target[len(target) // 2]], chosen])[:places]
        if not self.config.reference.augment:
            return chosen, len(chosen)
        return np.concatenate([chosen, self.rng.choice(chosen, places - len(chosen))]), len(chosen)

    def _reference_crops(
        self,
        clip: Clip,
        references: _Faces,
        distinct: int,
        target_matrix: NDArray[np.float64],
        size: int,
        mirrored: bool,
        augment: bool,
        augmentation: Augmentation,
    ) -> NDArray[np.float32]:
        """K references (K, 3, S, S) as the generator sees them: all but aligned ones jittered, free places black."""
        blur = self.config.train.reference_blur * size / 96 if augment else 0.0
        faces = np.zeros((self.config.train.references, 3, size, size), np.float32)
        for place, picture in enumerate(references.pictures):
            aligned = place < self.config.train.aligned_references
            jittered = augment or place >= distinct
            matrix = target_matrix if aligned else self._crop_matrix(clip, size, jittered, augmentation)
            own_light = augment and not aligned  # a reference is from another moment, with other light
            relight = own_light and self.config.train.augment > 0
            now = augmentation.relight(self.rng, LIGHT_TURN * self.config.train.augment) if relight else augmentation
            faces[place] = _warp(picture, matrix, size, mirrored, now, blur)
            if own_light:
                faces[place] *= np.exp(self.rng.normal(0, LIGHT_CHANGE, (3, 1, 1)) + self.rng.normal(0, LIGHT_CHANGE))
        np.clip(faces, 0, 1, out=faces)
        if not self.config.generator.whole_references:
            faces[:, :, : size // 2] = 0
        return faces

    def reference_frames(self, clip: Clip, target: NDArray[np.int64]) -> NDArray[np.int64]:
        """Distinct reference frames for a target, at most `train.references`, over `reference.exclude` frames away.

        kmeans: the sharpest of each cluster; random: any; neighbourhood: any that is near [3.5, 3.6]. A share of the
        samples (`train.closed_references`) has only closed mouths, if the clip has any.
        """
        places, reference = self.config.train.references, self.config.reference
        everywhere = np.arange(len(clip.frames))
        far = everywhere[np.abs(everywhere[:, None] - target).min(1) > reference.exclude]
        share = self.config.train.closed_references
        if share and self.rng.random() < share:
            calm = far[np.argsort(clip.opening[far])[: max(1, round(CLOSED_SHARE * len(far)))]]
            calm = calm[clip.opening[calm] <= CLOSED_AT]
            if len(calm):
                return self.rng.permutation(calm)[:places]
        if reference.sampling == "kmeans":
            sharpest = far[best_of_each(clip.clusters[far], clip.sharpness[far])]
            return self.rng.permutation(sharpest)[:places]
        if reference.sampling == "neighbourhood":
            away = np.abs(far - target.mean())
            far = far[away <= max(reference.neighbourhood, away.min())]
        return self.rng.choice(far, min(places, len(far)), replace=False)

    def _augmentation(self, augment: bool) -> Augmentation:
        """One augmentation for all frames of a sample; IDENTITY without `augment`."""
        strength = self.config.train.augment if augment else 0.0
        return Augmentation.sample(self.rng, strength) if strength else IDENTITY

    def _shape(
        self,
        clip: Clip,
        landmarks: NDArray[np.float32],
        matrix: NDArray[np.float64],
        size: int,
        augmentation: Augmentation,
    ) -> NDArray[np.float32]:
        """Mouth-shape codes (N, 8) of landmarks (N, 68, 2) in stored pixels, as the augmentation changes them."""
        seen = np.concatenate([landmarks, clip.rest_landmarks[None]])
        shapes = mouth_shape(seen)
        code = relative_shape(shapes[:-1], clip.rest)
        if augmentation is IDENTITY:
            return code
        change = mouth_shape(augmentation.distort(transform(seen, matrix), size)) - shapes
        return code + relative_shape(change[:-1], change[-1])

    def _crop_matrix(self, clip: Clip, size: int, augment: bool, augmentation: Augmentation) -> NDArray[np.float64]:
        """(2, 3) stored crop -> face crop, without the stored margin; with `augment` jittered."""
        side = clip.frames.shape[1]
        scale, angle, shift = size * self.margin / (side * self.config.generator.margin), 0.0, np.zeros(2)
        if augment:
            scale *= float(np.exp(self.rng.normal(0, 0.03)))
            angle = float(np.deg2rad(self.rng.normal(0, 2.0)))
            shift = self.rng.normal(0, 0.012, 2) * size
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        linear = np.array([[cos, -sin], [sin, cos]]) @ augmentation.build
        return np.hstack([linear, (size / 2 + shift - linear @ np.full(2, side / 2))[:, None]])


def clip_weights(speakers: Sequence[str], frames: NDArray[np.float64], cap: float) -> NDArray[np.float64]:
    """Sampling probability of each clip (N,), in proportion to its `frames` (N,), with no speaker over the cap."""
    speaker = np.unique(speakers, return_inverse=True)[1]
    total = np.bincount(speaker, frames)
    weights: NDArray[np.float64] = capped(total / total.sum(), cap)[speaker] * frames / total[speaker]
    weights /= weights.sum()  # `Generator.choice` requires a sum of 1 to the last digit
    return weights


def capped(share: NDArray[np.float64], cap: float) -> NDArray[np.float64]:
    """Shares (n,) that sum to 1, none over the cap; the excess is distributed over the others in proportion.

    A cap below 1 / n counts as 1 / n.
    """
    cap = max(cap, 1 / len(share))
    out = share.copy()
    full = np.zeros(len(share), bool)
    while np.any(over := ~full & (out > cap + 1e-9)):
        full |= over
        out[full] = cap
        if not full.all():
            out[~full] *= (1 - cap * full.sum()) / out[~full].sum()
    return out


def _faces_at(clip: Clip, frames: NDArray[np.int64]) -> _Faces:
    """The faces of a clip's `frames` (N,)."""
    return _Faces([clip.frames[frame] for frame in frames], clip.landmarks[frames])


def _times(frames: NDArray[np.int64]) -> NDArray[np.float64]:
    """Middle of each frame's display time, in seconds of its clip."""
    return (frames.astype(np.float64) + 0.5) / RATE


def _warp(
    frame: Frame, matrix: NDArray[np.float64], size: int, mirrored: bool, augmentation: Augmentation, blur: float = 0.0
) -> NDArray[np.float32]:
    face = augmentation.warp(frame, matrix, size)
    if blur > 0:
        face = np.asarray(cv2.GaussianBlur(face, (0, 0), blur), np.uint8)
    lit = np.ascontiguousarray(face.transpose(2, 0, 1), np.float32) / np.float32(255)
    if augmentation.light_x or augmentation.light_y:
        lit = np.minimum(lit * augmentation.light(size).astype(np.float32), 1)
    return np.ascontiguousarray(lit[..., ::-1]) if mirrored else lit


def _vary_light(batch: Batch, rng: np.random.Generator, dark: float = 0.0) -> Batch:
    """A batch with random light and colour, the same for a clip's target and references, and with noise in the audio.

    A share `dark` of the clips is darkened as in a fade, with its references: a dub gives them the light of the frame.
    """
    count = batch.real.shape[0]
    gamma = torch.from_numpy(np.exp(rng.normal(0, 0.15, (count, 1, 1, 1, 1))).astype(np.float32))
    gain = torch.from_numpy(np.exp(rng.normal(0, 0.1, (count, 1, 3, 1, 1))).astype(np.float32))
    gain = gain * torch.from_numpy(np.exp(rng.normal(0, 0.1, (count, 1, 1, 1, 1))).astype(np.float32))
    if dark:
        faded = np.where(rng.random(count) < dark, rng.uniform(DARKEST, 1, count), 1.0).astype(np.float32)
        gain = gain * torch.from_numpy(faded)[:, None, None, None, None]
    return batch._replace(
        real=(batch.real**gamma * gain).clamp_(max=1),
        references=(batch.references**gamma * gain).clamp_(max=1),  # black stays black
        windows=add_noise(batch.windows, rng),
        expert_mel=add_noise(batch.expert_mel, rng),
    )


def add_noise(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """Mel windows (B, ..., 80, W) with random level, spectral tilt and noise floor; one draw for each of the B."""
    lead = (mel.shape[0],) + (1,) * (mel.ndim - 1)
    level = torch.from_numpy(rng.normal(0, 0.05, lead).astype(np.float32))
    tilt = torch.from_numpy(rng.normal(0, 0.05, lead).astype(np.float32))
    tilt = tilt * torch.linspace(-1, 1, mel.shape[-2])[:, None]
    floor = torch.from_numpy(rng.uniform(-1.4, -0.45, lead).astype(np.float32))
    hiss = torch.from_numpy(rng.standard_normal(tuple(mel.shape), np.float32))
    return torch.maximum(mel + level + tilt, floor + 0.04 * hiss).clamp(-1, 1.2)


def vary_voice(mel: Tensor, rng: np.random.Generator, pace: float = VOICE_PACE) -> Tensor:
    """Mel windows (B, L, 80, W) as other speakers might have said them, one speaker for each of the B.

    Each window is a little faster or slower about its middle, and spoken by a vocal tract of another length, which
    shifts and stretches the mel axis (after VTLP, Jaitly and Hinton 2013).
    """
    count, length, bands = mel.shape[:3]
    matrix = np.zeros((count, 2, 3), np.float32)
    matrix[:, 0, 0] = np.exp(rng.normal(0, pace, count))
    matrix[:, 1, 1] = np.exp(rng.normal(0, VOICE_SPREAD, count))
    matrix[:, 1, 2] = rng.normal(0, 2 * VOICE_PITCH / bands, count)
    every = torch.from_numpy(matrix).repeat_interleave(length, 0)
    grid = F.affine_grid(every, [count * length, 1, *mel.shape[2:]], align_corners=False)
    moved = F.grid_sample(mel.flatten(0, 1)[:, None], grid, padding_mode="border", align_corners=False)
    return moved.view(mel.shape)


def obscure_speech(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """Mel windows (B, L, 80, W) with bands missing, and a second voice behind a third of the runs.

    Bands, up to HIDDEN_BANDS of them, fall to the floor of a noisy room (SpecAugment, Park et al. 2019). Voices add as
    powers; the second is the next run's, fainter by a level drawn from BABBLE_DB.
    """
    count, bands = mel.shape[0], mel.shape[2]
    decibels = np.where(rng.random(count) < BABBLE_SHARE, rng.uniform(*BABBLE_DB, count), np.inf).astype(np.float32)
    level = torch.from_numpy(decibels / DB_PER_UNIT)[:, None, None, None]
    per_unit = DB_PER_UNIT / 10  # powers of ten
    mixed = torch.log10(10 ** (per_unit * mel) + 10 ** (per_unit * (mel.roll(1, 0) - level))) / per_unit
    width = rng.integers(0, HIDDEN_BANDS + 1, count)
    first = rng.integers(0, bands - width)
    row = np.arange(bands)
    hidden = (first[:, None] <= row) & (row < (first + width)[:, None])  # (B, 80)
    return mixed.masked_fill(torch.from_numpy(hidden)[:, None, :, None], HIDDEN_LEVEL)


def add_reverb(mel: Tensor, rng: np.random.Generator) -> Tensor:
    """Mel spectrograms (B, 80, M), half of them with reverberation: a decaying tail after every sound.

    Powers add. The time to fall by 60 dB is drawn from REVERB_S, the tail's level below the sound from REVERB_DB.
    """
    sound = 10 ** (mel.numpy() * (DB_PER_UNIT / 10))
    for row in np.flatnonzero(rng.random(len(sound)) < 0.5):
        decay = 10 ** (-6 / (rng.uniform(*REVERB_S) * MEL_RATE))
        level = 10 ** (-rng.uniform(*REVERB_DB) / 10) * (1 - decay) / decay
        sound[row] += level * lfilter([0.0, decay], [1.0, -decay], sound[row], axis=-1)
    return torch.from_numpy(np.log10(sound) / (DB_PER_UNIT / 10)).to(mel.dtype)


def masked_faces(real: Tensor) -> Tensor:
    """Input of the identity encoder, of faces (B, T, 3, S, S): the upper half [3.2, 3.6]."""
    return mask_lower_half(real.flatten(0, 1))
