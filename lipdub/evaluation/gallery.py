"""What a page shows of the judged videos: a contact sheet, the worst clips with their curves, the offsets of all.

Curves of every judged video are kept (a few kB each); pictures are cut out at the end, from the few that are shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from lipdub.config import MediaConfig
from lipdub.evaluation.judge import Watched
from lipdub.evaluation.plots import Curve, curves, histogram
from lipdub.evaluation.table import Verdict
from lipdub.faces.align import crop_matrix
from lipdub.faces.backend import Frame
from lipdub.media.video import VideoReader
from lipdub.media.view import PictureView

MOMENTS = (0.25, 0.5, 0.75)  # of a video, of which pictures are shown
SIDE = 128  # pixels of a picture
SHEET = 4  # pairs of a contact sheet, for each pairing
WORST = 5
EDGES = np.arange(-620.0, 621.0, 40.0)  # ms, of the histogram's bars: frames of 25 a second
OPEN = 0.3  # eye distances, the least that a plot of openings reaches to


@dataclass(frozen=True)
class Sight:
    """A judged video, short."""

    verdict: Verdict
    watched: Watched  # the moments alone
    times_s: NDArray[np.float32]  # (T,)
    openings: NDArray[np.float32]  # (T,)


@dataclass(frozen=True)
class Shown:
    """A pair, and what each row shows of it."""

    title: str
    strips: tuple[tuple[str, Frame | None], ...]  # row -> its moments side by side; None: it failed
    plot: Markup | None = None


@dataclass(frozen=True)
class Exhibits:
    """Everything that a page needs beside the table."""

    sheet: tuple[Shown, ...]
    worst: tuple[Shown, ...]
    offsets: Markup | None


@dataclass
class Gallery:
    """Takes verdicts as they come.

    Args:
        real: rows that nobody dubbed; the worst are looked for among the others.
        config: limits of the reader.
    """

    real: Sequence[str]
    config: MediaConfig
    _sights: list[Sight] = field(default_factory=list)

    def add(self, verdict: Verdict, watched: Watched) -> None:
        """A video that was judged; the file has to stay until `exhibits` was called."""
        last = len(watched.times_s) - 1
        rows = np.unique(np.array([round(moment * last) for moment in MOMENTS]))
        short = Watched(
            watched.path,
            watched.info,
            watched.times_s[rows],
            watched.landmarks[rows],
            watched.seen[rows],
            watched.rows[rows],
        )
        times, openings = watched.times_s.astype(np.float32), watched.openings.astype(np.float32)
        self._sights.append(Sight(verdict, short, times, openings))

    def exhibits(self) -> Exhibits:
        """Cut the pictures out and draw the plots."""
        pairs: dict[tuple[str, str], list[Sight]] = {}
        for sight in self._sights:
            pairs.setdefault((sight.verdict.pairing, sight.verdict.pair), []).append(sight)
        sheet = []
        for pairing in dict.fromkeys(pairing for pairing, _ in pairs):
            keys = [key for key in pairs if key[0] == pairing][:SHEET]
            sheet += [Shown(f"{pairing}: {key[1]}", self._strips(pairs[key])) for key in keys]
        return Exhibits(tuple(sheet), tuple(self._worst(pairs)), self._offsets())

    def _worst(self, pairs: dict[tuple[str, str], list[Sight]]) -> list[Shown]:
        """The clips of ours whose mouths follow the sound's own video least."""
        ours = [s for s in self._sights if s.verdict.row not in self.real and "follows_r" in s.verdict.values]
        shown = []
        for sight in sorted(ours, key=lambda s: s.verdict.values["follows_r"])[:WORST]:
            verdict = sight.verdict
            others = pairs[verdict.pairing, verdict.pair]
            lines = [s for s in others if s is sight or s.verdict.row in self.real]
            plot = curves([_curve(s, min(float(one.times_s[-1]) for one in lines)) for s in lines], height=150)
            figures = f"r {verdict.values['follows_r']:.2f}, z {verdict.values.get('follows_z', 0.0):.1f}"
            title = f"{verdict.row}, {verdict.pairing}: {verdict.pair} ({figures})"
            shown.append(Shown(title, self._strips(lines), plot))
        return shown

    def _offsets(self) -> Markup | None:
        groups: dict[str, list[float]] = {}
        for sight in self._sights:
            if "signed_offset" in sight.verdict.values:
                groups.setdefault(sight.verdict.row, []).append(sight.verdict.values["signed_offset"])
        return histogram(groups, EDGES) if groups else None

    def _strips(self, sights: Sequence[Sight]) -> tuple[tuple[str, Frame | None], ...]:
        return tuple((sight.verdict.row, self._strip(sight.watched)) for sight in sights)

    def _strip(self, watched: Watched) -> Frame | None:
        found = []
        with VideoReader(watched.path, watched.info, config=self.config) as reader:
            for frame in reader:
                for place in np.flatnonzero(watched.rows == frame.index):
                    matrix = crop_matrix(watched.landmarks[place], SIDE)
                    found.append(PictureView(frame.picture, watched.info).patch(matrix, SIDE))
                if frame.index >= watched.rows[-1]:
                    break
        return np.hstack(found) if found else None


def _curve(sight: Sight, end_s: float) -> Curve:
    """The opening as long as all videos of a pair last: what was compared."""
    count = max(2, int(np.searchsorted(sight.times_s, end_s, side="right")))
    return Curve(sight.verdict.row, sight.times_s[:count], sight.openings[:count], 0.0, OPEN)
