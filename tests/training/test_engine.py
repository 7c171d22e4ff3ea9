"""Several processes: they take the step of one with the batches of all, and go on from a checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from lipdub.config import TrainConfig
from lipdub.training.engine import Engine, averaged_copy, rate_at

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
WORKER = """
import sys
import torch
from lipdub.config import TrainConfig
from lipdub.training.engine import Engine
engine = Engine(TrainConfig())
engine.seed(0, own=False)
network = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
wrapped, optimizer = engine.prepare(network, torch.optim.Adam(network.parameters(), 1e-2))
for step in range(20):
    inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
    mine = inputs.chunk(engine.n_processes)[engine.rank]
    with engine.part(wrapped):
        loss = (wrapped(mine) - mine.sum(1, keepdim=True)).square().mean()
        engine.descend(wrapped, optimizer, loss, 1e-2)
torch.save(network.state_dict(), f"{sys.argv[1]}-{engine.rank}.pt")
engine.accelerator.end_training()
"""


def launch(processes: int, *arguments: str) -> str:
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    starter = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [sys.executable, *starter, *arguments], env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def test_one_process_decides_for_itself() -> None:
    engine = Engine(TrainConfig())
    assert engine.greatest([0.1, 2.0]) == [0.1, 2.0]
    assert (engine.rank, engine.n_processes, engine.gathered("a"), engine.of_first("b")) == (0, 1, ["a"], "b")


def grown(accumulate: int) -> nn.Module:
    """A network after three steps on the same twelve rows, in parts."""
    engine = Engine(replace(TrainConfig(), batch_clips=12 // accumulate, accumulate=accumulate))
    engine.seed(0, own=False)
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    trained, optimizer = engine.prepare(network, torch.optim.Adam(network.parameters(), 1e-2))
    for step in range(3):
        rows = torch.randn(12, 4, generator=torch.Generator().manual_seed(step))
        for number, part in enumerate(rows.chunk(engine.parts)):
            with engine.part(trained):
                engine.descend(trained, optimizer, trained(part).square().mean(), 1e-2)
                assert engine.stepping == (number == accumulate - 1)
    return network


def test_parts_take_the_step_of_the_whole() -> None:
    whole, parts = grown(1), grown(3)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value)


def test_parts_that_are_abandoned_leave_nothing() -> None:
    engine = Engine(replace(TrainConfig(), accumulate=2))
    network = nn.Linear(2, 1, bias=False)
    trained, optimizer = engine.prepare(network, torch.optim.SGD(network.parameters(), 1.0))
    before = network.weight.clone()
    with engine.part(trained):
        engine.descend(trained, optimizer, trained(torch.ones(1, 2)).sum(), 1.0)
    engine.abandon(trained)
    for _ in range(2):  # a whole step again
        assert torch.equal(network.weight, before)
        with engine.part(trained):
            engine.descend(trained, optimizer, trained(torch.full((1, 2), 0.1)).sum(), 1.0)
    torch.testing.assert_close(before - network.weight, torch.full((1, 2), 0.1))


def test_parts_shrink_to_divisors_and_the_clips_of_a_step_stay() -> None:
    engine = Engine(replace(TrainConfig(), batch_clips=6, accumulate=2))
    seen = []
    while engine.shrink():
        seen.append((engine.part_clips, engine.parts))
    assert seen == [(3, 4), (1, 12)]


@pytest.mark.parametrize("wanted", [True, False])
def test_the_memory_format_is_a_setting(wanted: bool) -> None:
    network = Engine(replace(TrainConfig(), channels_last=wanted)).place(nn.Conv2d(3, 4, 3))
    assert network.weight.is_contiguous(memory_format=torch.channels_last) == wanted


@pytest.mark.slow
def test_a_compiled_network_takes_the_same_steps(made_data: Path, tmp_path: Path) -> None:
    settings = ["--stage", "1", "--data", str(made_data), "--preset", "debug", "--tracker", "none"]
    for name in ("true", "false"):
        run = ["--run", str(tmp_path / name), "--set", f"train.compile={name}", "--set", "train.steps=2"]
        launch(1, "-m", "--", "lipdub", "train", *settings, *run)
    runs = [tmp_path / name for name in ("true", "false")]
    rows = [(run / "metrics.jsonl").read_text().splitlines() for run in runs]
    for mine, theirs in zip(*rows, strict=True):
        wanted = {name: value for name, value in json.loads(theirs).items() if name in ("l1", "mask", "val_l1")}
        assert wanted and {name: json.loads(mine)[name] for name in wanted} == pytest.approx(wanted, rel=1e-3)
    names = [list(torch.load(run / "checkpoint.pt", weights_only=True)["model"]) for run in runs]
    assert names[0] == names[1]  # compilation leaves no mark


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one_with_twice_the_batch(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    for processes in (1, 2):
        launch(processes, str(script), str(tmp_path / f"of{processes}"))
    alone, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("of1-0", "of2-0", "of2-1"))
    begun = nn.Linear(6, 16)
    for name in alone:
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], alone[name], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(alone["0.weight"], begun.weight)


@pytest.mark.slow
def test_two_processes_train_stop_and_go_on(made_data: Path, tmp_path: Path) -> None:
    def train(run: str, steps: int) -> str:
        settings = ["--set", f"train.steps={steps}", "--set", "train.anneal=0", "--tracker", "none"]
        arguments = ["--stage", "1", "--data", str(made_data), "--run", str(tmp_path / run), "--preset", "debug"]
        return launch(2, "-m", "--", "lipdub", "train", *arguments, *settings)

    told = train("whole", 4)
    assert told.count("step 4 of 4 ") == 1  # one of them tells
    train("parts", 2)
    train("parts", 4)
    whole, parts = (torch.load(tmp_path / run / "checkpoint.pt", weights_only=True) for run in ("whole", "parts"))
    assert whole["step"] == parts["step"] == 4
    assert not torch.equal(*(peer["torch_rng"] for peer in whole["peers"]))
    for key in ("model", "ema"):
        assert all(torch.equal(whole[key][name], parts[key][name]) for name in whole[key])


@pytest.mark.slow
def test_two_processes_are_one_with_two_parts(made_data: Path, tmp_path: Path) -> None:
    """The same samples and the same weights, in a whole run of stage 2 with all its networks."""
    settings = [*("--data", str(made_data), "--preset", "debug", "--tracker", "none"), *("--set", "train.ema=0.5")]
    begin = ["-m", "--", "lipdub", "train", *settings, "--set", "train.steps=3", "--set", "train.batch_clips=2"]
    monochrome = ["--set", "loss.r1_every=2", "--stage", "1"]
    launch(1, *begin, *monochrome, "--run", str(tmp_path / "one"), "--set", "train.accumulate=2")
    launch(2, *begin, *monochrome, "--run", str(tmp_path / "two"))
    one, two = (torch.load(tmp_path / run / "checkpoint.pt", weights_only=True) for run in ("one", "two"))
    for name, value in one["model"].items():
        if "running" not in name and "num_batches" not in name:  # of the first process' parts only
            torch.testing.assert_close(two["model"][name], value, rtol=1e-3, atol=2e-5, msg=name)


@pytest.mark.parametrize(
    ("share", "wanted"), [(0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.7, 1.0), (0.85, 0.5), (1.0, 0.0)]
)
def test_the_rate_rises_at_the_beginning_and_falls_at_the_end(share: float, wanted: float) -> None:
    train = TrainConfig(learning_rate=2.0, anneal=0.3, warm_up=0.1)
    assert rate_at(share, train) == pytest.approx(2 * wanted)
    assert rate_at(share, replace(train, anneal=0.0, warm_up=0.0)) == 2.0


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
