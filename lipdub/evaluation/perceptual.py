"""Similarity of dubs to real pictures by published measures: SSIM, LPIPS.

The only home of torchmetrics (extra `teachers`). Nothing is downloaded here: weights are files named in weights.toml,
and are verified before they are read.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from lipdub.errors import SetupError, WeightsError
from lipdub.models.vgg import Lpips
from lipdub.weights import load_state, locate, sha256_of

CHUNK = 32  # faces per call of a network
EVERY = 5  # frames between two that a slow network processes; neighbours are almost equal
LPIPS_HEADS = "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"  # of version 0.1, sha256


def ssim_masked(fake: Tensor, real: Tensor, mask: Tensor) -> float:
    """Structural similarity (torchmetrics: Gaussian of sigma 1.5), averaged inside the mask; NaN without torchmetrics.

    Pictures are (N, 3, H, W), the mask is (N, 1, H, W), all in [0, 1].
    """
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError:
        return math.nan
    total = area = 0.0
    for a, b, m in zip(fake.split(CHUNK), real.split(CHUNK), mask.split(CHUNK), strict=True):
        _, local = structural_similarity_index_measure(a, b, data_range=1.0, return_full_image=True)
        total, area = total + float((m * local).sum()), area + 3 * float(m.sum())
    return total / area if area else math.nan


def load_lpips(backbone: str) -> Lpips:
    """LPIPS on VGG-16: the backbone from weights.toml or a file, the heads from the installed torchmetrics, verified.

    Raises:
        SetupError: torchmetrics is not installed.
        WeightsError: the backbone is absent or no VGG-16, or torchmetrics has other heads.
    """
    try:
        from torchmetrics.functional.image import lpips
    except ImportError as error:
        raise SetupError("LPIPS needs the package torchmetrics", 'pip install "lipdub[teachers]"') from error
    heads = Path(lpips.__file__).parent / "lpips_models" / "vgg.pth"
    if not heads.is_file() or sha256_of(heads) != LPIPS_HEADS:
        raise WeightsError(f"{heads} is not version 0.1 of LPIPS", "install torchmetrics again")
    state, _ = load_state(locate(backbone))
    return Lpips(state, torch.load(heads, map_location="cpu", weights_only=True)).eval()
