"""Segmentation of what lies in front of a face: hands, microphones, cups, captions.

    OcclusionNet    (N, 3, 64, 64) faces, (N, 3, 64, 64) the same persons as usual  ->  (N, 64, 64) logits

A small U-Net. What it compares a face with is the median of the person's crops: a beard, glasses, a shadow are there as
well, a hand that passes is not. Trained by `lipdub train --stage occlusion` on synthetic objects; see MODEL_CARD.md.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from lipdub.models.layers import ConvBlock, UpBlock

OCCLUSION_SIDE = 64  # input and output side


class OcclusionNet(nn.Module):
    """Log odds, for each pixel of a face crop, of something in front of the face."""

    def __init__(self, widths: tuple[int, int, int, int, int] = (8, 16, 32, 64, 96)) -> None:
        super().__init__()
        self.stem = ConvBlock(6, widths[0])
        self.down = nn.ModuleList(
            nn.Sequential(ConvBlock(fine, coarse, stride=2), ConvBlock(coarse, coarse, residual=True))
            for fine, coarse in pairwise(widths)
        )
        self.up = nn.ModuleList(
            UpBlock(coarse, fine, fine, blocks=int(fine > widths[0])) for coarse, fine in pairwise(widths[::-1])
        )
        self.head = nn.Conv2d(widths[0], 1, 1)
        nn.init.constant_(self.head.bias, -2.2)  # type: ignore[arg-type]  # prior: a tenth of the pixels

    def forward(self, faces: Tensor, usual: Tensor) -> Tensor:
        """(N, 3, 64, 64) RGB in [0, 1] both -> (N, 64, 64)."""
        x: Tensor = self.stem(torch.cat([faces - 0.5, faces - usual], 1))
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        for up in self.up:
            x = up(x, [skips.pop()])
        logits: Tensor = self.head(x)
        return logits[:, 0]
