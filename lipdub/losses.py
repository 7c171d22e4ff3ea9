"""The terms of the total loss [3.7] and of the expert's own [3.3], each a plain function of tensors.

    L = a_l1 L1 (6) + a_vgg perceptual (7) + a_expert expert (8) + a_mask mask (9) + a_adversarial adversarial (13)

The weights are in `config.LossConfig`, under the same names. Equation numbers were checked in the thesis; where
it leaves a scale open, or prints something else than what is meant, the function says what is done here.

Unless it says otherwise, each returns a scalar, and raises ValueError where shapes do not fit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

MARGIN = 1e-6  # (4): d is kept this far from 0 and 1, so that no logarithm is infinite
FAINT = 0.05  # movement of a mouth, in units of its code, that is noise


def masked_l1(fake: Tensor, real: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute difference inside the mask.

        L_L1 = 1 / sum(M) * sum(M |X^ - X|)        (thesis eq. 6, for one image)

    Here sum(M) also counts the three colours, so that the value is in units of the pixel; the printed one is three
    times as large. The batch's value is the mean over its images. The mask gets no gradient, as [3.7] asks.

    Args:
        fake: X^, (N, C, H, W).
        real: X, (N, C, H, W).
        mask: M, (N, 1, H, W) in [0, 1]. An image whose mask is all 0 contributes 0.
    """
    _same_shape(fake, real)
    if mask.shape != (fake.shape[0], 1, *fake.shape[2:]):
        raise ValueError(f"mask must be {(fake.shape[0], 1, *fake.shape[2:])}, got {tuple(mask.shape)}")
    mask = mask.detach()
    area = mask.sum((1, 2, 3)) * fake.shape[1]
    return ((mask * (fake - real).abs()).sum((1, 2, 3)) / area.clamp(min=1e-6)).mean()


def gradient_l1(fake: Tensor, real: Tensor, mask: Tensor) -> Tensor:
    """`masked_l1` of the differences between neighbours in x and in y, which soft pictures lack; not in the thesis.

        mean over d in {x, y} of  1 / sum(M) * sum(M |d X^ - d X|)

    Args:
        fake: (N, C, H, W).
        real: same shape.
        mask: (N, 1, H, W) in [0, 1].
    """
    across = masked_l1(fake.diff(dim=3), real.diff(dim=3), mask[..., 1:])
    down = masked_l1(fake.diff(dim=2), real.diff(dim=2), mask[..., 1:, :])
    return (across + down) / 2


def painted_share(share: Tensor, mouth: Tensor, lips: Tensor) -> Tensor:
    """How much of the mouth region is painted where the references would do: everywhere but between parted lips.

        1 / sum(M (1 - P)) * sum(M (1 - P) s)

    L1 alone prefers a soft painted face to a sharp one that is a pixel off.

    Args:
        share: s, (N, 1, H, W) of the painted picture, in [0, 1].
        mouth: M, (N, 1, H, W) the true mouth mask.
        lips: P, (N, 1, H, W), 1 between the lips.

    Returns:
        Scalar in [0, 1].
    """
    _same_shape(share, mouth)
    _same_shape(share, lips)
    region = mouth * (1 - lips)
    return (region * share).sum() / region.sum().clamp(min=1e-6)


def unpainted_lips(share: Tensor, lips: Tensor, unseen: Tensor) -> Tensor:
    """How little is painted between lips that are parted wider than any reference shows; not in the thesis.

        -1 / sum(P u) * sum(P u log s)

    Bent closed lips swell, and L1 alone finds that better than what a young painter makes; where the share is 0, it has
    no gradient to say otherwise.

    Args:
        share: s, (N, 1, H, W) of the painted picture, in [0, 1].
        lips: P, (N, 1, H, W), 1 between the lips.
        unseen: u, (N,) in [0, 1]: by how much the lips are parted wider.

    Returns:
        Scalar, 0 where nothing is unseen.
    """
    _same_shape(share, lips)
    region = lips * unseen.view(-1, 1, 1, 1)
    return -(region * share.clamp(min=MARGIN).log()).sum() / region.sum().clamp(min=1.0)


def mouth_emphasis(mask: Tensor, weight: float, margin: float = 1.0) -> Tensor:
    """A weight per pixel for `masked_l1` that grows towards the mouth of an aligned face; not in the thesis.

        1 + weight * exp(-((x - 1/2) / 0.15)^2 / 2 - ((y - 0.7) / 0.09)^2 / 2),   x, y in the unit crop

    Lips are a tenth of the mask: without it they learn to move last.

    Args:
        mask: (N, 1, S, S), for its size, device and type.
        weight: extra weight in the middle of the mouth; 0 = none.
        margin: side of the crop over the unit crop's.

    Returns:
        (1, 1, S, S).
    """
    size = mask.shape[-1]
    line = ((torch.arange(size, device=mask.device, dtype=mask.dtype) + 0.5) / size - 0.5) * margin + 0.5
    x, y = ((line - 0.5) / 0.15).square(), ((line - 0.7) / 0.09).square()
    return (1 + weight * torch.exp(-(x[None] + y[:, None]) / 2))[None, None]


def perceptual(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Distance of VGG features, summed over the layers.

        L^i(X, X^) = 1 / (C_i H_i W_i) * || phi(X)_i - phi(X^)_i ||_2^2        (thesis eq. 7, checked)

    Args:
        fake: phi(X^)_i, (N, C_i, H_i, W_i) for each chosen layer i, from `models.vgg`.
        real: phi(X)_i, same shapes; gets no gradient.

    Returns:
        Scalar: mean over the batch of the sum over the layers. Its scale is that of the backbone.

    Raises:
        ValueError: no layer, or shapes or numbers of layers that differ.
    """
    if not fake or len(fake) != len(real):
        raise ValueError(f"need the same layers of both, at least one; got {len(fake)} and {len(real)}")
    for a, b in zip(fake, real, strict=True):
        _same_shape(a, b)
    return torch.stack([F.mse_loss(a, b.detach()) for a, b in zip(fake, real, strict=True)]).sum()


def expert_bce(similarity: Tensor, in_sync: Tensor) -> Tensor:
    """What the expert is trained on.

        L_expert = -1/N sum( y_i log(d_i) + (1 - y_i) log(1 - d_i) )        (thesis eq. 4, checked)

    Args:
        similarity: d of (3), (N,) in [0, 1]; clipped to [1e-6, 1 - 1e-6].
        in_sync: y, (N,); 1 where sound and faces belong together, else 0.
    """
    _same_shape(similarity, in_sync)
    wide = torch.promote_types(similarity.dtype, torch.float32)  # half precision has nothing between 1 - 1e-6 and 1
    d = similarity.to(wide).clamp(MARGIN, 1 - MARGIN)
    y = in_sync.to(d.dtype)
    return -(y * d.log() + (1 - y) * (1 - d).log()).mean()


def expert_loss(similarity: Tensor, *, floor: float) -> Tensor:
    """Loss of the frozen expert for the generator.

        L_expert = 1/B sum( -log(d_i) ),    d clipped to [floor, 1]        (thesis eq. 8, checked; floor 1e-3)

    A clip whose d lies below the floor adds -log(floor) and no gradient.

    Args:
        similarity: d of (3), (B,) in [0, 1].
        floor: least d, above 0.

    Raises:
        ValueError: a floor outside (0, 1).
    """
    if not 0 < floor < 1:
        raise ValueError(f"floor must lie in (0, 1), got {floor}")
    return -similarity.clamp(floor, 1.0).log().mean()


def mask_bce(logits: Tensor, mask: Tensor) -> Tensor:
    """Binary cross-entropy of the predicted mouth mask.

        L_mask = -1/B sum( M_true log(M) + (1 - M_true) log(1 - M) ),    M = sigmoid(logits)        (thesis eq. 9)

    Printed, the sum runs over the pixels and is divided by the number of images only. Here it is the mean per pixel:
    with the printed one, 9216 times as large at 96 x 96, the weights 1 and 1 of L1 and mask would not be of one order.

    Args:
        logits: (N, 1, H, W), before any sigmoid.
        mask: M_true, (N, 1, H, W) in [0, 1].
    """
    _same_shape(logits, mask)
    return F.binary_cross_entropy_with_logits(logits, mask)


def correlation_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """How little predicted mouths move with the true ones; not in the thesis.

        1 - sum_t a_t b_t / (sqrt(sum_t a_t^2 sum_t b_t^2) + T FAINT^2),   a, b: shapes less their mean over the run

    The distance of shapes asks for how far a mouth moves, which sound says little about, and how it rests, about which
    it says nothing; this asks when. Numbers that hardly move count less.

    Args:
        predicted: (B, T, C) mouth shapes of B runs of T frames.
        true: same shape.

    Returns:
        Scalar in [0, 2], the mean over runs and numbers.
    """
    _same_shape(predicted, true)
    a, b = (x - x.mean(1, keepdim=True) for x in (predicted, true))
    size = (a.square().sum(1) * b.square().sum(1) + MARGIN).sqrt()  # a root has no slope at 0
    return (1 - (a * b).sum(1) / (size + a.shape[1] * FAINT**2)).mean()


def generator_adversarial(fake: Tensor) -> Tensor:
    """Non-saturating loss of the generator.

        L_G = E_fake log(1 + exp(-D(x)))        (thesis eq. 13, checked; its x is the logit)

    Args:
        fake: D(fake), (B,), before any sigmoid.
    """
    return F.softplus(-fake).mean()


def discriminator_adversarial(real: Tensor, fake: Tensor) -> Tensor:
    """Non-saturating loss of the discriminator, without its penalty.

        L_D = E_real log(1 + exp(-D(x))) + E_fake log(1 + exp(D(x))) + gamma / 2 * R1        (thesis eq. 14, checked)

    R1 is `r1_penalty`, which the caller adds.

    Args:
        real: D(real), (B,), before any sigmoid.
        fake: D(fake), (B,).
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def r1_penalty(logits: Tensor, real: Tensor) -> Tensor:
    """Squared gradient norm of D at real clips.

        R1 = E_real || d D(x) / dx ||^2        (thesis eq. 14; arXiv:1801.04406)

    Thesis: (14) prints the expectation over fake samples. Here over real ones, as R1 was published; the penalty on fake
    samples is that paper's R2.

    Args:
        logits: D(real), (B,), before any sigmoid.
        real: (B, ...), what D saw; must require grad before D saw it.

    Returns:
        Scalar, differentiable in D's weights. The caller multiplies by gamma / 2.

    Raises:
        ValueError: `real` does not require grad.
    """
    if not real.requires_grad:
        raise ValueError("real must require grad before the discriminator sees it")
    (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def _same_shape(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {tuple(a.shape)} and {tuple(b.shape)}")
