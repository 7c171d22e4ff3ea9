"""Training of the occlusion network: `lipdub train --stage occlusion`.

A sample is a face of the data set, with a synthetic object in front of it or none, and the median of the person's
crops. The object may be in the median as well (it never moves), or only there (it has gone). Loss: BCE, and the Dice
loss of samples with an object.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lipdub.affine import compose
from lipdub.config import TrainConfig
from lipdub.data.store import AGAIN, ClipEntry, read_arrays, read_manifest
from lipdub.errors import InputError
from lipdub.faces.backend import Frame
from lipdub.faces.crop import crop_matrix
from lipdub.faces.mouth_shape import OPENINGS, mouth_shape
from lipdub.faces.occlusion import MARGIN, usual_face
from lipdub.models.occlusion import OCCLUSION_SIDE, OcclusionNet
from lipdub.training.augment import Augmentation
from lipdub.training.engine import Engine
from lipdub.training.facedata import degrade, read_frames
from lipdub.training.faces import PictureTraining, picture_tensor
from lipdub.training.occluders import Occluder, sample_occluder

STORED_SIDE, STORED_MARGIN = 112, 1.5  # of the crops in memory; the jitter of a sample stays within
SIDE = 96  # of the crops on which objects are drawn
SEEN, EVEN, WIDE = 24, 5, 6  # frames of a clip: its median is of; kept, evenly spread; kept, with the widest mouths
OCCLUDED = 0.5  # share of samples with an object
FIXED, GHOST, GONE = 0.2, 0.25, 0.1  # shares with an object in the median: the same, its trace, one that has gone
SHORT, PHOTO, ELSEWHEN = 0.15, 0.05, 0.15  # shares whose median is another frame, the picture itself, of another clip
FAINTEST_GHOST, STRONGEST_GHOST = 0.15, 0.6
SPEAKER_POWER = 0.5  # a speaker with n clips is drawn with probability ~ n ** SPEAKER_POWER
SHADED = 0.15  # share of samples without an object that have its shadow
WORST = 0.02  # share of the pixels of a sample without an object whose loss counts once more
STRENGTH = 0.5  # of lens distortion, stretching and side light


@dataclass(frozen=True)
class ClipFaces:
    """Some crops of a clip, and their median, of STORED_SIDE pixels."""

    faces: NDArray[np.uint8]  # (n, side, side, 3)
    usual: Frame


def load_faces(folder: Path, workers: int = 1) -> list[list[ClipFaces]]:
    """Faces of the clips to train on, by speaker; clips that cannot be read are left out.

    Raises:
        InputError: no data set, or none of its clips can be read.
    """
    entries, _ = read_manifest(folder, "train")
    speakers: dict[str, list[ClipFaces]] = defaultdict(list)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for entry, clip in zip(entries, pool.map(lambda each: _load_clip(folder, each), entries), strict=True):
            if clip is not None:
                speakers[entry.speaker].append(clip)
    if not speakers:
        raise InputError(f"no clip of {folder} can be read", AGAIN)
    return list(speakers.values())


def _load_clip(folder: Path, entry: ClipEntry) -> ClipFaces | None:
    try:
        landmarks, _, _ = read_arrays(folder, entry.id)
    except InputError:
        return None
    seen, even = (np.unique(np.linspace(0, len(landmarks) - 1, n).astype(int)) for n in (SEEN, EVEN))
    wide = np.argsort(-mouth_shape(landmarks)[:, OPENINGS].mean(1))[:WIDE]
    faces = {
        index: cv2.warpAffine(
            frame,
            crop_matrix(landmarks[index], STORED_SIDE, margin=STORED_MARGIN),
            (STORED_SIDE, STORED_SIDE),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for index, frame in read_frames(folder / "clips" / f"{entry.id}.mp4", {*seen, *even, *wide})
    }
    kept = [faces[index] for index in (*even, *wide) if index in faces]
    if not kept:
        return None
    usual = np.stack([faces[index] for index in seen if index in faces]).astype(np.uint8)
    return ClipFaces(np.stack(kept).astype(np.uint8), usual_face(usual))


def occlusion_sample(
    clips: Sequence[ClipFaces], others: Sequence[ClipFaces], rng: np.random.Generator
) -> tuple[Frame, Frame, NDArray[np.float32]]:
    """A face, the person's usual one, both (64, 64, 3), and the opacity (64, 64) of what lies in front of the face.

    `clips` are of one person; the faces of `others` give skins and textures.
    """
    clip, kind = _any_of(clips, rng), rng.random()
    face, usual = clip.faces[rng.integers(len(clip.faces))], clip.usual
    if kind < SHORT:
        usual = clip.faces[rng.integers(len(clip.faces))]
    elif kind < SHORT + PHOTO:
        usual = face
    elif kind < SHORT + PHOTO + ELSEWHEN:
        usual = _any_of(clips, rng).usual
    still = SHORT <= kind < SHORT + PHOTO
    augmentation = Augmentation.sample(rng, STRENGTH)
    matrix = _crop_of_stored(augmentation, rng)
    near = matrix if still else compose(_jitter(SIDE, rng, 0.015, 0.008, 0.8), matrix)
    now = augmentation if still else augmentation.relight(rng, 0.15)
    faces = [
        look.warp(picture, each, SIDE).astype(np.float32) * look.light(SIDE)[..., None].astype(np.float32)
        for picture, each, look in ((face, matrix, augmentation), (usual, near, now))
    ]
    if not still:
        faces[1] = faces[1] * np.float32(np.exp(rng.normal(0, 0.05)))
    occluded, chance = bool(rng.random() < OCCLUDED), rng.random()
    occluders: list[Occluder] = []
    if occluded or chance < GONE + SHADED:
        other = _any_of(others, rng)
        texture = np.asarray(cv2.resize(other.faces[rng.integers(len(other.faces))], (SIDE, SIDE)), np.uint8)
        occluders = _occluders(np.clip(faces[0], 0, 255).astype(np.uint8), texture, rng)
    alpha = np.zeros((SIDE, SIDE), np.float32)
    for occluder in occluders:
        if occluded:
            faces[0] = occluder.over(occluder.shadow(faces[0], rng))
            alpha = np.maximum(alpha, occluder.alpha)
        elif chance >= GONE:
            faces[0] = occluder.shadow(faces[0], rng)
    faces[1] = faces[0].copy() if still else _usual_with(faces[1], occluders, occluded, chance, rng)
    return _compose(faces, alpha, rng)


def _any_of(clips: Sequence[ClipFaces], rng: np.random.Generator) -> ClipFaces:
    return clips[int(rng.integers(len(clips)))]


def _compose(
    faces: list[NDArray[np.float32]], alpha: NDArray[np.float32], rng: np.random.Generator
) -> tuple[Frame, Frame, NDArray[np.float32]]:
    """Both faces mirrored, degraded alike, and shrunk, with the opacity."""
    both = np.clip(np.hstack(faces), 0, 255).astype(np.uint8)
    both = degrade(both, rng)
    size = (OCCLUSION_SIDE, OCCLUSION_SIDE)
    face, usual, label = (
        cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)
        for image in (both[:, :SIDE], both[:, SIDE:], alpha)
    )
    if rng.random() < 0.5:
        face, usual, label = face[:, ::-1], usual[:, ::-1], label[:, ::-1]
    return np.asarray(face, np.uint8), np.asarray(usual, np.uint8), np.asarray(label, np.float32)


def _occluders(face: Frame, other: Frame, rng: np.random.Generator) -> list[Occluder]:
    """One object, or two, of which some pixel lies in the crop."""
    occluders: list[Occluder] = []
    count = 1 + int(rng.random() < 0.15)
    for _ in range(4 * count):
        made = sample_occluder(face, other, rng)
        if made.alpha.mean() > 0.004:
            occluders.append(made)
        if len(occluders) == count:
            break
    return occluders


def _usual_with(
    usual: NDArray[np.float32],
    occluders: Sequence[Occluder],
    occluded: bool,
    chance: float,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """The median with objects that were there before, too: all of them, a trace, as they moved, or what has gone."""
    if occluded and chance < FIXED and all(each.may_stay for each in occluders):
        moved = rng.normal(0, 0.01, 2)
        for occluder in occluders:
            usual = occluder.shifted(*moved).over(usual)
    elif FIXED <= chance < FIXED + GHOST if occluded else chance < GONE:
        for occluder in occluders:
            opacity = rng.uniform(FAINTEST_GHOST, STRONGEST_GHOST if occluded else 1)
            usual = occluder.shifted(*rng.normal(0, 0.08, 2)).over(usual, opacity)
    return usual


def _crop_of_stored(augmentation: Augmentation, rng: np.random.Generator) -> NDArray[np.float64]:
    """(2, 3) stored crop -> a crop of SIDE pixels with MARGIN, jittered."""
    scale = SIDE / STORED_SIDE * STORED_MARGIN / MARGIN
    middle = np.array([[scale, 0, SIDE / 2 - scale * STORED_SIDE / 2], [0, scale, SIDE / 2 - scale * STORED_SIDE / 2]])
    shaped = np.column_stack([augmentation.build, (np.eye(2) - augmentation.build) @ [SIDE / 2, SIDE / 2]])
    return compose(_jitter(SIDE, rng, 0.04, 0.02, 3.0), compose(shaped, middle))


def _jitter(side: int, rng: np.random.Generator, scale: float, shift: float, degrees: float) -> NDArray[np.float64]:
    """A small random similarity about the middle: standard deviations of log scale, shift in sides, and angle."""
    angle, factor = rng.normal(0, degrees), float(np.exp(rng.normal(0, scale)))
    matrix = np.array(cv2.getRotationMatrix2D((side / 2, side / 2), angle, factor), np.float64)
    matrix[:, 2] += rng.normal(0, shift, 2) * side
    return matrix


def occlusion_loss(logits: Tensor, opacity: Tensor) -> Tensor:
    """BCE over all pixels; the soft Dice loss of samples with an object; the worst pixels of those without.

        L = BCE + mean over occluded samples of  1 - (2 sum p a + 1) / (sum p + sum a + 1)
                + mean over bare samples of the mean BCE of their WORST share of pixels

    A false alarm is a mouth that is not dubbed, and most are small. Logits and opacity in [0, 1] are (N, S, S).
    """
    cross = F.binary_cross_entropy_with_logits(logits, opacity)
    probability, occluded = logits.sigmoid(), opacity.amax((1, 2)) > 0.5
    common = (probability * opacity).sum((1, 2))
    dice = 1 - (2 * common + 1) / (probability.sum((1, 2)) + opacity.sum((1, 2)) + 1)
    worst = F.softplus(logits.flatten(1)).topk(max(1, round(WORST * logits[0].numel())), 1).values.mean(1)
    bare = ~occluded
    return (
        cross + (dice * occluded).sum() / occluded.sum().clamp(min=1) + (worst * bare).sum() / bare.sum().clamp(min=1)
    )


class OcclusionTraining(PictureTraining[OcclusionNet]):
    """The occlusion network, its averaged copy, optimizer and the faces of a data set.

    Nothing is held out: real occlusions are measured on other footage.

    Raises:
        InputError: no data set, or none of its clips can be read.
    """

    def __init__(
        self, data: Path, config: TrainConfig, engine: Engine, *, start: OcclusionNet | None = None, seed: int = 0
    ) -> None:
        self.speakers = load_faces(data, config.workers)
        self.all = [clip for clips in self.speakers for clip in clips]
        weights = np.array([len(clips) for clips in self.speakers], np.float64) ** SPEAKER_POWER
        self.weights = weights / weights.sum()
        super().__init__("occlusion", start or OcclusionNet(), config, engine, seed)

    def sample(self, step: int, part: int) -> tuple[Tensor, Tensor, Tensor]:
        """Faces (N, 3, 64, 64), the usual ones, and opacities (N, 64, 64)."""
        rng = np.random.default_rng((self.seed, step, part))
        chosen = rng.choice(len(self.speakers), self.engine.part_clips, p=self.weights)
        samples = []
        for number in chosen:
            samples.append(occlusion_sample(self.speakers[number], self.all, rng))
        faces, usual, opacity = (np.stack(column) for column in zip(*samples, strict=True))
        return picture_tensor(faces), picture_tensor(usual), torch.from_numpy(opacity)

    def loss(self, *sample: Tensor) -> Tensor:
        """`occlusion_loss` of the network."""
        faces, usual, opacity = sample
        return occlusion_loss(self.wrapped(faces, usual).float(), opacity)

    def pictures(self) -> list[Tensor]:
        """Faces of one batch, the usual ones, opacities, and what the averaged network finds; (N, 3, 64, 64) each."""
        faces, usual, opacity = self.sample(0, 0)
        network = self.average.eval()
        with torch.inference_mode():
            probability = network(faces.to(self.engine.device), usual.to(self.engine.device)).sigmoid().cpu()
        return [faces, usual, *(each[:, None].expand(-1, 3, -1, -1) for each in (opacity, probability))]
