"""Training of the lip-sync expert [3.3]: in sync or not, from the lower half of 5 faces and their mel.

Half of a batch is in sync, the other half hears another time of the same clip (4). Accuracy counts d > 1/2 on held-out
speakers, both halves alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from lipdub.config import Config
from lipdub.losses import expert_bce
from lipdub.mel import mel_windows
from lipdub.models.expert import Expert, lower_halves
from lipdub.training.data import ClipSet, noisy_sound
from lipdub.training.run import annealed, channels_last, descend
from lipdub.training.store import RATE

NEAREST_S = 0.2  # a wrong sound is at least this far from the right one
JUDGED_BATCHES, JUDGED_CLIPS = 8, 64  # of a validation
JUDGE_SEED = 7  # every validation sees the same samples


class ExpertTraining:
    """Expert, optimizer and data of one run; keeps the weights with the best validation loss.

    Args:
        config: mel, expert and train sections are used.
        accelerator: device and precision.
        clips: to train on.
        held_out: to validate on.
    """

    def __init__(self, config: Config, accelerator: Accelerator, clips: ClipSet, held_out: ClipSet) -> None:
        self.config, self.accelerator, self.clips, self.held_out = config, accelerator, clips, held_out
        expert = channels_last(Expert(config.expert))
        optimizer = torch.optim.Adam(expert.parameters(), config.train.learning_rate)
        self.expert, self.optimizer = accelerator.prepare(expert, optimizer)
        self.best: dict[str, Tensor] = {}
        self.best_loss = float("inf")

    def losses(self, step: int) -> dict[str, Tensor]:
        """Loss (4) of a random batch."""
        self.expert.train()
        batch = expert_batch(self.clips, self.config, self.config.train.batch_clips, augment=True)
        faces, mel, labels = (t.to(self.accelerator.device) for t in batch)
        with self.accelerator.autocast():
            similarity = self.expert(faces, mel)
        return {"expert": expert_bce(similarity.float(), labels)}

    def update(self, losses: dict[str, Tensor], step: int, share: float) -> None:
        """One step of Adam."""
        train = self.config.train
        rate = annealed(train.learning_rate, share, train.anneal)
        descend(self.accelerator, self.expert, self.optimizer, losses["expert"], rate, train.clip_norm)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss (4) and accuracy on held-out samples."""
        self.expert.eval()
        self.held_out.reseed(JUDGE_SEED)
        losses, right = [], []
        for _ in range(JUDGED_BATCHES):
            batch = expert_batch(self.held_out, self.config, JUDGED_CLIPS, augment=False)
            faces, mel, labels = (t.to(self.accelerator.device) for t in batch)
            similarity = self.expert(faces, mel).float()
            losses.append(float(expert_bce(similarity, labels)))
            right.append(float(((similarity > 0.5) == labels.bool()).float().mean()))
        values = {"val_expert": float(np.mean(losses)), "val_accuracy": float(np.mean(right))}
        if values["val_expert"] < self.best_loss or not self.best:
            self.best_loss = values["val_expert"]
            self.best = {name: value.detach().cpu().clone() for name, value in self._weights().items()}
        return values

    def pictures(self) -> list[Tensor]:
        """None: nothing is generated."""
        return []

    def state(self) -> dict[str, Any]:
        """Everything a checkpoint holds of this stage."""
        return {
            "model": self._weights(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "best_loss": self.best_loss,
            "sampler": self.clips.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self.accelerator.unwrap_model(self.expert).load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.best_loss = state["best"], state["best_loss"]
        self.clips.restore(state)

    def _weights(self) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = self.accelerator.unwrap_model(self.expert).state_dict()
        return weights


def expert_batch(clips: ClipSet, config: Config, count: int, *, augment: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Lower halves (N, 3 T, S / 2, S), mel (N, 1, 80, 16), label (N,): 1 = in sync, every other one."""
    rng, n_frames = clips.rng, config.expert.frames
    faces, sounds = [], []
    labels = (np.arange(count) % 2 == 0).astype(np.float32)
    for clip, label in zip(clips.draw(count), labels, strict=True):
        starts = len(clip.frames) - n_frames + 1
        first = int(rng.integers(0, starts))
        faces.append(clips.faces(clip, first, n_frames, config.expert.size, augment=augment))
        heard = first if label else _elsewhere(first, starts, rng)
        middle = np.array([(heard + n_frames / 2) / RATE])
        sounds.append(mel_windows(clip.mel, middle, config.mel, width=config.expert.window))
    mel = torch.from_numpy(np.stack(sounds))
    if augment:
        mel = noisy_sound(mel, rng)
    return lower_halves(torch.from_numpy(np.stack(faces))), mel, torch.from_numpy(labels)


def _elsewhere(first: int, count: int, rng: np.random.Generator) -> int:
    """Another start of the same clip, at least NEAREST_S away if the clip is long enough."""
    starts = np.arange(count)
    far = starts[np.abs(starts - first) >= NEAREST_S * RATE]
    return int(rng.choice(far)) if len(far) else int(np.abs(starts - first).argmax())
