"""Image metrics of Table 4.1 [4.1]: one value per image, computed inside the mouth mask.

The perceptual metric is `losses.perceptual`, lip-sync quality is `losses.expert_loss`.
An image whose mask is empty has no value: NaN, to be counted and left out of means.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # grey of R, G, B (BT.601)
PEAK = 255.0  # vL is given for grey levels 0..255, as in the thesis' table


def psnr_masked(fake: Tensor, real: Tensor, mask: Tensor, *, peak: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio inside the mask, averaged over the three colours.

        PSNR(f, g) = 20 log10( MAX_f / sqrt(MSE(f, g)) )                                 (thesis section 4, eq. 15)
        MSE(f, g)  = 1 / sum_ij M(i, j) * sum_ij M(i, j) ||f(i, j) - g(i, j)||^2         (eq. 16, checked)

    "We compared each channel in RGB space and average the final value": one PSNR per colour, then their mean.

    Args:
        fake: g, (N, 3, H, W).
        real: f, (N, 3, H, W).
        mask: M, (N, 1, H, W) in [0, 1].
        peak: MAX_f, the largest value a pixel can have.

    Returns:
        (N,) dB. Infinite where images agree, NaN where the mask is empty.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check(fake, mask)
    if fake.shape != real.shape:
        raise ValueError(f"shapes differ: {tuple(fake.shape)} and {tuple(real.shape)}")
    error = (mask * (fake - real).square()).sum((2, 3)) / mask.sum((2, 3))  # (N, 3)
    return (20 * torch.log10(peak / error.sqrt())).mean(1)


def laplacian_variance(images: Tensor, mask: Tensor) -> Tensor:
    """Sharpness vL: variance of the Laplacian inside the mask [4.1].

        L = Sx Sx I + Sy Sy I,    vL = sum M (L - mean)^2 / sum M,    mean = sum M L / sum M

    S is the 3 x 3 Sobel filter, applied twice, over 8: then it is the slope in grey levels per pixel. The thesis does
    not say how its Sobel is scaled, so only values of this function are compared with each other. I is grey, 0..255,
    not smoothed first, as [4.1] says. Beyond the border the edge pixel goes on.

    Args:
        images: (N, 3, H, W) RGB in [0, 1].
        mask: M, (N, 1, H, W) in [0, 1].

    Returns:
        (N,) squared grey levels; larger is sharper. NaN where the mask is empty.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check(images, mask)
    grey = PEAK * (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    across = images.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]).view(1, 1, 3, 3) / 8
    down = across.transpose(2, 3)
    laplacian = _filter(_filter(grey, across), across) + _filter(_filter(grey, down), down)
    area = mask.sum((1, 2, 3), keepdim=True)
    mean = (mask * laplacian).sum((1, 2, 3), keepdim=True) / area
    return ((mask * (laplacian - mean).square()).sum((1, 2, 3), keepdim=True) / area).flatten()


def _filter(image: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), kernel)


def _check(images: Tensor, mask: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must be (N, 3, H, W), got {tuple(images.shape)}")
    if mask.shape != (images.shape[0], 1, *images.shape[2:]):
        raise ValueError(f"mask must be {(images.shape[0], 1, *images.shape[2:])}, got {tuple(mask.shape)}")
