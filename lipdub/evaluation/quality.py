"""Quality of one finished video without a reference: are lips and sound in sync, and is the edit visible?

A video is split into segments of at most `quality.segment_s`: of each shot the largest face, or those that the dub's
report lists. The bundled networks find the faces; nothing is downloaded. Measures of a segment:

    offset, confidence   metrics/sync_offset.py, by the lip-sync expert if one is available, else by loudness
    agreement            metrics.agreement of mouth opening and loudness
    silence              metrics.silence_motion
    jitter               metrics.ring_jitter of the skin round the lips over that of the cheeks above
    seam                 seam.py

Values outside the limits of config.QualityConfig are faults; real footage stays inside (docs/evaluation.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lipdub.affine import finer, transform
from lipdub.config import Config, QualityConfig
from lipdub.dub.analyze import usable_rows
from lipdub.dub.networks import resolve_device
from lipdub.dub.report import Segment
from lipdub.errors import NoFaceError
from lipdub.evaluation.landmark_track import lips_mask
from lipdub.evaluation.measure import Audio
from lipdub.evaluation.networks import find_expert
from lipdub.evaluation.seam import SeamMeter
from lipdub.events import Done, OnEvent, Progress, Stage, ignore
from lipdub.faces.backend import Frame
from lipdub.faces.choose import track_video
from lipdub.faces.crop import crop_matrices, mouth_mask
from lipdub.faces.track import choose_tracks, tracks_at
from lipdub.faces.tracker import Track
from lipdub.media.probe import probe, require_video
from lipdub.media.video import SourceFrame, VideoReader
from lipdub.mel import log_mel
from lipdub.metrics import SHORTEST, agreement, mouth_opening, ring_jitter, silence_motion, silent_frames
from lipdub.metrics.sync_offset import Offset, level_at, offset_by_expert, offset_by_loudness

CHEEKS = (0.36, 0.48)  # rows of the unit crop below the eyes and above everything that is generated
SIDES = (0.2, 0.8)  # its columns
MIN_CHEEKS = 0.5  # grey levels from frame to frame; real footage has 0.7 and more
N_PICTURES = 3  # of a segment
ZOOM = 2  # resolution of pictures over that of crops


@dataclass(frozen=True, kw_only=True)
class SegmentQuality:
    """Measures of one face in one segment; None where a measure is undefined."""

    shot: int  # from 0
    face: int  # the id that `lipdub faces` gives it
    first_s: float  # when its first frame is shown
    last_s: float  # when its last one is
    frames: int
    offset_ms: float | None  # positive: the lips come after their sound; None: too short, or no sound
    confidence: float | None  # of the offset
    sure: bool  # whether the confidence is high enough for the offset
    agreement: float | None  # correlation of mouth opening and loudness
    silence: float | None  # percent
    jitter: float | None  # times the cheeks'
    seam: float | None  # grey levels
    faults: tuple[str, ...]  # values outside of the limits, in words


@dataclass(frozen=True, kw_only=True)
class QualityReport:
    """The outcome of `lipdub eval FILE`."""

    video: str
    frames: int
    by: str  # what the offset was measured by
    segments: tuple[SegmentQuality, ...]
    faults: int  # segments with a fault
    lost: int = 0  # dubbed segments in which no face is found any more


@dataclass(frozen=True)
class Trace:
    """Curves and pictures of one segment, for the page."""

    times_s: NDArray[np.float64]  # (T,)
    openings: NDArray[np.float64]  # (T,)
    level: NDArray[np.float64]  # (T,) loudness
    silent: NDArray[np.bool_]  # (T,)
    pictures: tuple[Frame, ...]


@dataclass(frozen=True)
class Quality:
    """A report, and curves and pictures of each of its segments."""

    report: QualityReport
    traces: tuple[Trace, ...]


@dataclass
class _SegmentFrames:
    """A segment: some rows of a track, and the crops collected of their frames."""

    track: Track
    first: int  # frame number
    matrices: NDArray[np.float64]  # (T, 2, 3)
    face: int  # the id in reports
    faces: list[Frame] = field(default_factory=list)
    pictures: list[Frame] = field(default_factory=list)

    @property
    def frames(self) -> range:
        return range(self.first, self.first + len(self.matrices))

    @property
    def landmarks(self) -> NDArray[np.float32]:
        """(T, 68, 2) display pixels."""
        first = self.first - self.track.first
        return self.track.landmarks[first : first + len(self.matrices)]


def check(
    video: Path,
    config: Config | None = None,
    *,
    expert: str | None = None,
    segments: Sequence[Segment] | None = None,
    device: str = "auto",
    on_event: OnEvent = ignore,
) -> Quality:
    """Measure the quality of one finished video.

    Args:
        video: with picture and sound.
        config: sections face, mel, media and quality.
        expert: weights of the lip-sync expert; None: "expert" of weights.toml, if available.
        segments: the dubbed segments, from the report of a dub; None: the largest face of each shot.
        device: where the face networks run.
        on_event: receives stages and progress.

    Raises:
        InputError: no sound, or a file that cannot be read.
        NoFaceError: no face that is clear and large enough.
        WeightsError: the named expert is not available.
    """
    quality = _Check(Path(video), config or Config(), expert, device, on_event).run(segments)
    on_event(Done(quality.report))
    return quality


class _Check:
    """One video, its faces and its sound."""

    def __init__(self, video: Path, config: Config, expert: str | None, device: str, on_event: OnEvent) -> None:
        self._video, self._on_event = video, on_event
        self._device = resolve_device(device)
        self._expert, self._config = find_expert(expert, config)
        self._info = require_video(probe(video, config.media))
        self._sound = Audio.of(video, self._config)
        self._mel = None if self._expert is None else log_mel(self._sound.waveform, self._config.mel)
        self._size = config.face.size if self._expert is None else self._expert.config.size

    def run(self, segments: Sequence[Segment] | None) -> Quality:
        """Measure dubbed segments. Ids may differ in the dub, so faces are found by their position."""
        self._on_event(Stage("faces", 1, 2, self._info.frames))
        on_frame = lambda done: self._on_event(Progress(done))  # noqa: E731
        tracks, times_s = track_video(self._video, self._info, self._config, self._device, on_frame=on_frame)
        parts, lost = [], 0
        if segments is None:
            largest = choose_tracks(tracks, "largest", (self._info.display_width, self._info.display_height))
            parts = [part for track in largest for part in self._split_track(track, times_s)]
        for segment in segments or ():
            frame = int(np.abs(times_s - segment.at_s).argmin())
            until_s = segment.last_s + 0.5 / float(self._info.average_rate)
            there = tracks_at(tracks, (segment.x, segment.y), frame)
            pieces = [p for track in there for p in self._split_track(track, times_s, segment.first_s - 1e-3, until_s)]
            parts += [replace(part, face=segment.face) for part in pieces if len(part.matrices) > 1]
            lost += not pieces
        if not parts:
            what = f"{self._video}: no face is clear and large enough to be judged"
            raise NoFaceError(what, "give a video of a larger face, seen from the front")
        judged = sorted(self._judge_segments(parts, times_s), key=lambda pair: (pair[0].first_s, pair[0].face))
        measured = tuple(quality for quality, _ in judged)
        report = QualityReport(
            video=str(self._video),
            frames=len(times_s),
            by="loudness" if self._expert is None else "the lip-sync expert",
            segments=measured,
            faults=sum(bool(quality.faults) for quality in measured),
            lost=lost,
        )
        return Quality(report, tuple(trace for _, trace in judged))

    def _split_track(
        self, track: Track, times_s: NDArray[np.float64], start_s: float = -math.inf, end_s: float = math.inf
    ) -> Iterator[_SegmentFrames]:
        """Segments of a track, of equal length up to the limit, without unusable rows at its ends."""
        times = times_s[track.first :][: len(track.landmarks)]
        usable = usable_rows(track, self._config.face) & (times >= start_s) & (times < end_s)
        if not usable.any():
            return
        rows = np.arange(usable.argmax(), len(usable) - usable[::-1].argmax())
        matrices = crop_matrices(track.landmarks, times, self._config.face, self._size)
        count = max(1, math.ceil((times[rows[-1]] - times[rows[0]]) / self._config.quality.segment_s))
        for part in np.array_split(rows, count):
            yield _SegmentFrames(track, track.first + int(part[0]), matrices[part], track.person)

    def _judge_segments(
        self, parts: list[_SegmentFrames], times_s: NDArray[np.float64]
    ) -> Iterator[tuple[SegmentQuality, Trace]]:
        """Read the video again; each segment is measured after its last frame, and its crops are freed."""
        self._on_event(Stage("judge", 2, 2, len(times_s)))
        waiting = sorted(parts, key=lambda part: part.first)
        active: list[_SegmentFrames] = []
        with VideoReader(self._video, self._info, config=self._config.media) as reader:
            for frame in reader:
                while waiting and waiting[0].first == frame.index:
                    active.append(waiting.pop(0))
                for part in active:
                    self._add_frame(part, frame)
                for part in [part for part in active if part.frames[-1] == frame.index]:
                    active.remove(part)
                    yield self._judge(part, times_s[part.first :][: len(part.matrices)])
                self._on_event(Progress(frame.index + 1))

    def _add_frame(self, part: _SegmentFrames, frame: SourceFrame) -> None:
        row = frame.index - part.first
        part.faces.append(frame.patch(part.matrices[row], self._size))
        if row in np.linspace(0, len(part.matrices) - 1, N_PICTURES + 2, dtype=int)[1:-1]:
            part.pictures.append(frame.patch(finer(part.matrices[row], ZOOM), ZOOM * self._size))

    def _judge(self, part: _SegmentFrames, starts_s: NDArray[np.float64]) -> tuple[SegmentQuality, Trace]:
        config, sound = self._config, self._sound
        times_s = starts_s + 0.5 / float(self._info.average_rate)  # middle of each frame
        openings = mouth_opening(part.landmarks)
        level = level_at(sound.level, times_s, config.mel)
        silent = silent_frames(sound.waveform, config.mel.sample_rate, starts_s)
        faces = np.stack(part.faces)
        marks = np.stack([transform(p, m) for p, m in zip(part.landmarks, part.matrices, strict=True)])
        offset = self._offset(openings, faces, times_s)
        agrees = agreement(openings, level)[0] if len(openings) >= SHORTEST else math.nan
        measured = {
            "offset_ms": math.nan if offset is None else offset.ms,
            "confidence": math.nan if offset is None else offset.confidence,
            "agreement": agrees,
            "silence": silence_motion(openings, silent),
            "jitter": jitter(faces, marks),
            "seam": seam(faces, marks),
        }
        values = {key: round(value, 3) if math.isfinite(value) else None for key, value in measured.items()}
        seconds = float(starts_s[-1] - starts_s[0])
        segment = SegmentQuality(
            shot=part.track.shot,
            face=part.face,
            first_s=round(float(starts_s[0]), 3),
            last_s=round(float(starts_s[-1]), 3),
            frames=len(faces),
            **values,
            sure=is_sure(values["confidence"], seconds, config.quality, self._expert is not None),
            faults=tuple(faults_of(values, seconds, config.quality, self._expert is not None)),
        )
        return segment, Trace(times_s, openings, level, silent, tuple(part.pictures))

    def _offset(
        self, openings: NDArray[np.float64], faces: NDArray[np.uint8], times_s: NDArray[np.float64]
    ) -> Offset | None:
        if self._expert is None or self._mel is None:
            return offset_by_loudness(openings, times_s, self._sound.level, self._config.mel)
        return offset_by_expert(self._expert, as_tensor(faces), times_s, self._mel, self._config.mel)


def as_tensor(faces: NDArray[np.uint8]) -> torch.Tensor:
    """(N, S, S, 3) -> (N, 3, S, S) in [0, 1]."""
    return torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 255


def jitter(faces: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> float:
    """`ring_jitter` of the skin round the lips over that of the cheeks above it; NaN where there is none.

    Cheeks of a still picture hardly change: they count as MIN_CHEEKS, the least of real footage. Faces are (T, S, S,
    3), landmarks (T, 68, 2) in their pixels.
    """
    size = faces.shape[1]
    ring = np.stack([mouth_mask(points, size) * (1 - lips_mask(points, size)) for points in landmarks])
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    cheeks = (CHEEKS[0] < y) & (y < CHEEKS[1]) & (SIDES[0] < x) & (x < SIDES[1])
    pictures = as_tensor(faces)
    still = torch.from_numpy(np.broadcast_to(cheeks.astype(np.float32), ring.shape).copy())[:, None]
    below, above = (float(ring_jitter(pictures, mask)) for mask in (torch.from_numpy(ring)[:, None], still))
    return below / max(above, MIN_CHEEKS) if above > 0 else math.nan


def seam(faces: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> float:
    """The largest kink of `SeamMeter`, in grey levels."""
    meter = SeamMeter(faces.shape[1])
    for face, points in zip(faces, landmarks, strict=True):
        meter.add(face, points)
    return meter.kink()


def is_sure(confidence: float | None, seconds: float, limits: QualityConfig, by_expert: bool) -> bool:
    """Whether an offset is significant: confidence by chance falls with the square root of the length."""
    threshold = (limits.min_expert_confidence if by_expert else limits.min_confidence) * math.sqrt(
        4.0 / max(seconds, 0.1)
    )
    return confidence is not None and confidence > threshold


def faults_of(segment: Mapping[str, float | None], seconds: float, limits: QualityConfig, by_expert: bool) -> list[str]:
    """Values outside of the limits, in words; the offset of a short segment needs a higher confidence."""
    faults = []
    offset = segment["offset_ms"]
    believed = is_sure(segment["confidence"], seconds, limits, by_expert)
    if offset is not None and believed and abs(offset) > limits.max_offset_ms:
        faults.append(f"lips {abs(offset):.0f} ms {'after' if offset > 0 else 'before'} their sound")
    for key, limit, text in (
        ("silence", limits.max_silence, "mouth moves in silence ({:.0f} % of its motion in speech)"),
        ("jitter", limits.max_jitter, "skin round the lips flickers ({:.1f} times the cheeks)"),
        ("seam", limits.max_seam, "visible border of the mouth ({:.1f} grey levels)"),
    ):
        value = segment[key]
        if value is not None and value > limit:
            faults.append(text.format(value))
    return faults
