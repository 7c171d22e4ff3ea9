"""Operations on face tracks: selection, zero-phase smoothing, fades."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from lipdub.faces.selection import ids_of

RETURNING = 0.5  # least mean area, over that of a shot's largest face, of a track that may follow it in time


class Followed(Protocol):
    """The part of a track that selection needs."""

    @property
    def id(self) -> int:
        """Number of the track."""
        ...

    @property
    def person(self) -> int:
        """Number of the person."""
        ...

    @property
    def shot(self) -> int:
        """Number of the shot."""
        ...

    @property
    def first(self) -> int:
        """Number of the first frame."""
        ...

    @property
    def boxes(self) -> NDArray[np.float32]:
        """(T, 4) for the frames from `first` on."""
        ...


AnyTrack = TypeVar("AnyTrack", bound=Followed)


def overlap(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.clip(high - low, 0, None).astype(np.float64).prod(2)
    union = _areas(a)[:, None] + _areas(b)[None] - common
    return common / np.maximum(union, 1e-9)


def _areas(boxes: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).astype(np.float64).prod(1)


def choose_tracks(
    tracks: Sequence[AnyTrack], which: str | tuple[float, ...], frame_size: tuple[int, int]
) -> list[AnyTrack]:
    """The tracks to dub.

    "largest": in each shot the track with the largest mean area (inside the picture) x length; then those that share no
    frame with a chosen one and are at least half its size: the same person after turning away. A point: likewise, but
    ordered by the number of frames whose box contains the point, at least one. "id:3,7": the tracks of these people.

    Args:
        tracks: of one video.
        which: "largest", "all", "id:N" or "id:N,M,...", or a point (x, y) in display pixels.
        frame_size: width and height of the display picture.

    Returns:
        In order of appearance; empty if nothing fits.

    Raises:
        ValueError: another word.
    """
    ids = ids_of(which)
    if isinstance(which, str) and ids is None and which not in ("largest", "all"):
        raise ValueError(f'which must be "largest", "all", "id:N" or a point, got {which!r}')
    if which == "all" or ids is not None:
        return sorted((track for track in tracks if ids is None or track.person in ids), key=lambda track: track.first)
    shots: dict[int, list[tuple[float, float, range, AnyTrack]]] = defaultdict(list)
    for track in tracks:
        boxes = track.boxes
        inside = np.clip(boxes, 0, np.tile(np.array(frame_size, np.float32), 2))
        area = float(_areas(inside).mean())
        score = area * len(boxes) if which == "largest" else float(_contains(boxes, which).sum())
        shots[track.shot].append((score, area, range(track.first, track.first + len(boxes)), track))
    chosen: list[AnyTrack] = []
    for candidates in shots.values():
        taken: list[range] = []
        min_area = 0.0
        for score, area, frames, track in sorted(candidates, key=lambda item: -item[0]):
            free = all(frames.stop <= other.start or other.stop <= frames.start for other in taken)
            if score > 0 and free and area >= min_area:
                chosen.append(track)
                taken.append(frames)
                min_area = min_area or RETURNING * area
    return sorted(chosen, key=lambda track: track.first)


def tracks_at(tracks: Sequence[AnyTrack], point: tuple[float, float], frame: int) -> list[AnyTrack]:
    """The track whose box contains a point (display pixels) in one frame; the smallest of several. Empty if none."""
    there = []
    for track in tracks:
        row, boxes = frame - track.first, track.boxes
        if 0 <= row < len(boxes) and _contains(boxes[row : row + 1], point)[0]:
            there.append((float(_areas(boxes[row : row + 1])[0]), track))
    return [track for _, track in sorted(there, key=lambda item: item[0])[:1]]


def _contains(boxes: NDArray[np.float32], point: str | tuple[float, ...]) -> NDArray[np.bool_]:
    """(T,) whether each box contains the point."""
    x, y = (float(value) for value in point)
    return (boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])


def edge_fade(
    usable: NDArray[np.bool_], frames: int, *, fade_in: bool = True, fade_out: bool = True
) -> NDArray[np.float32]:
    """Weights of a track's rows that fade in and out linearly where it begins and ends.

        w_t = min(1, n_t / (frames + 1)),   n_t: rows to the nearest one that is not usable

    Args:
        usable: (T,) bool.
        frames: rows with a weight between 0 and 1 at each edge; 0 switches at once.
        fade_in: count the row before the first as not usable; False where the track begins with a shot.
        fade_out: the same for the row after the last.

    Returns:
        (T,) in [0, 1], 0 exactly where not usable.
    """
    far = frames + 1
    good = np.pad(np.asarray(usable, bool), far, constant_values=True)
    good[far - 1] &= not fade_in
    good[len(good) - far] &= not fade_out
    away = np.full(len(good), far)
    for distance in range(frames, -1, -1):  # the nearest one writes last
        near = np.convolve(~good, np.ones(2 * distance + 1, np.int64), mode="same") > 0
        away[near] = distance
    return (away[far:-far] / far).astype(np.float32)


def smooth(values: NDArray[np.floating], span: float, times: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
    """Rows smoothed along time without delay, by a weighted straight-line fit to the neighbours of each row.

        min over a, b of  sum_j cos^2(pi (t_j - t_i) / span) (v_j - a - b (t_j - t_i))^2,  |t_j - t_i| < span / 2

    and a is the new value. Weights are symmetric, so that nothing is shifted in time. Constants and straight lines stay
    unchanged, also at the ends. T may be any number.

    Args:
        values: (T, ...).
        span: whole width of the neighbourhood, in the unit of `times`.
        times: (T,) ascending; row numbers if absent, and `span` is then in rows.

    Returns:
        Like `values`, float64.
    """
    rows = np.asarray(values, np.float64)
    count = len(rows)
    at = np.arange(count, dtype=np.float64) if times is None else np.asarray(times, np.float64)
    flat = rows.reshape(count, -1)
    index = np.arange(count)
    reach = int((np.searchsorted(at, at + span / 2) - index).max(initial=1)) - 1
    s0, s1, s2 = np.zeros((3, count, 1))
    v0, v1 = np.zeros((2, *flat.shape))
    for offset in range(-reach, reach + 1):
        other = np.clip(index + offset, 0, count - 1)
        away = at[other] - at
        inside = (index + offset == other) & (np.abs(away) < span / 2)
        weight = np.where(inside, np.cos(np.pi * away / span) ** 2, 0.0) if offset else np.ones(count)
        w, d = weight[:, None], away[:, None]
        s0, s1, s2 = s0 + w, s1 + w * d, s2 + w * d * d
        v0, v1 = v0 + w * flat[other], v1 + w * d * flat[other]
    spread = s0 * s2 - s1 * s1
    flat_fit = v0 / s0
    sloped = spread > 1e-9 * s0 * s0 * span * span  # else: alone, or all neighbours at one time
    fitted = np.where(sloped, (s2 * v0 - s1 * v1) / np.where(sloped, spread, 1.0), flat_fit)
    return fitted.reshape(rows.shape)
