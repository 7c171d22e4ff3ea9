"""The training loop of all stages; a stopped run resumes exactly."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lipdub.config import TrainConfig
from lipdub.errors import ResourceError, TrainingError
from lipdub.training.engine import Engine, is_out_of_memory
from lipdub.training.loader import Loader
from lipdub.training.run import NOT_FINITE, Run, TrainProgress


class Stage(Protocol):
    """What a stage brings to `train_steps`: its networks, their data and its losses."""

    engine: Engine

    @property
    def networks(self) -> Sequence[nn.Module]:
        """Those that learn, as `Engine.prepare` gave them."""
        ...

    def sample(self, step: int, part: int) -> Any:
        """The batch, of `engine.part_clips` clips, of a part of a step; the same for the same numbers.

        Called from several threads at once.
        """
        ...

    def losses(self, sample: Any, step: int) -> dict[str, Tensor]:
        """Judge a batch: the unweighted terms of the loss by name."""
        ...

    def update(self, losses: dict[str, Tensor], share: float) -> dict[str, float]:
        """Descend by one part of a step; `share` of the run is done. Returns what else is worth a place in the log."""
        ...

    def validate(self) -> dict[str, float]:
        """Means over held-out samples, the same ones each time; empty where nothing is held out."""
        ...

    @property
    def settled(self) -> bool:
        """Whether validations have stopped getting better, so that more steps are of no use."""
        ...

    def pictures(self) -> list[Tensor]:
        """Rows of faces (N, 3, S, S) to look at; empty where there is nothing to see."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of this stage."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        ...


def train_steps(stage: Stage, run: Run, train: TrainConfig, stopped: Callable[[], bool] = lambda: False) -> bool:
    """Train until `train.steps` or `train.minutes`, or until the stage is settled, from where the checkpoint ends.

    On the CPU, with a length in steps, a run that was stopped and continued gives the same numbers, bit for bit, as
    one that was not.

    Args:
        stage: what is trained.
        run: where to.
        train: the length, and how often to log, validate, picture and save.
        stopped: asked before each step; once it says yes the run is saved and left.

    Returns:
        Whether the run is finished.

    Raises:
        TrainingError: a loss that is not finite, `train.max_bad_steps` times in a row.
        ResourceError: a step that does not fit into memory, however small its parts.
    """
    loop = _Loop(stage, run, train)
    try:
        return loop.run_until(stopped)
    finally:
        loop.loader.close()


class _Loop:
    def __init__(self, stage: Stage, run: Run, train: TrainConfig) -> None:
        self.stage, self.run, self.train, self.engine = stage, run, train, stage.engine
        self.step, self.skipped, self.bad_in_a_row, self.judged = 0, 0, 0, -1
        self.started = time.monotonic()  # moved back by what earlier calls have spent
        self._resume()
        engine = self.engine
        self.loader = Loader(
            stage.sample, engine.parts, train.workers, rank=engine.rank, n_processes=engine.n_processes
        )
        self._pace = _Pace(time.monotonic(), self.share)

    def run_until(self, stopped: Callable[[], bool]) -> bool:
        stage, run, train = self.stage, self.run, self.train
        while True:
            asked = [self.share, float(stopped()), float(run.checkpoint_due(train.checkpoint_every_s))]
            share, stop, due = self.engine.greatest(asked)
            if due:
                run.save(self._checkpoint())
            if share >= 1 or stage.settled:
                break
            if stop:
                run.save(self._checkpoint())
                run.on_line(f"stopped at step {self.step}")
                return False
            values = self._take_step(share)
            self.step += 1
            if self.step % train.log_every == 0:
                run.tell(self._progress(values, share))
            if self.step % train.validate_every == 0:
                self._judge()
            if self.step % train.sample_every == 0:
                self._picture()
        if stage.settled and share < 1:
            run.on_line(f"ended at step {self.step}: {train.patience} validations in a row were no better")
        if self.judged != self.step:
            self._judge()
        self._picture()
        run.save(self._checkpoint())
        return True

    @property
    def share(self) -> float:
        return share_done(self.train, self.step, time.monotonic() - self.started)

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
                        f"{self._smaller()}, in another --run folder; `--dry-run` says what a step takes",
                    ) from error
            self.loader.restart(self.engine.parts)
            self.run.on_line(
                f"step {self.step} did not fit into memory: {self.engine.parts} parts of {self.engine.part_clips} now"
            )
        self._pace.take(time.monotonic() - started)
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]} if rows else {}

    def _smaller(self) -> str:
        """Settings that take less memory."""
        clips = self.engine.part_clips // 2
        if not clips:
            return "smaller generator.size or generator.widths"
        return f"--set train.batch_clips={clips} --set train.accumulate={self.engine.parts * 2}"

    def _take_parts(self, share: float) -> list[dict[str, float]]:
        stage, rows = self.stage, []
        self.engine.begin(*stage.networks)
        for part in range(self.engine.parts):
            sample = self.loader.take(self.step, part)
            with self.engine.part(*stage.networks):
                losses = stage.losses(sample, self.step)
                row = {name: float(value.detach()) for name, value in losses.items()}
                if not self._is_finite(losses):
                    self.engine.abandon(*stage.networks)
                    return [row]
                rows.append(row | stage.update(losses, share))
        self.bad_in_a_row = 0
        return rows

    def _is_finite(self, losses: Mapping[str, Tensor]) -> bool:
        """Whether a part counts, in every process; a bad one is told, too many steps in a row stop the run."""
        names = list(losses)
        flags = self.engine.greatest([float(not torch.isfinite(value).all()) for value in losses.values()])
        bad = [name for name, flag in zip(names, flags, strict=True) if flag]
        if not bad:
            return True
        self.skipped += 1
        self.bad_in_a_row += 1
        if self.bad_in_a_row >= self.train.max_bad_steps:
            values = {name: float(value.detach()) for name, value in losses.items()}
            self.run.dump(self.stage.state() | {"step": self.step, "losses": values})
            raise TrainingError(
                f"loss {bad[0]!r} was not finite for {self.bad_in_a_row} steps in a row, last at step {self.step}",
                f"try a lower --set train.learning_rate in another --run folder; {NOT_FINITE} here has the state",
            )
        self.run.on_line(f"step {self.step} left out: {', '.join(bad)} not finite")
        return False

    def _progress(self, values: dict[str, float], share: float) -> TrainProgress:
        engine = self.engine
        seconds, waited, steps = self._pace.since_last(self.loader.waited_s)
        clips = steps * engine.parts * engine.part_clips * engine.n_processes
        return TrainProgress(
            step=self.step,
            steps=self.train.steps,
            share=share,
            losses=values,
            clips_per_s=clips / seconds if seconds else 0.0,
            wait=waited / seconds if seconds else 0.0,
            left_s=self._pace.left_s(share, time.monotonic()),
            skipped=self.skipped,
        )

    def _resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        state = self.run.load()
        if state is None:
            return
        everyone = state.get("peers", [])
        if len(everyone) == self.engine.n_processes:
            state |= everyone[self.engine.rank]
        self.stage.restore(state)
        self.step, self.skipped = int(state["step"]), int(state.get("skipped", 0))
        self.started -= float(state["spent_s"])
        self.engine.resize(int(state.get("part_clips", self.engine.part_clips)))
        if not everyone or len(everyone) == self.engine.n_processes:  # the noise of a run that has grown is new
            self.engine.restore_random(state)
        self.run.on_line(f"continuing at step {self.step}")

    def _checkpoint(self) -> dict[str, Any]:
        state = self.stage.state() | self.engine.random_state()
        state |= {"step": self.step, "spent_s": time.monotonic() - self.started, "skipped": self.skipped}
        state |= {"part_clips": self.engine.part_clips}
        if self.engine.n_processes > 1:
            state["peers"] = self.engine.gathered(self.engine.random_state())
        return state

    def _judge(self) -> None:
        with torch.random.fork_rng():  # how often a run is judged must not change what it learns
            values = self.stage.validate()
        if values:
            self.run.log("validate", self.step, values)
        self.judged = self.step

    def _picture(self) -> None:
        with torch.random.fork_rng():
            rows = self.stage.pictures()
        if rows:
            self.run.picture(f"{self.step:07d}", rows)


class _Pace:
    """How long steps take, without what is done between them."""

    def __init__(self, now: float, share: float) -> None:
        self._began, self._first_share = now, share
        self._seconds, self._steps, self._waited = 0.0, 0, 0.0

    def take(self, seconds: float) -> None:
        self._seconds += seconds
        self._steps += 1

    def since_last(self, waited_s: float) -> tuple[float, float, int]:
        """Seconds in steps, of which waiting, and steps, since the last call."""
        told = self._seconds, waited_s - self._waited, self._steps
        self._seconds, self._steps, self._waited = 0.0, 0, waited_s
        return told

    def left_s(self, share: float, now: float) -> float | None:
        done = share - self._first_share
        return (1 - share) / done * (now - self._began) if done > 0 else None


def share_done(train: TrainConfig, step: int, spent_s: float) -> float:
    """How much of a run is done, by steps or by wall clock, whichever is further; 1 = finished."""
    by_time = spent_s / (60 * train.minutes) if train.minutes > 0 else 0.0
    return max(step / train.steps, by_time)
