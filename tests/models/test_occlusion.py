from __future__ import annotations

import torch

from lipdub.models.layers import for_inference, n_parameters
from lipdub.models.occlusion import OCCLUSION_SIDE, OcclusionNet


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, OCCLUSION_SIDE, OCCLUSION_SIDE, generator=torch.Generator().manual_seed(seed))


def test_every_parameter_learns() -> None:
    network = OcclusionNet()
    logits = network(pictures(2), pictures(2, 1))
    assert logits.shape == (2, OCCLUSION_SIDE, OCCLUSION_SIDE)
    logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert n_parameters(network) < 400_000


def test_each_of_a_batch_is_what_it_is_alone() -> None:
    network = OcclusionNet()
    network(pictures(4), pictures(4, 1))  # other statistics than those of the beginning
    for_inference(network)
    faces, usual = pictures(3, 2), pictures(3, 3)
    with torch.inference_mode():
        together = network(faces, usual)
        alone = torch.cat([network(faces[n : n + 1], usual[n : n + 1]) for n in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_it_begins_by_finding_little() -> None:
    torch.manual_seed(0)
    network = OcclusionNet().eval()
    with torch.inference_mode():
        assert network(pictures(2), pictures(2)).sigmoid().mean() < 0.2
