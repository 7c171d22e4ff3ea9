"""Pass 1: face tracks and references of the whole video, and the plan of which faces are dubbed in which frames.

References are cropped in a thread of their own, one frame behind; the detector runs in another, a few frames ahead.

Memory holds few frames, the landmarks of every frame (about 550 bytes per face and frame), and at most `reference.pool`
crops of each face in view; nothing else grows with the video. The references of finished tracks (up to 5 MB each) are
in a temporary file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lipdub.affine import finer, transform
from lipdub.config import Config, FaceConfig
from lipdub.dub.active_speaker import SpeakerScores, frames_of, resting
from lipdub.dub.report import Rest, Segment, ShotReport
from lipdub.dub.speaking_style import SpeakingStyle, frame_rate_of, measure_style, smooth_shapes
from lipdub.errors import InputError, NoFaceError
from lipdub.faces.backend import FaceBackend
from lipdub.faces.crop import crop_detail, crop_matrices, crop_matrix, far_side
from lipdub.faces.mouth_shape import mouth_shape, relative_shape
from lipdub.faces.occlusion import OcclusionDetector
from lipdub.faces.references import ReferencePool, ReferenceStore, Selection, nearest_poses
from lipdub.faces.selection import Face, Speaker, format_face, ids_of
from lipdub.faces.track import choose_tracks, edge_fade, smooth, tracks_at
from lipdub.faces.tracker import FaceTracker, Track, TrackedFace
from lipdub.media.source import Source
from lipdub.media.video import SourceFrame
from lipdub.process import shared_cores
from lipdub.threads import BackgroundWorker

REASONS = (  # why a frame is not dubbed
    "outside the range",
    "no face",
    "other or unclear face",
    "nobody speaks",
    "head turned too far",
)


@dataclass(frozen=True)
class FaceJob:
    """One track to dub: a row for every frame from its first on."""

    track: Track
    matrices: NDArray[np.float64]  # (T, 2, 3) display -> face crop, smoothed
    weight: NDArray[np.float32]  # (T,) 0 = unchanged, 1 = dubbed; fades in and out
    stored: Mapping[int, Selection]  # references by track; crops of side D = detail S
    shapes: NDArray[np.float32]  # (T, 8) source mouth shapes relative to `references.rest`, in SHAPE_SCALE; smoothed
    views: NDArray[np.int64]  # (T, K) references of each frame
    detail: int = 1  # D / S: resolution of the warp over that of the generator's faces
    voice: int = 0  # number of the driving audio
    rests: tuple[Rest, ...] = ()  # where nobody speaks, and the face is unchanged
    turned: NDArray[np.bool_] | None = None  # (T,) where the head is turned too far, and the face is unchanged
    drawn_open: bool = False  # whether open-mouth references are drawn, since the source's mouth hardly opens

    @property
    def references(self) -> Selection:
        """Crops of the same person; read from disk each time."""
        return self.stored[self.track.id]

    def crop_matrix(self, row: int) -> NDArray[np.float64]:
        """(2, 3) display pixel -> pixel of the crop of side D."""
        return finer(self.matrices[row], self.detail)


@dataclass(frozen=True)
class FaceTracks:
    """All face tracks in the range, before the selection."""

    starts_s: NDArray[np.float64]  # (F,) time of every frame
    times_s: NDArray[np.float64]  # (F,) middle of every frame
    in_range: NDArray[np.bool_]  # (F,)
    tracks: list[Track]  # in order of appearance, cut to the range
    references: Mapping[int, Selection]  # by track
    detail: dict[int, int]  # by track
    shots: list[int]  # first frame of each shot, or the first that was searched
    turned_s: float | None = None  # time of the first face lying or upside down, which is not tracked


@dataclass(frozen=True)
class DubPlan:
    """Faces and frames to dub, with their crops, references and mouth shapes."""

    times_s: NDArray[np.float64]  # (F,) middle of every frame
    jobs: list[FaceJob]
    passed: dict[str, int]  # frames that are not dubbed, by reason
    shots: tuple[ShotReport, ...] = ()  # the same for each shot
    tracks: tuple[Track, ...] = ()  # of all faces, selected or not
    segments: tuple[Segment, ...] = ()  # faces that are dubbed, and when
    speakers_certain: bool = True  # whether the active speaker is certain, if one was looked for
    rests: tuple[Rest, ...] = ()  # faces that are unchanged because nobody speaks

    def styles(self) -> dict[int, SpeakingStyle]:
        """Speaking style of each person in the dubbed frames, by `track.person`; only of jobs whose mouth opens."""
        parts: dict[int, list[NDArray[np.float32]]] = {job.track.person: [] for job in self.jobs}
        for job in self.jobs:
            if not job.drawn_open:
                parts[job.track.person].append(job.shapes[job.weight > 0])
        return {person: measure_style(shapes, frame_rate_of(self.times_s)) for person, shapes in parts.items()}


def plan_faces(
    source: Source,
    faces: FaceTracks,
    config: Config,
    *,
    face: Face = "largest",
    speakers: Sequence[Speaker] = (),
    score_speakers: Callable[[FaceTracks], SpeakerScores] | None = None,
    silent: Sequence[NDArray[np.bool_]] | None = None,
) -> DubPlan:
    """Plan of which tracked faces are dubbed, and when.

    Args:
        source: the video.
        faces: all of its tracks.
        config: section face.
        face: faces to dub, if there are no `speakers`.
        speakers: faces to dub with each audio; their numbers are the jobs' `voice`.
        score_speakers: compares mouths with the video's own audio; called only if a face is "speaking".
        silent: (F,) of each voice, where it is silent. There, and where another of its faces speaks in the video,
            mouths that rest in the video stay unchanged. None: all are dubbed.

    Raises:
        InputError: overlapping turns of one face.
        NoFaceError: no usable face is selected, or an id does not exist.
    """
    selected = tuple(speakers) or (Speaker(face=face),)
    scores = None
    if score_speakers is not None and any(one.face == "speaking" for one in selected):
        scores = score_speakers(faces)
    jobs, n_selected = [], 0
    for voice, one in enumerate(selected):
        parts = _tracks_of_speaker(one, faces, source, scores)
        n_selected += len(parts)
        may_rest = [None] * len(parts) if silent is None else _rest_masks(parts, faces, config, silent[voice])
        jobs += [_face_job(*part, faces, config, voice, may) for part, may in zip(parts, may_rest, strict=True)]
    rests = tuple(sorted((rest for job in jobs for rest in job.rests), key=lambda rest: rest.first_s))
    turned = np.zeros(len(faces.times_s), bool)
    for job in jobs:
        if job.turned is not None:
            turned[job.track.frames.start : job.track.frames.stop] |= job.turned
    jobs = sorted((job for job in jobs if job.weight.any()), key=lambda job: job.track.first)
    if not jobs:
        what = _why_no_face(len(faces.tracks), n_selected, selected, config)
        remedy = "give another --face (`lipdub faces` lists them), --start or --end"
        if not faces.tracks:
            remedy = "give another --start or --end; --set face.min_face=12 finds smaller faces, nothing finds profiles"
        if turned.any():
            what = "the head is turned too far from the camera wherever it could be dubbed"
            remedy += "; --set sync.min_far_side=-1 dubs it all the same, and the mouth may tear"
        if faces.turned_s is not None:
            what += f"; the face at {faces.turned_s:.2f} s lies or stands on its head"
            remedy = "turn the picture first: ffmpeg -i FILE -vf transpose=1 -c:v libx264 -crf 12 -c:a copy TURNED.mkv "
            remedy += "(transpose=2: to the left; hflip,vflip: by half a turn)"
        raise NoFaceError(f"{_range_of(source, faces)}: {what}", remedy)
    _refuse_overlaps(jobs, faces)
    reasons = _frame_reasons(jobs, faces.tracks, faces.in_range, faces.starts_s, turned)
    return DubPlan(
        times_s=faces.times_s,
        jobs=jobs,
        passed=_count_reasons(reasons),
        shots=_shot_reports(faces, reasons),
        tracks=tuple(faces.tracks),
        segments=tuple(segment for job in jobs for segment in _dubbed_segments(job, faces, config.face)),
        speakers_certain=scores is None or scores.certain,
        rests=rests,
    )


def _tracks_of_speaker(
    speaker: Speaker, faces: FaceTracks, source: Source, scores: SpeakerScores | None
) -> list[tuple[Track, NDArray[np.bool_]]]:
    """Tracks of one speaker, and the frames in which each speaks, (F,) bool."""
    if speaker.face == "speaking":
        if scores is None:
            raise ValueError("plan_faces needs `score_speakers` to find out who speaks")
        return scores.in_turns([frames_of([turn], faces.times_s) for turn in speaker.turns] or None)
    if absent := (ids_of(speaker.face) or frozenset()) - (people := {track.person for track in faces.tracks}):
        there = ", ".join(map(str, sorted(people))) or "none"
        what = f"no face with id {', '.join(map(str, sorted(absent)))} (there are: {there})"
        raise NoFaceError(f"{_range_of(source, faces)}: {what}", "list them with `lipdub faces`")
    if isinstance(speaker.face, tuple) and len(speaker.face) == 3:
        x, y, time_s = speaker.face
        chosen = tracks_at(faces.tracks, (x, y), int(np.searchsorted(faces.starts_s, time_s, "right")) - 1)
    else:
        size = source.video.display_width, source.video.display_height
        chosen = choose_tracks(faces.tracks, speaker.face, size)
    when = frames_of(speaker.turns, faces.times_s)
    return [(track, when) for track in chosen]


def _refuse_overlaps(jobs: list[FaceJob], faces: FaceTracks) -> None:
    """Raise InputError if two voices drive one face at the same time."""
    taken: dict[int, NDArray[np.bool_]] = {}  # by track
    for job in jobs:
        mine, others = job.weight > 0, taken.setdefault(job.track.id, np.zeros(len(job.weight), bool))
        if (mine & others).any():
            at_s = faces.starts_s[job.track.first + int((mine & others).argmax())]
            raise InputError(
                f"overlapping turns for face {job.track.person} at {at_s:.2f} s", "give turns that do not overlap"
            )
        others |= mine


def track_faces(
    source: Source,
    backend: FaceBackend,
    config: Config,
    *,
    occlusions: OcclusionDetector | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
    numbered: bool = False,
    on_frame: Callable[[int], None] = lambda done: None,
) -> FaceTracks:
    """Track all faces in the range. Frames outside are decoded, which their numbering needs.

    Args:
        source: the video.
        backend: detects faces and their landmarks.
        config: sections face, reference and generator.
        occlusions: keeps faces behind hands and the like from being references; None: all may be.
        start_s: where the range begins ...
        end_s: ... and ends.
        numbered: also track faces before the range, so that ids and shots have the same numbers as in the whole
            video.
        on_frame: receives the number of frames that are done.

    Raises:
        InputError: damaged video, or a range that holds no frame.
    """
    starts: list[tuple[float, bool]] = []
    tracker = FaceTracker(backend, config.face, source.rate)

    def searched(frames: Iterable[SourceFrame]) -> Iterator[SourceFrame]:
        for frame in frames:
            starts.append((frame.time_s, frame.in_range))
            if frame.in_range or (numbered and start_s is not None and frame.time_s < start_s):
                yield frame
            else:
                on_frame(frame.index + 1)

    with (
        shared_cores(),
        source.frames(start_s, end_s) as frames,
        BackgroundWorker(1) as worker,
        closing(tracker.follow(searched(frames))) as tracked,
    ):
        collector = _FaceCollector(tracker, config, worker, occlusions)
        for frame, faces in tracked:
            collector.add(frame, faces)
            on_frame(frame.index + 1)
    starts_s, in_range = np.array([start for start, _ in starts]), np.array([inside for _, inside in starts], bool)
    if not in_range.any():
        asked = f"from {start_s or 0:.2f} s on" if end_s is None else f"from {start_s or 0:.2f} s to {end_s:.2f} s"
        there = f"they are at {starts_s[0]:.2f} s to {starts_s[-1]:.2f} s" if len(starts_s) else "it has none"
        raise InputError(f"{source.name} has no frame {asked}: {there}", "check --start and --end")
    tracks = collector.finish(shot_over=bool(in_range[-1]))
    first = int(in_range.argmax())
    return FaceTracks(
        starts_s=starts_s,
        times_s=_frame_middles(starts_s, source.rate),
        in_range=in_range,
        tracks=[_trim_track(track, first) for track in tracks if track.frames.stop > first],
        references=collector.references,
        detail=collector.detail,
        shots=tracker.shots,
        turned_s=next((float(starts_s[index]) for index in tracker.turned if index >= first), None),
    )


def _trim_track(track: Track, first: int) -> Track:
    """A track without its rows before frame `first`."""
    rows = first - track.first
    if rows <= 0:
        return track
    landmarks, confidence = track.landmarks[rows:], track.confidence[rows:]
    return replace(track, first=first, landmarks=landmarks, confidence=confidence, opens_shot=False)


def usable_rows(track: Track, config: FaceConfig) -> NDArray[np.bool_]:
    """(T,) whether a face is clear and large enough to be dubbed."""
    box = track.boxes
    large = (box[:, 2:] - box[:, :2]).max(1) >= config.min_face
    return (track.confidence >= config.min_confidence) & large


def _range_of(source: Source, faces: FaceTracks) -> str:
    first, last = np.flatnonzero(faces.in_range)[[0, -1]]
    return f"{source.name}, frames {first} to {last}"


class _FaceCollector:
    """Collects references of tracked faces in the worker; a finished track keeps only the selected ones.

    `detail` and `references` are complete once the worker has finished, and `finish` was called.
    """

    def __init__(
        self, tracker: FaceTracker, config: Config, worker: BackgroundWorker, occlusions: OcclusionDetector | None
    ) -> None:
        self._tracker, self._worker = tracker, worker
        self._config, self._size, self._margin = config.reference, config.generator.size, config.generator.margin
        self._max_detail = config.sync.detail if config.generator.warp else 1
        self._views = config.sync.references_per_cluster
        self._covered = None if occlusions is None else occlusions.covered
        self.detail: dict[int, int] = {}  # by track
        self._pools: dict[int, ReferencePool] = {}
        self.references = ReferenceStore()  # by track

    def add(self, frame: SourceFrame, faces: Sequence[TrackedFace]) -> None:
        """Collect the references of the frame that was tracked last."""
        following = self._tracker.following
        self._worker.do(lambda: self._offer_references(faces, following, frame))

    def _offer_references(self, tracked_faces: Sequence[TrackedFace], following: set[int], frame: SourceFrame) -> None:
        """Offer the faces of a frame as references; a repeated frame is skipped for tracks that have some."""
        self._finish_ended_tracks(following)
        for seen in tracked_faces:
            matrix = crop_matrix(seen.landmarks, self._size, margin=self._margin)
            if seen.track not in self._pools:
                self._pools[seen.track] = ReferencePool(self._config)
                self.detail[seen.track] = crop_detail(matrix, self._max_detail)
            pool, detail = self._pools[seen.track], self.detail[seen.track]
            if not (frame.still and len(pool)) and pool.wants():
                matrix = finer(matrix, detail)
                pool.push(frame.patch(matrix, self._size * detail), transform(seen.landmarks, matrix))

    def finish(self, *, shot_over: bool) -> list[Track]:
        """Tracks that have references, in order of appearance."""
        tracks = self._tracker.finish(shot_over=shot_over)
        self._finish_ended_tracks(self._tracker.following)
        return [track for track in tracks if track.id in self.references]

    def _finish_ended_tracks(self, following: set[int]) -> None:
        ended = self._pools.keys() - following
        seen = {track.id: int((track.confidence > 0).sum()) for track in self._tracker.tracks} if ended else {}
        for track in ended:
            pool = self._pools.pop(track)
            if track in seen:
                chosen = pool.select(seed=0, views=self._views, covered=self._covered)
                self.references.keep(track, _drop_late_references(chosen, seen[track]))


def _drop_late_references(references: Selection, count: int) -> Selection:
    """References among the first `count` faces; the tracker has withdrawn later ones as false detections."""
    own = references.frames < count
    return references if own.all() or not own.any() else references.only(own)


def _frame_middles(starts: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """Middle of each frame's display time; the last frame lasts as long as the average one."""
    lengths = np.append(np.diff(starts), 1 / rate)
    return starts + np.clip(lengths, 0, 1.0) / 2


def _rest_masks(
    parts: Sequence[tuple[Track, NDArray[np.bool_]]], faces: FaceTracks, config: Config, silent: NDArray[np.bool_]
) -> list[NDArray[np.bool_]]:
    """Frames (F,) in which each face of a voice may rest: the voice is silent, or another of its faces speaks."""
    speaks = np.zeros((len(parts), len(silent)), bool)
    for row, (track, when) in zip(speaks, parts, strict=True):
        span, rate = slice(track.frames.start, track.frames.stop), frame_rate_of(faces.times_s)
        still, _ = resting(_smooth_shapes_of(track, faces, config), np.ones(len(track.landmarks), bool), rate)
        row[span] = ~still & when[span] & usable_rows(track, config.face)
    return [silent | (speaks.sum(0) > row) for row in speaks]  # more than itself: another face speaks


def _smooth_shapes_of(track: Track, faces: FaceTracks, config: Config) -> NDArray[np.float32]:
    """Source mouth shapes (T, 8) of a track relative to rest, smoothed."""
    shapes = relative_shape(mouth_shape(track.landmarks), faces.references[track.id].rest)
    return smooth_shapes(shapes, frame_rate_of(faces.times_s), config.sync.smooth_s)


def _face_job(
    track: Track,
    when: NDArray[np.bool_],
    faces: FaceTracks,
    config: Config,
    voice: int,
    may_rest: NDArray[np.bool_] | None,
) -> FaceJob:
    """Job of a track, dubbed in the frames `when` (F,), except where its mouth rests within `may_rest` (F,)."""
    own_times = faces.times_s[track.first : track.first + len(track.landmarks)]
    generator = config.generator
    matrices = crop_matrices(track.landmarks, own_times, config.face, generator.size, margin=generator.margin)
    rows = slice(track.frames.start, track.frames.stop)
    usable = usable_rows(track, config.face) & when[rows]
    references = faces.references[track.id]
    rate = frame_rate_of(faces.times_s)
    shapes = _smooth_shapes_of(track, faces, config)
    rests: tuple[Rest, ...] = ()
    if may_rest is not None:
        rest, stillness = resting(shapes, may_rest[rows], rate)
        rest &= usable
        usable &= ~rest
        rests = tuple(_rest_segments(track, rest, stillness, faces.starts_s[rows]))
    turned = _turned_rows(track, own_times, config) & usable
    usable &= ~turned
    fade = edge_fade(usable, config.face.fade_frames, fade_in=not track.opens_shot, fade_out=not track.closes_shot)
    return FaceJob(
        track=track,
        matrices=matrices,
        weight=fade,
        stored=faces.references,
        shapes=shapes,
        views=nearest_poses(track.landmarks, references),
        detail=faces.detail[track.id],
        voice=voice,
        rests=rests,
        turned=turned,
        drawn_open=bool(references.drawn.any()),
    )


def _turned_rows(track: Track, times_s: NDArray[np.float64], config: Config) -> NDArray[np.bool_]:
    """(T,) where a head is turned too far to be dubbed, and gaps of at most `face.max_gap_s` between such rows."""
    far = smooth(far_side(track.landmarks), config.face.smooth_s, times_s) < config.sync.min_far_side
    for first, after in pairwise(np.flatnonzero(far)):
        if times_s[after] - times_s[first] <= config.face.max_gap_s:
            far[first:after] = True
    return far


def _rest_segments(
    track: Track, rest: NDArray[np.bool_], stillness: NDArray[np.float64], starts_s: NDArray[np.float64]
) -> Iterator[Rest]:
    rows = np.flatnonzero(rest)
    for part in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        if len(part):
            first_s, last_s = (round(float(starts_s[row]), 3) for row in (part[0], part[-1]))
            confidence = round(float(stillness[part].mean()), 2)
            yield Rest(face=track.person, first_s=first_s, last_s=last_s, confidence=confidence)


def _frame_reasons(
    jobs: list[FaceJob],
    tracks: list[Track],
    in_range: NDArray[np.bool_],
    starts_s: NDArray[np.float64],
    turned: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """(F,) 0 for dubbed frames, else 1 + the index in REASONS."""
    dubbed, seen = np.zeros(len(in_range), bool), np.zeros(len(in_range), bool)
    for track in tracks:
        seen[track.first : track.first + len(track.landmarks)] = True
    quiet = np.zeros(len(in_range), bool)
    for job in jobs:
        dubbed[job.track.first : job.track.first + len(job.weight)] |= job.weight > 0
        for rest in job.rests:
            quiet |= (starts_s >= rest.first_s - 1e-3) & (starts_s <= rest.last_s + 1e-3)
    holds = {  # the first one that holds counts
        "outside the range": ~in_range,
        "": dubbed,
        "head turned too far": turned,
        "nobody speaks": quiet & seen,
        "no face": ~seen,
    }
    number = ("", *REASONS).index
    return np.select(list(holds.values()), [number(reason) for reason in holds], number("other or unclear face"))


def _count_reasons(reasons: NDArray[np.int64]) -> dict[str, int]:
    counts = np.bincount(reasons, minlength=1 + len(REASONS))[1:].tolist()
    return {reason: count for reason, count in zip(REASONS, counts, strict=True) if count}


def _shot_reports(faces: FaceTracks, reasons: NDArray[np.int64]) -> tuple[ShotReport, ...]:
    """Report of each shot; frames before the first that was searched count as one."""
    starts = sorted({0, *faces.shots})
    return tuple(
        ShotReport(
            first_s=round(float(faces.starts_s[first]), 3),
            frames=last - first,
            dubbed=int((reasons[first:last] == 0).sum()),
            passed=_count_reasons(reasons[first:last]),
        )
        for first, last in zip(starts, [*starts[1:], len(reasons)], strict=True)
    )


def _dubbed_segments(job: FaceJob, faces: FaceTracks, config: FaceConfig) -> list[Segment]:
    """Segments that one job dubs; gaps within a track do not split a segment."""
    rows = np.flatnonzero(job.weight > 0)
    starts = faces.starts_s[job.track.first :]
    parted = np.flatnonzero(np.diff(starts[rows]) > config.max_gap_s) + 1
    made = []
    for part in np.split(rows, parted):
        middle = part[len(part) // 2]
        x, y = (job.track.boxes[middle].reshape(2, 2).mean(0)).tolist()
        first_s, last_s, at_s = (round(float(starts[row]), 3) for row in (part[0], part[-1], middle))
        made.append(
            Segment(face=job.track.person, first_s=first_s, last_s=last_s, x=round(x, 1), y=round(y, 1), at_s=at_s)
        )
    return made


def _why_no_face(n_tracks: int, n_selected: int, selected: Sequence[Speaker], config: Config) -> str:
    if n_selected:
        return f"the face is smaller than {config.face.min_face:.0f} pixels, or never clear"
    if n_tracks:
        values = ", ".join(dict.fromkeys(format_face(one.face) for one in selected))
        return f"{f'none of {n_tracks} faces fits' if n_tracks > 1 else 'the only face does not fit'} --face {values}"
    return (
        f"no face of at least {config.face.min_face:.0f} pixels for {config.face.min_track_s:g} s "
        f"(every {config.face.detect_every}th frame was searched, and the first of each shot)"
    )
