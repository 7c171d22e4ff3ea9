"""The two small face networks of the builtin backend: a box detector and a 68-point landmark regressor.

Both are trained by `lipdub train --stage faces` against public teachers; see MODEL_CARD.md.

    FaceDetector    (N, 3, H, W), H and W multiples of 32   ->  (N, 5, H/8, W/8): score logit, centre offset, log size
    LandmarkNet     (N, 3, 96, 96)                           ->  (N, 68, 2) in the unit crop, (N,) confidence logit
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 8  # input pixels per cell of the detector's output
LANDMARK_SIDE = 96  # input side of the landmark network


class _Conv(nn.Sequential):
    """3x3 Conv-BN-ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class _Residual(nn.Module):
    """Two Conv-BN with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _Conv(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class FaceDetector(nn.Module):
    """Anchor-free detector: one cell of a stride-8 map per face, found where the score peaks.

    A face at (cx, cy) of size (w, h), in input pixels, is written into the cell that holds its centre as
    (dx, dy) = (cx, cy) / 8 - cell and (log(w / 8), log(h / 8)).
    """

    def __init__(self, widths: tuple[int, int, int, int, int] = (12, 24, 48, 64, 96)) -> None:
        super().__init__()
        a, b, c, d, e = widths
        self.stem = nn.Sequential(_Conv(3, a, 2), _Conv(a, b, 2), _Residual(b))
        self.eighth = nn.Sequential(_Conv(b, c, 2), _Residual(c))
        self.sixteenth = nn.Sequential(_Conv(c, d, 2), _Residual(d))
        self.thirtysecond = nn.Sequential(_Conv(d, e, 2), _Residual(e))
        self.from_32 = nn.Conv2d(e, d, 1)
        self.from_16 = nn.Conv2d(d, c, 1)
        self.head = nn.Sequential(_Conv(c, c), nn.Conv2d(c, 5, 1))
        nn.init.constant_(self.head[1].bias[0], -4.6)  # type: ignore[index]  # prior: 1 % of the cells are faces

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) RGB in [0, 1] -> (N, 5, H/8, W/8)."""
        c = self.eighth(self.stem(images - 0.5))  # H/8
        d = self.sixteenth(c)  # H/16
        e = self.thirtysecond(d)  # H/32
        d = F.relu(d + F.interpolate(self.from_32(e), scale_factor=2.0, mode="nearest"))
        c = F.relu(c + F.interpolate(self.from_16(d), scale_factor=2.0, mode="nearest"))
        out: Tensor = self.head(c)
        return out


def decode_boxes(output: Tensor, threshold: float) -> list[tuple[Tensor, Tensor]]:
    """Boxes (M, 4) in input pixels and scores (M,) of each image, best first, from FaceDetector's output.

    A face is a cell whose score is a local maximum of its 3x3 neighbours and above `threshold`; overlapping
    boxes of one face (IoU > 0.4) keep the best.
    """
    scores = output[:, 0].sigmoid()
    peaks = F.max_pool2d(scores[:, None], 3, 1, 1)[:, 0] == scores
    found = []
    for image in range(output.shape[0]):
        rows, columns = torch.nonzero(peaks[image] & (scores[image] > threshold), as_tuple=True)
        score, order = scores[image, rows, columns].sort(descending=True)
        rows, columns = rows[order], columns[order]
        dx, dy, log_w, log_h = output[image, 1:, rows, columns]
        centre = torch.stack([columns + dx, rows + dy], 1) * STRIDE
        half = torch.stack([log_w, log_h], 1).clamp(-2, 5).exp() * STRIDE / 2
        boxes = torch.cat([centre - half, centre + half], 1)
        kept = _suppress(boxes, 0.4)
        found.append((boxes[kept], score[kept]))
    return found


def _suppress(boxes: Tensor, limit: float) -> list[int]:
    kept: list[int] = []
    for index in range(boxes.shape[0]):
        if not kept or float(box_iou(boxes[index : index + 1], boxes[kept]).max()) <= limit:
            kept.append(index)
    return kept


def box_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union, (N, M), of boxes (N, 4) and (M, 4)."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (high - low).clamp(min=0).prod(2)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(1) for x in (a, b))
    return common / (area_a[:, None] + area_b[None] - common).clamp(min=1e-9)


class LandmarkNet(nn.Module):
    """Regresses 68 points and how sure it is that the crop shows one face."""

    def __init__(self, widths: tuple[int, int, int, int, int] = (24, 40, 72, 112, 144)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for index, width in enumerate(widths):
            layers.append(_Conv(inputs, width, 2))
            if index:
                layers.append(_Residual(width))
            inputs = width
        self.trunk = nn.Sequential(*layers)
        self.points = nn.Linear(9 * widths[-1], 136)
        self.confidence = nn.Linear(9 * widths[-1], 1)
        nn.init.zeros_(self.points.bias)
        nn.init.normal_(self.points.weight, std=0.002)

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, 96, 96) RGB in [0, 1] -> points (N, 68, 2) in [0, 1] of the crop, confidence logits (N,)."""
        x = self.trunk(faces - 0.5).flatten(1)
        return self.points(x).unflatten(1, (68, 2)) + 0.5, self.confidence(x)[:, 0]
