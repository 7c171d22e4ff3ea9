"""Wav2Lip against the published table of layers, written down here a second time, and against a functional forward."""

import pytest
import torch
import torch.nn.functional as F

from lipdub.models.wav2lip import Wav2Lip
from lipdub.weights import load_model, save_state

# block: (inputs, outputs, kernel) of each layer; residual layers have equal inputs and outputs and kernel 3
ENCODER = [
    [(6, 16, 7)],
    [(16, 32, 3), (32, 32, 3), (32, 32, 3)],
    [(32, 64, 3), (64, 64, 3), (64, 64, 3), (64, 64, 3)],
    [(64, 128, 3), (128, 128, 3), (128, 128, 3)],
    [(128, 256, 3), (256, 256, 3), (256, 256, 3)],
    [(256, 512, 3), (512, 512, 3)],
    [(512, 512, 3), (512, 512, 1)],
]
SOUND = [
    *[(1, 32, 3), (32, 32, 3), (32, 32, 3)],
    *[(32, 64, 3), (64, 64, 3), (64, 64, 3)],
    *[(64, 128, 3), (128, 128, 3), (128, 128, 3)],
    *[(128, 256, 3), (256, 256, 3)],
    *[(256, 512, 3), (512, 512, 1)],
]
DECODER = [  # the first layer of every block but the first is transposed
    [(512, 512, 1)],
    [(1024, 512, 3), (512, 512, 3)],
    [(1024, 512, 3), (512, 512, 3), (512, 512, 3)],
    [(768, 384, 3), (384, 384, 3), (384, 384, 3)],
    [(512, 256, 3), (256, 256, 3), (256, 256, 3)],
    [(320, 128, 3), (128, 128, 3), (128, 128, 3)],
    [(160, 64, 3), (64, 64, 3), (64, 64, 3)],
]
SOUND_STRIDES = {3: (3, 1), 6: (3, 3), 9: (3, 2)}


def published_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, inputs: int, outputs: int, kernel: int, transposed: bool = False) -> None:
        channels = (inputs, outputs) if transposed else (outputs, inputs)
        shapes[f"{name}.conv_block.0.weight"] = (*channels, kernel, kernel)
        for part in ("0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
            shapes[f"{name}.conv_block.{part}"] = (outputs,)
        shapes[f"{name}.conv_block.1.num_batches_tracked"] = ()

    for b, block in enumerate(ENCODER):
        for i, sizes in enumerate(block):
            layer(f"face_encoder_blocks.{b}.{i}", *sizes)
    for i, sizes in enumerate(SOUND):
        layer(f"audio_encoder.{i}", *sizes)
    for b, block in enumerate(DECODER):
        for i, sizes in enumerate(block):
            layer(f"face_decoder_blocks.{b}.{i}", *sizes, transposed=b > 0 and i == 0)
    layer("output_block.0", 80, 32, 3)
    shapes |= {"output_block.1.weight": (3, 32, 1, 1), "output_block.1.bias": (3,)}
    return shapes


def published_forward(state: dict[str, torch.Tensor], mel: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    def layer(x, name, stride=1, padding=0, residual=False, up=None):
        weight, bias = state[f"{name}.conv_block.0.weight"], state[f"{name}.conv_block.0.bias"]
        y = F.conv2d(x, weight, bias, stride, padding) if up is None else F.conv_transpose2d(x, weight, bias, **up)
        mean, var = (state[f"{name}.conv_block.1.running_{part}"] for part in ("mean", "var"))
        gain, shift = (state[f"{name}.conv_block.1.{part}"] for part in ("weight", "bias"))
        y = (y - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt() * gain[:, None, None] + shift[:, None, None]
        return torch.clamp(y + x if residual else y, min=0)

    features, x = [], faces
    for b, block in enumerate(ENCODER):
        for i, (_, _, kernel) in enumerate(block):
            last = b == len(ENCODER) - 1  # 3 x 3 to 1 x 1 without padding
            stride = 2 if i == 0 and 0 < b < 6 else 1
            x = layer(x, f"face_encoder_blocks.{b}.{i}", stride, 0 if last else kernel // 2, i > 0 and not last)
        features.append(x)
    x = mel
    for i, (inputs, outputs, _) in enumerate(SOUND):
        padding = 0 if i >= 11 else 1
        residual = inputs == outputs and i < 11
        x = layer(x, f"audio_encoder.{i}", SOUND_STRIDES.get(i, 1), padding, residual)
    assert x.shape[2:] == (1, 1)
    for b, block in enumerate(DECODER):
        for i in range(len(block)):
            up = None
            if i == 0 and b == 1:
                up = {"stride": 1, "padding": 0}
            elif i == 0 and b > 1:
                up = {"stride": 2, "padding": 1, "output_padding": 1}
            x = layer(x, f"face_decoder_blocks.{b}.{i}", 1, 1 if i else 0, i > 0, up)
        x = torch.cat([x, features.pop()], 1)
    x = layer(x, "output_block.0", 1, 1)
    x = F.conv2d(x, state["output_block.1.weight"], state["output_block.1.bias"])
    return 1 / (1 + torch.exp(-x))


@pytest.fixture(scope="module")
def network() -> Wav2Lip:
    torch.manual_seed(0)
    network = Wav2Lip()
    with torch.no_grad():  # statistics as if trained: without them no signal survives the layers
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
                module.weight.uniform_(0.8, 1.2)
                module.bias.normal_(0, 0.1)
        network(torch.randn(4, 1, 80, 16), torch.rand(4, 6, 96, 96))
    return network.eval()


def test_names_and_shapes_are_the_published_ones(network: Wav2Lip) -> None:
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == published_shapes()


def test_it_has_36_3_million_parameters(network: Wav2Lip) -> None:
    assert sum(p.numel() for p in network.parameters()) == 36_298_035


@torch.no_grad()
def test_forward_agrees_with_an_independent_computation(network: Wav2Lip) -> None:
    mel, faces = torch.randn(2, 1, 80, 16), torch.rand(2, 6, 96, 96)
    found = network(mel, faces)
    assert found.shape == (2, 3, 96, 96) and found.std() > 0.01
    torch.testing.assert_close(found, published_forward(network.state_dict(), mel, faces), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(network(mel[1:], faces[1:]), found[1:], rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_sound_and_faces_both_matter(network: Wav2Lip) -> None:
    mel, faces = torch.randn(2, 1, 80, 16), torch.rand(1, 6, 96, 96).expand(2, -1, -1, -1)
    by_sound = network(mel, faces)
    assert (by_sound[0] - by_sound[1]).std() > 0.01
    assert (network(mel[:1], torch.rand(1, 6, 96, 96)) - by_sound[:1]).std() > 0.01


def test_wrong_shapes(network: Wav2Lip) -> None:
    with pytest.raises(ValueError, match="want mel"):
        network(torch.zeros(1, 1, 80, 15), torch.zeros(1, 6, 96, 96))
    with pytest.raises(ValueError, match="want mel"):
        network(torch.zeros(1, 1, 80, 16), torch.zeros(1, 3, 96, 96))


def test_imported_weights_load_by_kind(network: Wav2Lip, tmp_path) -> None:
    path = tmp_path / "wav2lip.safetensors"
    save_state(path, network.state_dict(), {"kind": "wav2lip"}, half=False)
    loaded = load_model(path, "wav2lip")
    assert not loaded.training
    torch.testing.assert_close(loaded.state_dict(), network.state_dict())
