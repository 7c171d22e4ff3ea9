"""What paints the new mouths: the generator, with the references of each track encoded once.

References are encoded when their track begins and forgotten when it ends, so memory does not grow with the video.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lipdub.config import Config
from lipdub.errors import ResourceError
from lipdub.faces.align import relative_shape
from lipdub.models.generator import Audio, Drawn, Generator, References
from lipdub.models.layers import mask_lower_half
from lipdub.models.warp import compose, lend_skin, one_of, picked
from lipdub.pipeline.analyze import Analysis
from lipdub.pipeline.precision import half_precision
from lipdub.pipeline.speech import Speech, mouths_heard, windows_at


@dataclass(frozen=True)
class Target:
    """A face that is to get a new mouth."""

    frame: int
    job: int  # place in Analysis.jobs
    row: int  # of the job's arrays
    picture: NDArray[np.uint8]  # (D, D, 3), D = detail S: the crop as fine as a warp works

    def crop(self, size: int) -> NDArray[np.uint8]:
        """(S, S, 3), what the generator is given."""
        return _shrunk(self.picture, size)


@dataclass(frozen=True)
class Painted:
    """What the generator made of a face."""

    face: NDArray[np.float32]  # (D, D, 3) in [0, 255]
    mask: NDArray[np.float32]  # (S, S) in [0, 1]


class Painter(ABC):
    """Paints mouths, so many at a time; what a network of its own needs is in its subclass.

    Args:
        batch_size: most faces at once.
    """

    def __init__(self, batch_size: int) -> None:
        self._most = batch_size

    def paint(self, targets: Sequence[Target]) -> list[Painted | None]:
        """New faces of all targets, in order, `batch_size` at a time; None where the picture is not finite.

        Out of memory, the batch is halved, and stays so.

        Raises:
            ResourceError: out of memory with a single face.
        """
        painted: list[Painted | None] = []
        while len(painted) < len(targets):
            batch = targets[len(painted) : len(painted) + self._most]
            try:
                painted += self._paint(batch)
            except torch.OutOfMemoryError as error:
                if len(batch) == 1:
                    raise ResourceError("out of memory with one face at a time", "try --device cpu") from error
                self._most = len(batch) // 2
        return painted

    @abstractmethod
    def _paint(self, targets: Sequence[Target]) -> list[Painted | None]:
        """The same for one batch."""


class MouthPainter(Painter):
    """The generator with the references of the jobs at hand encoded, and the sound of every frame looked up.

    Args:
        generator: in eval mode on `device`.
        analysis: jobs and frame times.
        voices: the driving sounds; a job's `voice` says which.
        config: sync and mel sections.
        device: where the generator runs.

    Raises:
        InputError, SetupError: see `half_precision`.
    """

    def __init__(
        self,
        generator: Generator,
        analysis: Analysis,
        voices: Sequence[Speech],
        config: Config,
        device: torch.device,
    ) -> None:
        super().__init__(config.sync.batch_size)
        self._generator, self._analysis, self._voices = generator, analysis, voices
        self._config, self._device = config, device
        self._heard = [
            mouths_heard(generator, voice, analysis.times_s, config.mel, config.sync, device) for voice in voices
        ]
        self._half = half_precision(config.sync.precision, device)
        self._manners = analysis.manners()
        self._encoded: dict[int, References] = {}
        self._pictures: dict[int, Tensor] = {}  # (K, 3, D, D) of the same jobs

    def _paint(self, targets: Sequence[Target]) -> list[Painted | None]:
        if self._half is not None:
            with torch.autocast(self._device.type, self._half):
                painted = self._painted(targets)
            if all(one is not None for one in painted):
                return painted
        return self._painted(targets)  # also what half precision could not hold

    def _painted(self, targets: Sequence[Target]) -> list[Painted | None]:
        size = self._generator.config.size
        real = self._tensor(np.stack([target.crop(size) for target in targets]))
        with torch.inference_mode():
            references, owner = self._references(targets)
            if self._generator.config.own_frame:
                own = self._generator.encode_references(real, self._old_shapes(targets))
                references = _joined([references, own])
                owner = torch.cat([owner, torch.eye(len(targets), dtype=torch.bool, device=self._device)], 1)
            sound = self._sound(targets)
            drawn = self._generator.draw(mask_lower_half(real), sound, references, owner)
            faces = [self._detailed(drawn, n, target) for n, target in enumerate(targets)]
        if drawn.mask is None:
            masks = np.zeros((len(targets), size, size), np.float32)
            masks[:, size // 2 :] = 1
        else:
            masks = drawn.mask.float().sigmoid()[:, 0].cpu().numpy()
        return [
            Painted(face, mask) if np.isfinite(face).all() and np.isfinite(mask).all() else None
            for face, mask in zip(faces, masks, strict=True)
        ]

    def _detailed(self, drawn: Drawn, n: int, target: Target) -> NDArray[np.float32]:
        """Face n as fine as its target's picture (D, D, 3), in [0, 255]."""
        face = drawn.painted[n]
        if drawn.warp is not None:
            picture, pictures = self._tensor(target.picture[None]), self._pictures[target.job]
            own = self._generator.config.own_frame
            warp = one_of(drawn.warp, n, len(pictures) + own)
            if own:
                warp = lend_skin(warp, len(pictures), self._config.sync.own_lips)
                pictures = torch.cat([pictures, picture])
            warp = picked(warp, self._config.sync.pick)
            lower = compose(warp, drawn.painted[n : n + 1], pictures, fine=True)
            face = torch.cat([picture[0, :, : picture.shape[2] // 2], lower[0]], 1)
        fine: NDArray[np.float32] = (face.float() * 255).permute(1, 2, 0).cpu().numpy()
        return fine

    def _old_shapes(self, targets: Sequence[Target]) -> Tensor:
        """The mouths (N, C) that the targets show now."""
        shapes = np.stack([self._analysis.jobs[target.job].shapes[target.row] for target in targets])
        return torch.from_numpy(shapes).to(self._device)

    def _tensor(self, faces: NDArray[np.uint8]) -> Tensor:
        """(N, S, S, 3) -> (N, 3, S, S) in [0, 1] on the device."""
        return torch.from_numpy(faces).to(self._device).permute(0, 3, 1, 2).float() / 255

    def _sound(self, targets: Sequence[Target]) -> Tensor | Audio:
        """What the targets hear: the mouth shape, where the generator takes one, else mel windows."""
        jobs, strength = self._analysis.jobs, self._config.sync.strength
        shapes = [
            heard.spoken_by(self._manners[jobs[target.job].track.person], target.frame, strength)
            for target in targets
            if (heard := self._heard[jobs[target.job].voice]) is not None
        ]
        if not shapes:
            times_s, width = self._analysis.times_s, self._generator.config.window
            windows = [
                windows_at(
                    self._voices[jobs[target.job].voice],
                    times_s[target.frame : target.frame + 1],
                    self._config.mel,
                    width,
                )
                for target in targets
            ]
            return torch.from_numpy(np.concatenate(windows)).to(self._device)
        code = torch.from_numpy(np.stack(shapes)).to(self._device)
        return Audio(code.new_zeros(len(code), self._generator.config.embedding), code)  # only the shape is used

    def _references(self, targets: Sequence[Target]) -> tuple[References, Tensor]:
        """References (R) of all jobs among the targets, and which target (N, R) owns which."""
        jobs = sorted({target.job for target in targets})
        for job in [job for job in self._encoded if self._analysis.jobs[job].track.frames.stop <= targets[0].frame]:
            del self._encoded[job], self._pictures[job]
        for job in jobs:
            if job not in self._encoded:
                self._encode(job)
        encoded = [self._encoded[job] for job in jobs]
        owners = np.repeat(jobs, [len(references.embeddings) for references in encoded])
        owner = torch.from_numpy(np.array([target.job for target in targets])[:, None] == owners)
        return _joined(encoded), owner.to(self._device)

    def _encode(self, job: int) -> None:
        given, config = self._analysis.jobs[job].references, self._generator.config
        self._pictures[job] = self._tensor(given.crops)
        crops = self._tensor(np.stack([_shrunk(crop, config.size) for crop in given.crops]))
        if not config.whole_references:
            crops[:, :, : config.size // 2] = 0  # lower halves only, as in training
        shapes = torch.from_numpy(relative_shape(given.shapes, given.rest)).to(self._device)
        with torch.autocast(self._device.type, enabled=False):  # once a track: fit for every precision
            self._encoded[job] = self._generator.encode_references(crops, shapes)


def _joined(parts: Sequence[References]) -> References:
    """The references of several jobs, one after another."""
    if len(parts) == 1:
        return parts[0]
    features = zip(*(part.features for part in parts), strict=True)
    pictures = [part.pictures for part in parts if part.pictures is not None]
    shapes = [part.shapes for part in parts if part.shapes is not None]
    return References(
        torch.cat([part.embeddings for part in parts]),
        tuple(torch.cat(scale) for scale in features),
        torch.cat(pictures) if pictures else None,
        torch.cat(shapes) if shapes else None,
    )


def _shrunk(crop: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A square crop brought to `size` by averaging; itself where it has that size."""
    if len(crop) == size:
        return crop
    return np.asarray(cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
