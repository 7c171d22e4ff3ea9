"""Training of the lip-sync expert [3.3]: in sync or not, from the lower half of 5 faces and their mel.

Each clip is judged with its own sound and with `train.negatives` from other times of it, both halves of the loss (4)
weighing alike. With `loss.shape` both embeddings must also tell the mouths of their five frames (not in the thesis):
through d alone, a cosine of two networks that know nothing, lips are not found in an hour on little data. With
`expert.context` the sound is read by layers that have learnt phones and mouths before: those of the first member of
`sync.audio_encoder`. Accuracy counts d > 1/2 on held-out speakers, right and wrong sounds alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipdub.config import Config, ExpertConfig
from lipdub.data.store import RATE
from lipdub.faces.mouth_shape import SHAPE_NAMES
from lipdub.losses import expert_bce
from lipdub.mel import mel_windows
from lipdub.models.expert import ContextEncoder, Expert, lower_halves
from lipdub.training.data import MIRRORED_SHAPE, ClipSet, add_noise, obscure_speech, vary_voice
from lipdub.training.engine import Engine, rate_at
from lipdub.training.loop import Stage
from lipdub.weights import load_audio_encoder

NEAREST_S = 0.2  # a wrong sound is at least this far from the right one
VALIDATION_BATCHES, VALIDATION_CLIPS = 8, 64  # of a validation
BINS = 10  # of d, for the calibration error
VALIDATION_SEED = 7  # every validation sees the same samples


class ExpertBatch(NamedTuple):
    """N clips of T frames, each with H sounds: its own, then wrong ones."""

    faces: Tensor  # (N, 3 T, S / 2, S) lower halves
    mel: Tensor  # (N, H, 80, W)
    shapes: Tensor  # (N, H, T C) mouths that were seen with each sound; left and right corner averaged


@dataclass(frozen=True)
class ExpertOutput:
    """What is made of a batch."""

    similarity: Tensor  # d of (3), (N, H)
    from_faces: Tensor | None  # (N, T C) mouths that the faces' embedding tells; None without heads
    from_audio: Tensor | None  # (N, H, T C) mouths that the sounds' embeddings tell


class ExpertStep(nn.Module):
    """The expert and, in training, two heads that read the mouths of a clip's frames from either embedding."""

    def __init__(self, config: ExpertConfig, heads: bool) -> None:
        super().__init__()
        self.expert = Expert(config)
        self.scale = config.embedding**0.5  # an embedding has norm 1
        n_outputs = config.frames * len(SHAPE_NAMES)
        self.heads = nn.ModuleList(
            [nn.Linear(config.embedding, n_outputs) for _ in ("faces", "sound")] if heads else []
        )

    def forward(self, batch: ExpertBatch) -> ExpertOutput:
        """Compare the faces of a batch with all of its sounds."""
        faces = self.expert.embed_faces(batch.faces).float()  # (N, E)
        sounds = self.expert.embed_audio(batch.mel.flatten(0, 1)).float().view(*batch.mel.shape[:2], -1)  # (N, H, E)
        similarity = (faces[:, None] * sounds).sum(2).clamp(max=1.0)
        if not self.heads:
            return ExpertOutput(similarity, None, None)
        of_faces, of_sound = self.heads
        return ExpertOutput(similarity, of_faces(self.scale * faces), of_sound(self.scale * sounds))


class ExpertTraining(Stage[Expert]):
    """Expert, optimizer and data of one run; keeps the weights with the best validation loss.

    `start` is an expert to begin with, as far as its layers have the same names and sizes.
    """

    def __init__(
        self, config: Config, engine: Engine, clips: ClipSet, held_out: ClipSet, *, start: Expert | None = None
    ) -> None:
        self.config, self.clips, self.held_out = config, clips, held_out
        step = ExpertStep(config.expert, heads=config.loss.shape > 0)
        if isinstance(step.expert.audio, ContextEncoder):
            encoder, _ = load_audio_encoder(config.sync.audio_encoder, Config())
            _begin_with(step.expert.audio.layers, encoder.members[0])
        if start is not None:
            _begin_with(step.expert, start)
        self.comparison = engine.place(step)
        optimizer = torch.optim.Adam(self.comparison.parameters(), config.train.learning_rate)
        network, patience = self.comparison.expert, config.train.patience
        super().__init__(engine, network, optimizer, called=self.comparison, patience=patience)

    def sample(self, step: int, part: int) -> ExpertBatch:
        """A random batch."""
        clips, wrong = self.clips.seeded(step, part), self.config.train.negatives
        return expert_batch(clips, self.config, self.engine.part_clips, wrong, augment=True)

    def losses(self, sample: ExpertBatch, step: int) -> dict[str, Tensor]:
        """Loss (4), and of the mouths that the embeddings tell."""
        self.wrapped.train()
        return self.judge(sample)

    def judge(self, batch: ExpertBatch) -> dict[str, Tensor]:
        """Unweighted terms of the loss of one batch."""
        judged = self.wrapped(batch)
        losses = {"expert": _balanced(judged.similarity)}
        if judged.from_faces is not None:
            losses["seen"] = F.smooth_l1_loss(judged.from_faces.float(), batch.shapes[:, 0], beta=0.5)
            losses["heard"] = F.smooth_l1_loss(judged.from_audio.float(), batch.shapes, beta=0.5)
        return losses

    def update(self, losses: dict[str, Tensor], share: float) -> dict[str, float]:
        """One step of Adam."""
        train, weight = self.config.train, self.config.loss.shape
        total = losses["expert"]
        if "seen" in losses:
            total = total + weight * (losses["seen"] + losses["heard"])
        self.descend(total, rate_at(share, train))
        return {}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss (4), accuracy and calibration error on held-out samples."""
        self.comparison.eval()
        self.held_out.reseed(VALIDATION_SEED)
        losses, judged = [], []
        for _ in range(VALIDATION_BATCHES):
            batch = expert_batch(self.held_out, self.config, VALIDATION_CLIPS, 1, augment=False)
            similarity = self.comparison(self.engine.send(batch)).similarity
            losses.append(float(_balanced(similarity)))
            judged.append(similarity.cpu())
        right, wrong = torch.cat(judged).unbind(1)
        accuracy = ((right > 0.5).float().mean() + (wrong <= 0.5).float().mean()) / 2
        row = {"val_expert": float(np.mean(losses)), "val_accuracy": float(accuracy)}
        values = self.engine.of_first(row | {"val_calibration": calibration(right, wrong)})
        self.best.offer(-values["val_expert"], self.network)
        return values

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of this stage."""
        return super().state() | {"heads": self.comparison.heads.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        super().restore(state)
        self.comparison.heads.load_state_dict(state["heads"])


def _begin_with(network: nn.Module, other: nn.Module) -> None:
    """Give a network those weights of another one that have the same names and sizes."""
    own = network.state_dict()
    network.load_state_dict(own | {k: v for k, v in other.state_dict().items() if k in own and own[k].shape == v.shape})


def expert_batch(clips: ClipSet, config: Config, count: int, wrong: int, *, augment: bool) -> ExpertBatch:
    """`count` random clips, each with its own sound and `wrong` others."""
    n_frames = config.expert.frames
    faces, sounds, shapes = [], [], []
    for clip in clips.draw(count):
        starts = len(clip.frames) - n_frames + 1
        first = int(clips.rng.integers(0, starts))
        faces.append(clips.faces(clip, first, n_frames, config.expert.size, augment=augment))
        sounds_at = np.array([first, *(_elsewhere(first, starts, clips.rng) for _ in range(wrong))])
        sounds.append(
            mel_windows(clip.mel, (sounds_at + n_frames / 2) / RATE, config.mel, width=config.expert.mel_steps)
        )
        mouths = clip.shape[sounds_at[:, None] + np.arange(n_frames)]  # (H, T, C)
        shapes.append(((mouths + mouths[..., MIRRORED_SHAPE]) / 2).reshape(len(sounds_at), -1))
    mel = torch.from_numpy(np.stack(sounds))
    if augment:
        varied = vary_voice(obscure_speech(mel, clips.rng), clips.rng)  # right and wrong sounds alike
        mel = add_noise(varied.flatten(0, 1), clips.rng).view(mel.shape)
    return ExpertBatch(lower_halves(torch.from_numpy(np.stack(faces))), mel, torch.from_numpy(np.stack(shapes)))


def calibration(right: Tensor, wrong: Tensor) -> float:
    """Expected calibration error: how far d is from the share that is in sync among those that are given about this d.

        sum over BINS bins of  n_b / n * | mean d in b - share in sync in b |        (arXiv:1706.04599)

    Of sounds in sync and of others, (N,) each in [0, 1].
    """
    d, in_sync = torch.cat([right, wrong]), torch.cat([torch.ones_like(right), torch.zeros_like(wrong)])
    place = (d * BINS).long().clamp(0, BINS - 1)
    apart = torch.zeros(BINS).index_add(0, place, d - in_sync)
    return float(apart.abs().sum() / len(d))


def _balanced(similarity: Tensor) -> Tensor:
    """Loss (4) of (N, H) similarities whose first column is in sync; right and wrong sounds weigh alike."""
    right, wrong = similarity[:, 0], similarity[:, 1:].flatten()
    return (expert_bce(right, torch.ones_like(right)) + expert_bce(wrong, torch.zeros_like(wrong))) / 2


def _elsewhere(first: int, count: int, rng: np.random.Generator) -> int:
    """Another start of the same clip, at least NEAREST_S away if the clip is long enough."""
    starts = np.arange(count)
    far = starts[np.abs(starts - first) >= NEAREST_S * RATE]
    return int(rng.choice(far)) if len(far) else int(np.abs(starts - first).argmax())
