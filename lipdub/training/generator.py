"""Stage 1: the generator learns to paint the hidden mouth (15): L1 1, perceptual .5, expert 0 then .01, mask 1.

With `generator.shape_code` the sound reaches the decoder through a short code of mouth shapes. Its two sides are
learnt apart in the same run: sound -> shape on many cheap windows (no picture needed), shape -> picture with the true
shape in place of the heard one for `train.teach_shape` of the clips.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from lipdub.config import Config
from lipdub.losses import expert_loss, mask_bce, masked_l1, perceptual
from lipdub.models.expert import Expert, lower_halves
from lipdub.models.generator import Generated, Generator, References, blend
from lipdub.training.data import Batch, ClipSet, masked_faces, noisy_sound
from lipdub.training.run import Run, annealed, share_done

SOUND_BATCH = 96  # mel windows a step, for the sound -> shape side


def own_references(clips: int, frames: int, references: int) -> Tensor:
    """(clips * frames, clips * references) bool: each frame may look at its own clip's references only."""
    return torch.eye(clips, dtype=torch.bool).repeat_interleave(frames, 0).repeat_interleave(references, 1)


class GeneratorTraining:
    """Generator, its averaged copy, optimizer and criteria of one stage 1 run."""

    def __init__(
        self, config: Config, accelerator: Accelerator, features: nn.Module | None, expert: Expert | None
    ) -> None:
        self.config, self.accelerator = config, accelerator
        self.generator = Generator(config.generator).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = torch.optim.swa_utils.AveragedModel(
            self.generator, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.train.ema), use_buffers=True
        ).to(accelerator.device)
        self.optimizer = torch.optim.Adam(self.generator.parameters(), config.train.learning_rate)
        self.generator, self.optimizer = accelerator.prepare(self.generator, self.optimizer)
        self.features = features.to(accelerator.device) if features is not None else None
        self.expert = expert.to(accelerator.device).eval().requires_grad_(False) if expert is not None else None
        self.expert_weight = config.loss.expert
        self.step = 0
        self.spent_s = 0.0

    def generate(self, model: nn.Module, batch: Batch, shape: Tensor | None) -> tuple[Generated, Tensor]:
        """The generator on a batch; also the blended frames (B * T, 3, S, S) of (10)."""
        clips, frames = batch.real.shape[:2]
        references: References = model.encode_references(batch.references.flatten(0, 1))  # type: ignore[operator]
        owner = own_references(clips, frames, batch.references.shape[1]).to(batch.real.device)
        result: Generated = model(masked_faces(batch.real), batch.windows.flatten(0, 1), references, owner, shape=shape)
        return result, blend(result, batch.real.flatten(0, 1), self.config.loss)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Every term of (15) that has a weight now, unweighted, by its configuration key."""
        taught = None
        if self.config.generator.shape_code:
            taught = batch.shape.flatten(0, 1)
            taught = taught + 0.1 * torch.randn_like(taught)
        generated, blended = self.generate(self.generator, batch, taught)
        real, mouth = batch.real.flatten(0, 1), batch.mouth.flatten(0, 1)
        weight = self.config.loss
        region = mouth if generated.mask is None else torch.maximum(generated.mask.sigmoid().detach(), mouth)
        losses = {"l1": masked_l1(generated.face, real, region)}
        half = real.shape[-1] // 2
        if self.features is not None and weight.vgg:
            seen = torch.randperm(len(real), device=real.device)[: max(1, round(weight.vgg_share * len(real)))]
            losses["vgg"] = perceptual(
                self.features(blended[seen][..., half:, :]), self.features(real[seen][..., half:, :])
            )
        if generated.mask is not None and weight.mask:
            losses["mask"] = mask_bce(generated.mask, mouth)
        if self.expert is not None and self.expert_weight:
            frames = blended.unflatten(0, batch.real.shape[:2])
            similarity = self.expert(lower_halves(frames), batch.expert_mel[:, None])
            losses["expert"] = expert_loss(similarity, floor=weight.expert_floor)
        return losses

    def shape_loss(self, windows: Tensor, shapes: Tensor) -> Tensor:
        """Smooth L1 between heard and seen mouth shapes."""
        heard = self.generator.encode_audio(windows).shape
        return F.smooth_l1_loss(heard, shapes, beta=0.5)

    def update(self, losses: dict[str, Tensor], share: float) -> float:
        """One step on the weighted sum; returns it."""
        weights = self.config.loss
        factor = {"l1": weights.l1, "vgg": weights.vgg, "mask": weights.mask, "expert": self.expert_weight}
        factor["shape"] = weights.shape
        total = torch.stack([factor[name] * value for name, value in losses.items()]).sum()
        for group in self.optimizer.param_groups:
            group["lr"] = annealed(self.config.train.learning_rate, share, self.config.train.anneal)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(total)
        self.accelerator.clip_grad_norm_(self.generator.parameters(), self.config.train.clip_norm)
        self.optimizer.step()
        self.averaged.update_parameters(self.accelerator.unwrap_model(self.generator))
        return float(total.detach())

    def state(self) -> dict[str, object]:
        """Everything a checkpoint holds."""
        return {
            "model": self.accelerator.unwrap_model(self.generator).state_dict(),
            "ema": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "expert_weight": self.expert_weight,
            "step": self.step,
            "spent_s": self.spent_s,
            "torch_rng": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, object]) -> None:
        """Go on from `state()`."""
        self.accelerator.unwrap_model(self.generator).load_state_dict(state["model"])
        self.averaged.load_state_dict(state["ema"])  # type: ignore[arg-type]
        self.optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
        self.expert_weight = float(state["expert_weight"])  # type: ignore[arg-type]
        self.step, self.spent_s = int(state["step"]), float(state["spent_s"])  # type: ignore[call-overload, arg-type]
        torch.set_rng_state(state["torch_rng"])  # type: ignore[arg-type]

    @contextmanager
    def judged(self) -> Iterator[nn.Module]:
        """The averaged generator in eval mode."""
        model = self.averaged.module
        model.eval()
        with torch.no_grad():
            yield model


def validate(training: GeneratorTraining, clips: ClipSet, batches: int = 6) -> dict[str, float]:
    """Means over fixed validation batches: masked L1 and mask loss with the true shape, and how well sound is read."""
    clips.rng = type(clips.rng)(type(clips.rng.bit_generator)(7))
    totals: dict[str, list[float]] = {}
    with training.judged() as model:
        for _ in range(batches):
            batch = clips.batch(4, training.config.generator.size, training.config.generator.window, augment=False).to(
                training.accelerator.device
            )
            true_shape = batch.shape.flatten(0, 1) if training.config.generator.shape_code else None
            generated, blended = training.generate(model, batch, true_shape)
            real, mouth = batch.real.flatten(0, 1), batch.mouth.flatten(0, 1)
            totals.setdefault("val_l1", []).append(float(masked_l1(generated.face, real, mouth)))
            totals.setdefault("val_blend_l1", []).append(float(masked_l1(blended, real, mouth)))
            if training.config.generator.shape_code:
                windows, shapes = clips.sounds(512, training.config.generator.window)
                heard = model.encode_audio(windows.to(real.device)).shape.cpu()
                stacked = torch.stack([heard[:, 0], shapes[:, 0]])
                totals.setdefault("val_opening_r", []).append(float(torch.corrcoef(stacked)[0, 1]))
    return {name: sum(values) / len(values) for name, values in totals.items()}


def train_generator(
    config: Config,
    data: Path,
    folder: Path,
    *,
    features: nn.Module | None,
    expert: Expert | None,
    seed: int = 0,
    on_line: Callable[[str], None] = print,
) -> Path:
    """Train stage 1 until `train.steps` or `train.minutes`; the same call continues a stopped run.

    Args:
        config: all sections.
        data: a prepared data set.
        folder: the run.
        features: frozen VGG for the perceptual loss (7), or None to do without it.
        expert: frozen expert for (8), or None.
        seed: of weights and sampling.
        on_line: receives progress lines.

    Returns:
        The run folder.
    """
    torch.manual_seed(seed)
    run = Run(folder, config, on_line)
    accelerator = Accelerator(mixed_precision=config.train.precision)
    training = GeneratorTraining(config, accelerator, features, expert)
    state = run.load(accelerator.device)
    if state is not None:
        training.restore(state)
        on_line(f"continuing at step {training.step}")
    clips = ClipSet(data, "train", config, seed=seed + training.step)
    held_out = ClipSet(data, "val", config, seed=seed)
    on_line(f"{len(clips.clips)} clips to train on, {len(held_out.clips)} to validate")
    loop(training, run, clips, held_out)
    return folder


def loop(training: GeneratorTraining, run: Run, clips: ClipSet, held_out: ClipSet) -> None:
    """The steps of one run: draw, judge, update, and now and then log, validate, picture, save."""
    config = training.config
    size, width = config.generator.size, config.generator.window
    started = time.monotonic() - training.spent_s
    training.generator.train()
    while (share := share_done(config.train, training.step, time.monotonic() - started)) < 1:
        losses: dict[str, Tensor] = {}
        if config.generator.shape_code and config.loss.shape:
            windows, shapes = clips.sounds(SOUND_BATCH, width)
            windows = noisy_sound(windows, clips.rng)
            with training.accelerator.autocast():
                losses["shape"] = training.shape_loss(*(t.to(training.accelerator.device) for t in (windows, shapes)))
        if training.step >= config.train.sound_first:
            batch = clips.batch(config.train.batch_clips, size, width).to(training.accelerator.device)
            with training.accelerator.autocast():
                losses |= training.losses(batch)
        if run.check_finite(losses, training.step, config.train.max_bad_steps):
            training.update(losses, share)
        training.step += 1
        training.spent_s = time.monotonic() - started
        if training.step % config.train.log_every == 0:
            run.log(
                "train",
                training.step,
                {name: float(value.detach()) for name, value in losses.items()} | {"share": share},
            )
        if training.step % config.train.validate_every == 0:
            _validate_and_picture(training, run, held_out)
        if run.checkpoint_due(config.train.checkpoint_every_s):
            run.save(training.state())
    _validate_and_picture(training, run, held_out)
    run.save(training.state())


def _validate_and_picture(training: GeneratorTraining, run: Run, held_out: ClipSet) -> None:
    values = validate(training, held_out)
    run.log("validate", training.step, values)
    if training.expert_weight == 0 and training.expert is not None:
        if values["val_l1"] < training.config.loss.expert_at_l1:
            training.expert_weight = training.config.loss.expert_on
            run.on_line(f"expert loss switched on at weight {training.expert_weight}")
    held_out.rng = type(held_out.rng)(type(held_out.rng.bit_generator)(11))
    batch = held_out.batch(4, training.config.generator.size, training.config.generator.window, augment=False)
    batch = batch.to(training.accelerator.device)
    with training.judged() as model:
        true_shape = batch.shape.flatten(0, 1) if training.config.generator.shape_code else None
        _, taught = training.generate(model, batch, true_shape)
        _, heard = training.generate(model, batch, None)
    repeated = batch.references[:, :1].expand_as(batch.real).flatten(0, 1)
    run.picture(f"{training.step:07d}", [masked_faces(batch.real), repeated, heard, taught, batch.real.flatten(0, 1)])
    training.generator.train()
