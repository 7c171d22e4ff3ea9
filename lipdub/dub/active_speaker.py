"""Active speaker: the face whose mouth matches the video's own audio.

For each face, how far its mouth is open, o(t), is compared with how far the bundled generator hears that a mouth
should be open, a(t), under a Gaussian of SPAN_S around each moment:

    agreement(t) = cov(o, a) / ((sd(o) + STILL) sd(a)) shifted by the one lag that suits the whole video

A correlation, but near 0 for a mouth that hardly moves. In each shot the faces, and nobody, compete for every frame;
a change of speaker has its price.

Any sound fits some mouth for a while. So the same is done with the sound put at other times, SHIFTS of them: only where
the true sound fits better than in all but CHANCE of those is the answer called sure.

Measured on real footage: benchmarks/journal, "Who speaks".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, minimum_filter1d

from lipdub.faces.mouth_shape import OPENINGS, SHAPE_SCALE, mouth_shape
from lipdub.faces.selection import Turn
from lipdub.faces.tracker import Track

SPAN_S = 0.8  # standard deviation of the window that a moment is judged by
DAMPING = 0.15  # of the opening's unit (mouth_shape.SHAPE_SCALE): a mouth that moves less than this says nothing
MAX_LAG_S = 0.2  # sound and picture of footage are seldom further apart
MIN_SCORE = 0.12  # agreement that a face must have to speak at all
SHIFTS = 20  # other times that the sound is tried at
CHANCE = 1  # of them may fit as well as the true one
STILL_S = 0.4  # two syllables
STILL_SHARE = 0.3  # of the usual movement within STILL_S: a mouth that moves less does not speak; `benchmarks resting`
USUAL_PERCENT = 75  # percentile of its movements that is the usual one ...
USUAL_MIN = 1.0  # ... and at least this, in the opening's unit: a mouth may do nothing but listen
REST_S = 0.6  # shortest time for which a face is left alone
CHANGE_S = 0.25  # agreement times seconds that a new speaker has to win by


@dataclass(frozen=True)
class SpeakerScores:
    """How well each face of a video fits its sound, frame by frame."""

    tracks: tuple[Track, ...]
    scores: NDArray[np.float32]  # (N, F), minus infinity where a face is not there
    rate: float  # frames a second
    certain: bool = True  # whether the audio fits better where it is than at other times

    def in_turns(self, turns: Sequence[NDArray[np.bool_]] | None) -> list[tuple[Track, NDArray[np.bool_]]]:
        """Who speaks, and in which frames (F,).

        Args:
            turns: when one known voice is heard, (F,) each: in each of them and each shot the face that fits best
                speaks. None: nothing is known; faces and nobody compete for every frame.
        """
        spoken = np.zeros_like(self.scores, dtype=bool)
        shots: dict[int, list[int]] = defaultdict(list)
        for number, track in enumerate(self.tracks):
            shots[track.shot].append(number)
        for numbers in shots.values():
            if turns is None:
                self._compete(numbers, spoken)
            for turn in turns or ():
                there = turn & np.isfinite(self.scores[numbers])
                totals = np.where(there, self.scores[numbers], MIN_SCORE).sum(1) - MIN_SCORE * len(turn)
                if totals.max() > 0:
                    spoken[numbers[int(totals.argmax())]] |= there[int(totals.argmax())]
        return [(track, mine) for track, mine in zip(self.tracks, spoken, strict=True) if mine.any()]

    def _compete(self, numbers: list[int], spoken: NDArray[np.bool_]) -> None:
        """Mark who speaks in one shot."""
        first = min(self.tracks[number].frames.start for number in numbers)
        stop = max(self.tracks[number].frames.stop for number in numbers)
        best = _cheapest(self.scores[numbers, first:stop], CHANGE_S * self.rate)
        for place, number in enumerate(numbers):
            spoken[number, first:stop] = best == place


def score_speakers(tracks: Sequence[Track], predicted: NDArray[np.float32], rate: float) -> SpeakerScores:
    """Compare all mouths of a video with its own sound.

    `predicted` (F, 8) are the mouth shapes that the sound asks for (`predict_mouth_shapes`), `rate` is in frames a
    second.
    """
    target = predicted[:, OPENINGS].mean(1)
    openings = [(mouth_shape(track.landmarks)[:, OPENINGS] / SHAPE_SCALE[OPENINGS]).mean(1) for track in tracks]
    scores, total = _at_best_lag(tracks, openings, target, rate)
    shifts = [len(target) * number // (SHIFTS + 1) for number in range(1, SHIFTS + 1)]
    others = [_at_best_lag(tracks, openings, np.roll(target, shift), rate)[1] for shift in shifts]
    return SpeakerScores(tuple(tracks), scores, rate, sum(other >= total for other in others) <= CHANCE)


def _at_best_lag(
    tracks: Sequence[Track], openings: Sequence[NDArray[np.float32]], target: NDArray[np.float32], rate: float
) -> tuple[NDArray[np.float32], float]:
    """Scores (N, F) at the lag that suits the whole video, and how much fits in all."""
    max_lag = round(MAX_LAG_S * rate)
    best = np.full((len(tracks), len(target)), -np.inf, np.float32)
    best_total = -np.inf
    for lag in range(-max_lag, max_lag + 1):
        scores = np.full_like(best, -np.inf)
        moved = target[np.clip(np.arange(len(target)) - lag, 0, len(target) - 1)]
        for number, (track, opening) in enumerate(zip(tracks, openings, strict=True)):
            scores[number, track.frames.start : track.frames.stop] = _correlation(
                opening, moved[track.frames.start : track.frames.stop], SPAN_S * rate
            )
        total = float(np.clip(scores, 0, None).sum())
        if total > best_total:
            best, best_total = scores, total
    return best, best_total


def frames_of(turns: Sequence[Turn], times_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(F,) which frames, by their middles, lie in one of the turns; all of them where there is none."""
    if not turns:
        return np.ones(len(times_s), bool)
    inside: NDArray[np.bool_] = np.zeros(len(times_s), bool)
    for start_s, end_s in turns:
        inside |= (start_s <= times_s) & (times_s < end_s)
    return inside


def resting(
    shapes: NDArray[np.floating], may_rest: NDArray[np.bool_], rate: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Where a mouth need not be touched: it does not speak in the video, and its new sound does not ask for it.

    A mouth does not speak where its opening varies within STILL_S by less than STILL_SHARE of what it usually does;
    what is shorter than REST_S is not left alone.

    Args:
        shapes: (T, 8) of the mouth in the video, in units of SHAPE_SCALE.
        may_rest: (T,) True where its new sound is silent, or another person's.
        rate: frames a second.

    Returns:
        (T,) True = leave it as it is; and (T,) how still it is: 1 = it does not move at all, 0 = at the limit.
    """
    opening = np.asarray(shapes, np.float64)[:, OPENINGS].mean(1)
    width = 2 * round(STILL_S * rate / 2) + 1
    moves = maximum_filter1d(opening, width, mode="nearest") - minimum_filter1d(opening, width, mode="nearest")
    limit = STILL_SHARE * max(USUAL_MIN, float(np.percentile(moves, USUAL_PERCENT)))
    stillness = np.clip(1 - moves / limit, 0, 1)
    rest = may_rest & (moves < limit)
    edges = np.flatnonzero(np.diff(rest.astype(np.int8), prepend=0, append=0))
    for first, stop in zip(edges[::2], edges[1::2], strict=True):
        rest[first:stop] = stop - first >= REST_S * rate
    return rest, stillness


def _correlation(a: NDArray[np.floating], b: NDArray[np.floating], span: float) -> NDArray[np.float64]:
    """Of `a` (T,) and `b` (T,) around each row, damped where `a` is still; 0 where `b` is."""

    def mean(values: NDArray[np.floating]) -> NDArray[np.float64]:
        return np.asarray(gaussian_filter1d(np.asarray(values, np.float64), span, mode="nearest"))

    mean_a, mean_b = mean(a), mean(b)
    sd_a = np.sqrt(np.clip(mean(a * a) - mean_a**2, 0, None))
    sd_b = np.sqrt(np.clip(mean(b * b) - mean_b**2, 0, None))
    together = mean(a * b) - mean_a * mean_b
    return np.where(sd_b > 1e-3, together / ((sd_a + DAMPING) * np.maximum(sd_b, 1e-3)), 0.0)


def _cheapest(scores: NDArray[np.float32], change: float) -> NDArray[np.int64]:
    """The path (T,) through rows (N, T), or N for nobody, with the largest sum of scores less `change` a step."""
    gains = np.concatenate([scores, np.full((1, scores.shape[1]), MIN_SCORE, np.float32)]).astype(np.float64)
    gains[~np.isfinite(gains)] = -1e9
    total, came = gains[:, 0].copy(), np.zeros(gains.shape, np.int64)
    rows = np.arange(len(gains))
    for t in range(1, gains.shape[1]):
        leader = int(total.argmax())
        stays = total >= total[leader] - change
        came[:, t] = np.where(stays, rows, leader)
        total = np.where(stays, total, total[leader] - change) + gains[:, t]
    path = np.empty(gains.shape[1], np.int64)
    path[-1] = int(total.argmax())
    for t in range(gains.shape[1] - 1, 0, -1):
        path[t - 1] = came[path[t], t]
    return path
