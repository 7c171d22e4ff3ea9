"""The two small face networks of the builtin backend: a box detector and one that finds 68 points.

Both are trained by `lipdub train --stage detector` and `--stage landmarks` against public teachers; see MODEL_CARD.md.

    FaceDetector    (N, 3, H, W), H and W multiples of 32   ->  (N, 5, H/8, W/8): score logit, centre offset, log size
    LandmarkNet     (N, 3, 96, 96)                           ->  (N, 68, 24, 24) maps of the points, (N,) confidence
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 8  # input pixels per cell of the detector's output
LANDMARK_SIDE = 96  # input side of the landmark network
MAP_SIGMA = 1.0  # cells; how sharp its maps are taught to be


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
        d = F.relu(d + _doubled(self.from_32(e)))
        c = F.relu(c + _doubled(self.from_16(d)))
        return self.head(c)


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
    """Draws a map of where each of 68 points may be, and says how sure it is that the crop shows one face.

    A coarse look at the whole face is refined on the way back up, so that a point is placed by what is there as well as
    by where the others are; `centres` makes points of the maps.
    """

    def __init__(self, widths: tuple[int, int, int, int, int] = (24, 40, 72, 112, 144), drawn: int = 48) -> None:
        super().__init__()
        a, b, c, d, e = widths
        self.quarter = nn.Sequential(_Conv(3, a, 2), _Conv(a, b, 2), _Residual(b))
        self.eighth = nn.Sequential(_Conv(b, c, 2), _Residual(c))
        self.sixteenth = nn.Sequential(_Conv(c, d, 2), _Residual(d))
        self.thirtysecond = nn.Sequential(_Conv(d, e, 2), _Residual(e))
        self.confidence = nn.Linear(9 * e, 1)
        self.from_32, self.again_16 = nn.Conv2d(e, d, 1), _Residual(d)
        self.from_16, self.again_8 = nn.Conv2d(d, c, 1), _Residual(c)
        self.from_8, self.of_4, self.again_4 = nn.Conv2d(c, drawn, 1), nn.Conv2d(b, drawn, 1), _Residual(drawn)
        self.maps = nn.Conv2d(drawn, 68, 1)

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, 96, 96) RGB in [0, 1] -> log odds (N, 68, 24, 24) of each cell, confidence logits (N,)."""
        b = self.quarter(faces - 0.5)
        c = self.eighth(b)
        d = self.sixteenth(c)
        e = self.thirtysecond(d)
        sure: Tensor = self.confidence(e.flatten(1))[:, 0]
        d = self.again_16(F.relu(d + _doubled(self.from_32(e))))
        c = self.again_8(F.relu(c + _doubled(self.from_16(d))))
        b = self.again_4(F.relu(self.of_4(b) + _doubled(self.from_8(c))))
        return self.maps(b), sure


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def centres(maps: Tensor) -> Tensor:
    """Points (N, P, 2) in [0, 1] of the crop: the mean place under each map's distribution (arXiv:1711.08229).

    Args:
        maps: (N, P, h, w) log odds of each cell; float32.
    """
    rows, columns = maps.shape[-2:]
    chance = maps.flatten(2).softmax(2).unflatten(2, (rows, columns))
    x = (torch.arange(columns, device=maps.device) + 0.5) / columns
    y = (torch.arange(rows, device=maps.device) + 0.5) / rows
    return torch.stack([chance.sum(2) @ x, chance.sum(3) @ y], 2)


def spread(points: Tensor, rows: int, columns: int) -> Tensor:
    """What `maps` should say of points (N, P, 2) in the unit crop: (N, P, rows, columns), 1 in sum.

    A Gaussian of MAP_SIGMA cells about each; a point that lies outside is looked for at the nearest edge.
    """
    x = torch.arange(columns, device=points.device) + 0.5 - columns * points[..., :1].clamp(0, 1)
    y = torch.arange(rows, device=points.device) + 0.5 - rows * points[..., 1:].clamp(0, 1)
    across, down = ((-(d**2) / (2 * MAP_SIGMA**2)).softmax(-1) for d in (x, y))
    return down[..., :, None] * across[..., None, :]
