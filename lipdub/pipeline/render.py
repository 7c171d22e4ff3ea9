"""Pass 2: crop, generate in batches, blend into the picture's own planes, encode.

At most `batch_size` faces and their frames wait at any time, so memory does not grow with the video.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lipdub.config import Config
from lipdub.errors import ResourceError
from lipdub.faces.blend import match_colour, paste_alpha
from lipdub.media.probe import VideoInfo
from lipdub.media.video import SourceFrame, VideoReader, paste_patch, read_patch
from lipdub.media.writer import VideoWriter
from lipdub.models.generator import Generator, References
from lipdub.models.layers import mask_lower_half
from lipdub.pipeline.analyze import Analysis, FaceJob
from lipdub.pipeline.speech import Speech, mouth_shapes, windows_at


@dataclass
class _Waiting:
    """A frame that is decoded, with the faces that still have to be painted into it."""

    frame: SourceFrame
    faces: list[tuple[int, int, NDArray[np.uint8]]] = field(default_factory=list)  # job, row, crop


class MouthPainter:
    """The generator with the references of every job encoded once, and the sound of every frame looked up.

    Args:
        generator: in eval mode on `device`.
        analysis: jobs and frame times.
        speech: the driving sound.
        config: sync, mel and face sections.
        device: where the generator runs.
    """

    def __init__(
        self, generator: Generator, analysis: Analysis, speech: Speech, config: Config, device: torch.device
    ) -> None:
        self._generator, self._analysis, self._speech = generator, analysis, speech
        self._config, self._device = config, device
        self._shapes = mouth_shapes(generator, speech, analysis.times_s, config.mel, config.sync, device)
        self._references, self._owner = self._encode_references()

    def _encode_references(self) -> tuple[References, Tensor]:
        """All references of all jobs, and which job (J, R) owns which."""
        crops = [_reference_tensor(job.references.crops) for job in self._analysis.jobs]
        owner = torch.zeros(len(crops), sum(len(c) for c in crops), dtype=torch.bool)
        start = 0
        for job, crop in enumerate(crops):
            owner[job, start : start + len(crop)] = True
            start += len(crop)
        with torch.inference_mode():
            return self._generator.encode_references(torch.cat(crops).to(self._device)), owner.to(self._device)

    def paint(self, faces: list[tuple[int, int, int, NDArray[np.uint8]]]) -> list[tuple[Tensor, Tensor]]:
        """Generated face (S, S, 3) in [0, 255] and mask (S, S) for each (frame, job, row, crop).

        Raises:
            ResourceError: out of memory with a single face.
        """
        try:
            return self._paint(faces)
        except torch.OutOfMemoryError as error:
            if len(faces) == 1:
                raise ResourceError("out of memory with one face at a time", "try --device cpu") from error
            half = len(faces) // 2
            return self.paint(faces[:half]) + self.paint(faces[half:])

    def _paint(self, faces: list[tuple[int, int, int, NDArray[np.uint8]]]) -> list[tuple[Tensor, Tensor]]:
        indices = np.array([frame for frame, _, _, _ in faces])
        crops = torch.from_numpy(np.stack([crop for *_, crop in faces])).to(self._device)
        real = crops.permute(0, 3, 1, 2).float() / 255
        width = self._generator.config.window
        windows = windows_at(self._speech, self._analysis.times_s[indices], self._config.mel, width)
        shape = None if self._shapes is None else torch.from_numpy(self._shapes[indices]).to(self._device)
        owner = self._owner[torch.tensor([job for _, job, _, _ in faces], device=self._device)]
        with torch.inference_mode():
            made = self._generator(
                mask_lower_half(real), torch.from_numpy(windows).to(self._device), self._references, owner, shape=shape
            )
        face = (made.face.float() * 255).permute(0, 2, 3, 1).cpu()
        if made.mask is None:
            mask = torch.zeros(face.shape[:3])
            mask[:, face.shape[1] // 2 :] = 1
        else:
            mask = made.mask.float().sigmoid()[:, 0].cpu()
        return list(zip(face, mask, strict=True))


def render(
    video: Path,
    info: VideoInfo,
    writer: VideoWriter,
    analysis: Analysis,
    painter: MouthPainter,
    config: Config,
    *,
    on_frame: Callable[[int], None] = lambda done: None,
) -> int:
    """Write every frame of the video, with new mouths where there is a job; returns the number of frames."""
    by_frame: dict[int, list[int]] = defaultdict(list)
    for number, job in enumerate(analysis.jobs):
        for row in np.flatnonzero(job.weight > 0):
            by_frame[job.track.first + int(row)].append(number)
    waiting: list[_Waiting] = []
    n_faces, n_frames = 0, 0
    with VideoReader(video, info) as reader:
        for frame in reader:
            held = _Waiting(frame)
            for number in by_frame.get(frame.index, ()):
                row = frame.index - analysis.jobs[number].track.first
                crop = read_patch(frame.picture, info, analysis.jobs[number].matrices[row], config.generator.size)
                held.faces.append((number, row, crop))
            waiting.append(held)
            n_faces += len(held.faces)
            n_frames += 1
            if n_faces >= config.sync.batch_size or (n_faces == 0) or len(waiting) >= 2 * config.sync.batch_size:
                _flush(waiting, info, writer, analysis.jobs, painter, config)
                waiting, n_faces = [], 0
                on_frame(n_frames)
    _flush(waiting, info, writer, analysis.jobs, painter, config)
    on_frame(n_frames)
    return n_frames


def _flush(
    waiting: list[_Waiting],
    info: VideoInfo,
    writer: VideoWriter,
    jobs: list[FaceJob],
    painter: MouthPainter,
    config: Config,
) -> None:
    faces = [(held.frame.index, job, row, crop) for held in waiting for job, row, crop in held.faces]
    painted = iter(painter.paint(faces)) if faces else iter(())
    for held in waiting:
        for job, row, crop in held.faces:
            face, mask = next(painted)
            alpha = paste_alpha(mask.numpy(), config.sync.feather)
            matched = match_colour(face.numpy(), crop.astype(np.float32), alpha)
            paste_patch(held.frame.picture, info, jobs[job].matrices[row], matched, alpha * jobs[job].weight[row])
        writer.write(held.frame.picture, held.frame.pts)


def _reference_tensor(crops: NDArray[np.uint8]) -> Tensor:
    """(K, S, S, 3) -> (K, 3, S, S) in [0, 1], lower halves only, as in training."""
    faces = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    faces[:, :, : faces.shape[2] // 2] = 0
    return faces
