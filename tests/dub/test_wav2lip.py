from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lipdub.cli.app import app
from lipdub.config import Config
from lipdub.dub.analyze import DubPlan
from lipdub.dub.driving_audio import DrivingAudio, analyze_audio
from lipdub.dub.inference import FaceCrop
from lipdub.dub.wav2lip import Wav2LipRunner
from lipdub.mel import wav2lip_mel
from lipdub.models.wav2lip import Wav2Lip
from lipdub.weights import save_state


@pytest.fixture(scope="module")
def network() -> Wav2Lip:
    """The published shapes, at random."""
    torch.manual_seed(0)
    return Wav2Lip().eval()


def test_the_mel_is_that_of_a_sine_and_of_silence() -> None:
    t = np.arange(16000) / 16000
    mel = wav2lip_mel((0.5 * np.sin(2 * np.pi * 1000 * t)).astype(np.float32))
    assert mel.shape == (80, 81) and mel.dtype == np.float32
    assert mel[:, 40].argmax() == 25  # 1 kHz is 15 of Slaney's mel, band 25 of 80 between 55 and 7,600 Hz
    assert (wav2lip_mel(np.zeros(4000, np.float32)) == -1).all()
    # A full-scale sine has |STFT| = 200 in its bin; pre-emphasis leaves 0.389 at 1 kHz, a filter of 36 Hz 0.028.
    assert 20 * np.log10(0.5 * 200 * 0.389 * 0.028) - 20 == pytest.approx(50 * (mel[:, 40].max() + 1) - 100, abs=4)


def runner(network: Wav2Lip, waveform: np.ndarray, n_frames: int = 10) -> Wav2LipRunner:
    config = Config()
    speech = analyze_audio(waveform, config.mel, config.sync, wav2lip_mel(waveform))
    return Wav2LipRunner(
        network, DubPlan((np.arange(n_frames) + 0.5) / 25, [], {}), speech, config, torch.device("cpu")
    )


def picture(side: int = 96) -> np.ndarray:
    ramp = np.linspace(0, 255, side)
    return np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 128.0), -1).astype(np.uint8)


def test_only_the_lower_half_of_the_box_is_painted(network) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    made = runner(network, noise).run([FaceCrop(5, 0, 0, picture())])[0]
    assert made.face.shape == (96, 96, 3) and made.alpha.shape == (96, 96)
    assert made.alpha[:46].max() == 0 and made.alpha[60:84, 24:72].min() == 1 and made.alpha[:, [5, 90]].max() == 0
    assert np.abs(made.face[60, 40] - picture()[60, 40]).max() > 5


def test_a_batch_equals_its_singles_and_the_sound_matters(network) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    loud = runner(network, noise)
    targets = [FaceCrop(frame, 0, 0, picture()) for frame in (2, 6)]
    both = loud.run(targets)
    for target, one in zip(targets, both, strict=True):
        np.testing.assert_allclose(loud.run([target])[0].face, one.face, atol=0.05)
    silent = runner(network, np.zeros(8000, np.float32)).run(targets[:1])[0]
    assert np.abs(silent.face - both[0].face).max() > 0


def test_the_window_begins_one_frame_before_the_frame() -> None:
    heard = []

    class Listener(torch.nn.Module):
        def forward(self, mel: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
            heard.append(mel)
            assert (faces[:, :3, 48:] == 0).all() and (faces[:, 3:, 48:] > 0).any()
            return faces[:, 3:]

    steps = np.broadcast_to(np.arange(200) / 200, (80, 200)).astype(np.float32)
    speech = DrivingAudio(steps, np.ones(1000, np.float32), 10.0)
    times = (np.arange(30) + 0.5) / 25
    make = Wav2LipRunner(Listener(), DubPlan(times, [], {}), speech, Config(), torch.device("cpu"))
    made = make.run([FaceCrop(25, 0, 0, picture())])[0]
    columns = heard[0][0, 0, 0].numpy() / 4 * 200
    np.testing.assert_allclose(columns, np.arange(77, 93), atol=0.51)  # frame 25 begins at column 80
    np.testing.assert_allclose(made.face[60, 30:60], picture()[60, 30:60], atol=4)  # it goes back where it was cut


def test_what_is_not_finite_is_not_painted(network) -> None:
    broken = Wav2Lip().eval()
    broken.load_state_dict(network.state_dict())
    with torch.no_grad():
        broken.output_block[1].bias.fill_(float("nan"))
    assert runner(broken, np.zeros(8000, np.float32)).run([FaceCrop(0, 0, 0, picture())]) == [None]


def test_sync_with_its_weights_says_their_terms(
    network, face_clip, speech, fake_faces, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("lipdub.dub.networks.face_backend", lambda name, config, device: fake_faces())
    weights = tmp_path / "w2l.safetensors"
    save_state(weights, network.state_dict(), {"kind": "wav2lip"})
    clip = face_clip(lambda t: [(50, 20, 56)], n_frames=8, languages=("eng",))

    def run(*words: object):
        command = ["sync", clip, speech(), "-o", tmp_path / "out.mp4", "--model", "wav2lip", "--device", "cpu", *words]
        return CliRunner().invoke(app, [str(word) for word in command])

    done = run("--weights", weights, "--json")
    assert done.exit_code == 0, done.output
    events = [json.loads(line) for line in done.stdout.splitlines()]
    warned = [event["message"] for event in events if event["type"] == "warning" and event["code"] == "licence"]
    assert len(warned) == 1 and "commercial use is prohibited" in warned[0]
    assert events[-1]["report"]["dubbed"] == 8
    plan = run("--weights", weights, "--dry-run", "-y")
    assert plan.exit_code == 0 and "commercial use is prohibited" in plan.stderr
    absent = run("-y")
    assert absent.exit_code == 7 and "lipdub weights pull wav2lip-gan" in absent.stderr


def test_the_config_of_another_generator_is_not_taken_over(network, tmp_path: Path) -> None:
    from lipdub.dub.networks import load_network

    weights = tmp_path / "w2l.safetensors"
    save_state(weights, network.state_dict(), {"kind": "wav2lip"})
    config = Config()
    config = replace(config, generator=replace(config.generator, size=128, warp=True))
    found, sizes = load_network(str(weights), config)
    assert isinstance(found, Wav2Lip) and (sizes.generator.size, sizes.generator.warp) == (96, False)
