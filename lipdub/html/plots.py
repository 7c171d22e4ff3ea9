"""Plots as inline SVG.

Colours are those of Okabe and Ito, for colour-blind readers; text takes the page's style.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
WIDTH = 720  # of the view box; a page scales it to its own width
LEFT, RIGHT, BOTTOM = 48, 10, 22  # margins, in the same units
ROW = 22  # height of a row of `intervals`
NARROW, NAMES = 460, 140  # width of `intervals`, and what its names take of it
MOST_POINTS = 1500  # of a line; longer ones are thinned


@dataclass(frozen=True)
class Curve:
    """One line of `curves`."""

    name: str
    times_s: NDArray[np.floating]
    values: NDArray[np.floating]
    low: float = math.inf  # its scale starts here, or at its smallest value, ...
    high: float = -math.inf  # ... and ends here, or at its largest


def curves(lines: Sequence[Curve], shaded: Sequence[tuple[float, float]] = (), *, height: int = 130) -> Markup:
    """Plot of lines against time, each on its own scale, since only their timing is compared.

    Lines have two or more points each and finite values; `shaded` are intervals in seconds, shaded behind them.
    """
    start, end = min(float(line.times_s[0]) for line in lines), max(float(line.times_s[-1]) for line in lines)
    floor = height - BOTTOM
    x, parts = _axis(start, end, LEFT, WIDTH - RIGHT, height, top=18, unit=" s")
    parts[:0] = [_bar(x(first), 18, x(last) - x(first), floor - 18, 'class="hush"') for first, last in shaded]
    for number, line in enumerate(lines):
        step = max(1, len(line.values) // MOST_POINTS)
        low, high = min(line.low, float(np.min(line.values))), max(line.high, float(np.max(line.values)))
        scaled = (np.asarray(line.values) - low) / max(high - low, 1e-9)
        places = " ".join(
            f"{x(float(t)):.1f},{floor - (floor - 22) * float(v):.1f}"
            for t, v in zip(line.times_s[::step], scaled[::step], strict=True)
        )
        parts.append(f'<polyline points="{places}" fill="none" stroke="{_colour(number)}" stroke-width="1.6"/>')
    return _svg(height, Markup("".join(parts)) + _legend([line.name for line in lines]))


def intervals(rows: Sequence[tuple[str, float, float, float]], *, digits: int) -> Markup:
    """Plot of a mean and its interval for each row: name, mean, low, high."""
    low, high = min(row[2] for row in rows), max(row[3] for row in rows)
    margin = 0.05 * (high - low) or 0.5
    height = ROW * len(rows) + BOTTOM
    x, ticks = _axis(low - margin, high + margin, NAMES, NARROW - 60, height)
    parts = Markup("".join(ticks))
    for number, (name, mean, lower, upper) in enumerate(rows):
        y, colour = ROW * (number + 0.5), _colour(number)
        parts += _name(name, NAMES - 10, y + 4)
        parts += Markup(
            f'<line x1="{x(lower):.1f}" x2="{x(upper):.1f}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>'
            f'<circle cx="{x(mean):.1f}" cy="{y}" r="4.5" fill="{colour}"/>'
            f'<text x="{NARROW - 50}" y="{y + 4:.1f}">{mean:.{digits}f}</text>'
        )
    return _svg(height, parts, NARROW)


def timeline(
    rows: Sequence[tuple[str, Sequence[tuple[float, float]]]], cuts: Sequence[float], seconds: float
) -> Markup:
    """Plot of bars against time in seconds, one row for each name; cuts are lines through all rows."""
    height = ROW * len(rows) + BOTTOM
    x, ticks = _axis(0.0, seconds, LEFT, WIDTH - RIGHT, height, unit=" s", grid=False)
    parts = Markup("".join([*ticks, *(_vertical(x(at_s), 0, height - BOTTOM, "axis") for at_s in cuts)]))
    for number, (name, bars) in enumerate(rows):
        y, fill = ROW * number, f'fill="{_colour(number)}"'
        parts += _name(name, LEFT - 8, y + 15)
        parts += Markup("".join(_bar(x(a), y + 4, max(x(b) - x(a), 1.0), 14, fill) for a, b in bars))
    return _svg(height, parts)


def histogram(groups: Mapping[str, Sequence[float]], edges: NDArray[np.floating]) -> Markup:
    """Counts of each group's values between the edges, side by side; values beyond are counted in the end bins."""
    counts = {n: np.histogram(np.clip(v, edges[0], edges[-1]), edges)[0] for n, v in groups.items()}
    highest = max(1, max(int(c.max()) for c in counts.values()))
    height = 150
    floor, wide = height - BOTTOM, (WIDTH - LEFT - RIGHT) / (len(edges) - 1)
    bar, parts = 0.86 * wide / len(counts), []
    for number, count in enumerate(counts.values()):
        for place, n in ((place, n) for place, n in enumerate(count.tolist()) if n):
            tall, left = (floor - 22) * n / highest, LEFT + wide * (place + 0.07) + bar * number
            parts.append(_bar(left, floor - tall, bar, tall, f'fill="{_colour(number)}"'))
    for place in range(0, len(edges) - 1, math.ceil(len(edges) / 16)):
        middle = (edges[place] + edges[place + 1]) / 2
        parts.append(_label(LEFT + wide * (place + 0.5), height, f"{middle:+.0f}"))
    parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}" class="axis"/>')
    parts.append(f'<text x="{LEFT - 6}" y="26" text-anchor="end">{highest}</text>')
    return _svg(height, Markup("".join(parts)) + _legend(list(counts)))


def _axis(
    low: float, high: float, left: int, right: int, height: int, *, top: int = 0, unit: str = "", grid: bool = True
) -> tuple[Callable[[float], float], list[str]]:
    """Where a number lies on a plot's horizontal axis, and the axis' round numbers, with lines above them."""

    def x(value: float) -> float:
        return left + (right - left) * (value - low) / max(high - low, 1e-6)

    ticks = _ticks(low, high)
    lines = [_vertical(x(value), top, height - BOTTOM) for value in ticks if grid]
    return x, [*lines, *(_label(x(value), height, f"{value:g}{unit}") for value in ticks)]


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _bar(x: float, y: float, width: float, height: float, style: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" {style}/>'


def _name(name: str, x: float, y: float) -> Markup:
    """Name of a row, which ends at x."""
    return Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(x, y, name)


def _vertical(x: float, top: float, bottom: float, kind: str = "grid") -> str:
    """A line across a plot, of a class of the page's style."""
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" class="{kind}"/>'


def _label(x: float, height: int, number: str) -> str:
    """A number below a plot."""
    return f'<text x="{x:.1f}" y="{height - 6}" text-anchor="middle">{number}</text>'


def _legend(names: Sequence[str]) -> Markup:
    parts, x = Markup(""), float(LEFT)
    for number, name in enumerate(names):
        parts += Markup(_bar(x, 3, 10, 10, f'fill="{_colour(number)}"'))
        parts += Markup('<text x="{:.0f}" y="12">{}</text>').format(x + 14, name)
        x += 34 + 6.6 * len(name)
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """About six round numbers between two values."""
    rough = (high - low) / 6
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [round(step * n, 10) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _svg(height: int, inside: Markup, width: int = WIDTH) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img">{}</svg>').format(width, height, inside)
