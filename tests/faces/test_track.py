from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest

from lipdub.config import FaceConfig
from lipdub.faces.backend import Detections
from lipdub.faces.track import Track, Tracker, choose_tracks, edge_fade, overlap, smooth

RATE = 25.0
Box = tuple[float, float, float, float]


def face(x: float, y: float = 50.0, side: float = 60.0) -> Box:
    return (x, y, x + side, y + side)


def found(*boxes: Box, score: float = 0.9) -> Detections:
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), score, np.float32))


def follow(
    boxes: Callable[[int], list[Box]], count: int, *, every: int = 1, cuts: tuple[int, ...] = (), **settings: float
) -> list[Track]:
    tracker = Tracker(FaceConfig(**settings), RATE)  # type: ignore[arg-type]
    for index in range(count):
        searched = index % every == 0 or index in cuts
        tracker.push(index, index / RATE, found(*boxes(index)) if searched else None, index in cuts)
    return tracker.finish()


def test_boxes_between_detections_are_interpolated() -> None:
    (track,) = follow(lambda i: [face(3.0 * i)], 41, every=5)
    assert (track.first, len(track.boxes), track.shot) == (0, 41, 0)
    np.testing.assert_allclose(track.boxes, [face(3.0 * i) for i in range(41)], atol=1e-4)
    assert track.detected.sum() == 9 and track.detected[::5].all()
    assert track.boxes.dtype == np.float32 and track.scores == pytest.approx(0.9)


def test_a_short_gap_is_filled_and_a_long_one_splits() -> None:
    for gap, tracks in ((11, 1), (20, 2)):  # frames without a face; the limit is half a second
        missing = range(30, 30 + gap)
        got = follow(lambda i, missing=missing: [] if i in missing else [face(2.0 * i)], 90)
        assert len(got) == tracks
        if tracks == 1:
            np.testing.assert_allclose(got[0].boxes[30:41], [face(2.0 * i) for i in missing], atol=1e-3)
            assert not got[0].detected[30:41].any()
        else:
            assert [(t.first, len(t.boxes)) for t in got] == [(0, 30), (50, 40)]
            assert got[0].id != got[1].id


def test_rare_searches_are_no_gap() -> None:
    (track,) = follow(lambda i: [face(100.0)], 61, every=20)  # 0.8 s apart, longer than max_gap_s
    assert len(track.boxes) == 61


def test_two_people_who_cross_keep_their_numbers() -> None:
    def boxes(i: int) -> list[Box]:
        pair = [face(4.0 * i), face(320 - 4.0 * i, 55.0)]
        return pair if i % 2 else pair[::-1]

    for every in (1, 5):
        left, right = sorted(follow(boxes, 81, every=every), key=lambda t: t.boxes[0, 0])
        assert len(left.boxes) == len(right.boxes) == 81
        assert left.boxes[-1, 0] == pytest.approx(320) and right.boxes[-1, 0] == pytest.approx(0)


def test_a_face_hidden_while_crossing_comes_back_as_itself() -> None:
    def boxes(i: int) -> list[Box]:
        return [face(4.0 * i)] if 34 <= i <= 46 else [face(4.0 * i), face(320 - 4.0 * i, 55.0)]

    tracks = follow(boxes, 81, max_gap_s=0.6)
    assert [len(t.boxes) for t in tracks] == [81, 81]
    ends = sorted((t.boxes[0, 0], t.boxes[-1, 0]) for t in tracks)
    assert ends[0] == pytest.approx((0, 320)) and ends[1] == pytest.approx((320, 0))


def test_a_cut_splits_a_track_even_of_a_face_that_stays_in_place() -> None:
    before, after = follow(lambda i: [face(100.0)], 60, every=5, cuts=(32,))
    assert (before.shot, before.first, len(before.boxes)) == (0, 0, 32)  # held from the last search to the cut
    assert (after.shot, after.first, len(after.boxes)) == (1, 32, 28)
    assert not before.detected[31]


def test_a_face_that_left_is_not_held() -> None:
    (track,) = follow(lambda i: [face(100.0)] if i <= 20 else [], 60, every=5)
    assert len(track.boxes) == 21


def test_what_is_small_faint_or_brief_is_left_out() -> None:
    assert follow(lambda i: [face(10.0, side=15.0)], 30) == []
    assert follow(lambda i: [face(10.0)] if i in (3, 4, 5) else [], 30) == []
    tracker = Tracker(FaceConfig(), RATE)
    for index in range(30):
        tracker.push(index, index / RATE, found(face(10.0), score=0.3), False)
    assert tracker.finish() == []


def test_no_face_at_all() -> None:
    assert follow(lambda i: [], 10) == []


def test_memory_is_a_few_bytes_per_detection() -> None:
    tracker = Tracker(FaceConfig(), RATE)
    for index in range(2000):
        tracker.push(index, index / RATE, found(face(100.0)), False)
    (path,) = tracker._open
    assert sys.getsizeof(path.rows) + sys.getsizeof(path.frames) < 40 * 2000


def test_overlap() -> None:
    a = np.array([(0, 0, 10, 10), (0, 0, 0, 0)], np.float32)
    b = np.array([(0, 0, 10, 10), (5, 0, 15, 10), (20, 20, 30, 30)], np.float32)
    np.testing.assert_allclose(overlap(a, b), [[1, 1 / 3, 0], [0, 0, 0]])


def track(number: int, shot: int, first: int, count: int, box: Box) -> Track:
    boxes = np.repeat(np.array([box], np.float32), count, 0)
    return Track(
        id=number, shot=shot, first=first, boxes=boxes, scores=np.ones(count, np.float32), detected=np.ones(count, bool)
    )


def test_largest_is_chosen_per_shot() -> None:
    tracks = [
        track(0, 0, 0, 50, face(0, side=100)),
        track(1, 0, 0, 50, face(200, side=60)),
        track(2, 1, 50, 50, face(0, side=40)),
        track(3, 1, 50, 20, face(200, side=45)),
    ]
    assert [t.id for t in choose_tracks(tracks, "largest", (640, 360))] == [0, 2]
    assert [t.id for t in choose_tracks(tracks, "all", (640, 360))] == [0, 1, 2, 3]


def test_largest_counts_only_what_is_in_the_picture() -> None:
    tracks = [track(0, 0, 0, 50, (-150, 0, 50, 200)), track(1, 0, 0, 50, (200, 0, 320, 120))]
    assert [t.id for t in choose_tracks(tracks, "largest", (640, 360))] == [1]


def test_a_person_who_comes_back_is_chosen_again_and_a_bystander_is_not() -> None:
    tracks = [
        track(0, 0, 0, 50, face(0, side=100)),
        track(1, 0, 80, 50, face(30, side=95)),
        track(2, 0, 52, 20, face(400, side=40)),
        track(3, 0, 45, 30, face(400, side=90)),
    ]
    assert [t.id for t in choose_tracks(tracks, "largest", (640, 360))] == [0, 1]


def test_a_point_chooses_the_face_under_it() -> None:
    tracks = [track(0, 0, 0, 50, face(0, side=100)), track(1, 0, 0, 50, face(200, side=60))]
    assert [t.id for t in choose_tracks(tracks, (230.0, 80.0), (640, 360))] == [1]
    assert choose_tracks(tracks, (600.0, 300.0), (640, 360)) == []


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(ValueError, match="smallest"):
        choose_tracks([], "smallest", (640, 360))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 50])
def test_smoothing_keeps_constants_and_lines(count: int) -> None:
    line = np.stack([np.full(count, 7.25), 3.0 - 0.5 * np.arange(count)], 1)
    np.testing.assert_allclose(smooth(line, 7), line, atol=1e-12)


def test_smoothing_has_no_phase() -> None:
    bump = np.exp(-(((np.arange(41) - 20) / 2.0) ** 2))
    result = smooth(bump, 9)
    np.testing.assert_allclose(result, result[::-1], atol=1e-12)
    assert result.argmax() == 20 and result[20] < 0.95 * bump[20]
    impulse = smooth(np.eye(41)[20], 7)
    assert np.flatnonzero(np.abs(impulse) > 1e-12).tolist() == [17, 18, 19, 20, 21, 22, 23]
    assert impulse.sum() == pytest.approx(1)


def test_smoothing_takes_noise_away() -> None:
    noise = np.random.default_rng(0).normal(0, 1, (500, 3))
    assert smooth(noise, 7).std() < 0.6 * noise.std()


def test_smoothing_knows_uneven_times() -> None:
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.uniform(0.01, 0.08, 60))
    line = 4.0 - 3.0 * times
    np.testing.assert_allclose(smooth(line, 0.3, times), line, atol=1e-9)
    even = smooth(rng.normal(size=60), 7.0)
    assert even.shape == (60,)
    noise = rng.normal(size=60)
    np.testing.assert_allclose(smooth(noise, 0.28, np.arange(60) * 0.04), smooth(noise, 7.0), atol=1e-12)


def test_smoothing_reaches_across_no_wider_than_its_span() -> None:
    step = np.r_[np.zeros(20), np.ones(20)]
    changed = np.flatnonzero(np.abs(smooth(step, 6.9) - step) > 1e-9)
    assert changed.min() >= 17 and changed.max() <= 22
    np.testing.assert_array_equal(smooth(step, 1.0), step)


def test_edge_fade() -> None:
    usable = np.ones(9, bool)
    np.testing.assert_allclose(edge_fade(usable, 3), [0.25, 0.5, 0.75, 1, 1, 1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(edge_fade(usable, 3, fade_in=False), [1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(edge_fade(usable, 3, fade_in=False, fade_out=False), 1)
    np.testing.assert_allclose(edge_fade(usable, 0), 1)
    usable[4] = False
    np.testing.assert_allclose(edge_fade(usable, 1), [0.5, 1, 1, 0.5, 0, 0.5, 1, 1, 0.5])
    assert not edge_fade(np.zeros(5, bool), 3).any()
    assert edge_fade(np.ones(1, bool), 3).tolist() == [0.25]
    assert edge_fade(np.zeros(0, bool), 3).shape == (0,)
