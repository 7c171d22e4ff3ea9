"""What lies in front of a face: hands, microphones, cups, letters. It is found here, and stays as it is in a dub.

A network compares a crop with the median of the person's crops (models/occlusion.py); bright letters are found by
rules as well, in the crop's own resolution (faces/letters.py). The generator was trained on bare faces and distorts
what lies before them, so it sees a crop in which that is inpainted.

A false alarm is a mouth that is not dubbed. In 12,717 frames of clips/dev (without cued French) and clips/scenes
something was found in 97, three in a row or beside such: hands, captions, and a box drawn over a face. On bare faces
nothing was, wide-open mouths included.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lipdub.faces.backend import Frame
from lipdub.faces.blend import inside_outline
from lipdub.faces.crop import mouth_mask
from lipdub.models.layers import for_inference
from lipdub.models.occlusion import OCCLUSION_SIDE, OcclusionNet
from lipdub.models.packed import pack

MARGIN = 4 / 3  # side of the crops that the network sees, over the unit crop's
LIPS = slice(48, 60)  # outer ones, iBUG
LOW, LIKELY, HIGH = 0.25, 0.5, 0.75  # probabilities: of a mask's edge, of what decides on skin, and on open lips
AROUND_LIPS = 5  # cells, side of the square by which lips are dilated: an open mouth looks like an object at times
MIN_SHARE = 0.007  # of the mouth region: less is left to the dub
TRIED, TRIED_ON = 4, 12  # crops that are tried as a person's usual one, and those they are compared with
FILL_RADIUS = 3.0  # pixels around an object from which it is inpainted
EDGE = 0.02  # crop sides over which a dub fades in beside an object


class OcclusionDetector:
    """The occlusion network on face crops.

    Args:
        network: trained.
        device: where it runs.
        margin: side of the crops over the unit crop's.
    """

    def __init__(self, network: OcclusionNet, device: torch.device, margin: float) -> None:
        for_inference(network)
        self._network, self._device = network.to(device), device
        self._dtype = torch.float32
        self._inner = 2 * round(OCCLUSION_SIDE * margin / MARGIN / 2)  # of the network's side, what a crop fills

    def pack(self) -> None:
        """Go on in bfloat16, on the CPU; see `models.packed.pack`."""
        self._dtype = pack(self._network)

    def usual(self, crops: Sequence[Frame]) -> Frame:
        """The median (64, 64, 3) of a person's crops: what passes before the face is not in it."""
        return usual_face(np.stack([self._input(crop) for crop in crops]))

    def probabilities(self, crops: Sequence[Frame], usual: Frame) -> NDArray[np.float32]:
        """Chance (N, P, P) that each part of the crops of one person shows something before the face.

        Args:
            crops: (S, S, 3) RGB each.
            usual: of `usual`.
        """
        with torch.inference_mode():
            faces = self._tensor(np.stack([self._input(crop) for crop in crops]))
            logits = self._network(faces, self._tensor(usual[None]).expand_as(faces))
            probability = logits.float().sigmoid().cpu().numpy()
        return np.stack([self._output(each) for each in probability])

    def covered(self, crops: Sequence[Frame], landmarks: Sequence[NDArray[np.floating]]) -> NDArray[np.bool_]:
        """Which crops (N,) of one person show something before the mouth; landmarks (68, 2) in pixels of each.

        A hand that is there for most of the time is in the median, and none is found. So some of the crops are tried in
        its place: where others show much in comparison, and it shows little, the median is that of the crops like it.
        """
        few = np.unique(np.linspace(0, len(crops) - 1, min(TRIED_ON, len(crops))).astype(int))
        tried = few[:: max(1, len(few) // TRIED)]
        seen, points = [crops[n] for n in few], [landmarks[n] for n in few]
        shares = np.stack([self._shares(seen, points, self._input(crops[n])) for n in tried])  # (tried, few)
        score = shares.mean(1) - shares[:, np.isin(few, tried)].mean(0)
        usual = self.usual(crops)
        if score.max() >= MIN_SHARE:
            alike = self._shares(crops, landmarks, self._input(crops[tried[score.argmax()]])) < MIN_SHARE
            usual = self.usual([crop for crop, like in zip(crops, alike, strict=True) if like] or crops)
        return self._shares(crops, landmarks, usual) >= MIN_SHARE

    def _shares(
        self, crops: Sequence[Frame], landmarks: Sequence[NDArray[np.floating]], usual: Frame
    ) -> NDArray[np.float64]:
        """Share (N,) of each mouth region that is surely covered."""
        probability = self.probabilities(crops, usual)
        regions = (mouth_region(at, len(crop), len(probability[0])) for at, crop in zip(landmarks, crops, strict=True))
        return np.array([share_of(p > HIGH, region) for p, region in zip(probability, regions, strict=True)])

    def _input(self, crop: Frame) -> Frame:
        """The crop at the network's size, with the margin that it was trained on."""
        inner = cv2.resize(crop, (self._inner, self._inner), interpolation=cv2.INTER_AREA)
        pad = (OCCLUSION_SIDE - self._inner) // 2
        if pad > 0:
            inner = cv2.copyMakeBorder(inner, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
        return np.asarray(inner[-pad or None : pad or None, -pad:pad] if pad < 0 else inner, np.uint8)

    def _output(self, probability: NDArray[np.float32]) -> NDArray[np.float32]:
        """The probabilities (64, 64), for the part of the network's picture that is the crop's."""
        pad = (OCCLUSION_SIDE - self._inner) // 2
        if pad < 0:
            return np.pad(probability, -pad)
        return np.ascontiguousarray(probability[pad : pad + self._inner, pad : pad + self._inner])

    def _tensor(self, faces: NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(faces).to(self._device).permute(0, 3, 1, 2).float().div(255).to(self._dtype)


def usual_face(crops: NDArray[np.uint8]) -> Frame:
    """The median (S, S, 3) of a person's crops (N, S, S, 3)."""
    return np.asarray(np.median(crops, 0), np.uint8)


def mouth_region(landmarks: NDArray[np.floating], side: int, size: int) -> NDArray[np.bool_]:
    """The region of the mouth (size, size) of a crop of `side` pixels in which the landmarks (68, 2) are."""
    return mouth_mask(_at(landmarks, side, size), size, margin=MARGIN) > 0


def lip_region(landmarks: NDArray[np.floating], side: int, size: int) -> NDArray[np.bool_]:
    """Likewise the lips and what is between them."""
    area = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(area, cv2.convexHull(np.rint(_at(landmarks, side, size)[LIPS]).astype(np.int32)), (1,))
    return area.astype(bool)


def skin_region(landmarks: NDArray[np.floating], side: int, size: int) -> NDArray[np.bool_]:
    """Likewise the mouth's region without lips, and without what is beside the face."""
    lips = cv2.dilate(lip_region(landmarks, side, size).astype(np.uint8), np.ones((AROUND_LIPS, AROUND_LIPS), np.uint8))
    face = inside_outline(_at(landmarks, side, size), size, margin=MARGIN) == 1
    return mouth_region(landmarks, side, size) & face & (lips == 0)


def share_of(mask: NDArray[np.bool_], region: NDArray[np.bool_]) -> float:
    """Share of a region that a mask covers; 0 of none."""
    return float(mask[region].mean()) if region.any() else 0.0


def mask_of(probability: NDArray[np.floating], side: int) -> NDArray[np.bool_]:
    """Mask (side, side) of objects: parts above LOW that touch a cell above LIKELY, grown by a cell.

    Args:
        probability: (P, P) probabilities.
        side: of the crop.
    """
    _, parts = cv2.connectedComponents((probability > LOW).astype(np.uint8), connectivity=8)
    likely = np.unique(parts[probability > LIKELY])
    chosen = np.isin(parts, likely[likely > 0]).astype(np.uint8)
    grown = cv2.dilate(chosen, np.ones((3, 3), np.uint8)).astype(np.float32)
    return np.asarray(cv2.resize(grown, (side, side), interpolation=cv2.INTER_LINEAR) > 0.5)


def filled(crop: Frame, occlusion: NDArray[np.bool_] | None) -> Frame:
    """The crop with what lies before the face (S, S) inpainted (Telea 2004)."""
    if occlusion is None:
        return crop
    return np.asarray(cv2.inpaint(crop, occlusion.astype(np.uint8), FILL_RADIUS, cv2.INPAINT_TELEA), np.uint8)


def bare(occlusion: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Opacity (S, S) of a dub beside an object: 0 on it, 1 from EDGE crop sides on."""
    away = cv2.distanceTransform((~occlusion).astype(np.uint8), cv2.DIST_L2, 3)
    return np.asarray(np.clip((away - 1) / max(1.0, EDGE * len(occlusion)), 0, 1), np.float32)


def _at(landmarks: NDArray[np.floating], side: int, size: int) -> NDArray[np.floating]:
    return (np.asarray(landmarks) + 0.5) * (size / side) - 0.5
