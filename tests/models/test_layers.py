import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from torch import nn

from lipdub.models.layers import (
    AudioEncoder,
    ConvBlock,
    UpBlock,
    add_coordinates,
    fold_norms,
    gaussian_blur,
    mask_lower_half,
    n_parameters,
    spread,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_conv_block_adds_input_and_shift_before_the_relu():
    block = ConvBlock(2, 2, residual=True).eval()
    nn.init.zeros_(block.conv.weight)
    x = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert block(x)[0, :, 0, 0].tolist() == [1.0, 0.0]
    assert block(x, torch.tensor([[2.0, 3.0]]))[0, :, 0, 0].tolist() == [3.0, 2.0]
    plain = ConvBlock(2, 2, residual=False).eval()
    plain.load_state_dict(block.state_dict())
    assert torch.all(plain(x) == 0)


@pytest.mark.parametrize("change", [{"outputs": 3}, {"outputs": 2, "stride": 2}])
def test_residual_block_must_keep_the_shape(change):
    with pytest.raises(ValueError, match="residual"):
        ConvBlock(2, residual=True, **change)


def test_up_block_doubles_a_constant_and_takes_skips():
    block = UpBlock(4, 6, 8, blocks=2)
    x = torch.rand(2, 4, 3, 3)
    assert block(x, [torch.rand(2, 3, 6, 6), torch.rand(2, 3, 6, 6)]).shape == (2, 8, 6, 6)
    assert UpBlock(4, 0, 8, blocks=0, upsample=False)(x, []).shape == (2, 8, 3, 3)


def test_coordinates_run_from_minus_one_to_one():
    x = torch.rand(2, 1, 3, 5)
    out = add_coordinates(x)
    torch.testing.assert_close(out[:, :1], x)
    assert out[1, 1, :, 4].tolist() == [-1, 0, 1]
    assert out[0, 2, 2].tolist() == [-1, -0.5, 0, 0.5, 1]


def test_mask_hides_exactly_the_lower_half():
    faces = torch.rand(2, 3, 8, 8) + 0.1
    before = faces.clone()
    masked = mask_lower_half(faces)
    assert torch.all(masked[..., 4:, :] == 0)
    torch.testing.assert_close(masked[..., :4, :], faces[..., :4, :], rtol=0, atol=0)
    torch.testing.assert_close(faces, before, rtol=0, atol=0)


def test_blur_matches_scipy_and_keeps_a_constant():
    images = torch.rand(2, 3, 7, 9)
    taps = np.exp(-0.5 * (np.arange(-2, 3) / 3.0) ** 2)
    wanted = correlate1d(
        correlate1d(images.numpy(), taps / taps.sum(), 2, mode="nearest"), taps / taps.sum(), 3, mode="nearest"
    )
    np.testing.assert_allclose(gaussian_blur(images, 5, 3.0).numpy(), wanted, atol=1e-5)
    torch.testing.assert_close(gaussian_blur(torch.ones(1, 1, 6, 6), 5, 3.0), torch.ones(1, 1, 6, 6))
    with pytest.raises(ValueError, match="odd"):
        gaussian_blur(images, 4, 3.0)


def test_folding_changes_nothing_but_the_norms():
    network = nn.Sequential(ConvBlock(3, 8, stride=2), ConvBlock(8, 8, residual=True))
    for _ in range(3):
        network(torch.rand(4, 3, 8, 8) * 3)  # running statistics that are not 0 and 1
    with pytest.raises(ValueError, match="eval"):
        fold_norms(network)
    network.eval()
    x = torch.rand(2, 3, 8, 8)
    before = network(x)
    fold_norms(network)
    torch.testing.assert_close(network(x), before, rtol=1e-4, atol=1e-5)
    assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("folded", [False, True])
def test_shared_skips_are_convolved_once_to_the_same_end(folded):
    block = UpBlock(4, 5, 8, blocks=1)
    block(torch.rand(2, 4, 3, 6), [torch.rand(2, 5, 6, 12)])  # running statistics that are not 0 and 1
    block.eval()
    if folded:
        fold_norms(block)
    x, shift = torch.rand(5, 4, 3, 6), torch.randn(5, 8)
    skips = [torch.rand(2, 2, 6, 12), torch.rand(3, 3, 6, 12)]
    rows = [torch.tensor([0, 0, 1, 1, 1]), torch.tensor([2, 0, 1, 0, 2])]
    spread_out = [skip[row] for skip, row in zip(skips, rows, strict=True)]
    torch.testing.assert_close(block(x, skips, shift, rows), block(x, spread_out, shift), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("total", "places"), [(10, 5), (7, 4), (3, 5), (0, 2)])
def test_spread_is_even_and_complete(total, places):
    counts = spread(total, places)
    assert len(counts) == places
    assert sum(counts) == total
    assert max(counts) - min(counts) <= 1


def test_audio_encoder_sees_time_and_pitch():
    encoder = AudioEncoder(12, 8, (4, 8, 8), 3, 16).eval()
    x = torch.rand(2, 12, 8)
    assert encoder(x).shape == (2, 16)
    assert not torch.allclose(encoder(x), encoder(x.flip(2)))
    assert not torch.allclose(encoder(x), encoder(x.flip(1)))
    with pytest.raises(ValueError, match="mel windows"):
        encoder(torch.rand(2, 12, 9))


def test_parameters_that_do_not_learn_are_not_counted():
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    assert n_parameters(layer) == 6
