"""Adversarial training of stage 2 [3.7]: discriminator, its optimizer, R1 penalty, augmentation."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipdub.config import Config
from lipdub.losses import discriminator_adversarial, generator_adversarial, r1_penalty
from lipdub.models.discriminator import Discriminator
from lipdub.training.engine import Engine, rate_at

TURN, SCALE, SHIFT = 0.1, 0.1, 0.06  # of the affine: radians, log size, crop sides; standard deviations
ERODED = 0.5  # share of clips that are eroded, by a 3 x 3 minimum at size 96


class DiscriminatorStep(nn.Module):
    """Everything that a step of the discriminator asks of it, in one call, as several processes need it."""

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, real: Tensor, fake: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Logits (B,) of real and generated clips, and the penalty on other views `seen` of the real ones."""
        logits = [self.discriminator(clips).float() for clips in (real, fake)]
        if seen is None:
            return logits[0], logits[1], None
        with torch.autocast(seen.device.type, enabled=False):  # a gradient is taken: no half precision
            return logits[0], logits[1], r1_penalty(self.discriminator(seen), seen)


class Adversary:
    """Tells real clips from generated ones, and learns to as the generator does.

    Thesis: (15) weighs L_D, too; Adam makes a constant factor of it void, so it is left out.
    """

    def __init__(self, config: Config, engine: Engine) -> None:
        self._loss, self._train, self._engine = config.loss, config.train, engine
        self._discriminator = engine.place(Discriminator(config.discriminator))
        optimizer = torch.optim.Adam(self._discriminator.parameters(), config.train.learning_rate)
        self.wrapped, self._optimizer = engine.prepare(DiscriminatorStep(self._discriminator), optimizer)
        self._shown: tuple[Tensor, Tensor] | None = None
        self._learnt = 0  # steps, by which the penalty comes round

    def generator_loss(self, fake: Tensor, real: Tensor) -> Tensor:
        """The generator's loss (13) on clips (B, T, 3, S, S); both kinds are kept for the next `discriminator_step`."""
        self._shown = real.detach(), fake.detach()
        self._discriminator.requires_grad_(False)
        with self._engine.accelerator.autocast():
            return generator_adversarial(self._discriminator(diff_augment(fake)).float())

    def discriminator_step(self, share: float) -> dict[str, float]:
        """A part of a step of Adam on (14), on the clips that `generator_loss` saw last; `share` of the run is done.

        The penalty is taken on every `loss.r1_every`th step and then counts as many times (lazy, arXiv:1912.04958).

        Returns:
            `discriminator`, the loss without the penalty, and `r1`, where it was taken.
        """
        assert self._shown is not None  # generator_loss
        real, fake = self._shown
        self._discriminator.requires_grad_(True)
        every = self._loss.r1_every
        penalized = bool(self._loss.r1_gamma) and self._learnt % every == 0
        seen = diff_augment(real).requires_grad_(True) if penalized else None
        logits_real, logits_fake, penalty = self.wrapped(diff_augment(real), diff_augment(fake), seen)
        loss = discriminator_adversarial(logits_real, logits_fake)
        values = {"discriminator": float(loss.detach())}
        if penalty is not None:
            loss = loss + every * self._loss.r1_gamma / 2 * penalty
            values["r1"] = float(penalty.detach())
        rate = rate_at(share, self._train)
        self._engine.descend(self.wrapped, self._optimizer, loss, rate)
        self._learnt += self._engine.stepping
        return values

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {
            "model": self._discriminator.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "learnt": self._learnt,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self._discriminator.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._learnt = int(state["learnt"])


def diff_augment(clips: Tensor) -> Tensor:
    """Clips as the discriminator sees them: each turned, scaled, moved and perhaps eroded, all its frames alike [3.7].

    Both operations are differentiable in the pixels (DiffAug, arXiv:2006.10738). Clips (B, T, 3, S, S) in [0, 1] keep
    shape and range; what comes from beyond the border is mirrored.
    """
    count, frames, _, size, _ = clips.shape
    draw = torch.randn(count, 4, device=clips.device)
    angle, scale = TURN * draw[:, 0], torch.exp(SCALE * draw[:, 1])
    cos, sin, shift = scale * angle.cos(), scale * angle.sin(), 2 * SHIFT * draw[:, 2:]
    rows = torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)
    matrix = torch.stack(rows, 1).repeat_interleave(frames, 0)  # (B T, 2, 3)
    flat = clips.float().flatten(0, 1)
    grid = F.affine_grid(matrix, list(flat.shape), align_corners=False)
    moved = F.grid_sample(flat, grid, padding_mode="reflection", align_corners=False)
    radius = max(1, round(size / 96))
    eroded = -F.max_pool2d(-moved, 2 * radius + 1, stride=1, padding=radius)
    chosen = (torch.rand(count, device=clips.device) < ERODED).repeat_interleave(frames)
    return torch.where(chosen[:, None, None, None], eroded, moved).view(clips.shape)
