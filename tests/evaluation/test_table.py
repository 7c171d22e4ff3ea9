from __future__ import annotations

import math

import numpy as np
import pytest

from lipdub.evaluation.report import cell
from lipdub.evaluation.table import (
    COLUMNS,
    Interval,
    Line,
    Verdict,
    compare,
    interval,
    order,
    paired_difference,
    tabulate,
)


def test_interval_of_two_values_is_known() -> None:
    found = interval([0.0, 1.0])  # means of the draws: 0, 1/2, 1 with chances 1/4, 1/2, 1/4
    assert (found.mean, found.low, found.high, found.n) == (0.5, 0.0, 1.0, 2)
    assert not found.excludes_zero


def test_interval_is_about_two_standard_errors_wide() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    found = interval(list(values))
    error = values.std() / 20
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert found.excludes_zero


def test_one_value_has_no_width_and_seeds_are_fixed() -> None:
    assert (interval([2.0]).low, interval([2.0]).high) == (2.0, 2.0)
    values = list(np.random.default_rng(0).normal(size=20))
    assert interval(values) == interval(values) != interval(values, seed=1)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_interval_refuses_what_has_no_mean(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite"):
        interval(values)


def test_paired_difference_known_value() -> None:
    theirs = {"a": 1.0, "b": 5.0, "c": 9.0, "only theirs": 0.0, "failed": math.nan}
    ours = {"a": 1.5, "b": 5.5, "c": 9.5, "only ours": 7.0, "failed": 1.0}
    found = paired_difference(ours, theirs)
    assert found is not None
    assert (found.mean, found.low, found.high, found.n) == (0.5, 0.5, 0.5, 3)
    assert paired_difference({"x": 1.0}, {"y": 1.0}) is None


def verdict(row: str, clip: str, error: str = "", **values: float) -> Verdict:
    return Verdict(row=row, pairing="own", picture=clip, sound=clip, error=error, values=values)


VERDICTS = [
    verdict("real", "a", psnr=30.0, lmd=1.0),
    verdict("real", "b", psnr=20.0),
    verdict("ours", "a", psnr=28.0, lmd=3.0),
    verdict("ours", "b", "no face"),
]


def test_failures_are_counted_and_values_that_are_absent_are_not() -> None:
    real, ours = tabulate(VERDICTS)
    assert (real.row, real.n, real.failed, ours.row, ours.n, ours.failed) == ("real", 2, 0, "ours", 2, 1)
    assert (real.cells["psnr"].mean, real.cells["psnr"].n, real.cells["lmd"].n) == (25.0, 2, 1)
    assert (ours.cells["psnr"].mean, ours.cells["psnr"].n) == (28.0, 1)
    assert set(ours.cells) == {"psnr", "lmd"}


def test_rows_are_compared_on_the_clips_that_both_have() -> None:
    (found,) = compare(VERDICTS, "ours", "real")
    assert (found.pairing, found.row, found.against) == ("own", "ours", "real")
    assert (found.cells["psnr"].mean, found.cells["psnr"].n, found.cells["lmd"].mean) == (-2.0, 1, 2.0)
    assert compare(VERDICTS, "ours", "nosuch") == []


def test_a_cell_says_what_it_rests_on() -> None:
    column = next(column for column in COLUMNS if column.key == "psnr")
    line = Line(pairing="own", row="ours", n=5, failed=1, cells={})
    assert cell(None, column, line) == "-"
    assert cell(Interval(1.234, 1.0, 2.0, 4), column, line) == "1.23 [1.00, 2.00]"
    assert cell(Interval(1.234, 1.0, 2.0, 3), column, line) == "1.23 [1.00, 2.00] n=3"
    assert cell(Interval(1.234, 1.234, 1.234, 1), column, line) == "1.23 [one clip]"


def test_what_is_better_than_real_or_worse_than_a_wrong_sound_is_told() -> None:
    def line(row: str, r: float, loss: float, psnr: float) -> Line:
        cells = {"opening_r": r, "expert": loss, "psnr": psnr}
        return Line(pairing="own", row=row, n=1, failed=0, cells={k: interval([v]) for k, v in cells.items()})

    lines = [line("real", 1.0, 0.5, 0.0), line("foreign", 0.2, 1.5, 0.0), line("a", 0.6, 0.9, 30.0)]
    assert order(lines, "real", "foreign", ("real", "foreign")) == []
    lines.append(line("b", 0.1, 0.4, 30.0))
    assert order(lines, "real", "foreign", ("real", "foreign")) == [
        "own, expert loss (8): b is better than real",
        "own, opening r: b is worse than a wrong sound",
    ]
