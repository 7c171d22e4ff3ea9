"""The multi-frame discriminator [3.7]: real or generated, from five mouths.

    (B, T, 3, 96, 96) -> lower halves (B, 15, 48, 96), the upper half is never seen
      4 x 4x4 conv, stride 2, LeakyReLU     (B, 32, 24, 48) ... (B, 256, 3, 6)
      3x3 conv                              (B, 1, 3, 6) logit per patch; their mean -> (B,)

Every layer has spectral normalisation.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from lipdub.config import DiscriminatorConfig
from lipdub.models.expert import lower_halves


class Discriminator(nn.Module):
    """Strided convolutions over the stacked frames.

    The upper half is cut off, not blackened: the same to the network, and half the work.

    Args:
        config: sizes and LeakyReLU's slope.

    Raises:
        ValueError: faces too small for the number of widths.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        if config.size // 2 < 1 << len(config.widths):
            raise ValueError(f"half a face of {config.size} cannot be halved {len(config.widths)} times")
        self.config = config
        layers: list[nn.Module] = []
        inputs = 3 * config.frames
        for width in config.widths:
            layers += [spectral_norm(nn.Conv2d(inputs, width, 4, 2, 1)), nn.LeakyReLU(config.slope)]
            inputs = width
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(inputs, 1, 3, 1, 1)))

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (B, T, 3, S, S) in [0, 1] -> logits (B,), high for real ones.

        Raises:
            ValueError: another shape.
        """
        wanted = (self.config.frames, 3, self.config.size, self.config.size)
        if clips.ndim != 5 or clips.shape[1:] != wanted:
            raise ValueError(f"clips must be (B, {', '.join(map(str, wanted))}), got {tuple(clips.shape)}")
        logits: Tensor = self.layers(lower_halves(clips) - 0.5)
        return logits.mean((1, 2, 3))
