"""The presets of Table 4.1: which row each is, what it costs, and that each trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lipdub.config import PRESETS, Config, load_config
from lipdub.evaluation.ablation import ROWS, row_of
from lipdub.training.plan import cost
from lipdub.training.stages import RunRequest, run_stage

NAMES = [path.stem for path in sorted((PRESETS / "ablation").glob("*.toml"))]


def preset(name: str, *overrides: str) -> Config:
    stage = "2" if name.endswith("gan") else "1"
    return load_config(["debug", f"ablation/{name}"], [f"train.stage={stage!r}", *overrides])


def test_there_is_a_preset_for_each_row_in_order() -> None:
    assert [row_of(preset(name)) for name in NAMES] == list(ROWS)


def test_rows_without_clustering_see_one_reference_and_nothing_is_left_over() -> None:
    for name in NAMES:
        config = preset(name)
        assert config.reference.count == config.train.references == (1 if "KMeans" not in row_of(config).name else 10)


def test_what_costs_something_is_counted() -> None:
    """Attention, audio skips and mask head add to what is computed; sampling, shortcuts and the adversary do not."""
    costs = [cost("1", load_config(f"ablation/{name}")) for name in NAMES]
    parameters, flops = zip(*costs, strict=True)
    assert parameters[0] == parameters[1] == parameters[2] == parameters[3] == parameters[4]  # attention has none
    assert parameters[4] < parameters[5] < parameters[6] == parameters[7] == 24_648_084
    assert flops[0] == flops[1] < flops[2] == flops[3] < flops[4] < flops[5] < flops[6] == flops[7]


@pytest.mark.slow
def test_every_row_trains_thirty_steps(made_data: Path, tmp_path: Path) -> None:
    for name in NAMES:
        config = preset(name, "train.steps=30", "train.validate_every=30", "train.sample_every=30")
        start = str(tmp_path / NAMES[-2]) if config.train.stage == "2" else None
        request = RunRequest(
            stage=config.train.stage, data=made_data, run=tmp_path / name, config=config, start=start, seed=1
        )
        assert run_stage(request, lambda line: None)
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        l1 = [line["l1"] for line in lines if line["kind"] == "train"]
        assert len(l1) == 30
        assert sum(l1[20:]) < sum(l1[:10]), name  # it learns
        assert ("mask" in lines[0], "discriminator" in lines[0]) == (config.generator.mask_head, start is not None)
