"""Augmentation of faces: lens distortion, proportions, side light."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from lipdub.faces.backend import Frame

LENS_DISTORTION, SHEAR, ASPECT = 0.3, 0.06, 0.07  # of lens, shear and log aspect; standard deviations
SIDE_LIGHT = 0.7  # standard deviation of the log of light from one edge of a crop to the other


@dataclass(frozen=True)
class Augmentation:
    """A lens, a build and a light; the default changes nothing."""

    build: NDArray[np.float64] = field(default_factory=lambda: np.eye(2))  # (2, 2), area kept: longer, wider or leaning
    lens_distortion: float = 0.0  # of a lens: above 0 the crop's middle is enlarged, below 0 its rim
    light_x: float = 0.0  # log of light from the left edge to the right one
    light_y: float = 0.0  # and from top to bottom

    @classmethod
    def sample(cls, rng: np.random.Generator, strength: float = 1.0) -> Augmentation:
        """A random one; `strength` scales by how much it differs."""
        lean, length = rng.normal(0, strength * SHEAR), np.exp(rng.normal(0, strength * ASPECT))
        light_x, light_y = rng.normal(0, strength * SIDE_LIGHT, 2)
        build = np.array([[1 / length, lean], [0, length]])
        return cls(build, float(rng.normal(0, strength * LENS_DISTORTION)), float(light_x), float(light_y))

    def relight(self, rng: np.random.Generator, strength: float) -> Augmentation:
        """The same face a moment later: light comes from a little elsewhere."""
        light_x, light_y = rng.normal(0, strength * SIDE_LIGHT, 2)
        return replace(self, light_x=self.light_x + float(light_x), light_y=self.light_y + float(light_y))

    def warp(self, image: Frame, matrix: NDArray[np.float64], size: int, border: int = cv2.BORDER_REPLICATE) -> Frame:
        """A crop (size, size, 3) of an image through a 2x3 affine, image -> crop, and the lens; light is left alone."""
        if self.lens_distortion == 0:
            crop = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
            return np.asarray(crop, np.uint8)
        y, x = np.mgrid[:size, :size] / size - 0.5
        straight = size * ((1 + self.lens_distortion * (x**2 + y**2)) * np.stack([x, y]) + 0.5)
        back = cv2.invertAffineTransform(matrix)
        at = (np.einsum("ij,jhw->ihw", back[:, :2], straight) + back[:, 2, None, None]).astype(np.float32)
        return np.asarray(cv2.remap(image, at[0], at[1], cv2.INTER_LINEAR, borderMode=border), np.uint8)

    def distort(self, points: NDArray[np.floating], size: int) -> NDArray[np.float64]:
        """Where points (..., 2) of the crop lie behind the lens; nine rounds are exact to a thousandth of a pixel."""
        straight = np.asarray(points, np.float64) / size - 0.5
        seen = straight
        for _ in range(9):
            seen = straight / (1 + self.lens_distortion * (seen**2).sum(-1, keepdims=True))
        return size * (seen + 0.5)

    def light(self, size: int) -> NDArray[np.float64]:
        """(size, size), by which a crop is to be multiplied."""
        y, x = np.mgrid[:size, :size] / size - 0.5
        return np.asarray(np.exp(self.light_x * x + self.light_y * y), np.float64)


IDENTITY = Augmentation()
