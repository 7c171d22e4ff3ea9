"""Table and protocol of an evaluation as text: for a terminal, as Markdown, CSV and JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from lipdub import __version__
from lipdub.evaluation.ablation import HEADER
from lipdub.evaluation.options import EvalOptions
from lipdub.evaluation.pairs import GIVEN, TITLES, Clip, Pair
from lipdub.evaluation.table import COLUMNS, COVERAGE, DRAWS, Column, Difference, Frechet, Interval, Line, Verdict
from lipdub.metrics import FAR, HIGH_PASS, LAG, SILENT_DB
from lipdub.metrics.mouth import CLOSED_S, CLOSED_SHARE, OPEN_PERCENTILE, SECOND_CONTOUR
from lipdub.metrics.sync_offset import REACH

NONE = "-"  # not defined, or not measured
FRECHET = "FID against the real faces of the same pictures ↓ (faces; too large where they are few)"
ABLATION = "Table 4.1, own sound [as the thesis printed it, for LRS2]"
ARROWS = {"up": " ↑", "down": " ↓", "": ""}


@dataclass(frozen=True, kw_only=True)
class EvalReport:
    """The outcome of one `lipdub eval`."""

    lines: tuple[Line, ...]
    differences: tuple[Difference, ...]
    failures: tuple[Verdict, ...]
    protocol: tuple[str, ...]
    verdicts: str  # the per-clip file
    order: tuple[str, ...] = ()  # where a measure of lip-sync is not in the order that it should have
    backbone: str = ""  # of the perceptual metric: figures of different ones cannot be compared
    own_landmarks: bool = False  # whether the judge is our own landmark network, no independent one
    ablation: tuple[tuple[str, ...], ...] = ()  # lines of Table 4.1, where runs were judged
    frechet: tuple[Frechet, ...] = ()  # FID, where Inception was given


@dataclass(frozen=True)
class Block:
    """A table to be printed: one pairing, or one comparison of rows in it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    corner: str = ""  # heading of the first column where measures are columns; empty: they are as they should be

    def turned(self) -> Block:
        """The table with its measures as columns."""
        if not self.corner:
            return self
        names, *columns = zip(*self.rows, strict=True)
        lines = tuple((name, *column) for name, column in zip(self.header[1:], columns, strict=True))
        return Block(self.title, (self.corner, *names), lines)


def blocks(report: EvalReport, *, star: str = "not chance") -> list[Block]:
    """One block per pairing, with one line per measure so that it fits a terminal; then the differences.

    `star` says in words what a star behind a difference means.
    """
    made = [Block(_ablation(report), HEADER, report.ablation)] if report.ablation else []
    for pairing, lines in _by_pairing(report.lines).items():
        columns = _used_columns(line.cells for line in lines)
        rows = [("judged", *(judged(line) for line in lines))]
        rows += [(heading(c, report), *(cell(line.cells.get(c.key), c, line) for line in lines)) for c in columns]
        made.append(Block(TITLES[pairing], ("", *(line.row for line in lines)), tuple(rows), "row"))
    for pairing, differences in _by_pairing(report.differences).items():
        columns = _used_columns(d.cells for d in differences)
        rows = [(heading(c, report), *(_difference(d.cells.get(c.key), c) for d in differences)) for c in columns]
        header = ("", *(f"{d.row} - {d.against}" for d in differences))
        made.append(Block(f"{TITLES[pairing]}: paired differences (* = {star})", header, tuple(rows), "rows"))
    if report.frechet:
        made.append(Block(FRECHET, *_frechet(report)))
    return made


def _frechet(report: EvalReport) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Head and rows: one line per row of the table, one column per pairing."""
    cells = {(one.row, one.pairing): f"{one.distance:.1f} ({one.frames})" for one in report.frechet}
    pairings = list(dict.fromkeys(one.pairing for one in report.frechet))
    rows = dict.fromkeys(one.row for one in report.frechet)
    lines = tuple((row, *(cells.get((row, pairing), NONE) for pairing in pairings)) for row in rows)
    return ("", *(TITLES[pairing] for pairing in pairings)), lines


def _ablation(report: EvalReport) -> str:
    """Title of Table 4.1, with the backbone of its perceptual column: the thesis' own is VGG-16."""
    return ABLATION + (f", perceptual by {report.backbone}" if report.backbone else "")


def judged(line: Line) -> str:
    """Number of a row's pairs that were judged, in words."""
    return f"{line.n - line.failed} of {line.n}" + (f", {line.failed} FAILED" if line.failed else "")


def cell(value: Interval | None, column: Column, line: Line | None = None) -> str:
    """Mean and interval as text; the number of clips if it differs from the row's. One clip has no interval."""
    if value is None:
        return NONE
    digits = column.digits
    bounds = f"{value.low:.{digits}f}, {value.high:.{digits}f}" if value.n > 1 else "one clip"
    text = f"{value.mean:.{digits}f} [{bounds}]"
    return text + (f" n={value.n}" if line is not None and 1 < value.n != line.n - line.failed else "")


def _difference(value: Interval | None, column: Column) -> str:
    return cell(value, column) + (" *" if value is not None and value.n > 1 and value.excludes_zero else "")


def heading(column: Column, report: EvalReport) -> str:
    """Heading of a column, with the network it depends on and an arrow in the better direction."""
    network = f", {report.backbone}" if column.key == "perceptual" else ""
    if column.landmarks and report.own_landmarks:
        network = " [our landmarks]"
    return column.title + network + ARROWS[column.better]


def markdown(report: EvalReport) -> str:
    """The report as Markdown: tables with one line per row, failures and protocol."""
    parts = []
    for block in blocks(report, star="interval without 0"):
        table = block.turned()
        parts += [f"### {table.title}", _grid(table.header, table.rows)]
    if report.failures:
        parts += ["### Failures", "\n".join(f"- {line}" for line in failures(report))]
    parts += ["### Order", "\n".join(f"- {line}" for line in order_of(report))]
    parts += ["### Protocol", "\n".join(f"- {line}" for line in report.protocol)]
    return "\n\n".join(parts) + "\n"


def order_of(report: EvalReport) -> list[str]:
    """Sentences on whether real videos are best and wrong sounds worst in every column of lip-sync."""
    if all(line.pairing == GIVEN for line in report.lines):
        return ["No order is known: the audio has no real video that could be the ceiling."]
    if not report.order:
        return ["In every column of lip-sync real videos are best, and each dub is better than a wrong sound."]
    warning = (
        "Not in the order that real videos are best and wrong sounds worst; better than real is a warning, not a win:"
    )
    return [warning, *report.order]


def failures(report: EvalReport) -> list[str]:
    """One line for each failed pair, with the rows that failed and the reason."""
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for verdict in report.failures:
        groups.setdefault((verdict.pairing, verdict.picture, verdict.sound, verdict.error), []).append(verdict.row)
    return [
        f"{pairing}, {picture} with the sound of {sound}, failed for {', '.join(rows)}: {error}"
        for (pairing, picture, sound, error), rows in groups.items()
    ]


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)


def as_csv(report: EvalReport) -> str:
    """The report as CSV: one line per mean and per difference."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["pairing", "kind", "row", "against", "measure", "pairs", "failed", "n", "mean", "low", "high"])
    for line in report.lines:
        for column in COLUMNS:
            head = [line.pairing, "mean", line.row, "", column.key, line.n, line.failed]
            writer.writerow([*head, *_interval_numbers(line.cells.get(column.key))])
    for difference in report.differences:
        for key, value in difference.cells.items():
            head = [difference.pairing, "difference", difference.row, difference.against, key, "", ""]
            writer.writerow([*head, *_interval_numbers(value)])
    for one in report.frechet:
        writer.writerow([one.pairing, "set", one.row, "", "fid", "", "", one.frames, f"{one.distance:.6g}", "", ""])
    return file.getvalue()


def _interval_numbers(value: Interval | None) -> list[object]:
    return [0, "", "", ""] if value is None else [value.n, *(f"{x:.6g}" for x in (value.mean, value.low, value.high))]


def json_line(verdict: Verdict) -> str:
    """Line of the per-clip file for a verdict; columns without a value are null."""
    values = dict.fromkeys(column.key for column in COLUMNS) | dict(verdict.values)
    return json.dumps(asdict(verdict) | {"values": values}, allow_nan=False)


def protocol(
    options: EvalOptions,
    clips: Sequence[Clip],
    pairs: Sequence[Pair],
    without: Mapping[str, int],
    *,
    judge: str,
    size: int,
    by_expert: bool,
    files: Mapping[str, str],
    missing: Sequence[str],
) -> tuple[str, ...]:
    """Sentences on how the figures were measured, printed with every table.

    `without` counts the pictures that no sound fits, by pairing; `size` is that of the judged crops in pixels; `files`
    has file and sum of each row and network; `missing` names measures without a network.
    """
    source, no_third = str(options.clips), 0 if options.audio else sum(pair.foreign is None for pair in pairs)
    if options.audio is not None:
        source += f" with the audio {options.audio}"
    if options.dataset is not None:
        source += f", split {options.split} of {options.dataset} (without what prepare dropped)"
    speakers = len({clip.speaker for clip in clips})
    counts = ", ".join(f"{key} {n}" for key, n in Counter(pair.pairing for pair in pairs).items())
    lost = "; ".join(f"{key}: {n} pictures have no fitting sound" for key, n in without.items() if n)
    lines = [
        f"lipdub {__version__}; {len(clips)} clips of {speakers} speakers from {source}; "
        f"first {options.seconds:g} s of each; seed {options.seed}; pairs: {counts}" + (f"; {lost}" if lost else ""),
        *(f"{name}: {text}" for name, text in files.items()),
        "Rows of one pairing are judged on the same pairs. real = the sound's own video (r against itself is 1 by "
        "definition); real, other sound = a third real video; source untouched = the picture before dubbing."
        + (f" {no_third} pairs have no third clip." if no_third else ""),
        f"Judge: {judge}",
        f"Mouth opening: inner lips over outer eye corners. r, z: on curves minus their mean over {HIGH_PASS} frames; "
        f"r is the best within +-{LAG} frame, z its distance from circular shifts of {FAR} frames and more.",
        "Clips are taken as they are: where a source's own sound and lips lie apart, that is not corrected.",
        f"Pictures: aligned crops of {size} pixels, placed by the judge's landmarks of the real picture. "
        "Expert, vL, jitter: every row. PSNR, perceptual, LMD: own sound only, where the true frames are known.",
        f"Offset: where lips and sound fit best within +-{REACH} frames of 25 a second, "
        + ("by the lip-sync expert" if by_expert else "by mouth opening and loudness")
        + "; opening with loudness: their correlation without a shift, less the median over all shifts.",
        "Change outside the mouth: mean difference from the source in the rest of the crop, grey levels; one encode "
        "makes about 1.",
        f"Closures: lips of the sound's own video together inside speech (opening under {100 * CLOSED_SHARE:g} % of "
        f"its {OPEN_PERCENTILE:g}th percentile for {1000 * CLOSED_S:g} ms); made: the dub's, too, +-{LAG} frame; "
        "by chance: the same for its curve shifted; rank: of its opening there, 0.5 = chance. Width r: as opening r.",
        f"Second contour: an edge below the lips, {SECOND_CONTOUR:g} grey levels a pixel stronger than in the best "
        "fitting frame of the source; 1 % of real frames have one. Interior, vL within the lips: where lips part.",
        f"Silence: {-SILENT_DB:g} dB below the loud parts; motion there is in percent of the same mouth's in speech.",
        *([f"Not measured: {', '.join(missing)}."] if missing else []),
        f"Cells: mean and {COVERAGE:g} % bootstrap interval ({DRAWS} draws of clips) over the clips that could be "
        "judged; failures are counted beside them, and a mean over fewer clips than judged says its n. Below some ten "
        "clips the intervals are too narrow.",
    ]
    return tuple(lines)


Entry = TypeVar("Entry", Line, Difference)


def _by_pairing(items: Sequence[Entry]) -> dict[str, list[Entry]]:
    groups: dict[str, list[Entry]] = {}
    for item in items:
        groups.setdefault(item.pairing, []).append(item)
    return groups


def _used_columns(cells: Iterable[Mapping[str, Interval]]) -> list[Column]:
    keys = {key for each in cells for key in each}
    return [column for column in COLUMNS if column.key in keys]
