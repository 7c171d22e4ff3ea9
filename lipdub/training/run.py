"""A run folder: settings, metrics, checkpoints.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from lipdub.config import Config, keep_settings, to_dict
from lipdub.errors import InputError
from lipdub.weights_export import CHECKPOINT, SETTINGS

NOT_FINITE = "not-finite.pt"
SECTIONS = ("mel", "reference", "generator", "audio", "expert", "discriminator", "loss", "train")  # that training reads
# these say how long a run is, how much it tells and how fast it is, not what it learns
FREE = {
    f"train.{key}"
    for key in (
        *("steps", "minutes", "workers", "compile", "channels_last"),
        *("validate_every", "sample_every", "checkpoint_every_s", "log_every"),
    )
}


@dataclass(frozen=True, kw_only=True)
class TrainProgress:
    """Where a run is, for those who watch it."""

    step: int  # taken so far
    steps: int  # of the whole run, if no time budget ends it before
    share: float  # of the run that is done
    losses: Mapping[str, float]  # of the last step, with what else the stage tells
    clips_per_s: float  # in all processes, since the last one
    wait: float  # share of that time in which steps waited for samples
    left_s: float | None  # None before it is known
    skipped: int  # steps that were left out because a loss was not finite


class Run:
    """One training run on disk.

    Args:
        folder: created if needed.
        config: written once; a later call must agree with it, apart from the length of the run.
        on_line: receives what a person may read, a line at a time.
        on_numbers: receives the same numbers as metrics.jsonl, with their step; for trackers.
        on_progress: receives what is logged of the steps in place of `on_line`, where it is given.
        writes: False in all but the first of several processes.

    Raises:
        InputError: the folder holds a run of another configuration.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        on_line: Callable[[str], None],
        on_numbers: Callable[[dict[str, float], int], None] = lambda values, step: None,
        on_progress: Callable[[TrainProgress], None] | None = None,
        *,
        writes: bool = True,
    ) -> None:
        self.folder, self.on_line, self.on_numbers, self.on_progress = folder, on_line, on_numbers, on_progress
        self.writes = writes
        self.started = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        settings = {section: to_dict(getattr(config, section)) for section in SECTIONS}
        keep_settings(folder / SETTINGS, settings, option="--run", free=FREE)
        self._last_checkpoint = time.monotonic()

    def tell(self, progress: TrainProgress) -> None:
        """Log the steps since the last time."""
        values = dict(progress.losses) | {"share": progress.share}
        pace = {"clips_per_s": round(progress.clips_per_s, 2), "wait": round(progress.wait, 4)}
        self.log("train", progress.step, values | pace | {"skipped": progress.skipped})
        if self.writes and self.on_progress is not None:
            self.on_progress(progress)

    def log(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl and tell it; the first of several processes does."""
        if not self.writes:
            return
        line = json.dumps(
            {"kind": kind, "step": step, "time_s": round(time.monotonic() - self.started, 1)} | dict(values)
        )
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        numbers = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        if kind != "train" or self.on_progress is None:
            self.on_line(f"{kind} {step}: {numbers}")
        self.on_numbers({name: value for name, value in values.items()}, step)

    def checkpoint_due(self, every_s: float) -> bool:
        """Whether the last checkpoint is older than `every_s`."""
        return time.monotonic() - self._last_checkpoint >= every_s

    def save(self, state: dict[str, Any]) -> None:
        """Write the checkpoint; whatever happens meanwhile, the one before or this one is there."""
        self._write(CHECKPOINT, state)
        self._last_checkpoint = time.monotonic()

    def dump(self, state: dict[str, Any]) -> None:
        """Write the state in which the run gives up."""
        self._write(NOT_FINITE, state)

    def _write(self, name: str, state: dict[str, Any]) -> None:
        """Beside its place first, then renamed; the first of several processes does."""
        if not self.writes:
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
        if not self.writes:
            return
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        strips = [torch.cat(list(row.detach().float().cpu().clamp(0, 1)), 2) for row in rows]
        grid = (torch.cat(strips, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{name}.png"), cv2.cvtColor(grid, cv2.COLOR_RGB2BGR))
