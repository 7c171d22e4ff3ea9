"""Training of the builtin face networks: `lipdub train --stage faces --set train.network=detector|landmarks`.

Detector: focal loss on a Gaussian heat map (alpha 2, beta 4) and smooth L1 on centre and log size.
Landmarks: smooth L1 in units of the outer-eye-corner distance, lips and eyes count double; BCE on confidence.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipdub.models.facenets import FaceDetector, LandmarkNet
from lipdub.training.facedata import (
    BACKGROUNDS,
    LabelledFrame,
    LabelledPatch,
    detector_sample,
    detector_targets,
    landmark_sample,
    load_backgrounds,
    load_frames,
    load_patches,
)

DETECTOR_CANVAS = (224, 320)  # height, width of a training picture
BACKGROUND_SHARE = 0.15  # of the pictures show no face at all
GROUP_POWER = 0.5  # a folder with n samples is drawn with probability ~ n ** GROUP_POWER


def detector_loss(output: Tensor, heat: Tensor, values: Tensor, weight: Tensor) -> Tensor:
    """Focal loss of the score map plus smooth L1 of the boxes; (B, 5, h, w) against detector_targets."""
    score = output[:, 0].sigmoid().clamp(1e-4, 1 - 1e-4)
    centre = heat > 0.999
    positive = -((1 - score) ** 2) * score.log() * centre
    negative = -((1 - heat) ** 4) * score**2 * (1 - score).log() * ~centre
    boxes = F.smooth_l1_loss(output[:, 1:], values, beta=0.1, reduction="none").sum(1) * weight
    return (positive.sum() + negative.sum()) / centre.sum().clamp(min=1) + boxes.sum() / weight.sum().clamp(min=1)


def landmark_loss(points: Tensor, logits: Tensor, true_points: Tensor, is_face: Tensor) -> Tensor:
    """Smooth L1 over the outer-eye-corner distance plus BCE of the confidence; points (N, 68, 2)."""
    unit = (true_points[:, 36] - true_points[:, 45]).norm(dim=1).clamp(min=0.05)[:, None, None]
    error = F.smooth_l1_loss(points / unit, true_points / unit, beta=0.02, reduction="none").sum(2)
    importance = torch.ones(68, device=points.device)
    importance[36:48] = 2.0
    importance[48:] = 2.0
    error = (error * importance).mean(1) * is_face
    return 10 * error.sum() / is_face.sum().clamp(min=1) + F.binary_cross_entropy_with_logits(logits, is_face)


def _pick_group(sizes: dict[str, int], rng: np.random.Generator) -> str:
    weights = np.array(list(sizes.values()), float) ** GROUP_POWER
    if BACKGROUNDS in sizes:
        weights[list(sizes).index(BACKGROUNDS)] = BACKGROUND_SHARE * weights.sum()
    return str(rng.choice(list(sizes), p=weights / weights.sum()))


def _detector_batch(groups: dict[str, list[LabelledFrame]], batch: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
    height, width = DETECTOR_CANVAS
    sizes = {name: len(group) for name, group in groups.items()}
    images, boxes = zip(
        *(detector_sample(groups[_pick_group(sizes, rng)], height, width, rng) for _ in range(batch)), strict=True
    )
    targets = (torch.from_numpy(t) for t in detector_targets(list(boxes), height, width))
    return (_to_tensor(np.stack(images)), *targets)


def _landmark_batch(groups: dict[str, list[LabelledPatch]], batch: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
    sizes = {name: len(group) for name, group in groups.items()}
    samples = [landmark_sample(groups[_pick_group(sizes, rng)], rng) for _ in range(batch)]
    images, points, faces = (np.stack(column) for column in zip(*samples, strict=True))
    return _to_tensor(images), torch.from_numpy(points), torch.from_numpy(faces).float()


def _to_tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255).contiguous(memory_format=torch.channels_last)


def train_faces(
    network: str,
    clips: Path,
    labels: Path,
    run: Path,
    *,
    minutes: float,
    batch: int = 24,
    learning_rate: float = 2e-3,
    seed: int = 0,
    on_line: Callable[[str], None] = print,
) -> Path:
    """Train "detector" or "landmarks" for a wall-clock time; returns the checkpoint, which a later call resumes.

    The rate falls by a cosine to zero at the end of `minutes`, counted over all calls on the same run folder.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    if network == "detector":
        model: nn.Module = FaceDetector()
        frames = load_frames(clips, labels, per_clip=4) | {BACKGROUNDS: load_backgrounds()}
        counts = {name: len(group) for name, group in frames.items()}
    else:
        model = LandmarkNet()
        patches = load_patches(clips, labels, per_clip=12)
        counts = {name: len(group) for name, group in patches.items()}
    on_line(f"{network}: {counts}")
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=1e-4)
    run.mkdir(parents=True, exist_ok=True)
    checkpoint = run / f"{network}.pt"
    step, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent_s"]
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=True
    )
    started, last, losses = time.monotonic() - spent, time.monotonic(), []
    model.train()
    while (share := (time.monotonic() - started) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * share))
        if network == "detector":
            images, *targets = _detector_batch(frames, batch, rng)
            loss = detector_loss(model(images), *targets)
        else:
            images, *targets = _landmark_batch(patches, batch, rng)
            loss = landmark_loss(*model(images), *targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        averaged.update_parameters(model)
        losses.append(float(loss.detach()))
        step += 1
        if time.monotonic() - last > 30:
            last = time.monotonic()
            _save(checkpoint, model, averaged.module, optimizer, step, last - started)
            on_line(json.dumps({"network": network, "step": step, "share": round(share, 3), "loss": np.mean(losses)}))
            losses.clear()
    _save(checkpoint, model, averaged.module, optimizer, step, 60 * minutes)
    return checkpoint


def _save(
    path: Path, model: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer, step: int, spent_s: float
) -> None:
    state = {
        "model": model.state_dict(),
        "ema": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "spent_s": spent_s,
    }
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    temporary.replace(path)
