from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from lipdub.config import FaceConfig
from lipdub.dub.demo import portrait_frames
from lipdub.faces import tracker as tracker_module
from lipdub.faces.backend import Boxes, Detections, Frame, Landmarks
from lipdub.faces.choose import face_backend
from lipdub.faces.crop import TEMPLATE
from lipdub.faces.tracker import FaceTracker, Track

RATE = 25.0
SIZE = (320, 200)
CONFIG = FaceConfig()
Marker = tuple[float, float, float]


class Picture:
    """A `View` of a picture."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame

    def thumbnail(self, max_side: int) -> tuple[Frame, float]:
        scale = min(1.0, max_side / max(self.frame.shape))
        size = round(self.frame.shape[1] * scale), round(self.frame.shape[0] * scale)
        return cv2.resize(self.frame, size, interpolation=cv2.INTER_AREA), scale

    def patch(self, matrix: np.ndarray, size: int) -> Frame:
        return cv2.warpAffine(self.frame, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)


class Numbered(Picture):
    """A `NumberedView` of a picture."""

    def __init__(self, index: int, frame: Frame) -> None:
        super().__init__(frame)
        self.index = index


class Watch:
    """Follows drawn faces; keeps what was seen of each frame."""

    def __init__(self, backend, draw, config: FaceConfig) -> None:
        self.backend, self._draw = backend, draw
        self.follower = FaceTracker(backend, config, RATE)
        self.seen: list[list[int]] = []  # numbers of the tracks seen, by frame

    def __call__(
        self, n_frames: int, markers: Callable[[int], Sequence[Marker]], scene: Callable[[int], int] = lambda n: 0
    ) -> list[Track]:
        for number in range(n_frames):
            view = Picture(self._draw(SIZE, markers(number), number, scene(number)))
            self.seen.append([sighting.track for sighting in self.follower.push(number, view)])
        return self.follower.finish()


@pytest.fixture
def watch(fake_faces, draw_faces) -> Callable[..., Watch]:
    def make(config: FaceConfig = CONFIG, **ghosts: object) -> Watch:
        return Watch(fake_faces(**ghosts), draw_faces, config)

    return make


def points(marker: Marker) -> np.ndarray:
    return np.array(marker[:2]) - 0.5 + TEMPLATE * marker[2]


def moving(number: int) -> Marker:
    return 30 + 4.0 * number, 40 + 2.0 * number, 70.0


def there(second_shot: bool) -> Marker:
    return (180.0, 90.0, 80.0) if second_shot else (60.0, 50.0, 70.0)


def off(track: Track, where: Callable[[int], Marker]) -> float:
    """Largest distance of a track's landmarks from the truth, pixels, where it was seen."""
    truth = np.stack([points(where(number)) for number in track.frames])
    return float(np.abs(track.landmarks - truth)[track.confidence > 0].max())


def test_a_moving_face_is_followed_to_the_pixel(watch) -> None:
    watching = watch()
    (track,) = watching(20, lambda number: [moving(number)])
    assert track.frames == range(20) and track.landmarks.dtype == np.float32
    assert off(track, moving) < 1.5
    np.testing.assert_allclose(track.confidence, 0.9)
    assert (track.shot, track.opens_shot, track.closes_shot) == (0, True, True)
    assert watching.seen == [[0]] * 20


def test_boxes_go_round_the_landmarks(watch) -> None:
    (track,) = watch()(6, lambda number: [moving(number)])
    np.testing.assert_array_equal(track.boxes[3, :2], track.landmarks[3].min(0))
    np.testing.assert_array_equal(track.boxes[3, 2:], track.landmarks[3].max(0))


def test_a_large_picture_is_searched_small_and_followed_at_full_size(watch, draw_faces) -> None:
    watching = watch(replace(CONFIG, detect_side=100))
    (track,) = watching(12, lambda number: [moving(number)])
    assert off(track, moving) < 1.5


@pytest.mark.parametrize("every", [1, 5, 7])
def test_the_detector_runs_now_and_then_while_all_is_well(watch, every: int) -> None:
    watching = watch(replace(CONFIG, detect_every=every))
    watching(21, lambda number: [moving(number)])
    assert watching.backend.n_detections == watching.follower.n_detections == -(-21 // every)


def test_the_detector_runs_on_every_frame_while_a_face_is_missing(watch) -> None:
    watching = watch()
    (track,) = watching(20, lambda number: [] if 7 <= number < 10 else [moving(number)])
    assert track.frames == range(20)
    # frames 0 and 5; 8, 9 and 10 because a face was missing in the frame before; 15
    assert watching.backend.n_detections == 6


def test_a_gap_is_filled_and_marked(watch) -> None:
    (track,) = watch()(20, lambda number: [] if 8 <= number < 12 else [moving(number)])
    assert track.frames == range(20)
    assert (track.confidence == 0).nonzero()[0].tolist() == [8, 9, 10, 11]
    between = track.landmarks[7] + (track.landmarks[12] - track.landmarks[7]) * (2 / 5)
    np.testing.assert_allclose(track.landmarks[9], between, atol=1e-3)


def test_a_long_gap_ends_the_track(watch) -> None:
    gap = round(CONFIG.max_gap_s * RATE) + 4
    first, second = watch()(20 + gap, lambda n: [] if 10 <= n < 10 + gap else [(60.0, 50.0, 70.0)])
    assert first.frames == range(10) and second.first >= 10 + gap
    assert first.id != second.id and first.shot == second.shot == 0
    assert (first.opens_shot, first.closes_shot) == (True, False)
    assert (second.opens_shot, second.closes_shot) == (False, True)


def test_a_cut_ends_the_track(watch) -> None:
    watching = watch()
    first, second = watching(16, lambda number: [there(number >= 7)], lambda number: int(number >= 7))
    assert (first.frames, second.frames) == (range(7), range(7, 16))
    assert (first.shot, second.shot) == (0, 1)
    assert all(track.opens_shot and track.closes_shot for track in (first, second))
    assert watching.backend.n_detections == 2 + 2  # frames 0 and 5; 7, the first of its shot, and 12


@pytest.mark.parametrize("another", [True, False])
def test_in_doubt_the_faces_say_whether_that_was_a_cut(
    fake_faces, draw_faces, monkeypatch: pytest.MonkeyPatch, another: bool
) -> None:
    """Two people filmed alike, or one on whom the light changes: the same layout in other colours."""
    looks = np.eye(2, 2124, dtype=np.float16)
    monkeypatch.setattr(
        tracker_module, "pattern", lambda face: looks[int(another and face[..., 2].mean() < face[..., 0].mean() - 100)]
    )
    follower = FaceTracker(fake_faces(), CONFIG, RATE)
    for number in range(30):
        frame = draw_faces(SIZE, [(60, 50, 70)], number, 0)
        frame[..., 2] = frame[..., 2] * (1.0 if number < 15 else 0.5)
        follower.push(number, Picture(frame))
    tracks = follower.finish()
    if another:
        assert follower.shots == [0, 15] and [track.frames for track in tracks] == [range(15), range(15, 30)]
        assert len({track.person for track in tracks}) == 2
    else:
        assert follower.shots == [0] and [track.frames for track in tracks] == [range(30)]


def test_a_face_that_comes_later_neither_opens_nor_is_missed(watch) -> None:
    watching = watch()
    still, late = watching(20, lambda n: [(20.0, 50.0, 70.0)] + ([(200.0, 60.0, 60.0)] if n >= 6 else []))
    assert (still.frames, late.frames) == (range(20), range(10, 20))
    assert (late.opens_shot, late.closes_shot) == (False, True)
    assert watching.seen[-1] == [0, 1]


def test_two_faces_that_cross_keep_their_numbers(watch) -> None:
    def left(number: int) -> Marker:
        return 10 + 10.0 * number, 12.0, 60.0

    def right(number: int) -> Marker:
        return 240 - 10.0 * number, 85.0, 64.0

    watching = watch()
    tracks = watching(24, lambda number: [left(number), right(number)])
    assert [track.frames for track in tracks] == [range(24)] * 2
    upper, lower = sorted(tracks, key=lambda track: float(track.landmarks[0, :, 1].mean()))
    assert off(upper, left) < 1.5 and off(lower, right) < 1.5


def test_two_tracks_never_share_a_face(watch) -> None:
    def behind(number: int) -> Marker:
        return 20 + 8.0 * number, 50.0, 60.0

    watching = watch()
    tracks = watching(30, lambda n: [(120.0, 50.0, 70.0)] if 5 <= n < 22 else [behind(n), (120.0, 50.0, 70.0)])
    front = [track for track in tracks if track.frames == range(30)]
    assert len(front) == 1 and off(front[0], lambda number: (120.0, 50.0, 70.0)) < 1.5
    others = [track for track in tracks if track is not front[0]]
    assert len(others) == 2 and others[0].frames.stop <= others[1].first
    for track in others:
        seen = [number for number in track.frames if not 5 <= number < 22]
        centres = track.landmarks[[number - track.first for number in seen]].mean(1)
        truth = np.stack([points(behind(number)).mean(0) for number in seen])
        assert np.abs(centres - truth).max() < 2


def test_a_false_detection_is_dropped_at_once(watch) -> None:
    watching = watch(ghosts=[(220, 120, 280, 190)])
    (track,) = watching(12, lambda number: [(20.0, 30.0, 70.0)])
    assert track.frames == range(12) and off(track, lambda number: (20.0, 30.0, 70.0)) < 1.5
    assert watching.backend.n_detections == 3  # it does not count as a face that went missing
    watching = watch(ghosts=[(220, 120, 280, 190)])
    assert watching(6, lambda number: []) == []
    assert watching.seen == [[]] * 6 and watching.follower.following == set()


def test_what_is_small_or_doubtful_is_not_followed(watch) -> None:
    assert watch()(8, lambda number: [(60.0, 50.0, 18.0)]) == []
    assert watch(replace(CONFIG, min_score=0.95))(8, lambda number: [moving(number)]) == []
    assert watch(replace(CONFIG, min_confidence=0.95))(8, lambda number: [moving(number)]) == []


def test_short_tracks_are_left_out(watch) -> None:
    least = round(CONFIG.min_track_s * RATE)
    assert watch()(8, lambda number: [moving(number)] if number < least - 1 else []) == []
    (track,) = watch()(8, lambda number: [moving(number)] if number < least else [])
    assert len(track.frames) == least


@pytest.mark.parametrize("n_frames", [1, 2])
def test_a_video_that_is_shorter_than_any_track_has_its_faces(watch, n_frames: int) -> None:
    assert n_frames < round(CONFIG.min_track_s * RATE)
    (track,) = watch()(n_frames, lambda number: [moving(number)])
    assert len(track.frames) == n_frames
    assert watch()(n_frames, lambda number: []) == []


def test_a_range_of_a_shot_neither_opens_nor_closes_it(fake_faces, draw_faces) -> None:
    follower = FaceTracker(fake_faces(), CONFIG, RATE)
    for number in range(40, 50):
        follower.push(number, Picture(draw_faces(SIZE, [(60.0, 50.0, 70.0)], number)))
    (track,) = follower.finish(shot_over=False)
    assert track.frames == range(40, 50)
    assert (track.opens_shot, track.closes_shot) == (False, False)


def test_ended_tracks_can_be_had_before_the_end(watch, draw_faces) -> None:
    watching = watch()
    follower = watching.follower
    for number in range(12):
        follower.push(number, Picture(draw_faces(SIZE, [there(number >= 8)], number, int(number >= 8))))
        assert follower.following == {int(number >= 8)}
        assert [track.id for track in follower.tracks] == ([0] if number >= 8 else [])


class Blind:
    """A backend whose landmarks are not a number, but sure of it, in some calls."""

    name = "blind"

    def __init__(self, backend, calls: set[int]) -> None:
        self._backend, self._calls, self._n = backend, calls, 0

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        return self._backend.detect(frames)

    def landmarks(self, frames: Sequence[Frame], boxes: Boxes) -> tuple[Landmarks, np.ndarray]:
        points, confidence = self._backend.landmarks(frames, boxes)
        self._n += 1
        return (points * np.float32(np.nan), confidence) if self._n in self._calls else (points, confidence)


def test_a_face_that_has_gone_does_not_close_the_shot(watch) -> None:
    (track,) = watch()(14, lambda number: [moving(number)] if number < 11 else [])
    assert track.frames == range(11)
    assert (track.opens_shot, track.closes_shot) == (True, False)


class Picky:
    """A backend whose landmarks need a box that is well aimed."""

    name = "picky"

    def __init__(self, backend) -> None:
        self._backend = backend

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        return self._backend.detect(frames)

    def landmarks(self, frames: Sequence[Frame], boxes: Boxes) -> tuple[Landmarks, np.ndarray]:
        points, confidence = self._backend.landmarks(frames, boxes)
        away = np.abs(points[:, 27, 0] - (boxes[:, 0] + boxes[:, 2]) / 2) / (boxes[:, 3] - boxes[:, 1])
        return points, np.where(away < 0.2, confidence, 0).astype(np.float32)


def test_a_face_that_moved_while_missing_is_found_again(fake_faces, draw_faces) -> None:
    def jumping(number: int) -> Marker:
        return (60.0, 50.0, 70.0) if number < 8 else (82.0, 50.0, 70.0)

    watching = Watch(Picky(fake_faces()), draw_faces, CONFIG)
    (track,) = watching(16, lambda number: [jumping(number)])
    assert track.frames == range(16) and off(track, jumping) < 1.5
    assert (track.confidence == 0).nonzero()[0].tolist() == [8]  # seen again in the next frame, and by its number


class Blinking:
    """A backend whose detector is blind at times to what lies right of `left`."""

    name = "blinking"

    def __init__(self, backend, *, blind: range, left: float = 0.0) -> None:
        self._backend, self._blind, self._left = backend, blind, left
        self._frame = self.n_detections = 0

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        self.n_detections += 1
        (found,) = self._backend.detect(frames)
        keep = (found.boxes[:, 0] < self._left) | (self._frame not in self._blind)
        return [Detections(found.boxes[keep], found.scores[keep])]

    def landmarks(self, frames: Sequence[Frame], boxes: Boxes) -> tuple[Landmarks, np.ndarray]:
        self._frame += 1
        return self._backend.landmarks(frames, boxes)


def test_a_face_that_the_detector_misses_for_a_while_is_kept(fake_faces, draw_faces) -> None:
    watching = Watch(Blinking(fake_faces(), blind=range(8, 18)), draw_faces, CONFIG)
    (track,) = watching(30, lambda number: [moving(number)])
    assert track.frames == range(30) and off(track, moving) < 1.5


def test_searches_for_another_face_do_not_hurry_the_end(fake_faces, draw_faces) -> None:
    """While one is missing every frame is searched; the other is not given up sooner for that."""
    watching = Watch(Blinking(Picky(fake_faces()), blind=range(6, 14), left=100.0), draw_faces, CONFIG)
    tracks = watching(24, lambda n: [(200.0, 50.0, 70.0)] + ([(20.0, 50.0, 70.0)] if not 7 <= n < 12 else []))
    assert [track.frames for track in tracks] == [range(24)] * 2
    assert watching.backend.n_detections > 8


def test_landmarks_that_are_not_numbers_count_as_missing(fake_faces, draw_faces) -> None:
    watching = Watch(Blind(fake_faces(), {4, 5}), draw_faces, CONFIG)
    (track,) = watching(10, lambda number: [moving(number)])
    assert (track.confidence == 0).nonzero()[0].tolist() == [3, 4]
    assert np.isfinite(track.landmarks).all()


class Stubborn(Blind):
    """A backend whose landmarks go on seeing a face that the detector no longer finds."""

    name = "stubborn"

    def __init__(self, backend, leaves: int) -> None:
        super().__init__(backend, set())
        self._leaves, self._last = leaves, None

    def detect(self, frames: Sequence[Frame]) -> list[Detections]:
        gone = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        return [gone] if self._n >= self._leaves else self._backend.detect(frames)

    def landmarks(self, frames: Sequence[Frame], boxes: Boxes) -> tuple[Landmarks, np.ndarray]:
        self._n += 1
        if self._n <= self._leaves:
            self._last = self._backend.landmarks(frames, boxes)
        return self._last


def test_landmarks_alone_do_not_keep_a_face(fake_faces, draw_faces) -> None:
    watching = Watch(Stubborn(fake_faces(), leaves=12), draw_faces, CONFIG)
    (track,) = watching(40, lambda number: [there(False)])
    assert track.frames == range(11)  # frame 10 was the last in which a search found it
    assert not track.closes_shot and watching.seen[20:25] == [[0]] * 5 and watching.seen[26] == []
    assert not watching.follower.following


def scenes(draw_faces) -> Iterator[Numbered]:
    """A face that leaves and returns elsewhere, a second one from frame 9 on, a cut at frame 31."""
    for number in range(50):
        first = [(60.0, 50.0, 70.0)] if number < 8 else [(82.0, 50.0, 70.0)] if not 12 <= number < 15 else []
        faces = first + [(200.0, 60.0, 80.0)] * (number >= 9) if number < 31 else [there(True)]
        yield Numbered(number, draw_faces(SIZE, faces, number, int(number >= 31)))


def test_following_gives_what_pushing_gives(fake_faces, draw_faces) -> None:
    pushed, followed = (FaceTracker(Picky(fake_faces()), CONFIG, RATE) for _ in range(2))
    one_by_one = [pushed.push(view.index, view) for view in scenes(draw_faces)]
    together = list(followed.follow(scenes(draw_faces)))
    assert [view.index for view, _ in together] == list(range(50)) and pushed.shots == followed.shots == [0, 31]
    for ours, theirs in zip(one_by_one, [faces for _, faces in together], strict=True):
        assert [face.track for face in ours] == [face.track for face in theirs]
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one.landmarks, other.landmarks)
    assert [track.frames for track in pushed.finish()] == [track.frames for track in followed.finish()]
    assert pushed.n_detections == followed.n_detections > 10


def test_faces_of_a_picture_that_is_shown_on_stay_without_being_looked_for(fake_faces, draw_faces) -> None:
    shown = [*range(7), *[6] * 40, *range(7, 20)]
    read: list[int] = []

    class Watched(Numbered):
        def patch(self, matrix: np.ndarray, size: int) -> Frame:
            read.append(self.index)
            return super().patch(matrix, size)

    follower = FaceTracker(fake_faces(), CONFIG, RATE)
    views = (Watched(place, draw_faces(SIZE, [moving(number)], number, 0)) for place, number in enumerate(shown))
    seen = [faces for _, faces in follower.follow(views)]
    assert not {*read} & {*range(7, 47)} and {*read} >= {*range(7), *range(47, 60)}
    assert follower.n_detections == pytest.approx(20 / CONFIG.detect_every, abs=1)
    (track,) = follower.finish()
    assert track.frames == range(60) and all(len(faces) == 1 for faces in seen)
    np.testing.assert_array_equal(track.landmarks[7:47], np.repeat(track.landmarks[6:7], 40, 0))
    np.testing.assert_allclose(track.landmarks[59], points(moving(19)), atol=1)


def test_the_next_detection_is_made_while_the_faces_before_it_are_tracked(fake_faces, draw_faces) -> None:
    events: list[str] = []
    tracked = threading.Event()

    class Slow(fake_faces):
        def detect(self, frames):
            if self.n_detections:  # that of frame 5 does not end before frame 4 is done
                assert tracked.wait(20)
            events.append(f"detected in {threading.current_thread().name}")
            return super().detect(frames)

    follower = FaceTracker(Slow(), CONFIG, RATE)
    taken: list[int] = []

    def views() -> Iterator[Numbered]:
        for number in range(8):
            taken.append(number)
            yield Numbered(number, draw_faces(SIZE, [moving(number)], number, 0))

    for view, faces in follower.follow(views()):
        events.append(str(view.index))
        assert len(faces) == 1 and len(taken) <= view.index + 1 + tracker_module.LOOKAHEAD
        if view.index == 4:
            tracked.set()
    first, *others, second = events[:7]
    assert others == ["0", "1", "2", "3", "4"] and first == second != f"detected in {threading.current_thread().name}"


def test_an_error_of_the_detector_or_of_the_frames_comes_through(fake_faces, draw_faces) -> None:
    class Broken(fake_faces):
        def detect(self, frames):
            if self.n_detections == 2:
                raise OSError("the detector broke")
            return super().detect(frames)

    def views(n_frames: int) -> Iterator[Numbered]:
        for number in range(n_frames):
            yield Numbered(number, draw_faces(SIZE, [moving(number)], number, 0))
        raise ValueError("no more frames")

    before = threading.active_count()
    with pytest.raises(OSError, match="the detector broke"):
        list(FaceTracker(Broken(), CONFIG, RATE).follow(views(20)))
    with pytest.raises(ValueError, match="no more frames"):
        list(FaceTracker(fake_faces(), CONFIG, RATE).follow(views(3)))
    stopped = FaceTracker(fake_faces(), CONFIG, RATE).follow(views(20))
    assert next(stopped)[0].index == 0
    stopped.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_face_on_its_head_or_lying_is_told_and_never_followed(turns: int) -> None:
    """The detector sees a face in a forehead, and the landmark network believes it."""
    backend = face_backend("builtin", CONFIG, torch.device("cpu"))
    follower = FaceTracker(backend, CONFIG, RATE)
    for index, frame in enumerate(portrait_frames(0.8)):
        follower.push(index, Picture(np.ascontiguousarray(np.rot90(frame, turns))))
    high, wide = frame.shape[:2]
    x, y = wide / 2, high / 2 - 50  # the middle of the face, as it is upright
    middle = {0: (x, y), 1: (y, wide - x), 2: (wide - x, high - y), 3: (high - y, x)}[turns]
    faces = [t for t in follower.finish() if np.abs(t.landmarks.mean((0, 1)) - middle).max() < 100]
    assert (len(faces), bool(follower.turned)) == ((1, False) if turns == 0 else (0, True))


@pytest.mark.parametrize("rises", [True, False])
def test_a_tilted_face_that_is_followed_later_in_the_shot_is_not_told(rises: bool) -> None:
    follower = FaceTracker(face_backend("builtin", CONFIG, torch.device("cpu")), CONFIG, RATE)
    for index, frame in enumerate(portrait_frames(1.6)):
        middle = frame.shape[1] / 2, frame.shape[0] / 2 - 50
        tilt = cv2.getRotationMatrix2D(middle, max(0, 90 - 4 * index) if rises else 90, 1.0)
        follower.push(index, Picture(cv2.warpAffine(frame, tilt, frame.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)))
        if index == 2:
            assert follower.turned and not follower.following
    assert (bool(follower.turned), len(follower.following)) == ((False, 1) if rises else (True, 0))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_boxes_of_a_turned_picture_come_back(turns: int) -> None:
    picture = np.zeros((40, 60), np.uint8)
    picture[5:15, 20:50] = 1
    rows, columns = np.nonzero(np.rot90(picture, turns))
    box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
    assert tracker_module._rotate_back(box, picture.shape, turns).tolist() == [[20, 5, 50, 15]]
