"""Gallery of an evaluation: contact sheet, worst clips with their curves, offsets.

Curves of all judged videos are kept (a few kB each); pictures are read at the end, only of those that are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from lipdub.config import MediaConfig
from lipdub.evaluation.landmark_track import LandmarkTrack
from lipdub.evaluation.table import Verdict
from lipdub.faces.backend import Frame
from lipdub.faces.crop import crop_matrix
from lipdub.html.plots import Curve, curves, histogram

MOMENTS = (0.25, 0.5, 0.75)  # of a video's duration, at which pictures are shown
SIDE = 128  # pixels of a picture
SHEET = 4  # pairs of a contact sheet, for each pairing
WORST = 5
EDGES = np.arange(-620.0, 621.0, 40.0)  # ms, of the histogram's bars: frames of 25 a second
OPEN = 0.3  # eye distances: smallest upper end of a plot of openings


@dataclass(frozen=True)
class Entry:
    """A judged video: curves, and the moments to show."""

    verdict: Verdict
    tracked: LandmarkTrack  # the moments alone
    times_s: NDArray[np.float32]  # (T,)
    openings: NDArray[np.float32]  # (T,)


@dataclass(frozen=True)
class Figure:
    """Pictures of a pair in each row, and its curves."""

    title: str
    strips: tuple[tuple[str, Frame | None], ...]  # row -> its moments side by side; None: it failed
    plot: Markup | None = None


@dataclass(frozen=True)
class Exhibits:
    """Figures of a page beside the table."""

    sheet: tuple[Figure, ...]
    worst: tuple[Figure, ...]
    offsets: Markup | None


@dataclass
class Gallery:
    """Collects judged videos, then makes their figures; the worst clips are chosen among rows that are not `real`."""

    real: Sequence[str]
    config: MediaConfig
    _entries: list[Entry] = field(default_factory=list)

    def add(self, verdict: Verdict, tracked: LandmarkTrack) -> None:
        """Add a judged video; the file must exist until `exhibits` is called."""
        last = len(tracked.times_s) - 1
        rows = np.unique(np.array([round(moment * last) for moment in MOMENTS]))
        kept = {name: getattr(tracked, name)[rows] for name in ("times_s", "landmarks", "seen", "rows")}
        times, openings = tracked.times_s.astype(np.float32), tracked.openings.astype(np.float32)
        self._entries.append(Entry(verdict, replace(tracked, **kept), times, openings))

    def exhibits(self) -> Exhibits:
        """Read the pictures and draw the plots."""
        pairs: dict[tuple[str, str], list[Entry]] = {}
        for entry in self._entries:
            pairs.setdefault((entry.verdict.pairing, entry.verdict.pair), []).append(entry)
        sheet = []
        for pairing in dict.fromkeys(pairing for pairing, _ in pairs):
            keys = [key for key in pairs if key[0] == pairing][:SHEET]
            sheet += [Figure(f"{pairing}: {key[1]}", self._strips(pairs[key])) for key in keys]
        return Exhibits(tuple(sheet), tuple(self._worst(pairs)), self._offsets())

    def _worst(self, pairs: dict[tuple[str, str], list[Entry]]) -> list[Figure]:
        """Figures of the dubs with the lowest opening r."""
        ours = [s for s in self._entries if s.verdict.row not in self.real and "opening_r" in s.verdict.values]
        shown = []
        for entry in sorted(ours, key=lambda s: s.verdict.values["opening_r"])[:WORST]:
            verdict = entry.verdict
            others = pairs[verdict.pairing, verdict.pair]
            lines = [s for s in others if s is entry or s.verdict.row in self.real]
            plot = curves([_curve(s, min(float(one.times_s[-1]) for one in lines)) for s in lines], height=150)
            figures = f"r {verdict.values['opening_r']:.2f}, z {verdict.values.get('opening_z', 0.0):.1f}"
            title = f"{verdict.row}, {verdict.pairing}: {verdict.pair} ({figures})"
            shown.append(Figure(title, self._strips(lines), plot))
        return shown

    def _offsets(self) -> Markup | None:
        groups: dict[str, list[float]] = {}
        for entry in self._entries:
            if "signed_offset" in entry.verdict.values:
                groups.setdefault(entry.verdict.row, []).append(entry.verdict.values["signed_offset"])
        return histogram(groups, EDGES) if groups else None

    def _strips(self, entries: Sequence[Entry]) -> tuple[tuple[str, Frame | None], ...]:
        return tuple((entry.verdict.row, self._strip(entry.tracked)) for entry in entries)

    def _strip(self, tracked: LandmarkTrack) -> Frame | None:
        crops = [
            frame.patch(crop_matrix(tracked.landmarks[place], SIDE), SIDE)
            for frame, places in tracked.frames(self.config)
            for place in places
        ]
        return np.hstack(crops) if crops else None


def _curve(entry: Entry, end_s: float) -> Curve:
    """Curve of the opening until the first video of the pair ends."""
    count = max(2, int(np.searchsorted(entry.times_s, end_s, side="right")))
    return Curve(entry.verdict.row, entry.times_s[:count], entry.openings[:count], 0.0, OPEN)
