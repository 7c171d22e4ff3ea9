from __future__ import annotations

import numpy as np

from lipdub.dub.active_speaker import REST_S, frames_of, resting, score_speakers
from lipdub.faces.crop import TEMPLATE
from lipdub.faces.tracker import Track

RATE, SIZE = 25.0, 250  # 10 s
LOWER_LIP = [65, 66, 67]


def track(number: int, opening: np.ndarray, shot: int = 0, first: int = 0) -> Track:
    """A face 100 pixels wide whose lower inner lip goes down by `opening` (T,), in face widths."""
    points = np.repeat(100 * TEMPLATE[None], len(opening), 0)
    points[:, LOWER_LIP, 1] += 100 * opening[:, None]
    return Track(number, shot, first, points.astype(np.float32), np.ones(len(opening), np.float32))


def syllables(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.abs(np.convolve(rng.normal(size=SIZE + 8), np.ones(5) / 5, "same"))[4:-4]


def heard(opening: np.ndarray) -> np.ndarray:
    return np.repeat(opening[:, None], 8, 1).astype(np.float32)


def test_the_mouth_that_fits_the_sound_speaks_when_it_does() -> None:
    sound = syllables(0)
    first_half = np.arange(SIZE) < SIZE // 2
    left = track(0, np.where(first_half, 0.05 * sound, 0.0))
    right = track(1, np.where(first_half, 0.0, 0.05 * sound))
    spoken = {one.id: when for one, when in score_speakers([left, right], heard(sound), RATE).in_turns(None)}
    assert not (spoken[0] & spoken[1]).any()
    for who, when in ((0, first_half), (1, ~first_half)):
        assert spoken[who][when].mean() > 0.85 and spoken[who][~when].mean() < 0.1


def test_it_is_sure_only_of_a_sound_that_fits_where_it_is() -> None:
    sound = syllables(0)
    speaker, still = track(0, 0.05 * sound), track(1, np.zeros(SIZE))
    assert score_speakers([speaker, still], heard(sound), RATE).certain
    unsure = [not score_speakers([speaker, still], heard(syllables(seed)), RATE).certain for seed in range(1, 13)]
    assert sum(unsure) >= 9  # one in ten may be taken for sure by chance


def test_nobody_speaks_where_no_mouth_fits() -> None:
    still, other = track(0, np.zeros(SIZE)), track(1, 0.05 * syllables(7))
    spoken = score_speakers([still, other], heard(syllables(0)), RATE).in_turns(None)
    assert sum(int(when.sum()) for _, when in spoken) < 0.15 * SIZE


def test_a_turn_goes_to_the_face_that_fits_best_in_each_shot() -> None:
    sound = syllables(0)
    faces = [
        track(0, 0.05 * sound[:100]),
        track(1, 0.05 * syllables(3)[:100]),
        track(2, 0.05 * sound[100:], shot=1, first=100),
    ]
    turn = frames_of([(1.0, 6.0)], (np.arange(SIZE) + 0.5) / RATE)
    spoken = [
        (one.id, np.flatnonzero(when)[[0, -1]].tolist())
        for one, when in score_speakers(faces, heard(sound), RATE).in_turns([turn])
    ]
    assert spoken == [(0, [25, 99]), (2, [100, 149])]


def test_a_mouth_rests_where_neither_it_nor_its_sound_speaks() -> None:
    shapes = np.zeros((SIZE, 8), np.float32)
    shapes[:, :3] = 0.5  # slightly open, and held so
    talks = slice(100, 150)
    shapes[talks, :3] += np.sin(np.arange(50))[:, None]
    silent = np.zeros(SIZE, bool)
    silent[20:60] = silent[90:200] = True
    silent[220 : 220 + int(REST_S * RATE) - 2] = True  # too short
    rest, stillness = resting(shapes, silent, RATE)
    assert rest[20:60].all() and not rest[:20].any() and not rest[60:90].any()  # as far as its sound is silent
    assert not rest[100:150].any() and rest[156:200].all()  # not while it speaks in the video
    assert not rest[200:].any()
    assert stillness[40] == 1 and stillness[125] == 0


def test_who_speaks_lively_rests_with_more_movement_than_who_only_listens() -> None:
    beat = np.sin(2 * np.pi * np.arange(SIZE) / 10)  # 2.5 syllables a second
    listener, speaker = np.zeros((SIZE, 8), np.float32), np.zeros((SIZE, 8), np.float32)
    listener[:, :3] = 0.1 * beat[:, None]  # moves by 0.2 of the unit: below the limit of everybody
    speaker[:, :3] = 1.2 * beat[:, None]  # by 2.4 while it speaks
    speaker[:50, :3] *= 0.25  # and by 0.6, a quarter of that, in its pause
    silent = np.ones(SIZE, bool)
    assert resting(listener, silent, RATE)[0].all()
    rest, _ = resting(speaker, silent, RATE)
    assert rest[:42].all() and not rest[58:].any()
    assert not resting(speaker[:50], silent[:50], RATE)[0].any()  # who moves so all the time speaks, if not lively
