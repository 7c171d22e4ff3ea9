"""Inference: the generator on batches of face crops, with the references of each track encoded once.

References are encoded when their track begins and forgotten when it ends, so memory does not grow with the video.

An accelerator computes a whole batch and is synchronised twice: for the masks, which determine the visible part of the
faces, and for that part. A face with D pixels a side is uploaded as 3 D^2 bytes; less than 6 D^2 come back, the lower
half in float32, which keeps its colour depth. At D = 288 that is 0.75 MB, 0.06 ms on a bus of 12 GB/s. Reading crops,
colour matching and blending run on the CPU, in other threads while the next batch is generated: they work on the planes
of whole pictures, and a 1080p frame would be 3 MB in each direction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lipdub.affine import transform
from lipdub.config import Config
from lipdub.dub.analyze import DubPlan
from lipdub.dub.composition import compose_face
from lipdub.dub.driving_audio import DrivingAudio, predict_mouth_shapes, windows_at
from lipdub.dub.precision import half_precision
from lipdub.dub.speaking_style import DRAWN_GAIN
from lipdub.errors import ResourceError, out_of_memory
from lipdub.faces.blend import extent, inside_outline, paste_alpha
from lipdub.faces.crop import mouth_mask
from lipdub.faces.letters import find_letters
from lipdub.faces.mouth_shape import closed_openings, relative_shape
from lipdub.faces.occlusion import filled
from lipdub.models.generator import Audio, Drawn, Generator, References, joined
from lipdub.models.layers import mask_lower_half
from lipdub.models.warp import (
    Cells,
    Warp,
    compose_part,
    limit_flow,
    select,
    sharpen_weights,
    suppress_references_outside_mouth,
)

UPPER_FACE = (0.3, 0.5), (0.28, 0.72)  # rows and columns, in crop sides
BLACK = 1 / 255  # added to both colours of a ratio
GAIN_RANGE = (0.02, 3.0)  # by which a reference's colours are multiplied


@dataclass(frozen=True)
class FaceCrop:
    """A face crop to generate a new mouth for."""

    frame: int
    job: int  # place in DubPlan.jobs
    row: int  # of the job's arrays
    picture: NDArray[np.uint8]  # (D, D, 3), D = detail S: the crop as fine as a warp works
    occlusion: NDArray[np.bool_] | None = None  # (D, D) what is in front of the face, and is kept
    share: float = 1.0  # opacity of the dub, 0 where the lips are hidden

    def crop(self, size: int) -> NDArray[np.uint8]:
        """(S, S, 3), the generator's input."""
        return _shrunk(self.picture, size)


@dataclass(frozen=True)
class GeneratedFace:
    """A face as generated."""

    face: NDArray[np.float32]  # (D, D, 3) in [0, 255]
    alpha: NDArray[np.float32]  # (S, S) in [0, 1], the opacity with which it is blended into the frame


class Runner(ABC):
    """Generates faces in batches; each kind of network has its subclass.

    Args:
        batch_size: faces at once, at most.
        device: where the network runs.
        half: 16-bit type that it runs in first; None: float32 alone.
    """

    def __init__(self, batch_size: int, device: torch.device, half: torch.dtype | None = None) -> None:
        self._batch_size, self._device, self._half = batch_size, device, half

    def run(self, targets: Sequence[FaceCrop]) -> list[GeneratedFace | None]:
        """New faces of all targets, in order, `batch_size` at a time; None where the picture is not finite.

        Out of memory, the batch is halved, and stays so. A batch with values that half precision cannot hold is
        generated again in float32.

        Raises:
            ResourceError: out of memory with a single face.
        """
        done: list[GeneratedFace | None] = []
        while len(done) < len(targets):
            batch = targets[len(done) : len(done) + self._batch_size]
            try:
                with torch.autocast(self._device.type, self._half, enabled=self._half is not None):
                    faces = self._generate(batch)
                if self._half is not None and any(face is None for face in faces):
                    faces = self._generate(batch)
                done += faces
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise ResourceError("out of memory with one face at a time", "try --device cpu") from error
                self._batch_size = len(batch) // 2
        return done

    @abstractmethod
    def _generate(self, targets: Sequence[FaceCrop]) -> list[GeneratedFace | None]:
        """The same for one batch."""


@dataclass(frozen=True)
class _Part:
    """The visible part of some generated faces of one job."""

    items: list[int]  # numbers of the faces
    cells: Cells | None  # the part; None: all
    faces: Tensor  # (N, height, width, 3) in [0, 1]


@dataclass(frozen=True)
class _EncodedJob:
    """The R references of a job as the generator uses them."""

    references: References
    pictures: Tensor  # (R, 3, D, D) in [0, 1]
    colours: Tensor  # (R, 3) of `_upper_face_colours`
    closed: NDArray[np.float32]  # (3,) openings of closed lips, relative to rest
    gain: float  # of the movement of the mouth


class GeneratorRunner(Runner):
    """The generator with the encoded references of the current jobs, and the mouth shapes predicted for every frame.

    Args:
        generator: in eval mode on `device`.
        plan: jobs and frame times.
        voices: the driving audio; a job's `voice` is an index.
        config: sync and mel sections.
        device: where the generator runs.
        together: compose the faces of a job in one go on the device; else one by one on the CPU. None: on an
            accelerator. The results are less than a level of 255 apart.

    Raises:
        InputError, SetupError: see `half_precision`.
    """

    def __init__(
        self,
        generator: Generator,
        plan: DubPlan,
        voices: Sequence[DrivingAudio],
        config: Config,
        device: torch.device,
        *,
        together: bool | None = None,
    ) -> None:
        super().__init__(config.sync.batch_size, device, half_precision(config.sync.precision, device))
        self._together = device.type != "cpu" if together is None else together
        self._generator, self._plan, self._voices = generator, plan, voices
        self._config = config
        self._predicted = [
            predict_mouth_shapes(generator, voice, plan.times_s, config.mel, config.sync, device) for voice in voices
        ]
        self._styles = plan.styles()
        self._encoded: dict[int, _EncodedJob] = {}

    def _generate(self, crops: Sequence[FaceCrop]) -> list[GeneratedFace | None]:
        size = self._generator.config.size
        targets = [replace(crop, picture=filled(crop.picture, crop.occlusion)) for crop in crops]
        real = self._tensor(np.stack([target.crop(size) for target in targets]))
        with torch.inference_mode():
            references, owner, firsts = self._references(targets)
            if self._generator.config.own_frame:
                own = self._generator.encode_references(real, self._source_shapes(targets))
                references = joined([references, own])
                owner = torch.cat([owner, torch.eye(len(targets), dtype=torch.bool)], 1)
            audio = self._audio(targets)
            drawn = self._generator.draw(mask_lower_half(real), audio, references, owner)
            masks = self._masks(drawn, targets)
            alphas = np.stack([opacity(mask, self._config) for mask in np.nan_to_num(masks)])
            if self._generator.config.own_frame:
                alphas *= self._outlines(targets)
            parts = [
                part
                for group in _by_job(targets)
                for part in self._compose(drawn, group, targets, firsts[targets[group[0]].job], alphas)
            ]
        done: list[GeneratedFace | None] = [None] * len(targets)
        for part, faces in zip(parts, _to_arrays([part.faces for part in parts]), strict=True):
            for n, face in zip(part.items, faces, strict=True):
                if np.isfinite(face).all() and np.isfinite(masks[n]).all():
                    done[n] = GeneratedFace(_completed(face, targets[n].picture, part.cells), alphas[n])
        return done

    def _masks(self, drawn: Drawn, targets: Sequence[FaceCrop]) -> NDArray[np.float32]:
        """Masks (N, S, S) in [0, 1] of the generated part: as predicted; with a margin also the source's jaws."""
        size = self._generator.config.size
        if drawn.mask is None:
            masks = _lower_half(len(targets), size)
        else:
            (masks,) = _to_arrays([drawn.mask.float().sigmoid()[:, 0]])
        return masks if self._generator.config.margin == 1 else np.maximum(masks, self._source_jaws(targets))

    def _compose(
        self, drawn: Drawn, group: list[int], targets: Sequence[FaceCrop], first: int, alphas: NDArray[np.float32]
    ) -> list[_Part]:
        """New faces of the targets `group`, which are of one job; alphas (N, S, S) are the opacities of all targets.

        `first` is the number of the job's first reference.
        """
        adjoining = group[-1] - group[0] + 1 == len(group)
        items = slice(group[0], group[-1] + 1) if adjoining else self._upload(np.array(group))
        if drawn.face is not None:
            return [_Part(group, None, drawn.face[items].float().permute(0, 2, 3, 1))]
        assert drawn.warp is not None
        job, own = targets[group[0]].job, self._generator.config.own_frame
        encoded, views = self._encoded[job], self._plan.jobs[job].views.shape[1]
        warp = select(drawn.warp, items, first=first, views=views, own=own)
        if own:
            margin = self._generator.config.margin
            warp = suppress_references_outside_mouth(warp, views, self._config.sync.source_lips, margin)
        warp = sharpen_weights(warp, self._config.sync.blend_power)
        cells = [_visible_cells(alphas[n : n + 1]) for n in group]
        if own:
            warp = limit_flow(warp, cells)
        if self._together:
            whole, frames, gains = _visible_cells(alphas[group]), None, None
            if own:
                frames, gains = self._own_frames([targets[n] for n in group], warp.indices)
            faces = compose_part(warp, encoded.pictures, whole, own=frames, gains=gains)
            return [_Part(group, whole, faces.permute(0, 2, 3, 1))]
        return [
            _Part([n], cells[place], self._compose_alone(warp, targets[n], place, cells[place]))
            for place, n in enumerate(group)
        ]

    def _compose_alone(self, warp: Warp, target: FaceCrop, place: int, cells: Cells) -> Tensor:
        """The face at a place of a warp, (1, height, width, 3), composed on the CPU."""
        indices, gains = warp.indices[place : place + 1], None
        pictures = [self._encoded[target.job].pictures[k] for k in indices[0].tolist()]
        if self._generator.config.own_frame:
            frames, gains = self._own_frames([target], indices)
            pictures.append(frames[0])
        face = compose_face(
            warp.flow[place].float().cpu().numpy(),
            warp.weights[place].float().cpu().numpy(),
            [picture.permute(1, 2, 0).cpu().numpy() for picture in pictures],
            cells,
            None if gains is None else gains[0].cpu().numpy(),
        )
        return torch.from_numpy(face)[None]

    def _own_frames(self, targets: Sequence[FaceCrop], indices: Tensor) -> tuple[Tensor, Tensor]:
        """The crops (N, 3, D, D) of one job's targets, and gains (N, K, 3) that bring its references to their light."""
        frames = self._tensor(np.stack([target.picture for target in targets]))
        colours = self._encoded[targets[0].job].colours[indices]
        return frames, (_upper_face_colours(frames)[:, None] / colours).clamp(*GAIN_RANGE)

    def _source_jaws(self, targets: Sequence[FaceCrop]) -> NDArray[np.float32]:
        """Masks (N, S, S) of the source's mouths and jaws, which have to be replaced."""
        config = self._generator.config
        masks = [mouth_mask(self._landmarks(target), config.size, margin=config.margin) for target in targets]
        return np.stack(masks)

    def _outlines(self, targets: Sequence[FaceCrop]) -> NDArray[np.float32]:
        """Opacities (N, S, S) that end at the outlines of the targets' faces."""
        config = self._generator.config
        outlines = [inside_outline(self._landmarks(target), config.size, margin=config.margin) for target in targets]
        return np.stack(outlines)

    def _landmarks(self, target: FaceCrop) -> NDArray[np.floating]:
        """(68, 2) pixels of the crop that the generator sees."""
        job = self._plan.jobs[target.job]
        return transform(job.track.landmarks[target.row], job.matrices[target.row])

    def _source_shapes(self, targets: Sequence[FaceCrop]) -> Tensor:
        """Mouth shapes (N, C) of the source in these frames."""
        shapes = np.stack([self._plan.jobs[target.job].shapes[target.row] for target in targets])
        return self._upload(shapes)

    def _upload(self, array: NDArray[Any]) -> Tensor:
        """An array on the device; CUDA copies it from pinned memory without synchronising."""
        tensor = torch.from_numpy(array)
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.to(self._device)

    def _tensor(self, faces: NDArray[np.uint8]) -> Tensor:
        """(N, S, S, 3) -> (N, 3, S, S) in [0, 1] on the device."""
        return self._upload(faces).permute(0, 3, 1, 2).float().div_(255)

    def _audio(self, targets: Sequence[FaceCrop]) -> Tensor | Audio:
        """Mouth shapes from the audio, where the generator takes them, else mel windows."""
        jobs, shapes = self._plan.jobs, []
        for target in targets:
            job, encoded = jobs[target.job], self._encoded[target.job]
            if (predicted := self._predicted[job.voice]) is not None:
                style, gain = self._styles[job.track.person], self._config.sync.strength * encoded.gain
                shapes.append(predicted.retargeted(style, target.frame, gain, encoded.closed))
        if not shapes:
            times_s, width = self._plan.times_s, self._generator.config.window
            windows = [
                windows_at(
                    self._voices[jobs[target.job].voice],
                    times_s[target.frame : target.frame + 1],
                    self._config.mel,
                    width,
                )
                for target in targets
            ]
            return self._upload(np.concatenate(windows))
        code = self._upload(np.stack(shapes))
        return Audio(
            code.new_zeros(len(code), self._generator.config.embedding), code
        )  # the embedding is unused, the code determines the mouth

    def _references(self, targets: Sequence[FaceCrop]) -> tuple[References, Tensor, dict[int, int]]:
        """References (R) of all jobs among the targets, which each target uses (N, R), and each job's first.

        The second is on the CPU.
        """
        jobs = sorted({target.job for target in targets})
        for job in [job for job in self._encoded if self._plan.jobs[job].track.frames.stop <= targets[0].frame]:
            del self._encoded[job]
        for job in jobs:
            if job not in self._encoded:
                self._encoded[job] = self._encode(job)
        encoded = [self._encoded[job].references for job in jobs]
        ends = np.cumsum([len(references.embeddings) for references in encoded])
        firsts = dict(zip(jobs, [0, *ends[:-1].tolist()], strict=True))
        owner = torch.zeros(len(targets), int(ends[-1]), dtype=torch.bool)
        for row, target in zip(owner, targets, strict=True):
            row[firsts[target.job] + self._plan.jobs[target.job].views[target.row]] = True
        return joined(encoded), owner, firsts

    def _encode(self, job: int) -> _EncodedJob:
        references, config = self._plan.jobs[job].references, self._generator.config
        pictures = [
            filled(crop, find_letters(crop, points))
            for crop, points in zip(references.crops, references.landmarks, strict=True)
        ]
        crops = self._tensor(np.stack([_shrunk(picture, config.size) for picture in pictures]))
        if not config.whole_references:
            crops[:, :, : config.size // 2] = 0  # lower halves only, as in training
        shapes = relative_shape(references.shapes, references.rest)
        with torch.autocast(self._device.type, enabled=False):  # once per track, for any precision of the frames
            encoded = self._generator.encode_references(crops, self._upload(shapes))
        whole = self._tensor(np.stack(pictures))
        return _EncodedJob(
            references=encoded,
            pictures=whole,
            colours=_upper_face_colours(whole),
            closed=closed_openings(references.rest),
            gain=DRAWN_GAIN if references.drawn.any() else 1.0,
        )


def _by_job(targets: Sequence[FaceCrop]) -> list[list[int]]:
    """Numbers of the targets of each job, ascending."""
    groups: dict[int, list[int]] = {}
    for n, target in enumerate(targets):
        groups.setdefault(target.job, []).append(n)
    return list(groups.values())


def _visible_cells(alphas: NDArray[np.float32]) -> Cells:
    """The cells of a warp's fields that are visible under the opacities (n, S, S)."""
    half = alphas.shape[1] // 2
    neighbours = np.ones((3, 3), np.uint8)  # opacity is interpolated from them at full resolution
    rows, columns = extent(np.asarray(cv2.dilate(alphas.max(0)[half:], neighbours), np.float32))
    coarse = [slice(of.start // 2, max(-(-of.stop // 2), of.start // 2 + 1)) for of in (rows, columns)]
    return Cells(*coarse)


def _upper_face_colours(pictures: Tensor) -> Tensor:
    """Mean colour (N, 3) from brow to nose, where no dub changes anything, of crops (N, 3, D, D)."""
    side = pictures.shape[-1]
    rows, columns = (slice(round(first * side), round(last * side)) for first, last in UPPER_FACE)
    return pictures[..., rows, columns].mean((2, 3)) + BLACK


def _to_arrays(parts: Sequence[Tensor]) -> list[NDArray[np.float32]]:
    """Tensors of one device as arrays, with a single synchronisation."""
    copies = [part.to("cpu", non_blocking=part.is_cuda) for part in parts]
    if parts[0].is_cuda:
        torch.cuda.current_stream(parts[0].device).synchronize()
    return [copy.numpy() for copy in copies]


def _lower_half(count: int, size: int) -> NDArray[np.float32]:
    """Masks (N, S, S) of a generator that predicts none."""
    masks = np.zeros((count, size, size), np.float32)
    masks[:, size // 2 :] = 1
    return masks


def _completed(new: NDArray[np.float32], picture: NDArray[np.uint8], cells: Cells | None) -> NDArray[np.float32]:
    """A face (D, D, 3) in [0, 255]: `new`, in [0, 1], or the source's crop with `new` in `cells`."""
    if cells is None:
        return 255 * new
    rows, columns = cells.times(new.shape[1] // (cells.columns.stop - cells.columns.start))
    face = picture.astype(np.float32)
    face[len(face) // 2 :][rows, columns] = 255 * new
    return face


def opacity(mask: NDArray[np.float32], config: Config) -> NDArray[np.float32]:
    """Opacity (S, S) with which a face of this mask is blended into its frame, by the sections sync and generator."""
    margin = config.generator.margin
    return paste_alpha(mask, config.sync.feather / margin, 0.5 + (config.sync.top - 0.5) / margin)


def _shrunk(crop: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A square crop scaled to `size` by averaging; unchanged if it has that size."""
    if len(crop) == size:
        return crop
    return np.asarray(cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
