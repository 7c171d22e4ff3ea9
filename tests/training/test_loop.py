from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from lipdub.config import Config, TrainConfig
from lipdub.errors import InputError, ResourceError, TrainingError
from lipdub.training.engine import Engine
from lipdub.training.loop import share_done, train_steps
from lipdub.training.run import Run

ROOT = Path(__file__).parents[2]


class Walk:
    """A stage whose one weight walks at random; both random sources of real stages take part.

    Args:
        bad: step -> the loss that is not finite in it.
        room: the largest part that fits into memory.
    """

    networks: tuple[torch.nn.Module, ...] = ()

    def __init__(self, bad: dict[int, str] | None = None, room: int = 1000) -> None:
        self.engine = Engine(config().train)
        self.weight, self.bad, self.room = 0.0, bad or {}, room
        self.validated: list[float] = []
        self.shares: list[float] = []
        self.samples: list[list[float]] = []
        self.draws_in_validation = 1
        self.enough = 1000  # validations

    @property
    def settled(self) -> bool:
        return len(self.validated) >= self.enough

    def sample(self, step: int, part: int) -> list[float]:
        if self.engine.part_clips > self.room:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
        return np.random.default_rng((step, part)).normal(size=self.engine.part_clips).tolist()

    def losses(self, sample: list[float], step: int) -> dict[str, Tensor]:
        losses = {"l1": torch.rand(()), "mask": torch.tensor(float(np.mean(sample)))}
        if step in self.bad:
            losses[self.bad[step]] = torch.tensor(float("nan"))
        self.samples.append(sample)
        return losses

    def update(self, losses: dict[str, Tensor], share: float) -> dict[str, float]:
        self.weight += float(sum(losses.values()))
        self.shares.append(share)
        return {"weight": self.weight}

    def validate(self) -> dict[str, float]:
        torch.rand(self.draws_in_validation)
        self.validated.append(self.weight)
        return {"val_l1": self.weight}

    def pictures(self) -> list[Tensor]:
        return [torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8)]

    def state(self) -> dict[str, Any]:
        return {"weight": self.weight}

    def restore(self, state: dict[str, Any]) -> None:
        self.weight = state["weight"]


def config(**train: Any) -> Config:
    values = {"steps": 10, "validate_every": 4, "sample_every": 5, "log_every": 5} | train
    return replace(Config(), train=replace(TrainConfig(), **values))


def go(folder: Path, stage: Walk, stop_at: int | None = None, **train: Any) -> bool:
    """Train in a run folder; `stop_at` steps are taken before it is asked to stop."""
    asked = -1

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked == stop_at

    settings = config(**train)
    stage.engine = Engine(settings.train)
    run = Run(folder, settings, lambda line: None)
    torch.manual_seed(0)
    return train_steps(stage, run, settings.train, stopped)


def test_a_run_that_was_stopped_ends_with_the_same_numbers(tmp_path: Path) -> None:
    whole = Walk()
    assert go(tmp_path / "whole", whole)
    assert not go(tmp_path / "parts", Walk(), stop_at=3)
    assert not go(tmp_path / "parts", Walk(), stop_at=4)
    last = Walk()
    assert go(tmp_path / "parts", last)
    assert last.weight == whole.weight
    assert last.shares == whole.shares[7:]


def test_a_stopped_run_has_saved_what_it_did(tmp_path: Path) -> None:
    go(tmp_path, Walk(), stop_at=3)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == 3
    assert set(state) == {"weight", "step", "spent_s", "skipped", "part_clips", "torch_rng"}


def test_how_often_a_run_is_judged_changes_nothing(tmp_path: Path) -> None:
    weights = []
    for every in (1, 3, 1000):
        stage = Walk()
        stage.draws_in_validation = every
        go(tmp_path / str(every), stage, validate_every=every, sample_every=every)
        weights.append(stage.weight)
    assert weights[0] == weights[1] == weights[2]


def test_the_time_budget_counts_over_calls(tmp_path: Path) -> None:
    go(tmp_path, Walk(), stop_at=2, minutes=10.0)
    path = tmp_path / "checkpoint.pt"
    torch.save(torch.load(path, weights_only=True) | {"spent_s": 601.0}, path)
    stage = Walk()
    assert go(tmp_path, stage, minutes=10.0)
    assert stage.shares == []
    assert len(stage.validated) == 1


def test_metrics_and_pictures_are_written(tmp_path: Path) -> None:
    stage = Walk()
    go(tmp_path, stage)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("validate", 4),
        ("train", 5),
        ("validate", 8),
        ("train", 10),
        ("validate", 10),
    ]
    assert set(lines[1]) == {
        *("kind", "step", "time_s", "l1", "mask", "weight", "share"),
        *("clips_per_s", "wait", "skipped"),
    }
    assert lines[1]["share"] == 0.4  # of the run before that step
    assert lines[0]["val_l1"] == stage.validated[0]
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["0000005.png", "0000010.png"]
    picture = cv2.imread(str(tmp_path / "samples" / "0000005.png"))
    assert picture.shape == (16, 16, 3)
    assert (picture[:8].max(), picture[8:].min()) == (0, 255)


def test_the_end_is_validated_once(tmp_path: Path) -> None:
    stage = Walk()
    go(tmp_path, stage, validate_every=5)
    assert len(stage.validated) == 2


def test_a_loss_that_is_not_finite_stops_the_run_and_is_named(tmp_path: Path) -> None:
    stage = Walk(bad=dict.fromkeys(range(3, 10), "mask"))
    with pytest.raises(TrainingError, match=r"'mask' was not finite for 3 steps in a row, last at step 5") as raised:
        go(tmp_path, stage, max_bad_steps=3)
    assert "learning_rate" in raised.value.remedy
    assert raised.value.exit_code == 8
    assert len(stage.shares) == 3  # no step was taken on a bad loss


def test_bad_steps_that_do_not_follow_each_other_are_left_out(tmp_path: Path) -> None:
    stage = Walk(bad={2: "l1", 3: "l1", 5: "l1", 6: "mask"})
    assert go(tmp_path, stage, max_bad_steps=3)
    assert len(stage.shares) == 6
    assert np.isfinite(stage.weight)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_a_damaged_checkpoint_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint\.pt") as raised:
        go(tmp_path, Walk())
    assert "--run" in raised.value.remedy


def test_a_run_is_done_by_steps_or_by_time() -> None:
    train = replace(TrainConfig(), steps=100, minutes=2.0)
    assert share_done(train, 50, 30.0) == 0.5
    assert share_done(train, 50, 90.0) == 0.75
    assert share_done(replace(train, minutes=0.0), 50, 1e9) == 0.5


def test_the_state_in_which_a_run_gave_up_is_kept(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="mask") as raised:
        go(tmp_path, Walk(bad=dict.fromkeys(range(2, 10), "mask")), max_bad_steps=2)
    assert "not-finite.pt" in raised.value.remedy
    state = torch.load(tmp_path / "not-finite.pt", weights_only=True)
    assert np.isnan(state["losses"]["mask"]) and np.isfinite(state["losses"]["l1"])
    assert np.isfinite(state["weight"])


def test_a_step_that_is_left_out_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    settings = config()
    train_steps(Walk(bad={3: "l1"}), Run(tmp_path, settings, told.append), settings.train)
    assert "step 3 left out: l1 not finite" in told


def test_a_kill_in_the_middle_of_a_save_loses_nothing(tmp_path: Path) -> None:
    go(tmp_path, Walk(), stop_at=3)
    code = """
import os, sys, pathlib, torch
from lipdub.training import run
from lipdub.weights_export import run_config
def cut(state, file):
    file.write(b"PK half of it")
    file.flush()
    os.kill(os.getpid(), 9)
run.torch.save = cut
folder = pathlib.Path(sys.argv[1])
run.Run(folder, run_config(folder), print).save({"step": 7})
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, timeout=120)
    assert done.returncode == -9
    assert (tmp_path / "checkpoint.pt.part").read_bytes() == b"PK half of it"
    stage = Walk()
    assert go(tmp_path, stage)
    assert len(stage.shares) == 7  # of 10; the first three were kept


def test_skipped_steps_are_counted_over_calls(tmp_path: Path) -> None:
    go(tmp_path, Walk(bad={1: "l1", 2: "mask"}), stop_at=3)
    go(tmp_path, Walk(bad={6: "l1"}))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["skipped"] for line in lines if line["kind"] == "train"] == [2, 3]


def test_a_step_that_does_not_fit_is_taken_in_smaller_parts(tmp_path: Path) -> None:
    stage = Walk(room=2)
    assert go(tmp_path, stage, batch_clips=8, accumulate=1)
    assert (stage.engine.part_clips, stage.engine.parts) == (2, 4)  # over 4
    assert {len(sample) for sample in stage.samples} == {2}
    assert len(stage.samples) == 10 * 4  # as many clips a step as before
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["part_clips"] == 2
    again = Walk(room=2)
    go(tmp_path, again, batch_clips=8, accumulate=1, steps=11)
    assert len(again.samples) == 4  # what fits is remembered


def test_a_step_that_does_not_fit_at_all_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"batch_clips = 1 does not fit") as raised:
        go(tmp_path, Walk(room=0), batch_clips=4)
    assert "dry-run" in raised.value.remedy


def test_another_error_is_not_taken_for_a_lack_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Walk()
    monkeypatch.setattr(stage, "sample", lambda step, part: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        go(tmp_path, stage)


def test_a_settled_stage_ends_early_and_says_so(tmp_path: Path) -> None:
    told: list[str] = []
    settings, stage = config(steps=100, validate_every=3), Walk()
    stage.enough = 2
    assert train_steps(stage, Run(tmp_path, settings, told.append), settings.train)
    assert len(stage.shares) == 6 and len(stage.validated) == 2
    assert any(line.startswith("ended at step 6") for line in told)
