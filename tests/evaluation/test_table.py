from __future__ import annotations

import math

import numpy as np
import pytest

from lipdub.evaluation.table import interval, paired_difference


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
