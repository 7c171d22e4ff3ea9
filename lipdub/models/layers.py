"""Blocks that the networks share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


class ConvBlock(nn.Module):
    """Conv-BN-ReLU [3.4]; a residual block adds its input before the ReLU.

    The normalisation follows the convolution directly, so that `fold_norms` can merge both.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: odd side of the kernel; padding keeps the size.
        stride: of the convolution, (rows, columns) or one number for both.
        residual: add the input; needs inputs == outputs and stride 1.

    Raises:
        ValueError: a residual block that changes the shape.
    """

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 3, stride: int | tuple[int, int] = 1, residual: bool = False
    ) -> None:
        super().__init__()
        if residual and (inputs != outputs or stride != 1):
            raise ValueError(f"residual block cannot go from {inputs} to {outputs} channels with stride {stride}")
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        self.residual = residual

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H', W'); `shift` (N, outputs) is added to every pixel before the ReLU."""
        y: Tensor = self.norm(self.conv(x))
        if self.residual:
            y += x
        return _activated(y, shift)

    def of_parts(self, x: Tensor, parts: Sequence[tuple[Tensor, Tensor]], shift: Tensor | None = None) -> Tensor:
        """The same for x with more channels beside it, which many of its rows share: convolved once, then spread.

            conv(cat(x, part[rows])) = conv_x(x) + conv_part(part)[rows]

        Args:
            x: (M, C, H, W).
            parts: (n, c, H, W) each, and which of its n rows each row of x sees, (M,) int64.
            shift: (M, outputs).

        Returns:
            (M, outputs, H', W').
        """
        first, *others = self.conv.weight.split([x.shape[1], *(part.shape[1] for part, _ in parts)], 1)
        y = F.conv2d(x, first, self.conv.bias, self.conv.stride, self.conv.padding)
        for (part, rows), weight in zip(parts, others, strict=True):
            y += _rows_of(F.conv2d(part, weight, None, self.conv.stride, self.conv.padding), rows)
        return _activated(self.norm(y), shift)


def _rows_of(x: Tensor, rows: Tensor) -> Tensor:
    """x[rows], of (n, C, H, W); in channels last whole rows are copied, which `x[rows]` does value by value."""
    if x.stride(1) != 1:
        return x.index_select(0, rows)
    return x.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)


def _activated(y: Tensor, shift: Tensor | None) -> Tensor:
    """ReLU of y (N, C, H, W) and, at every pixel, `shift` (N, C); in y's place."""
    if shift is not None:
        shift = shift[:, :, None, None]
        if y.stride(1) == 1:  # channels last: PyTorch vectorizes bf16 only over more than 16 values that lie together
            shift = shift.expand(-1, -1, 1, y.shape[3]).contiguous(memory_format=torch.channels_last)
        y += shift
    return F.relu(y, inplace=True)


class UpBlock(nn.Module):
    """Decoder scale [3.4]: bilinear upsampling, concatenation with skip features, convolution, residual blocks.

    Args:
        inputs: channels from the coarser scale.
        skips: channels of all skip features together.
        outputs: channels of this scale.
        blocks: residual blocks after the first convolution.
        residual: False leaves the shortcuts out (Table 4.1 "ResNet").
        upsample: False at the coarsest scale, whose input has its size already.
    """

    def __init__(
        self, inputs: int, skips: int, outputs: int, *, blocks: int, residual: bool = True, upsample: bool = True
    ) -> None:
        super().__init__()
        self.upsample = upsample
        self.merge = ConvBlock(inputs + skips, outputs)
        self.blocks = nn.Sequential(*(ConvBlock(outputs, outputs, residual=residual) for _ in range(blocks)))

    def forward(
        self, x: Tensor, skips: list[Tensor], shift: Tensor | None = None, rows: Sequence[Tensor] | None = None
    ) -> Tensor:
        """(N, inputs, H, W), skips (N, c, 2H, 2W), shift (N, outputs) -> (N, outputs, 2H, 2W).

        With `rows`, one (N,) for each skip, a skip has fewer rows, (n, c, 2H, 2W), and they say which of them x sees.
        """
        if self.upsample:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        if rows is not None and skips:
            x = self.merge.of_parts(x, [*zip(skips, rows, strict=True)], shift)
        else:
            x = self.merge(torch.cat([x, *skips], 1) if skips else x, shift)
        return self.blocks(x)


class AudioEncoder(nn.Module):
    """Mel window -> vector [3.4]: coordinates concatenated, strided convolutions, residual Conv-BN-ReLU blocks.

    Strides are 2 in time; 2, then 3 in mel:  80 x 16 -> 40 x 8 -> 14 x 4 -> 5 x 2 for four widths.

    Args:
        n_mels: rows of the window.
        window: columns of the window.
        widths: channels of each scale.
        blocks: residual blocks, spread over all scales.
        embedding: length of the vector.
        residual: False leaves the shortcuts out.
    """

    def __init__(
        self, n_mels: int, window: int, widths: tuple[int, ...], blocks: int, embedding: int, *, residual: bool = True
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs, rows, columns = 3, n_mels, window
        for scale, (width, count) in enumerate(zip(widths, spread(blocks, len(widths)), strict=True)):
            stride = (1, 1) if scale == 0 else (2, 2) if scale == 1 else (3, 2)
            layers.append(ConvBlock(inputs, width, stride=stride))
            layers.extend(ConvBlock(width, width, residual=residual) for _ in range(count))
            rows, columns = (rows - 1) // stride[0] + 1, (columns - 1) // stride[1] + 1
            inputs = width
        self.n_mels, self.window = n_mels, window
        self.trunk = nn.Sequential(*layers)
        self.embed = nn.Linear(inputs * rows * columns, embedding)

    def forward(self, windows: Tensor) -> Tensor:
        """(N, n_mels, W) -> (N, embedding).

        Raises:
            ValueError: another window size.
        """
        if windows.ndim != 3 or windows.shape[1:] != (self.n_mels, self.window):
            raise ValueError(f"mel windows must be (N, {self.n_mels}, {self.window}), got {tuple(windows.shape)}")
        return self.embed(self.trunk(add_coordinates(windows[:, None])).flatten(1))


def add_coordinates(x: Tensor) -> Tensor:
    """Two more channels, y and x in [-1, 1], so that a convolution knows where it is [3.4].

    (N, C, H, W) -> (N, C + 2, H, W)
    """
    n, _, height, width = x.shape
    rows = torch.linspace(-1, 1, height, device=x.device, dtype=x.dtype)[:, None].expand(n, 1, height, width)
    columns = torch.linspace(-1, 1, width, device=x.device, dtype=x.dtype).expand(n, 1, height, width)
    return torch.cat([x, rows, columns], 1)


def mask_lower_half(faces: Tensor) -> Tensor:
    """Faces (..., S, S) with rows >= S / 2 set to 0: the constant mask of [3.2], never one from landmarks [3.6]."""
    masked = faces.clone()
    masked[..., faces.shape[-2] // 2 :, :] = 0
    return masked


def gaussian_blur(images: Tensor, kernel: int, sigma: float) -> Tensor:
    """Gaussian blur; beyond the border the edge pixel goes on, so that a constant stays constant.

    Args:
        images: (N, C, H, W).
        kernel: odd number of taps.
        sigma: standard deviation in pixels.

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: an even kernel.
    """
    if kernel % 2 == 0:
        raise ValueError(f"blur kernel must be odd, got {kernel}")
    half = kernel // 2
    taps = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-half, half + 1)]
    row = images.new_tensor([tap / sum(taps) for tap in taps]).view(1, 1, 1, kernel)
    n, channels, height, width = images.shape
    x = F.pad(images.reshape(n * channels, 1, height, width), (half, half, half, half), mode="replicate")
    x = F.conv2d(F.conv2d(x, row), row.transpose(2, 3))
    return x.view(n, channels, height, width)


PAINT_WIDTH = 48  # channels of `PaintHead`


class PaintHead(nn.Module):
    """Decoder features at S / 2 -> a picture at S, as fine as what a warp makes of references.

    Args:
        inputs: channels of the features.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(ConvBlock(inputs, PAINT_WIDTH), ConvBlock(PAINT_WIDTH, PAINT_WIDTH, residual=True))
        self.out = nn.Sequential(nn.Conv2d(PAINT_WIDTH, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, 3, 2 h, 2 w), before any sigmoid."""
        return self.out(self.blocks(features))


def fold_norms(module: nn.Module) -> None:
    """Merge each normalisation that follows a convolution into it, in place; inference only, weights are rewritten.

    Looks into ConvBlocks and into nn.Sequential.

    Raises:
        ValueError: the module is in training mode.
    """
    if module.training:
        raise ValueError("fold_norms needs a module in eval mode")
    for block in module.modules():
        if isinstance(block, ConvBlock) and isinstance(block.norm, nn.BatchNorm2d):
            _fold(block.conv, block.norm)
            block.norm = nn.Identity()
        elif isinstance(block, nn.Sequential):
            for place, (first, second) in enumerate(pairwise(block)):
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    _fold(first, second)
                    block[place + 1] = nn.Identity()


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """One normalisation into the convolution before it."""
    assert norm.running_mean is not None and norm.running_var is not None
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )


def for_inference(module: nn.Module) -> None:
    """Make a network as fast as it gets without changing what it computes: norms folded, channels last; in place."""
    module.eval()
    fold_norms(module)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def spread(total: int, places: int) -> list[int]:
    """`total` blocks over `places` scales as evenly as whole numbers allow, the surplus to the coarser ones."""
    return [total * (i + 1) // places - total * i // places for i in range(places)]


def n_parameters(module: nn.Module) -> int:
    """Trainable numbers of a network."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
