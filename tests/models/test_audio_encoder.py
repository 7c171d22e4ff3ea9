from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lipdub.config import AudioConfig
from lipdub.mel import FLOOR
from lipdub.models import audio_encoder
from lipdub.models.audio_encoder import TrackEncoder

SMALL = AudioConfig(width=8, members=2, n_phones=5, dilations=(1, 2), dropout=0.5)
CPU = torch.device("cpu")


@pytest.fixture
def encoder() -> TrackEncoder:
    torch.manual_seed(0)
    return TrackEncoder(SMALL).eval()


def track(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (80, length)).astype(np.float32)


def test_there_is_a_shape_and_a_phone_at_every_mel_step_of_every_member(encoder: TrackEncoder) -> None:
    encoded = encoder(torch.from_numpy(track(50))[None].repeat(3, 1, 1))
    assert encoded.shapes.shape == (2, 3, 8, 50)
    assert encoded.phones.shape == (2, 3, 5, 50)
    assert not torch.allclose(encoded.shapes[0], encoded.shapes[1])  # members begin differently


@pytest.mark.parametrize("length", [1, 5, 63, 64, 65, 200])
def test_a_track_read_in_pieces_equals_one_call(
    encoder: TrackEncoder, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    mel = track(length)
    with torch.inference_mode():
        whole = encoder(torch.from_numpy(mel)[None]).shapes.mean(0)[0].T.numpy()
    monkeypatch.setattr(audio_encoder, "CHUNK", 32)
    pieces = encoder.read_track(mel, CPU)
    assert pieces.shape == (length, 8)
    np.testing.assert_allclose(pieces, whole, atol=1e-5)


def test_phones_of_every_member_are_read_in_pieces(encoder: TrackEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    mel = track(75)
    with torch.inference_mode():
        whole = encoder(torch.from_numpy(mel)[None]).phones.softmax(2)[:, 0].transpose(1, 2).numpy()
    monkeypatch.setattr(audio_encoder, "CHUNK", 32)
    pieces = list(encoder.read_phones(mel, CPU))
    assert [piece.shape for piece in pieces] == [(2, 32, 5), (2, 32, 5), (2, 11, 5)]
    np.testing.assert_allclose(np.concatenate(pieces, 1), whole, atol=1e-5)


def test_a_phone_that_closes_the_lips_lowers_openings_height_and_chin(encoder: TrackEncoder) -> None:
    mel = track(60)
    before = encoder.read_track(mel, CPU)
    encoder.closing[:, 3] = 1.0
    with torch.inference_mode():
        heard = encoder(torch.from_numpy(mel)[None]).phones.softmax(2)[:, 0, 3].mean(0).numpy()
    change = before - encoder.read_track(mel, CPU)
    np.testing.assert_allclose(change, np.outer(heard, audio_encoder.CLOSING), atol=1e-5)
    assert heard.std() > 0


def test_reach_is_as_far_as_a_step_sees(encoder: TrackEncoder) -> None:
    mel = track(101)
    before = encoder.read_track(mel, CPU)
    mel[:, 50] += 1
    changed = np.flatnonzero(np.abs(encoder.read_track(mel, CPU) - before).max(1) > 1e-7)
    assert changed.min() >= 50 - encoder.reach and changed.max() <= 50 + encoder.reach
    assert len(changed) > encoder.reach


def test_beyond_the_ends_is_silence(encoder: TrackEncoder) -> None:
    mel = track(40)
    silence = np.full((80, encoder.reach), FLOOR, np.float32)
    longer = encoder.read_track(np.concatenate([silence, mel, silence], 1), CPU)
    inner = longer[encoder.reach : -encoder.reach]
    steady = slice(encoder.reach, -encoder.reach)
    np.testing.assert_allclose(inner[steady], encoder.read_track(mel, CPU)[steady], atol=1e-5)


def test_every_parameter_learns() -> None:
    network = TrackEncoder(SMALL).train()
    encoded = network(torch.from_numpy(track(60))[None].repeat(2, 1, 1))
    (encoded.shapes.square().mean() + encoded.phones.square().mean()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


@pytest.mark.parametrize("change", [{"kernel": 4}, {"members": 0}])
def test_impossible_sizes_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="kernel"):
        TrackEncoder(replace(SMALL, **change))


def test_another_number_of_bands_is_refused(encoder: TrackEncoder) -> None:
    with pytest.raises(ValueError, match="mel must be"):
        encoder(torch.zeros(1, 40, 10))
