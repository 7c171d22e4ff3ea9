"""Each stage for a few steps on drawn faces: it learns, resumes exactly, and exports what it averaged."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lipdub.config import Config, load_config
from lipdub.data.store import ClipEntry
from lipdub.errors import InputError, ResourceError, SetupError, TrainingError, WeightsError
from lipdub.losses import expert_bce
from lipdub.models.expert import Expert
from lipdub.models.generator import Generator
from lipdub.models.layers import mask_lower_half
from lipdub.training import expert as expert_module
from lipdub.training.data import Clip, ClipSet
from lipdub.training.engine import Engine
from lipdub.training.expert import ExpertTraining, calibration, expert_batch
from lipdub.training.generator import GeneratorTraining
from lipdub.training.loop import train_steps
from lipdub.training.run import Run
from lipdub.training.stages import RunRequest, run_stage
from lipdub.weights import (
    load_audio_encoder,
    load_expert,
    load_features,
    load_generator,
    load_state,
    save_state,
    sha256_of,
)
from lipdub.weights_export import export, export_run, manifest_entry, run_config


@pytest.fixture(autouse=True)
def short_validations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch instead of many."""
    monkeypatch.setattr("lipdub.training.expert.VALIDATION_BATCHES", 1)
    monkeypatch.setattr("lipdub.training.generator.VALIDATION_BATCHES", 1)


WARP = [
    *("generator.shape_code=8", "generator.warp=true", "generator.whole_references=true", "generator.own_frame=true"),
    *("train.aligned_references=1", "loss.shape=1", "loss.gradient_l1=1"),
    *("loss.painted_share=0.1", "loss.painted_l1=0.5", "loss.unpainted_lips=0.02"),
]


def request(data: Path, run: Path, stage: str, *overrides: str, **more: object) -> RunRequest:
    config = load_config("debug", [f"train.stage={stage!r}", "train.steps=2", *overrides])
    return RunRequest(stage=stage, data=data, run=run, config=config, **more)


def quiet(line: str) -> None:
    pass


def checkpoint(run: Path) -> dict:
    return torch.load(run / "checkpoint.pt", weights_only=True)


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def equal(a: object, b: object) -> bool:
    """Whether two checkpoints hold the same numbers."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture(scope="module")
def trained_expert(made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported weights of an expert of two steps."""
    folder = tmp_path_factory.mktemp("expert")
    assert run_stage(request(made_data, folder / "run", "expert", export=folder / "expert.safetensors"), quiet)
    return folder / "expert.safetensors"


@pytest.mark.parametrize("stage", ["expert", "1"])
def test_two_steps_change_every_weight(made_data: Path, tmp_path: Path, stage: str) -> None:
    assert run_stage(request(made_data, tmp_path, stage, "train.steps=1"), quiet)
    before = checkpoint(tmp_path)["model"]
    assert run_stage(request(made_data, tmp_path, stage), quiet)
    after = checkpoint(tmp_path)["model"]
    same = [name for name in before if torch.equal(before[name], after[name])]
    assert same == []
    assert checkpoint(tmp_path)["step"] == 2


@pytest.mark.parametrize(
    ("stage", "more"),
    [
        ("expert", []),
        ("expert", ["loss.shape=1"]),
        ("1", []),
        ("1", ["generator.shape_code=8", "loss.shape=1"]),
        ("1", WARP),
    ],
)
def test_four_steps_are_two_and_resume_and_two(made_data: Path, tmp_path: Path, stage: str, more: list[str]) -> None:
    settings = ["train.steps=4", "train.validate_every=3", *more]  # a validation falls into the second part only
    run_stage(request(made_data, tmp_path / "whole", stage, *settings), quiet)
    asked = iter([False, False, True])
    assert not run_stage(request(made_data, tmp_path / "parts", stage, *settings), quiet, stopped=lambda: next(asked))
    assert checkpoint(tmp_path / "parts")["step"] == 2
    torch.manual_seed(99)
    assert run_stage(request(made_data, tmp_path / "parts", stage, *settings), quiet)
    whole, parts = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    for state in (whole, parts):
        del state["spent_s"]
    assert equal(whole, parts)
    learnt, again = (
        [{k: v for k, v in line.items() if k not in ("time_s", "clips_per_s", "wait")} for line in metrics(folder)]
        for folder in (tmp_path / "whole", tmp_path / "parts")
    )
    assert learnt == again


@pytest.mark.parametrize("stage", ["expert", "1"])
def test_validation_leaves_the_training_samples_alone(made_data: Path, stage: str) -> None:
    config = load_config("debug", ["generator.shape_code=8"])
    clips, held_out = (ClipSet(made_data, split, config) for split in ("train", "val"))
    make = ExpertTraining if stage == "expert" else GeneratorTraining
    training = make(config, Engine(config.train), clips, held_out)
    before, torch_before = training.sample(3, 0), torch.get_rng_state()
    first = training.validate()
    training.pictures()
    assert training.validate() == first
    assert equal(training.sample(3, 0), before)
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_an_expert_begins_with_the_audio_layers_and_the_faces_of_others(made_data: Path, trained_expert: Path) -> None:
    config = load_config("debug", ["expert.context=44", "expert.n_mels=80"])
    clips, held_out = (ClipSet(made_data, split, config) for split in ("train", "val"))
    trained, encoder = load_expert(trained_expert, Config())[0], load_audio_encoder("audio", Config())[0]
    begun = ExpertTraining(config, Engine(config.train), clips, held_out, start=trained).network
    assert equal(begun.faces.state_dict(), trained.faces.state_dict())
    audio, member = begun.audio.layers.state_dict(), encoder.members[0].state_dict()
    assert equal(audio, {name: member[name] for name in audio})


def test_checkpoints_keep_the_names_that_earlier_versions_read(made_data: Path, tmp_path: Path) -> None:
    run_stage(request(made_data, tmp_path, "1"), quiet)
    state = checkpoint(tmp_path)
    assert {"model", "ema", "optimizer", "expert_weight", "step", "spent_s", "torch_rng"} <= set(state)
    assert {"n_averaged", *(f"module.{name}" for name in state["model"])} == set(state["ema"])


def test_a_stage_1_run_draws_what_it_does(made_data: Path, tmp_path: Path) -> None:
    run_stage(
        request(made_data, tmp_path, "1", "generator.shape_code=8", "loss.shape=1", "loss.correlation=1"),
        quiet,
    )
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["0000002.png"]
    validation = metrics(tmp_path)[-1]
    assert set(validation) == {"kind", "step", "time_s", "val_l1", "val_blend_l1", "val_correlation", "val_opening_r"}
    assert 0 < validation["val_l1"] < 1
    assert set(metrics(tmp_path)[0]) >= {"l1", "mask", "shape", "correlation", "share"}


def test_a_run_on_sound_alone_leaves_the_picture_networks_as_they_were(made_data: Path, tmp_path: Path) -> None:
    code = ("generator.shape_code=8", "loss.shape=1")
    run_stage(request(made_data, tmp_path / "first", "1", *code), quiet)
    alone = request(made_data, tmp_path / "then", "1", *code, "train.audio_only_steps=2", start=str(tmp_path / "first"))
    run_stage(alone, quiet)
    before, after = (checkpoint(tmp_path / run) for run in ("first", "then"))
    changed = {  # it began with weights in half precision
        name
        for name, value in after["model"].items()
        if value.is_floating_point() and not torch.equal(before["ema"][f"module.{name}"].half(), value.half())
    }
    heard = {name for name in before["model"] if name.startswith(("audio_encoder.", "shape_head."))}
    assert changed and changed <= heard


def test_sound_first_leaves_pictures_for_later(made_data: Path, tmp_path: Path) -> None:
    settings = ["generator.shape_code=8", "loss.shape=1", "train.audio_only_steps=1"]
    run_stage(request(made_data, tmp_path, "1", *settings), quiet)
    first, second = (line for line in metrics(tmp_path) if line["kind"] == "train")
    assert "l1" not in first
    assert "l1" in second


def test_the_expert_judges_stage_1_and_stays_as_it_is(made_data: Path, tmp_path: Path, trained_expert: Path) -> None:
    before = trained_expert.read_bytes()
    settings = ["loss.expert_at_l1=1.0", "train.steps=3", "train.validate_every=1"]  # any L1 is good enough
    run_stage(request(made_data, tmp_path, "1", *settings, expert=str(trained_expert)), quiet)
    lines = metrics(tmp_path)
    assert [("expert" in line) for line in lines if line["kind"] == "train"] == [False, True, True]
    assert lines[-1]["expert_weight"] == Config().loss.expert_on == checkpoint(tmp_path)["expert_weight"]
    assert not any(name.startswith("expert") for name in checkpoint(tmp_path)["model"])
    assert trained_expert.read_bytes() == before


def test_gradients_of_the_expert_reach_the_generator_only(made_data: Path) -> None:
    config = load_config("debug", ["loss.expert=1.0"])
    clips = ClipSet(made_data, "train", config)
    torch.manual_seed(0)
    expert = Expert(config.expert)
    training = GeneratorTraining(config, Engine(config.train), clips, clips, expert=expert)
    weights = [p.clone() for p in expert.parameters()]
    head = training.network.face_head[-1].weight
    before = head.detach().clone()
    for step in range(2):
        losses = training.losses(training.sample(step, 0), step)
        training.update({"expert": losses["expert"]}, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(weights, expert.parameters(), strict=True))
    assert not expert.training
    assert not torch.equal(head, before)


def test_the_perceptual_loss_takes_part_where_there_are_features(
    made_data: Path, tmp_path: Path, vgg_file: Path
) -> None:
    run_stage(request(made_data, tmp_path, "1", "loss.vgg_share=0.5", features=str(vgg_file)), quiet)
    train = [line for line in metrics(tmp_path) if line["kind"] == "train"]
    assert all(line["vgg"] > 0 for line in train)


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG-19 features up to conv3_1 in their file's layout, with random weights."""
    torch.manual_seed(0)
    shapes = {0: (3, 3, 1), 2: (64, 3, 3), 5: (64, 64, 3), 9: (128, 64, 3), 12: (128, 128, 3), 16: (256, 128, 3)}
    state = {}
    for index, (outputs, inputs, side) in shapes.items():
        state[f"{index}.weight"] = torch.randn(outputs, inputs, side, side) / (inputs * side**2) ** 0.5
        state[f"{index}.bias"] = torch.zeros(outputs)
    path = tmp_path_factory.mktemp("vgg") / "vgg.safetensors"
    save_state(path, state, {"kind": "features"})
    return path


def test_features_that_are_neither_vgg_are_refused(trained_expert: Path) -> None:
    with pytest.raises(WeightsError, match="neither"):
        load_features(str(trained_expert))


@pytest.mark.parametrize("told", [False, True])
def test_the_expert_learns_one_batch_by_heart(made_data: Path, told: bool) -> None:
    config = load_config("debug", ["train.learning_rate=3e-3", "train.anneal=0", f"loss.shape={float(told)}"])
    clips = ClipSet(made_data, "train", config)
    torch.manual_seed(0)
    training = ExpertTraining(config, Engine(config.train), clips, clips)
    batch = expert_batch(clips, config, 8, 1, augment=False)
    losses = []
    for _ in range(60):
        loss = training.judge(batch)
        training.update(loss, 0.0)
        losses.append({name: float(value.detach()) for name, value in loss.items()})
    assert losses[0]["expert"] > 0.5
    assert min(each["expert"] for each in losses[-5:]) < 0.3
    if told:
        assert all(losses[-1][name] < losses[0][name] / 2 for name in ("seen", "heard"))
    else:
        assert losses[0].keys() == {"expert"}


def test_right_and_wrong_sounds_weigh_alike_however_many(made_data: Path) -> None:
    config = load_config("debug")
    clips = ClipSet(made_data, "train", config)
    training = ExpertTraining(config, Engine(config.train), clips, clips)
    batch = expert_batch(clips, config, 5, 3, augment=False)
    training.wrapped.eval()  # running statistics: a sound alone is judged as among others
    similarity = training.wrapped(batch).similarity
    assert similarity.shape == (5, 4)
    expert = training.wrapped.expert
    torch.testing.assert_close(similarity[:, 2], expert(batch.faces, batch.mel[:, 2]))
    right = expert_bce(similarity[:, 0], torch.ones(5))
    wrong = expert_bce(similarity[:, 1:].flatten(), torch.zeros(15))
    torch.testing.assert_close(training.judge(batch)["expert"], (right + wrong) / 2)


def test_a_wrong_sound_is_another_time_of_the_same_clip(made_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config("debug")
    clips = ClipSet(made_data, "train", config)
    seen, heard, faces, windows = [], [], clips.faces, expert_module.mel_windows  # one of each for every clip

    def watch(clip: Clip, first: int, *args: object, **kwargs: object) -> np.ndarray:
        seen.append((id(clip.mel), first))
        return faces(clip, first, *args, **kwargs)

    def analyze_audio(mel: np.ndarray, times_s: np.ndarray, *args: object, **kwargs: object) -> np.ndarray:
        heard.append((id(mel), (25 * times_s - 2.5).round(6).tolist()))
        return windows(mel, times_s, *args, **kwargs)

    monkeypatch.setattr(clips, "faces", watch)
    monkeypatch.setattr(expert_module, "mel_windows", analyze_audio)
    batch = expert_batch(clips, config, 20, 2, augment=False)
    assert (batch.faces.shape, batch.mel.shape) == ((20, 15, 16, 32), (20, 3, 80, 16))
    by_mel = {id(clip.mel): clip for clip in clips.clips}
    for (clip, first), (other, starts), shapes in zip(seen, heard, batch.shapes, strict=True):
        assert other == clip
        assert starts[0] == first and all(abs(start - first) >= 5 for start in starts[1:])  # frames, 0.2 s
        for start, told in zip(starts, shapes, strict=True):
            mouths = by_mel[clip].shape[int(start) : int(start) + 5]
            np.testing.assert_allclose(told.reshape(5, 8)[:, 0], mouths[:, 0])


def test_a_loss_that_is_not_finite_stops_the_stage(
    made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lipdub.training.generator.masked_l1", lambda *_: torch.tensor(float("inf")))
    with pytest.raises(TrainingError, match="'l1' was not finite for 2 steps"):
        run_stage(request(made_data, tmp_path, "1", "train.max_bad_steps=2", "train.steps=9"), quiet)


def test_a_warp_has_its_own_losses_and_carries_its_references(made_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "generator.safetensors"
    run_stage(request(made_data, tmp_path / "run", "1", *WARP, "reference.count=3", export=path), quiet)
    lines = [line for line in metrics(tmp_path / "run") if line["kind"] == "train"]
    assert lines and all(line["gradient_l1"] > 0 and 0 < line["painted_share"] < 1 for line in lines)
    assert all(line["painted_l1"] > 0 for line in lines)
    generator, config = load_generator(path, Config())
    assert generator.config.warp and config.reference.count == 3  # sync takes as many as training had
    before = Generator(generator.config).state_dict()
    assert {name.split(".")[0] for name in before} >= {"warp_decoder", "warp_head", "paint_score", "difference_embed"}


def test_what_is_painted_is_learnt_though_it_has_no_share(made_data: Path, tmp_path: Path) -> None:
    config = load_config("debug", [*WARP, "train.stage='1'"])
    training = GeneratorTraining(
        config, Engine(config.train), *(ClipSet(made_data, split, config) for split in ("train", "val"))
    )
    with torch.no_grad():
        training.network.paint_score.weight.zero_()
        training.network.paint_score.bias.fill_(-100.0)
    losses = training.losses(training.sample(0, 0), 0)
    assert losses["painted_share"].item() < 1e-20
    (losses["painted_l1"] + losses["l1"]).backward()
    gradients = [p.grad for p in training.network.face_head.parameters()]
    assert all(g is not None for g in gradients) and sum(float(g.abs().sum()) for g in gradients) > 0


def test_an_exported_generator_is_the_averaged_one(made_data: Path, tmp_path: Path) -> None:
    path = tmp_path / "generator.safetensors"
    asked = request(made_data, tmp_path / "run", "1", "train.steps=3", "train.ema=0.5", export=path)
    run_stage(asked, quiet)
    loaded, config = load_generator(path, Config())
    assert (config.generator, config.mel) == (asked.config.generator, asked.config.mel)
    averaged = Generator(asked.config.generator).eval()
    ema = checkpoint(tmp_path / "run")["ema"]
    averaged.load_state_dict({k.removeprefix("module."): v for k, v in ema.items() if k != "n_averaged"})
    batch = ClipSet(made_data, "val", asked.config).batch(1, 32, 16, augment=False)
    owner = torch.ones(5, 2, dtype=torch.bool)
    faces = []
    with torch.no_grad():
        for generator in (loaded, averaged):
            references = generator.encode_references(batch.references[0])
            faces.append(generator(mask_lower_half(batch.real[0]), batch.windows[0], references, owner).face)
    assert torch.allclose(faces[0], faces[1], atol=5e-3)
    model = checkpoint(tmp_path / "run")["model"]
    trained, name = model["face_head.1.weight"], "face_head.1.weight"
    assert not torch.allclose(loaded.state_dict()[name], trained, atol=1e-5, rtol=0)  # the average, not the last
    assert torch.allclose(loaded.state_dict()[name], ema[f"module.{name}"], atol=1e-4, rtol=1e-3)


def test_an_exported_expert_is_the_best_one(made_data: Path, tmp_path: Path, trained_expert: Path) -> None:
    expert, config = load_expert(trained_expert, Config())
    best = checkpoint(trained_expert.parent / "run")["best"]
    reference = Expert(config.expert).eval()
    reference.load_state_dict(best)
    settings = load_config("debug")
    batch = expert_batch(ClipSet(made_data, "val", settings), settings, 4, 1, augment=False)
    with torch.no_grad():
        told, wanted = (network(batch.faces, batch.mel[:, :1]) for network in (expert, reference))
    assert torch.allclose(told, wanted, atol=5e-3)


def test_the_best_expert_is_kept_when_it_gets_worse(made_data: Path) -> None:
    config = load_config("debug")
    clips = ClipSet(made_data, "val", config)
    torch.manual_seed(0)
    training = ExpertTraining(config, Engine(config.train), clips, clips)
    good = training.validate()["val_expert"]
    name = "face_norm.weight"
    kept = training.best.weights[name].clone()
    with torch.no_grad():
        training.wrapped.expert.embed.weight.mul_(-3)
        training.wrapped.expert.face_norm.weight.mul_(7)
        training.wrapped.expert.face_norm.bias.sub_(2)
    worse = training.validate()["val_expert"]
    if worse < good:
        pytest.fail("the test's premise: these weights are worse")
    assert torch.equal(training.best.weights[name], kept)
    assert training.best.score == -good


def test_a_run_of_an_earlier_version_is_read_without_settings_that_went(made_data: Path, tmp_path: Path) -> None:
    run_stage(request(made_data, tmp_path, "1", "train.steps=1", "generator.shape_code=8"), quiet)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["loss"]["motion"] = 1.0
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert run_config(tmp_path).generator.shape_code == 8
    assert export_run(tmp_path, tmp_path / "mine.safetensors").is_file()


def test_an_export_needs_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        export(tmp_path / "checkpoint.pt", tmp_path / "out.safetensors", "expert", Config())


@pytest.mark.parametrize(
    ("stage", "overrides", "error", "named"),
    [
        ("1", ["train.precision=half"], InputError, "half"),
        ("1", ["train.steps=0"], InputError, "steps"),
        ("1", ["generator.shape_code=5"], InputError, "shape_code"),
        ("1", ["reference.sampling=best"], InputError, "best"),
        ("detector", [], InputError, "--labels"),
    ],
)
def test_what_cannot_work_is_refused_before_it_starts(
    made_data: Path, tmp_path: Path, stage: str, overrides: list[str], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        run_stage(request(made_data, tmp_path / "run", stage, *overrides), quiet)
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_half_precision_needs_a_gpu(made_data: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="fp16"):
        run_stage(request(made_data, tmp_path / "run", "1", "train.precision=fp16"), quiet)


def test_an_expert_of_another_size_is_refused(made_data: Path, tmp_path: Path, trained_expert: Path) -> None:
    asked = request(made_data, tmp_path / "run", "1", expert=str(trained_expert))
    generator = replace(asked.config.generator, size=64)
    with pytest.raises(InputError, match="5 faces of 32 pixels, the run makes 5 of 64"):
        run_stage(replace(asked, config=replace(asked.config, generator=generator)), quiet)
    assert not (tmp_path / "run").exists()


def test_nothing_is_created_for_a_folder_that_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a prepared data set"):
        run_stage(request(tmp_path, tmp_path / "run", "1"), quiet)
    assert not (tmp_path / "run").exists()


def test_a_data_set_needs_held_out_speakers(make_data: Callable[..., list[ClipEntry]], tmp_path: Path) -> None:
    make_data(tmp_path / "data", [("a", "train", 20)])
    with pytest.raises(InputError, match="'val'"):
        run_stage(request(tmp_path / "data", tmp_path / "run", "expert"), quiet)


def test_a_run_can_be_made_without_the_command_line(made_data: Path, tmp_path: Path) -> None:
    config = load_config("debug", ["train.steps=1"])
    clips = ClipSet(made_data, "train", config)
    lines: list[str] = []
    training = GeneratorTraining(config, Engine(config.train), clips, clips)
    assert train_steps(training, Run(tmp_path, config, lines.append), config.train)
    assert any(line.startswith("validate 1: val_l1") for line in lines)
    state, _ = load_state(export(tmp_path / "checkpoint.pt", tmp_path / "g.safetensors", "generator", config))
    assert not any("num_batches" in name for name in state)


@pytest.mark.parametrize(("stage", "kind"), [("expert", "expert"), ("1", "generator")])
def test_a_stopped_run_has_weights_and_an_entry(made_data: Path, tmp_path: Path, stage: str, kind: str) -> None:
    asked = iter([False, True])
    assert not run_stage(request(made_data, tmp_path, stage), quiet, stopped=lambda: next(asked))
    load = load_expert if kind == "expert" else load_generator
    load(tmp_path, Config())  # the folder stands for its weights
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"weights\.safetensors") as raised:
        load(tmp_path, Config())
    assert f"lipdub weights export {tmp_path}" in raised.value.remedy
    entry = tomllib.loads(manifest_entry(export_run(tmp_path), "mine"))["mine"]
    assert (entry["kind"], entry["bytes"]) == (kind, (tmp_path / "weights.safetensors").stat().st_size)
    assert entry["sha256"] == sha256_of(tmp_path / "weights.safetensors")
    load(tmp_path, Config())


def test_too_large_a_batch_says_which_one_to_try(
    made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(GeneratorTraining, "picture_losses", exhausted)
    told: list[str] = []
    with pytest.raises(ResourceError, match=r"batch_clips = 1") as raised:
        run_stage(request(made_data, tmp_path, "1", "train.batch_clips=6"), told.append)
    assert "--dry-run" in raised.value.remedy
    assert raised.value.exit_code == 8
    assert [line for line in told if "memory" in line] == [
        "step 0 did not fit into memory: 2 parts of 3 now",
        "step 0 did not fit into memory: 6 parts of 1 now",
    ]


@pytest.mark.parametrize("stage", ["expert", "1"])
def test_a_batch_that_does_not_fit_is_halved_and_the_run_goes_on(
    made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    kind = ExpertTraining if stage == "expert" else GeneratorTraining
    losses = kind.losses

    def limited(self: object, sample: object, step: int) -> dict[str, torch.Tensor]:
        if self.engine.part_clips > 1:  # after the forward pass, as it would be
            losses(self, sample, step)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return losses(self, sample, step)

    monkeypatch.setattr(kind, "losses", limited)
    assert run_stage(request(made_data, tmp_path, stage, "train.batch_clips=4", "train.steps=2"), quiet)
    assert checkpoint(tmp_path)["part_clips"] == 1
    assert len([line for line in metrics(tmp_path) if line["kind"] == "train"]) == 2


def test_clips_that_are_left_out_are_told(make_data: Callable[..., list[ClipEntry]], tmp_path: Path) -> None:
    make_data(tmp_path / "data", [("anna", "train", 40), ("anna", "train", 5), ("ben", "val", 40)])
    told: list[str] = []
    assert run_stage(request(tmp_path / "data", tmp_path / "run", "1", "train.steps=1"), told.append)
    assert "left out 1 clip: shorter than 16 frames" in told


def test_an_expert_that_gets_no_better_ends(made_data: Path) -> None:
    config = load_config("debug", ["train.patience=2"])
    clips = ClipSet(made_data, "val", config)
    training = ExpertTraining(config, Engine(config.train), clips, clips)
    for settled in (False, False, True):
        training.validate()
        assert training.settled is settled
    again = ExpertTraining(config, Engine(config.train), clips, clips)
    again.restore(training.state())
    assert again.settled
    never = replace(config, train=replace(config.train, patience=0))
    assert not ExpertTraining(never, Engine(never.train), clips, clips).settled


def test_the_calibration_error_by_hand() -> None:
    right, wrong = torch.tensor([0.92, 0.96, 0.55]), torch.tensor([0.94, 0.12, 0.14])
    # bins: (.92 + .96 + .94 - 2), (.55 - 1), (.12 + .14 - 0), over six
    assert calibration(right, wrong) == pytest.approx((0.82 + 0.45 + 0.26) / 6, abs=1e-6)
    assert calibration(torch.ones(4), torch.zeros(4)) == 0


def test_a_poisoned_sample_is_skipped_and_leaves_no_trace(
    made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = GeneratorTraining.sample

    def poisoned(self: GeneratorTraining, step: int, part: int) -> object:
        lesson = sample(self, step, part)
        if step == 1 and part == 1:  # the part before was good, and is given up with it
            lesson.batch.real[0, 2] = float("nan")
        return lesson

    monkeypatch.setattr(GeneratorTraining, "sample", poisoned)
    told: list[str] = []
    asked = request(made_data, tmp_path, "1", "train.steps=3", "train.accumulate=2")
    assert run_stage(asked, told.append)
    assert any(line.startswith("step 1 left out: ") for line in told)
    assert [line["skipped"] for line in metrics(tmp_path) if line["kind"] == "train"] == [0, 1, 1]
    state = checkpoint(tmp_path)
    for key in ("model", "ema"):  # batch normalisation's statistics, too
        assert all(bool(torch.isfinite(value).all()) for value in state[key].values())
    assert np.isfinite(metrics(tmp_path)[-1]["val_l1"])
