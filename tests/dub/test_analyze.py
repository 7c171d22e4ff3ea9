from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lipdub.affine import transform
from lipdub.config import Config, load_config
from lipdub.dub.analyze import DubPlan, plan_faces, track_faces
from lipdub.errors import NoFaceError
from lipdub.faces.crop import TEMPLATE
from lipdub.faces.references import ReferencePool, Selection
from lipdub.faces.selection import ids_of
from lipdub.media.source import open_source

Box = tuple[float, float, float, float]
FACE = (50, 30, 56)
SIZE = 32


def analyze(video: Path, finder: object, config: Config, *, face: str | tuple = "largest", **options) -> DubPlan:
    source = open_source(video, config.media)
    faces = track_faces(source, finder, config, numbered=ids_of(face) is not None, **options)
    return plan_faces(source, faces, config, face=face)


@pytest.fixture
def look(fake_faces) -> Callable[..., DubPlan]:
    def run(video: Path, config: Config | None = None, ghosts: Sequence[Box] = (), **options: object) -> DubPlan:
        return analyze(video, fake_faces(ghosts), config or load_config("debug"), **options)

    return run


def test_the_crop_is_the_unit_crop_of_the_face(look, face_clip) -> None:
    analysis = look(face_clip(lambda number: [(40 + 2 * number, 30, 56)], n_frames=12))
    (job,) = analysis.jobs
    assert job.matrices.shape == (12, 2, 3) and (job.weight == 1).all() and analysis.passed == {}
    for number, (matrix, landmarks) in enumerate(zip(job.matrices, job.track.landmarks, strict=True)):
        corner = transform(np.array([[40.0 + 2 * number, 30.0], [96.0 + 2 * number, 86.0]]), matrix)
        np.testing.assert_allclose(corner, [[0, 0], [SIZE, SIZE]], atol=1.2)
        np.testing.assert_allclose(transform(landmarks, matrix), TEMPLATE * SIZE, atol=1.0)


def test_times_are_the_middles_of_the_frames(look, face_clip) -> None:
    video = face_clip(lambda number: [FACE], pts=[0, 40, 50, 200, 240, 280], time_base=Fraction(1, 1000))
    times = look(video).times_s
    np.testing.assert_allclose(times[:5], [0.02, 0.045, 0.125, 0.22, 0.26], atol=1e-6)
    assert 0.28 < times[5] < 0.32


def test_references_are_seen_through_the_same_crop(look, face_clip, draw_faces) -> None:
    config = load_config("debug", ["reference.count=3"])
    (job,) = look(face_clip(lambda number: [FACE]), config).jobs
    assert job.references.crops.shape == (3, SIZE, SIZE, 3)
    assert job.references.crops[0][4:-4, 4:-4].mean() > 150  # the bright square fills it
    np.testing.assert_allclose(job.references.landmarks[0], TEMPLATE * SIZE, atol=1.0)


def test_each_shot_has_its_own_job_without_a_fade_at_the_cut(look, face_clip) -> None:
    video = face_clip(
        lambda number: [FACE] if number < 8 else [(20, 20, 48)], n_frames=18, scenes=lambda number: int(number >= 8)
    )
    first, second = look(video).jobs
    assert (first.track.frames, second.track.frames) == (range(0, 8), range(8, 18))
    assert (first.track.shot, second.track.shot) == (0, 1)
    assert (first.weight == 1).all() and (second.weight == 1).all()


def test_a_face_that_comes_and_goes_is_faded(look, face_clip) -> None:
    analysis = look(face_clip(lambda number: [FACE] if 5 <= number < 20 else [], n_frames=40))
    (job,) = analysis.jobs
    assert job.track.frames == range(5, 20)
    np.testing.assert_allclose(job.weight[:4], [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(job.weight[-4:], [1, 0.75, 0.5, 0.25])
    assert analysis.passed == {"no face": 25}


@pytest.mark.parametrize(("start_s", "end_s", "rows"), [(0.2, None, range(5, 20)), (None, 0.4, range(10))])
def test_a_range_that_ends_in_mid_shot_is_faded(look, face_clip, start_s, end_s, rows: range) -> None:
    analysis = look(face_clip(lambda number: [FACE], n_frames=20), start_s=start_s, end_s=end_s)
    (job,) = analysis.jobs
    assert job.track.frames == rows
    edges = (0.25, 1.0) if start_s else (1.0, 0.25)
    assert (job.weight[0], job.weight[-1]) == edges
    assert analysis.passed == {"outside the range": 20 - len(rows)}


def test_the_largest_face_of_each_shot_is_chosen(look, face_clip) -> None:
    video = face_clip(lambda number: [(6, 34, 40), (90, 30, 60)], n_frames=8)
    (job,) = look(video).jobs
    assert job.track.boxes[0, 0] > 80
    assert {j.track.id for j in look(video, face="all").jobs} == {0, 1}
    (job,) = look(video, face=(20.0, 60.0)).jobs
    assert job.track.boxes[0, 2] < 60
    with pytest.raises(NoFaceError, match="none of 2 faces fits --face 70,5"):
        look(video, face=(70.0, 5.0))


def test_a_face_never_clear_is_an_error(look, face_clip) -> None:
    config = load_config("debug", ["face.min_face=45"])  # the square's landmarks are 44 pixels high
    with pytest.raises(NoFaceError, match="smaller than 45 pixels, or never clear"):
        look(face_clip(lambda number: [FACE]), config)


def test_candidates_and_references_are_let_go_when_their_track_ends(look, face_clip, monkeypatch) -> None:
    alive: weakref.WeakSet[ReferencePool] = weakref.WeakSet()
    chosen: list[weakref.ref[Selection]] = []
    most = []

    class Watched(ReferencePool):
        def __init__(self, config) -> None:
            super().__init__(config)
            alive.add(self)
            most.append(len(alive))

        def select(self, seed: int = 0, views: int = 1, covered=None) -> Selection:
            one = super().select(seed, views, covered)
            chosen.append(weakref.ref(one))
            return one

    monkeypatch.setattr("lipdub.dub.analyze.ReferencePool", Watched)
    places = [FACE, (4, 4, 48), (100, 60, 56)]
    video = face_clip(lambda number: [places[number // 10]], n_frames=30, scenes=lambda number: number // 10)
    analysis = look(video)
    assert len(analysis.jobs) == 3 and max(most) == 1
    assert len(chosen) == 3 and not any(each() for each in chosen)  # they lie in a file, one set for each track
    first, *others = [job.references.crops for job in analysis.jobs]
    assert len(first) and all(not np.array_equal(first, other) for other in others)


def test_a_slow_video_may_have_tracks_of_one_frame(look, face_clip) -> None:
    """Also one that is dropped in the frame in which it begins, because another has the same face."""
    video = face_clip(lambda number: [FACE], n_frames=3, rate=Fraction(2))
    (job,) = look(video, ghosts=[(60, 40, 90, 70)], face="all").jobs
    assert job.track.frames == range(3)


def test_what_was_taken_back_is_no_reference(face_clip, fake_faces, monkeypatch) -> None:
    """Landmarks that dream on when the face has gone offer dark crops, which must not stand for the person."""
    monkeypatch.setattr("lipdub.faces.tracker.OTHER_PERSON", 0.0)  # else the cut is seen by the other face

    class Dreaming(fake_faces):
        def landmarks(self, frames, boxes):
            points, confidence = super().landmarks(frames, boxes)
            low, side = boxes[:, None, :2], (boxes[:, 2:] - boxes[:, :2]).max(1)[:, None, None]
            dreamt = (low + TEMPLATE * side).astype(np.float32)
            return np.where(confidence[:, None, None] > 0, points, dreamt), np.full(len(boxes), 0.9, np.float32)

    video = face_clip(lambda number: [FACE] if number < 8 else [], n_frames=30)
    config = load_config("debug", ["reference.count=10"])
    (job,) = analyze(video, Dreaming(), config).jobs
    assert job.track.frames == range(6)  # up to the last search that found it
    assert len(job.references.crops) >= 1 and (job.references.frames < 6).all()
    assert job.references.crops[:, 4:-4, 4:-4].mean((1, 2, 3)).min() > 150


def test_progress_counts_frames(look, face_clip) -> None:
    seen: list[int] = []
    look(face_clip(lambda number: [FACE], n_frames=6), on_frame=seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]


def test_ids_are_those_of_the_whole_video_whatever_the_range(look, face_clip, monkeypatch) -> None:
    monkeypatch.setattr("lipdub.faces.reid.ALIKE", 2.0)  # all squares look alike: nobody is known again
    places = [FACE, (4, 4, 48), (100, 60, 56)]
    video = face_clip(lambda number: [places[number // 10]], n_frames=30, scenes=lambda number: number // 10)
    whole = {job.track.shot: job.track for job in look(video, face="all").jobs}
    middle, last = whole[1], whole[2]
    assert len({track.id for track in whole.values()}) == 3
    (job,) = look(video, face=f"id:{last.id}", start_s=0.6).jobs
    assert (job.track.id, job.track.shot, job.track.frames) == (last.id, 2, range(20, 30))
    assert job.track.opens_shot and (job.weight == 1).all()
    analysis = look(video, face=f"id:{middle.id}", start_s=0.6, end_s=0.76)
    (job,) = analysis.jobs
    assert job.track.frames == range(15, 19) and not job.track.opens_shot
    np.testing.assert_array_equal(job.track.landmarks, middle.landmarks[5:9])
    assert job.weight[0] < 1 and len(job.matrices) == len(job.shapes) == len(job.weight) == 4
    assert analysis.passed == {"outside the range": 26}
    with pytest.raises(NoFaceError, match=f"frames 20 to 29: no face with id {middle.id} .there are: {last.id}"):
        look(video, face=f"id:{middle.id}", start_s=0.8)


def test_a_head_turned_too_far_is_left_alone_and_told(fake_faces, face_clip) -> None:
    config = load_config("debug")
    source = open_source(face_clip(lambda number: [FACE], n_frames=75), config.media)
    faces = track_faces(source, fake_faces(), config)
    (track,) = faces.tracks
    width = float(np.ptp(track.landmarks[0, :17, 0]))
    aside = np.isin(np.arange(75), [*range(20, 35), *range(43, 60)])
    straight = track.landmarks.copy()
    track.landmarks[aside, :17, 0] += 0.6 * width  # beyond the nose nothing is seen

    plan = plan_faces(source, faces, config)
    weight = plan.jobs[0].weight
    first, last = np.flatnonzero(weight == 0)[[0, -1]]
    assert abs(first - 20) <= 2 and abs(last - 59) <= 2 and not weight[first : last + 1].any()  # nothing in between
    np.testing.assert_allclose(weight[first - 4 : first], [1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(weight[last + 1 : last + 5], [0.25, 0.5, 0.75, 1])
    assert plan.passed == {"head turned too far": last + 1 - first} == plan.shots[0].passed

    anyway = plan_faces(source, faces, load_config("debug", ["sync.min_far_side=-1"]))
    assert (anyway.jobs[0].weight == 1).all() and anyway.passed == {}
    track.landmarks[:] = straight
    track.landmarks[:, :17, 0] += 0.6 * width
    with pytest.raises(NoFaceError, match="turned too far") as caught:
        plan_faces(source, faces, config)
    assert "sync.min_far_side" in caught.value.remedy
    track.landmarks[:, :17, 0] -= 0.35 * width  # a quarter: a three-quarter view
    assert (plan_faces(source, faces, config).jobs[0].weight == 1).all()


def test_of_two_faces_the_one_that_speaks_in_the_video_is_dubbed(fake_faces, face_clip) -> None:
    config, spoken = load_config("debug"), np.zeros(80, bool)
    source = open_source(face_clip(lambda number: [(10, 30, 56), (90, 30, 56)], n_frames=80), config.media)
    faces = track_faces(source, fake_faces(), config)
    left, right = sorted(faces.tracks, key=lambda track: float(track.landmarks[0, 0, 0]))
    opens = np.arange(80) // 3 % 2 * 10.0  # pixels
    left.landmarks[:40, 65:68, 1] += opens[:40, None]
    right.landmarks[40:, 65:68, 1] += opens[40:, None]

    def dubbed(silent: np.ndarray, face: str | tuple = "all") -> dict[int, np.ndarray]:
        plan = plan_faces(source, faces, config, face=face, silent=[silent])
        return {job.track.id: job.weight > 0 for job in plan.jobs}

    both = dubbed(spoken)
    assert both[left.id][:40].all() and not both[left.id][50:].any()
    assert not both[right.id][:30].any() and both[right.id][40:].all()
    centre = left.landmarks[0].mean(0).tolist()
    assert dubbed(spoken, tuple(centre))[left.id].all()  # nobody else whose voice this could be
    hushed = dubbed(~spoken, tuple(centre))[left.id]
    assert hushed[:40].all() and not hushed[50:].any()
