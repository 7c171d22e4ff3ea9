"""VGG features for the perceptual loss and metric (7): frozen, built from a state dict that the caller has read.

    Vgg16         keys of torchvision, features.N.weight, up to relu5_3; the thesis' network
    Vgg19Conv31   the published VGG-19 with normalised activations up to relu3_1: keys N.weight, reflection padding,
                  layer 0 maps RGB in [0, 1] to the network's own BGR space
    Lpips         the distance that was learnt on VGG-16's features, for judging

Figures of different backbones are never compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lipdub.errors import WeightsError

VGG16_LAYERS = {  # ReLU's name -> index of its convolution in torchvision's `features`
    "relu1_1": 0,
    "relu1_2": 2,
    "relu2_1": 5,
    "relu2_2": 7,
    "relu3_1": 10,
    "relu3_2": 12,
    "relu3_3": 14,
    "relu4_1": 17,
    "relu4_2": 19,
    "relu4_3": 21,
    "relu5_1": 24,
    "relu5_2": 26,
    "relu5_3": 28,
}
VGG19_LAYERS = {"relu1_1": 2, "relu1_2": 5, "relu2_1": 9, "relu2_2": 12, "relu3_1": 16}
WIDTHS = (64, 128, 256, 512, 512)  # channels of the groups relu1_*, relu2_*, ...
LPIPS_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
MEAN = (0.485, 0.456, 0.406)  # ImageNet, RGB in [0, 1]: what torchvision's weights were trained with
STD = (0.229, 0.224, 0.225)


class VggFeatures(nn.Module):
    """Convolutions of a VGG up to the last layer that is asked for; never trained, always in eval mode.

    Args:
        state: weights; keys beyond those needed are ignored.
        table: ReLU name -> index of its convolution.
        prefix: before the index in a key.
        layers: names of the feature maps to return, finest first.
        colour: 1x1 weights (3, 3) and bias (3,) from RGB in [0, 1] to the space that the weights expect.
        padding: how the published network pads.
        ceil_mode: whether its pooling rounds an odd side up.

    Raises:
        ValueError: an unknown layer name, or none.
        WeightsError: a key is missing or has another shape.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        table: Mapping[str, int],
        prefix: str,
        layers: tuple[str, ...],
        *,
        colour: tuple[Tensor, Tensor],
        padding: Literal["zeros", "reflect"],
        ceil_mode: bool,
    ) -> None:
        super().__init__()
        unknown = [name for name in layers if name not in table]
        if unknown or not layers:
            raise ValueError(f"unknown VGG layers {unknown}; there are {', '.join(table)}")
        self.layers, self.ceil_mode = layers, ceil_mode
        self.colour = nn.Conv2d(3, 3, 1)
        self.colour.weight = nn.Parameter(colour[0].view(3, 3, 1, 1))
        self.colour.bias = nn.Parameter(colour[1])
        self.convs = nn.ModuleDict()
        inputs = 3
        for name, index in table.items():
            outputs = WIDTHS[int(name[4]) - 1]
            conv = nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode=padding)
            conv.weight = nn.Parameter(_take(state, f"{prefix}{index}.weight", (outputs, inputs, 3, 3)))
            conv.bias = nn.Parameter(_take(state, f"{prefix}{index}.bias", (outputs,)))
            self.convs[name] = conv
            inputs = outputs
            if name == max(layers):  # names sort by depth
                break
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps (N, C_i, H_i, W_i) of images (N, 3, H, W), RGB in [0, 1]; one for each of `layers`."""
        x: Tensor = self.colour(images)
        found = {}
        group = "1"
        for name, conv in self.convs.items():
            if name[4] != group:
                x, group = F.max_pool2d(x, 2, ceil_mode=self.ceil_mode), name[4]
            x = F.relu(conv(x))
            found[name] = x
        return tuple(found[name] for name in self.layers)


class Vgg16(VggFeatures):
    """VGG-16 in torchvision's layout; mid-to-high layers by default, as [3.7] asks."""

    def __init__(self, state: Mapping[str, Tensor], layers: tuple[str, ...] = ("relu3_3", "relu4_3")) -> None:
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        colour = (torch.diag(1 / std), -mean / std)
        super().__init__(state, VGG16_LAYERS, "features.", layers, colour=colour, padding="zeros", ceil_mode=False)


class Vgg19Conv31(VggFeatures):
    """Normalised VGG-19 up to relu3_1: the stand-in where VGG-16 cannot be had."""

    def __init__(self, state: Mapping[str, Tensor], layers: tuple[str, ...] = ("relu2_2", "relu3_1")) -> None:
        colour = (_take(state, "0.weight", (3, 3, 1, 1)), _take(state, "0.bias", (3,)))
        super().__init__(state, VGG19_LAYERS, "", layers, colour=colour, padding="reflect", ceil_mode=True)


class Lpips(nn.Module):
    """Learned perceptual distance of two pictures (arXiv 1801.03924, version 0.1, on VGG-16).

        d(a, b) = sum_l  1 / (H_l W_l) sum_ij  w_l . (a_lij / ||a_lij|| - b_lij / ||b_lij||)^2

    a_lij are the features of layer l at (i, j), the square is of each channel, w_l >= 0 are the learnt weights.

    Args:
        state: VGG-16's, in torchvision's layout.
        heads: the published weights, linN.model.1.weight (1, C_N, 1, 1).

    Raises:
        WeightsError: a key is missing or has another shape.
    """

    def __init__(self, state: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.features = Vgg16(state, LPIPS_LAYERS)
        self.heads = nn.ParameterList(
            _take(heads, f"lin{number}.model.1.weight", (1, width, 1, 1)) for number, width in enumerate(WIDTHS)
        ).requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """(N,) distances of (N, 3, H, W) in [0, 1] and as many; 0 = alike."""
        total = a.new_zeros(len(a))
        for x, y, weight in zip(self.features(a), self.features(b), self.heads, strict=True):
            apart = (F.normalize(x, dim=1, eps=1e-10) - F.normalize(y, dim=1, eps=1e-10)).square()
            total = total + (weight * apart).sum(1).mean((1, 2))
        return total


def _take(state: Mapping[str, Tensor], key: str, shape: tuple[int, ...]) -> Tensor:
    if key not in state:
        raise WeightsError(f"VGG weights have no {key!r}", "choose the file that its manifest entry names")
    if tuple(state[key].shape) != shape:
        what = f"VGG weight {key!r} must be {shape}, is {tuple(state[key].shape)}"
        raise WeightsError(what, "choose the file that its manifest entry names")
    return state[key].detach().to(torch.float32).clone()
