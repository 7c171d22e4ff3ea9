"""Wav2Lip as a second generator, for comparison: its network and mel, lipdub's crops and blending.

Its weights were trained on LRS2 and are for research and personal use only, which every job that uses them says.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lipdub.config import Config
from lipdub.dub.analyze import DubPlan
from lipdub.dub.driving_audio import DrivingAudio, windows_at
from lipdub.dub.inference import FaceCrop, GeneratedFace, Runner, opacity
from lipdub.models.wav2lip import FACE_SIDE, MEL_STEPS, Wav2Lip

LICENCE = "Wav2Lip's weights are for research, academic or personal use only: commercial use is prohibited"
# What it is shown of our crop: it was trained on boxes of a face detector, from forehead to chin and ear to ear.
LEFT, RIGHT, BOTTOM = 0.12, 0.88, 0.98  # in crop sides
FULL_SCALE = 4.0  # of its mel
# Its training gives a frame the 16 mel steps that begin one frame of 25 a second before it [its data set's
# get_segmented_mels]; ours are centred on the middle of the frame: later by this.
LATER_S = MEL_STEPS / 80 / 2 - 1.5 / 25


class Wav2LipRunner(Runner):
    """Generates mouths with Wav2Lip; its reference is the frame itself, as in its authors' inference.

    The speech has the mel of `mel.wav2lip_mel`.
    """

    def __init__(
        self, network: Wav2Lip, analysis: DubPlan, speech: DrivingAudio, config: Config, device: torch.device
    ) -> None:
        super().__init__(config.sync.batch_size, device)
        self._network, self._analysis, self._speech = network, analysis, speech
        self._config = config

    def _generate(self, targets: Sequence[FaceCrop]) -> list[GeneratedFace | None]:
        shown = np.stack([_network_input(target.picture) for target in targets])
        faces = torch.from_numpy(shown).to(self._device).permute(0, 3, 1, 2).flip(1).float() / 255  # BGR
        masked = faces.clone()
        masked[:, :, FACE_SIDE // 2 :] = 0
        times_s = self._analysis.times_s[[target.frame for target in targets]] + LATER_S
        mel = FULL_SCALE * windows_at(self._speech, times_s, self._config.mel, MEL_STEPS)
        with torch.inference_mode():
            made = self._network(torch.from_numpy(mel)[:, None].to(self._device), torch.cat([masked, faces], 1))
        pictures = 255 * made.flip(1).permute(0, 2, 3, 1).float().cpu().numpy()
        return [self._in_lower_half(picture, target.picture) for picture, target in zip(pictures, targets, strict=True)]

    def _in_lower_half(self, made: NDArray[np.float32], picture: NDArray[np.uint8]) -> GeneratedFace | None:
        """Crop with the lower half of a generated face in it; None if that is not finite."""
        if not np.isfinite(made).all():
            return None
        side = len(picture)
        rows, columns = _box(side)
        face, mask = picture.astype(np.float32), np.zeros((side, side), np.float32)
        size = (columns.stop - columns.start, rows.stop)
        face[rows, columns] = cv2.resize(made, size, interpolation=cv2.INTER_LINEAR)
        mask[rows.stop // 2 : rows.stop, columns] = 1
        return GeneratedFace(face, opacity(mask, self._config))


def _box(side: int) -> tuple[slice, slice]:
    """Rows and columns of a crop (side, side) that the network sees."""
    return slice(0, round(BOTTOM * side)), slice(round(LEFT * side), round(RIGHT * side))


def _network_input(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    part = picture[_box(len(picture))]
    return np.asarray(cv2.resize(part, (FACE_SIDE, FACE_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
