from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lipdub.cli.app import app
from lipdub.config import Config, load_config
from lipdub.data.store import read_manifest
from lipdub.models.expert import Expert
from lipdub.models.generator import Generator
from lipdub.models.layers import n_parameters
from lipdub.training import stages
from lipdub.training.plan import cost, memory
from lipdub.weights import load_generator

runner = CliRunner()
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def call(tmp_path: Path, *more: str, stage: str = "1") -> list[str]:
    return ["train", "--stage", stage, "--data", str(tmp_path / "data"), "--run", str(tmp_path / "run"), *more]


@pytest.fixture
def data(face_clip: Callable[..., Path], fake_faces: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A data set that `lipdub prepare` made of two clips in which bright squares stand for faces."""
    monkeypatch.setattr("lipdub.faces.choose.builtin_backend", lambda *_: fake_faces())
    for name in ("anna", "ben"):
        (tmp_path / "source" / name).mkdir(parents=True)
        face_clip(lambda number: [(50, 30, 60)], f"source/{name}/a.mp4", n_frames=25, languages=["eng"])
    arguments = ["prepare", str(tmp_path / "source"), "-o", str(tmp_path / "data"), "--side", "48"]
    assert runner.invoke(app, arguments).exit_code == 0
    return tmp_path / "data"


def test_footage_becomes_weights(data: Path, tmp_path: Path) -> None:
    weights = tmp_path / "mine.safetensors"
    arguments = call(tmp_path, "--preset", "debug", "--set", "train.steps=2", "--export", str(weights))
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert "1 clips to train on, 1 to validate" in result.stderr
    assert f"{tmp_path / 'run'}: finished, weights in {weights}" in result.stderr
    generator, config = load_generator(weights, Config())
    assert config.generator == load_config("debug").generator
    assert n_parameters(Generator(config.generator)) == sum(p.numel() for p in generator.parameters())
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == weights.read_bytes()
    load_generator(tmp_path / "run", Config())
    result = runner.invoke(app, [*arguments, "--set", "generator.embedding=16"])
    assert result.exit_code == 3
    assert "generator.embedding = 32, not 16" in result.stderr


def test_a_dry_run_prints_a_preset_and_makes_nothing(tmp_path: Path) -> None:
    arguments = call(tmp_path, "--dry-run", "--preset", "small-cpu", "--set", "generator.widths=[8, 16]", stage="1")
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    first, *rest = result.stdout.splitlines()
    assert first.startswith("# stage 1: ")
    assert first.endswith(" GFLOP a frame")
    assert rest[0].startswith("# memory: networks ")
    assert "generator.widths = [8, 16]" in rest
    assert 'train.precision = "bf16"' in rest
    assert not any("n_mels" in line for line in rest)
    assert list(tmp_path.iterdir()) == []
    preset = tmp_path / "mine.toml"
    preset.write_text(result.stdout)
    asked = load_config("small-cpu", ["generator.widths=[8, 16]", "train.stage='1'"])
    assert load_config(preset) == asked


def test_a_dry_run_of_defaults_has_nothing_to_print_but_the_size(tmp_path: Path) -> None:
    result = runner.invoke(app, call(tmp_path, "--dry-run"))
    first, second = result.stdout.splitlines()
    assert first == "# stage 1: 24,648,084 parameters, 4.19 GFLOP a frame"
    assert second.startswith("# memory: networks 0.49 GB, a step 0.")  # 24.6 M * (1 + 1 + 2 + 1) * 4 bytes


def test_memory_is_what_the_forward_pass_keeps(data: Path) -> None:
    config = load_config("debug")
    one, three = (memory("1", replace(config, train=replace(config.train, batch_clips=n))) for n in (1, 3))
    assert one.networks == three.networks == 20 * cost("1", config)[0]
    assert 2.5 < three.step / one.step < 3.1
    half = memory("1", replace(config, train=replace(config.train, precision="bf16")))
    assert half.step == one.step // 2
    against = memory("2", config)
    assert against.networks > one.networks and against.step > one.step
    assert one.clips == 0
    assert memory("1", config, data).clips == sum(e.frames for e in read_manifest(data)[0]) * 48 * 48 * 3


def test_a_later_preset_wins_over_an_earlier_one(tmp_path: Path) -> None:
    arguments = call(tmp_path, "--dry-run", "--preset", "debug", "--preset", "ablation/1-random")
    lines = runner.invoke(app, arguments).stdout.splitlines()
    assert "generator.size = 32" in lines
    assert "generator.attention = false" in lines
    assert "reference.count = 1" in lines


def test_the_release_preset_fits_what_may_be_bundled() -> None:
    parameters, flops = cost("1", load_config("release"))
    assert parameters <= 25e6 and flops <= 5e9


@pytest.mark.parametrize("stage", ["detector", "landmarks"])
def test_face_networks_have_a_preset_of_their_own(tmp_path: Path, stage: str) -> None:
    result = runner.invoke(app, call(tmp_path, "--dry-run", "--minutes", "5", stage=stage))
    assert "train.minutes = 5.0" in result.stdout
    assert "train.learning_rate = 0.002" in result.stdout


def test_the_cost_of_an_expert_is_counted_by_hand() -> None:
    config = load_config("debug")
    parameters, flops = cost("expert", config)
    expert = Expert(config.expert)
    assert parameters == n_parameters(expert)
    products = 0

    def count(layer: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal products
        products += output.numel() * layer.weight[0].numel()

    for layer in expert.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            layer.register_forward_hook(count)
    expert.eval()(torch.zeros(1, 15, 16, 32), torch.zeros(1, 1, 80, 16))
    assert flops == pytest.approx(2 * products / 5)


def test_references_are_encoded_before_and_do_not_count(tmp_path: Path) -> None:
    few, many = (load_config("debug", [f"reference.count={count}"]) for count in (1, 20))
    assert cost("1", many)[1] < 1.2 * cost("1", few)[1]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_it_after_the_step_with_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    before = [signal.getsignal(n) for n in SIGNALS]
    asked: list[bool] = []

    def train(request: object, on_line: object, *, stopped: Callable[[], bool], on_progress: object) -> bool:
        asked.append(stopped())
        os.kill(os.getpid(), number)
        asked.append(stopped())
        return False

    monkeypatch.setattr(stages, "run_stage", train)
    result = runner.invoke(app, call(tmp_path))
    assert asked == [False, True]
    assert result.exit_code == 128 + number
    assert result.stderr == f"{tmp_path / 'run'}: saved; the same command continues it\n"
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_a_second_signal_ends_it_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: object, **__: object) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("the second one was ignored")

    monkeypatch.setattr(stages, "run_stage", train)
    result = runner.invoke(app, call(tmp_path))
    assert result.exit_code == 130
    assert "interrupted" in result.stderr


def test_a_stopped_run_goes_on_where_it_was(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_steps = stages.train_steps

    def interrupted(stage: object, *rest: object) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return train_steps(stage, *rest)

    arguments = call(tmp_path, "--preset", "debug", "--set", "train.steps=2", stage="expert")
    with monkeypatch.context() as patch:
        patch.setattr(stages, "train_steps", interrupted)
        result = runner.invoke(app, arguments)
    assert result.exit_code == 143
    assert "stopped at step 0" in result.stderr
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0
    assert "continuing at step 0" in result.stderr


@pytest.mark.parametrize(
    ("more", "stage", "code", "named"),
    [
        ([], "1", 3, "not a prepared data set"),
        ([], "expert", 3, "not a prepared data set"),
        ([], "detector", 3, "--labels"),
        (["--set", "train.stepps=3"], "1", 3, "stepps"),
        (["--preset", "nosuch"], "1", 3, "nosuch"),
        (["--stage", "3"], "1", 2, "--stage"),
        (["--minutes", "-1"], "1", 2, "--minutes"),
        (["--minutes", "long"], "1", 2, "--minutes"),
        (["--nosuch"], "1", 2, "--nosuch"),
    ],
)
def test_bad_calls_have_their_exit_codes(tmp_path: Path, more: list[str], stage: str, code: int, named: str) -> None:
    (tmp_path / "data").mkdir()
    result = runner.invoke(app, call(tmp_path, *more, stage=stage))
    assert result.exit_code == code
    assert named in result.stderr
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_there_are_named(data: Path, tmp_path: Path) -> None:
    for option in ("--features", "--expert"):
        result = runner.invoke(app, call(tmp_path, "--preset", "debug", option, str(tmp_path / "no.safetensors")))
        assert result.exit_code == 7
        assert "no.safetensors" in result.stderr
    assert not (tmp_path / "run").exists()


def test_stages_follow_each_other_without_paths(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data.rename(tmp_path / "dataset")
    short = ["--preset", "debug", "--set", "train.steps=1"]
    result = runner.invoke(app, ["train", "--stage", "2", *short])
    assert result.exit_code == 3
    assert "stage 2 goes on from stage 1" in result.stderr
    for stage in ("1", "2"):
        result = runner.invoke(app, ["train", "--stage", stage, *short])
        assert result.exit_code == 0, result.stderr
        assert (tmp_path / "runs" / stage / "checkpoint.pt").is_file()
    assert (tmp_path / "runs" / "2" / "start.safetensors").is_file()


def test_tensorboard_is_fed_where_it_is_installed(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `train` is not installed")
    short = ["--preset", "debug", "--set", "train.steps=1"]
    assert runner.invoke(app, call(tmp_path, *short)).exit_code == 0
    (events,) = (tmp_path / "run" / "lipdub").glob("events.out.tfevents.*")
    assert b"val_l1" in events.read_bytes()


@pytest.mark.parametrize(("name", "code"), [("nosuch", 3), ("swanlab", 6)])
def test_a_tracker_that_is_not_there_is_named(data: Path, tmp_path: Path, name: str, code: int) -> None:
    result = runner.invoke(app, call(tmp_path, "--preset", "debug", "--tracker", name))
    assert result.exit_code == code
    assert name in result.stderr
    assert not (tmp_path / "run").exists()
