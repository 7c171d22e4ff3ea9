"""SyncNet against the published table of layers, written down here a second time, and its scores by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lipdub.models.syncnet import SyncNet, lip_sync_error, mfcc, sound_windows
from lipdub.weights import load_model, save_state

# index of the convolution in its Sequential: weight shape; normalisation follows at the next index
AUDIO = {
    0: (64, 1, 3, 3),
    4: (192, 64, 3, 3),
    8: (384, 192, 3, 3),
    11: (256, 384, 3, 3),
    14: (256, 256, 3, 3),
    18: (512, 256, 5, 4),
}
LIPS = {
    0: (96, 3, 5, 7, 7),
    4: (256, 96, 1, 5, 5),
    8: (256, 256, 1, 3, 3),
    11: (256, 256, 1, 3, 3),
    14: (256, 256, 1, 3, 3),
    18: (512, 256, 1, 6, 6),
}


def published_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (width,)
        shapes[f"{name}.num_batches_tracked"] = ()

    for tower, table in (("netcnnaud", AUDIO), ("netcnnlip", LIPS)):
        for index, shape in table.items():
            shapes[f"{tower}.{index}.weight"], shapes[f"{tower}.{index}.bias"] = shape, shape[:1]
            norm(f"{tower}.{index + 1}", shape[0])
    for head in ("netfcaud", "netfclip"):
        for index, outputs in ((0, 512), (3, 1024)):
            shapes[f"{head}.{index}.weight"], shapes[f"{head}.{index}.bias"] = (outputs, 512), (outputs,)
        norm(f"{head}.1", 512)
    return shapes


class Published:
    """The forward by functions, for one window at a time."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        self.state = state

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, gain, bias = (
            self.state[f"{name}.{part}"].view(-1, *[1] * (x.ndim - 2))
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return torch.clamp((x - mean) / (var + 1e-5).sqrt() * gain + bias, min=0)

    def head(self, x: torch.Tensor, name: str) -> torch.Tensor:
        s = self.state
        x = x.reshape(len(x), 512) @ s[f"{name}.0.weight"].T + s[f"{name}.0.bias"]
        return self.norm(x, f"{name}.1") @ s[f"{name}.3.weight"].T + s[f"{name}.3.bias"]

    def audio(self, x: torch.Tensor) -> torch.Tensor:
        for index in AUDIO:
            weight, bias = (self.state[f"netcnnaud.{index}.{part}"] for part in ("weight", "bias"))
            x = self.norm(F.conv2d(x, weight, bias, padding=0 if index == 18 else 1), f"netcnnaud.{index + 1}")
            if index in (4, 14):
                x = F.max_pool2d(x, 3, (1, 2) if index == 4 else 2)
        assert x.shape[1:] == (512, 1, 1)
        return self.head(x, "netfcaud")

    def lips(self, clips: torch.Tensor) -> torch.Tensor:
        x = torch.stack([255 * clips[:, :, 2 - colour] for colour in range(3)], 1)  # BGR, then time
        for index in LIPS:
            weight, bias = (self.state[f"netcnnlip.{index}.{part}"] for part in ("weight", "bias"))
            stride = (1, 2, 2) if index < 8 else 1
            padding = (0, 0, 0) if index in (0, 18) else (0, 1, 1)
            x = self.norm(F.conv3d(x, weight, bias, stride, padding), f"netcnnlip.{index + 1}")
            if index in (0, 4, 14):
                x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1) if index == 4 else 0)
        assert x.shape[1:] == (512, 1, 1, 1)
        return self.head(x, "netfclip")


@pytest.fixture(scope="module")
def network() -> SyncNet:
    torch.manual_seed(0)
    network = SyncNet()
    with torch.no_grad():  # statistics as if trained: without them no signal survives the layers
        for module in network.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.momentum = 1.0
                module.weight.uniform_(0.8, 1.2)
                module.bias.normal_(0, 0.1)
        network.embed_audio(5 * torch.randn(4, 1, 13, 20))
        network.embed_lips(torch.rand(3, 5, 3, 224, 224))
    return network.eval()


def test_names_and_shapes_are_the_published_ones(network: SyncNet) -> None:
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == published_shapes()
    assert sum(p.numel() for p in network.parameters()) == 13_631_616


@torch.no_grad()
def test_forward_agrees_with_an_independent_computation(network: SyncNet) -> None:
    published = Published(network.state_dict())
    sound, clips = 5 * torch.randn(3, 1, 13, 20), torch.rand(2, 5, 3, 224, 224)
    found = network.embed_audio(sound)
    assert found.shape == (3, 1024) and found.std(0).mean() > 0.01
    torch.testing.assert_close(found, published.audio(sound), rtol=1e-3, atol=1e-4)
    found = network.embed_lips(clips)
    assert found.shape == (2, 1024) and found.std(0).mean() > 0.01
    torch.testing.assert_close(found, published.lips(clips), rtol=1e-3, atol=1e-3)


def test_wrong_shapes(network: SyncNet) -> None:
    with pytest.raises(ValueError, match="mfcc must be"):
        network.embed_audio(torch.zeros(1, 13, 20))
    with pytest.raises(ValueError, match="clips must be"):
        network.embed_lips(torch.zeros(1, 3, 5, 224, 224))
    with pytest.raises(ValueError, match="twice"):
        lip_sync_error(torch.zeros(3, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="n > 0"):
        lip_sync_error(torch.zeros(0, 4), torch.zeros(0, 4))


def test_imported_weights_load_by_kind_without_batch_counters(network: SyncNet, tmp_path) -> None:
    path = tmp_path / "syncnet.safetensors"
    state = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    save_state(path, state, {"kind": "syncnet"}, half=False)
    loaded = load_model(path, "syncnet").state_dict()
    torch.testing.assert_close({name: loaded[name] for name in state}, state)


class TestLipSyncError:
    def test_known_value(self) -> None:
        # shifts -1, 0, 1: sounds (0, 4), (4, 1), (1, 0) against lips (1, 4): means .5, 3, 2
        found = lip_sync_error(torch.tensor([[1.0], [4.0]]), torch.tensor([[4.0], [1.0]]), reach=1)
        assert (found.distance, found.confidence, found.offset) == (
            pytest.approx(0.5, abs=1e-5),
            pytest.approx(1.5, abs=1e-5),
            1,
        )

    @pytest.mark.parametrize("late", [-15, -4, 0, 7, 15])
    def test_the_offset_is_how_late_the_lips_are(self, late: int) -> None:
        everything = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
        sound, lips = everything[40:140], everything[40 - late : 140 - late]
        found = lip_sync_error(lips, sound)
        assert found.offset == late and found.confidence > 1

    def test_agrees_with_an_independent_computation(self) -> None:
        rng = np.random.default_rng(0)
        lips, sound = rng.normal(size=(2, 30, 8)).astype(np.float32)
        means = []
        for k in range(-15, 16):
            at = [sound[i + k] if 0 <= i + k < 30 else np.zeros(8) for i in range(30)]
            means.append(np.mean([math.dist(a, b) for a, b in zip(lips, at, strict=True)]))
        found = lip_sync_error(torch.from_numpy(lips), torch.from_numpy(sound))
        assert found.distance == pytest.approx(min(means), rel=1e-4)
        assert found.confidence == pytest.approx(np.median(means) - min(means), rel=1e-3)
        assert found.offset == 15 - int(np.argmin(means))


class TestMfcc:
    def test_agrees_with_an_independent_computation(self) -> None:
        rng = np.random.default_rng(0)
        sound = 0.3 * np.sin(np.arange(2000) / 9) + 0.01 * rng.normal(size=2000)
        found = mfcc(sound)
        assert found.shape == (13, 11)  # 1 + ceil((2000 - 400) / 160)
        x = np.rint(sound * 32768)
        y = [x[0]] + [x[n] - 0.97 * x[n - 1] for n in range(1, 2000)]
        edges = [700 * (10 ** (i * 2595 * math.log10(1 + 8000 / 700) / 27 / 2595) - 1) for i in range(28)]
        bins = [math.floor(513 * f / 16000) for f in edges]
        for column in (0, 4, 10):
            frame = (y + [0.0] * 1000)[160 * column : 160 * column + 400]
            power = np.abs(np.fft.fft(frame, 512)[:257]) ** 2 / 512
            logs = []
            for j in range(26):
                total = 0.0
                for b in range(bins[j], bins[j + 1]):
                    total += power[b] * (b - bins[j]) / (bins[j + 1] - bins[j])
                for b in range(bins[j + 1], bins[j + 2]):
                    total += power[b] * (bins[j + 2] - b) / (bins[j + 2] - bins[j + 1])
                logs.append(math.log(total))
            wanted = [math.log(power.sum())]
            for n in range(1, 13):
                c = math.sqrt(2 / 26) * sum(v * math.cos(math.pi * n * (2 * j + 1) / 52) for j, v in enumerate(logs))
                wanted.append(c * (1 + 11 * math.sin(math.pi * n / 22)))
            np.testing.assert_allclose(found[:, column], wanted, rtol=1e-4, atol=1e-4)

    def test_silence_and_short_sounds_are_finite(self) -> None:
        assert np.isfinite(mfcc(np.zeros(4000))).all()
        assert mfcc(np.ones(3)).shape == (13, 1)
        with pytest.raises(ValueError, match="waveform"):
            mfcc(np.zeros(0))

    def test_windows_follow_the_frames(self) -> None:
        features = np.arange(13 * 100, dtype=np.float32).reshape(13, 100)
        windows = sound_windows(features, 50)
        assert windows.shape == (21, 1, 13, 20)  # (100 - 20) / 4 + 1 of the sound
        np.testing.assert_array_equal(windows[3, 0], features[:, 12:32])
        assert len(sound_windows(features, 12)) == 7
        with pytest.raises(ValueError, match="no window"):
            sound_windows(features, 5)
