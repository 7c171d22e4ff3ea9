"""Mouths drawn open: references for people whose mouth is closed, or stands a little open, all through the video.

Fields that bend a picture are smooth. They cannot part lips that touch in every reference, they stretch them, and they
stretch the teeth of a smile. So the lower lip is cut from the upper one along the line where they meet, moved down with
the jaw, and the gap between them filled with upper teeth, tongue and dark in the colours of the face. Lips that all but
touch are cut at their own edges. Where teeth show already, they stay as they are: the lower lip is cut from them, and
only tongue and dark are drawn below. The generator bends the result to every opening, as it does with any reference.

Everything is measured in the mouth's own coordinates, in mouth widths: u runs along the mouth from its left corner in
the picture (0) to its right one (1), v across it, downwards. An opening of 0.5 is about the widest in speech.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from lipdub.affine import transform
from lipdub.faces.backend import LUMA
from lipdub.faces.mouth_shape import OPENINGS, mouth_shape

Field = NDArray[np.floating[Any]]

# iBUG points
UPPER_INNER, LOWER_INNER = [60, 61, 62, 63, 64], [60, 67, 66, 65, 64]  # from corner to corner
UPPER_LIP, LOWER_JAW = [*range(49, 54), 61, 62, 63], [*range(55, 60), 65, 66, 67, *range(3, 14)]  # what moves
NOSE_TOP, NOSE_BASE, CHIN, LOWER_EDGE = 27, 33, 8, 57

MIN_WIDTH = 0.05  # crop sides: a narrower mouth is seen from its side
CLOSED_BELOW, SPEAKING = 0.1, 0.06  # eye distances: openings of closed mouths are below the first; a range of speech
WIDE_FROM = 0.25  # eye distances: a mouth that always stands this wide shows enough of its inside
UPPER_SHARE, CHIN_SHARE = 0.12, 0.9  # of an opening: how far the upper lip rises and the chin sinks, as in speech
UPPER_REACH, LOWER_REACH = (0.1, 0.45), (1.05, 1.95)  # from the seam, upwards, and downwards in distances of the chin:
# all moves with the lips up to the first, nothing from the second on
SIDE, SIDE_AT_CHIN = 0.5, 1.15  # half the width of what sinks with the lower lip, and with the chin
SEAM_REACH, SEAM_PULL, SEAM_BEND = 0.06, 60.0, 8.0  # how far the seam may be from the landmarks, and costs in levels
SEAM_PARTED = 0.1  # a gap by landmarks from which on there is no seam
SLOPE_BLUR = 0.72  # variance in pixels that measuring a slope adds to a blur
FIELD_STEP = 4  # pixels between the places where the movement is computed
ITERATIONS = 12  # that invert it

DARK, TONGUE = np.array([0.26, 0.14, 0.14]), np.array([0.62, 0.42, 0.42])  # RGB, times the colour of the lips
BLACK = np.array([0.75, 0.5, 0.5])  # what the dark is at least, times the darkest grey of nose and mouth
IVORY, NEUTRAL = np.array([0.97, 0.94, 0.88]), 0.6  # times the colour of the skin; how much of its tint teeth lose
COLOURED = 0.15  # least difference of the lips' channels, over the largest, of a picture in colour
BRIGHTEST = 225.0  # of the teeth's channels before shading
TOOTH_GAPS = np.array([-0.42, -0.335, -0.255, -0.165, 0, 0.165, 0.255, 0.335, 0.42])  # from the midline
TOOTH_LENGTH, TOOTH_BOW = 0.165, 0.09  # of the middle ones; by how much less the outermost reach down
TONGUE_SIZE, TONGUE_FROM = (0.24, 0.22), 0.35  # half its width, its height; opening from which on all of it shows
LIP_SHADOW = 0.18  # light that lips take from what is right behind them
TEETH_SIDE = 0.4  # from the midline, where teeth vanish in the dark of the cheek


def is_closed(shapes: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which of the mouths (N,) of shapes (N, 8) as of `mouth_shape` are closed."""
    return shapes[:, OPENINGS].mean(1) < CLOSED_BELOW


def never_opens(shapes: NDArray[np.floating]) -> bool:
    """Whether the mouths (N, 8) of one person are closed or a little parted, and do not move as in speech."""
    openings = shapes[:, OPENINGS].mean(1)
    return bool(openings.max() < WIDE_FROM and np.ptp(openings) < SPEAKING)


def opened(
    crop: NDArray[np.uint8], landmarks: NDArray[np.floating], openings: Sequence[float]
) -> list[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """A face with closed or parted lips, its mouth drawn open by several amounts.

    Args:
        crop: (S, S, 3) RGB, an upright face.
        landmarks: (68, 2) crop pixels.
        openings: by how much the gap grows in the middle of the mouth, in mouth widths.

    Returns:
        For each opening, picture and landmarks (68, 2) of the same face with an open mouth; as they are where a mouth
        is seen from its side.
    """
    ends = np.asarray(landmarks)[[UPPER_INNER[0], UPPER_INNER[-1]]]
    if np.hypot(*(ends[1] - ends[0])) < MIN_WIDTH * len(crop):
        return [(crop, np.asarray(landmarks, np.float32))] * len(openings)
    mouth = _Mouth(crop, landmarks)
    return [mouth.opened(opening) for opening in openings]


class _Mouth:
    """A mouth in its own coordinates; arguments as for `opened`."""

    def __init__(self, crop: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> None:
        left, right = np.asarray(landmarks, np.float64)[[UPPER_INNER[0], UPPER_INNER[-1]]]
        self.width = float(np.hypot(*(right - left)))
        x, y = (right - left) / self.width**2
        turn = np.array([[x, y], [-y, x]])
        self._to_mouth = np.hstack([turn, -turn @ left[:, None]])
        self._to_crop = np.asarray(cv2.invertAffineTransform(self._to_mouth), np.float64)
        self.points = transform(np.asarray(landmarks, np.float64), self._to_mouth)
        self.crop, grey = crop, np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), np.uint8)
        self.u, self.v = self._grid(1)
        self.blur = min(blur_of(grey), 0.06 * self.width)
        upper, lower = self.points[UPPER_INNER], self.points[LOWER_INNER]
        self._shows_inside = not is_closed(mouth_shape(np.asarray(landmarks, np.float32)[None]))[0]
        if self._shows_inside:  # what shows is part of the upper lip, and the seam is where the lower one begins
            self._upper_share, self._parted = 0.0, np.zeros(len(lower))
            self._inner_u = self._seam_u = np.maximum.accumulate(lower[:, 0])
            self._seam_v = lower[:, 1]
        else:
            self._upper_share, self._parted = UPPER_SHARE, np.clip(lower[:, 1] - upper[:, 1], 0, None)  # by landmarks
            self._inner_u = np.maximum.accumulate((upper + lower)[:, 0] / 2)
            self._seam_u, self._seam_v = self._find_seam(grey, (upper + lower)[:, 1] / 2)
        self.dark, self.tongue, self.teeth = self._colours(grey)

    def seam(self, u: Field) -> Field:
        """Where the lips meet: v at u, which is kept to [0, 1]."""
        return np.interp(u, self._seam_u, self._seam_v)

    def opened(self, opening: float) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Picture and landmarks with an opening in mouth widths."""
        upper, lower = self._edges(self.u, opening)
        below = _step((self.v - (upper + lower) / 2) * self.width)[..., None]
        lips = (1 - below) * self._shift(self._upper_lift, opening) + below * self._shift(self._lower_sink, opening)
        gap = _step((self.v - upper) * self.width) * _step((lower - self.v) * self.width)
        between = cv2.GaussianBlur(gap * ((self.u > 0) & (self.u < 1)), (0, 0), self.blur)
        inside = cv2.GaussianBlur(self._inside(upper, lower, opening), (0, 0), self.blur)
        picture = lips + between[..., None] * (inside - lips)
        points = self.points.copy()
        for which, moves in ((UPPER_LIP, self._upper_lift), (LOWER_JAW, self._lower_sink)):
            points[which, 1] += opening * moves(*points[which].T)
        return np.clip(picture + 0.5, 0, 255).astype(np.uint8), transform(points, self._to_crop).astype(np.float32)

    def _edges(self, u: Field, opening: float) -> tuple[Field, Field]:
        """The inner edges of both lips, v at u."""
        seam, apart, height = self.seam(u), np.interp(u, self._inner_u, self._parted) / 2, opening * _gap_shape(u)
        return seam - apart - self._upper_share * height, seam + apart + (1 - self._upper_share) * height

    def _grid(self, step: int) -> tuple[Field, Field]:
        """Coordinates u and v, float32, of every `step`-th pixel of the crop."""
        size = -(-len(self.crop) // step)
        pixels = np.arange(size, dtype=np.float32) * step + (step - 1) / 2
        x, y = np.meshgrid(pixels, pixels)
        u, v = (np.float32(a) * x + np.float32(b) * y + np.float32(c) for a, b, c in self._to_mouth)
        return u, v

    def _upper_lift(self, u: Field, v: Field) -> Field:
        """By how many openings a point above the seam sinks: a negative number."""
        return -self._upper_share * _gap_shape(u) * _fall(self.seam(u) - v, UPPER_REACH)

    def _lower_sink(self, u: Field, v: Field) -> Field:
        """By how many openings a point below the seam sinks."""
        down = (v - self.seam(u)) / max(float(self.points[CHIN, 1]), 0.3)  # 1 at the chin
        chin = _rise(down)
        across = 1 - (np.abs(u - 0.5) / (SIDE + (SIDE_AT_CHIN - SIDE) * chin)) ** 2.5
        amount = 1 - self._upper_share + (CHIN_SHARE - 1 + self._upper_share) * chin
        return amount * np.clip(across, 0, None) * _fall(down, LOWER_REACH)

    def _shift(self, movement: Callable[[Field, Field], Field], opening: float) -> NDArray[np.float32]:
        """The crop, each point moved down by `movement` openings; what a pixel shows is found by iteration."""
        u, there = self._grid(FIELD_STEP)
        v = there
        for _ in range(ITERATIONS):
            v = there - opening * movement(u, v)
        size = FIELD_STEP * len(v)
        away = cv2.resize((v - there).astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
        v = self.v + away[: len(self.crop), : len(self.crop)]
        x, y = (np.float32(a) * self.u + np.float32(b) * v + np.float32(c) for a, b, c in self._to_crop)
        shifted = cv2.remap(self.crop, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return shifted.astype(np.float32)

    def _inside(self, upper: Field, lower: Field, opening: float) -> NDArray[np.float32]:
        """(S, S, 3) in [0, 255] what is seen between the lines `upper` and `lower` of the lips (elsewhere undefined).

        Dark; on it a tongue that lies behind the lower lip; before both the upper teeth, which the jaw does not move.
        """
        inside = np.broadcast_to(self.dark, self.crop.shape).astype(np.float32)
        layers = [self._tongue(lower, opening)]
        if not self._shows_inside:
            layers.append(self._teeth(upper, opening))
        for opacity, colour in layers:
            inside += opacity[..., None] * (colour - inside)
        depth = np.clip(np.minimum(self.v - upper, lower - self.v), 0, None)
        inside *= (1 - LIP_SHADOW * _fall(depth, (0, 0.05)))[..., None]
        return inside

    def _tongue(self, lower: Field, opening: float) -> tuple[Field, Field]:
        """Opacity (S, S) of a tongue behind the lower lip, whose inner edge is `lower`, and its colour (3,)."""
        middle = float(self.points[LOWER_INNER[2], 0])
        above = np.clip(lower - self.v, 0, None)
        lying = np.exp(-(((self.u - middle) / TONGUE_SIZE[0]) ** 4) - (above / TONGUE_SIZE[1]) ** 2)
        return 0.8 * min(1.0, opening / TONGUE_FROM) * lying, self.tongue

    def _teeth(self, upper: Field, opening: float) -> tuple[Field, Field]:
        """Opacity (S, S) of the upper teeth behind the upper lip, whose inner edge is `upper`; colours (S, S, 3)."""
        midline = float(np.clip(self.points[UPPER_INNER[2], 0], 0.2, 0.8))  # not 0.5 where a head is turned
        place = (self.u - midline) / (2 * np.where(self.u < midline, midline, 1 - midline))
        tooth = np.clip(np.digitize(place, TOOTH_GAPS) - 1, 0, len(TOOTH_GAPS) - 2)
        wide = np.diff(TOOTH_GAPS)[tooth]
        across = (place - TOOTH_GAPS[tooth]) / wide  # 0 to 1 over each tooth
        aside = np.clip(np.abs(place) / TEETH_SIDE, 0, 1.2)
        root, bottom = (float(edge) for edge in self._edges(np.array(midline), opening))
        length = min(TOOTH_LENGTH, 0.6 * (bottom - root))
        edge = root + length * (1 - TOOTH_BOW / TOOTH_LENGTH * aside**2 - 0.12 * np.abs(2 * across - 1) ** 3)
        light = (1 - 0.64 * aside**2) * (0.62 + 0.38 * _rise((self.v - upper) / (0.45 * length)))
        light *= 1 - 0.22 * np.exp(-((np.minimum(across, 1 - across) * wide / 0.012) ** 2))  # between two teeth
        shown = _step((edge - self.v) * self.width) * _fall(aside, (0.73, 1.08))
        return shown, np.clip(light, 0, None)[..., None] * self.teeth

    def _find_seam(self, grey: NDArray[np.uint8], middle: Field) -> tuple[Field, Field]:
        """The line between the lips, u and v: the darkest smooth path near the middle of the inner lips' landmarks.

        `middle` is (5,) v of that; where the lips are parted, it is the line.
        """
        u = np.linspace(0.08, 0.92, 29)
        rough = np.interp(u, self._inner_u, middle)
        offsets = np.linspace(-SEAM_REACH, SEAM_REACH, 25) * np.clip(1 - self._parted[2] / SEAM_PARTED, 0, 1)
        places = np.stack(np.broadcast_arrays(u[:, None], rough[:, None] + offsets), -1)
        x, y = np.moveaxis(transform(places.reshape(-1, 2), self._to_crop).reshape(places.shape), -1, 0)
        smooth = cv2.GaussianBlur(grey, (0, 0), max(0.5, 0.01 * self.width))
        x, y = x.astype(np.float32), y.astype(np.float32)
        seen = cv2.remap(smooth, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        path = _cheapest_path(seen + SEAM_PULL * np.linspace(-1, 1, len(offsets)) ** 2, SEAM_BEND)
        v = uniform_filter1d(rough + offsets[path], 5, mode="nearest")
        return np.array([0, *u, 1]), np.array([middle[0], *v, middle[-1]])

    def _colours(self, grey: NDArray[np.uint8]) -> tuple[Field, Field, Field]:
        """Colours (3,) of the dark, of the tongue and of teeth in the light of the skin; grey where the lips are."""
        middle = (self.u > 0.15) & (self.u < 0.85)
        lip = max(float(self.points[LOWER_EDGE, 1] - self.points[LOWER_INNER[2], 1]), 0.03)
        from_seam, from_lip = self.v - self.seam(self.u), self.v - self.points[LOWER_EDGE, 1]
        nose = float(self.points[NOSE_BASE, 1])  # negative
        around = (np.abs(self.u - 0.5) < 0.5) & (self.v > 0.9 * nose) & (self.v < 0.4 * nose)
        lips = self._median(middle & (from_seam > 0.25 * lip) & (from_seam < 0.8 * lip))
        skin = self._median(around | (middle & (from_lip > 0.08) & (from_lip < 0.25)))
        face = (np.abs(self.u - 0.5) < 0.7) & (self.v > self.points[NOSE_TOP, 1]) & (self.v < self.points[CHIN, 1])
        black = float(np.percentile(grey[face], 0.5)) if face.any() else 0.0
        coloured = min(1.0, float(np.ptp(lips) / max(lips.max(), 1.0)) / COLOURED)
        dark, blackest, tongue, ivory = (
            colour @ LUMA + coloured * (colour - colour @ LUMA) for colour in (DARK, BLACK, TONGUE, IVORY)
        )
        teeth = ivory * (skin + NEUTRAL * (skin @ LUMA - skin))
        teeth *= min(1.0, BRIGHTEST / max(teeth.max(), 1e-6))
        return np.maximum(dark * lips, blackest * black), tongue * lips, teeth

    def _median(self, where: NDArray[np.bool_]) -> Field:
        """Colour (3,) of a part of the crop; of all of it where there is no such part."""
        seen = self.crop[where] if where.any() else self.crop.reshape(-1, 3)
        return np.median(seen, 0)


def blur_of(grey: NDArray[np.uint8]) -> float:
    """Standard deviation, in pixels, of the blur of a picture's sharpest edges (Zhuo and Sim 2011), at least 0.5.

    An edge that was blurred by s is flatter by sqrt(1 + 1 / s^2) when it is blurred by 1 once more.
    """
    picture = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 0.5)
    slope, flatter = (
        cv2.magnitude(cv2.Sobel(each, cv2.CV_32F, 1, 0), cv2.Sobel(each, cv2.CV_32F, 0, 1))
        for each in (picture, cv2.GaussianBlur(picture, (0, 0), 1.0))
    )
    edges = slope >= np.percentile(slope, 98)
    ratio = float(np.percentile(slope[edges] / np.maximum(flatter[edges], 1e-6), 60))
    return float(np.sqrt(max(1 / max(ratio**2 - 1, 1e-3) - SLOPE_BLUR, 0.25)))


def _gap_shape(u: Field) -> Field:
    """Height of the gap between the lips over its height in the middle."""
    return 1 - np.clip(np.abs(2 * u - 1), 0, 1) ** 2.3


def _step(pixels: Field) -> Field:
    """From 0 to 1 over the pixel around 0."""
    return np.clip(pixels + 0.5, 0, 1)


def _rise(x: Field) -> Field:
    """Smooth from 0 at 0 to 1 at 1."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _fall(x: Field, bounds: tuple[float, float]) -> Field:
    """Smooth from 1 at the first of the bounds to 0 at the second."""
    return 1 - _rise((x - bounds[0]) / (bounds[1] - bounds[0]))


def _cheapest_path(cost: Field, step: float) -> list[int]:
    """A column for each row of `cost`, least in the sum of costs, with `step` for each column of change."""
    columns = np.arange(cost.shape[1])
    change = step * np.abs(columns[:, None] - columns)
    best, origins = cost[0], []
    for row in cost[1:]:
        total = best + change
        origins.append(total.argmin(1))
        best = row + total.min(1)
    path = [int(best.argmin())]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return path[::-1]
