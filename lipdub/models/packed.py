"""Convolutions of small batches on a CPU that multiplies in bfloat16.

PyTorch brings a convolution's weights into the order of the CPU's instructions in every call. For the picture of one
face that takes as long as the convolution itself; here it is done once for each size of input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MAX_SIZES = 8  # sizes of input whose weights are kept; others are packed in every call


class PackedConv2d(nn.Module):
    """The same convolution in bfloat16, for inference on a CPU.

    Args:
        conv: with zero padding.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self._weight = conv.weight.detach().to(torch.bfloat16).contiguous()
        self._bias = None if conv.bias is None else conv.bias.detach().to(torch.bfloat16)
        self._how: tuple[Any, ...] = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self._packed: dict[tuple[int, ...], Tensor] = {}  # by size of input

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) bfloat16 -> (N, outputs, H', W') bfloat16."""
        weight = self._packed.get(x.shape)
        if weight is None:
            weight = torch.ops.mkldnn._reorder_convolution_weight(self._weight, *self._how, list(x.shape))
            if len(self._packed) < MAX_SIZES:
                self._packed[x.shape] = weight
        return torch.ops.mkldnn._convolution_pointwise(x, weight, self._bias, *self._how, "none", [], "")


def pack(network: nn.Module) -> torch.dtype:
    """Bring a network on the CPU to bfloat16 with packed convolutions, in place.

    Returns:
        The type of its input from now on: bfloat16, or float32 where a PyTorch without packed convolutions left it as
        it was.
    """
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")):
        return torch.float32
    for module in [*network.modules()]:
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d):
                setattr(module, name, PackedConv2d(child))
    network.to(torch.bfloat16)
    return torch.bfloat16
