"""Training of the builtin face networks: `lipdub train --stage detector`, `lipdub train --stage landmarks`.

Detector: focal loss on a Gaussian heat map (alpha 2, beta 4) and smooth L1 on centre and log size.
Landmarks: smooth L1 in units of the outer-eye-corner distance, lips and eyes count double; cross-entropy of the maps
that the points are the centres of; BCE on confidence.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lipdub.config import TrainConfig
from lipdub.errors import InputError
from lipdub.models.facenets import FaceDetector, LandmarkNet, centres, spread
from lipdub.training.engine import Engine, Network
from lipdub.training.facedata import (
    BACKGROUNDS,
    detector_sample,
    detector_targets,
    landmark_sample,
    load_backgrounds,
    load_frames,
    load_patches,
)
from lipdub.training.loop import Stage

DETECTOR_CANVAS = (224, 320)  # height, width of a training picture
BACKGROUND_SHARE = 0.15  # of the pictures show no face at all
GROUP_POWER = 0.5  # a folder with n samples is drawn with probability ~ n ** GROUP_POWER
FRAMES_A_CLIP, PATCHES_A_CLIP = 4, 12  # kept of a short clip, for the detector and for the landmarks
WARM_UP = 200  # steps in which the rate rises
WEIGHT_DECAY = 1e-4  # of AdamW
MAP_WEIGHT = 0.2  # of the maps' divergence, beside 10 for the points


def detector_loss(output: Tensor, heat: Tensor, values: Tensor, weight: Tensor) -> Tensor:
    """Focal loss of the score map plus smooth L1 of the boxes; (B, 5, h, w) against detector_targets."""
    score = output[:, 0].sigmoid().clamp(1e-4, 1 - 1e-4)
    centre = heat > 0.999
    positive = -((1 - score) ** 2) * score.log() * centre
    negative = -((1 - heat) ** 4) * score**2 * (1 - score).log() * ~centre
    boxes = F.smooth_l1_loss(output[:, 1:], values, beta=0.1, reduction="none").sum(1) * weight
    return (positive.sum() + negative.sum()) / centre.sum().clamp(min=1) + boxes.sum() / weight.sum().clamp(min=1)


def landmark_loss(maps: Tensor, logits: Tensor, true_points: Tensor, is_face: Tensor) -> Tensor:
    """Smooth L1 over the outer-eye-corner distance, divergence of the maps, BCE of the confidence.

    Args:
        maps: (N, 68, h, w), from LandmarkNet.
        logits: (N,) of its confidence.
        true_points: (N, 68, 2) in the unit crop.
        is_face: (N,) 1 or 0; where it is 0 the points are free.
    """
    points = centres(maps)
    unit = (true_points[:, 36] - true_points[:, 45]).norm(dim=1).clamp(min=0.05)[:, None, None]
    error = F.smooth_l1_loss(points / unit, true_points / unit, beta=0.02, reduction="none").sum(2)
    true_maps = spread(true_points, *maps.shape[-2:]).flatten(2)
    log_maps = maps.flatten(2).log_softmax(2)
    divergence = F.kl_div(log_maps, true_maps, reduction="none").sum(2)
    importance = torch.ones(68, device=points.device)
    importance[36:48] = 2.0
    importance[48:] = 2.0
    each = ((10 * error + MAP_WEIGHT * divergence) * importance).mean(1) * is_face
    return each.sum() / is_face.sum().clamp(min=1) + F.binary_cross_entropy_with_logits(logits, is_face)


class PictureTraining(Stage[Network]):
    """A small network that learns from random pictures, with AdamW and an averaged copy; a subclass makes the pictures.

    `kind` is the network's, and the name of its loss.
    """

    def __init__(self, kind: str, model: Network, config: TrainConfig, engine: Engine, seed: int) -> None:
        self.kind, self.config, self.seed = kind, config, seed
        model = engine.place(model)
        optimizer = torch.optim.AdamW(model.parameters(), config.learning_rate, weight_decay=WEIGHT_DECAY)
        super().__init__(engine, model, optimizer, ema=config.ema)
        self._risen = 1 / WARM_UP  # share of the full rate

    def losses(self, sample: tuple[Tensor, ...], step: int) -> dict[str, Tensor]:
        """The network's loss."""
        self.wrapped.train()
        self._risen = min(1.0, (step + 1) / WARM_UP)
        return {self.kind: self.loss(*sample)}

    @abstractmethod
    def loss(self, *sample: Tensor) -> Tensor:
        """The loss of a batch."""

    def update(self, losses: dict[str, Tensor], share: float) -> dict[str, float]:
        """One part of a step of AdamW at a rate that rises, then falls by a cosine to 0 at the end of the run."""
        rate = self.config.learning_rate * self._risen * 0.5 * (1 + math.cos(math.pi * share))
        self.descend(losses[self.kind], rate)
        return {}


class FaceTraining(PictureTraining[nn.Module]):
    """The detector or the landmark network, its averaged copy, optimizer and labelled pictures.

    Labels are what scripts/label_faces.py wrote for the clips. Nothing is held out: `python -m benchmarks faces`
    measures the networks on other footage.

    Raises:
        InputError: no labels for these clips.
    """

    def __init__(
        self, network: str, clips: Path, labels: Path, config: TrainConfig, engine: Engine, *, seed: int = 0
    ) -> None:
        self.groups: dict[str, list[Any]]  # samples of each folder
        if network == "detector":
            self.groups = load_frames(clips, labels, FRAMES_A_CLIP) | {BACKGROUNDS: load_backgrounds()}
            model: nn.Module = FaceDetector()
        else:
            self.groups, model = load_patches(clips, labels, PATCHES_A_CLIP), LandmarkNet()
        if not any(group for name, group in self.groups.items() if name != BACKGROUNDS):
            raise InputError(f"no clear face in {labels}", "label other footage")
        super().__init__(network, model, config, engine, seed)

    def sample(self, step: int, part: int) -> tuple[Tensor, ...]:
        """Random pictures, then what the network should make of them."""
        rng = np.random.default_rng((self.seed, step, part))
        return self._detector_batch(rng) if self.kind == "detector" else self._landmark_batch(rng)

    def loss(self, *sample: Tensor) -> Tensor:
        """The network's loss."""
        images, *targets = sample
        if self.kind == "detector":
            return detector_loss(self.wrapped(images).float(), *targets)
        maps, logits = self.wrapped(images)
        return landmark_loss(maps.float(), logits.float(), *targets)

    def _detector_batch(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        height, width = DETECTOR_CANVAS
        samples = [detector_sample(group, height, width, rng) for group in self._draw_groups(rng)]
        images, boxes = zip(*samples, strict=True)
        targets = (torch.from_numpy(t) for t in detector_targets(list(boxes), height, width))
        return (picture_tensor(np.stack(images)), *targets)

    def _landmark_batch(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        samples = [landmark_sample(group, rng) for group in self._draw_groups(rng)]
        images, points, faces = (np.stack(column) for column in zip(*samples, strict=True))
        return picture_tensor(images), torch.from_numpy(points), torch.from_numpy(faces).float()

    def _draw_groups(self, rng: np.random.Generator) -> list[list[Any]]:
        """A group for each picture of a batch."""
        names = list(self.groups)
        weights = np.array([len(group) for group in self.groups.values()], np.float64) ** GROUP_POWER
        if BACKGROUNDS in names:
            weights[names.index(BACKGROUNDS)] = 0
            weights[names.index(BACKGROUNDS)] = weights.sum() * BACKGROUND_SHARE / (1 - BACKGROUND_SHARE)
        return [self.groups[name] for name in rng.choice(names, self.engine.part_clips, p=weights / weights.sum())]


def picture_tensor(images: NDArray[np.uint8]) -> Tensor:
    """(N, H, W, 3) -> (N, 3, H, W) in [0, 1], channels last in memory."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255).contiguous(memory_format=torch.channels_last)
