"""The training loop of all stages; a stopped run resumes exactly."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Generic, cast

import torch
from torch import Tensor, nn

from lipdub.config import TrainConfig
from lipdub.errors import ResourceError, TrainingError
from lipdub.training.engine import Engine, Network, averaged_copy, is_out_of_memory
from lipdub.training.loader import Loader
from lipdub.training.run import NOT_FINITE, Run, TrainProgress


class Stage(ABC, Generic[Network]):
    """What `train_steps` trains: a network with its optimizer; data and losses are a subclass' own.

    Args:
        engine: device, precision and processes.
        network: on the engine's device, under whose names checkpoints hold the weights.
        optimizer: of its parameters.
        called: what a step calls in place of the network, which it holds; None: the network itself.
        ema: decay of the averaged copy; None: there is none.
        patience: of `best`, to which `validate` may offer weights.
    """

    def __init__(
        self,
        engine: Engine,
        network: Network,
        optimizer: torch.optim.Optimizer,
        *,
        called: nn.Module | None = None,
        ema: float | None = None,
        patience: int = 0,
    ) -> None:
        self.engine, self.network, self.best = engine, network, BestWeights(patience)
        self.averaged = None if ema is None else averaged_copy(network, ema, engine.device)
        self.wrapped, self.optimizer = engine.prepare(network if called is None else called, optimizer)

    @property
    def networks(self) -> list[nn.Module]:
        """Those that learn, as `Engine.prepare` gave them."""
        return [self.wrapped]

    @property
    def settled(self) -> bool:
        """Whether validations have stopped getting better, so that more steps are of no use."""
        return 0 < self.best.patience <= self.best.stale

    @abstractmethod
    def sample(self, step: int, part: int) -> Any:
        """The batch, of `engine.part_clips` clips, of a part of a step; the same for the same numbers.

        Called from several threads at once.
        """

    @abstractmethod
    def losses(self, sample: Any, step: int) -> dict[str, Tensor]:
        """The unweighted terms of the loss of a batch on the engine's device, by name."""

    @abstractmethod
    def update(self, losses: dict[str, Tensor], share: float) -> dict[str, float]:
        """Descend by one part of a step; `share` of the run is done. Returns what else is worth a place in the log."""

    def validate(self) -> dict[str, float]:
        """Means over held-out samples, the same ones each time; empty where nothing is held out."""
        return {}

    def pictures(self) -> list[Tensor]:
        """Rows of faces (N, 3, S, S) to look at; empty where there is nothing to see."""
        return []

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of this stage."""
        state: dict[str, Any] = {"model": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.averaged is not None:
            state["ema"] = self.averaged.state_dict()
        if self.best.weights:
            state |= {"best": self.best.weights, "best_score": self.best.score, "stale": self.best.stale}
        return state

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.network.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.averaged is not None:
            self.averaged.load_state_dict(state["ema"])
        if "best" in state:
            self.best.weights, self.best.score, self.best.stale = state["best"], state["best_score"], state["stale"]

    @property
    def average(self) -> Network:
        """The averaged copy."""
        assert self.averaged is not None
        return cast(Network, self.averaged.module)

    def descend(self, loss: Tensor, rate: float) -> None:
        """A part of a step of the optimizer, which the averaged copy follows."""
        self.engine.descend(self.wrapped, self.optimizer, loss, rate)
        if self.averaged is not None and self.engine.stepping:
            self.averaged.update_parameters(self.network)


class BestWeights:
    """The weights of the best validation so far, and how many validations came after it.

    Training is settled after `patience` validations in a row without a better one; 0 = never.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.weights: dict[str, Tensor] = {}
        self.score, self.stale = -math.inf, 0

    def offer(self, score: float, network: nn.Module) -> None:
        """Keep a copy of a network's weights if their score is higher than the best one."""
        self.stale += 1
        if score > self.score or not self.weights:
            self.score, self.stale = score, 0
            self.weights = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}


def train_steps(stage: Stage[Any], run: Run, train: TrainConfig, stopped: Callable[[], bool] = lambda: False) -> bool:
    """Train until `train.steps` or `train.minutes`, or until the stage is settled, from where the checkpoint ends.

    On the CPU, with a length in steps, a run that was stopped and continued gives the same numbers, bit for bit, as one
    that was not. Before each step `stopped` is asked; once it says yes the run is saved and left.

    Returns:
        Whether the run is finished.

    Raises:
        TrainingError: a loss that is not finite, `train.max_bad_steps` times in a row.
        ResourceError: a step that does not fit into memory, however small its parts.
    """
    loop = _Loop(stage, run, train)
    try:
        return loop.take_steps(stopped)
    finally:
        loop.loader.close()


class _Loop:
    """The steps of one call of `train_steps`."""

    def __init__(self, stage: Stage[Any], run: Run, train: TrainConfig) -> None:
        self.stage, self.run, self.train, self.engine = stage, run, train, stage.engine
        self.step, self.skipped, self.skipped_in_a_row = 0, 0, 0
        self.validated_at = -1  # the step of the last validation
        self.started = time.monotonic()  # moved back by what earlier calls have spent
        self._resume()
        engine = self.engine
        self.loader = Loader(
            stage.sample, engine.parts, train.workers, rank=engine.rank, n_processes=engine.n_processes
        )
        self._began, self._first_share = time.monotonic(), self._share()
        self._steps, self._step_s, self._waited_s = 0, 0.0, 0.0  # since the last line about them

    def take_steps(self, stopped: Callable[[], bool]) -> bool:
        """Take steps until the run is finished, or until it is to be stopped; whether it is finished."""
        while True:
            share, stop, checkpoint_due = self._state_of_all(stopped)
            if checkpoint_due:
                self._save()
            if share >= 1 or self.stage.settled:
                self._finish(share)
                return True
            if stop:
                self._save()
                self.run.on_line(f"stopped at step {self.step}")
                return False
            values = self._take_step(share)
            self.step += 1
            if self.step % self.train.log_every == 0:
                self.run.tell(self._progress(values, share))
            if self.step % self.train.validate_every == 0:
                self._validate()
            if self.step % self.train.sample_every == 0:
                self._picture()

    def _state_of_all(self, stopped: Callable[[], bool]) -> tuple[float, bool, bool]:
        """Share of the run that is done, whether to stop, and whether a checkpoint is due; alike in all processes."""
        due = self.run.checkpoint_due(self.train.checkpoint_every_s)
        share, stop, save = self.engine.greatest([self._share(), float(stopped()), float(due)])
        return share, bool(stop), bool(save)

    def _share(self) -> float:
        """Share of the run that is done, as this process sees it."""
        return share_done(self.train, self.step, time.monotonic() - self.started)

    def _finish(self, share: float) -> None:
        """Validate, draw and save what the last step left."""
        if self.stage.settled and share < 1:
            self.run.on_line(f"ended at step {self.step}: {self.train.patience} validations in a row were no better")
        if self.validated_at != self.step:
            self._validate()
        self._picture()
        self._save()

    def _take_step(self, share: float) -> dict[str, float]:
        """All parts of a step, smaller ones where they do not fit into memory. Returns the means over parts."""
        started = time.monotonic()
        while True:
            try:
                rows = self._take_parts(share)
                break
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self.engine.abandon(*self.stage.networks)
                if not self.engine.shrink():
                    raise ResourceError(
                        f"a step with train.batch_clips = {self.engine.part_clips} does not fit into memory",
                        f"{self._smaller_settings()}, in another --run folder; `--dry-run` says what a step takes",
                    ) from error
            self.loader.restart(self.engine.parts)
            self.run.on_line(
                f"step {self.step} did not fit into memory: {self.engine.parts} parts of {self.engine.part_clips} now"
            )
        self._steps, self._step_s = self._steps + 1, self._step_s + time.monotonic() - started
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]} if rows else {}

    def _smaller_settings(self) -> str:
        """Settings that take less memory."""
        clips = self.engine.part_clips // 2
        if not clips:
            return "smaller generator.size or generator.widths"
        return f"--set train.batch_clips={clips} --set train.accumulate={self.engine.parts * 2}"

    def _take_parts(self, share: float) -> list[dict[str, float]]:
        """Losses of each part of a step, by name; of one part alone where it is not finite and the step is left out."""
        stage, rows = self.stage, []
        self.engine.begin(*stage.networks)
        for part in range(self.engine.parts):
            sample = self.engine.send(self.loader.take(self.step, part))
            with self.engine.part(*stage.networks):
                losses = stage.losses(sample, self.step)
                row = {name: float(value.detach()) for name, value in losses.items()}
                if infinite := self._not_finite(losses):
                    self.engine.abandon(*stage.networks)
                    self._skip(infinite, row)
                    return [row]
                rows.append(row | stage.update(losses, share))
        self.skipped_in_a_row = 0
        return rows

    def _not_finite(self, losses: Mapping[str, Tensor]) -> list[str]:
        """Names of losses that are not finite in any process."""
        flags = self.engine.greatest([float(not torch.isfinite(value).all()) for value in losses.values()])
        return [name for name, flag in zip(losses, flags, strict=True) if flag]

    def _skip(self, infinite: list[str], losses: dict[str, float]) -> None:
        """Count a step that is left out.

        Raises:
            TrainingError: too many in a row.
        """
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= self.train.max_bad_steps:
            self.run.dump(self.stage.state() | {"step": self.step, "losses": losses})
            raise TrainingError(
                f"loss {infinite[0]!r} was not finite for {self.skipped_in_a_row} steps in a row, last at step "
                f"{self.step}",
                f"try a lower --set train.learning_rate in another --run folder; {NOT_FINITE} here has the state",
            )
        self.run.on_line(f"step {self.step} left out: {', '.join(infinite)} not finite")

    def _progress(self, values: dict[str, float], share: float) -> TrainProgress:
        """How far the run is, and the pace since the last call; `values` are the losses of the last step."""
        engine, seconds = self.engine, max(self._step_s, 1e-9)  # without what is done between steps
        clips = self._steps * engine.parts * engine.part_clips * engine.n_processes
        waited_s, done = self.loader.waited_s - self._waited_s, share - self._first_share
        self._steps, self._step_s, self._waited_s = 0, 0.0, self.loader.waited_s
        return TrainProgress(
            step=self.step,
            steps=self.train.steps,
            share=share,
            losses=values,
            clips_per_s=clips / seconds,
            wait=waited_s / seconds,
            left_s=(1 - share) / done * (time.monotonic() - self._began) if done > 0 else None,
            skipped=self.skipped,
        )

    def _resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        state = self.run.load()
        if state is None:
            return
        peers = state.get("peers", [])
        if len(peers) == self.engine.n_processes:
            state |= peers[self.engine.rank]
        self.stage.restore(state)
        self.step, self.skipped = int(state["step"]), int(state.get("skipped", 0))
        self.started -= float(state["spent_s"])
        self.engine.resize(int(state.get("part_clips", self.engine.part_clips)))
        if not peers or len(peers) == self.engine.n_processes:  # the noise of a run that has grown is new
            self.engine.restore_random(state)
        self.run.on_line(f"continuing at step {self.step}")

    def _save(self) -> None:
        """Write a checkpoint."""
        state = self.stage.state() | self.engine.random_state()
        state |= {"step": self.step, "spent_s": time.monotonic() - self.started, "skipped": self.skipped}
        state |= {"part_clips": self.engine.part_clips}
        if self.engine.n_processes > 1:
            state["peers"] = self.engine.gathered(self.engine.random_state())
        self.run.save(state)

    def _validate(self) -> None:
        """Measure held-out samples and log the result."""
        with torch.random.fork_rng():  # how often a run is validated must not change what it learns
            values = self.stage.validate()
        if values:
            self.run.log("validate", self.step, values)
        self.validated_at = self.step

    def _picture(self) -> None:
        """Write what the stage has to show of this step."""
        with torch.random.fork_rng():
            rows = self.stage.pictures()
        if rows:
            self.run.picture(f"{self.step:07d}", rows)


def share_done(train: TrainConfig, step: int, spent_s: float) -> float:
    """How much of a run is done, by steps or by wall clock, whichever is further; 1 = finished."""
    by_time = spent_s / (60 * train.minutes) if train.minutes > 0 else 0.0
    return max(step / train.steps, by_time)
