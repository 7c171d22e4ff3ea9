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

from lipdub.config import Config, TrainConfig, load_config
from lipdub.errors import InputError, TrainingError
from lipdub.training.run import Run, annealed, averaged_copy, sampler_from, sampler_state, share_done, train_steps
from lipdub.training.settings import keep_settings

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]


class Walk:
    """A stage whose one weight walks at random; both random sources of real stages take part."""

    def __init__(self, bad: dict[int, str] | None = None) -> None:
        self.weight, self.rng, self.bad = 0.0, np.random.default_rng(0), bad or {}
        self.validated: list[float] = []
        self.shares: list[float] = []
        self.draws_in_validation = 1

    def losses(self, step: int) -> dict[str, Tensor]:
        losses = {"l1": torch.rand(()), "mask": torch.tensor(float(self.rng.normal()))}
        if step in self.bad:
            losses[self.bad[step]] = torch.tensor(float("nan"))
        return losses

    def update(self, losses: dict[str, Tensor], step: int, share: float) -> dict[str, float]:
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
        return {"weight": self.weight, "sampler": sampler_state(self.rng)}

    def restore(self, state: dict[str, Any]) -> None:
        self.weight, self.rng = state["weight"], sampler_from(state, 0)


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
    run = Run(folder, settings, lambda line: None)
    torch.manual_seed(0)
    return train_steps(stage, run, settings.train, CPU, stopped)


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
    assert set(state) == {"weight", "sampler", "step", "spent_s", "torch_rng"}


def test_how_often_a_run_is_judged_changes_nothing(tmp_path: Path) -> None:
    weights = []
    for every in (1, 3, 1000):
        stage = Walk()
        stage.draws_in_validation = every
        go(tmp_path / str(every), stage, validate_every=every, sample_every=every)
        weights.append(stage.weight)
    assert weights[0] == weights[1] == weights[2]


def test_checkpoints_of_earlier_versions_are_continued(tmp_path: Path) -> None:
    go(tmp_path, Walk(), stop_at=4)
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    del state["sampler"], state["torch_rng"]
    torch.save(state, path)
    stage = Walk()
    assert go(tmp_path, stage)
    assert len(stage.shares) == 6


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
    assert set(lines[1]) == {"kind", "step", "time_s", "l1", "mask", "weight", "share"}
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


def test_a_run_folder_refuses_another_configuration(tmp_path: Path) -> None:
    Run(tmp_path, config(), print)
    with pytest.raises(InputError, match=r"train\.learning_rate = 0\.0002, not 0\.001") as raised:
        Run(tmp_path, config(learning_rate=1e-3), print)
    assert "--run" in raised.value.remedy
    with pytest.raises(InputError, match=r"generator\.size"):
        Run(tmp_path, replace(config(), generator=load_config("debug").generator), print)


def test_a_run_may_be_made_longer(tmp_path: Path) -> None:
    Run(tmp_path, config(), print)
    Run(tmp_path, config(steps=20, minutes=3.0, validate_every=7, workers=1), print)
    assert json.loads((tmp_path / "config.json").read_text())["train"]["steps"] == 20


def test_what_training_does_not_depend_on_may_differ(tmp_path: Path) -> None:
    Run(tmp_path, config(), print)
    Run(tmp_path, replace(config(), face=load_config(None, ["face.min_confidence=0.9"]).face), print)


def test_a_setting_that_an_earlier_version_lacked_is_added(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    Run(tmp_path, config(), print)
    old = json.loads(path.read_text())
    del old["train"]["reference_blur"]
    path.write_text(json.dumps(old))
    Run(tmp_path, config(), print)
    assert json.loads(path.read_text())["train"]["reference_blur"] == 0.5


@pytest.mark.parametrize("content", ["", "[", "{}}"])
def test_damaged_settings_are_an_input_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(InputError, match=r"s\.json"):
        keep_settings(tmp_path / "s.json", {"a": {"b": 1}}, option="--run")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_a_damaged_checkpoint_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"checkpoint\.pt") as raised:
        go(tmp_path, Walk())
    assert "--run" in raised.value.remedy


@pytest.mark.parametrize(("share", "wanted"), [(0.0, 1.0), (0.7, 1.0), (0.85, 0.5), (1.0, 0.0)])
def test_the_rate_is_annealed_linearly_at_the_end(share: float, wanted: float) -> None:
    assert annealed(2.0, share, 0.3) == pytest.approx(2 * wanted)
    assert annealed(2.0, share, 0.0) == 2.0


def test_a_run_is_done_by_steps_or_by_time() -> None:
    train = replace(TrainConfig(), steps=100, minutes=2.0)
    assert share_done(train, 50, 30.0) == 0.5
    assert share_done(train, 50, 90.0) == 0.75
    assert share_done(replace(train, minutes=0.0), 50, 1e9) == 0.5


def test_the_average_follows_weights_and_buffers() -> None:
    network = torch.nn.BatchNorm1d(1)
    averaged = averaged_copy(network, 0.75, CPU)
    for _ in range(2):  # the first update copies
        averaged.update_parameters(network)
        with torch.no_grad():
            network.weight.fill_(5.0)
            network.running_mean.fill_(8.0)
    assert averaged.module.weight.item() == 2.0  # 0.75 * 1 + 0.25 * 5
    assert averaged.module.running_mean.item() == 2.0
    assert not averaged.module.training


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
    train_steps(Walk(bad={3: "l1"}), Run(tmp_path, settings, told.append), settings.train, CPU)
    assert "step 3 left out: l1 not finite" in told


def test_trackers_are_given_what_the_log_has(tmp_path: Path) -> None:
    seen: list[tuple[dict[str, float], int]] = []
    run = Run(tmp_path, config(), lambda line: None, lambda values, step: seen.append((values, step)))
    run.log("train", 3, {"l1": 0.5})
    assert seen == [({"l1": 0.5}, 3)]


def test_a_kill_in_the_middle_of_a_save_loses_nothing(tmp_path: Path) -> None:
    go(tmp_path, Walk(), stop_at=3)
    code = """
import os, sys, pathlib, torch
from lipdub.training import run
def cut(state, file):
    file.write(b"PK half of it")
    file.flush()
    os.kill(os.getpid(), 9)
run.torch.save = cut
folder = pathlib.Path(sys.argv[1])
run.Run(folder, run.run_config(folder), print).save({"step": 7})
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, timeout=120)
    assert done.returncode == -9
    assert (tmp_path / "checkpoint.pt.part").read_bytes() == b"PK half of it"
    stage = Walk()
    assert go(tmp_path, stage)
    assert len(stage.shares) == 7  # of 10; the first three were kept
