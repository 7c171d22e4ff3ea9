"""The multi-frame discriminator [3.7]: real or generated, from five mouths.

    (B, T, 3, 96, 96) -> lower halves (B, 15, 48, 96), the upper half is never seen
      4 x 4x4 conv, stride 2, LeakyReLU     (B, 32, 24, 48) ... (B, 256, 3, 6)
      3x3 conv                              (B, 1, 3, 6) logit per patch; their mean -> (B,)

Every layer has spectral normalisation. With `region` "mouth" (not in the thesis) it sees a window around the lips,
(B, 3 T, 29, 48) of a unit crop of 96: skin that is bent into place needs no adversary, teeth do.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from lipdub.config import DiscriminatorConfig

REGIONS = ("lower", "mouth")
MOUTH = (0.56, 0.25), (0.86, 0.75)  # top left and bottom right of the window (y, x), in unit crops


class Discriminator(nn.Module):
    """Strided convolutions over the stacked frames.

    The upper half is cut off, not blackened: the same to the network, and half the work.

    Args:
        config: sizes and LeakyReLU's slope.

    Raises:
        ValueError: faces too small for the number of widths, or no such region.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        if config.region not in REGIONS:
            raise ValueError(f"discriminator.region must be one of {', '.join(REGIONS)}, got {config.region!r}")
        self.config = config
        rows, columns = self._window()
        if min(rows.stop - rows.start, columns.stop - columns.start) < 1 << len(config.widths):
            raise ValueError(f"faces of {config.size} are too small to be halved {len(config.widths)} times")
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
        rows, columns = self._window()
        logits: Tensor = self.layers(clips[..., rows, columns].flatten(1, 2) - 0.5)
        return logits.mean((1, 2, 3))

    def _window(self) -> tuple[slice, slice]:
        """Rows and columns that it sees."""
        size = self.config.size
        if self.config.region == "lower":
            return slice(size // 2, size), slice(0, size)
        first, last = ([round(size * (0.5 + (at - 0.5) / self.config.margin)) for at in corner] for corner in MOUTH)
        return slice(first[0], last[0]), slice(first[1], last[1])
