"""Several processes: they take the step of one with the batches of all, and go on from a checkpoint."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lipdub.training import peers

ROOT = Path(__file__).parents[2]
WORKER = """
import sys
import torch
from accelerate import Accelerator
from lipdub.training import peers
from lipdub.training.run import descend, prepared
accelerator = Accelerator()
torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
network, optimizer = prepared(accelerator, network, torch.optim.Adam(network.parameters(), 1e-2))
for step in range(20):
    inputs = torch.randn(8, 6, generator=torch.Generator().manual_seed(step))
    mine = inputs.chunk(peers.n_processes())[peers.rank()]
    descend(accelerator, network, optimizer, (network(mine) - mine.sum(1, keepdim=True)).square().mean(), 1e-2, 1.0)
torch.save(network.state_dict(), f"{sys.argv[1]}-{peers.rank()}.pt")
"""


def launch(processes: int, *arguments: str) -> str:
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    starter = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [sys.executable, *starter, *arguments], env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def test_one_process_is_left_as_it_is() -> None:
    network = nn.Linear(2, 1)
    network(torch.ones(1, 2)).sum().backward()
    peers.average_gradients(network)
    assert torch.equal(network.weight.grad, torch.ones(1, 2))
    assert peers.greatest([0.1, 2.0], torch.device("cpu")) == [0.1, 2.0]
    assert (peers.rank(), peers.n_processes(), peers.own_seed(5), peers.gathered("a")) == (0, 1, 5, ["a"])


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
    assert told.count("train 4: ") == 1  # one of them tells
    train("parts", 2)
    train("parts", 4)
    whole, parts = (torch.load(tmp_path / run / "checkpoint.pt", weights_only=True) for run in ("whole", "parts"))
    assert whole["step"] == parts["step"] == 4
    assert len({peer["sampler"] for peer in whole["peers"]}) == 2
    for key in ("model", "ema"):
        learnt = {name for name in whole[key] if "running" not in name}
        assert all(torch.equal(whole[key][name], parts[key][name]) for name in learnt)
