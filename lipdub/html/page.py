"""Reports as HTML pages. All but the side-by-side page are self-contained and without scripts.

The only home of Jinja2; every text goes through its autoescape.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lipdub import __version__
from lipdub.dub.report import FacesReport, SyncReport
from lipdub.evaluation.pairs import TITLES
from lipdub.evaluation.quality import Quality, Trace
from lipdub.evaluation.report import EvalReport, blocks, failures, heading, order_of
from lipdub.evaluation.table import COLUMNS, Column, Line
from lipdub.events import clock
from lipdub.faces.backend import Frame
from lipdub.html.gallery import Exhibits
from lipdub.html.plots import Curve, curves, intervals, timeline
from lipdub.media.atomic import AtomicOutput

JPEG_QUALITY = 82
WIDE = 0.3  # eye distances, the opening in lively speech: smallest upper end of a plot


def quality_page(quality: Quality, dub: SyncReport | None = None) -> str:
    """The page of `lipdub eval FILE --html`; with a report of a dub that of `lipdub sync --report`, with shots."""
    report = quality.report
    return _page(
        "quality.html",
        title=f"{'Dub' if dub else 'Quality'} of {Path(report.video).name}",
        report=report,
        dub=dub,
        segments=list(zip(report.segments, quality.traces, strict=True)),
    )


def faces_page(report: FacesReport, pictures: Sequence[Frame]) -> str:
    """The page of `lipdub faces --html`: picture, time on screen and appearances of each person.

    `pictures` (S, S, 3) has one for each of the report's faces.
    """
    seen: dict[int, list[int]] = {}
    for number, face in enumerate(report.faces):
        seen.setdefault(face.id, []).append(number)
    people, bars = [], []
    for name, numbers in sorted(seen.items()):
        best = max(numbers, key=lambda number: report.faces[number].usable * report.faces[number].size_px)
        faces = [report.faces[number] for number in numbers]  # in order of appearance
        on_screen = [(face.first_s, face.last_s) for face in faces]
        seconds = sum(last_s - first_s for first_s, last_s in on_screen)
        people.append({"id": name, "picture": pictures[best], "faces": faces, "seconds": seconds})
        bars.append((f"id {name}", on_screen))
    return _page(
        "faces.html",
        title=f"Faces of {Path(report.video).name}",
        report=report,
        people=people,
        timeline=timeline(bars, report.shots[1:], report.seconds),
    )


def table_page(report: EvalReport, exhibits: Exhibits) -> str:
    """The page of `lipdub eval CLIPS --html`: table, intervals, offsets, worst clips, contact sheet."""
    drawn = []
    for pairing in dict.fromkeys(line.pairing for line in report.lines):
        lines = [line for line in report.lines if line.pairing == pairing]
        plots = [
            (heading(c, report), _intervals(lines, c))
            for c in COLUMNS
            if sum(c.key in line.cells for line in lines) > 1
        ]
        drawn.append((TITLES[pairing], plots))
    return _page(
        "table.html",
        title="Judgement of lip-sync",
        report=report,
        blocks=blocks(report),
        failures=failures(report),
        order=order_of(report),
        intervals=drawn,
        exhibits=exhibits,
    )


def side_by_side_page(pairs: Sequence[Mapping[str, Any]]) -> str:
    """The page of `lipdub eval --side-by-side`; its pictures lie beside it.

    Pairs have a `name`, `times` of the source's frames in seconds, and `columns` (`side_by_side.Column`).
    """
    return _page("side_by_side.html", title="Side by side", pairs=pairs)


def _intervals(lines: Sequence[Line], column: Column) -> Markup:
    cells = [(line.row, line.cells[column.key]) for line in lines if column.key in line.cells]
    return intervals([(row, cell.mean, cell.low, cell.high) for row, cell in cells], digits=column.digits)


def write_page(path: Path, text: str, *, overwrite: bool) -> None:
    """Write a page: it appears whole or not at all.

    Raises:
        OutputError: it exists, or cannot be written.
    """
    with AtomicOutput(path, overwrite=overwrite) as target:
        target.temporary.write_text(text, encoding="utf-8")


def embedded(picture: Frame) -> str:
    """A picture (H, W, 3) as a data: URL."""
    encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[
        1
    ]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def traced(trace: Trace) -> Markup:
    """Plot of mouth opening and loudness of a segment against time, with silence shaded."""
    lines = [
        Curve("mouth opening", trace.times_s, trace.openings, 0.0, WIDE),
        Curve("loudness", trace.times_s, trace.level),
    ]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], trace.silent.astype(np.int8), [0]])))
    last = len(trace.times_s) - 1
    hushed = [(float(trace.times_s[a]), float(trace.times_s[min(b, last)])) for a, b in edges.reshape(-1, 2)]
    return curves(lines, hushed)


def _page(template: str, **values: Any) -> str:
    pages = Environment(
        loader=PackageLoader("lipdub.html", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"clock": clock, "embedded": embedded, "traced": traced}
    return pages.get_template(template).render(version=__version__, **values)
