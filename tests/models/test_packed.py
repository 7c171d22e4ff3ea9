from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lipdub.models.layers import for_inference
from lipdub.models.occlusion import OcclusionNet
from lipdub.models.packed import MAX_SIZES, PackedConv2d, pack


def packed(network: nn.Module) -> nn.Module:
    if pack(network) is torch.float32:
        pytest.skip("this PyTorch has no packed convolutions")
    return network


@pytest.mark.parametrize(("stride", "kernel", "bias"), [(1, 3, True), (2, 3, False), (1, 1, True)])
def test_a_packed_convolution_is_the_same_whatever_the_size(stride: int, kernel: int, bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(8, 16, kernel, stride, kernel // 2, bias=bias))
    fast = packed(copy.deepcopy(plain))
    assert isinstance(fast[0], PackedConv2d)
    with torch.inference_mode():
        for side in range(8, 8 + MAX_SIZES + 2):
            x = torch.rand(2, 8, side, side).contiguous(memory_format=torch.channels_last)
            found = fast(x.to(torch.bfloat16))
            assert found.dtype is torch.bfloat16
            torch.testing.assert_close(found.float(), plain(x), atol=0.02, rtol=0.02)
    assert len(fast[0]._packed) == MAX_SIZES  # memory does not grow with the sizes


def test_a_packed_network_says_nearly_the_same() -> None:
    torch.manual_seed(0)
    network = OcclusionNet()
    for_inference(network)
    fast, faces, usual = packed(copy.deepcopy(network)), torch.rand(3, 3, 64, 64), torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        wanted = network(faces, usual).sigmoid()
        found = fast(faces.to(torch.bfloat16), usual.to(torch.bfloat16)).float().sigmoid()
    assert (found - wanted).abs().max() < 0.03
