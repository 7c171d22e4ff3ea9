"""A run folder: resolved configuration, metrics, sample pictures, and checkpoints that continue exactly.

RUN/config.json       what the run was asked for; a second call with other values is refused
RUN/metrics.jsonl     a line per log interval and per validation
RUN/samples/*.png     rows: masked input, one reference, generated, real
RUN/checkpoint.pt     everything needed to go on
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from lipdub.config import Config, TrainConfig, to_dict
from lipdub.errors import InputError, TrainingError

CHECKPOINT = "checkpoint.pt"


class Run:
    """One training run on disc.

    Args:
        folder: created if needed.
        config: written once; a later call must agree with it, apart from the length of the run.
        on_line: receives what a person may read, a line at a time.

    Raises:
        InputError: the folder holds a run of another configuration.
    """

    def __init__(self, folder: Path, config: Config, on_line: Callable[[str], None]) -> None:
        self.folder, self.on_line = folder, on_line
        self.started = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "config.json"
        wanted = json.loads(json.dumps(to_dict(config)))
        if path.exists():
            _compare(json.loads(path.read_text(encoding="utf-8")), wanted, folder)
        path.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
        self._last_checkpoint = time.monotonic()
        self._bad_steps = 0

    def log(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl and tell it."""
        line = json.dumps(
            {"kind": kind, "step": step, "time_s": round(time.monotonic() - self.started, 1)} | dict(values)
        )
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        numbers = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        self.on_line(f"{kind} {step}: {numbers}")

    def check_finite(self, losses: Mapping[str, Tensor], step: int, limit: int) -> bool:
        """Whether this step may be taken; too many bad ones in a row stop the run.

        Raises:
            TrainingError: names the loss and the step.
        """
        bad = [name for name, value in losses.items() if not torch.isfinite(value).all()]
        self._bad_steps = self._bad_steps + 1 if bad else 0
        if self._bad_steps >= limit:
            raise TrainingError(
                f"loss {bad[0]!r} was not finite for {limit} steps in a row, last at step {step}",
                "lower --set train.learning_rate, then run the same command again to continue from the checkpoint",
            )
        return not bad

    def checkpoint_due(self, every_s: float) -> bool:
        """Whether the last checkpoint is older than `every_s`."""
        return time.monotonic() - self._last_checkpoint >= every_s

    def save(self, state: dict[str, Any]) -> None:
        """Write the checkpoint: beside its place first, then renamed."""
        temporary = self.folder / f"{CHECKPOINT}.part"
        torch.save(state, temporary)
        temporary.replace(self.folder / CHECKPOINT)
        self._last_checkpoint = time.monotonic()

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The checkpoint, or None on a fresh run."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return None
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        return state

    def picture(self, name: str, rows: list[Tensor]) -> None:
        """Write rows of faces, each (N, 3, S, S) in [0, 1], as one PNG."""
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        strips = [torch.cat(list(row.detach().float().cpu().clamp(0, 1)), 2) for row in rows]
        grid = (torch.cat(strips, 1).permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{name}.png"), cv2.cvtColor(grid, cv2.COLOR_RGB2BGR))


def annealed(learning_rate: float, share: float, anneal: float) -> float:
    """The rate at `share` of the run: constant, then linear to zero over the last `anneal` [3.7]."""
    return learning_rate * min(1.0, max(0.0, (1 - share) / anneal)) if anneal > 0 else learning_rate


def share_done(train: TrainConfig, step: int, spent_s: float) -> float:
    """How much of a run is done, by steps or by wall clock, whichever is further; 1 = finished."""
    by_time = spent_s / (60 * train.minutes) if train.minutes > 0 else 0.0
    return max(step / train.steps, by_time)


LENGTH_KEYS = {"steps", "minutes", "workers", "validate_every", "sample_every", "checkpoint_every_s", "log_every"}


def _compare(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    for section, values in new.items():
        for key, value in values.items():
            if section == "train" and key in LENGTH_KEYS:
                continue
            if old.get(section, {}).get(key) != value:
                raise InputError(
                    f"{folder} holds a run with {section}.{key} = {old.get(section, {}).get(key)!r}, not {value!r}",
                    "give the same settings to continue it, or another --run folder",
                )
