"""Stages 1 and 2: training of the generator (15), in stage 2 with an adversary.

Stage 1: L1 1, perceptual .5, expert 0 then .01, mask 1. Stage 2: expert .1, adversarial .01.

With `generator.shape_code` the sound reaches the decoder through a short code of mouth shapes. Its two sides are
learnt apart in the same run: sound -> shape on many cheap windows (no picture needed), shape -> picture with the true
shape in place of the heard one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipdub.config import Config
from lipdub.losses import (
    correlation_loss,
    expert_loss,
    gradient_l1,
    mask_bce,
    masked_l1,
    mouth_emphasis,
    painted_share,
    perceptual,
    unpainted_lips,
)
from lipdub.models.expert import Expert, lower_halves
from lipdub.models.generator import Generated, Generator, References, blend
from lipdub.models.warp import enlarged
from lipdub.training.adversary import Adversary
from lipdub.training.data import Batch, ClipSet, add_noise, masked_faces, obscure_speech, vary_voice
from lipdub.training.engine import Engine, rate_at
from lipdub.training.loop import Stage

SHAPE_NOISE = 0.1  # on the true shape that stands in for the heard one, which is never exact; in units of SHAPE_SCALE
VALIDATION_BATCHES, VALIDATION_CLIPS, VALIDATION_WINDOWS = 6, 4, 32  # of a validation
VALIDATION_SEED, PICTURE_SEED = 7, 11  # every validation, and every picture, shows the same samples


def own_references(known: Tensor, frames: int) -> Tensor:
    """Which references (N, R) bool each frame may look at: those that its own clip has.

    `known` is (B, K) bool, False at a place that holds no reference; N = B * frames, R = B * K.
    """
    clips, references = known.shape
    same = torch.eye(clips, dtype=torch.bool, device=known.device)
    return same.repeat_interleave(frames, 0).repeat_interleave(references, 1) & known.flatten()


class GeneratorBatch(NamedTuple):
    """What a part of a step is learnt from."""

    audio: tuple[Tensor, Tensor] | None  # mel windows (B, L, 80, W) and the mouth shapes (B, L, C) seen with them
    batch: Batch | None  # None while only sound is learnt


class GeneratorStep(nn.Module):
    """Everything that a step asks of a generator, in one call, as several processes need it."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, inputs: GeneratorBatch, shape: Tensor | None) -> tuple[Tensor | None, Generated | None]:
        """Mouth shapes heard in the audio, and faces for the batch, with `shape` in place of what is heard there."""
        predicted = None if inputs.audio is None else self.generator.encode_audio(inputs.audio[0].flatten(0, 1)).shape
        return predicted, None if inputs.batch is None else generate(self.generator, inputs.batch, shape)


def generate(generator: Generator, batch: Batch, shape: Tensor | None) -> Generated:
    """The generator on a batch; `shape` (B * T, C) stands in for what is heard."""
    shapes = batch.reference_shapes.flatten(0, 1) if generator.config.shape_code else None
    if shapes is not None and generator.training:
        shapes = shapes + SHAPE_NOISE * torch.randn_like(shapes)
    references: References = generator.encode_references(batch.references.flatten(0, 1), shapes)
    owner = own_references(batch.known, batch.real.shape[1])
    windows = batch.windows.flatten(0, 1) if generator.config.audio_context == "window" else None
    return generator(masked_faces(batch.real), windows, references, owner, shape=shape)


class GeneratorTraining(Stage[Generator]):
    """Generator, its averaged copy, optimizer, criteria and data of one run of stage 1 or 2.

    Args:
        config: all sections but media and sync.
        engine: device, precision and processes.
        clips: to train on.
        held_out: to validate on.
        features: frozen VGG for the perceptual loss (7), or None to do without it.
        expert: frozen expert for (8), or None.
        adversary: of stage 2, or None.
        start: a generator of the same configuration to begin with; None begins with random weights.
    """

    def __init__(
        self,
        config: Config,
        engine: Engine,
        clips: ClipSet,
        held_out: ClipSet,
        *,
        features: nn.Module | None = None,
        expert: Expert | None = None,
        adversary: Adversary | None = None,
        start: Generator | None = None,
    ) -> None:
        self.config, self.clips, self.held_out = config, clips, held_out
        generator = engine.place(Generator(config.generator))
        if start is not None:
            generator.load_state_dict(start.state_dict())
        optimizer = torch.optim.Adam(generator.parameters(), config.train.learning_rate)
        super().__init__(engine, generator, optimizer, called=GeneratorStep(generator), ema=config.train.ema)
        self.features = engine.place(features) if features is not None else None
        self.expert = engine.place(expert).eval().requires_grad_(False) if expert is not None else None
        self.expert_weight, self.adversary = config.loss.expert, adversary

    @property
    def networks(self) -> list[nn.Module]:
        """Generator and, in stage 2, discriminator."""
        return [self.wrapped, *([] if self.adversary is None else [self.adversary.wrapped])]

    def sample(self, step: int, part: int) -> GeneratorBatch:
        """Random sounds and pictures, as far as the step has use for them."""
        config, clips, count = self.config, self.clips.seeded(step, part), self.engine.part_clips
        audio = None
        hears = config.generator.shape_code and config.generator.audio_context == "window"
        if hears and (config.loss.shape or config.loss.correlation):
            n_clips = max(1, config.train.audio_clips * count // config.train.batch_clips)
            windows, shapes = clips.audio_windows(n_clips, config.generator.window)
            varied = vary_voice(obscure_speech(windows, clips.rng), clips.rng)
            audio = add_noise(varied, clips.rng), shapes
        pictures = step >= config.train.audio_only_steps or audio is None
        size, width = config.generator.size, config.generator.window
        return GeneratorBatch(audio, clips.batch(count, size, width, augment=True) if pictures else None)

    def losses(self, inputs: GeneratorBatch, step: int) -> dict[str, Tensor]:
        """Every term of (15) that has a weight now, by its configuration key."""
        true_shape = None
        self.wrapped.train()
        if inputs.batch is not None and (true_shape := self._true_shape(inputs.batch)) is not None:
            true_shape = true_shape + SHAPE_NOISE * torch.randn_like(true_shape)
        from_audio, generated = self.wrapped(inputs, true_shape)
        losses: dict[str, Tensor] = {}
        if inputs.audio is not None:
            seen = inputs.audio[1]
            losses["shape"] = F.smooth_l1_loss(from_audio.view_as(seen), seen, beta=0.5)
            if self.config.loss.correlation:
                losses["correlation"] = correlation_loss(from_audio.float().view_as(seen), seen)
        if inputs.batch is not None:
            with self.engine.accelerator.autocast():
                losses |= self.picture_losses(inputs.batch, generated)
        return losses

    def picture_losses(self, batch: Batch, generated: Generated) -> dict[str, Tensor]:
        """The terms that look at pictures."""
        real, mouth, lips = (each.flatten(0, 1) for each in (batch.real, batch.mouth, batch.lips))
        weight = self.config.loss
        half = real.shape[-1] // 2
        blended = blend(generated, real, weight)
        region = batch.changed.flatten(0, 1)
        if generated.mask is not None:
            region = torch.maximum(generated.mask.sigmoid().detach(), region)
        region = region * mouth_emphasis(region, weight.mouth_weight, self.config.generator.margin)
        region = region + weight.lips_weight * lips
        losses = {"l1": masked_l1(generated.face, real, region)}
        if weight.gradient_l1:
            losses["gradient_l1"] = gradient_l1(generated.face, real, region)
        if generated.painted is not None and weight.painted_l1:
            painted = enlarged(generated.painted, real.shape[-1])
            losses["painted_l1"] = masked_l1(painted, real[..., half:, :], region[..., half:, :])
        if generated.paint is not None and (weight.painted_share or weight.unpainted_lips):
            share = enlarged(generated.paint, real.shape[-1])
            losses["painted_share"] = painted_share(share, mouth[..., half:, :], lips[..., half:, :])
            losses["unpainted_lips"] = unpainted_lips(share, lips[..., half:, :], batch.unseen.flatten())
        if self.features is not None and weight.vgg:
            seen = torch.randperm(len(real), device=real.device)[: max(1, round(weight.vgg_share * len(real)))]
            losses["vgg"] = perceptual(
                self.features(blended[seen][..., half:, :]), self.features(real[seen][..., half:, :])
            )
        if generated.mask is not None and weight.mask:
            first = half if generated.warp is not None else 0  # a warp leaves the upper half as it is
            losses["mask"] = mask_bce(generated.mask[..., first:, :], mouth[..., first:, :])
        if self.expert is not None and self.expert_weight:
            losses["expert"] = self._expert_loss(self.expert, blended.unflatten(0, batch.real.shape[:2]), batch)
        if self.adversary is not None:
            fake = blended.unflatten(0, batch.real.shape[:2])
            losses["adversarial"] = self.adversary.generator_loss(fake, batch.real)
        return losses

    def _expert_loss(self, expert: Expert, frames: Tensor, batch: Batch) -> Tensor:
        """(8) of generated clips (B, T, 3, S, S)."""
        cut = (frames.shape[-1] - expert.config.size) // 2  # the unit crop, which the expert knows
        similarity = expert(lower_halves(F.pad(frames, (-cut,) * 4)), batch.expert_mel[:, None])
        return expert_loss(similarity, floor=self.config.loss.expert_floor)

    def update(self, losses: dict[str, Tensor], share: float) -> dict[str, float]:
        """A part of a step of Adam on the weighted sum, and of the average's; then of the adversary's."""
        weights, train = self.config.loss, self.config.train
        factor = {name: getattr(weights, name) for name in losses} | {"expert": self.expert_weight}
        total = torch.stack([factor[name] * value for name, value in losses.items()]).sum()
        self.descend(total, rate_at(share, train))
        if self.adversary is not None and "adversarial" in losses:
            return self.adversary.discriminator_step(share)
        return {}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Masked L1 with the true shape, bare and blended; how well sound is read.

        Switches the expert loss on once the first of these is good enough [3.7].
        """
        config, device, model = self.config, self.engine.device, self.average
        self.held_out.reseed(VALIDATION_SEED)
        rows: list[dict[str, float]] = []
        for _ in range(VALIDATION_BATCHES):
            batch = self._held_out_batch()
            generated = generate(model, batch, self._true_shape(batch))
            real, mouth = batch.real.flatten(0, 1), batch.mouth.flatten(0, 1)
            blended = blend(generated, real, config.loss)
            row = {"val_l1": masked_l1(generated.face, real, mouth), "val_blend_l1": masked_l1(blended, real, mouth)}
            if config.generator.shape_code and config.generator.audio_context == "window":
                windows, shapes = self.held_out.audio_windows(VALIDATION_WINDOWS, config.generator.window)
                from_audio = model.encode_audio(windows.flatten(0, 1).to(device)).shape
                assert from_audio is not None  # shape_code
                from_audio = from_audio.cpu().view_as(shapes)
                openings = torch.stack([from_audio[..., 0].flatten(), shapes[..., 0].flatten()])
                row["val_opening_r"] = torch.corrcoef(openings)[0, 1]
                row["val_correlation"] = correlation_loss(from_audio[..., :1], shapes[..., :1])
            rows.append({name: float(value) for name, value in row.items()})
        values = self.engine.of_first({name: float(np.mean([row[name] for row in rows])) for name in rows[0]})
        if self.expert is not None:
            if self.expert_weight == 0 and values["val_l1"] < config.loss.expert_at_l1:
                self.expert_weight = config.loss.expert_on
            values["expert_weight"] = self.expert_weight
        return values

    @torch.no_grad()
    def pictures(self) -> list[Tensor]:
        """Rows: masked input, a reference, generated from the sound, with a shape code from the true one too, real."""
        self.held_out.reseed(PICTURE_SEED)
        batch = self._held_out_batch()
        repeated = batch.references[:, :1].expand_as(batch.real).flatten(0, 1)
        real, true_shape = batch.real.flatten(0, 1), self._true_shape(batch)
        shapes: list[Tensor | None] = [None] if self.config.generator.audio_context == "window" else []
        shapes += [] if true_shape is None else [true_shape]
        made = [blend(generate(self.average, batch, shape), real, self.config.loss) for shape in shapes]
        return [masked_faces(batch.real), repeated, *made, real]

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of this stage."""
        adversary = {} if self.adversary is None else {"adversary": self.adversary.state()}
        return super().state() | {"expert_weight": self.expert_weight} | adversary

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        super().restore(state)
        self.expert_weight = float(state["expert_weight"])
        if self.adversary is not None:
            self.adversary.restore(state["adversary"])

    def _held_out_batch(self) -> Batch:
        size, width = self.config.generator.size, self.config.generator.window
        return self.engine.send(self.held_out.batch(VALIDATION_CLIPS, size, width, augment=False))

    def _true_shape(self, batch: Batch) -> Tensor | None:
        """What stands in for the heard shape (B * T, C); None where the generator has no shape code."""
        return batch.shape.flatten(0, 1) if self.config.generator.shape_code else None
