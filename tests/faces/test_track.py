from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from lipdub.faces.selection import ids_of
from lipdub.faces.track import choose_tracks, edge_fade, overlap, smooth

Box = tuple[float, float, float, float]


def face(x: float, y: float = 50.0, side: float = 60.0) -> Box:
    return (x, y, x + side, y + side)


def test_overlap() -> None:
    a = np.array([(0, 0, 10, 10), (0, 0, 0, 0)], np.float32)
    b = np.array([(0, 0, 10, 10), (5, 0, 15, 10), (20, 20, 30, 30)], np.float32)
    np.testing.assert_allclose(overlap(a, b), [[1, 1 / 3, 0], [0, 0, 0]])


@dataclass(frozen=True)
class Boxed:
    """As much of a track as the choice needs."""

    id: int
    shot: int
    first: int
    boxes: NDArray[np.float32]
    returns: int | None = None

    @property
    def person(self) -> int:
        return self.id if self.returns is None else self.returns


def track(number: int, shot: int, first: int, count: int, box: Box) -> Boxed:
    return Boxed(number, shot, first, np.repeat(np.array([box], np.float32), count, 0))


def test_largest_is_chosen_per_shot() -> None:
    tracks = [
        track(0, 0, 0, 50, face(0, side=100)),
        track(1, 0, 0, 50, face(200, side=60)),
        track(2, 1, 50, 50, face(0, side=40)),
        track(3, 1, 50, 20, face(200, side=45)),
    ]
    assert [t.id for t in choose_tracks(tracks, "largest", (640, 360))] == [0, 2]
    assert [t.id for t in choose_tracks(tracks, "all", (640, 360))] == [0, 1, 2, 3]


def test_tracks_are_chosen_by_their_ids() -> None:
    tracks = [track(4, 0, 0, 50, face(0)), track(7, 0, 0, 50, face(200)), track(9, 1, 50, 50, face(0))]
    for which, wanted in [("id:7", [7]), ("id:9,4", [4, 9]), ("id:5", []), ("id:5,9", [9])]:
        assert [t.id for t in choose_tracks(tracks, which, (640, 360))] == wanted
    back = Boxed(11, 2, 100, tracks[1].boxes, returns=7)
    assert [t.id for t in choose_tracks([*tracks, back], "id:7", (640, 360))] == [7, 11]
    assert [t.id for t in choose_tracks([*tracks, back], "id:11", (640, 360))] == []
    assert (ids_of("id:9,4"), ids_of("largest"), ids_of((9.0, 4.0))) == ({4, 9}, None, None)
    for wrong in ("id:", "id:a", "id:1,", "7", "id:-1"):
        with pytest.raises(ValueError, match="id:N"):
            choose_tracks(tracks, wrong, (640, 360))


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
