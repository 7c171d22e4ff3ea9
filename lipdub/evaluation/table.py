"""Means that say how sure they are: bootstrap intervals over clips, and paired differences between rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 2000  # bootstrap samples
COVERAGE = 95.0  # percent
SEED = 0


@dataclass(frozen=True)
class Interval:
    """The mean of n values and the bootstrap interval of that mean."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside: for a difference, that it is more than chance."""
        return self.low > 0 or self.high < 0


def interval(values: Sequence[float], *, seed: int = SEED) -> Interval:
    """Mean and 95 % percentile bootstrap interval: n of the n values are drawn with replacement, DRAWS times.

        low, high = 2.5th and 97.5th percentile of the means of the draws

    Args:
        values: one a clip, finite; clips count as independent.
        seed: of the draws.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1 or numbers.size == 0 or not np.isfinite(numbers).all():
        raise ValueError(f"need one or more finite values, got {values!r}")
    draws = np.random.default_rng(seed).choice(numbers, (DRAWS, numbers.size)).mean(1)
    low, high = np.percentile(draws, [(100 - COVERAGE) / 2, (100 + COVERAGE) / 2])
    return Interval(float(numbers.mean()), float(low), float(high), numbers.size)


def paired_difference(ours: Mapping[str, float], theirs: Mapping[str, float], *, seed: int = SEED) -> Interval | None:
    """`interval` of ours - theirs over the clips that both have a value for; None if there is no such clip.

    What one clip adds to both rows (a hard face, a noisy sound) falls out of the difference, so that it is known more
    exactly than either mean.

    Args:
        ours: clip or pair of clips -> value.
        theirs: likewise.
        seed: of the draws.
    """
    both = [key for key in ours if key in theirs and math.isfinite(ours[key]) and math.isfinite(theirs[key])]
    return interval([ours[key] - theirs[key] for key in both], seed=seed) if both else None
