"""Mouths composed of warped references [4.3, "future work"].

The thesis' decoder makes every pixel anew, and what it makes is as soft as its training was short. Skin, beard and
teeth are in the references already, in those drawn by faces/open_mouth.py where a mouth never opens. For each pair of
face and reference this decoder predicts a field that says where in the reference each pixel is to be taken from, and
how much it counts. All of it is about the hidden half of the face alone, and stops at S / 2: fields and shares are
smooth, and serve pictures of any size.

Shapes at the default size; N faces with K references each:

    features of both encoders      (N K, 2 C_i, S_i / 2, S_i)    lower halves, from the coarsest scale to S / 2
    decoder                        (N K, C1, 24, 48)             built as the generator's own
    head                           (N K, 3, 24, 48)              where to look (x, y), and a score
    shares                         (N, K, 24, 48)                softmax of the scores
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLOW_UNIT = 0.1  # crop sides that a raw output of 1 moves a pixel by
START_SCALE = 0.1  # of the head's first weights: a new network leaves every pixel nearly where it is
OUTSIDE_WEIGHT = 0.005  # what other references keep of their share where the frame itself lends its skin
MAX_FLOW = 0.09  # crop sides: frames that are not torn move by 0.086 at most (three clips, 370 frames)
IN_USE = 0.3  # share from which a reference is seen
UNUSED = -1e4  # score of a place without a reference: its share is exactly 0


class Cells(NamedTuple):
    """A part of the hidden half of a face, in pixels of a warp's fields."""

    rows: slice
    columns: slice

    def times(self, factor: int) -> Cells:
        """The same part where a pixel of the fields is `factor` pixels."""
        return Cells(*(slice(factor * of.start, factor * of.stop) for of in self))


@dataclass(frozen=True)
class Warp:
    """Where N faces take their pixels from."""

    indices: Tensor  # (N, K) int64: which of the R references; K - 1 where the last is no part of them (`compose`)
    flow: Tensor  # (N, K, 2, w / 2, w): x, y in crop sides from a pixel to where its colour is in the reference
    weights: Tensor  # (N, K, w / 2, w) in [0, 1], sums to 1 over dim 1


class WarpHead(nn.Module):
    """Decoder features of face-reference pairs -> flow and scores.

    Args:
        inputs: channels of the features.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.out = nn.Conv2d(inputs, 3, 3, padding=1)
        with torch.no_grad():
            self.out.weight.mul_(START_SCALE)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(M, C, h, w) -> flow (M, 2, h, w) in crop sides and scores (M, 1, h, w)."""
        out: Tensor = self.out(features).float()
        return FLOW_UNIT * out[:, :2], out[:, 2:]


def reference_indices(owner: Tensor) -> tuple[Tensor, Tensor]:
    """The references of each item as numbers.

    Args:
        owner: (N, R) bool: which references belong to item n; everyone has at least one.

    Returns:
        places (N, K) int64, own references first, in their order, and known (N, K) bool; K is the largest number of
        own references. Where an item has fewer, a place repeats another item's reference and is not known.
    """
    count = owner.shape[1] if owner.is_meta else int(owner.sum(1).max())  # meta: only costs are counted
    order = torch.argsort((~owner).to(torch.uint8), dim=1, stable=True)[:, :count]
    return order, owner.gather(1, order)


def weight_logits(scores: Tensor, prior: Tensor, known: Tensor) -> Tensor:
    """How much each reference counts at each pixel: log w_k + score_k, whose softmax are the shares.

    Args:
        scores: (N, K, h, w) of the references.
        prior: w, (N, K) attention weights of the references, thesis (5).
        known: (N, K) bool; others get a share of exactly 0.

    Returns:
        (N, K, h, w).
    """
    logits = scores + prior.clamp(min=1e-6).log()[:, :, None, None]
    return logits.masked_fill(~known[:, :, None, None], UNUSED)


def select(warp: Warp, items: slice | Tensor, *, first: int, views: int, own: bool = False) -> Warp:
    """The warp of items that look at `views` references each, which the result numbers from `first` on as 0.

    With `own` each has one reference more, behind the others: its own frame, which has no number.
    """
    count = views + own
    return Warp(warp.indices[items, :views] - first, warp.flow[items, :count], warp.weights[items, :count])


def suppress_references_outside_mouth(warp: Warp, place: int, keep: float, margin: float = 1.0) -> Warp:
    """The same, with one reference, the frame itself, for the skin, and the others for the lips.

        m = exp(-((x - 1/2) / 0.2)^4 - ((y - 0.73) / 0.13)^4)
        share_p' ~ share_p (1 - (1 - keep) m),   share_k' ~ share_k (m + OUTSIDE_WEIGHT (1 - m)),   k other references

    Its pose and light are the face's own, so that jaw and cheeks cannot show two heads; its lips are the old ones.

    Args:
        warp: of N faces.
        place: which of the K references is the frame itself.
        keep: share of it that stays in the middle of the mouth, in [0, 1].
        margin: side of the crop over the unit crop's, in which x and y are counted.
    """
    height, width = warp.weights.shape[-2:]
    x = margin * ((torch.arange(width, device=warp.weights.device) + 0.5) / width - 0.5)
    y = 0.5 + margin * (torch.arange(height, device=warp.weights.device) + 0.5) / width - 0.73
    mouth = torch.exp(-((x / 0.2) ** 4)[None] - ((y / 0.13) ** 4)[:, None])
    factor = (mouth + OUTSIDE_WEIGHT * (1 - mouth)).expand(warp.weights.shape[1], -1, -1).clone()
    factor[place] = 1 - (1 - keep) * mouth
    return _shared_anew(warp, warp.weights * factor + 1e-6)


def sharpen_weights(warp: Warp, power: float) -> Warp:
    """The same, with the largest shares of references larger still: share_k' ~ share_k ** power.

    References that are bent to nearly the same place blur each other where they are mixed; one alone is sharp.
    """
    return _shared_anew(warp, warp.weights**power)


def limit_flow(warp: Warp, cells: Sequence[Cells]) -> Warp:
    """The same, with the fields of references that are bent too far weakened: a torn mouth opens less instead.

        flow_k' = flow_k min(1, MAX_FLOW / max |flow_k|),   the maximum over a face's `cells` where share_k > IN_USE

    Heads turned aside whose openings are asked to be wide are where fields fold.
    """
    moved = warp.flow.norm(dim=2) * (warp.weights > IN_USE)
    length = torch.stack(
        [face[:, rows, columns].amax((1, 2)) for face, (rows, columns) in zip(moved, cells, strict=True)]
    )
    factor = (MAX_FLOW / length.clamp(min=1e-6)).clamp(max=1)
    return Warp(warp.indices, warp.flow * factor[:, :, None, None, None], warp.weights)


def _shared_anew(warp: Warp, parts: Tensor) -> Warp:
    """The same, with shares in the ratio of `parts` (N, K, h, w)."""
    return Warp(warp.indices, warp.flow, parts / parts.sum(1, keepdim=True).clamp(min=1e-12))


def compose(warp: Warp, pictures: Tensor) -> Tensor:
    """The hidden halves of the faces, in the resolution of the references' pictures.

        out(p) = sum_k share_k(p) * picture_k(p + flow_k(p))

    Args:
        warp: of N faces.
        pictures: (R, 3, D, D) in [0, 1], the references at any even size, whole.

    Returns:
        (N, 3, D / 2, D) float32 in [0, 1]. Looking beyond the border sees its edge pixel.
    """
    side = pictures.shape[-1]
    line = _line(side, pictures.device)
    weights = enlarged(warp.weights, side)
    out = weights.new_zeros(len(weights), 3, side // 2, side)
    for k in range(warp.flow.shape[1]):
        source, flow = pictures[warp.indices[:, k]].float(), enlarged(warp.flow[:, k], side)
        out = out + weights[:, k : k + 1] * _looked_up(source, flow, line, line[side // 2 :], "bilinear")
    return out


def compose_part(
    warp: Warp,
    pictures: Tensor,
    cells: Cells,
    *,
    own: Tensor | None = None,
    gains: Tensor | None = None,
) -> Tensor:
    """A part of the same for the eye: cubics look between pixels, which keeps detail; no gradients.

    For accelerators; `dub.composition.compose_face` does the same on the CPU.

    Args:
        warp: of N faces.
        pictures: as for `compose`; D is a multiple of the fields' width.
        cells: the part.
        own: (N, 3, D, D), where the last reference of each face is a picture of its own.
        gains: (N, K, 3) that bring the pictures to the light of each face; None = 1.

    Returns:
        (N, 3, height, width) float32 in [0, 1], the part of what `compose` returns.
    """
    side, across = pictures.shape[-1], warp.flow.shape[-1]
    line, times = _line(side, pictures.device), side // across
    flows = warp.flow.contiguous()  # from channels last, where two channels are enlarged three times as slowly
    weights = _enlarged_part(warp.weights, side, cells, across)
    out = weights.new_zeros(len(weights), 3, *weights.shape[2:])
    rows, columns = cells.times(times)
    for k in range(warp.flow.shape[1]):
        source = own if own is not None and k == warp.indices.shape[1] else pictures[warp.indices[:, k]]
        flow = _enlarged_part(flows[:, k], side, cells, across)
        picture = _looked_up(source.float(), flow, line[columns], line[side // 2 :][rows], "bicubic")
        if gains is not None and k < gains.shape[1]:
            picture = picture * gains[:, k, :, None, None]
        out += weights[:, k : k + 1] * picture
    return out.clamp(0, 1)  # cubics overshoot


def _line(side: int, device: torch.device) -> Tensor:
    """Middles of `side` pixels in [-1, 1]."""
    return (2 * torch.arange(side, device=device, dtype=torch.float32) + 1) / side - 1


def _looked_up(source: Tensor, flow: Tensor, x: Tensor, y: Tensor, mode: str) -> Tensor:
    """Colours (N, 3, h, w) of pictures (N, 3, D, D), `flow` (N, 2, h, w) away from x (w,), y (h,)."""
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1) + 2 * flow.permute(0, 2, 3, 1)
    return F.grid_sample(source, grid, mode=mode, padding_mode="border", align_corners=False)


def _enlarged_part(halves: Tensor, side: int, cells: Cells, across: int) -> Tensor:
    """Those pixels of `enlarged(halves, side)` that lie in `cells`, of which there are `across` in a row."""
    rows, columns = cells.times(halves.shape[-1] // across)
    top, left = max(0, rows.start - 1), max(0, columns.start - 1)  # a neighbour on each side, which pixels lean on
    part = halves[..., top : rows.stop + 1, left : columns.stop + 1].float()
    if (times := side // halves.shape[-1]) > 1:
        part = F.interpolate(part, scale_factor=times, mode="bilinear", align_corners=False)
    down, right = times * (rows.start - top), times * (columns.start - left)
    height, width = times * (rows.stop - rows.start), times * (columns.stop - columns.start)
    return part[..., down : down + height, right : right + width]


def enlarged(halves: Tensor, side: int) -> Tensor:
    """Lower halves (N, C, h, 2 h) brought to (N, C, side / 2, side), float32."""
    x = halves.float()
    if x.shape[-1] == side:
        return x
    return F.interpolate(x, size=(side // 2, side), mode="bilinear", align_corners=False)
