"""Synthetic objects in front of faces: what the occlusion network is trained on.

An object is a picture with an opacity, both of a crop's size. Coordinates are crop sides; y points down. Faces are
aligned, so objects are aimed at the mouth, from any border.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.faces.backend import Frame

Image = NDArray[np.float32]  # (S, S, 3) in [0, 255]
Alpha = NDArray[np.float32]  # (S, S) in [0, 1]

MOUTH = (0.5, 0.66)  # in the crop
SKIN_ROWS, SKIN_COLUMNS = (0.40, 0.52), (0.30, 0.70)  # of the crop: cheeks and nose
SLEEVE = 0.35  # share of hands whose arm is clothed
FONTS = (0, 1, 2, 3, 4, 5, 6, 7)  # cv2.FONT_HERSHEY_*


@dataclass(frozen=True)
class Occluder:
    """An object in front of a face."""

    picture: Image
    alpha: Alpha
    may_stay: bool = False  # whether it may be before a face for a whole video

    def over(self, face: Image, opacity: float = 1.0) -> Image:
        """The face (S, S, 3) behind it."""
        alpha = opacity * self.alpha[..., None]
        return np.asarray(face + alpha * (self.picture - face), np.float32)

    def shadow(self, face: Image, rng: np.random.Generator) -> Image:
        """The face (S, S, 3) with the soft shadow that the object throws on it."""
        side = len(face)
        dx, dy = rng.normal(0, 0.03, 2) * side
        moved = cv2.warpAffine(self.alpha, np.array([[1, 0, dx], [0, 1, dy]]), (side, side))
        dark = cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.01, 0.06) * side)
        return np.asarray(face * (1 - rng.uniform(0, 0.6) * dark[..., None]), np.float32)

    def shifted(self, dx: float, dy: float) -> Occluder:
        """The same elsewhere."""
        matrix, size = np.array([[1, 0, dx], [0, 1, dy]]) * [[1, 1, len(self.alpha)]], self.alpha.shape[::-1]
        picture, alpha = (
            np.asarray(cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REPLICATE), np.float32)
            for image in (self.picture, self.alpha)
        )
        return Occluder(picture, alpha, self.may_stay)


def sample_occluder(face: Frame, other: Frame, rng: np.random.Generator) -> Occluder:
    """A random object for the crop `face` (S, S, 3), whose skin hands have.

    `other` is any other crop of this size, for skins and textures.
    """
    kinds: tuple[tuple[float, Callable[[Frame, Frame, np.random.Generator], Occluder]], ...] = (
        (0.45, hand),
        (0.13, microphone),
        (0.14, thing),
        (0.16, letters),
        (0.12, blob),
    )
    shares, makers = zip(*kinds, strict=True)
    maker = makers[int(rng.choice(len(makers), p=shares))]
    made = _blurred(maker(face, other, rng), rng)
    return Occluder(made.picture, made.alpha, may_stay=maker in (hand, microphone, letters))


def hand(face: Frame, other: Frame, rng: np.random.Generator) -> Occluder:
    """A hand: an arm, a palm and up to five fingers, from a border to the mouth, skin like the face's."""
    side = len(face)
    canvas = _Shaded(side, *_skin(face, other, rng), rng)
    width = rng.uniform(0.045, 0.1)
    towards = rng.normal(-np.pi / 2, 1.0)  # pointing up, mostly
    along, across = _direction(towards), _direction(towards + np.pi / 2)
    tip = np.array(MOUTH) + rng.normal(0, (0.2, 0.14))
    reach = width * rng.uniform(3.2, 5.5)
    knuckles = tip - along * reach
    wrist = knuckles - along * width * rng.uniform(3.5, 4.5)
    elbow = wrist - along * 2 + across * rng.normal(0, 0.4)
    palm = width * rng.uniform(1.7, 2.2)
    cloth = rng.uniform(0, 255, 3) * rng.uniform(0.1, 1) if rng.random() < SLEEVE else None
    arm = palm * rng.uniform(0.7, 0.9)
    canvas.capsule(wrist, elbow, arm, arm * 1.3)
    if cloth is not None:
        cuff = wrist - along * rng.uniform(0, 0.15)
        canvas.capsule(cuff, elbow, arm * 1.15, arm * 1.5, colour=cloth)
    canvas.capsule(knuckles, wrist + along * palm * 0.5, palm, palm * 0.85)
    n_fingers = int(rng.choice([1, 2, 3, 4], p=[0.2, 0.25, 0.15, 0.4]))
    spread = rng.uniform(-0.05, 0.2)
    first = int(rng.integers(0, 5 - n_fingers))
    nails = rng.random() < 0.5
    for finger in rng.permutation(4):
        at = finger - 1.5
        base = knuckles + across * at * 1.05 * width + along * 0.6 * width
        stretched = first <= finger < first + n_fingers
        length = reach * (1 - 0.06 * at**2) if stretched else width * rng.uniform(0.3, 1.2)
        angle = towards + at * spread + rng.normal(0, 0.04)
        middle = base + _direction(angle) * length * 0.5
        end = middle + _direction(angle + rng.normal(0, 0.15)) * length * 0.5
        canvas.capsule(base, middle, width * 0.54, width * 0.5)
        canvas.capsule(middle, end, width * 0.5, width * rng.uniform(0.38, 0.48))
        if nails and stretched:
            canvas.nail(end, angle, width * 0.3)
    if rng.random() < 0.7:
        hand_side = rng.choice([-1, 1])
        base = wrist + along * 0.8 * width + across * hand_side * palm * 0.7
        angle = towards + hand_side * rng.uniform(-0.2, 1.0)
        middle = base + _direction(angle) * width * 1.6
        end = middle + _direction(angle - hand_side * rng.uniform(0, 0.5)) * width * 1.5
        canvas.capsule(base, middle, width * 0.75, width * 0.58)
        canvas.capsule(middle, end, width * 0.55, width * 0.45)
    return canvas.done()


def microphone(face: Frame, other: Frame, rng: np.random.Generator) -> Occluder:
    """A foam ball, a grille or a capsule on a handle, a stand or a thin boom."""
    side = len(face)
    colour = _dark_or_any(rng)
    canvas = _Shaded(side, colour, None, rng)
    head = np.array(MOUTH) + rng.normal(0, (0.2, 0.13))
    along = _direction(rng.normal(np.pi / 2, 0.8))  # away from the mouth, downwards mostly
    boom = rng.random() < 0.25
    radius = rng.uniform(0.02, 0.06) if boom else rng.uniform(0.06, 0.2)
    handle = rng.uniform(0.008, 0.02) if boom else radius * rng.uniform(0.25, 0.8)
    canvas.capsule(head, head + along * 2, handle, handle * rng.uniform(0.7, 1.1), colour=_dark_or_any(rng))
    if rng.random() < 0.3 and not boom:
        canvas.capsule(head + along * radius, head + along * radius * 1.3, radius * 1.02, radius, colour=_any(rng))
    canvas.capsule(head, head + along * radius * rng.uniform(0, 1.2), radius, radius * rng.uniform(0.6, 1))
    made = canvas.done()
    step = rng.uniform(0.015, 0.04) * side
    y, x = np.mgrid[:side, :side]
    mesh = np.sin(2 * np.pi * (x + y) / step) * np.sin(2 * np.pi * (x - y) / step)
    rough = rng.normal(0, 1, (side, side))
    texture = rng.uniform(0, 0.25) * (mesh if rng.random() < 0.5 else rough)
    picture = np.clip(made.picture * (1 + texture[..., None]), 0, 255)
    return Occluder(picture.astype(np.float32), made.alpha)


def thing(face: Frame, other: Frame, rng: np.random.Generator) -> Occluder:
    """A cup, a telephone, a sheet of paper, a book: a quadrilateral, plain, shaded or printed."""
    side = len(face)
    height, width = rng.uniform(0.15, 0.6, 2)
    angle, taper = rng.normal(0, 0.4), rng.uniform(0.7, 1.1)
    corners = np.array([(-1, -1), (1, -1), (taper, 1), (-taper, 1)]) * (width / 2, height / 2)
    turn = np.stack([_direction(angle), _direction(angle + np.pi / 2)])
    edge = rng.uniform(-0.5, 0.5) * height  # how far its upper edge is from the mouth
    centre = np.array(MOUTH) + rng.normal((0, 0.1), (0.2, 0.12)) + np.array([0, edge])
    alpha = _polygon(corners @ turn + centre, side)
    if rng.random() < 0.3:
        alpha = _rounded(alpha, side)
    y, x = np.mgrid[:side, :side] / side - centre[:, None, None][::-1]
    across = x * turn[0, 0] + y * turn[0, 1]
    picture = np.tile(_any(rng), (side, side, 1))
    if rng.random() < 0.4:
        picture = _texture(other, rng)
    if rng.random() < 0.5:  # round, with a highlight
        profile = np.sqrt(np.clip(1 - (across / (0.55 * width)) ** 2, 0.05, 1))
        shine = np.exp(-(((across / width - rng.uniform(-0.3, 0.3)) / 0.08) ** 2)) * rng.uniform(0, 60)
        picture = picture * profile[..., None] + shine[..., None]
    if rng.random() < 0.4:
        ink, _ = _text(side, rng, scale=(0.3, 0.8))
        picture = np.where(ink[..., None] > 0, _any(rng), picture)
    return Occluder(np.clip(picture, 0, 255).astype(np.float32), alpha)


def letters(face: Frame, other: Frame, rng: np.random.Generator) -> Occluder:
    """A caption of any colour across the lower face, with an outline, a box or nothing behind it."""
    side = len(face)
    ink, where = _text(side, rng)
    colour = _any(rng) if rng.random() < 0.5 else np.full(3, float(rng.choice([0, 10, 235, 255])))
    behind = np.full(3, 255.0 if colour.mean() < 110 else 0.0) if rng.random() < 0.8 else _any(rng)
    picture, alpha, style = np.tile(behind, (side, side, 1)), np.zeros((side, side), np.float32), rng.random()
    if style < 0.5:
        width = int(rng.integers(1, 3)) * 2 + 1
        alpha = np.maximum(alpha, cv2.dilate(ink, np.ones((width, width), np.uint8)))
    elif style < 0.7:
        top, bottom = where
        alpha[top:bottom] = rng.uniform(0.5, 1)
    picture = picture + ink[..., None] * (colour - picture)
    return Occluder(picture.astype(np.float32), np.maximum(alpha, ink).astype(np.float32))


def blob(face: Frame, other: Frame, rng: np.random.Generator) -> Occluder:
    """A smooth random shape with the texture of another picture, or plain: cloth, scarves, masks, heads."""
    side = len(face)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = rng.uniform(0.08, 0.3) * np.ones(40)
    for wave in range(1, 5):
        radius *= 1 + rng.normal(0, 0.3 / wave) * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
    centre = np.array(MOUTH) + rng.normal(0, 0.2, 2)
    outline = centre + radius[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(0.6, 1.6, 2)
    picture = _texture(other, rng) if rng.random() < 0.7 else np.tile(_any(rng), (side, side, 1))
    return Occluder(picture.astype(np.float32), _polygon(outline, side))


class _Shaded:
    """Capsules drawn one over another, lit from one side, darker where one lies on another."""

    def __init__(self, side: int, colour: NDArray[np.floating], albedo: Image | None, rng: np.random.Generator) -> None:
        self._side, self._colour, self._rng = side, colour, rng
        self._albedo = np.ones((side, side, 1), np.float32) if albedo is None else albedo
        self._picture = np.tile(colour, (side, side, 1)).astype(np.float32)
        self._alpha = np.zeros((side, side), np.float32)
        y, x = np.mgrid[:side, :side]
        self._at = ((np.stack([x, y], -1) + 0.5) / side).astype(np.float32)
        light = rng.normal(0, 0.6, 2)
        self._light = np.append(light, 1.0) / np.sqrt(1 + (light**2).sum())
        self._contrast = rng.uniform(0.2, 0.75)
        self._crease = rng.uniform(0.1, 0.5)

    def capsule(
        self,
        start: NDArray[np.floating],
        end: NDArray[np.floating],
        first: float,
        last: float,
        colour: NDArray[np.floating] | None = None,
    ) -> None:
        """From radius `first` at `start` to `last` at `end`."""
        line = end - start
        away = self._at - start.astype(np.float32)
        share = np.clip(away @ line.astype(np.float32) / max(1e-6, float(line @ line)), 0, 1)
        offset = away - share[..., None] * line.astype(np.float32)
        radius = first + share * (last - first)
        distance = np.sqrt((offset**2).sum(-1))
        inside = np.clip((radius - distance) * self._side + 0.5, 0, 1)
        if not inside.any():
            return
        near = np.clip(1 - (distance - radius) * self._side / 3, 0, 1)
        self._picture *= (1 - self._crease * near)[..., None]
        normal = offset / np.maximum(radius, 1e-6)[..., None]
        height = np.sqrt(np.clip(1 - (normal**2).sum(-1), 0, 1))
        lit = np.clip(normal @ self._light[:2].astype(np.float32) + height * self._light[2], 0, 1)
        shade = (1 - self._contrast + self._contrast * lit)[..., None]
        paint = shade * (self._colour * self._albedo if colour is None else colour)
        self._picture = (self._picture + inside[..., None] * (paint - self._picture)).astype(np.float32)
        self._alpha = np.maximum(self._alpha, inside)

    def nail(self, tip: NDArray[np.floating], angle: float, size: float) -> None:
        """A lighter oval near a finger's tip."""
        ink = np.zeros((self._side, self._side), np.uint8)
        centre = (tip * self._side).round().astype(int).tolist()
        axes = (max(1, round(size * self._side * 1.2)), max(1, round(size * self._side * 0.8)))
        cv2.ellipse(ink, centre, axes, float(np.degrees(angle)), 0, 360, (255,), -1, cv2.LINE_AA)
        pink = np.clip(self._colour * 1.15 + 15, 0, 255)
        covered = (0.6 / 255 * ink * self._alpha)[..., None]
        self._picture = (self._picture + covered * (pink - self._picture)).astype(np.float32)

    def done(self) -> Occluder:
        """What was drawn."""
        return Occluder(np.clip(self._picture, 0, 255).astype(np.float32), self._alpha.astype(np.float32))


def _skin(face: Frame, other: Frame, rng: np.random.Generator) -> tuple[NDArray[np.floating], Image]:
    """Colour (3,) and relative texture (S, S, 3) of a hand: the face's own skin in other light, at times another's."""
    whose = other if rng.random() < 0.25 else face
    rows, columns = (slice(round(a * len(face)), round(b * len(face))) for a, b in (SKIN_ROWS, SKIN_COLUMNS))
    colour = np.median(whose[rows, columns].reshape(-1, 3), 0)
    colour = np.clip(colour * np.exp(rng.normal(0.05, 0.18) + rng.normal(0, 0.05, 3)), 8, 255)
    grain = cv2.GaussianBlur(rng.normal(0, 1, face.shape).mean(2, keepdims=True), (0, 0), rng.uniform(0.7, 4))
    texture = 1 + rng.uniform(0, 0.25) * np.atleast_3d(grain)
    if rng.random() < 0.4:
        patch = cv2.resize(whose[rows, columns], face.shape[1::-1]).astype(np.float32)
        texture = texture * patch / np.maximum(patch.reshape(-1, 3).mean(0), 1)
    return colour, np.asarray(texture, np.float32)


def _texture(other: Frame, rng: np.random.Generator) -> NDArray[np.floating]:
    """Part of another picture, turned, enlarged and tinted."""
    side = len(other)
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(0, 360), rng.uniform(0.8, 3))
    matrix = matrix + np.column_stack([np.zeros((2, 2)), rng.normal(0, 0.3, 2) * side])
    part = cv2.warpAffine(other, matrix, (side, side), borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)
    return np.asarray(np.clip(part * np.exp(rng.normal(0, 0.3) + rng.normal(0, 0.1, 3)), 0, 255))


def _text(
    side: int, rng: np.random.Generator, scale: tuple[float, float] = (0.35, 1.3)
) -> tuple[NDArray[np.float32], tuple[int, int]]:
    """One or two lines of random letters (S, S) in [0, 1], and the rows between which they lie."""
    ink = np.zeros((side, side), np.uint8)
    size = rng.uniform(*scale) * side / 96
    thickness = int(rng.integers(1, max(2, round(3 * size)) + 1))
    font, row = int(rng.choice(FONTS)), round(rng.uniform(0.5, 0.98) * side)
    height = round(22 * size) + thickness
    alphabet = list(string.ascii_uppercase if rng.random() < 0.5 else string.ascii_letters + "  ,.'!?")
    first, last = row - height, row + round(8 * size)
    for line in range(int(rng.integers(1, 3))):
        words = "".join(rng.choice(alphabet, int(rng.integers(3, 30))))
        at = (round(rng.uniform(-0.3, 0.4) * side), row + round(1.4 * line * height))
        cv2.putText(ink, words, at, font, size, (255,), thickness, cv2.LINE_AA)
        last = at[1] + round(8 * size)
    return (ink / 255).astype(np.float32), (max(0, first), max(0, last))


def _polygon(points: NDArray[np.floating], side: int) -> Alpha:
    """(S, S) in [0, 1] of a polygon (N, 2)."""
    ink = np.zeros((side, side), np.uint8)
    cv2.fillPoly(ink, [np.rint(points * side * 16).astype(np.int32)], (255,), cv2.LINE_AA, 4)
    return (ink / 255).astype(np.float32)


def _rounded(alpha: Alpha, side: int) -> Alpha:
    soft = cv2.GaussianBlur(alpha, (0, 0), 0.04 * side)
    return np.asarray(np.clip((soft - 0.5) * 12 + 0.5, 0, 1), np.float32)


def _blurred(made: Occluder, rng: np.random.Generator) -> Occluder:
    """The object out of focus, or moving."""
    side, kind = len(made.alpha), rng.random()
    if kind < 0.45:
        return made
    if kind < 0.75:
        line = np.asarray(cv2.getGaussianKernel(9, rng.uniform(0.3, 0.02 * side)))
        kernel = line @ line.T
    else:
        kernel = _motion(int(rng.integers(2, max(3, side // 10))), rng.uniform(0, np.pi))
    alpha, weighted = (
        np.asarray(cv2.filter2D(image, -1, kernel), np.float32)
        for image in (made.alpha, made.picture * made.alpha[..., None])
    )
    picture = np.where(alpha[..., None] > 1e-3, weighted / np.maximum(alpha, 1e-3)[..., None], made.picture)
    return Occluder(np.clip(picture, 0, 255).astype(np.float32), alpha)


def _motion(length: int, angle: float) -> NDArray[np.float64]:
    """Kernel of a blur over `length` pixels to either side."""
    kernel = np.zeros((2 * length + 1, 2 * length + 1), np.uint8)
    x, y = (_direction(angle) * length).round().astype(int).tolist()
    cv2.line(kernel, (length - x, length - y), (length + x, length + y), (1,), 1)
    return np.asarray(kernel / kernel.sum())


def _direction(angle: float) -> NDArray[np.float64]:
    return np.array([np.cos(angle), np.sin(angle)])


def _any(rng: np.random.Generator) -> NDArray[np.floating]:
    """A random colour (3,)."""
    return np.asarray(np.clip(rng.uniform(0, 255) + rng.normal(0, 50, 3), 0, 255))


def _dark_or_any(rng: np.random.Generator) -> NDArray[np.floating]:
    return _any(rng) if rng.random() < 0.3 else rng.uniform(5, 80) + rng.normal(0, 6, 3)
