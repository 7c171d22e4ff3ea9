"""Speaking style: amplitude and mean of a person's mouth shapes in the video, to which a dub is scaled.

A network that hears a sound answers with the mean of all mouths that fit it. That moves too little, and for everybody
alike; people differ threefold in how far they open their mouths. What the video shows of a mouth is put in the place
of what is heard of it, by two numbers of its openings o(t) and their variance v(t) over SPAN_S around each moment:

    movement = sqrt(mean v),  posture = mean shape,       both over the quarter of the frames where v is largest

that quarter, since nobody speaks all the time. A shape s that is heard then becomes

    posture + gain (s - posture_heard),    gain = strength * TYPICAL^(1 - w) * (movement / movement_heard)^w
    posture = (1 - w) TYPICAL_POSTURE posture_heard + w posture_seen

the gain of openings, lips' height and chin times OPENING_GAIN. w, in [0, 1), is how much is known of the person:
t / (t + KNOWN_S) for t seconds in view, less for a mouth that hardly moves, which may be that of a listener. A portrait
and a mouth that hardly opens have w = 0, and move as people do on average. The two TYPICAL numbers belong to the
bundled weights: `python -m benchmarks speaking_style` measures them.

A mean of mouths never closes, but lips do meet in speech, and viewers notice. The lower half of the openings is
stretched until those of CLOSED_OFTEN of the time with speech are c: closed, which a mouth at rest need not be, or, by
w, as low as the person's own are that often, since some hardly close:

    o < m:    o' = c + (m - c) (o - l) / (m - l),    l and m: the CLOSED_OFTEN quantile and the median of o; if l > c
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, uniform_filter1d

from lipdub.faces.mouth_shape import OPENINGS, SHAPE_NAMES, SHAPE_SCALE, WITH_OPENING

SPAN_S = 0.7  # a syllable or three
MOVING_SHARE = 0.25  # of the frames, those that move most
KNOWN_S = 2.4  # seconds in view after which half of what is done comes from the person
MIN_MOVEMENT, SPEECH_MOVEMENT = 0.2, 0.45  # of a listener; of 382 people who speak, 95 % move more than the second
MIN_HEARD = 0.075  # movement predicted from a sound that has speech to compare with a person's
TYPICAL = 1.35  # movement of a mouth over the predicted one: 1.22 on dev, of which rendering passes on 0.9
TYPICAL_POSTURE = 1.25  # its posture over the predicted one, likewise
CLOSED_OFTEN = 0.05  # of the time with speech the lips are together, and in three times as much all but; real: 0.14
NEVER_CLOSED = 0.5  # CLOSED_OFTEN quantile of the openings of a person whose lips stay apart
# Openings, and what goes with them, move less by what the stretch below adds: with 1 the mouths of 16 dubs of natural
# speech moved 1.20 times as far as real ones, those of 15 clips with their own sound 1.12 times.
OPENING_GAIN = np.where(WITH_OPENING > 0, 1 / 1.12, 1.0)
HEIGHT = SHAPE_NAMES.index("outer height")  # it falls with the openings; a chin that did would lift a collar
MIN_GAIN, MAX_GAIN = 0.4, 2.0  # of TYPICAL: bounds of the gain
DRAWN_GAIN = 1.2  # of mouths drawn open (faces/open_mouth.py): eight opened 0.69 to 1.13 times as far as asked


@dataclass(frozen=True)
class SpeakingStyle:
    """Amplitude and mean of a mouth's movement."""

    movement: float  # standard deviation of the opening while it moves, in units of SHAPE_SCALE
    posture: NDArray[np.float32]  # (8,) mean shape while it moves, from the mouth at rest, in units of SHAPE_SCALE
    seconds: float  # that it was seen or heard for
    low: NDArray[np.float32] | None = None  # (8,) the CLOSED_OFTEN quantile of its shapes; None: not measured
    median: NDArray[np.float32] | None = None  # (8,) of its shapes

    @property
    def known(self) -> float:
        """w, in [0, 1)."""
        moving = (self.movement - MIN_MOVEMENT) / (SPEECH_MOVEMENT - MIN_MOVEMENT)
        return self.seconds / (self.seconds + KNOWN_S) * min(max(moving, 0.0), 1.0)


UNKNOWN_STYLE = SpeakingStyle(0.0, np.zeros(len(SHAPE_SCALE), np.float32), 0.0)


def frame_rate_of(times_s: NDArray[np.float64]) -> float:
    """Frames a second of frames at these times (F,); 1 of a single one."""
    return 1 / float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1.0


def smooth_shapes(shapes: NDArray[np.float32], rate: float, smooth_s: float) -> NDArray[np.float32]:
    """Shapes (T, 8) smoothed over neighbouring frames by a Gaussian of `smooth_s`, without delay; 0 changes nothing.

    What reads every frame by itself trembles, be it from sound or from landmarks.
    """
    if not len(shapes) or smooth_s <= 0:
        return shapes
    return gaussian_filter1d(shapes, smooth_s * rate, axis=0, mode="nearest")


def measure_style(parts: Sequence[NDArray[np.float32]], rate: float) -> SpeakingStyle:
    """Of a mouth that was seen, or heard, for some stretches.

    Args:
        parts: (T, 8) each, shapes relative to the mouth at rest, in units of SHAPE_SCALE; may be empty.
        rate: of their rows, a second.
    """
    shapes = np.concatenate([np.zeros((0, len(SHAPE_SCALE)), np.float32), *parts])
    if not len(shapes):
        return UNKNOWN_STYLE
    span = max(1, round(SPAN_S * rate))
    variance = np.concatenate([_variance(part[:, OPENINGS].mean(1), span) for part in parts if len(part)])
    moving = variance >= np.quantile(variance, 1 - MOVING_SHARE)
    movement = float(np.sqrt(variance[moving].mean()))
    low, median = np.quantile(shapes, (CLOSED_OFTEN, 0.5), axis=0).astype(np.float32)
    return SpeakingStyle(movement, shapes[moving].mean(0).astype(np.float32), len(shapes) / rate, low, median)


def retarget(
    person: SpeakingStyle,
    shapes: NDArray[np.float32],
    audio_style: SpeakingStyle,
    strength: float = 1.0,
    closed: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Predicted shapes (..., 8) as a person would make them; lips meet, and no opening is below that of closed lips.

    Args:
        person: their style in the video.
        shapes: as predicted from the audio.
        audio_style: of all shapes that are predicted from the audio.
        strength: gain beside the person's own.
        closed: c, (3,) openings of closed lips, at most 0; None: those of the mouth at rest, 0.
    """
    known = person.known if audio_style.movement > MIN_HEARD else 0.0
    ratio = person.movement / audio_style.movement / TYPICAL if known else 1.0
    gain = strength * TYPICAL * float(np.clip(ratio**known, MIN_GAIN, MAX_GAIN))
    posture = (1 - known) * TYPICAL_POSTURE * audio_style.posture + known * person.posture
    gains = (gain * OPENING_GAIN).astype(np.float32)
    moved = posture + gains * (shapes - audio_style.posture)
    openings, floor = moved[..., OPENINGS], np.zeros(3, np.float32) if closed is None else closed
    lowered = openings
    if audio_style.low is not None and audio_style.median is not None:
        low, median = (
            posture + gains * (level - audio_style.posture) for level in (audio_style.low, audio_style.median)
        )
        lowest = floor if person.low is None else floor + known * _above_closed(person.low[OPENINGS], floor)
        lowered = _closing(openings, low[OPENINGS], median[OPENINGS], lowest)
    moved[..., HEIGHT] -= _height_of(openings - lowered)
    moved[..., OPENINGS] = np.maximum(lowered, floor)
    return moved.astype(np.float32)


def closed_lips(closed: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Mouth shape (8,) in silence: at rest, with its openings those of closed lips (3,); None: all at rest, zeros.

    A mouth at rest may be a little open. How wide it is drawn varies as the head turns, and what varies seems to speak.
    """
    shape = np.zeros(len(SHAPE_SCALE), np.float32)
    if closed is not None:
        shape[OPENINGS] = closed
        shape[HEIGHT] = _height_of(closed)
    return shape


def _height_of(openings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Change of the lips' outer height that goes with a change (..., 3) of the openings; both in SHAPE_SCALE."""
    return (openings * SHAPE_SCALE[OPENINGS]).mean(-1) * WITH_OPENING[HEIGHT] / SHAPE_SCALE[HEIGHT]


def _above_closed(lowest: NDArray[np.float32], closed: NDArray[np.float32]) -> NDArray[np.float32]:
    """How far a person's low openings (3,) are above closed lips (3,): none of it up to 0, all from NEVER_CLOSED on."""
    return (np.clip(lowest / NEVER_CLOSED, 0, 1) * (lowest - closed)).astype(np.float32)


def _closing(
    openings: NDArray[np.float32],
    low: NDArray[np.float32],
    median: NDArray[np.float32],
    closed: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Openings (..., 3), those below the `median` (3,) stretched until `low` (3,) is `closed` (3,)."""
    share = np.maximum(openings - low, 0) / np.maximum(median - low, 1e-6)
    lowered = np.where((low > closed) & (openings < median), closed + (median - closed) * share, openings)
    return lowered.astype(np.float32)


def _variance(openings: NDArray[np.float32], span: int) -> NDArray[np.float64]:
    """(T,) of openings (T,) over `span` rows around each."""
    values = openings.astype(np.float64)
    mean = uniform_filter1d(values, span, mode="nearest")
    return np.clip(uniform_filter1d(values**2, span, mode="nearest") - mean**2, 0, None)
