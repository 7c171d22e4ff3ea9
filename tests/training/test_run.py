from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lipdub.config import Config, TrainConfig, keep_settings, load_config
from lipdub.errors import InputError
from lipdub.training.run import Run, TrainProgress


def config(**train: Any) -> Config:
    values = {"steps": 10, "validate_every": 4, "sample_every": 5, "log_every": 5} | train
    return replace(Config(), train=replace(TrainConfig(), **values))


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
    before = (tmp_path / "config.json").read_text()
    Run(tmp_path, replace(config(), face=load_config(None, ["face.min_confidence=0.9"]).face), print)
    assert (tmp_path / "config.json").read_text() == before and "face" not in json.loads(before)


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


def test_trackers_are_given_what_the_log_has(tmp_path: Path) -> None:
    seen: list[tuple[dict[str, float], int]] = []
    run = Run(tmp_path, config(), lambda line: None, lambda values, step: seen.append((values, step)))
    run.log("train", 3, {"l1": 0.5})
    assert seen == [({"l1": 0.5}, 3)]


def test_who_watches_gets_progress_in_place_of_lines(tmp_path: Path) -> None:
    lines: list[str] = []
    seen: list[TrainProgress] = []
    progress = TrainProgress(
        step=3, steps=10, share=0.3, losses={"l1": 0.5}, clips_per_s=8.0, wait=0.01, left_s=7.0, skipped=1
    )
    Run(tmp_path, config(), lines.append).tell(progress)
    assert lines == ["train 3: l1 0.5  share 0.3  clips_per_s 8  wait 0.01  skipped 1"]
    Run(tmp_path, config(), lines.append, on_progress=seen.append).tell(progress)
    assert seen == [progress] and len(lines) == 1
    Run(tmp_path, config(), lines.append, on_progress=seen.append, writes=False).tell(progress)
    assert len(seen) == 1 and len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
