from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lipdub.config import Config, load_config
from lipdub.errors import InputError
from lipdub.losses import discriminator_adversarial, generator_adversarial
from lipdub.models.generator import Generator
from lipdub.training import adversary as adversary_module
from lipdub.training.adversary import Adversary, diff_augment
from lipdub.training.engine import Engine
from lipdub.training.stages import START, RunRequest, run_stage, second_stage
from lipdub.weights import load_generator, load_state
from lipdub.weights_export import CHECKPOINT, run_config

SIZE = 32


@pytest.fixture
def config() -> Config:
    return second_stage(load_config("debug", ["train.learning_rate=2e-3", "train.anneal=0"]), with_expert=True)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips reach the discriminator as they are."""
    monkeypatch.setattr(adversary_module, "diff_augment", lambda clips: clips.clone())


def clips(count: int = 4, level: float = 0.5) -> torch.Tensor:
    return (level + 0.1 * torch.rand(count, 5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def request(data: Path, run: Path, stage: str, *more: str, start: Path | str | None = None) -> RunRequest:
    config = load_config("debug", [f"train.stage='{stage}'", "train.steps=2", *more])
    return RunRequest(stage=stage, data=data, run=run, config=config, start=None if start is None else str(start))


def quiet(line: str) -> None:
    pass


def test_stage_2_sets_the_weights_of_the_thesis_and_keeps_those_that_were_asked_for() -> None:
    loss = second_stage(Config(), with_expert=True).loss
    assert (loss.l1, loss.vgg, loss.expert, loss.mask, loss.adversarial) == (1, 0.5, 0.1, 1, 0.01)
    assert second_stage(Config(), with_expert=False).loss.expert == 0
    asked = load_config(None, ["loss.adversarial=0.5", "loss.expert=0.3", "train.frames=3", "generator.size=128"])
    mine = second_stage(asked, with_expert=True)
    assert (mine.loss.adversarial, mine.loss.expert) == (0.5, 0.3)
    assert (mine.discriminator.frames, mine.discriminator.size) == (3, 128)


def test_the_generator_is_told_and_the_discriminator_is_not_touched(config: Config, plain: None) -> None:
    adversary = Adversary(config, Engine(config.train))
    before = adversary.state()["model"]
    before = {name: value.clone() for name, value in before.items() if "original" in name}
    fake = clips(level=0.3).requires_grad_(True)
    loss = adversary.generator_loss(fake, clips())
    loss.backward()
    assert fake.grad is not None and fake.grad[..., SIZE // 2 :, :].abs().sum() > 0
    assert not fake.grad[..., : SIZE // 2, :].any()  # the upper half is never seen
    after = adversary.state()["model"]
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(p.grad is None for p in adversary._discriminator.parameters())
    torch.testing.assert_close(loss, generator_adversarial(adversary._discriminator(fake)), atol=1e-3, rtol=1e-3)


def test_it_learns_to_tell_real_from_fake(config: Config) -> None:
    torch.manual_seed(0)
    adversary = Adversary(config, Engine(config.train))
    real, fake = clips(level=0.7), clips(level=0.2)
    losses = []
    for _ in range(80):
        adversary.generator_loss(fake, real)
        losses.append(adversary.discriminator_step(0.0)["discriminator"])
    assert losses[0] > 1.2 and losses[-1] < 0.9
    with torch.no_grad():
        told = discriminator_adversarial(adversary._discriminator(real), adversary._discriminator(fake))
        swapped = discriminator_adversarial(adversary._discriminator(fake), adversary._discriminator(real))
    assert told < swapped - 0.5


def test_the_penalty_comes_round_and_is_taken_on_real_clips(
    config: Config, plain: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[torch.Tensor] = []
    penalty = adversary_module.r1_penalty
    monkeypatch.setattr(
        adversary_module, "r1_penalty", lambda logits, seen: judged.append(seen.detach()) or penalty(logits, seen)
    )
    every3 = second_stage(load_config("debug", ["loss.r1_every=3"]), with_expert=False)
    adversary, real = Adversary(every3, Engine(every3.train)), clips(level=0.7)
    taken = []
    for _ in range(7):
        adversary.generator_loss(clips(level=0.2), real)
        taken.append("r1" in adversary.discriminator_step(0.0))
    assert taken == [True, False, False, True, False, False, True]
    assert all(torch.equal(seen, real) for seen in judged)
    off = second_stage(load_config("debug", ["loss.r1_gamma=0"]), with_expert=False)
    adversary = Adversary(off, Engine(off.train))
    adversary.generator_loss(clips(), real)
    assert adversary.discriminator_step(0.0).keys() == {"discriminator"}


def test_a_clip_is_augmented_as_a_whole_and_differently_from_others() -> None:
    torch.manual_seed(0)
    one = clips(1)[:, :1]
    many = diff_augment(one.expand(6, 5, 3, SIZE, SIZE))
    assert many.shape == (6, 5, 3, SIZE, SIZE) and many.min() >= 0 and many.max() <= 1
    assert all(torch.equal(clip[0], clip[4]) for clip in many)
    assert len({float(clip.mean()) for clip in many}) == 6


def test_erosion_darkens_and_gradients_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TURN", "SCALE", "SHIFT"):
        monkeypatch.setattr(adversary_module, name, 0.0)
    picture = torch.zeros(1, 1, 3, 9, 9)
    picture[..., 2:7, 2:7] = 1
    monkeypatch.setattr(adversary_module, "ERODED", 0.0)
    torch.testing.assert_close(diff_augment(picture), picture)
    monkeypatch.setattr(adversary_module, "ERODED", 1.0)
    smaller = torch.zeros_like(picture)
    smaller[..., 3:6, 3:6] = 1
    torch.testing.assert_close(diff_augment(picture), smaller)
    leaf = clips(2).requires_grad_(True)
    diff_augment(leaf).sum().backward()
    assert leaf.grad is not None and leaf.grad.abs().sum() > 0


@pytest.fixture(scope="module")
def first(made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a run of stage 1."""
    folder = tmp_path_factory.mktemp("stage1")
    assert run_stage(request(made_data, folder, "1"), quiet)
    yield folder


def test_stage_2_goes_on_from_stage_1(made_data: Path, tmp_path: Path, first: Path) -> None:
    out = tmp_path / "two.safetensors"
    asked = request(made_data, tmp_path / "two", "2", start=first)
    assert run_stage(RunRequest(**{**asked.__dict__, "export": out}), quiet)
    state = torch.load(tmp_path / "two" / CHECKPOINT, weights_only=True)
    assert state["adversary"]["learnt"] == 2
    begun = load_generator(tmp_path / "two" / START, Config())[0].state_dict()
    learnt = torch.load(first / CHECKPOINT, weights_only=True)["ema"]
    assert all(torch.allclose(begun[k], learnt[f"module.{k}"], atol=2e-3) for k in begun if "num_batches" not in k)
    assert run_config(tmp_path / "two").loss.adversarial == 0.01
    state, metadata = load_state(out)
    assert metadata["kind"] == "generator" and not any("discriminator" in name for name in state)


def test_a_generator_can_begin_with_weights(made_data: Path, tmp_path: Path, first: Path) -> None:
    weights = tmp_path / "one.safetensors"
    run_stage(RunRequest(**{**request(made_data, first, "1").__dict__, "export": weights}), quiet)
    run_stage(request(made_data, tmp_path / "more", "1", "train.learning_rate=0", "train.ema=0", start=weights), quiet)
    begun, _ = load_generator(weights, Config())
    after = Generator(begun.config)
    after.load_state_dict(torch.load(tmp_path / "more" / CHECKPOINT, weights_only=True)["model"])
    for (name, a), b in zip(begun.named_parameters(), after.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_four_steps_against_an_adversary_are_two_and_two(made_data: Path, tmp_path: Path, first: Path) -> None:
    settings = ["train.steps=4", "loss.r1_every=3"]
    run_stage(request(made_data, tmp_path / "whole", "2", *settings, start=first), quiet)
    asked = iter([False, False, True])
    parts = request(made_data, tmp_path / "parts", "2", *settings, start=first)
    assert not run_stage(parts, quiet, stopped=lambda: next(asked))
    torch.manual_seed(99)
    assert run_stage(parts, quiet)
    whole, again = (torch.load(tmp_path / name / CHECKPOINT, weights_only=True) for name in ("whole", "parts"))
    for key in ("model", "ema"):
        assert all(torch.equal(whole[key][name], again[key][name]) for name in whole[key])
    mine, theirs = whole["adversary"]["model"], again["adversary"]["model"]
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_stage_2_without_a_stage_1_says_what_to_give(made_data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="goes on from stage 1"):
        run_stage(request(made_data, tmp_path / "two", "2"), quiet)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no checkpoint"):
        run_stage(request(made_data, tmp_path / "two", "2", start=tmp_path / "empty"), quiet)
    assert not (tmp_path / "two").exists()
