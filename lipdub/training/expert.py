"""Training of the lip-sync expert [3.3]: in-sync or not, from the lower half of 5 faces and their mel.

Half of a batch is in sync. The other half hears another time of the same clip (4); `shift_s` of them a near one, which
is hard, the others any. Accuracy counts d > 1/2 on held-out speakers, both halves alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from lipdub.config import Config
from lipdub.losses import expert_bce
from lipdub.mel import mel_windows
from lipdub.models.expert import Expert, lower_halves
from lipdub.training.data import ClipSet, noisy_sound
from lipdub.training.run import Run, annealed, share_done
from lipdub.training.store import RATE

NEAREST_S = 0.2  # a wrong sound is at least this far from the right one


def expert_batch(clips: ClipSet, config: Config, count: int, *, augment: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Lower halves (N, 3 T, S / 2, S), mel (N, 1, 80, 16), label (N,): 1 = in sync, half of them."""
    rng, n_frames = clips.rng, config.expert.frames
    faces, sounds = [], []
    labels = (np.arange(count) % 2 == 0).astype(np.float32)
    for index, label in zip(rng.choice(len(clips.clips), count, p=clips.weights), labels, strict=True):
        clip = clips.clips[index]
        first = int(rng.integers(0, len(clip.frames) - n_frames + 1))
        faces.append(clips.faces(clip, first, config.expert.size, augment))
        heard = first if label else _elsewhere(first, len(clip.frames) - n_frames + 1, rng)
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
    return int(rng.choice(far)) if len(far) else int(starts[np.abs(starts - first).argmax()])


def train_expert(
    config: Config, data: Path, folder: Path, *, seed: int = 0, on_line: Callable[[str], None] = print
) -> Path:
    """Train the expert until `train.steps` or `train.minutes`; the same call continues a stopped run.

    Keeps the state with the best validation loss as `best` in the checkpoint.
    """
    torch.manual_seed(seed)
    run = Run(folder, config, on_line)
    accelerator = Accelerator(mixed_precision=config.train.precision)
    expert = Expert(config.expert).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(expert.parameters(), config.train.learning_rate)
    expert, optimizer = accelerator.prepare(expert, optimizer)
    step, spent_s, best = 0, 0.0, float("inf")
    best_model: dict[str, Tensor] = {}
    state = run.load(accelerator.device)
    if state is not None:
        accelerator.unwrap_model(expert).load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent_s, best, best_model = state["step"], state["spent_s"], state["best_loss"], state["best"]
        on_line(f"continuing at step {step}")
    clips = ClipSet(data, "train", config, seed=seed + step)
    held_out = ClipSet(data, "val", config, seed=seed)
    started = time.monotonic() - spent_s
    expert.train()

    def snapshot() -> dict[str, object]:
        return {
            "model": accelerator.unwrap_model(expert).state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "spent_s": time.monotonic() - started,
            "best": best_model,
            "best_loss": best,
        }

    while (share := share_done(config.train, step, time.monotonic() - started)) < 1:
        faces, mel, labels = (
            t.to(accelerator.device) for t in expert_batch(clips, config, config.train.batch_clips, augment=True)
        )
        with accelerator.autocast():
            similarity = expert(faces, mel)
        loss = expert_bce(similarity.float(), labels)
        for group in optimizer.param_groups:
            group["lr"] = annealed(config.train.learning_rate, share, config.train.anneal)
        if run.check_finite({"expert": loss}, step, config.train.max_bad_steps):
            optimizer.zero_grad(set_to_none=True)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(expert.parameters(), config.train.clip_norm)
            optimizer.step()
        step += 1
        if step % config.train.log_every == 0:
            run.log("train", step, {"expert": float(loss.detach()), "share": share})
        if step % config.train.validate_every == 0:
            values = judge_expert(accelerator.unwrap_model(expert), held_out, config, accelerator.device)
            run.log("validate", step, values)
            if values["val_expert"] < best:
                best = values["val_expert"]
                best_model = {
                    k: v.detach().cpu().clone() for k, v in accelerator.unwrap_model(expert).state_dict().items()
                }
        if run.checkpoint_due(config.train.checkpoint_every_s):
            run.save(snapshot())
    values = judge_expert(accelerator.unwrap_model(expert), held_out, config, accelerator.device)
    run.log("validate", step, values)
    if values["val_expert"] < best or not best_model:
        best, best_model = values["val_expert"], accelerator.unwrap_model(expert).state_dict()
    run.save(snapshot())
    return folder


def judge_expert(
    expert: Expert, clips: ClipSet, config: Config, device: torch.device, batches: int = 8
) -> dict[str, float]:
    """Loss (4) and accuracy on fixed held-out samples."""
    clips.rng = np.random.default_rng(7)
    was_training = expert.training
    expert.eval()
    losses, right = [], []
    with torch.no_grad():
        for _ in range(batches):
            faces, mel, labels = (t.to(device) for t in expert_batch(clips, config, 64, augment=False))
            similarity = expert(faces, mel).float()
            losses.append(float(expert_bce(similarity, labels)))
            right.append(float(((similarity > 0.5) == labels.bool()).float().mean()))
    expert.train(was_training)
    return {"val_expert": sum(losses) / batches, "val_accuracy": sum(right) / batches}
