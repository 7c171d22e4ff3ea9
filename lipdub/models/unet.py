"""The two halves of the generator's U-Net [3.4]: the encoder of faces and the decoder, see models/generator.py."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lipdub.config import GeneratorConfig
from lipdub.models.layers import ConvBlock, UpBlock, spread

HALF_SCALE = 1  # finest scale of a decoder that makes the lower half alone: S / 2, finer than any motion of a mouth


class ImageEncoder(nn.Module):
    """Face -> embedding and features: strided downsampling, residual Conv-BN-ReLU blocks spread over the scales.

    Args:
        config: size, widths, residual_blocks, embedding, residual.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        widths = config.widths
        self.stem = ConvBlock(3, widths[0])
        self.scales = nn.ModuleList()
        for fine, coarse, count in zip(
            widths[:-1], widths[1:], spread(config.residual_blocks, len(widths) - 1), strict=True
        ):
            blocks = [ConvBlock(coarse, coarse, residual=config.residual) for _ in range(count)]
            self.scales.append(nn.Sequential(ConvBlock(fine, coarse, stride=2), *blocks))
        side = config.size >> len(self.scales)
        self.embed = nn.Linear(widths[-1] * side * side, config.embedding)

    def forward(self, faces: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, 3, S, S) in [0, 1] -> (N, E) and the features (N, C_i, S_i, S_i) of every scale, finest first."""
        features = [self.stem(faces - 0.5)]
        for scale in self.scales:
            features.append(scale(features[-1]))
        return self.embed(features[-1].flatten(1)), features


class Decoder(nn.Module):
    """Embeddings and skip features -> features at full size: the image encoder mirrored.

    The auxiliary block of a scale is one linear layer from the three embeddings to a value per channel, added before
    the ReLU. Up to the border this equals concatenating the spread-out vector before the convolution, which costs
    C_i * 9 products for each of its channels and each pixel.

    Args:
        config: size, widths, residual_blocks, embedding, residual, audio_skips, skip_free_scales.
        lower_only: make only the lower half of the face, and stop at S / 2.
    """

    def __init__(self, config: GeneratorConfig, *, lower_only: bool = False) -> None:
        super().__init__()
        widths, joined = config.widths, 3 * config.embedding
        last = len(widths) - 1
        self.skip_free = config.skip_free_scales
        self.lower_only = lower_only
        side = config.size >> last
        self.shape = (side // 2 if lower_only else side, side)
        self.start = nn.Linear(joined, widths[last] * self.shape[0] * side)
        counts = [0, *spread(config.residual_blocks // 2, last)]
        self.scales = nn.ModuleList()
        self.auxiliary = nn.ModuleList()
        for scale in range(last, HALF_SCALE - 1 if lower_only else -1, -1):
            inputs = widths[min(scale + 1, last)]
            skips = 2 * widths[scale] if scale >= self.skip_free else 0
            self.scales.append(
                UpBlock(
                    inputs,
                    skips,
                    widths[scale],
                    blocks=counts[scale],
                    residual=config.residual,
                    upsample=scale < last,
                )
            )
            if config.audio_skips:
                self.auxiliary.append(nn.Linear(joined, widths[scale]))

    def forward(
        self,
        embeddings: Tensor,
        skips: list[tuple[Tensor, Tensor]],
        rows: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Joined embeddings (N, 3 E), (identity, reference) features per skip scale, finest first.

        With `rows`, (N,) int64 each, they say which item of either features each of the N sees; else it is its own.

        Returns:
            (N, C0, S, S), or with `lower_only` (N, C1, S / 4, S / 2).
        """
        x: Tensor = self.start(embeddings).unflatten(1, (-1, *self.shape))
        x = x.contiguous(memory_format=memory_format(skips[-1][0])) if skips else x
        remaining = list(skips)
        for index, scale in enumerate(self.scales):
            here = list(remaining.pop()) if remaining else []
            if self.lower_only:
                here = [features[..., features.shape[-2] // 2 :, :] for features in here]
            shift = self.auxiliary[index](embeddings) if len(self.auxiliary) else None
            x = scale(x, here, shift, rows)
        return x


def memory_format(x: Tensor) -> torch.memory_format:
    """channels_last where a tensor lies that way and not the plain one as well."""
    plain = x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last)
    return torch.contiguous_format if plain else torch.channels_last
