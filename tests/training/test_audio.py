from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lipdub.config import Config, MelConfig, load_config
from lipdub.errors import InputError
from lipdub.training.audio import AudioTraining, at_frames, spoken_clips
from lipdub.training.engine import Engine
from lipdub.training.stages import RunRequest, run_stage
from lipdub.training.synthetic_speech import MANIFEST
from lipdub.weights import load_audio_encoder

SMALL = ["audio.width=16", "audio.members=2", "audio.n_phones=4", "train.batch_clips=4", "train.workers=0"]


def config(*overrides: str) -> Config:
    return load_config("audio", [*SMALL, *overrides])


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Utterances whose phone is told by which half of the mel is loud."""
    folder = tmp_path_factory.mktemp("speech")
    (folder / "clips").mkdir()
    rng = np.random.default_rng(0)
    for number in range(25):
        phones = np.repeat(rng.integers(2, 4, 30), 10).astype(np.int16)
        mel = np.full((80, len(phones)), 40, np.uint8)
        mel[:40, phones == 2] = 200
        mel[40:, phones == 3] = 200
        np.savez_compressed(folder / "clips" / f"{number:05d}.npz", mel=mel, phones=phones)
    told = {"phones": ["", "other", "p", "a"], "utterances": 25, "held_out": 0.1}
    (folder / MANIFEST).write_text(json.dumps(told), encoding="utf-8")
    return folder


def training(settings: Config, data: Path | None, speech: Path | None) -> AudioTraining:
    torch.manual_seed(0)
    return AudioTraining(settings, Engine(settings.train), data, speech)


def steps(stage: AudioTraining, count: int) -> dict[str, float]:
    losses = {}
    for step in range(count):
        with stage.engine.part(*stage.networks):
            losses = stage.losses(stage.sample(step, 0), step)
            stage.update(losses, 0.2)
    return {name: float(value.detach()) for name, value in losses.items()}


def test_values_between_mel_steps_are_taken_in_the_middle_of_frames() -> None:
    ramp = torch.arange(40.0).view(1, 1, 40)
    found = at_frames(ramp, 5, MelConfig())
    assert found.shape == (1, 5, 1)
    assert found.flatten().tolist() == pytest.approx([1.6, 4.8, 8.0, 11.2, 14.4])  # 80 steps a second, 25 frames


def test_mouths_are_learnt_from_the_sound(made_data: Path) -> None:
    stage = training(config("audio.dropout=0.0", "train.ema=0.9", "loss.phones=0.0"), made_data, None)
    first, last = steps(stage, 1), steps(stage, 60)
    assert last["correlation"] < first["correlation"] / 2 and last["shape"] < first["shape"] / 2
    scores = stage.validate()
    assert scores["val_opening_r"] > 0.9  # of a speaker who was not seen
    assert set(scores) == {"val_opening_r", "val_width_r"}


def test_phones_are_learnt_alone(speech: Path) -> None:
    stage = training(config("train.ema=0.9"), None, speech)
    losses = steps(stage, 40)
    assert set(losses) == {"phones"}
    scores = stage.validate()
    assert scores["val_phones"] > 0.9 and scores["val_bilabial"] > 0.9 and scores["val_open"] > 0.9
    assert stage.network.closing.tolist() == [[0.0, 0.0, 1.0, 0.0]] * 2  # the weights keep that p closes the lips


def test_both_are_learnt_together(made_data: Path, speech: Path) -> None:
    stage = training(config(), made_data, speech)
    assert set(steps(stage, 1)) == {"shape", "correlation", "phones"}
    assert {"val_opening_r", "val_phones"} <= set(stage.validate())


def test_what_lies_behind_a_clip_counts_nothing(made_data: Path) -> None:
    stage = training(config("loss.phones=0.0"), made_data, None)
    batch = stage.sample(0, 0)
    assert (
        batch.seen is not None and batch.shapes is not None and (batch.seen == 0).any()
    )  # clips of one or two seconds
    stage.network.eval()
    stage.wrapped.train = lambda mode=True: stage.wrapped  # type: ignore[method-assign]
    spoilt = batch._replace(shapes=torch.where(batch.seen[..., None] > 0, batch.shapes, 99.0))
    for name, value in stage.losses(batch, 0).items():
        assert float(value.detach()) == pytest.approx(float(stage.losses(spoilt, 0)[name].detach()), rel=1e-5)


def test_left_and_right_corner_are_averaged(made_data: Path) -> None:
    for clip in spoken_clips(made_data, "train"):
        np.testing.assert_allclose(clip.shape[:, 1], clip.shape[:, 2], atol=1e-6)


def test_nothing_to_learn_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to learn from"):
        training(config(), None, None)
    request = RunRequest(stage="phones", data=tmp_path, run=tmp_path / "run", config=config("train.stage='phones'"))
    with pytest.raises(InputError, match="--speech"):
        run_stage(request, lambda line: None)
    assert not (tmp_path / "run").exists()


def test_phones_first_then_mouths_by_the_command(made_data: Path, speech: Path, tmp_path: Path) -> None:
    quiet = lambda line: None  # noqa: E731
    first = RunRequest(
        stage="phones",
        data=tmp_path,
        run=tmp_path / "phones",
        config=config("train.stage='phones'", "train.steps=2"),
        speech=speech,
    )
    assert run_stage(first, quiet)
    second = RunRequest(
        stage="audio",
        data=made_data,
        run=tmp_path / "audio",
        config=config("train.stage='audio'", "train.steps=2", "train.validate_every=1"),
        speech=speech,
        start=str(tmp_path / "phones"),
        export=tmp_path / "audio.safetensors",
    )
    assert run_stage(second, quiet)
    encoder, bound = load_audio_encoder(tmp_path / "audio.safetensors", Config())
    assert bound.audio == second.config.audio
    assert encoder.read_track(np.zeros((80, 20), np.float32), torch.device("cpu")).shape == (20, 8)


def test_a_run_goes_on_where_it_was(made_data: Path, speech: Path) -> None:
    whole, first = training(config(), made_data, speech), training(config(), made_data, speech)
    first.network.load_state_dict(whole.network.state_dict())
    steps(first, 1)
    again = training(config(), made_data, speech)
    again.restore(first.state())
    for name, value in again.network.state_dict().items():
        assert torch.equal(value, first.network.state_dict()[name]), name
