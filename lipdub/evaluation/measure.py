"""Values of all columns for one judged video; the equations are in metrics and losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lipdub.affine import transform
from lipdub.config import Config
from lipdub.errors import InputError
from lipdub.evaluation.landmark_track import Geometry, LandmarkTrack, lips_mask
from lipdub.evaluation.networks import Networks
from lipdub.evaluation.perceptual import CHUNK, EVERY, ssim_masked
from lipdub.evaluation.teachers import FaceRecognizer
from lipdub.losses import expert_loss, perceptual
from lipdub.media.audio import load_audio
from lipdub.mel import log_mel
from lipdub.metrics import (
    FAR,
    PEAK,
    SHORTEST,
    agreement,
    articulation,
    landmark_distance,
    laplacian_variance,
    opening_range,
    psnr_masked,
    ring_jitter,
    silence_motion,
    silent_frames,
)
from lipdub.metrics.mouth import (
    PARTED,
    SECOND_CONTOUR,
    closure_rank,
    closures,
    contour_profiles,
    interior_share,
    mouth_width,
    opening_reach,
    second_contour,
)
from lipdub.metrics.sync_offset import REACH, best_offset, loudness, offset_by_loudness, similarities
from lipdub.models import syncnet as syncnet_module
from lipdub.models.expert import Expert
from lipdub.models.syncnet import SyncNet

EXPERT_STEP = 5  # frames between two windows [4.1]
HEAD_MARGIN = 1.4  # crop side for SyncNet and SFace, which were trained on whole heads, over that of our crop
HEAD_SIDE = 160  # pixels of the crop for SFace, which aligns to 112, and for chins


@dataclass(frozen=True)
class Audio:
    """An audio track."""

    waveform: NDArray[np.float32]  # (n,) mono at config.mel.sample_rate
    level: NDArray[np.float32]  # of sync_offset.loudness

    @classmethod
    def of(cls, path: Path, config: Config) -> Audio:
        """The audio of a file; sections mel and media of `config` are used."""
        waveform = load_audio(path, sample_rate=config.mel.sample_rate, config=config.media)
        return cls(waveform, loudness(waveform, config.mel))


@dataclass(frozen=True)
class Real(Audio):
    """A real clip: its audio, and the judge's landmarks of its picture."""

    tracked: LandmarkTrack


def measure(
    video: LandmarkTrack,
    source: LandmarkTrack,
    sound: Audio,
    config: Config,
    networks: Networks,
    *,
    replaced: LandmarkTrack | None = None,
    has_truth: bool = False,
) -> dict[str, float]:
    """Values of all columns that are defined for a video, finite ones only.

    Args:
        video: the judged video.
        source: the real video that it was made from.
        sound: its audio: a real clip, whose mouth is compared with, or a speech track alone.
        config: face, mel, loss and media sections.
        networks: for the columns that need one.
        replaced: the real video whose mouth the dub replaced, if it is not the sound's.
        has_truth: whether `source` is what the video should look like.

    Raises:
        InputError: picture and sound share too few frames to be compared.
    """
    video = video.like(source)
    values = _curves(video, sound, config)
    if isinstance(sound, Real):
        values |= _mouth(video, sound, config)
    if replaced is not None:
        values["replaced_z"] = _agreement_with(video, replaced)[1]
    if has_truth:
        count = min(len(video.landmarks), len(source.landmarks))
        values["lmd"] = landmark_distance(video.landmarks[:count], source.landmarks[:count])
    geometry = Geometry.of(source, config.face, config.face.size)
    faces = geometry.faces(video, config.media)  # decodes the file, so only once
    values |= _pictures(video, source, geometry, faces, config, networks, has_truth)
    values["second_contour"] = _second_contour(video, source, config)
    if networks.recognizer is not None and video.path != source.path:
        values["identity"] = _identity(video, source, config, networks.recognizer)
    if networks.expert is not None:
        size = networks.expert.config.size
        if size != geometry.size:
            faces = Geometry.of(source, config.face, size).faces(video, config.media)
        values |= _expert(video, faces, sound, config, networks.expert)
    if networks.syncnet is not None:
        values |= _syncnet(video, source, sound, config, networks.syncnet)
    return {key: value for key, value in values.items() if math.isfinite(value)}


def shared_frames(video: LandmarkTrack, *others: LandmarkTrack) -> int:
    """Number of frames of `video` until the first of all ends.

    Raises:
        InputError: too few for curves.
    """
    end = min(tracked.times_s[-1] for tracked in (video, *others))
    count = int(np.searchsorted(video.times_s, end, side="right"))
    if count < SHORTEST:
        raise InputError(f"only {count} frames can be compared, {SHORTEST} are needed", "give longer clips")
    return count


def _agreement_with(video: LandmarkTrack, other: LandmarkTrack) -> tuple[float, float, float]:
    """r, z and articulation of a video's mouth with another video's as reference."""
    count = shared_frames(video, other)
    curve = video.openings[:count]
    reference = np.interp(video.times_s[:count], other.times_s, other.openings)
    return *agreement(curve, reference), articulation(curve, reference)


def _curves(video: LandmarkTrack, sound: Audio, config: Config) -> dict[str, float]:
    """Columns that compare the opening with the audio alone, without a real video of that audio."""
    count = shared_frames(video, *([sound.tracked] if isinstance(sound, Real) else []))
    curve = video.openings[:count]
    silent = silent_frames(sound.waveform, config.mel.sample_rate, video.times_s[:count])
    middles = video.times_s + 0.5 / float(video.info.average_rate)
    offset = offset_by_loudness(video.openings, middles, sound.level, config.mel)
    return {
        "range": opening_range(curve),
        "silence": silence_motion(curve, silent),
        "loudness": math.nan if offset is None else offset.at_zero,
        "offset": math.nan if offset is None else abs(offset.ms),
        "signed_offset": math.nan if offset is None else offset.ms,
    }


def _mouth(video: LandmarkTrack, sound: Real, config: Config) -> dict[str, float]:
    """Columns that compare the mouth with that of the audio's own video."""
    r, z, movement = _agreement_with(video, sound.tracked)
    count = shared_frames(video, sound.tracked)
    curve, times_s = video.openings[:count], video.times_s[:count]
    silent = silent_frames(sound.waveform, config.mel.sample_rate, times_s)
    real = np.interp(times_s, sound.tracked.times_s, sound.tracked.openings)
    width = np.interp(times_s, sound.tracked.times_s, mouth_width(sound.tracked.landmarks))
    frame_s = 1 / float(video.info.average_rate)
    closed = closures(curve, real, silent, frame_s)
    return {
        "closures": 100 * closed.made,
        "closures_chance": 100 * closed.chance,
        "closure_rank": closure_rank(curve, real, silent, frame_s),
        "width_r": agreement(mouth_width(video.landmarks)[:count], width)[0],
        "reach": opening_reach(curve, real),
        "opening_r": r,
        "opening_z": z,
        "articulation": movement,
    }


@torch.no_grad()
def _pictures(
    video: LandmarkTrack,
    source: LandmarkTrack,
    geometry: Geometry,
    faces: Tensor,
    config: Config,
    networks: Networks,
    has_truth: bool,
) -> dict[str, float]:
    mouth, skin = geometry.masks(source, video)
    lips = _crop_points(video, geometry)
    real_faces = faces if video.path == source.path else geometry.faces(source, config.media)
    count = min(len(faces), len(mouth))
    faces, real_faces, mouth, skin = faces[:count], real_faces[:count], mouth[:count], skin[:count]
    values = {
        "sharpness": float(laplacian_variance(faces, mouth).nanmean()),
        "jitter": float(ring_jitter(faces, skin)),
        "outside": float(PEAK * ((1 - mouth) * (faces - real_faces).abs()).sum() / (3 * (1 - mouth).sum())),
        "interior": interior_share(faces.numpy(), lips[:count]),
    }
    if has_truth:
        values["psnr"] = float(psnr_masked(255 * faces, 255 * real_faces, mouth, peak=255.0).nanmean())
        values["ssim"] = ssim_masked(faces, real_faces, mouth)
        values["lip_sharpness"] = _lip_sharpness(faces, real_faces, video, source, geometry)
        if networks.features is not None:
            values["perceptual"] = _perceptual(networks.features, faces, real_faces)
        if networks.lpips is not None:
            parts = zip(faces[::EVERY].split(CHUNK), real_faces[::EVERY].split(CHUNK), strict=True)
            values["lpips"] = float(torch.cat([networks.lpips(a, b) for a, b in parts]).mean())
    return values


def _crop_points(video: LandmarkTrack, geometry: Geometry) -> NDArray[np.float64]:
    """Landmarks (N, 68, 2) in the pixels of the crops that `geometry.faces` gives."""
    pairs = zip(video.landmarks, geometry.matrices, strict=False)
    return np.stack([transform(points, matrix) for points, matrix in pairs])


def _lip_sharpness(
    faces: Tensor, real_faces: Tensor, video: LandmarkTrack, source: LandmarkTrack, geometry: Geometry
) -> float:
    """Laplacian variance within the lips over that within the real ones, over the frames in which both are parted."""
    both = np.flatnonzero(np.minimum(video.openings[: len(faces)], source.openings[: len(faces)]) >= PARTED)
    if not len(both):
        return math.nan
    means = []
    for tracked, pictures in ((video, faces), (source, real_faces)):
        points = _crop_points(tracked, geometry)
        masks = torch.from_numpy(np.stack([lips_mask(points[i], geometry.size) for i in both]))[:, None]
        means.append(float(laplacian_variance(pictures[torch.from_numpy(both)], masks).nanmean()))
    return means[0] / means[1] if means[1] > 0 else math.nan


def _second_contour(video: LandmarkTrack, source: LandmarkTrack, config: Config) -> float:
    """Percent of the frames with an edge below the lips that no frame of the real video has."""
    geometry = Geometry.of(source, config.face, HEAD_SIDE, HEAD_MARGIN)
    theirs = _crop_points(source, geometry)
    profiles = contour_profiles(geometry.faces(source, config.media).numpy(), theirs)
    if video.path == source.path:
        strengths = second_contour(profiles, theirs, profiles, theirs, apart=FAR)
    else:
        ours = geometry.faces(video, config.media).numpy()
        points = _crop_points(video, geometry)[: len(ours)]
        strengths = second_contour(contour_profiles(ours, points), points, profiles, theirs)
    known = strengths[np.isfinite(strengths)]
    return float(100 * (known > SECOND_CONTOUR).mean()) if len(known) else math.nan


def _perceptual(features: nn.Module, fake: Tensor, real: Tensor) -> float:
    parts = zip(fake.split(CHUNK), real.split(CHUNK), strict=True)
    return sum(float(perceptual(features(a), features(b))) * len(a) for a, b in parts) / len(fake)


def _identity(video: LandmarkTrack, source: LandmarkTrack, config: Config, recognizer: FaceRecognizer) -> float:
    """Mean cosine similarity of identity in a video and in the real one, every EVERY frames, in the real one's crops.

    The whole head is compared: another mouth shape costs a little, a smeared or distorted mouth more.
    """
    geometry = Geometry.of(source, config.face, HEAD_SIDE, HEAD_MARGIN)
    pairs = zip(geometry.faces(video, config.media), geometry.faces(source, config.media), strict=False)
    cosines = []
    for row, pair in list(enumerate(pairs))[::EVERY]:
        points = transform(source.landmarks[row], geometry.matrices[row])
        a, b = (recognizer.embed((255 * face).byte().permute(1, 2, 0).numpy(), points) for face in pair)
        cosines.append(float(a @ b))
    return float(np.mean(cosines))


@torch.no_grad()
def _expert(video: LandmarkTrack, faces: Tensor, sound: Audio, config: Config, expert: Expert) -> dict[str, float]:
    """Loss (8), mean over windows of T_v frames that begin every EXPERT_STEP frames of 25 a second; offset, confidence.

    The offset of the expert replaces the one by loudness.
    """
    times_s = video.times_s[: len(faces)] + 0.5 / float(video.info.average_rate)
    end = int(np.searchsorted(times_s, len(sound.waveform) / config.mel.sample_rate, side="right"))
    if end < expert.config.frames:
        return {}
    scores = similarities(expert, faces[:end], times_s[:end], log_mel(sound.waveform, config.mel), config.mel)
    if scores is None:
        return {}
    right = torch.from_numpy(scores[::EXPERT_STEP, REACH])
    values = {"expert": float(expert_loss(right, floor=config.loss.expert_floor))}
    offset = best_offset(scores)
    if offset is not None:
        values |= {"expert_c": offset.confidence, "offset": abs(offset.ms), "signed_offset": offset.ms}
    return values


@torch.no_grad()
def _syncnet(
    video: LandmarkTrack, source: LandmarkTrack, sound: Audio, config: Config, syncnet: SyncNet
) -> dict[str, float]:
    """LSE-C and LSE-D of arXiv 2008.10010, of the frames nearest to 25 a second; empty without a window."""
    size, rate = syncnet_module.SIDE, syncnet_module.RATE
    faces = Geometry.of(source, config.face, size, HEAD_MARGIN).faces(video, config.media)
    moments = np.arange(video.times_s[0], video.times_s[: len(faces)][-1] + 1e-6, 1 / rate)
    rows = np.abs(video.times_s[: len(faces), None] - moments).argmin(0)
    first = round(video.times_s[0] * config.mel.sample_rate)
    features = syncnet_module.mfcc(sound.waveform[max(0, first) :])
    try:
        windows = torch.from_numpy(syncnet_module.sound_windows(features, len(rows)))
    except ValueError:
        return {}
    audio = torch.cat([syncnet.embed_audio(part) for part in windows.split(CHUNK)])
    starts = torch.arange(len(windows)).split(CHUNK // 4)  # a window is 3 MB
    clips = (torch.stack([faces[rows[s : s + syncnet_module.FRAMES]] for s in part.tolist()]) for part in starts)
    score = syncnet_module.lip_sync_error(torch.cat([syncnet.embed_lips(clip) for clip in clips]), audio)
    return {"lse_c": score.confidence, "lse_d": score.distance}
