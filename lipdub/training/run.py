"""A run folder, and the loop that trains any stage in it so that a stopped run continues exactly.

RUN/config.json       what the run was asked for; a second call with other values is refused
RUN/metrics.jsonl     a line per log interval and per validation
RUN/samples/*.png     rows: masked input, one reference, generated, real
RUN/checkpoint.pt     everything needed to go on
RUN/not-finite.pt     the state in which a run gave up on losses that were not finite, with these losses
RUN/lipdub            what metrics.jsonl has, for TensorBoard, where that is used
"""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from lipdub.config import Config, TrainConfig, from_dict, to_dict
from lipdub.errors import InputError, TrainingError
from lipdub.training import peers
from lipdub.training.settings import keep_settings

CHECKPOINT, SETTINGS, NOT_FINITE = "checkpoint.pt", "config.json", "not-finite.pt"
SECTIONS = ("mel", "reference", "generator", "expert", "discriminator", "loss", "train")  # what training depends on
# these say how long a run is and how much it tells, not what it learns
FREE = {
    f"train.{key}"
    for key in ("steps", "minutes", "workers", "validate_every", "sample_every", "checkpoint_every_s", "log_every")
}

Network = TypeVar("Network", bound=nn.Module)


class Stage(Protocol):
    """What a stage brings to `train_steps`: its networks, their data and its losses."""

    def losses(self, step: int) -> dict[str, Tensor]:
        """Draw a batch and judge it: the unweighted terms of the loss by name."""
        ...

    def update(self, losses: dict[str, Tensor], step: int, share: float) -> dict[str, float]:
        """Take one step; `share` of the run is done. Returns what else is worth a place in the log."""
        ...

    def validate(self) -> dict[str, float]:
        """Means over held-out samples, the same ones each time; empty where nothing is held out."""
        ...

    def pictures(self) -> list[Tensor]:
        """Rows of faces (N, 3, S, S) to look at; empty where there is nothing to see."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of this stage."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint; the loop's own "step" is in it, too."""
        ...


def run_config(folder: Path) -> Config:
    """The configuration that a run's folder was made with; sections that training does not read are the defaults.

    Raises:
        InputError: no run there, or one of another version.
    """
    path = folder / SETTINGS
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}", "give the folder of a `lipdub train` run") from error
    return from_dict(Config, settings)


class Run:
    """One training run on disc.

    Args:
        folder: created if needed.
        config: written once; a later call must agree with it, apart from the length of the run.
        on_line: receives what a person may read, a line at a time.
        on_numbers: receives the same numbers as metrics.jsonl, with their step; for trackers.

    Raises:
        InputError: the folder holds a run of another configuration.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        on_line: Callable[[str], None],
        on_numbers: Callable[[dict[str, float], int], None] = lambda values, step: None,
    ) -> None:
        self.folder, self.on_line, self.on_numbers = folder, on_line, on_numbers
        self.started = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        settings = {section: to_dict(getattr(config, section)) for section in SECTIONS}
        keep_settings(folder / SETTINGS, settings, option="--run", free=FREE)
        self._last_checkpoint = time.monotonic()
        self._bad_steps = 0

    def log(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl and tell it; the first of several processes does."""
        if peers.rank():
            return
        line = json.dumps(
            {"kind": kind, "step": step, "time_s": round(time.monotonic() - self.started, 1)} | dict(values)
        )
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        numbers = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        self.on_line(f"{kind} {step}: {numbers}")
        self.on_numbers({name: value for name, value in values.items()}, step)

    def check_finite(
        self, losses: Mapping[str, Tensor], step: int, limit: int, state: Callable[[], dict[str, Any]]
    ) -> bool:
        """Whether this step may be taken; a bad one is told, too many in a row stop the run.

        Args:
            losses: of this process; one that is bad in another process counts, too.
            step: for the message.
            limit: bad steps in a row that stop the run.
            state: what is then written to RUN/not-finite.pt.

        Raises:
            TrainingError: names the loss and the step.
        """
        names = list(losses)
        flags = [float(not torch.isfinite(value).all()) for value in losses.values()]
        bad = [name for name, flag in zip(names, peers.greatest(flags, losses[names[0]].device), strict=True) if flag]
        self._bad_steps = self._bad_steps + 1 if bad else 0
        if self._bad_steps >= limit:
            values = {name: float(value.detach()) for name, value in losses.items()}
            self._write(NOT_FINITE, state() | {"losses": values})
            raise TrainingError(
                f"loss {bad[0]!r} was not finite for {limit} steps in a row, last at step {step}",
                f"try a lower --set train.learning_rate in another --run folder; {NOT_FINITE} here has the state",
            )
        if bad:
            self.on_line(f"step {step} left out: {', '.join(bad)} not finite")
        return not bad

    def checkpoint_due(self, every_s: float) -> bool:
        """Whether the last checkpoint is older than `every_s`."""
        return time.monotonic() - self._last_checkpoint >= every_s

    def save(self, state: dict[str, Any]) -> None:
        """Write the checkpoint; whatever happens meanwhile, the one before or this one is there."""
        self._write(CHECKPOINT, state)
        self._last_checkpoint = time.monotonic()

    def _write(self, name: str, state: dict[str, Any]) -> None:
        """Beside its place first, then renamed; the first of several processes does."""
        if peers.rank():
            return
        temporary = self.folder / f"{name}.part"
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.folder / name)

    def load(self) -> dict[str, Any] | None:
        """The checkpoint, or None on a fresh run.

        Raises:
            InputError: it cannot be read.
        """
        path = self.folder / CHECKPOINT
        if not path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
            raise InputError(f"cannot read {path}", "delete it to start over, or give another --run folder") from error
        return state

    def picture(self, name: str, rows: list[Tensor]) -> None:
        """Write rows of faces, each (N, 3, S, S) in [0, 1], as one PNG; the first of several processes does."""
        if peers.rank():
            return
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        strips = [torch.cat(list(row.detach().float().cpu().clamp(0, 1)), 2) for row in rows]
        grid = (torch.cat(strips, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{name}.png"), cv2.cvtColor(grid, cv2.COLOR_RGB2BGR))


def train_steps(
    stage: Stage,
    run: Run,
    train: TrainConfig,
    device: torch.device,
    stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Train until `train.steps` or `train.minutes`, from where the run's checkpoint ends.

    On the CPU, with a length in steps, a run that was stopped and continued gives the same numbers, bit for bit, as
    one that was not.

    Args:
        stage: what is trained.
        run: where to.
        train: the length, and how often to log, validate, picture and save.
        device: the stage's.
        stopped: asked before each step; once it says yes the run is saved and left.

    Returns:
        Whether the run is finished.

    Raises:
        TrainingError: a loss that is not finite, `train.max_bad_steps` times in a row.
    """
    step, spent_s = _resume(stage, run)
    started = time.monotonic() - spent_s
    judged = -1
    while True:
        mine = share_done(train, step, time.monotonic() - started)
        asked = [mine, float(stopped()), float(run.checkpoint_due(train.checkpoint_every_s))]
        share, stop, due = peers.greatest(asked, device)
        if due:
            run.save(_checkpoint(stage, step, started))
        if share >= 1:
            break
        if stop:
            run.save(_checkpoint(stage, step, started))
            run.on_line(f"stopped at step {step}")
            return False
        losses = stage.losses(step)
        told: dict[str, float] = {}
        if run.check_finite(losses, step, train.max_bad_steps, stage.state):
            told = stage.update(losses, step, share)
        step += 1
        if step % train.log_every == 0:
            values = {name: float(value.detach()) for name, value in losses.items()}
            run.log("train", step, values | told | {"share": share})
        if step % train.validate_every == 0:
            judged = _judge(stage, run, step)
        if step % train.sample_every == 0:
            _picture(stage, run, step)
    if judged != step:
        _judge(stage, run, step)
    _picture(stage, run, step)
    run.save(_checkpoint(stage, step, started))
    return True


def _resume(stage: Stage, run: Run) -> tuple[int, float]:
    """Steps taken and seconds spent so far."""
    state = run.load()
    if state is None:
        return 0, 0.0
    everyone = state.get("peers", [])
    if len(everyone) == peers.n_processes():
        state |= everyone[peers.rank()]
    elif peers.rank():  # the run has grown: nobody draws what another does
        state = {name: value for name, value in state.items() if name not in ("sampler", "torch_rng")}
    stage.restore(state)
    if "torch_rng" in state:
        torch.set_rng_state(state["torch_rng"].cpu())
    run.on_line(f"continuing at step {state['step']}")
    return int(state["step"]), float(state["spent_s"])


def _checkpoint(stage: Stage, step: int, started: float) -> dict[str, Any]:
    state = stage.state()
    state |= {"step": step, "spent_s": time.monotonic() - started, "torch_rng": torch.get_rng_state()}
    if peers.n_processes() > 1:
        state["peers"] = peers.gathered({name: state[name] for name in ("sampler", "torch_rng") if name in state})
    return state


def _judge(stage: Stage, run: Run, step: int) -> int:
    with torch.random.fork_rng():  # how often a run is judged must not change what it learns
        values = stage.validate()
    if values:
        run.log("validate", step, values)
    return step


def _picture(stage: Stage, run: Run, step: int) -> None:
    with torch.random.fork_rng():
        rows = stage.pictures()
    if rows:
        run.picture(f"{step:07d}", rows)


def prepared(
    accelerator: Accelerator, network: Network, optimizer: torch.optim.Optimizer
) -> tuple[Network, torch.optim.Optimizer]:
    """Both on the accelerator's device and in its precision; `descend` does what several processes need."""
    return accelerator.prepare_model(network, evaluation_mode=True), accelerator.prepare_optimizer(optimizer)


def descend(
    accelerator: Accelerator,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Tensor,
    rate: float,
    clip: float,
) -> None:
    """One optimizer step on a loss, averaged over processes, at a learning rate, the gradient's norm clipped."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(loss)
    peers.average_gradients(network)
    accelerator.clip_grad_norm_(network.parameters(), clip)
    optimizer.step()


def channels_last(network: Network) -> Network:
    """The network with its convolutions in the memory format that CPUs and tensor cores are fastest with."""
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def averaged_copy(network: nn.Module, decay: float, device: torch.device) -> torch.optim.swa_utils.AveragedModel:
    """A copy in eval mode that follows the network: mine = decay * mine + (1 - decay) * its, buffers too."""
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    copy = torch.optim.swa_utils.AveragedModel(network, device, multi_avg_fn=average, use_buffers=True)
    return copy.eval()


def annealed(learning_rate: float, share: float, anneal: float) -> float:
    """The rate at `share` of the run: constant, then linear to zero over the last `anneal` [3.7]."""
    return learning_rate * min(1.0, max(0.0, (1 - share) / anneal)) if anneal > 0 else learning_rate


def share_done(train: TrainConfig, step: int, spent_s: float) -> float:
    """How much of a run is done, by steps or by wall clock, whichever is further; 1 = finished."""
    by_time = spent_s / (60 * train.minutes) if train.minutes > 0 else 0.0
    return max(step / train.steps, by_time)


def sampler_state(rng: np.random.Generator) -> str:
    """The state of a sampler as text, so that a checkpoint holds nothing but tensors, numbers and text."""
    return json.dumps(rng.bit_generator.state)


def sampler_from(state: Mapping[str, Any], seed: int) -> np.random.Generator:
    """The sampler that a checkpoint was written with; seed + step where it is older than that field."""
    rng = np.random.default_rng(seed + int(state["step"]))
    if "sampler" in state:
        rng.bit_generator.state = json.loads(state["sampler"])
    return rng
