"""The table of an evaluation: its columns, and means with confidence intervals.

A verdict is the result of one row of the table for one pair of picture and sound: values, or the reason of a failure. A
table holds, per pairing and row, the mean of each column with its bootstrap interval over the clips, the number of
verdicts and of failures among them, and paired differences between rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

DRAWS = 2000  # bootstrap samples
COVERAGE = 95.0  # percent
SEED = 0


@dataclass(frozen=True)
class Column:
    """One measure: its key in the per-clip file, heading, better direction and decimals."""

    key: str
    title: str
    better: str  # "up", "down", or "" where nearer to the real row is better
    digits: int
    sync: bool = False  # whether it measures lip-sync, where no video should be better than a real one
    landmarks: bool = False  # whether it depends on the judge's landmarks

    def beats(self, mine: float, theirs: float) -> bool:
        """Whether one mean is better than another."""
        return mine > theirs if self.better == "up" else mine < theirs


COLUMNS = (
    Column("expert", "expert loss (8)", "down", 3, sync=True),
    Column("perceptual", "perceptual (7)", "down", 3),
    Column("psnr", "masked PSNR (15, 16), dB", "up", 2),
    Column("ssim", "masked SSIM", "up", 3),
    Column("lpips", "LPIPS (VGG-16)", "down", 3),
    Column("sharpness", "masked vL", "up", 1),
    Column("lmd", "LMD, %", "down", 2, landmarks=True),
    Column("opening_r", "opening r", "up", 2, sync=True, landmarks=True),
    Column("opening_z", "opening z", "up", 2, sync=True, landmarks=True),
    Column("replaced_z", "z of the replaced mouth", "down", 2, landmarks=True),
    Column("loudness", "opening with loudness", "up", 2, sync=True, landmarks=True),
    Column("expert_c", "expert confidence", "up", 3, sync=True),
    Column("lse_c", "LSE-C (SyncNet)", "up", 2, sync=True),
    Column("lse_d", "LSE-D (SyncNet)", "down", 2, sync=True),
    Column("offset", "|offset|, ms", "down", 0, sync=True),
    Column("articulation", "articulation", "", 2, landmarks=True),
    Column("range", "opening range, % of the eye distance", "", 1, landmarks=True),
    Column("closures", "closures made, %", "up", 0, landmarks=True),
    Column("closures_chance", "closures by chance, %", "", 0, landmarks=True),
    Column("closure_rank", "rank at closures", "down", 2, landmarks=True),
    Column("width_r", "width r", "up", 2, landmarks=True),
    Column("reach", "wide opening, over the real one", "", 2, landmarks=True),
    Column("second_contour", "second contour, % of frames", "down", 1),
    Column("interior", "dark or teeth between the lips, %", "", 0),
    Column("lip_sharpness", "vL within the lips, over the real one", "", 2),
    Column("silence", "motion in silence, %", "down", 0, landmarks=True),
    Column("jitter", "skin jitter", "", 2),
    Column("outside", "change outside the mouth", "down", 2),
    Column("identity", "identity (cosine, SFace)", "up", 3),
    Column("dubbed", "frames dubbed, %", "up", 1),
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One row's result for one pair."""

    row: str
    pairing: str
    picture: str
    sound: str
    error: str = ""  # why there are no values
    frames: int = 0  # that were judged
    seen: float = 0.0  # share of them in which the judge saw a face
    values: Mapping[str, float] = field(default_factory=dict)  # column -> finite value; absent: not defined

    @property
    def pair(self) -> str:
        """Name of the pair, the same in all rows."""
        return f"{self.picture} <- {self.sound}"


@dataclass(frozen=True)
class Interval:
    """The mean of n values and the bootstrap interval of that mean."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 is outside: the difference is significant."""
        return self.low > 0 or self.high < 0


def interval(values: Sequence[float], *, seed: int = SEED) -> Interval:
    """Mean and 95 % percentile bootstrap interval: n of the n values are drawn with replacement, DRAWS times.

        low, high = 2.5th and 97.5th percentile of the means of the draws

    Clips, of which each value is one, count as independent.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1 or numbers.size == 0 or not np.isfinite(numbers).all():
        raise ValueError(f"need one or more finite values, got {values!r}")
    draws = np.random.default_rng(seed).choice(numbers, (DRAWS, numbers.size)).mean(1)
    low, high = np.percentile(draws, [(100 - COVERAGE) / 2, (100 + COVERAGE) / 2])
    return Interval(float(numbers.mean()), float(low), float(high), numbers.size)


def paired_difference(ours: Mapping[str, float], theirs: Mapping[str, float]) -> Interval | None:
    """`interval` of ours - theirs over the clips with a value in both; None without such a clip.

    The influence of a clip on both rows (a difficult face, a noisy sound) cancels, so that the difference is more
    precise than either mean.
    """
    both = [key for key in ours if key in theirs and math.isfinite(ours[key]) and math.isfinite(theirs[key])]
    return interval([ours[key] - theirs[key] for key in both]) if both else None


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of the table in one pairing."""

    pairing: str
    row: str
    n: int  # verdicts, failures among them
    failed: int
    cells: Mapping[str, Interval]  # column -> mean over the verdicts that have a value


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One row minus another, clip by clip, in one pairing."""

    pairing: str
    row: str
    against: str
    cells: Mapping[str, Interval]


@dataclass(frozen=True, kw_only=True)
class Frechet:
    """FID of one row in one pairing: of all its faces together, so it has no interval over clips."""

    pairing: str
    row: str
    frames: int  # faces of the row; below some thousands the distance is too large, whatever they show
    distance: float


def tabulate(verdicts: Sequence[Verdict]) -> list[Line]:
    """Means of every row in every pairing, in the order in which they first appear."""
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault((verdict.pairing, verdict.row), []).append(verdict)
    lines = []
    for (pairing, row), group in groups.items():
        values = {c.key: [v.values[c.key] for v in group if c.key in v.values] for c in COLUMNS}
        cells = {key: interval(numbers) for key, numbers in values.items() if numbers}
        failed = sum(bool(verdict.error) for verdict in group)
        lines.append(Line(pairing=pairing, row=row, n=len(group), failed=failed, cells=cells))
    return lines


def compare(verdicts: Sequence[Verdict], row: str, against: str) -> list[Difference]:
    """Paired differences of two rows in every pairing that has both, column by column."""
    differences = []
    for pairing in dict.fromkeys(verdict.pairing for verdict in verdicts):
        mine, theirs = ([v for v in verdicts if (v.pairing, v.row) == (pairing, name)] for name in (row, against))
        cells = {}
        for column in COLUMNS:
            a, b = ({v.pair: v.values[column.key] for v in group if column.key in v.values} for group in (mine, theirs))
            difference = paired_difference(a, b)
            if difference is not None:
                cells[column.key] = difference
        if cells:
            differences.append(Difference(pairing=pairing, row=row, against=against, cells=cells))
    return differences


def order(lines: Sequence[Line], real: str, foreign: str, undubbed: Sequence[str]) -> list[str]:
    """Violations of the expected order in columns of lip-sync, one sentence for each.

    In every `sync` column real videos must be the best row, and real videos with another sound (the row `foreign`) must
    be worse than every dub. A dub that scores better than real exploits the measure. Rows in `undubbed` are no dubs.
    """
    broken = []
    for pairing in dict.fromkeys(line.pairing for line in lines):
        rows = {line.row: line.cells for line in lines if line.pairing == pairing}
        for column in (column for column in COLUMNS if column.sync):
            means = {row: cells[column.key].mean for row, cells in rows.items() if column.key in cells}
            dubs = {row: mean for row, mean in means.items() if row not in undubbed}
            over = [row for row, mean in dubs.items() if real in means and column.beats(mean, means[real])]
            under = [row for row, mean in dubs.items() if foreign in means and column.beats(means[foreign], mean)]
            broken += [f"{pairing}, {column.title}: {row} is better than real" for row in over]
            broken += [f"{pairing}, {column.title}: {row} is worse than a wrong sound" for row in under]
    return broken
