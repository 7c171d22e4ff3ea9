import os
from pathlib import Path

import pytest
import torch
from skimage.data import astronaut
from torch import nn

from lipdub.errors import WeightsError
from lipdub.models.vgg import Vgg16, Vgg19Conv31

SHARED = Path(os.environ.get("LIPDUB_SHARED", Path(__file__).parents[3] / "shared"))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def published_vgg16() -> nn.Sequential:
    """torchvision's `features` up to relu4_3, written down layer by layer."""
    layers: list[nn.Module] = []
    inputs = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512):
        if width:
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
        else:
            layers.append(nn.MaxPool2d(2, 2))
    return nn.Sequential(*layers)


def published_vgg19() -> nn.Sequential:
    """The normalised network up to relu3_1: 1x1 colour layer, reflection padding, pooling that rounds up."""
    layers: list[nn.Module] = [nn.Conv2d(3, 3, 1)]
    inputs = 3
    for width in (64, 64, 0, 128, 128, 0, 256):
        if width:
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(inputs, width, 3), nn.ReLU()]
            inputs = width
        else:
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
    return nn.Sequential(*layers)


@torch.no_grad()
def test_vgg16_is_the_published_network():
    reference = published_vgg16()
    state = {f"features.{key}": value for key, value in reference.state_dict().items()}
    state["classifier.0.weight"] = torch.zeros(1)  # the whole file has more than is needed
    images = torch.rand(2, 3, 17, 24)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    features = Vgg16(state, ("relu1_2", "relu3_3", "relu4_3"))(images)
    for found, end in zip(features, (4, 16, 23), strict=True):
        torch.testing.assert_close(found, reference[:end](x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_vgg19_is_the_published_network():
    reference = published_vgg19()
    images = torch.rand(2, 3, 17, 24)
    features = Vgg19Conv31(reference.state_dict())(images)
    for found, end in zip(features, (14, 18), strict=True):  # after relu2_2 and relu3_1
        torch.testing.assert_close(found, reference[:end](images), rtol=1e-4, atol=1e-5)


def test_is_frozen_but_passes_gradient_on():
    network = Vgg19Conv31(published_vgg19().state_dict()).train()
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    network(images)[-1].sum().backward()
    assert images.grad.abs().sum() > 0


def test_layers_beyond_the_last_chosen_one_are_not_kept():
    state = published_vgg19().state_dict()
    assert list(Vgg19Conv31(state, ("relu2_1",)).convs) == ["relu1_1", "relu1_2", "relu2_1"]


def test_wrong_weights_and_layers_are_refused():
    state = dict(published_vgg19().state_dict())
    with pytest.raises(ValueError, match="relu5_1"):
        Vgg19Conv31(state, ("relu5_1",))
    with pytest.raises(ValueError, match="unknown"):
        Vgg19Conv31(state, ())
    with pytest.raises(WeightsError, match=r"features\.0\.weight"):
        Vgg16(state)
    state["5.weight"] = torch.zeros(64, 64, 1, 1)
    with pytest.raises(WeightsError, match=r"5\.weight"):
        Vgg19Conv31(state)


@pytest.mark.weights
@torch.no_grad()
def test_the_public_file_is_normalised():
    path = SHARED / "weights" / "vgg19_normalised_conv3_1.pth"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    network = Vgg19Conv31(torch.load(path, weights_only=True))
    image = torch.from_numpy(astronaut()).permute(2, 0, 1)[None].float() / 255
    for feature in network(image):
        assert 0.5 < feature.mean().item() < 2.0  # mean activation over natural pictures is 1
